/** A consumer in a worker thread: the ring is shared, the main thread only feeds it. */
import { Worker } from "node:worker_threads";
import { attach, RingBuffer } from "beamtrace";
import { node, options } from "./target";

const ring = new RingBuffer({ capacity: 1 << 16, overflow: "drop-newest" });
const worker = new Worker(new URL("./worker-consumer.worker.mjs", import.meta.url), {
  workerData: ring.handle,
});
const result = new Promise<Record<string, number>>((resolve, reject) =>
  worker.once("message", resolve).once("error", reject),
);

await using session = await attach(node, options);
const trace = await session.trace({
  processes: "all",
  events: ["procs", "send", "receive"],
  limits: { seconds: 2 },
  into: ring,
});
await trace.ended;
ring.close();

console.log("counted by the worker:", await result);
await worker.terminate();
