/**
 * Our end of the conversation with the holder on the node (docs/agent-protocol.md, "Requests and replies").
 * Owns the control mailbox, the lease timer and the requests under way; whoever starts it must `detach` it or close the link.
 */
import { AbortedError, BeamtraceError, ConnectionError } from "../erlang/errors";
import {
  atom,
  Atom,
  binary,
  equals,
  ErlMap,
  inspect,
  map,
  Tuple,
  tuple,
  type Pid,
  type Term,
} from "../erlang/term";
import { RemoteError, type ErrorClass, type NodeLink } from "../erlang/dist";
import { SCHEMA_VERSION } from "../buffer/event-schema";
import { loadAgent } from "./agent-loader";
import { throwIfAborted, timeLimit, withDeadline, type CallOptions } from "./deadline";

/** What the agent client reports unasked. */
export interface AgentEvents {
  /** A trace was stopped by the node. */
  onStopped(traceId: number, reason: Term, stats: Term): void;
  /** Once a second while a trace runs. */
  onStats(traceId: number, stats: Term): void;
  /** The holder has ended without having been asked to. */
  onLost(reason: Term): void;
}

export interface AgentClientOptions extends CallOptions {
  readonly leaseMs: number;
  readonly events: AgentEvents;
}

const START_ATTEMPTS = 8;
/** A healthy node starts the holder within milliseconds; a starved one gets this long. */
const READY_TIMEOUT_MS = 10_000;

export class AgentClient {
  readonly #link: NodeLink;
  readonly #waiting = new Map<number, { resolve(value: Term): void; reject(error: Error): void }>();
  readonly #events: AgentEvents;
  #control!: Pid;
  #holder!: Pid;
  #info: Term = [];
  #ids = 0;
  #endLease: (() => void) | undefined;
  #ended = false;
  /** Id of the request to detach, which the end of the agent answers. */
  #detach: number | undefined;
  #onReady: ((holder: Pid, info: Term) => void) | undefined;
  #onStartFailed: ((reason: Term) => void) | undefined;
  readonly #down: Promise<void>;
  #settleDown!: () => void;

  private constructor(link: NodeLink, events: AgentEvents) {
    this.#link = link;
    this.#events = events;
    this.#down = new Promise((resolve) => (this.#settleDown = resolve));
  }

  /** Loads the agent's modules when they are not there, and starts a holder. */
  static async start(link: NodeLink, options: AgentClientOptions): Promise<AgentClient> {
    for (let attempt = 1; ; attempt += 1) {
      await loadAgent(link, options);
      const client = new AgentClient(link, options.events);
      const failure = await client.#startHolder(options);
      if (failure === undefined) return client;
      // The last holder of another session may have unloaded the modules between our loading and starting.
      const unloaded =
        (failure instanceof Atom && failure.name === "beamtrace_reload") ||
        inspect(failure).includes("undef");
      if (!unloaded || attempt === START_ATTEMPTS) {
        throw new BeamtraceError(
          "BT_AGENT_FAILED",
          `the agent did not start on the node: ${inspect(failure)}`,
        );
      }
    }
  }

  /** Pid of the holder. */
  get holder(): Pid {
    return this.#holder;
  }

  /** What the holder said of itself when it started. */
  get info(): Term {
    return this.#info;
  }

