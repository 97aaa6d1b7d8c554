/**
 * Waits by sleeping in the kernel until a producer publishes: `Atomics.wait` in `waitSync`, `Atomics.waitAsync` in `wait`. The default.
 * `waitAsync` alone doesn't keep a Node process alive, so a timer is held while a promise is pending.
 */
import { pause } from "./pause";
import type { WaitGate, WaitResult, WaitStrategy } from "./wait-strategy";

/** Looks before going to sleep: a few microseconds, less than sleeping and being woken costs. */
const LOOKS = 64;
const PAUSE = 64;

/** Longest time a timer can hold. */
const LONGEST_MS = 2 ** 31 - 1;

/** Parking. */
export class ParkWait implements WaitStrategy {
  readonly name = "park";

  waitSync(gate: WaitGate, timeoutMs: number): WaitResult {
    for (let look = 0; look < LOOKS; look++) {
      const state = gate.state();
      if (state !== undefined) return state;
      pause(PAUSE);
    }
    const deadline = performance.now() + timeoutMs;
    for (;;) {
      const state = gate.state();
      if (state !== undefined) return state;
      const rest = deadline - performance.now();
      if (rest <= 0) return "timeout";
      const value = gate.announceSleep();
      if (value !== undefined) Atomics.wait(gate.cells, gate.cell, value, rest);
    }
  }

  async wait(gate: WaitGate, timeoutMs: number, aborted: AbortSignal | undefined): Promise<WaitResult> {
    const deadline = performance.now() + timeoutMs;
    for (;;) {
      const state = gate.state();
      if (state !== undefined) return state;
      const rest = deadline - performance.now();
      if (rest <= 0 || aborted?.aborted === true) return "timeout";
      const value = gate.announceSleep();
      if (value === undefined) continue;
      const woken = Atomics.waitAsync(gate.cells, gate.cell, value);
      if (woken.async) await this.sleep(gate, woken.value, rest, aborted);
    }
  }

  /** A sleeper can't be withdrawn, so when time is over everyone is woken; those that aren't meant go back to sleep. */
  private async sleep(
    gate: WaitGate,
    woken: Promise<unknown>,
    restMs: number,
    aborted: AbortSignal | undefined,
  ): Promise<void> {
    const wakeAll = () => void Atomics.notify(gate.cells, gate.cell);
    const timer = setTimeout(wakeAll, Math.min(Math.ceil(restMs), LONGEST_MS));
    aborted?.addEventListener("abort", wakeAll);
    try {
      await woken;
    } finally {
      clearTimeout(timer);
      aborted?.removeEventListener("abort", wakeAll);
    }
  }
}
