/** A consumer in a worker thread: the ring lies in shared memory, this thread only fills it. */
import { once } from "node:events";
import { Worker } from "node:worker_threads";
import { attach, RingBuffer } from "beamtrace";
import { node, options } from "./target";

const ring = new RingBuffer({ capacity: 1 << 18, overflow: "drop-newest" });
const worker = new Worker(new URL("./worker-consumer.worker.mjs", import.meta.url), {
  workerData: ring.handle,
});
const counted = once(worker, "message");

await using session = await attach(node, options);
const trace = await session.trace({
  processes: "all",
  events: ["procs", "send", "receive"],
  limits: { seconds: 2 },
  into: ring,
});
await trace.ended; // all its events are in the ring now
ring.close(); // the worker reads what is left, then it is told the end

console.log("counted by the worker:", JSON.stringify((await counted)[0]));
console.log(`written here: ${trace.stats.written}, lost: ${trace.stats.lost}`);
