/**
 * The places of readers in the shared header: joining, leaving, and the gate that producers of a drop-newest ring must not pass.
 *
 * Why a slot is never overwritten under a reader that joins meanwhile: `gate` is raised to a new minimum *before* the producer looks at the
 * places a second time, and a joiner makes its place active *before* it looks at `gate`. All four are sequentially consistent, so either the
 * producer sees the joiner and keeps behind it, or the joiner sees the raised gate and moves up to it. `gate` never falls.
 */
import { BeamtraceError } from "../../erlang/errors";
import { CELL, PLACE, PLACE_STATE } from "./layout";
import type { RingMemory } from "./layout";

/** Cell at which a place begins. */
export function placeCell(index: number): number {
  return CELL.places + index * PLACE.cells;
}

/** Is somebody at this place? */
export function isOccupied(state: number): boolean {
  return (state & PLACE_STATE.mask) !== PLACE_STATE.free;
}

/** Takes a free place (state `joining`: producers don't look at it yet). Returns its index. Throws `BT_RING_INVALID` when all are taken. */
export function takePlace(memory: RingMemory): number {
  const { cells, maxReaders } = memory;
  for (let index = 0; index < maxReaders; index++) {
    const at = placeCell(index) + PLACE.state;
    const state = Atomics.load(cells, at);
    if (isOccupied(state)) continue;
    if (Atomics.compareExchange(cells, at, state, state | PLACE_STATE.joining) === state) {
      raiseTo(cells, CELL.placesUsed, index + 1);
      return index;
    }
  }
  throw new BeamtraceError(
    "BT_RING_INVALID",
    `All ${maxReaders} places for readers are taken: close a reader, evict a dead one (ring.evict), or raise maxReaders.`,
  );
}

/** Makes a joining place active. Returns the state that its reader checks itself by. */
export function activatePlace(memory: RingMemory, index: number): number {
  const at = placeCell(index) + PLACE.state;
  const state = (Atomics.load(memory.cells, at) & ~PLACE_STATE.mask) | PLACE_STATE.active;
  Atomics.store(memory.cells, at, state);
  return state;
}

/** Frees a place that is in the given state. Returns false when it was no longer. */
export function freePlace(memory: RingMemory, index: number, state: number): boolean {
  // What this reader has released stays released, also when it was the last one.
  if (memory.overflow === "drop-newest" && (state & PLACE_STATE.mask) === PLACE_STATE.active)
    raiseTo(memory.cells, CELL.gate, lowestCursor(memory.cells));
  const free = ((state & ~PLACE_STATE.mask) + PLACE_STATE.generation) | PLACE_STATE.free;
  return Atomics.compareExchange(memory.cells, placeCell(index) + PLACE.state, state, free | 0) === state;
}

/** Lowest cursor (low word) of the active readers; the gate where it is when there is none. */
function lowestCursor(cells: Int32Array): number {
  const gate = Atomics.load(cells, CELL.gate);
  const end = CELL.places + Atomics.load(cells, CELL.placesUsed) * PLACE.cells;
  let lowest = 0;
  let some = false;
  for (let at: number = CELL.places; at < end; at += PLACE.cells) {
    if ((Atomics.load(cells, at + PLACE.state) & PLACE_STATE.mask) !== PLACE_STATE.active) continue;
    const distance = (Atomics.load(cells, at + PLACE.cursor) - gate) | 0;
    if (!some || distance < lowest) lowest = distance;
    some = true;
  }
  return (gate + lowest) | 0;
}

/** Raises a cell that never falls. Returns false when it was there already. */
function raiseTo(cells: Int32Array, cell: number, to: number): boolean {
  for (;;) {
    const before = Atomics.load(cells, cell);
    if (((to - before) | 0) <= 0) return false;
    if (Atomics.compareExchange(cells, cell, before, to) === before) return true;
  }
}

/** First position (low word) that a producer must leave alone: everything before it has been released by every reader. */
export function gateOf(cells: Int32Array): number {
  const first = lowestCursor(cells);
  if (!raiseTo(cells, CELL.gate, first)) return first;
  const second = lowestCursor(cells);
  return ((second - first) | 0) < 0 ? second : first;
}
