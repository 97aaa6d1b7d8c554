/** Structural equality. Iterative: nesting costs no JavaScript stack. */
import { Atom } from "./atom";
import { BitString } from "./bit-string";
import { ErlMap } from "./erl-map";
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

/**
 * Erlang's `=:=`: `1` and `1.0` differ, maps are equal whatever the order of their entries. `0.0` and `-0.0` differ, as they
 * do in OTP 27 and later (in earlier releases they are equal). Funs are equal when module, index, uniq and free variables are;
 * the process that made them does not count, as on the node.
 */
export function equals(a: Term, b: Term): boolean {
  if (a === b) return true;
  if (typeof a !== "object" && typeof b !== "object") return sameNumber(a, b);
  // Pairs still to be compared, flat.
  const stack: Term[] = [a, b];
  while (stack.length > 0) {
    const right = stack.pop()!;
    const left = stack.pop()!;
    if (left === right) continue;
    if (!sameTop(left, right, stack)) return false;
  }
  return true;
}

/** Whether two terms are equal apart from their parts, which are pushed to be compared. */
function sameTop(a: Term, b: Term, stack: Term[]): boolean {
  if (typeof a !== "object" || typeof b !== "object") {
    return typeof a !== "object" && typeof b !== "object" && sameNumber(a, b);
  }
  // Atoms are interned, so two that are not identical differ.
  if (a instanceof Atom) return false;
  if (a instanceof Tuple) return b instanceof Tuple && pushAll(a.elements, b.elements, stack);
  if (a instanceof Uint8Array) return b instanceof Uint8Array && sameBytes(a, b);
  if (Array.isArray(a)) {
    return Array.isArray(b) && pushAll(a as readonly Term[], b as readonly Term[], stack);
  }
  if (a instanceof ErlMap) return b instanceof ErlMap && pushEntries(a, b, stack);
  if (a instanceof ErlFloat) return b instanceof ErlFloat && Object.is(a.value, b.value);
  if (a instanceof Pid) {
    return (
      b instanceof Pid &&
      a.id === b.id &&
      a.serial === b.serial &&
      a.node === b.node &&
      a.creation === b.creation
    );
  }
  if (a instanceof Reference) {
    return (
      b instanceof Reference &&
      a.node === b.node &&
      a.creation === b.creation &&
      a.numbers.length === b.numbers.length &&
      a.numbers.every((number, i) => number === b.numbers[i])
    );
  }
  if (a instanceof Port) {
    return b instanceof Port && sameNumber(a.id, b.id) && a.node === b.node && a.creation === b.creation;
  }
  if (a instanceof ImproperList) {
    if (!(b instanceof ImproperList)) return false;
    stack.push(a.tail, b.tail);
    return pushAll(a.elements, b.elements, stack);
  }
  if (a instanceof BitString) {
    return b instanceof BitString && a.bits === b.bits && sameBytes(maskedBytes(a), maskedBytes(b));
  }
  if (a instanceof ExportFun) {
    return (
      b instanceof ExportFun && a.module === b.module && a.function === b.function && a.arity === b.arity
    );
  }
  if (a instanceof Fun) {
    return (
      b instanceof Fun &&
      a.module === b.module &&
      a.arity === b.arity &&
      a.index === b.index &&
      a.oldIndex === b.oldIndex &&
      a.oldUniq === b.oldUniq &&
      sameBytes(a.uniq, b.uniq) &&
      pushAll(a.freeVars, b.freeVars, stack)
    );
  }
  if (a instanceof NativeRecord) {
    return (
      b instanceof NativeRecord &&
      a.module === b.module &&
      a.name === b.name &&
      a.flags === b.flags &&
      a.fields.length === b.fields.length &&
      a.fields.every((field, i) => field === b.fields[i]) &&
      pushAll(a.values, b.values, stack)
    );
  }
  return a instanceof LocalExt && b instanceof LocalExt && sameBytes(a.bytes, b.bytes);
}

/** Numbers and bigints of the same value are the same integer. */
function sameNumber(a: Term, b: Term): boolean {
  return a == b;
}

function sameBytes(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && Buffer.compare(a, b) === 0;
}

function pushAll(a: readonly Term[], b: readonly Term[], stack: Term[]): boolean {
  if (a.length !== b.length) return false;
  // Numbers are compared at once: a difference in a long list shows before the rest of it is pushed.
  for (let i = a.length - 1; i >= 0; i--) {
    const left = a[i]!;
    const right = b[i]!;
    if (left === right) continue;
    if (typeof left !== "object" && typeof right !== "object") {
      if (!sameNumber(left, right)) return false;
    } else stack.push(left, right);
  }
  return true;
}

function pushEntries(a: ErlMap, b: ErlMap, stack: Term[]): boolean {
  if (a.size !== b.size) return false;
  for (let i = 0; i < a.flat.length; i += 2) {
    const other = b.get(a.flat[i]!);
    if (other === undefined) return false;
    stack.push(a.flat[i + 1]!, other);
  }
  return true;
}
