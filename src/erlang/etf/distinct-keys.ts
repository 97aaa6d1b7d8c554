/** Refusing maps that hold a key twice: the VM never writes one, and two equal keys would make equality of maps ambiguous. */
import { Atom, type Term } from "../term";
import { TermNumbers } from "../term/term-numbers";

/** Up to so many keys are compared pair by pair. */
const PAIRWISE = 16;

/**
 * Checks the maps of one term. The numbers of compound keys are shared by all of them: in maps that are keys of maps that are
 * keys … each sub-term is walked once, not once a level.
 */
export class DistinctKeys {
  private numbers: TermNumbers | undefined;

  /** Whether the keys, which are at the even positions, are all different. */
  in(flat: readonly Term[]): boolean {
    if (flat.length <= 2) return true;
    if (flat.length <= 2 * PAIRWISE && keysAreSimple(flat)) {
      for (let i = 2; i < flat.length; i += 2) {
        const key = flat[i];
        for (let j = 0; j < i; j += 2) if (flat[j] === key) return false;
      }
      return true;
    }
    const numbers = (this.numbers ??= new TermNumbers(true));
    const seen = new Set<number>();
    for (let i = 0; i < flat.length; i += 2) seen.add(numbers.of(flat[i]!));
    return seen.size * 2 === flat.length;
  }

  /** Forgets the term. */
  clear(): void {
    this.numbers = undefined;
  }
}

/** Whether all keys are such that `===` is Erlang's equality. */
function keysAreSimple(flat: readonly Term[]): boolean {
  for (let i = 0; i < flat.length; i += 2) {
    const key = flat[i]!;
    if (!(key instanceof Atom) && typeof key !== "number") return false;
  }
  return true;
}
