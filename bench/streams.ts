/**
 * Batches and events on their way to a subscriber: columns, objects, one filter, and single events through RxJS.
 * `npx tsx bench/streams.ts [--quick]`.
 */
import { Observable } from "rxjs";
import type { EventBatch } from "../src/buffer";
import { EventWriter, SlotBlock, flatten, ofKind, select } from "../src/buffer";
import { realEvents } from "./real-events";
import { measure, type Subject } from "./rounds";
import type { Row } from "./row";

const PER_BATCH = 1024;
/** A number that is kept in a variable outside of a loop would be allocated anew at each addition. */
const sink = new Float64Array(1);

/** Measures. */
export function run(quick: boolean): Promise<Row[]> {
  const count = quick ? 4096 : 16_384;
  const { batch: all, events } = realEvents(count);
  const batches: EventBatch[] = [];
  for (let at = 0; at < count; at += PER_BATCH) batches.push(all.slice(at, at + PER_BATCH).copy());
  const { dictionary, sources } = all.factory;
  const block = new SlotBlock(count);

  const each = (name: string, use: (batch: EventBatch) => void): Subject => ({
    name,
    operations: count,
    run: () => batches.forEach(use),
  });
  const through = (name: string, subscribe: (batches$: Observable<EventBatch>) => void): Subject => ({
    name,
    operations: count,
    run: () =>
      subscribe(
        new Observable<EventBatch>((subscriber) => {
          for (const batch of batches) subscriber.next(batch);
          subscriber.complete();
        }),
      ),
  });

  const results = measure(
    [
      each("columns", (batch) => {
        let sum = 0;
        for (let i = 0; i < batch.length; i++)
          sum += batch.kindCode(i) + batch.timestamp(i) + batch.process(i);
        sink[0]! += sum;
      }),
      each("objects", (batch) => {
        let sum = 0;
        for (let i = 0; i < batch.length; i++) sum += batch.event(i).timestamp;
        sink[0]! += sum;
      }),
      {
        name: "writer",
        operations: count,
        run() {
          block.clear();
          const writer = new EventWriter(dictionary, sources, block);
          for (const event of events) writer.write(event);
        },
      },
      through("batches", (batches$) => {
        batches$.pipe(select(["send", "receive"])).subscribe((batch) => (sink[0]! += batch.length));
      }),
      through("events", (batches$) => {
        batches$.pipe(flatten()).subscribe((event) => (sink[0]! += event.timestamp));
      }),
      through("of kind", (batches$) => {
        batches$
          .pipe(flatten(), ofKind("send", "receive"))
          .subscribe((event) => (sink[0]! += event.timestamp));
      }),
    ],
    quick,
  );
  const row = (name: string, what: string, target: number, text: string): Row => {
    const { perSecond, text: measured } = results.get(name) ?? { perSecond: 0, text: "" };
    return { what, target: text, measured, value: perSecond, ok: perSecond >= target };
  };
  return Promise.resolve([
    row("columns", "slots to columns (kind, time stamp, process)", 100e6, "≥ 100 M/s"),
    row("objects", "slots to plain objects", 20e6, "≥ 20 M/s"),
    row("writer", "plain objects to slots", 10e6, "≥ 10 M/s (100 ns)"),
    row("batches", "batches$ through one filter by kind, RxJS included", 100e6, "≥ 100 M/s"),
    row("events", "events$, RxJS and objects included", 10e6, "≥ 10 M/s"),
    row("of kind", "events$ through ofKind", 0, ""),
  ]);
}

if (process.argv[1]?.endsWith("streams.ts") === true) {
  for (const row of await run(process.argv.includes("--quick"))) {
    console.log(
      `${row.ok ? "ok " : "NO "} ${row.what}: ${row.measured}${row.target === "" ? "" : ` (target ${row.target})`}`,
    );
  }
  if (sink[0] === 0) console.log("nothing was read");
}
