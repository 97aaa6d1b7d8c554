/**
 * A running trace: where its events go, what it lost, and how it ends. It owns its feed and, unless one was given, its ring.
 * Made by `session.trace()`; after a re-attachment the same object goes on under a new id.
 */
import { BehaviorSubject, type Observable } from "rxjs";
import {
  RingBuffer,
  ringSource,
  type EventBatch,
  type EventSource,
  type RingSource,
  type SourceInfo,
  type TraceEvent,
} from "../buffer";
import type { GapHop } from "../buffer";
import { OptionError } from "../erlang/errors";
import { Atom, atom, ErlMap, inspect, tuple, Tuple, type Pid, type Term } from "../erlang/term";
import type { AgentClient } from "./agent-client";
import { TraceRefusedError, traceRefused } from "./agent-errors";
import { withDeadline, type CallOptions } from "./deadline";
import type { EffectiveLimits } from "./limits";
import { feedRing, THIS_THREAD, writeGap } from "./ring-producer";
import type { TracerOption } from "./native-loader";
import type { SessionInfo, TracerChoice } from "./session-info";
import type { SessionCloseReason, SessionStatus, TraceEndReason } from "./session-status";
import type { LinkHost, TraceFeed } from "./trace-feed";
import type { TraceSpec } from "./trace-options";
import { resolveTraceSpec, type ResolvedTraceSpec } from "./trace-spec";
import { TraceSites } from "./trace-sites";
import { nodeStats, type NodeStats, type TraceStats } from "./trace-stats";

/** Options of `session.trace()`. */
export interface TraceOptions extends TraceSpec {
  /** Ring that the events go to; it can be shared with other traces and read in other threads. Default: a ring of its own. */
  readonly into?: RingBuffer;
  /** Stops the trace. */
  readonly signal?: AbortSignal;
}

/** What the session does for its traces; internal. */
export interface TraceHooks {
  /** A number for a trace that is about to be asked for: what the node says of it finds it from now on. */
  onOpening(trace: Trace): number;
  /** An aborted trace is being taken back; until then the node may hold it for running. */
  onUndoing(undone: Promise<void>): void;
  onEnded(trace: Trace, reason: TraceEndReason): void;
  onOverload(status: Extract<SessionStatus, { state: "overloaded" }>): void;
  onFallback(reason: string): void;
}

/** How long the tracer's last message may take after the holder has told the end. */
const LAST_MESSAGE_MS = 2_000;

/** A running trace. */
export class Trace implements EventSource {
  readonly #options: TraceOptions;
  readonly #hooks: TraceHooks;
  readonly #spec: ResolvedTraceSpec;
  readonly #ownsRing: boolean;
  readonly #stats: BehaviorSubject<TraceStats>;
  readonly #onAbort = (): void => this.#hooks.onUndoing(this.stop().catch(ignore));
  #source: RingSource | undefined;
  #sourceId = 0;
  readonly #sourceIds = new Set<number>();
  #feed: TraceFeed | undefined;
  #leaveRing: (() => void) | undefined;
  #host: LinkHost | undefined;
  #agent: AgentClient | undefined;
  #id = 0;
  #matched = 0;
  #tracer: TracerChoice = { kind: "portable", reason: "not started" };
  #node: NodeStats = nodeStats(undefined);
  #ended: TraceEndReason | undefined;
  #stopping: Promise<void> | undefined;
  #settleEnded!: (reason: TraceEndReason) => void;
  #lastMessage: Promise<void> = Promise.resolve();
  #lostBefore = 0;

  /** What the sites of instrumented code stand for; see `instrumented`. */
  readonly sites: TraceSites;
  /** The ring that the events go to. */
  readonly ring: RingBuffer;
  /** Resolves with the reason when the trace has ended and all its events are in the ring; never rejects. */
  readonly ended: Promise<TraceEndReason>;
  /** Figures of both sides, once a second; the last ones come first. Completes when the trace has ended. */
  readonly stats$: Observable<TraceStats>;

