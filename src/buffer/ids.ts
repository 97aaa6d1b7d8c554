/**
 * Branded numbers that stand in slots for names and identities. An id means something only together with its `Dictionary`
 * (and, for a `ProcessKey`, its source); the brand keeps one sort of number from being passed for another.
 */

declare const brand: unique symbol;

/** Id of an atom in a `Dictionary`; 0 is "no atom". */
export type AtomId = number & { readonly [brand]: "AtomId" };
/** Id of a node (name and creation) in a `Dictionary`; 0 is "the traced node". */
export type NodeId = number & { readonly [brand]: "NodeId" };
/** Id of a module, function and arity in a `Dictionary`; 0 is "none". */
export type MfaId = number & { readonly [brand]: "MfaId" };

/**
 * A process or port of the traced node as one number: high word × 2^32 + low word of its identity (see `IDENTITY`).
 * Cheap to compare and to use as the key of a `Map`. Exact for every process of a node that has started fewer than 2^49 of them.
 * 0 is "none".
 */
export type ProcessKey = number & { readonly [brand]: "ProcessKey" };

/** Nanoseconds since the base of an event's source; the base itself is a bigint, see `SourceInfo`. */
export type Timestamp = number;

/** The key of an identity given by its two words. */
export function processKey(low: number, high: number): ProcessKey {
  return ((high >>> 0) * 0x1_0000_0000 + (low >>> 0)) as ProcessKey;
}

/** Low word of the identity behind a key. */
export function keyLow(key: ProcessKey): number {
  return key >>> 0;
}

/** High word of the identity behind a key. */
export function keyHigh(key: ProcessKey): number {
  return Math.floor(key / 0x1_0000_0000) >>> 0;
}
