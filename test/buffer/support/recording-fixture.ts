/** Batches of real events for tests of recordings. */
import { Dictionary } from "../../../src/buffer/dictionary";
import { EventBatch } from "../../../src/buffer/event-batch";
import { EventFactory } from "../../../src/buffer/event-factory";
import { RawTraceDecoder } from "../../../src/buffer/raw-trace-decoder";
import { SlotBlock } from "../../../src/buffer/slot-block";
import { traceFixture, type FixtureName } from "./fixture";

/** A fixture as one batch, with payloads up to `maxBytes`. */
export function fixtureBatch(name: FixtureName = "phoenix-send-receive-procs", maxBytes = 500): EventBatch {
  const fixture = traceFixture(name);
  const dictionary = new Dictionary();
  const { node, flags, otp, timeOffset } = fixture;
  const decoder = new RawTraceDecoder({ dictionary, node, flags, payload: { maxBytes } });
  const block = new SlotBlock();
  for (const record of fixture.records) decoder.decode(record, block);
  const source = { node, creation: decoder.creation!, otp, base: decoder.base!, timeOffset };
  return EventBatch.of(block, new EventFactory(dictionary, [source]));
}

/** A batch cut into pieces, as a live trace delivers them. */
export function pieces(batch: EventBatch, size: number): EventBatch[] {
  const parts: EventBatch[] = [];
  for (let at = 0; at < batch.length; at += size) parts.push(batch.slice(at, at + size));
  return parts;
}
