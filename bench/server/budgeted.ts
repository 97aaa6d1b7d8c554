/** What runs under `limits.overhead`: a trace of everything, and a flight recorder of everything. */
import type { FlightRecorder, Session } from "../../src/capture";
import type { NodeStats } from "../../src/capture/trace-stats";
import { attachTo } from "./beamtrace";
import { CountedTrace } from "./counted-trace";
import type { Variant } from "./variant";

const EVENTS = ["send", "receive", "procs"] as const;

/** What the budget made of a block. */
export interface Decision {
  readonly share: number;
  readonly estimate: number;
  readonly eventNs: number;
  readonly changes: number;
}

/** Remembers how the share of a run changes. */
class Shares {
  changes = 0;
  #before = 1;

  readonly see = ({ share }: NodeStats): void => {
    if (share !== this.#before) this.changes += 1;
    this.#before = share;
  };

  decision({ share, overhead, eventNs }: NodeStats): Decision {
    return { share, estimate: overhead, eventNs, changes: this.changes };
  }
}

/** A trace of everything under an overhead budget. */
export function budgetedTrace(
  overhead: number,
  tracer: "native" | "portable",
  decisions: Decision[],
): Variant {
  let session: Session | undefined;
  let counted: CountedTrace | undefined;
  let shares = new Shares();
  return {
    name: "budget",
    async start(node) {
      session = await attachTo(node, { tracer });
      shares = new Shares();
      counted = await CountedTrace.start(session, {
        processes: "all",
        events: EVENTS,
        limits: { rate: Infinity, seconds: 600, overhead },
      });
      counted.trace.stats$.subscribe(({ node }) => shares.see(node));
    },
    count: () => Promise.resolve({ delivered: counted?.delivered ?? 0, lost: counted?.lost ?? 0 }),
    async stop() {
      if (counted !== undefined) decisions.push(shares.decision(counted.trace.stats.node));
      try {
        await counted?.stop();
      } finally {
        await session?.close();
        counted = undefined;
        session = undefined;
      }
    },
  };
}

/** A flight recorder of everything under an overhead budget. Its window, at the end of a block, must be there and not empty. */
export function budgetedRecorder(overhead: number, decisions: Decision[]): Variant {
  let session: Session | undefined;
  let recorder: FlightRecorder | undefined;
  let shares = new Shares();
  return {
    name: "budget",
    async start(node) {
      session = await attachTo(node, { tracer: "native" });
      shares = new Shares();
      recorder = await session.flightRecorder({
        events: EVENTS,
        triggers: [{ on: "exit" }],
        limits: { rate: Infinity, seconds: 600, overhead },
      });
      recorder.stats$.subscribe(shares.see);
    },
    async stop() {
      if (recorder !== undefined) decisions.push(shares.decision(recorder.stats));
      try {
        const recording = await recorder?.snapshot();
        if (recording?.events === 0) throw new Error("the window is empty");
        await recorder?.stop();
      } finally {
        await session?.close();
        recorder = undefined;
        session = undefined;
      }
    },
  };
}
