/** Record two seconds into a file, then run the same analysis on the file as on the live trace. */
import { rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { attach, openRecording, record, type EventSource } from "beamtrace";
import { node, options } from "./target";

async function countKinds(source: EventSource): Promise<Map<string, number>> {
  const counts = new Map<string, number>();
  await source.batches$.forEach((batch) => {
    for (let i = 0; i < batch.length; i++) counts.set(batch.kind(i), (counts.get(batch.kind(i)) ?? 0) + 1);
  });
  return counts;
}

const file = join(tmpdir(), `beamtrace-example-${process.pid}.btrec`);

await using session = await attach(node, options);
const trace = await session.trace({
  processes: "all",
  events: ["procs", "send", "receive"],
  limits: { seconds: 2 },
});
const [live] = await Promise.all([countKinds(trace), record(trace, file)]);
console.log("live:    ", Object.fromEntries(live));

const recording = await openRecording(file);
console.log("recorded:", Object.fromEntries(await countKinds(recording)));
await recording.close();
await rm(file);
