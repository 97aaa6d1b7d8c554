/**
 * The shape of a term that is still in external term format: type, size and leading atoms, by the same rules as the agent's own
 * (docs/agent-protocol.md, "Shape"). Time is bounded by what the term holds at its front, but for finding its end.
 */
import type { Dictionary } from "./dictionary";
import { SHAPE_LIST_MAX, SHAPE_SIZE_MAX, SHAPE_TYPES as T, SLOT } from "./event-schema";
import type { AtomId } from "./ids";
import { MISFIT, TAG, type WireReader } from "./wire-reader";

/** Reads terms and notes their shape in a slot. */
export class TermShape {
  readonly #reader: WireReader;
  readonly #genCall: AtomId;
  readonly #struct: AtomId;
  #type: number = T.none;
  #size = 0;
  #tag1 = 0;
  #tag2 = 0;

  constructor(reader: WireReader, dictionary: Dictionary) {
    this.#reader = reader;
    this.#genCall = dictionary.atomId("$gen_call");
    this.#struct = dictionary.atomId("__struct__");
  }

  /** Steps over the term at the reader's position and writes its shape into the slot. */
  term(words: Uint32Array, base: number): void {
    const r = this.#reader;
    const start = r.at;
    this.#tag1 = this.#tag2 = 0;
    this.#look();
    this.#store(words, base);
    r.at = start;
    r.skip();
  }

  /** The same for a list of arguments. Returns their number. */
  args(words: Uint32Array, base: number): number {
    const r = this.#reader;
    const start = r.at;
    const tag = r.tag();
    this.#tag1 = this.#tag2 = 0;
    this.#size = 0;
    if (tag === TAG.string) this.#size = r.view.getUint16(r.at + 1);
    else if (tag === TAG.list) {
      this.#size = r.view.getUint32(r.at + 1);
      r.at += 5;
      this.#tag1 = this.#leadingAtom();
      if (this.#size > 1) this.#tag2 = this.#leadingAtom();
    } else if (tag !== TAG.nil) throw MISFIT;
    this.#type = T.args;
    this.#store(words, base);
    r.at = start;
    r.skip();
    return this.#size;
  }

  #store(words: Uint32Array, base: number): void {
    words[base + SLOT.shape] = (this.#type | (Math.min(this.#size, SHAPE_SIZE_MAX) << 4)) >>> 0;
    words[base + SLOT.tag1] = this.#tag1;
    words[base + SLOT.tag2] = this.#tag2;
  }

  #look(): void {
    const r = this.#reader;
    const { view, at } = r;
    this.#size = 0;
    switch (r.tag()) {
      case TAG.smallInteger:
      case TAG.integer:
      case TAG.smallBig:
      case TAG.largeBig:
        this.#type = T.integer;
        return;
      case TAG.newFloat:
      case TAG.float:
        this.#type = T.float;
        return;
      case TAG.binary:
        this.#type = T.binary;
        this.#size = view.getUint32(at + 1);
        return;
      case TAG.bitBinary:
        this.#type = T.bitstring;
        this.#size = (view.getUint32(at + 1) - 1) * 8 + view.getUint8(at + 5);
        return;
      case TAG.nil:
        this.#type = T.nil;
        return;
      case TAG.string:
        this.#type = T.list;
        this.#size = Math.min(view.getUint16(at + 1), SHAPE_LIST_MAX);
        return;
      case TAG.list:
        this.#type = T.list;
        this.#size = Math.min(view.getUint32(at + 1), SHAPE_LIST_MAX);
        return;
      case TAG.smallTuple:
      case TAG.largeTuple:
        return this.#tuple();
      case TAG.map:
        return this.#map();
      case TAG.newPid:
      case TAG.pid:
        this.#type = T.pid;
        return;
      case TAG.newPort:
      case TAG.v4Port:
      case TAG.port:
        this.#type = T.port;
        return;
      case TAG.newerReference:
      case TAG.newReference:
      case TAG.reference:
        this.#type = T.reference;
        return;
      case TAG.newFun:
      case TAG.exportFun:
        this.#type = T.fun;
        return;
      default:
        if (!r.isAtom()) {
          this.#type = T.other;
          return;
        }
        this.#type = T.atom;
        this.#tag1 = r.atom();
    }
  }

  #tuple(): void {
    const r = this.#reader;
    const arity = r.tuple();
    this.#type = T.tuple;
    this.#size = arity;
    if (arity === 0) return;
    if (r.isAtom()) this.#tag1 = r.atom();
    else r.skip();
    if (arity === 1) return;
    if (arity === 3 && this.#tag1 === this.#genCall) r.skip();
    this.#tag2 = this.#leadingAtom();
  }

  #map(): void {
    const r = this.#reader;
    const pairs = r.view.getUint32(r.at + 1);
    r.at += 5;
    this.#type = T.map;
    this.#size = pairs;
    for (let i = 0; i < pairs; i++) {
      if (!r.isAtom()) r.skip();
      else if (r.atom() === this.#struct) {
        if (r.isAtom()) this.#tag1 = r.atom();
        return;
      }
      r.skip();
    }
  }

  /** Steps over a term: the atom itself, or the first element of a tuple if that is an atom, else 0. */
  #leadingAtom(): number {
    const r = this.#reader;
    if (r.isAtom()) return r.atom();
    const start = r.at;
    let atom = 0;
    if (r.tag() === TAG.smallTuple && r.tuple() > 0 && r.isAtom()) atom = r.atom();
    r.at = start;
    r.skip();
    return atom;
  }
}
