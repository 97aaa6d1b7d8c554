/** `beamtrace/erlang`: Erlang terms and the external term format. */
export * from "./errors";
export * from "./term";
export * from "./dist";
export * from "./etf";
export * from "./beam-file";
