/**
 * A decoder of one's own: from events to gen_server calls with their duration. A decoder is a plain RxJS operator,
 * so it runs on a live trace and on a recording alike.
 */
import { attach, type TraceEvent } from "beamtrace";
import { inspect, type Pid } from "beamtrace/erlang";
import { filter, map, pipe, take, type OperatorFunction } from "rxjs";
import { node, options } from "./target";

interface ServerCall {
  readonly caller: string;
  readonly server: string;
  readonly request: string;
  readonly micros: number;
}

/** Joins `{'$gen_call', _, _}` with the caller's next received `{Ref, Reply}`: a gen_server call blocks its caller. */
function genServerCalls(): OperatorFunction<TraceEvent, ServerCall> {
  const open = new Map<object, { server: string; request: string; at: number }>();
  return pipe(
    map((event): ServerCall | undefined => {
      if (event.kind === "send" && event.shape.tags[0] === "$gen_call") {
        open.set(event.process, {
          server: inspect(event.to),
          request: event.shape.tags[1] ?? "?",
          at: event.timestamp,
        });
      } else if (event.kind === "receive" && event.shape.type === "tuple" && event.shape.size === 2) {
        const call = open.get(event.process);
        open.delete(event.process);
        if (call)
          return {
            caller: inspect(event.process as Pid),
            server: call.server,
            request: call.request,
            micros: (event.timestamp - call.at) / 1000,
          };
      }
      return undefined;
    }),
    filter((call) => call !== undefined),
  );
}

await using session = await attach(node, options);
const trace = await session.trace({ processes: "all", events: ["send", "receive"], limits: { seconds: 10 } });
await trace.events$.pipe(genServerCalls(), take(10)).forEach((call) => {
  console.log(`${call.caller} → ${call.server} ${call.request}: ${call.micros.toFixed(1)} µs`);
});
