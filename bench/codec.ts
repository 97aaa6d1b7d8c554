/**
 * The codec: bytes and time for an event, against JSON and against plain msgpackr, on the same events of a real application.
 * `npx tsx bench/codec.ts [--quick]`.
 */
import { Packr } from "msgpackr";
import { deflateRawSync } from "node:zlib";
import { EventCodec, type TraceEvent } from "../src/buffer";
import { realEvents } from "./real-events";
import { measure } from "./rounds";
import type { Row } from "./row";

let sink: unknown;

/** Measures. */
export function run(quick: boolean): Promise<Row[]> {
  const count = quick ? 1024 : 4096;
  const { batch, events } = realEvents(count);
  const plain = events.map(toPlain);
  const codec = new EventCodec();
  const packr = new Packr({ useRecords: true });
  const ours = codec.encode(batch);
  const json = Buffer.from(JSON.stringify(plain));
  const packed = Buffer.from(packr.pack(plain));
  const results = measure(
    [
      { name: "encode", operations: count, run: () => (sink = codec.encode(batch)) },
      {
        name: "encode objects",
        operations: count,
        run: () => (sink = codec.encode(events, batch.factory.sources)),
      },
      { name: "decode", operations: count, run: () => (sink = codec.decode(ours)) },
      { name: "decode objects", operations: count, run: () => (sink = codec.decode(ours).events()) },
      { name: "JSON encode", operations: count, run: () => (sink = Buffer.from(JSON.stringify(plain))) },
      { name: "JSON decode", operations: count, run: () => (sink = JSON.parse(json.toString())) },
      { name: "msgpackr encode", operations: count, run: () => (sink = Buffer.from(packr.pack(plain))) },
      { name: "msgpackr decode", operations: count, run: () => (sink = packr.unpack(packed)) },
    ],
    quick,
  );
  const row = (name: string, what: string, against: string): Row => {
    const mine = results.get(name);
    const theirs = results.get(against);
    const ratio = (mine?.perSecond ?? 0) / (theirs?.perSecond ?? NaN);
    return {
      what,
      target: `faster than ${against} (${theirs?.text ?? ""})`,
      measured: `${mine?.text ?? ""}, ${ratio.toFixed(1)} ×`,
      value: mine?.perSecond ?? 0,
      ok: ratio > 1,
    };
  };
  const bytes = (name: string, data: Uint8Array): Row => ({
    what: `bytes for an event, ${name}`,
    target: "",
    measured: `${(data.length / count).toFixed(1)} (${(deflateRawSync(data, { level: 1 }).length / count).toFixed(1)} deflated)`,
    value: data.length / count,
    ok: true,
  });
  return Promise.resolve([
    {
      ...bytes("EventCodec", ours),
      target: "less than plain msgpackr",
      ok: ours.length < packed.length && ours.length < json.length,
    },
    bytes("plain msgpackr", packed),
    bytes("JSON", json),
    row("encode", "encode a batch", "msgpackr encode"),
    row("encode objects", "encode event objects", "msgpackr encode"),
    row("decode", "decode to a batch", "msgpackr decode"),
    row("decode objects", "decode to event objects", "msgpackr decode"),
    row("encode", "encode a batch", "JSON encode"),
    row("decode objects", "decode to event objects", "JSON decode"),
  ]);
}

/** What a user would put into JSON: names and numbers, processes as text. */
function toPlain(event: TraceEvent): Record<string, unknown> {
  return Object.fromEntries(
    Object.entries(event).flatMap(([key, value]: [string, unknown]) => {
      if (value === undefined) return [];
      if (typeof value === "object" && value !== null && "id" in value && "serial" in value) {
        return [[key, `<0.${String(value.id)}.${String(value.serial)}>`]];
      }
      if (typeof value === "object" && value !== null && "numbers" in value) return [[key, value.numbers]];
      if (typeof value === "object" && value !== null && "name" in value) return [[key, value.name]];
      return [[key, value]];
    }),
  );
}

if (process.argv[1]?.endsWith("codec.ts") === true) {
  for (const row of await run(process.argv.includes("--quick"))) {
    console.log(
      `${row.ok ? "ok " : "NO "} ${row.what}: ${row.measured}${row.target === "" ? "" : ` (target ${row.target})`}`,
    );
  }
  void sink;
}
