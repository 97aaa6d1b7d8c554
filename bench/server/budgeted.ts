/** What runs under `limits.overhead`: a trace of everything, and a flight recorder of everything. */
import { map, type Observable } from "rxjs";
import type { Session } from "../../src/capture";
import type { NodeStats } from "../../src/capture/trace-stats";
import { attachTo } from "./beamtrace";
import { CountedTrace } from "./counted-trace";
import type { TraceCount, Variant } from "./variant";

const EVENTS = ["send", "receive", "procs"] as const;

/** What the budget made of a block. */
export interface Decision {
  readonly share: number;
  readonly estimate: number;
  readonly eventNs: number;
  readonly changes: number;
}

/** What runs during a block. */
interface Run {
  readonly stats$: Observable<NodeStats>;
  stats(): NodeStats;
  count?(): TraceCount;
  /** Ends it; throws when what it has is not what it should have. */
  stop(): Promise<void>;
}

/** A session of its own for each block, and in it what `begin` begins. */
function budgeted(
  tracer: "native" | "portable",
  decisions: Decision[],
  begin: (session: Session) => Promise<Run>,
): Variant {
  let session: Session | undefined;
  let run: Run | undefined;
  let changes = 0;
  return {
    name: "budget",
    async start(node) {
      session = await attachTo(node, { tracer });
      run = await begin(session);
      changes = 0;
      let before = 1;
      run.stats$.subscribe(({ share }) => {
        if (share !== before) changes += 1;
        before = share;
      });
    },
    count: () => Promise.resolve(run?.count?.()),
    async stop() {
      if (run !== undefined) {
        const { share, overhead, eventNs } = run.stats();
        decisions.push({ share, estimate: overhead, eventNs, changes });
      }
      try {
        await run?.stop();
      } finally {
        await session?.close();
        run = undefined;
        session = undefined;
      }
    },
  };
}

/** A trace of everything under an overhead budget. */
export const budgetedTrace = (
  overhead: number,
  tracer: "native" | "portable",
  decisions: Decision[],
): Variant =>
  budgeted(tracer, decisions, async (session) => {
    const counted = await CountedTrace.start(session, {
      processes: "all",
      events: EVENTS,
      limits: { rate: Infinity, seconds: 600, overhead },
    });
    const { trace } = counted;
    return {
      stats$: trace.stats$.pipe(map(({ node }) => node)),
      stats: () => trace.stats.node,
      count: () => ({ delivered: counted.delivered, lost: counted.lost }),
      stop: () => counted.stop(),
    };
  });

/** A flight recorder of everything under an overhead budget. Its window, at the end of a block, must be there and not empty. */
export const budgetedRecorder = (overhead: number, decisions: Decision[]): Variant =>
  budgeted("native", decisions, async (session) => {
    const recorder = await session.flightRecorder({
      events: EVENTS,
      triggers: [{ on: "exit" }],
      limits: { rate: Infinity, seconds: 600, overhead },
    });
    return {
      stats$: recorder.stats$,
      stats: () => recorder.stats,
      async stop() {
        const { events } = await recorder.snapshot();
        if (events === 0) throw new Error("the window is empty");
        await recorder.stop();
      },
    };
  });
