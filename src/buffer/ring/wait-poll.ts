/**
 * Waits by looking once in an interval. Costs producers nothing, not even a wake-up; adds up to the interval to the latency.
 */
import type { WaitGate, WaitResult, WaitStrategy } from "./wait-strategy";

/** Polling. */
export class PollWait implements WaitStrategy {
  readonly name = "poll";
  readonly intervalMs: number;
  private readonly clock = new Int32Array(new SharedArrayBuffer(4));

  constructor(intervalMs = 10) {
    this.intervalMs = intervalMs;
  }

  waitSync(gate: WaitGate, timeoutMs: number): WaitResult {
    const deadline = performance.now() + timeoutMs;
    for (;;) {
      const state = gate.state();
      if (state !== undefined) return state;
      const rest = deadline - performance.now();
      if (rest <= 0) return "timeout";
      Atomics.wait(this.clock, 0, 0, Math.min(rest, this.intervalMs));
    }
  }

  async wait(gate: WaitGate, timeoutMs: number, aborted: AbortSignal | undefined): Promise<WaitResult> {
    const deadline = performance.now() + timeoutMs;
    for (;;) {
      const state = gate.state();
      if (state !== undefined) return state;
      const rest = deadline - performance.now();
      if (rest <= 0 || aborted?.aborted === true) return "timeout";
      await new Promise<void>((resolve) => {
        const timer = setTimeout(done, Math.min(rest, this.intervalMs));
        aborted?.addEventListener("abort", done);
        function done(): void {
          clearTimeout(timer);
          aborted?.removeEventListener("abort", done);
          resolve();
        }
      });
    }
  }
}
