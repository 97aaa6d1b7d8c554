/** Always on, and nothing travels until a process crashes: then the two seconds before the crash come as one recording, also as a file. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { attach, openRecording, type TraceEvent } from "beamtrace";
import { firstValueFrom } from "rxjs";
import { node, options, show } from "./target";

await using session = await attach(node, options);
await using recorder = await session.flightRecorder({
  events: ["send", "receive", "procs"],
  keep: { seconds: 2 },
  triggers: [{ on: "exit" }],
});
console.log("recording; waiting for a crash");

const recording = await firstValueFrom(recorder.recordings$);
const { trigger } = recording;
if (trigger.kind !== "exit" || trigger.process === undefined) throw new Error("not a crash");
const milliseconds = (trigger.at - recording.from) / 1e6;
console.log(`${show(trigger.process)} crashed; ${recording.events} events of ${milliseconds.toFixed(0)} ms`);

const folder = await mkdtemp(join(tmpdir(), "beamtrace-"));
const { path } = await recording.saveTo(join(folder, "crash.btrec"));
const saved = await openRecording(path);

// What the process lived through, from the file: any analysis of a live trace would do.
const crashed = show(trigger.process);
const life: TraceEvent[] = [];
await saved.events$.forEach((event) => {
  if ("process" in event && event.process !== undefined && show(event.process) === crashed) life.push(event);
});
for (const event of life)
  console.log(
    `${((event.timestamp - trigger.at) / 1e3).toFixed(0).padStart(8)} µs  ${event.kind}` +
      (event.kind === "exit" ? ` ${event.reason.tags.join(" ")}` : ""),
  );
await saved.close();
await rm(folder, { recursive: true });
