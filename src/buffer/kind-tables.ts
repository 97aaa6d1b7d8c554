/** Which words of a slot mean something for which kinds, as lookup tables by kind code. */
import { EVENT_KINDS, type EventKind } from "./event-schema";

/** 1 for each of these kinds, by code; 256 entries, so that a byte needs no check. */
export function kindTable(kinds: readonly EventKind[]): Uint8Array {
  const table = new Uint8Array(256);
  for (const kind of kinds) table[EVENT_KINDS[kind]] = 1;
  return table;
}

/** Kinds that have a shape and tags. */
export const SHAPE_KINDS = kindTable([
  "exit",
  "send",
  "send_to_non_existing_process",
  "receive",
  "call",
  "return_from",
  "exception_from",
  "closed",
  "function_entry",
  "function_return",
  "function_exception",
]);
/** Kinds of instrumented code: a call's id, a module and a site. */
export const FRAME_KINDS = kindTable([
  "function_entry",
  "function_return",
  "function_tail_call",
  "function_exception",
]);
/** Kinds that have a second identity. */
export const OTHER_KINDS = kindTable([
  "spawn",
  "spawned",
  "send",
  "send_to_non_existing_process",
  "link",
  "unlink",
  "getting_linked",
  "getting_unlinked",
  "open",
]);
/** Kinds that have a function. */
export const MFA_KINDS = kindTable([
  "spawn",
  "spawned",
  "call",
  "return_from",
  "exception_from",
  "return_to",
  "in",
  "out",
  "in_exiting",
  "out_exiting",
  "out_exited",
]);
