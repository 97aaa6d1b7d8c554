/** The worker of worker-consumer.ts: counts events by kind until the ring is closed. */
import { parentPort, workerData } from "node:worker_threads";
import { RingBuffer, ringSource } from "beamtrace/buffer";

const counts = {};
await ringSource(RingBuffer.from(workerData)).batches$.forEach((batch) => {
  for (let i = 0; i < batch.length; i++) counts[batch.kind(i)] = (counts[batch.kind(i)] ?? 0) + 1;
});
parentPort.postMessage(counts);
