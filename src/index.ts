/**
 * beamtrace: attach to live Erlang and Elixir nodes, and turn what their virtual machine does into streams.
 * The parts are also there one by one: `beamtrace/erlang`, `beamtrace/buffer`, `beamtrace/capture`, `beamtrace/transform`.
 */
export * from "./capture";
export * from "./buffer";
export * from "./erlang/errors";
