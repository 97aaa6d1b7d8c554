/** Which processes send the most messages? Counted over columns: no object is made for an event. */
import { attach, select } from "beamtrace";
import type { ProcessKey } from "beamtrace/buffer";
import { atom, Pid, Tuple, type Port } from "beamtrace/erlang";
import { node, options, show } from "./target";

await using session = await attach(node, options);
const trace = await session.trace({
  processes: "all",
  events: ["send"],
  payload: "none",
  limits: { seconds: 2 },
});

const talkers = new Map<ProcessKey, { who: Pid | Port | undefined; messages: number }>();
await trace.batches$.pipe(select("send")).forEach((batch) => {
  for (let i = 0; i < batch.length; i++) {
    const key = batch.process(i);
    let talker = talkers.get(key);
    if (talker === undefined) talkers.set(key, (talker = { who: batch.identityOf(key), messages: 0 }));
    talker.messages += 1;
  }
});

/** Its registered name where it has one. */
async function nameOf(who: Pid | Port | undefined): Promise<string> {
  if (!(who instanceof Pid)) return who === undefined ? "?" : show(who);
  const info = await session.call("erlang", "process_info", [who, atom("registered_name")]);
  const [, name] = info instanceof Tuple ? info.elements : [];
  return name === undefined ? show(who) : `${show(who)} ${show(name)}`;
}

const top = [...talkers.values()].sort((a, b) => b.messages - a.messages).slice(0, 10);
console.log(`${talkers.size} processes sent messages in two seconds; the first ${top.length}:`);
for (const { who, messages } of top) console.log(`${String(messages).padStart(8)}  ${await nameOf(who)}`);
