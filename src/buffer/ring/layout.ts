/**
 * Where everything lies in the one SharedArrayBuffer of a ring, and the typed arrays over it.
 * Header cells that different threads write are 128 bytes apart (two cache lines: processors fetch them in pairs).
 * The buffer is made growable (to its own size, it never grows) because V8 then aligns it to a page, so that a slot is one cache line.
 */
import { OptionError } from "../../erlang/errors";
import { SLOT_BYTES, SLOT_WORDS } from "../event-schema";
import { splitCounter } from "./counter";

/** What a full ring does. */
export type Overflow = "drop-newest" | "overwrite-oldest";

/** `"RBTB"` in the first cell. */
export const RING_MAGIC = 0x42544252;
/** Version of this layout. */
export const RING_VERSION = 1;
/** Most slots a ring can have. */
export const RING_CAPACITY_MAX = 1 << 25;
/** Most readers a ring can have. */
export const RING_READERS_MAX = 1024;
/** Most bytes of payload area. */
export const RING_PAYLOAD_MAX = 2 ** 31;

const LINE = 32;

/** Header cells (index into `RingMemory.cells`). Pairs marked "counter" are a low word and an epoch, see counter.ts. */
export const CELL = {
  magic: 0,
  version: 1,
  capacity: 2,
  flags: 3,
  maxReaders: 4,
  payloadUnits: 5,
  originLow: 6,
  originEpoch: 7,
  /** 1 when producers are done. */
  closed: 8,
  /** Counts producers of a single-producer ring; the last one is the valid one. */
  producer: 9,
  /** Sleepers wait on this; it changes with every wake-up. */
  signal: 10,
  /** Places that were ever taken: producers look no further. Never falls. */
  placesUsed: 11,
  /** Counter, shifted left by one: bit 0 says that a reader sleeps, so publishing and looking for sleepers is one exchange. */
  published: LINE,
  /** Counter: events that were counted instead of stored. On the line of `published`, whose readers look at both. */
  dropped: LINE + 2,
  /** Counter. */
  payloadDropped: LINE + 4,
  /** Counter: end of what producers may be writing. Advanced before the first word is written. Unused with one producer and drop-newest. */
  claimed: 2 * LINE,
  /** Counter, in units of 8 bytes: end of what producers may be writing in the payload area. */
  payloadHead: 3 * LINE,
  /** Upper bound of every gate that a producer has used (drop-newest): slots before it may be gone. Low word only, never falls. */
  gate: 4 * LINE,
  /** First reader's place. */
  places: 5 * LINE,
} as const;

/** Cells of one reader's place. */
export const PLACE = {
  /** generation << 2 | PLACE_STATE */
  state: 0,
  /** Counter: everything before it is released. */
  cursor: 2,
  /** Counter: everything before it is copied out of the ring (overwrite-oldest). */
  held: 4,
  /** Counter: where the reader joined. */
  joined: 6,
  /** Counter: records that were overwritten before this reader could read them. */
  lapped: 8,
  /** Odd while cursor and lapped change together. */
  lock: 10,
  cells: LINE,
} as const;

/** States of a place. */
export const PLACE_STATE = { free: 0, joining: 1, active: 2, mask: 3, generation: 4 } as const;

const FLAG_OVERWRITE = 1;
const FLAG_MULTIPLE = 2;

/** Shape of a ring, as it is laid out. */
export interface RingShape {
  /** Slots, a power of two. */
  readonly capacity: number;
  readonly overflow: Overflow;
  readonly producers: "single" | "multiple";
  readonly maxReaders: number;
  /** Size of the payload area in units of 8 bytes, a power of two or 0. */
  readonly payloadUnits: number;
}

/** A ring's memory: typed arrays over its SharedArrayBuffer. */
export interface RingMemory extends RingShape {
  readonly sab: SharedArrayBuffer;
  readonly cells: Int32Array;
  /** All slots. */
  readonly words: Uint32Array;
  /** The same bytes. */
  readonly floats: Float64Array;
  readonly mask: number;
  /** By slot: how many events had been dropped before this record. Only written once something was dropped (0 is true until then). */
  readonly droppedBefore: Float64Array;
  /** By slot: head of the payload area when the slot was claimed, as low word and epoch. Empty without payload area. */
  readonly payloadFloor: Int32Array;
  /** Several producers: the position that was last published in each slot … */
  readonly tags: Int32Array;
  /** … and in the first slot of a batch, the length of the batch. */
  readonly lengths: Int32Array;
  readonly payload: Uint8Array;
  readonly originLow: number;
  readonly originEpoch: number;
}

function regions(shape: RingShape) {
  let end = 0;
  const region = (bytes: number) => {
    const start = end;
    end = start + Math.ceil(bytes / 128) * 128;
    return start;
  };
  const multiple = shape.producers === "multiple";
  return {
    cells: region((CELL.places + shape.maxReaders * PLACE.cells) * 4),
    slots: region(shape.capacity * SLOT_BYTES),
    droppedBefore: region(shape.capacity * 8),
    payloadFloor: region(shape.payloadUnits > 0 ? shape.capacity * 8 : 0),
    tags: region(multiple ? shape.capacity * 4 : 0),
    lengths: region(multiple ? shape.capacity * 4 : 0),
    payload: region(shape.payloadUnits * 8),
    end,
  };
}

/** Bytes that a ring of this shape takes. */
export function ringBytes(shape: RingShape): number {
  return regions(shape).end;
}