  /** One request; resolves with the value of `{ok, Value}` (or `ok`), gives `refused` the reason of `{error, Reason}`. */
  async request(request: Term, refused: (reason: Term) => Error, options: CallOptions = {}): Promise<Term> {
    if (this.#ended) throw new ConnectionError("BT_CLOSED", "the agent on the node has ended");
    throwIfAborted(options.signal);
    const id = (this.#ids += 1);
    const reply = new Promise<Term>((resolve, reject) => this.#waiting.set(id, { resolve, reject }));
    try {
      // A term that can't be encoded fails here.
      this.#link.send(this.#holder, tuple(atom("beamtrace"), id, request), this.#control);
      const answer = await withDeadline(reply, options, "the agent's answer");
      if (answer instanceof Tuple && answer.elements[0] === atom("ok")) return answer.elements[1] as Term;
      if (answer instanceof Tuple && answer.elements[0] === atom("error"))
        throw refused(answer.elements[1] as Term);
      return answer;
    } finally {
      this.#waiting.delete(id);
    }
  }

  /** Applies a function on the node in a process that is never traced. After an abort it runs on until its time is up. */
  async call(module: string, fn: string, args: readonly Term[], options: CallOptions): Promise<Term> {
    const timeoutMs = timeLimit(options);
    const limit = timeoutMs === undefined ? atom("infinity") : Math.ceil(timeoutMs);
    const request = tuple(atom("call"), atom(module), atom(fn), [...args], limit);
    const what = `${module}:${fn}/${args.length}`;
    const refused = (reason: Term): Error =>
      equals(reason, atom("timeout"))
        ? new AbortedError(
            "BT_TIMEOUT",
            `${what} did not return within ${String(timeoutMs)} ms and was killed`,
          )
        : new BeamtraceError("BT_AGENT_FAILED", `${what}: ${inspect(reason)}`);
    const outcome = await this.request(request, refused, options);
    const [tag, value, stacktrace] = outcome instanceof Tuple ? outcome.elements : [];
    if (!(tag instanceof Atom) || value === undefined) throw refused(outcome);
    if (tag.name === "return") return value;
    throw new RemoteError(what, tag.name as ErrorClass, value, stacktrace);
  }

  /** Ends the holder after everything it set has been undone; resolves when it has gone. */
  async detach(options: CallOptions = {}): Promise<void> {
    if (this.#ended) return;
    this.#detach = this.#ids + 1;
    await this.request(
      atom("detach"),
      (reason) => new BeamtraceError("BT_AGENT_FAILED", `detach: ${inspect(reason)}`),
      options,
    );
    await withDeadline(this.#down, options, "the agent's end");
  }

  /** Stops timers and fails what is under way; for use when the link has gone. */
  abandon(): void {
    this.#finish(new ConnectionError("BT_CONNECTION_LOST", "the connection to the node was lost"));
  }

  async #startHolder(options: AgentClientOptions): Promise<Term | undefined> {
    this.#control = this.#link.createMailbox({
      onMessage: (message) => this.#receive(message),
      onExit: (_from, reason) => this.#holderDown(reason),
      onDown: (_ref, _from, reason) => this.#holderDown(reason),
    });
    const outcome = new Promise<Term | undefined>((resolve) => {
      this.#onReady = (holder, info) => {
        this.#holder = holder;
        this.#info = info;
        resolve(undefined);
      };
      this.#onStartFailed = resolve;
    });
    const settings = map({ lease_ms: options.leaseMs, label: binary(this.#link.self.name) });
    try {
      await this.#link.spawnRequest(
        this.#control,
        { module: "beamtrace_agent", function: "start" },
        [this.#control, settings],
        [atom("link"), atom("monitor")],
      );
      const failure = await withDeadline(
        outcome,
        { timeoutMs: READY_TIMEOUT_MS, ...(options.signal && { signal: options.signal }) },
        "the agent's start",
      );
      this.#onStartFailed = undefined;
      if (failure !== undefined) {
        this.#link.closeMailbox(this.#control);
        return failure;
      }
    } catch (error) {
      this.#link.closeMailbox(this.#control);
      throw error;
    }
    const version = this.#info instanceof ErlMap ? this.#info.get(atom("version")) : undefined;
    if (version !== SCHEMA_VERSION) {
      this.#link.closeMailbox(this.#control);
      throw new BeamtraceError(
        "BT_AGENT_CLASH",
        `the agent on the node speaks version ${String(version)}, this client ${SCHEMA_VERSION}; end the other session first`,
      );
    }
    // Id 0: nobody waits for the answer.
    const renewal = tuple(atom("beamtrace"), 0, atom("renew"));
    const everyMs = Math.max(50, Math.floor(options.leaseMs / 3));
    this.#endLease = this.#link.sendEvery(this.#holder, renewal, everyMs, this.#control);
    return undefined;
  }

  #receive(message: Term): void {
    if (!(message instanceof Tuple)) return;
    const [tag, a, b, c] = message.elements;
    switch (tag instanceof Atom ? tag.name : "") {
      case "beamtrace_reply":
        this.#waiting.get(a as number)?.resolve(b as Term);
        return;
      case "beamtrace_ready":
        this.#onReady?.(a as Pid, b as Term);
        return;
      case "beamtrace_stopped":
        this.#events.onStopped(a as number, b as Term, c as Term);
        return;
      case "beamtrace_stats":
        this.#events.onStats(a as number, b as Term);
        return;
      default:
    }
  }

  #holderDown(reason: Term): void {
    if (this.#onStartFailed !== undefined) return this.#onStartFailed(reason);
    if (this.#ended) return;
    const expected = this.#detach !== undefined;
    this.#finish(
      expected
        ? new ConnectionError("BT_CLOSED", "the session was closed meanwhile")
        : new ConnectionError("BT_CONNECTION_LOST", `the agent on the node has ended: ${inspect(reason)}`),
    );
    // With the connection the link's own end says more.
    const disconnected = reason instanceof Atom && reason.name === "noconnection";
    if (!expected && !disconnected) this.#events.onLost(reason);
  }

  #finish(error: Error): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#endLease?.();
    for (const [id, { reject, resolve }] of this.#waiting) {
      if (id === this.#detach) resolve(atom("ok"));
      else reject(error);
    }
    this.#waiting.clear();
    this.#link.closeMailbox(this.#control);
    this.#settleDown();
  }
}
