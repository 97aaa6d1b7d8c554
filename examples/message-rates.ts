/** Messages a second by type: the leading atoms of what is received. Contents stay on the node. Ends after three seconds. */
import { attach, ofKind } from "beamtrace";
import { bufferTime, take } from "rxjs";
import { node, options } from "./target";

await using session = await attach(node, options);
const trace = await session.trace({ processes: "all", events: ["receive"], limits: { seconds: 10 } });

await trace.events$.pipe(ofKind("receive"), bufferTime(1000), take(3)).forEach((events) => {
  const types = new Map<string, number>();
  for (const { shape } of events) {
    // `{'$gen_call', _, {add, _}}` is "$gen_call add"; what has no leading atom is told by its type.
    const type = shape.tags.join(" ").trim() || shape.type;
    types.set(type, (types.get(type) ?? 0) + 1);
  }
  const most = [...types].sort((a, b) => b[1] - a[1]).slice(0, 5);
  console.log(`${events.length} messages/s: ${most.map(([type, count]) => `${type} ${count}`).join(", ")}`);
});