function view(shape: RingShape, sab: SharedArrayBuffer): RingMemory {
  const at = regions(shape);
  const multiple = shape.producers === "multiple";
  const cells = new Int32Array(sab, at.cells, CELL.places + shape.maxReaders * PLACE.cells);
  return {
    ...shape,
    sab,
    cells,
    words: new Uint32Array(sab, at.slots, shape.capacity * SLOT_WORDS),
    floats: new Float64Array(sab, at.slots, shape.capacity * (SLOT_BYTES / 8)),
    mask: shape.capacity - 1,
    droppedBefore: new Float64Array(sab, at.droppedBefore, shape.capacity),
    payloadFloor: new Int32Array(sab, at.payloadFloor, shape.payloadUnits > 0 ? shape.capacity * 2 : 0),
    tags: new Int32Array(sab, at.tags, multiple ? shape.capacity : 0),
    lengths: new Int32Array(sab, at.lengths, multiple ? shape.capacity : 0),
    payload: new Uint8Array(sab, at.payload, shape.payloadUnits * 8),
    originLow: cells[CELL.originLow] as number,
    originEpoch: cells[CELL.originEpoch] as number,
  };
}

/** Makes and initialises the memory of a ring. Positions start at `origin`, the payload head at `payloadOrigin`, `dropped` at 0. */
export function createRingMemory(shape: RingShape, origin: bigint, payloadOrigin: bigint): RingMemory {
  const bytes = ringBytes(shape);
  let sab: SharedArrayBuffer;
  try {
    sab = new SharedArrayBuffer(bytes, { maxByteLength: bytes });
  } catch (cause) {
    throw new OptionError("BT_OPTION_INVALID", "capacity", `no memory for a ring of ${bytes} bytes`, {
      cause,
    });
  }
  const cells = new Int32Array(sab);
  cells[CELL.version] = RING_VERSION;
  cells[CELL.capacity] = shape.capacity;
  cells[CELL.flags] =
    (shape.overflow === "overwrite-oldest" ? FLAG_OVERWRITE : 0) |
    (shape.producers === "multiple" ? FLAG_MULTIPLE : 0);
  cells[CELL.maxReaders] = shape.maxReaders;
  cells[CELL.payloadUnits] = shape.payloadUnits;
  const { low, epoch } = splitCounter(origin);
  cells[CELL.originLow] = low;
  cells[CELL.originEpoch] = epoch;
  cells[CELL.published] = low << 1;
  cells[CELL.published + 1] = epoch;
  cells[CELL.claimed] = low;
  cells[CELL.claimed + 1] = epoch;
  cells[CELL.gate] = low;
  const head = splitCounter(payloadOrigin);
  cells[CELL.payloadHead] = head.low;
  cells[CELL.payloadHead + 1] = head.epoch;
  const memory = view(shape, sab);
  // Floors and tags of a fresh ring read as zero; from another origin they have to be set.
  if (payloadOrigin !== 0n) {
    for (let i = 0; i < memory.payloadFloor.length; i += 2) {
      memory.payloadFloor[i] = head.low;
      memory.payloadFloor[i + 1] = head.epoch;
    }
  }
  memory.tags.fill(low - 1);
  Atomics.store(cells, CELL.magic, RING_MAGIC);
  return memory;
}

function isPowerOfTwo(n: number): boolean {
  return n > 0 && Number.isInteger(Math.log2(n));
}

/** Opens the memory of a ring that another thread made. Throws `BT_RING_INVALID`. */
export function openRingMemory(sab: SharedArrayBuffer): RingMemory {
  const refuse = (why: string): never => {
    throw new OptionError("BT_RING_INVALID", "handle", why);
  };
  if (sab.byteLength < CELL.places * 4) refuse("the buffer is too small to be a ring");
  const cells = new Int32Array(sab, 0, CELL.places);
  const cell = (at: number) => Atomics.load(cells, at);
  if (cell(CELL.magic) !== RING_MAGIC) refuse("the buffer is not a ring of beamtrace");
  if (cell(CELL.version) !== RING_VERSION)
    refuse(`the ring has layout ${cell(CELL.version)}, this beamtrace knows ${RING_VERSION}`);
  const flags = cell(CELL.flags);
  const shape: RingShape = {
    capacity: cell(CELL.capacity),
    overflow: (flags & FLAG_OVERWRITE) !== 0 ? "overwrite-oldest" : "drop-newest",
    producers: (flags & FLAG_MULTIPLE) !== 0 ? "multiple" : "single",
    maxReaders: cell(CELL.maxReaders),
    payloadUnits: cell(CELL.payloadUnits),
  };
  if (!isPowerOfTwo(shape.capacity) || shape.capacity > RING_CAPACITY_MAX)
    refuse(`a capacity of ${shape.capacity}`);
  if (shape.maxReaders < 1 || shape.maxReaders > RING_READERS_MAX)
    refuse(`${shape.maxReaders} places for readers`);
  if (
    shape.payloadUnits !== 0 &&
    (!isPowerOfTwo(shape.payloadUnits) || shape.payloadUnits * 8 > RING_PAYLOAD_MAX)
  )
    refuse(`a payload area of ${shape.payloadUnits} units`);
  if (ringBytes(shape) !== sab.byteLength)
    refuse(`${sab.byteLength} bytes, but its header asks for ${ringBytes(shape)}`);
  return view(shape, sab);
}
