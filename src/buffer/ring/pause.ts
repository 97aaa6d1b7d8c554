/**
 * A pause of nanoseconds to microseconds between two looks at shared memory, for want of a processor's pause instruction in JavaScript.
 */

let sink = 0;

/** Spends about a nanosecond a step without touching shared memory. */
export function pause(steps: number): void {
  let x = sink;
  for (let i = 0; i < steps; i++) x = (x * 31 + i) | 0;
  sink = x;
}
