/**
 * The events of the mix as messages of the native tracer (docs/agent-protocol.md, "Native batches"): records with the VM's words for atoms, in two
 * runs a message, as two schedulers write them. The way back of `NativeRecordDecoder`.
 */
import { EVENT_KINDS, FLAG, IDENTITY, SLOT, SLOT_WORDS, type EventBatch } from "../src/buffer";
import { RAW, RAW_ATOM_WORDS } from "../src/buffer/event-schema";
import { MFA_KINDS, SHAPE_KINDS } from "../src/buffer/kind-tables";
import { Atom, encode, Tuple } from "../src/erlang";
import { BASE } from "./real-events";

const K = EVENT_KINDS;
/** What a VM has numbered before anything of a program. */
const FIRST_ATOM = 1000;

/** Messages of `perMessage` records each. */
export function nativeMessages(batch: EventBatch, perMessage: number): Uint8Array[] {
  const { dictionary } = batch.factory;
  const named = new Set<number>();
  const messages: Uint8Array[] = [];
  const record = new Uint32Array(SLOT_WORDS);
  for (let at = 0; at < batch.length; at += perMessage) {
    const count = Math.min(perMessage, batch.length - at);
    const atoms: Tuple[] = [];
    const word = (id: number): number => {
      if (id === 0) return 0;
      const value = (id + FIRST_ATOM) * 64 + IDENTITY.atom;
      if (!named.has(id)) {
        named.add(id);
        atoms.push(new Tuple([value, Atom.of(dictionary.atomName(id) ?? "")]));
      }
      return value;
    };
    const function_ = (id: number, module: number, fun: number, arity: number): void => {
      record[module] = word(dictionary.mfaColumn(id, 0));
      record[fun] = word(dictionary.mfaColumn(id, 1));
      record[arity] = dictionary.mfaColumn(id, 2);
    };
    const runs: number[][] = [[], []];
    for (let i = at; i < at + count; i++) {
      const base = batch.slot(i);
      record.set(batch.words.subarray(base, base + SLOT_WORDS));
      const kind = record[0]! & 0xff;
      record[0] = record[0]! & 0xffff00ff;
      if (SHAPE_KINDS[kind] !== 0) {
        record[SLOT.tag1] = word(record[SLOT.tag1]!);
        record[SLOT.tag2] = word(record[SLOT.tag2]!);
      }
      if (kind === K.spawn || kind === K.spawned) {
        const initial = record[SLOT.extra]!;
        function_(record[SLOT.mfa]!, RAW.spawnModule, RAW.spawnFunction, RAW.spawnArity);
        function_(initial, RAW.initialModule, RAW.initialFunction, RAW.initialArity);
      } else if (MFA_KINDS[kind] !== 0) {
        if (kind === K.exception_from) record[SLOT.extra] = word(record[SLOT.extra]!);
        function_(record[SLOT.mfa]!, RAW.module, RAW.function, RAW.arity);
      } else if (kind === K.send) {
        receiver(record, word, dictionary.nodeColumn.bind(dictionary));
      } else if (RAW_ATOM_WORDS[batch.kind(i)]?.includes(RAW.remoteNode) === true && record[1]! >>> 8 !== 0) {
        throw new Error("a link to another node is not in the mix");
      }
      // A process stays where it is, as far as this matters: its events are in one run.
      runs[(record[SLOT.traceeLow]! >>> 4) & 1]!.push(...record);
    }
    const bytes = new Uint8Array(Uint32Array.from(runs.flat()).buffer);
    messages.push(encode(new Tuple([3, 77, messages.length, BASE, at + count, 0, atoms, bytes])));
  }
  return messages;
}

function receiver(
  record: Uint32Array,
  word: (id: number) => number,
  node: (id: number, column: 0 | 1) => number,
): void {
  const id = record[SLOT.flags]! >>> 8;
  const isAtom = (record[SLOT.flags]! & FLAG.alias) === 0 && (record[SLOT.otherLow]! & 15) === IDENTITY.atom;
  record[SLOT.flags]! &= 0xff;
  if (isAtom) record[SLOT.otherLow] = word(record[SLOT.otherLow]! >>> 4);
  if (id === 0) return;
  if (isAtom) {
    record[SLOT.flags]! |= RAW.namedFlag;
    record[SLOT.otherHigh] = word(node(id, 0));
  } else {
    record[RAW.remoteNode] = word(node(id, 0));
    record[RAW.remoteCreation] = node(id, 1);
  }
}
