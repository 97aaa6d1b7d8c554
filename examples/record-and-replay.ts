/** Record two seconds into a file, and run the same analysis on the live trace and on the file. */
import { mkdtemp, rm, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { attach, openRecording, record, type EventSource } from "beamtrace";
import { node, options } from "./target";

/** A live trace and a recording are the same to it. */
async function countKinds(source: EventSource): Promise<Record<string, number>> {
  const counts: Record<string, number> = {};
  await source.batches$.forEach((batch) => {
    for (let i = 0; i < batch.length; i++) counts[batch.kind(i)] = (counts[batch.kind(i)] ?? 0) + 1;
  });
  return counts;
}

const folder = await mkdtemp(join(tmpdir(), "beamtrace-"));
const file = join(folder, "two-seconds.btrec");

await using session = await attach(node, options);
const trace = await session.trace({
  processes: "all",
  events: ["procs", "send", "receive"],
  limits: { seconds: 2 },
});
const [live] = await Promise.all([countKinds(trace), record(trace, file)]);
console.log("live:    ", JSON.stringify(live));

const recording = await openRecording(file);
console.log("recorded:", JSON.stringify(await countKinds(recording)));
console.log(
  `${recording.events} events, ${((await stat(file)).size / recording.events).toFixed(1)} bytes each`,
);
await recording.close();
await rm(folder, { recursive: true });
