/**
 * The one declaration of event kinds and of the 64-byte slot that an event is stored in.
 * `scripts/generate-schema.ts` writes the Erlang and the C header from it; a test fails when they differ.
 * A slot is 16 little-endian 32-bit words. It holds no pointer: text is an id of the dictionary, long content lies in the payload area.
 */

/** Bytes of one slot. */
export const SLOT_BYTES = 64;
/** 32-bit words of one slot. */
export const SLOT_WORDS = 16;

/**
 * Event kinds by name; the number is what stands in a slot and on the wire. Numbers are never reused.
 * Names are the VM's own trace tags, but for `running` of ports, which carries an operation instead of a function, and for what
 * instrumented code tells (`function_…`), of which the VM knows nothing.
 */
export const EVENT_KINDS = {
  unknown: 0,
  spawn: 1,
  spawned: 2,
  exit: 3,
  send: 4,
  send_to_non_existing_process: 5,
  receive: 6,
  link: 7,
  unlink: 8,
  getting_linked: 9,
  getting_unlinked: 10,
  register: 11,
  unregister: 12,
  call: 13,
  return_from: 14,
  exception_from: 15,
  return_to: 16,
  in: 17,
  out: 18,
  in_exiting: 19,
  out_exiting: 20,
  out_exited: 21,
  port_in: 22,
  port_out: 23,
  gc_minor_start: 24,
  gc_minor_end: 25,
  gc_major_start: 26,
  gc_major_end: 27,
  gc_max_heap_size: 28,
  open: 29,
  closed: 30,
  gap: 31,
  marker: 32,
  function_entry: 33,
  function_return: 34,
  function_tail_call: 35,
  function_exception: 36,
} as const;

/** Name of an event kind. */
export type EventKind = keyof typeof EVENT_KINDS;
/** Number of an event kind, as in a slot. */
export type EventKindCode = (typeof EVENT_KINDS)[EventKind];

/**
 * Words of a slot (index into a `Uint32Array`). Identities take two words, low and high, in the form of the VM's own immediate words:
 * low = id × 16 + tag, high = the serial (pids) or the upper bits of the number (ports).
 */
export const SLOT = {
  /** kind:8 | source:8 | scheduler:16, from the least significant bit. `source` tells the trace (and so node and clock). */
  head: 0,
  /** flags:8 | node:24. `node` is the dictionary id of the node of the second identity, 0 for the traced node. gc events: see `gcBinBlocks`. */
  flags: 1,
  /** float64: nanoseconds since the base of the source. Use index 1 of a `Float64Array` over the slot. */
  timestamp: 2,
  /** The process or port that the event happened in. */
  traceeLow: 4,
  traceeHigh: 5,
  /** Position in the payload area in units of 8 bytes, modulo 2^32; valid when flag `payload` is set. */
  payloadAt: 6,
  /** Bytes of payload: one external term, with or without the leading version byte 131. For `unknown` and `marker` the whole event tuple. */
  payloadBytes: 7,
  /** Second identity: receiver, child, parent, linked process; a registered name for register. */
  otherLow: 8,
  otherHigh: 9,
  /** MFA id of the dictionary, 0 when there is none. */
  mfa: 10,
  /** type:4 | size:28 */
  shape: 11,
  /** Atom ids of the dictionary, 0 when there is none. */
  tag1: 12,
  tag2: 13,
  /** Kind-specific: the caller's MFA id (call; see CALLER_UNDEFINED), the initial call's MFA id (spawn, spawned), class atom id (exception_from), port operation (port_in, port_out), driver name (open). */
  extra: 14,
  /** Kind-specific. */
  extra2: 15,
} as const;

/**
 * When flag `alias` is set the receiver is a reference: `other` is the process behind it (0 when the reference has none),
 * and these words hold the first three numbers of the reference.
 */
export const SLOT_ALIAS = { number0: 10, number1: 14, number2: 15 } as const;

/** Bits of `SLOT.flags`. */
export const FLAG = {
  /** The payload area holds bytes for this event. */
  payload: 1,
  /** A payload was wanted but there was no room for it. */
  payloadLost: 2,
  /** The receiver is a reference (process alias), see SLOT_ALIAS. */
  alias: 4,
  /** The event's tracee is a port. */
  port: 8,
  /** `other` is a pid of a node that is no BEAM, whose id needs more than 28 bits: its words are id and serial, without a tag. */
  widePid: 16,
  /** `other` is a port whose number needs more than 60 bits: its words are the number, without a tag. */
  widePort: 32,
  /** A marker whose values are numbers, in the words of SLOT_MARKER instead of a payload. */
  numbers: 64,
} as const;

/**
 * Words of what instrumented code tells (`function_…`): the call's id as 53 bits, the number of the site (`site-number.ts`), the module's atom
 * id, and of an exception the class (`EXCEPTION_CLASSES`). Shape, tags and payload are where they always are.
 */
export const SLOT_FRAME = { idLow: 8, idHigh: 9, site: 10, module: 14, class: 15 } as const;

/** Classes of exceptions in `SLOT_FRAME.class`. */
export const EXCEPTION_CLASSES = { error: 1, exit: 2, throw: 3 } as const;
/** Name of a class of exceptions. */
export type ExceptionClass = keyof typeof EXCEPTION_CLASSES;

/** Value of `SLOT.extra` of a call whose caller was asked for and is not known to the VM. */
export const CALLER_UNDEFINED = 0xffffffff;

/** Tags in the low four bits of an identity's low word. */
export const IDENTITY = {
  none: 0,
  pid: 0x3,
  port: 0x7,
  /** A registered name: the rest of the low word is the atom's dictionary id. */
  atom: 0xb,
} as const;

