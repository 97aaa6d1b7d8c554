/**
 * Waking sleeping readers. A reader that is going to sleep sets bit 0 of `published`; the producer's exchange of `published` clears it and
 * tells the producer in the same step that somebody sleeps. So publishing costs one atomic operation, and `Atomics.notify` is only
 * called when there is someone to wake.
 */
import { CELL } from "./layout";

/** Wakes everyone that sleeps on the ring. */
export function wake(cells: Int32Array): void {
  Atomics.add(cells, CELL.signal, 1);
  Atomics.notify(cells, CELL.signal);
}

/** Wakes sleepers, if there are any, without publishing. */
export function wakeSleepers(cells: Int32Array): void {
  if ((Atomics.and(cells, CELL.published, ~1) & 1) !== 0) wake(cells);
}
