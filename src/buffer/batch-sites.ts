/**
 * Which sites the events of a batch name: those of instrumented code in their slots, the calls of the runtime that tell of callbacks and
 * of locals in their payload. For those who keep events and have to keep what their sites stand for.
 */
import { Decoder } from "../erlang/etf";
import { Atom } from "../erlang/term";
import type { EventBatch } from "./event-batch";
import { EVENT_KINDS, FLAG, SLOT, SLOT_FRAME } from "./event-schema";
import { FRAME_KINDS } from "./kind-tables";

const RUNTIME = "beamtrace_rt";
/** Place of the module among the arguments of the runtime's functions; the site follows it. */
const MODULE_ARGUMENT: Readonly<Record<string, number>> = { called_back: 1, locals_at: 0 };
const LIST_EXT = 108;
const VERSION_BYTE = 131;

const decoder = new Decoder();

/** Gives the module (its atom's id), number of the site and source of each event that has them, but for repetitions in a row. */
export function forEachSite(
  batch: EventBatch,
  found: (module: number, site: number, source: number) => void,
): void {
  const { words } = batch;
  const { dictionary } = batch.factory;
  let lastModule = 0;
  let lastSite = -1;
  for (let i = 0; i < batch.length; i++) {
    const base = batch.slot(i);
    const head = words[base]!;
    const kind = head & 0xff;
    if (FRAME_KINDS[kind] !== 0) {
      const module = words[base + SLOT_FRAME.module]!;
      const site = words[base + SLOT_FRAME.site]!;
      if (module === lastModule && site === lastSite) continue;
      lastModule = module;
      lastSite = site;
      found(module, site, (head >>> 8) & 0xff);
    } else if (kind === EVENT_KINDS.call && (words[base + SLOT.flags]! & FLAG.payload) !== 0) {
      const mfa = dictionary.mfa(words[base + SLOT.mfa]!);
      const place = mfa?.module === RUNTIME ? MODULE_ARGUMENT[mfa.function] : undefined;
      if (place === undefined) continue;
      const bytes = batch.payload.readPayload(
        words[base + SLOT.payloadAt]!,
        words[base + SLOT.payloadBytes]!,
      );
      const named = bytes && siteNamedIn(bytes, place);
      if (named !== undefined) found(dictionary.atomId(named.module), named.site, (head >>> 8) & 0xff);
    }
  }
}

/** Module and site among the first elements of a list; the rest, which may be long, is not decoded. */
function siteNamedIn(
  bytes: Uint8Array,
  place: number,
): { readonly module: string; readonly site: number } | undefined {
  let at = bytes[0] === VERSION_BYTE ? 1 : 0;
  if (bytes[at] !== LIST_EXT) return undefined;
  at += 5;
  try {
    if (place === 1) {
      decoder.decodeBareAt(bytes, at);
      at = decoder.next;
    }
    const module = decoder.decodeBareAt(bytes, at);
    const site = decoder.decodeBareAt(bytes, decoder.next);
    return module instanceof Atom && typeof site === "number" && site >= 0
      ? { module: module.name, site }
      : undefined;
  } catch {
    // No term, or one that was cut: nothing is known of its site.
    return undefined;
  }
}