/** Shape types (low four bits of `SLOT.shape`). The size in the upper 28 bits is saturated. */
export const SHAPE_TYPES = {
  none: 0,
  atom: 1,
  integer: 2,
  float: 3,
  /** size: bytes */
  binary: 4,
  /** size: bits */
  bitstring: 5,
  nil: 6,
  /** size: elements, counted up to 16 */
  list: 7,
  /** size: arity */
  tuple: 8,
  /** size: pairs */
  map: 9,
  pid: 10,
  port: 11,
  reference: 12,
  fun: 13,
  /** Arguments of a call; size: arity */
  args: 14,
  other: 15,
} as const;

/** Name of a shape type. */
export type ShapeType = keyof typeof SHAPE_TYPES;

/** Elements of a list are counted up to this many. */
export const SHAPE_LIST_MAX = 16;
/** Largest size that a shape holds. */
export const SHAPE_SIZE_MAX = 0x0fffffff;

/**
 * Values of a gc event, in wire order, with the word that each is stored in (units: machine words, saturated at 2^32 − 1).
 * The last two are limits of virtual heaps; they share the upper 24 bits of `SLOT.flags` as two 12-bit floats
 * (exponent:5, mantissa:7, rounded up; relative error ≤ 1/128).
 */
export const GC_FIELDS = [
  ["wordsize", 8],
  ["heap_size", 9],
  ["heap_block_size", 10],
  ["old_heap_size", 11],
  ["old_heap_block_size", 12],
  ["stack_size", 13],
  ["recent_size", 14],
  ["mbuf_size", 15],
  ["bin_vheap_size", 6],
  ["bin_old_vheap_size", 7],
  ["bin_vheap_block_size", "gcBinBlocks"],
  ["bin_old_vheap_block_size", "gcBinBlocks"],
] as const;

/**
 * Words of a gap event: how many events were lost, where, and between which stamps.
 * `count` is a float64 at Float64Array index 4 (words 8–9); `from` and `to` likewise at 5 and 6 (ns since the source's base; NaN when unknown); hop in `hop`.
 */
export const SLOT_GAP = { countF64: 4, fromF64: 5, toF64: 6, hop: 14 } as const;

/** Values of a marker with flag `numbers`: float64 at these Float64Array indexes (words 8–11). */
export const SLOT_MARKER = { aF64: 4, bF64: 5 } as const;

/** Where events were lost. */
export const GAP_HOPS = {
  /** The tracer's backlog on the node was over its bound. */
  tracer: 1,
  /** The connection could not take more. */
  link: 2,
  /** The ring was full (`drop-newest`). */
  ring: 3,
  /** The reader was overtaken (`overwrite-oldest`). */
  reader: 4,
  /** The connection was lost and made again. */
  reattach: 5,
  /** Damage in a recording. */
  recording: 6,
} as const;

/** Name of a hop where events can be lost. */
export type GapHop = keyof typeof GAP_HOPS;

/**
 * Words of a native tracer's record that differ from a slot (docs/agent-protocol.md, "Native batches"). Atoms stand as the VM's own
 * words, whose text comes with the batch's dictionary; functions take three words; stamps are float64 ns since the base of the batch.
 */
export const RAW = {
  /** Node and creation of a process or port of another node; 0 when it is a local one. */
  remoteNode: 6,
  remoteCreation: 7,
  /** The same of spawn and spawned. */
  spawnRemoteNode: 11,
  spawnRemoteCreation: 13,
  /** The function of calls, returns and of in and out; its module is 0 when there is none. */
  module: 8,
  function: 9,
  arity: 10,
  /** The caller of a call: module 0 and arity CALLER_UNDEFINED when it was asked for and is not known. */
  callerModule: 6,
  callerFunction: 7,
  callerArity: 15,
  /** The function of spawn and spawned, and the initial call behind it. */
  spawnModule: 6,
  spawnFunction: 7,
  spawnArity: 10,
  initialModule: 14,
  initialFunction: 15,
  initialArity: 12,
  /** Flag in the word `flags`: the receiver is `{Name, Node}`, the node in `otherHigh`. */
  namedFlag: 0x100,
} as const;

/** Words of a record that hold an atom or 0, by kind; `otherLow` may hold one besides, told by its tag. */
export const RAW_ATOM_WORDS: Readonly<Partial<Record<keyof typeof EVENT_KINDS, readonly number[]>>> = {
  spawn: [6, 7, 11, 14, 15],
  spawned: [6, 7, 11, 14, 15],
  exit: [12, 13],
  send: [6, 12, 13],
  send_to_non_existing_process: [6, 12, 13],
  receive: [12, 13],
  link: [6],
  unlink: [6],
  getting_linked: [6],
  getting_unlinked: [6],
  call: [6, 7, 8, 9, 12, 13],
  return_from: [8, 9, 12, 13],
  exception_from: [8, 9, 12, 13, 14],
  return_to: [8, 9],
  in: [8, 9],
  out: [8, 9],
  in_exiting: [8, 9],
  out_exiting: [8, 9],
  out_exited: [8, 9],
  port_in: [14],
  port_out: [14],
  open: [6, 14],
  closed: [12, 13],
  marker: [12],
  function_entry: [12, 13, 14],
  function_return: [12, 13, 14],
  function_tail_call: [14],
  function_exception: [12, 13, 14],
};

/** Version of slot layout and agent protocol together; the holder reports it and both sides must agree. */
export const SCHEMA_VERSION = 1;

const names: EventKind[] = [];
for (const name of Object.keys(EVENT_KINDS) as EventKind[]) names[EVENT_KINDS[name]] = name;

/** Event kind names by code. */
export const KIND_NAMES: readonly EventKind[] = names;
