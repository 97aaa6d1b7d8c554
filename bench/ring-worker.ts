/**
 * The consuming thread of bench/ring.ts: consumes a block of records when told to, and says what their words sum up to.
 */
import { isMainThread, workerData } from "node:worker_threads";
import { RingBuffer as RingbufJs } from "ringbuf.js";
import { RingBuffer } from "../src/buffer/ring-buffer";
import type { RingHandle } from "../src/buffer/ring/handle";
import { oursConsume, theirsConsume } from "./ring-loops";

/** Cells of the control array. */
export const CONTROL = { order: 0, kind: 1, count: 2, ready: 3, done: 4, sum: 5, cells: 32 } as const;
/** Values of `CONTROL.kind`. */
export const KIND = {
  oursPerRecord: 0,
  oursBatched: 1,
  theirsPerRecord: 2,
  theirsBatched: 3,
  stop: 4,
} as const;

/** What the worker is started with. */
export interface RingWorkerData {
  readonly control: SharedArrayBuffer;
  readonly ours: RingHandle;
  readonly theirs: SharedArrayBuffer;
}

function serve(data: RingWorkerData): void {
  const control = new Int32Array(data.control);
  const ours = oursConsume(RingBuffer.from(data.ours));
  const theirs = theirsConsume(new RingbufJs(data.theirs, Uint32Array));
  for (let order = 0; ; order++) {
    Atomics.wait(control, CONTROL.order, order);
    const kind = Atomics.load(control, CONTROL.kind);
    const n = Atomics.load(control, CONTROL.count);
    Atomics.store(control, CONTROL.ready, order + 1);
    let sum = 0;
    switch (kind) {
      case KIND.oursPerRecord:
        sum = ours.perRecord(n);
        break;
      case KIND.oursBatched:
        sum = ours.batched(n);
        break;
      case KIND.theirsPerRecord:
        sum = theirs.perRecord(n);
        break;
      case KIND.theirsBatched:
        sum = theirs.batched(n);
        break;
      default:
        return;
    }
    Atomics.store(control, CONTROL.sum, sum);
    Atomics.store(control, CONTROL.done, order + 1);
  }
}

if (!isMainThread) serve(workerData as RingWorkerData);
