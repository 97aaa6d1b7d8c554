/**
 * Slots carry ids of one dictionary; to put them into a file or join them with others the ids are rewritten to those of another one.
 * This is the only place that knows which words of which kinds are ids.
 */
import { CALLER_UNDEFINED, EVENT_KINDS as K, FLAG, IDENTITY, SLOT, SLOT_WORDS } from "./event-schema";
import { kindTable, MFA_KINDS, OTHER_KINDS, SHAPE_KINDS } from "./kind-tables";

/** Gives the new id for an old one. Never asked for 0. */
export interface IdMapping {
  atom(id: number): number;
  node(id: number): number;
  mfa(id: number): number;
}

const NAMED_KINDS = kindTable(["register", "unregister"]);
const EXTRA_MFA_KINDS = kindTable(["call", "spawn", "spawned"]);
const EXTRA_ATOM_KINDS = kindTable([
  ...(["exception_from", "port_in", "port_out", "open"] as const),
  // The module: SLOT_FRAME.module is SLOT.extra.
  ...(["function_entry", "function_return", "function_tail_call", "function_exception"] as const),
]);
const TAG_ONLY_KINDS = kindTable(["unknown", "marker"]);

/** Rewrites the ids of all slots in words [from, to). */
export function translateIds(words: Uint32Array, from: number, to: number, map: IdMapping): void {
  for (let base = from; base < to; base += SLOT_WORDS) {
    const code = words[base]! & 0xff;
    if (OTHER_KINDS[code] === 1) {
      const flags = words[base + SLOT.flags]!;
      const low = words[base + SLOT.otherLow]!;
      if (flags >>> 8 !== 0) words[base + SLOT.flags] = (flags & 0xff) | (map.node(flags >>> 8) << 8);
      if ((low & 15) === IDENTITY.atom && (flags & (FLAG.alias | FLAG.widePid | FLAG.widePort)) === 0) {
        words[base + SLOT.otherLow] = (map.atom(low >>> 4) << 4) | IDENTITY.atom;
      }
    } else if (NAMED_KINDS[code] === 1) {
      words[base + SLOT.otherLow] = (map.atom(words[base + SLOT.otherLow]! >>> 4) << 4) | IDENTITY.atom;
    }
    if (MFA_KINDS[code] === 1) {
      const mfa = words[base + SLOT.mfa]!;
      if (mfa !== 0) words[base + SLOT.mfa] = map.mfa(mfa);
    }
    if (SHAPE_KINDS[code] === 1 || TAG_ONLY_KINDS[code] === 1) {
      const tag1 = words[base + SLOT.tag1]!;
      const tag2 = words[base + SLOT.tag2]!;
      if (tag1 !== 0) words[base + SLOT.tag1] = map.atom(tag1);
      if (tag2 !== 0 && SHAPE_KINDS[code] === 1) words[base + SLOT.tag2] = map.atom(tag2);
    }
    const extra = words[base + SLOT.extra]!;
    if (extra === 0) continue;
    if (EXTRA_ATOM_KINDS[code] === 1) words[base + SLOT.extra] = map.atom(extra);
    else if (EXTRA_MFA_KINDS[code] === 1 && !(code === K.call && extra === CALLER_UNDEFINED)) {
      words[base + SLOT.extra] = map.mfa(extra);
    }
  }
}
