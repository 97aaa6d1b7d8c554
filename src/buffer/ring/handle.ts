/**
 * The handle of a ring: what is sent to another thread (`postMessage`, `workerData`). It holds a reference to the shared memory, no copy of it.
 */
import { OptionError } from "../../erlang/errors";
import { RING_VERSION, openRingMemory } from "./layout";
import type { RingMemory } from "./layout";

/** Structured-cloneable; `RingBuffer.from(handle)` opens the same ring in any thread of the process. */
export interface RingHandle {
  readonly kind: "beamtrace.ring";
  readonly version: number;
  readonly sab: SharedArrayBuffer;
  readonly dictionary: SharedArrayBuffer;
  readonly sources: SharedArrayBuffer;
}

/** Makes the handle of a ring. */
export function handleOf(
  memory: RingMemory,
  dictionary: SharedArrayBuffer,
  sources: SharedArrayBuffer,
): RingHandle {
  return { kind: "beamtrace.ring", version: RING_VERSION, sab: memory.sab, dictionary, sources };
}

/** Checks a handle and opens its memory. Throws `BT_RING_INVALID`. */
export function openHandle(handle: unknown): RingMemory {
  const h = handle as Partial<RingHandle> | null | undefined;
  if (typeof h !== "object" || h === null || h.kind !== "beamtrace.ring")
    throw new OptionError("BT_RING_INVALID", "handle", "not the handle of a ring (pass on `ring.handle`)");
  if (h.version !== RING_VERSION)
    throw new OptionError(
      "BT_RING_INVALID",
      "handle",
      `layout ${String(h.version)}, this beamtrace knows ${RING_VERSION}`,
    );
  for (const part of [h.sab, h.dictionary, h.sources])
    if (Object.prototype.toString.call(part) !== "[object SharedArrayBuffer]")
      throw new OptionError("BT_RING_INVALID", "handle", "holds no SharedArrayBuffer");
  return openRingMemory(h.sab as SharedArrayBuffer);
}