  /** @internal */
  constructor(options: TraceOptions, hooks: TraceHooks, otp: number) {
    this.#options = options;
    this.#hooks = hooks;
    this.#spec = resolveTraceSpec(options, otp);
    this.#ownsRing = options.into === undefined;
    this.ring = options.into ?? new RingBuffer();
    if (this.ring.closed)
      throw new OptionError(
        "BT_OPTION_INVALID",
        "into",
        "the ring is closed; a trace needs one that is open",
      );
    const { instrumented } = options;
    this.sites = new TraceSites(
      this.ring.dictionary,
      typeof instrumented === "object" ? (instrumented.beams ?? []) : [],
    );
    this.ended = new Promise((resolve) => (this.#settleEnded = resolve));
    this.#stats = new BehaviorSubject(this.stats);
    this.stats$ = this.#stats.asObservable();
  }

  /** Number of this trace within its session; a new one after each re-attachment. */
  get id(): number {
    return this.#id;
  }

  /** How many functions the call patterns matched. */
  get matched(): number {
    return this.#matched;
  }

  /** The tracer that this trace uses, and why. */
  get tracer(): TracerChoice {
    return this.#tracer;
  }

  /** The limits in force. */
  get limits(): EffectiveLimits {
    return this.#spec.limits;
  }

  get hasEnded(): boolean {
    return this.#ended !== undefined;
  }

  /** Which node and clock the events come from; one more entry after each re-attachment. */
  get sources(): readonly SourceInfo[] {
    return this.#eventSource.sources;
  }

  /**
   * Events in batches: the primary stream. A batch is valid during the callback; `batch.copy()` keeps it. It starts with what has been
   * gathered since the trace began, completes when the trace has ended, and never errors (`ended` tells why).
   * Unsubscribing does not stop the trace.
   */
  get batches$(): Observable<EventBatch> {
    return this.#eventSource.batches$;
  }

  /** The same events one by one, as plain objects that are safe to keep. */
  get events$(): Observable<TraceEvent> {
    return this.#eventSource.events$;
  }

  /** Figures of both sides as of now. Those of the node are at most a second old. */
  get stats(): TraceStats {
    const ring = this.ring.stats();
    const node = this.#node;
    return {
      node,
      written: ring.written,
      lostRing: ring.dropped,
      pending: this.#source?.pending ?? 0,
      lost: node.lostTracer + node.lostLink + ring.dropped,
      payloadsLost: ring.payloadDropped,
      bytesIn: this.#host?.link.bytesIn ?? 0,
    };
  }

  /**
   * Stops the trace: flags and breakpoints are taken back, and what was traced until then is delivered. Any number of times.
   *
   * @throws AbortedError `BT_TIMEOUT` when the node does not answer; its lease then does the same.
   */
  stop(options: CallOptions = {}): Promise<void> {
    this.#stopping ??= this.#stop(options);
    return this.#stopping;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.stop();
  }

  /** @internal */
  async start(
    host: LinkHost,
    agent: AgentClient,
    info: SessionInfo,
    tracer: TracerOption,
    timeoutMs: number,
  ): Promise<void> {
    const { signal } = this.#options;
    await this.#open(host, agent, info, tracer, { timeoutMs, ...(signal !== undefined && { signal }) });
    // The node may have stopped it already.
    if (this.hasEnded) return;
    signal?.addEventListener("abort", this.#onAbort, { once: true });
    if (signal?.aborted) this.#onAbort();
  }

  /** @internal The same trace on a new connection; if the node refuses it now, the trace ends. */
  async restart(
    host: LinkHost,
    agent: AgentClient,
    info: SessionInfo,
    tracer: TracerOption,
    timeoutMs: number,
  ): Promise<void> {
    if (this.hasEnded) return;
    try {
      await this.#open(host, agent, info, tracer, { timeoutMs });
    } catch (error) {
      if (!(error instanceof TraceRefusedError)) throw error;
      this.#finish({ kind: "refused", code: error.code, detail: error.message });
    }
  }

  /** @internal The connection is gone; another may come. */
  suspend(): void {
    if (this.#feed === undefined) return;
    this.#closeFeed();
    this.#agent = undefined;
    writeGap(this.ring, { source: this.#sourceId, hop: "reattach", count: 0, from: NaN, to: NaN });
    this.#source?.pump();
  }

  /** @internal */
  stoppedByNode(reason: Term, stats: Term): void {
    this.reportStats(stats);
    void this.#afterLastMessage(endReason(reason));
  }

  /** @internal */
  reportStats(stats: Term): void {
    this.#node = nodeStats(stats);
    const now = this.stats;
    if (now.lost > this.#lostBefore) {
      const hop: GapHop = now.node.lostLink > 0 ? "link" : now.node.lostTracer > 0 ? "tracer" : "ring";
      this.#hooks.onOverload({
        state: "overloaded",
        traceId: this.#id,
        hop,
        lost: now.lost - this.#lostBefore,
      });
      this.#lostBefore = now.lost;
    }
    this.#stats.next(now);
  }

  /** @internal */
  sessionClosed(reason: SessionCloseReason): void {
    this.#finish({ kind: "session-closed", reason });
  }

  get #eventSource(): RingSource {
    const wait = this.#host?.sameThread === false;
    this.#source ??= ringSource(this.ring, this.#ownsRing ? { wait } : { only: this.#sourceIds, wait });
    return this.#source;
  }

  /** The tracer of this trace: the session's, unless this trace asks for what that one can't do. */
  #choose(info: SessionInfo, tracer: TracerOption): TracerChoice {
    const { portableOnly } = this.#spec;
    const choice: TracerChoice =
      info.tracer.kind === "native" && portableOnly !== undefined
        ? { kind: "portable", reason: portableOnly }
        : info.tracer;
    // Overwriting is what the rings do; the portable tracer has none.
    if ((tracer === "native" || this.#spec.overwrite) && choice.kind !== "native")
      throw new TraceRefusedError("BT_NATIVE_UNAVAILABLE", choice.reason, atom("native"));
    return choice;
  }

  /** Starts the trace, with the portable tracer where the native one fails after all and nobody insisted on it. */
  async #request(
    agent: AgentClient,
    mailbox: Pid,
    info: SessionInfo,
    tracer: TracerOption,
    options: CallOptions,
  ): Promise<Term> {
    const ask = (): Promise<Term> => {
      const failed =
        tracer === "auto" && this.#tracer.kind === "portable" && this.#spec.portableOnly === undefined;
      const spec = this.#spec.termFor(this.#tracer.kind, failed ? this.#tracer.reason : undefined);
      return agent.request(tuple(atom("trace"), this.#id, mailbox, spec), traceRefused, options);
    };
    this.#tracer = this.#choose(info, tracer);
    try {
      return await ask();
    } catch (error) {
      if (
        tracer !== "auto" ||
        this.#spec.overwrite ||
        !(error instanceof TraceRefusedError) ||
        error.code !== "BT_NATIVE_UNAVAILABLE"
      )
        throw error;
      this.#tracer = { kind: "portable", reason: error.message };
      this.#hooks.onFallback(error.message);
      return ask();
    }
  }

  async #open(
    host: LinkHost,
    agent: AgentClient,
    info: SessionInfo,
    tracer: TracerOption,
    options: CallOptions,
  ): Promise<void> {
    this.#leaveRing = feedRing(this.ring, host.sameThread ? THIS_THREAD : host);
    this.#id = this.#hooks.onOpening(this);
    this.#host = host;
    this.#agent = agent;
    this.#sourceId = this.ring.sources.add({
      node: info.node,
      creation: info.creation,
      otp: String(info.otp),
      base: info.clock.base,
      timeOffset: info.clock.timeOffset,
    });
    this.#sourceIds.add(this.#sourceId);
    if (this.#ownsRing) this.#eventSource.pump();
    let onLastMessage!: () => void;
    this.#lastMessage = new Promise((resolve) => (onLastMessage = resolve));
    const feed = host.openFeed({
      ring: this.ring,
      source: this.#sourceId,
      node: info.node,
      creation: info.creation,
      base: info.clock.base,
      onWritten: () => this.#source?.wake(),
      onEnd: (stats) => {
        if (stats !== undefined) this.#node = nodeStats(stats);
        this.#source?.pump();
        onLastMessage();
      },
    });
    this.#feed = feed;
    try {
      const reply = await this.#request(agent, feed.mailbox, info, tracer, options);
      const value = reply instanceof ErlMap ? reply.get(atom("matched")) : undefined;
      this.#matched = typeof value === "number" ? value : 0;
      await this.#openSites(agent, options);
    } catch (error) {
      // After a time-out or abort the node may still start it.
      const undone = agent.request(tuple(atom("stop"), this.#id), traceRefused, {
        timeoutMs: LAST_MESSAGE_MS,
      });
      this.#hooks.onUndoing(undone.then(ignore, ignore));
      this.#closeFeed();
      throw error;
    }
  }

  /** Of modules that are named the sites are known from the first event on. */
  async #openSites(agent: AgentClient, options: CallOptions): Promise<void> {
    const { instrumented } = this.#options;
    if (instrumented === undefined || instrumented === false) return;
    this.sites.opened(agent, this.#sourceId);
    const unknown =
      typeof instrumented === "object"
        ? (instrumented.modules ?? []).filter((module) => !this.ring.dictionary.sites.has(module))
        : [];
    if (unknown.length > 0) await this.sites.load(unknown, options);
  }

  async #stop(options: CallOptions): Promise<void> {
    if (this.hasEnded) return;
    const agent = this.#agent;
    if (agent === undefined) return this.#finish({ kind: "stopped" });
    try {
      const stats = await agent.request(tuple(atom("stop"), this.#id), traceRefused, options);
      this.#node = nodeStats(stats);
      await this.#afterLastMessage({ kind: "stopped" });
    } catch (error) {
      this.#finish({ kind: "stopped" });
      throw error;
    }
  }

  async #afterLastMessage(reason: TraceEndReason): Promise<void> {
    await withDeadline(this.#lastMessage, { timeoutMs: LAST_MESSAGE_MS }, "last message").catch(
      () => undefined,
    );
    // A connection that took nothing at the end may have cost the last batches and the last message itself.
    await this.#feed?.settle(this.#node.received);
    this.#source?.pump();
    // The last events may be the first ones of a module: who records them wants its sites, which the node can still tell.
    await withDeadline(this.ring.dictionary.sites.settled(), { timeoutMs: LAST_MESSAGE_MS }, "sites").catch(
      () => undefined,
    );
    this.#finish(reason);
  }

  #closeFeed(): void {
    this.sites.closed();
    this.#feed?.close();
    this.#feed = undefined;
    this.#leaveRing?.();
    this.#leaveRing = undefined;
  }

  #finish(reason: TraceEndReason): void {
    if (this.#ended !== undefined) return;
    this.#ended = reason;
    this.#options.signal?.removeEventListener("abort", this.#onAbort);
    this.#closeFeed();
    this.#agent = undefined;
    if (this.#ownsRing) this.ring.close();
    this.#source?.finish();
    this.#stats.next(this.stats);
    this.#stats.complete();
    this.#settleEnded(reason);
    this.#hooks.onEnded(this, reason);
  }
}

const ignore = (): void => undefined;

/** From the holder's reason of an end to ours. */
export function endReason(term: Term): TraceEndReason {
  if (term instanceof Tuple && term.elements[0] === atom("limit")) {
    const [, limit, measured, allowed] = term.elements;
    const scale = limit === atom("overhead") ? 1e6 : 1;
    return {
      kind: "limit",
      limit: (limit instanceof Atom ? limit.name : inspect(limit as Term)) as keyof EffectiveLimits,
      measured: Number(measured) / scale,
      allowed: Number(allowed) / scale,
    };
  }
  return { kind: "tracer-died", reason: term instanceof Tuple ? (term.elements[1] ?? term) : term };
}
