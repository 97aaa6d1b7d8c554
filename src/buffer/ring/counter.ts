/**
 * 62-bit counters in shared 32-bit cells: exact beyond 2^32 without BigInt, and one atomic operation on the hot path.
 * A counter is two cells: `low` = value mod 2^32 (changed with every step) and `epoch` = floor(value / 2^30), changed once in 2^30 steps,
 * after `low`. The epoch may lag by one; bit 30 of `low` tells (it is the parity of the true epoch), so every reader can correct it.
 */

/** Steps of one epoch. A single step must be smaller. */
export const EPOCH_STEPS = 0x4000_0000;
const LOW_MASK = EPOCH_STEPS - 1;

/** Cell of the epoch, relative to the cell of the low word. */
const EPOCH = 1;

/** Does going from `before` to `after` (low words) cross an epoch? */
export function crossesEpoch(before: number, after: number): boolean {
  return ((before ^ after) & EPOCH_STEPS) !== 0;
}

/** The low word and epoch of a value; for laying out a ring. */
export function splitCounter(value: bigint): { low: number; epoch: number } {
  return { low: Number(BigInt.asIntN(32, value)), epoch: Number(BigInt.asIntN(32, value >> 30n)) };
}

/** Value minus origin, of a low word and an epoch that may lag by one. Exact up to 2^53. */
export function counterDistance(low: number, epoch: number, originLow: number, originEpoch: number): number {
  const lag = ((low >>> 30) ^ epoch) & 1;
  return ((epoch + lag - originEpoch) | 0) * EPOCH_STEPS + ((low & LOW_MASK) - (originLow & LOW_MASK));
}

/**
 * Reads a counter that others may be changing, as distance from an origin. `shift` is 1 for a cell that keeps a flag in its lowest bit.
 *
 * The epoch is read before and after; when it did not change, the true epoch at the moment of `low` was that or one more.
 */
export function readCounter(
  cells: Int32Array,
  at: number,
  originLow = 0,
  originEpoch = 0,
  shift: 0 | 1 = 0,
): number {
  for (;;) {
    const epoch = Atomics.load(cells, at + EPOCH);
    const low = Atomics.load(cells, at) >>> shift;
    if (Atomics.load(cells, at + EPOCH) === epoch) return counterDistance(low, epoch, originLow, originEpoch);
  }
}

/** The low word (32 bits) of a counter, also where its cell holds only 31 of them. */
export function readLow(cells: Int32Array, at: number, shift: 0 | 1 = 0): number {
  for (;;) {
    const epoch = Atomics.load(cells, at + EPOCH);
    const low = Atomics.load(cells, at) >>> shift;
    if (Atomics.load(cells, at + EPOCH) === epoch)
      return ((epoch + (((low >>> 30) ^ epoch) & 1)) << 30) | (low & LOW_MASK);
  }
}

/** Sets a counter that nobody else changes; `low` moves by less than an epoch. */
export function storeCounter(cells: Int32Array, at: number, before: number, after: number): void {
  Atomics.store(cells, at, after);
  if (((before ^ after) & EPOCH_STEPS) !== 0) Atomics.add(cells, at + EPOCH, 1);
}

/** Adds any whole number ≥ 0 to a counter that several threads may change. */
export function addCounter(cells: Int32Array, at: number, n: number): void {
  const step = 1 << 24;
  for (let rest = n; rest > 0; rest -= step) {
    Atomics.add(cells, at, rest < step ? rest : step);
    repairEpoch(cells, at);
  }
}

/**
 * Brings a lagging epoch up to date. Anybody may call it at any time, so a thread that dies right after it has moved `low` does no harm.
 * The epoch is read before `low`: if they differ in parity the epoch lags, whatever happened in between.
 */
export function repairEpoch(cells: Int32Array, at: number, shift: 0 | 1 = 0): void {
  const epoch = Atomics.load(cells, at + EPOCH);
  const low = Atomics.load(cells, at) >>> shift;
  if ((((low >>> 30) ^ epoch) & 1) !== 0) Atomics.compareExchange(cells, at + EPOCH, epoch, (epoch + 1) | 0);
}

/** Writes a counter that nobody else changes, whatever its distance from the old value: number of steps from an origin. Not atomic as a whole. */
export function writeCounter(
  cells: Int32Array,
  at: number,
  value: number,
  originLow = 0,
  originEpoch = 0,
): void {
  const fromEpochStart = (originLow & LOW_MASK) + value;
  Atomics.store(cells, at, (originLow + value) | 0);
  Atomics.store(cells, at + EPOCH, (originEpoch + Math.floor(fromEpochStart / EPOCH_STEPS)) | 0);
}
