/**
 * The group leader of processes that we start: what they print becomes text here. Works on any `NodeLink`.
 * Follows "The Erlang I/O Protocol" (stdlib User's Guide). Input and device options are not supported (`enotsup`).
 */
import { Atom, Pid, tuple, Tuple, type Term } from "../term";
import { chardataToText, type CharEncoding } from "./chardata";
import type { NodeLink } from "./node-link";

const OK = Atom.of("ok");
const ERROR = Atom.of("error");
const IO_REPLY = Atom.of("io_reply");
const BAD_CHARDATA = tuple(ERROR, Atom.of("badarg"));
const NOT_SUPPORTED = tuple(ERROR, Atom.of("enotsup"));

/** Receives text that was printed. */
export type OutputHandler = (text: string, from: Pid) => void;

/** A process that answers the I/O protocol. */
export class GroupLeader {
  readonly pid: Pid;
  readonly #link: NodeLink;
  readonly #handlers = new Set<OutputHandler>();

  constructor(link: NodeLink) {
    this.#link = link;
    this.pid = link.createMailbox({ onMessage: (message) => this.#onMessage(message) });
  }

  /** @returns takes the handler back */
  onOutput(handler: OutputHandler): () => void {
    const own: OutputHandler = (text, from) => handler(text, from);
    this.#handlers.add(own);
    return () => void this.#handlers.delete(own);
  }

  #onMessage(message: Term): void {
    if (!(message instanceof Tuple) || message.length !== 4 || nameOf(message.elements[0]) !== "io_request")
      return;
    const [, from, replyAs, request] = message.elements as readonly [Term, Term, Term, Term];
    if (!(from instanceof Pid)) return;
    const reply = (result: Term): void => this.#link.send(from, tuple(IO_REPLY, replyAs, result), this.pid);
    const result = this.#answer(request, from);
    if (result instanceof Promise) void result.then(reply, () => undefined);
    else reply(result);
  }

  /** Answers one request; at once where possible, so that output keeps the order of the wire. */
  #answer(request: Term, from: Pid): Term | Promise<Term> {
    if (!(request instanceof Tuple)) return NOT_SUPPORTED;
    const [tag, ...args] = request.elements;
    switch (`${nameOf(tag)}/${args.length}`) {
      case "put_chars/1":
        return this.#put("latin1", args[0] as Term, from);
      case "put_chars/2":
        return this.#put(encodingOf(args[0]), args[1] as Term, from);
      case "put_chars/3":
        return this.#apply("latin1", args, from);
      case "put_chars/4":
        return this.#apply(encodingOf(args[0]), args.slice(1), from);
      case "requests/1":
        return Array.isArray(args[0]) ? this.#all(args[0] as Term[], from) : NOT_SUPPORTED;
      default:
        return NOT_SUPPORTED;
    }
  }

  #put(encoding: CharEncoding | undefined, chars: Term, from: Pid): Term {
    const text = encoding === undefined ? undefined : chardataToText(chars, encoding);
    if (text === undefined) return BAD_CHARDATA;
    if (text !== "") for (const handler of this.#handlers) handler(text, from);
    return OK;
  }

  /** `io:format` leaves the formatting to the group leader: it happens on the node that the text comes from. */
  async #apply(encoding: CharEncoding | undefined, mfa: readonly Term[], from: Pid): Promise<Term> {
    const [module, fn, args] = mfa;
    if (!(module instanceof Atom) || !(fn instanceof Atom) || !Array.isArray(args)) return BAD_CHARDATA;
    if (this.#handlers.size === 0) return OK;
    try {
      return this.#put(encoding, await this.#link.call(module.name, fn.name, args as Term[]), from);
    } catch {
      return BAD_CHARDATA;
    }
  }

  /** Until the first that fails; its answer is the answer of all. */
  async #all(requests: readonly Term[], from: Pid): Promise<Term> {
    let result: Term = OK;
    for (const request of requests) {
      result = await this.#answer(request, from);
      if (result instanceof Tuple && result.elements[0] === ERROR) break;
    }
    return result;
  }
}

function nameOf(term: Term | undefined): string {
  return term instanceof Atom ? term.name : "";
}

function encodingOf(term: Term | undefined): CharEncoding | undefined {
  const name = nameOf(term);
  return name === "unicode" || name === "latin1" ? name : undefined;
}
