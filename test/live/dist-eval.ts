/** Shared by the live tests of the distribution: Erlang expressions evaluated through the link itself, with bindings as terms. */
import { connect, type ConnectOptions, type Mailbox, type NodeLink } from "../../src/erlang/dist";
import {
  atom,
  charlist,
  tuple,
  Tuple,
  type Atom,
  type Pid,
  type Reference,
  type Term,
} from "../../src/erlang/term";
import type { ErlNode } from "../support/erl-node";

/** Connects to a test node; options as of `connect`. */
export function connectTo(node: ErlNode, options: ConnectOptions = {}): Promise<NodeLink> {
  return connect(node.name, { cookie: node.cookie, epmd: { port: node.epmdPort }, ...options });
}

/** Evaluates expressions in a process of the node; `bindings` are its variables. */
export async function evalOn(
  link: NodeLink,
  code: string,
  bindings: Record<string, Term> = {},
): Promise<Term> {
  const tokens = second(await link.call("erl_scan", "string", [charlist(`${code}.`)]));
  const forms = second(await link.call("erl_parse", "parse_exprs", [tokens]));
  const variables = Object.entries(bindings).map(([name, value]) => tuple(atom(name), value));
  const result = await link.call("erl_eval", "exprs", [forms, variables]);
  return second(result);
}

function second(term: Term): Term {
  if (!(term instanceof Tuple)) throw new Error("not a tuple");
  return term.elements[1] as Term;
}

/** What a recording mailbox has seen. */
export type Seen =
  | { readonly kind: "message"; readonly message: Term; readonly from: Pid | undefined }
  | { readonly kind: "exit"; readonly from: Pid; readonly reason: Term }
  | { readonly kind: "down"; readonly ref: Reference; readonly from: Pid | Atom; readonly reason: Term };

/** A mailbox that keeps what it gets, with a promise for the next of each. */
export class RecordingMailbox implements Mailbox {
  readonly seen: Seen[] = [];
  readonly pid: Pid;
  #taken = 0;
  #wake: (() => void) | undefined;

  constructor(link: NodeLink) {
    this.pid = link.createMailbox(this);
  }

  onMessage(message: Term, from: Pid | undefined): void {
    this.#add({ kind: "message", message, from });
  }

  onExit(from: Pid, reason: Term): void {
    this.#add({ kind: "exit", from, reason });
  }

  onDown(ref: Reference, from: Pid | Atom, reason: Term): void {
    this.#add({ kind: "down", ref, from, reason });
  }

  /** The next signal, in order, that has not been taken yet. */
  async next(): Promise<Seen> {
    while (this.#taken >= this.seen.length) await new Promise<void>((resolve) => (this.#wake = resolve));
    return this.seen[this.#taken++] as Seen;
  }

  #add(seen: Seen): void {
    this.seen.push(seen);
    this.#wake?.();
  }
}
