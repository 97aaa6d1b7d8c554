/**
 * A decoder of one's own: from messages to gen_server calls with their duration. It is a plain RxJS operator over events,
 * so it runs on a live trace and on a recording alike. Prints ten calls.
 */
import { attach, type TraceEvent } from "beamtrace";
import { Observable, take, type OperatorFunction } from "rxjs";
import { node, options, show } from "./target";

interface ServerCall {
  readonly caller: string;
  readonly server: string;
  readonly request: string;
  readonly micros: number;
}

/** Joins `{'$gen_call', From, Request}` with the `{Tag, Reply}` that its sender receives next: a call blocks its caller. */
function serverCalls(): OperatorFunction<TraceEvent, ServerCall> {
  return (events$) =>
    new Observable((subscriber) => {
      const open = new Map<object, Omit<ServerCall, "micros"> & { at: number }>();
      const next = (event: TraceEvent): void => {
        if (event.kind === "send" && event.shape.tags[0] === "$gen_call") {
          open.set(event.process, {
            caller: show(event.process),
            server: show(event.to),
            request: event.shape.tags[1] ?? event.shape.type,
            at: event.timestamp,
          });
        } else if (event.kind === "receive" && event.shape.type === "tuple" && event.shape.size === 2) {
          const call = open.get(event.process);
          if (call === undefined || event.shape.tags[0]) return; // the tag of a reply is a reference, not an atom
          open.delete(event.process);
          subscriber.next({ ...call, micros: (event.timestamp - call.at) / 1000 });
        } else if (event.kind === "exit") open.delete(event.process);
      };
      return events$.subscribe({
        next,
        error: (error: unknown) => subscriber.error(error),
        complete: () => subscriber.complete(),
      });
    });
}

await using session = await attach(node, options);
const trace = await session.trace({
  processes: "all",
  events: ["send", "receive", "exit"],
  limits: { seconds: 10 },
});
await trace.events$.pipe(serverCalls(), take(10)).forEach(({ caller, server, request, micros }) => {
  console.log(`${caller} → ${server} ${request}: ${micros.toFixed(1)} µs`);
});
