/** Refusing maps that hold a key twice: the VM never writes one, and two equal keys would make equality of maps ambiguous. */
import { Atom, type Term } from "../term";
import { TermIndex } from "../term/term-index";

/** Up to so many keys are compared pair by pair. */
const PAIRWISE = 16;

/** False when two keys are equal; otherwise the index if one had to be made. Keys are at the even positions. */
export function distinctKeys(flat: readonly Term[]): TermIndex | undefined | false {
  if (flat.length <= 2) return undefined;
  if (flat.length <= 2 * PAIRWISE && keysAreSimple(flat)) {
    for (let i = 2; i < flat.length; i += 2) {
      const key = flat[i];
      for (let j = 0; j < i; j += 2) if (flat[j] === key) return false;
    }
    return undefined;
  }
  const index = new TermIndex();
  for (let i = 0; i < flat.length; i += 2) if (index.add(flat[i]!) !== i / 2) return false;
  return index;
}

/** Whether all keys are such that `===` is Erlang's equality. */
function keysAreSimple(flat: readonly Term[]): boolean {
  for (let i = 0; i < flat.length; i += 2) {
    const key = flat[i]!;
    if (!(key instanceof Atom) && typeof key !== "number") return false;
  }
  return true;
}
