/** Messages a second by type: the leading atoms of what is received, once a second. */
import { attach, ofKind } from "beamtrace";
import { bufferTime, take } from "rxjs";
import { node, options } from "./target";

await using session = await attach(node, options);
const trace = await session.trace({ processes: "all", events: ["receive"], limits: { seconds: 10 } });

await trace.events$.pipe(ofKind("receive"), bufferTime(1000), take(3)).forEach((events) => {
  const byType = new Map<string, number>();
  for (const { shape } of events) {
    const type = shape.tags.length > 0 ? shape.tags.join(" ") : shape.type;
    byType.set(type, (byType.get(type) ?? 0) + 1);
  }
  const line = [...byType].sort((a, b) => b[1] - a[1]).slice(0, 5);
  console.log(`${events.length}/s: ${line.map(([type, n]) => `${type} ${n}`).join(", ")}`);
});
