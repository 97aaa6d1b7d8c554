/** Which processes send the most messages? Counts by column, without making an object an event. */
import { attach } from "beamtrace";
import { EVENT_KINDS, type ProcessKey } from "beamtrace/buffer";
import { inspect } from "beamtrace/erlang";
import { node, options } from "./target";

await using session = await attach(node, options);
const trace = await session.trace({
  processes: "all",
  events: ["send"],
  payload: "none",
  limits: { seconds: 2 },
});

const sent = new Map<ProcessKey, number>();
const names = new Map<ProcessKey, string>();
await trace.batches$.forEach((batch) => {
  for (let i = 0; i < batch.length; i++) {
    if (batch.kindCode(i) !== EVENT_KINDS.send) continue;
    const key = batch.process(i);
    sent.set(key, (sent.get(key) ?? 0) + 1);
    if (!names.has(key)) names.set(key, inspect(batch.processTerm(i)));
  }
});

const top = [...sent].sort((a, b) => b[1] - a[1]).slice(0, 10);
for (const [key, count] of top) console.log(`${names.get(key) ?? "?"}\t${count} messages`);
console.log(`${(await trace.ended).kind}, ${top.length} talkers`);
