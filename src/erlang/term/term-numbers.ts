/**
 * Numbers for terms by structure. Compound terms are hash-consed bottom-up: each distinct sub-term gets a small number, and
 * a compound is looked up by the numbers of its parts. So the cost is linear in the size of the terms, whatever a hostile peer
 * sends (no hash to collide with but the engine's seeded string hash), and nothing recurses.
 */
import { BeamtraceError } from "../errors";
import { Atom } from "./atom";
import { BitString } from "./bit-string";
import type { ErlMap } from "./erl-map";
import { ExportFun } from "./export-fun";
import { ErlFloat } from "./float";
import { Fun } from "./fun";
import { ImproperList } from "./improper-list";
import { LocalExt } from "./local-ext";
import { maskedBytes } from "./masked-bytes";
import { NativeRecord } from "./native-record";
import { Pid } from "./pid";
import { Port } from "./port";
import { Reference } from "./reference";
import type { Term } from "./term";
import { Tuple } from "./tuple";

/** Identity of a term as something that a JavaScript `Map` compares by value; strings are prefixed by kind. */
export type Key = Atom | number | bigint | string;

const latin1 = (bytes: Uint8Array): string =>
  Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString("latin1");

/** Numbers distinct terms, sub-terms included. */
export class TermNumbers {
  private readonly ids = new Map<Key, number>();
  /** Compound terms that have been numbered, by identity: what lies within many others is walked once. */
  private readonly seen: Map<Term, number> | undefined;

  /** With `remember`, each object is walked once only, and kept alive. */
  constructor(remember = false) {
    this.seen = remember ? new Map() : undefined;
  }

  /** The number of this term. */
  of(term: Term): number {
    const key = simpleKey(term);
    if (key !== undefined) return this.idOf(key, true) as number;
    const known = this.seen?.get(term);
    return known ?? (this.idOf(this.compoundKey(term, true) as Key, true, term) as number);
  }

  /** What identifies a term within these numbers; undefined when it has a part that was never numbered and `create` is false. */
  keyOf(term: Term, create: boolean): Key | undefined {
    return simpleKey(term) ?? this.compoundKey(term, create);
  }

  private compoundKey(root: Term, create: boolean): Key | undefined {
    const stack: Frame[] = [new Frame(root)];
    for (;;) {
      const frame = stack[stack.length - 1] as Frame;
      if (frame.next < frame.children.length) {
        const child = frame.children[frame.next] as Term;
        const key = simpleKey(child);
        const id = key === undefined ? this.seen?.get(child) : this.idOf(key, create);
        if (id === undefined) {
          if (key !== undefined) return undefined;
          stack.push(new Frame(child));
          continue;
        }
        frame.ids[frame.next++] = id;
        continue;
      }
      const key = frame.key();
      stack.pop();
      const parent = stack[stack.length - 1];
      if (parent === undefined) return key;
      const id = this.idOf(key, create, frame.term);
      if (id === undefined) return undefined;
      parent.ids[parent.next++] = id;
    }
  }

  private idOf(key: Key, create: boolean, compound?: Term): number | undefined {
    let id = this.ids.get(key);
    if (id === undefined && create) this.ids.set(key, (id = this.ids.size));
    if (id !== undefined && compound !== undefined) this.seen?.set(compound, id);
    return id;
  }
}

/** Key of a term without parts. */
function simpleKey(term: Term): Key | undefined {
  if (term instanceof Atom) return term;
  if (typeof term === "number") return term;
  if (typeof term === "bigint") {
    return term <= Number.MAX_SAFE_INTEGER && term >= Number.MIN_SAFE_INTEGER ? Number(term) : term;
  }
  if (term instanceof Uint8Array) return `b${latin1(term)}`;
  if (term instanceof ErlFloat) return Object.is(term.value, -0) ? "f-0" : `f${term.value}`;
  if (term instanceof Pid) return `p${term.id},${term.serial},${term.creation},${term.node.name}`;
  if (term instanceof Reference) return `r${term.numbers.join()},${term.creation},${term.node.name}`;
  if (term instanceof Port) return `o${term.id},${term.creation},${term.node.name}`;
  if (term instanceof BitString) return `s${term.bits}${latin1(maskedBytes(term))}`;
  if (term instanceof LocalExt) return `x${latin1(term.bytes)}`;
  return undefined;
}

/** A compound term whose parts are being numbered. */
class Frame {
  readonly term: Term;
  readonly children: readonly Term[];
  readonly ids: number[] = [];
  next = 0;

  constructor(term: Term) {
    this.term = term;
    this.children = childrenOf(term);
  }

  key(): string {
    const { term, ids } = this;
    if (Array.isArray(term)) return `L${ids.join()}`;
    if (term instanceof Tuple) return `T${ids.join()}`;
    if (term instanceof ImproperList) return `I${ids.join()}`;
    if (isMap(term)) return `M${pairsInOrder(ids)}`;
    if (term instanceof NativeRecord) return `N${term.flags},${ids.join()}`;
    if (term instanceof ExportFun) return `E${term.arity},${ids.join()}`;
    if (term instanceof Fun) {
      return `F${term.arity},${term.index},${term.oldIndex},${term.oldUniq},${ids.join()},${latin1(term.uniq)}`;
    }
    throw new BeamtraceError("BT_NOT_ENCODABLE", `a key of type ${typeof term} is no term`);
  }
}

/** Entries sorted by the number of the key: maps with the same entries are equal in whatever order they came. */
function pairsInOrder(ids: readonly number[]): string {
  const pairs: [number, number][] = [];
  for (let i = 0; i < ids.length; i += 2) pairs.push([ids[i] as number, ids[i + 1] as number]);
  return pairs
    .sort((a, b) => a[0] - b[0])
    .map((pair) => pair.join(":"))
    .join();
}

function childrenOf(term: Term): readonly Term[] {
  if (Array.isArray(term)) return term as readonly Term[];
  if (term instanceof Tuple) return term.elements;
  if (term instanceof ImproperList) return [...term.elements, term.tail];
  if (isMap(term)) return term.flat;
  if (term instanceof NativeRecord) return [term.module, term.name, ...term.fields, ...term.values];
  if (term instanceof ExportFun) return [term.module, term.function];
  if (term instanceof Fun) return [term.module, ...term.freeVars];
  throw new BeamtraceError("BT_NOT_ENCODABLE", `a key of type ${typeof term} is no term`);
}

/** By `kind`, not by class: `erl-map.ts` needs this file. */
function isMap(term: Term): term is ErlMap {
  return typeof term === "object" && "kind" in term && term.kind === "map";
}
