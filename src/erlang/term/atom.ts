/**
 * Atoms: interned names, compared by identity. The table holds them weakly: a peer that sends ever new atoms costs what is
 * alive, not what was ever seen (the BEAM itself never forgets one and dies at its limit). Decoders keep a small strong cache in front.
 */
import { BeamtraceError } from "../errors";

/** Longest atom, in Unicode code points. */
export const MAX_ATOM_LENGTH = 255;

const table = new Map<string, WeakRef<Atom>>();
const forget = new FinalizationRegistry<string>((name) => {
  // The name may have been interned again before this runs.
  if (table.get(name)?.deref() === undefined) table.delete(name);
});

let intern: (name: string) => Atom;

/** An Erlang atom. Two atoms of one name are one object: compare with `===`. */
export class Atom {
  /** The name as text, without quotes; an Elixir module keeps its `Elixir.` prefix. */
  readonly name: string;

  private constructor(name: string) {
    this.name = name;
  }

  static {
    intern = (name) => {
      const fresh = new Atom(name);
      table.set(name, new WeakRef(fresh));
      forget.register(fresh, name);
      return fresh;
    };
  }

  /**
   * The atom of this name.
   * @throws BeamtraceError `BT_NOT_ENCODABLE` when no node could have such an atom: over 255 code points, or lone surrogates.
   */
  static of(name: string): Atom {
    const known = table.get(name)?.deref();
    if (known !== undefined) return known;
    if (!isAtomName(name)) {
      throw new BeamtraceError(
        "BT_NOT_ENCODABLE",
        `an atom has at most ${MAX_ATOM_LENGTH} characters and no lone surrogates; this one starts with ${JSON.stringify(name.slice(0, 40))}`,
      );
    }
    return intern(name);
  }

  /** Tells the term types apart in a `switch`. */
  get kind(): "atom" {
    return "atom";
  }

  toString(): string {
    return this.name;
  }
}

/** @internal Atoms that the table knows, those included whose memory is not yet given back. */
export function atomTableSize(): number {
  return table.size;
}

/** Whether the VM could have an atom of this name. */
export function isAtomName(name: string): boolean {
  if (
    name.length > MAX_ATOM_LENGTH &&
    (name.length > 2 * MAX_ATOM_LENGTH || [...name].length > MAX_ATOM_LENGTH)
  )
    return false;
  return !/\p{Surrogate}/u.test(name);
}
