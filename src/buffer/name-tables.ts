/**
 * The part of a dictionary that some slots refer to, as plain arrays with ids from 1: what travels with them, so that bytes describe themselves.
 */
import { BeamtraceError } from "../erlang/errors";
import type { Dictionary } from "./dictionary";
import { translateIds, type IdMapping } from "./id-translation";
import { SLOT_WORDS } from "./event-schema";
import type { AtomId } from "./ids";
import type { SlotBlock } from "./slot-block";

/** Names by id − 1. */
export interface NameTables {
  /** Texts. */
  readonly atoms: readonly string[];
  /** Pairs: id of the name, creation. */
  readonly nodes: readonly number[];
  /** Triples: ids of module and function, arity. */
  readonly mfas: readonly number[];
}

/** Rewrites the ids in a block, of a dictionary, to those of the tables that it returns. */
export function extractNames(block: SlotBlock, dictionary: Dictionary): NameTables {
  const atoms: string[] = [];
  const nodes: number[] = [];
  const mfas: number[] = [];
  const atom = numbering((id) => void atoms.push(dictionary.atomName(id) ?? ""));
  const map: IdMapping = {
    atom,
    node: numbering((id) => {
      const name = atom(dictionary.nodeColumn(id, 0));
      nodes.push(name, dictionary.nodeColumn(id, 1));
    }),
    mfa: numbering((id) => {
      const module = atom(dictionary.mfaColumn(id, 0));
      mfas.push(module, atom(dictionary.mfaColumn(id, 1)), dictionary.mfaColumn(id, 2));
    }),
  };
  translateIds(block.words, 0, block.count * SLOT_WORDS, map);
  return { atoms, nodes, mfas };
}

const MAX_DENSE_ID = 1 << 24;

/** New ids in the order in which old ones first appear. */
function numbering(add: (id: number) => void): (id: number) => number {
  let known = new Uint32Array(1024);
  let count = 0;
  // No dictionary gets that far; a damaged slot must not cost memory.
  const far = new Map<number, number>();
  return (id) => {
    if (id > MAX_DENSE_ID) {
      const given = far.get(id);
      if (given !== undefined) return given;
      add(id);
      far.set(id, ++count);
      return count;
    }
    if (id >= known.length) {
      const larger = new Uint32Array(Math.max(id + 1, known.length * 2));
      larger.set(known);
      known = larger;
    }
    const given = known[id]!;
    if (given !== 0) return given;
    add(id);
    return (known[id] = ++count);
  };
}

/**
 * Rewrites the ids in a block from those of the tables to those of a dictionary.
 * @throws BeamtraceError `BT_CODEC_INVALID` when tables or slots name something that is not there
 */
export function resolveNames(block: SlotBlock, tables: NameTables, dictionary: Dictionary): void {
  const atoms = tables.atoms.map((text) => atomOf(text, dictionary));
  const atom = (id: number): AtomId => atoms[id - 1] ?? missing("atom", id);
  const nodes: number[] = [];
  for (let i = 0; i < tables.nodes.length; i += 2) {
    nodes.push(dictionary.internNode(atom(tables.nodes[i]!), tables.nodes[i + 1]!));
  }
  const mfas: number[] = [];
  for (let i = 0; i < tables.mfas.length; i += 3) {
    mfas.push(dictionary.internMfa(atom(tables.mfas[i]!), atom(tables.mfas[i + 1]!), tables.mfas[i + 2]!));
  }
  translateIds(block.words, 0, block.count * SLOT_WORDS, {
    atom,
    node: (id) => nodes[id - 1] ?? missing("node", id),
    mfa: (id) => mfas[id - 1] ?? missing("function", id),
  });
}

function atomOf(text: string, dictionary: Dictionary): AtomId {
  try {
    return dictionary.atomId(text);
  } catch (cause) {
    throw new BeamtraceError("BT_CODEC_INVALID", "Encoded events hold a name that no atom can have", {
      cause,
    });
  }
}

function missing(what: string, id: number): never {
  throw new BeamtraceError("BT_CODEC_INVALID", `Encoded events name ${what} ${id}, which is not there`);
}
