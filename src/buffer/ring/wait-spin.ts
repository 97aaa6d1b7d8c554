/**
 * Waits by looking again and again: lowest latency, one processor busy. The pause between looks grows a little, so that a fast reader doesn't
 * take the producer's cache line away at every record (with it a slow producer gets on with a batch).
 */
import { pause } from "./pause";
import type { WaitGate, WaitResult, WaitStrategy } from "./wait-strategy";

const LOOKS_PER_CLOCK = 16;
/** About a microsecond: measured best of 16 to 1024 between two threads (bench/ring.ts). */
const PAUSE_MAX = 1024;

/** Spinning. */
export class SpinWait implements WaitStrategy {
  readonly name = "spin";

  waitSync(gate: WaitGate, timeoutMs: number): WaitResult {
    const deadline = performance.now() + timeoutMs;
    let steps = 16;
    for (;;) {
      for (let look = 0; look < LOOKS_PER_CLOCK; look++) {
        const state = gate.state();
        if (state !== undefined) return state;
        pause(steps);
        if (steps < PAUSE_MAX) steps += steps;
      }
      if (performance.now() >= deadline) return "timeout";
    }
  }

  /** Gives the event loop a turn between looks. */
  async wait(gate: WaitGate, timeoutMs: number, aborted: AbortSignal | undefined): Promise<WaitResult> {
    const deadline = performance.now() + timeoutMs;
    for (;;) {
      const state = gate.state();
      if (state !== undefined) return state;
      if (aborted?.aborted === true || performance.now() >= deadline) return "timeout";
      await new Promise((resolve) => setImmediate(resolve));
    }
  }
}
