/**
 * The ids that a shared object stands for, carried by the object itself: an `Mfa` or `Shape` that came out of a dictionary's ids goes back to
 * them without a lookup. Hidden from everything that looks at an object's own fields (spread, JSON, `Object.keys`, deep equality, `inspect`);
 * whoever reads them asks whose ids they are, as an object may travel to another dictionary.
 */
import type { Dictionary, Mfa } from "./dictionary";
import type { Shape } from "./trace-event";

const IDS: unique symbol = Symbol("beamtrace.ids");

/** Id of an `Mfa`, or the three words of a `Shape`. */
export interface KnownIds {
  readonly owner: Dictionary;
  /** Id of the function, or `SLOT.shape`. */
  readonly id: number;
  readonly tag1: number;
  readonly tag2: number;
}

interface Carrier {
  readonly [IDS]?: KnownIds;
}

/** Lets an object, before it is frozen, carry ids of a dictionary. Returns the object. */
export function carryIds<T extends Mfa | Shape>(
  object: T,
  owner: Dictionary,
  id: number,
  tag1 = 0,
  tag2 = 0,
): T {
  return Object.defineProperty(object, IDS, { value: { owner, id, tag1, tag2 } satisfies KnownIds });
}

/** The ids that an object carries, when they are of this dictionary. */
export function carriedIds(object: Mfa | Shape, owner: Dictionary): KnownIds | undefined {
  const known = (object as Carrier)[IDS];
  return known !== undefined && known.owner === owner ? known : undefined;
}
