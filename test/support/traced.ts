/**
 * Attaching to test nodes, and collecting what a trace delivers.
 */
import { attach, type AttachOptions, type Session } from "../../src/capture";
import type { TraceEvent } from "../../src/buffer";
import type { Trace } from "../../src/capture";
import { eventually, type ErlNode } from "./erl-node";

/** Attaches to a test node. */
export function attachTo(node: ErlNode, options: AttachOptions = {}): Promise<Session> {
  return attach(node.name, { cookie: node.cookie, epmd: { port: node.epmdPort }, ...options });
}

/** Everything that a trace delivers, as it comes. */
export interface Collected {
  readonly events: TraceEvent[];
  /** Resolves when the trace has completed. */
  readonly done: Promise<void>;
  /** Waits until so many events have come that the predicate holds. */
  until(holds: (events: readonly TraceEvent[]) => boolean): Promise<readonly TraceEvent[]>;
}

export function collect(trace: Trace): Collected {
  const events: TraceEvent[] = [];
  const done = trace.events$.forEach((event) => void events.push(event));
  return {
    events,
    done,
    until: async (holds) => {
      await eventually(
        () => events,
        (all) => holds(all),
      ).catch(() => {
        throw new Error(
          `the events did not come; there are ${events.length}: ${events
            .slice(-20)
            .map((e) => e.kind)
            .join(" ")}`,
        );
      });
      return events;
    },
  };
}
