/**
 * Calls a function on the node without any code of ours there. Works on any `NodeLink`.
 *
 * `spawn`: a process of its own applies `erpc:execute_call/4`, which exits with the result as its reason. It is linked, so that the
 * result comes as one exit signal, and so that it ends when the connection, or we, give up: nothing of ours stays behind.
 * `rex`: a message to the rpc server, for peers without spawn_request. Can't be stopped, and tells less about errors.
 */
import { AbortedError, ConnectionError } from "../errors";
import { Atom, Pid, tuple, Tuple, type Term } from "../term";
import { MAX_TIMER_MS } from "./deadline";
import type { CallOptions, NodeLink } from "./node-link";
import { RemoteError, type ErrorClass } from "./remote-error";

const LINK = Atom.of("link");
const KILL = Atom.of("kill");

/** A function call. */
export interface Call {
  readonly module: string;
  readonly function: string;
  readonly args: readonly Term[];
}

/**
 * Calls by spawn_request.
 * @throws as `NodeLink.call`
 */
export function callBySpawn(link: NodeLink, call: Call, options: CallOptions): Promise<Term> {
  return limited(link, call, options, (settle) => {
    const mailbox = link.createMailbox({
      onExit: (_from, reason) => settle(() => readExit(reason, mailbox, call)),
    });
    const args = [mailbox, Atom.of(call.module), Atom.of(call.function), call.args];
    const spawned = link.spawnRequest(mailbox, { module: "erpc", function: "execute_call" }, args, [LINK]);
    spawned.catch((error: unknown) => settle(() => Promise.reject(error as Error)));
    return {
      giveUp: () => void spawned.then((pid) => link.exit(mailbox, pid, KILL)).catch(() => undefined),
      done: () => link.closeMailbox(mailbox),
    };
  });
}

/**
 * Calls through the rpc server.
 * @throws as `NodeLink.call`
 */
export function callByRex(link: NodeLink, call: Call, groupLeader: Pid, options: CallOptions): Promise<Term> {
  return limited(link, call, options, (settle) => {
    const mailbox = link.createMailbox({
      onMessage(message) {
        if (!(message instanceof Tuple) || message.length !== 2) return;
        settle(() => readRex(message.elements[1] as Term, call));
      },
      onDown: (_ref, _from, reason) => settle(() => Promise.reject(processError(reason, call))),
    });
    link.monitor(mailbox, "rex");
    const request = tuple(
      Atom.of("call"),
      Atom.of(call.module),
      Atom.of(call.function),
      call.args,
      groupLeader,
    );
    link.send({ name: "rex" }, tuple(mailbox, request), mailbox);
    return { giveUp: () => undefined, done: () => link.closeMailbox(mailbox) };
  });
}

interface Running {
  /** Called when nobody waits for the result any more. */
  giveUp(): void;
  /** Called in any case, last. */
  done(): void;
}

type Settle = (result: () => Term | Promise<Term>) => void;

/** A time limit and a signal around a call; the first of result, limit and signal counts. */
function limited(
  link: NodeLink,
  call: Call,
  options: CallOptions,
  start: (settle: Settle) => Running,
): Promise<Term> {
  const { timeoutMs, signal } = options;
  return new Promise<Term>((resolve, reject) => {
    const name = nameOf(call);
    if (signal?.aborted) return reject(aborted(name, signal));
    let running: Running | undefined;
    let settled = false;
    const settle = (result: () => Term | Promise<Term>, giveUp = false): void => {
      if (settled) return;
      settled = true;
      clearTimeout(timer);
      signal?.removeEventListener("abort", onAbort);
      if (giveUp) running?.giveUp();
      running?.done();
      try {
        resolve(result());
      } catch (error) {
        reject(error as Error);
      }
    };
    const fail = (error: Error): void => settle(() => Promise.reject(error), true);
    const onAbort = (): void => fail(aborted(name, signal));
    const onTimeout = (): void =>
      fail(new AbortedError("BT_TIMEOUT", `${name} on ${link.peer.name} took longer than ${timeoutMs} ms`));
    signal?.addEventListener("abort", onAbort, { once: true });
    const timer =
      timeoutMs === undefined || timeoutMs > MAX_TIMER_MS ? undefined : setTimeout(onTimeout, timeoutMs);
    try {
      running = start(settle);
      if (settled) running.done();
    } catch (error) {
      fail(error as Error);
    }
  });
}

function aborted(name: string, signal: AbortSignal | undefined): AbortedError {
  return new AbortedError("BT_ABORTED", `${name} was aborted`, { cause: signal?.reason });
}

function nameOf({ module, function: fn, args }: Call): string {
  return `${module}:${fn}/${args.length}`;
}

/** Reads the exit reason of `erpc:execute_call/4`. */
function readExit(reason: Term, tag: Pid, call: Call): Term {
  const parts = reason instanceof Tuple && isTag(reason.elements[0], tag) ? reason.elements : [];
  const [, how, value, stack] = parts;
  if (how instanceof Atom && value !== undefined) {
    switch (how.name) {
      case "return":
        return value;
      case "throw":
      case "exit":
        throw new RemoteError(nameOf(call), how.name, value);
      case "error":
        throw new RemoteError(nameOf(call), "error", value, stack);
    }
  }
  throw processError(reason, call);
}

function isTag(term: Term | undefined, tag: Pid): boolean {
  return (
    term instanceof Pid && term.id === tag.id && term.creation === tag.creation && term.node === tag.node
  );
}

/** The process that ran the call ended without a result: killed, or the connection went. */
function processError(reason: Term, call: Call): Error {
  if (reason instanceof Atom && reason.name === "noconnection") {
    return new ConnectionError("BT_CONNECTION_LOST", `the connection ended while ${nameOf(call)} ran`);
  }
  return new RemoteError(nameOf(call), "exit", reason);
}

/** `{badrpc, {'EXIT', Reason}}` and `{badrpc, Reason}`; thrown terms look like values. */
function readRex(result: Term, call: Call): Term {
  if (!(result instanceof Tuple) || !isAtom(result.elements[0], "badrpc")) return result;
  const why = result.elements[1] as Term;
  if (!(why instanceof Tuple) || !isAtom(why.elements[0], "EXIT")) throw processError(why, call);
  const reason = why.elements[1] as Term;
  const raised = reason instanceof Tuple && reason.length === 2 && Array.isArray(reason.elements[1]);
  const errorClass: ErrorClass = raised ? "error" : "exit";
  if (!raised) throw new RemoteError(nameOf(call), errorClass, reason);
  throw new RemoteError(nameOf(call), errorClass, reason.elements[0] as Term, reason.elements[1]);
}

function isAtom(term: Term | undefined, name: string): boolean {
  return term instanceof Atom && term.name === name;
}
