/**
 * A flight recorder: a trace whose events stay in the node's rings, which overwrite the oldest, until a trigger fires there or this side asks;
 * then the last seconds come as one recording. Owns the feeds of the recordings under way; nothing else travels.
 * Made by `session.flightRecorder()`.
 */
import { BehaviorSubject, Subject, type Observable } from "rxjs";
import { EventBatch, RingBuffer, SlotBlock } from "../buffer";
import { EventFactory } from "../buffer/event-factory";
import { BeamtraceError, ConnectionError } from "../erlang/errors";
import { Atom, atom, ErlMap, map, Pid, Port, tuple, Tuple, type Term } from "../erlang/term";
import type { AgentClient } from "./agent-client";
import { TraceRefusedError, traceRefused } from "./agent-errors";
import { throwIfAborted, withDeadline, type CallOptions } from "./deadline";
import { FlightRecording, type FlightRecordingFacts, type FlightTrigger } from "./flight-recording";
import type { EffectiveLimits } from "./limits";
import { checkOptions, recorderTerm, traceSpec, type FlightRecorderOptions } from "./recorder-options";
import { RecorderSites } from "./recorder-sites";
import { resolveTriggers, type ResolvedTriggers } from "./recorder-triggers";
import type { SessionInfo } from "./session-info";
import type { SessionCloseReason, TraceEndReason } from "./session-status";
import { endReason } from "./trace";
import type { LinkHost } from "./trace-feed";
import { resolveTraceSpec, type ResolvedTraceSpec } from "./trace-spec";
import { nodeStats, type NodeStats } from "./trace-stats";

/** What the session does for its recorders; internal. */
export interface RecorderHooks {
  /** It is about to be asked of the node; returns its id. */
  onOpening(recorder: FlightRecorder): number;
  /** It was given up; what comes next waits until that is undone. */
  onUndoing(undone: Promise<void>): void;
  onEnded(recorder: FlightRecorder, reason: TraceEndReason): void;
}

/** Gap events that a recording can have at most, generously. */
const GAPS_MAX = 256;
/** How long the last recordings may take after the recorder has ended. */
const LAST_RECORDING_MS = 5_000;
const BLOCK_EVENTS = 4096;

/** A flight recorder that is running. */
export class FlightRecorder {
  readonly #options: FlightRecorderOptions;
  readonly #hooks: RecorderHooks;
  readonly #triggers: ResolvedTriggers;
  readonly #spec: ResolvedTraceSpec;
  readonly #recordings = new Subject<FlightRecording>();
  readonly #stats: BehaviorSubject<NodeStats>;
  readonly #sites: RecorderSites;
  readonly #onAbort = (): void => this.#hooks.onUndoing(this.stop().catch(ignore));
  /** Recordings that are on their way. */
  readonly #fetching = new Map<number, Promise<FlightRecording>>();
  /** What waits for the node, and has to hear when it will not come. */
  readonly #failing = new Set<(error: Error) => void>();
  #agent: AgentClient | undefined;
  #host: LinkHost | undefined;
  #info: SessionInfo | undefined;
  #id = 0;
  #matched = 0;
  #ended: TraceEndReason | undefined;
  #stopping: Promise<void> | undefined;
  #settleEnded!: (reason: TraceEndReason) => void;

  /** Resolves with the reason when the recorder has ended; never rejects. */
  readonly ended: Promise<TraceEndReason>;
  /** Recordings as they are made, each complete when it comes. Hot: subscribe before they come. Completes when the recorder has ended. */
  readonly recordings$: Observable<FlightRecording>;
  /** Figures of the node, once a second. `queue`: events in the rings; `batches`: recordings made. */
  readonly stats$: Observable<NodeStats>;

  /** @internal */
  constructor(options: FlightRecorderOptions, hooks: RecorderHooks, otp: number) {
    this.#options = options;
    this.#hooks = hooks;
    checkOptions(options);
    this.#triggers = resolveTriggers(options.triggers ?? []);
    this.#spec = resolveTraceSpec(traceSpec(options, this.#triggers), otp);
    this.#sites = new RecorderSites(options.instrumented);
    this.ended = new Promise((resolve) => (this.#settleEnded = resolve));
    this.recordings$ = this.#recordings.asObservable();
    this.#stats = new BehaviorSubject(nodeStats(undefined));
    this.stats$ = this.#stats.asObservable();
  }

  /** Number of this recorder within its session; a new one after each re-attachment. */
  get id(): number {
    return this.#id;
  }

  /** How many functions the call patterns matched, those of triggers included. */
  get matched(): number {
    return this.#matched;
  }

  /** The limits in force. */
  get limits(): EffectiveLimits {
    return this.#spec.limits;
  }

  get hasEnded(): boolean {
    return this.#ended !== undefined;
  }

  /** Figures of the node, at most a second old. */
  get stats(): NodeStats {
    return this.#stats.value;
  }

  /**
   * Keeps the window up to now and resolves with it; `recordings$` has it as well. Not bound by `minIntervalMs`; while another recording is being
   * shipped it waits for that.
   *
   * @throws BeamtraceError `BT_TRACE_STOPPED` when the recorder ends before
   * @throws AbortedError `BT_TIMEOUT`, `BT_ABORTED`
   */
  async snapshot(options: CallOptions = {}): Promise<FlightRecording> {
    const agent = this.#agent;
    if (agent === undefined || this.hasEnded) throw stopped();
    return this.#untilGone(this.#requestSnapshot(agent, options));
  }

  /**
   * Stops the recorder: nothing of it is left on the node. A recording that is being shipped is delivered before. Any number of times.
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
  async start(host: LinkHost, agent: AgentClient, info: SessionInfo, timeoutMs: number): Promise<void> {
    const { signal } = this.#options;
    await this.#open(host, agent, info, { timeoutMs, ...(signal !== undefined && { signal }) });
    signal?.addEventListener("abort", this.#onAbort, { once: true });
    if (signal?.aborted) this.#onAbort();
  }

  /** @internal The same recorder on a new connection; if the node refuses it now, it ends. */
  async restart(host: LinkHost, agent: AgentClient, info: SessionInfo, timeoutMs: number): Promise<void> {
    if (this.hasEnded) return;
    try {
      await this.#open(host, agent, info, { timeoutMs });
    } catch (error) {
      if (!(error instanceof TraceRefusedError)) throw error;
      this.#finish({ kind: "refused", code: error.code, detail: error.message });
    }
  }

  /** @internal The connection is gone; another may come. What was in the node's rings is lost with it. */
  suspend(): void {
    this.#agent = undefined;
    this.#sites.closed();
    this.#fail(new ConnectionError("BT_CONNECTION_LOST", "the connection to the node was lost"));
  }

  /** @internal The node offers a recording. */
  offered(number: number, header: Term): void {
    const fetching = this.#fetch(number, header);
    this.#fetching.set(number, fetching);
    fetching
      .then((recording) => this.#recordings.next(recording))
      // The connection or the recorder has gone; a snapshot that waits for it hears of it by itself.
      .catch(ignore)
      .finally(() => this.#fetching.delete(number));
  }

  /** @internal */
  stoppedByNode(reason: Term, stats: Term): void {
    this.reportStats(stats);
    void this.#afterLast(endReason(reason));
  }

  /** @internal */
  reportStats(stats: Term): void {
    this.#stats.next(nodeStats(stats));
  }

  /** @internal */
  sessionClosed(reason: SessionCloseReason): void {
    this.#finish({ kind: "session-closed", reason });
  }

  async #requestSnapshot(agent: AgentClient, options: CallOptions): Promise<FlightRecording> {
    const refused = (): Error => stopped();
    const number = await agent.request(tuple(atom("snapshot"), this.#id), refused, options);
    // The offer comes before the answer, on the same connection.
    const fetching = this.#fetching.get(number as number);
    if (fetching === undefined) throw stopped();
    const recording = await fetching;
    throwIfAborted(options.signal);
    return recording;
  }

  async #open(host: LinkHost, agent: AgentClient, info: SessionInfo, options: CallOptions): Promise<void> {
    if (info.tracer.kind !== "native")
      throw new TraceRefusedError(
        "BT_NATIVE_UNAVAILABLE",
        `a flight recorder needs the native tracer: ${info.tracer.reason}`,
        atom("native"),
      );
    if (this.#spec.portableOnly !== undefined)
      throw new TraceRefusedError("BT_NATIVE_UNAVAILABLE", this.#spec.portableOnly, atom("native"));
    this.#id = this.#hooks.onOpening(this);
    this.#host = host;
    this.#agent = agent;
    this.#info = info;
    const spec = recorderTerm(this.#spec, this.#options, this.#triggers);
    try {
      const request = tuple(atom("trace"), this.#id, agent.control, spec);
      const reply = await agent.request(request, traceRefused, options);
      const value = reply instanceof ErlMap ? reply.get(atom("matched")) : undefined;
      this.#matched = typeof value === "number" ? value : 0;
      await this.#sites.opened(agent, options);
    } catch (error) {
      // After a time-out or abort the node may still start it.
      const undone = agent.request(tuple(atom("stop"), this.#id), traceRefused, {
        timeoutMs: LAST_RECORDING_MS,
      });
      this.#hooks.onUndoing(undone.then(ignore, ignore));
      throw error;
    }
  }

  /** Fetches a recording that the node offers: as the stream of a trace, into a ring that has room for all of it. */
  async #fetch(number: number, header: Term): Promise<FlightRecording> {
    const host = this.#host;
    const agent = this.#agent;
    const info = this.#info;
    if (host === undefined || agent === undefined || info === undefined) throw stopped();
    const facts = this.#facts(number, header, info.clock.base);
    const ring = new RingBuffer({
      capacity: facts.events + GAPS_MAX,
      payloadBytes: payloadBytes(header, facts.events),
    });
    const source = ring.sources.add({
      node: info.node,
      creation: info.creation,
      otp: String(info.otp),
      base: info.clock.base,
      timeOffset: info.clock.timeOffset,
    });
    let onEnd!: () => void;
    const arrived = new Promise<void>((resolve) => (onEnd = resolve));
    const { node, creation } = info;
    const feed = host.openFeed({
      ring,
      source,
      node,
      creation,
      base: info.clock.base,
      onWritten: () => undefined,
      onEnd,
    });
    try {
      await this.#untilGone(
        agent
          .request(tuple(atom("fetch"), this.#id, number, feed.mailbox), traceRefused, {})
          .then(() => arrived),
      );
    } finally {
      feed.close();
    }
    const factory = new EventFactory(ring.dictionary, ring.sources.list);
    const block = contentsOf(ring, factory, facts.events);
    await this.#sites.fill(EventBatch.of(block, factory));
    return new FlightRecording(facts, block, factory);
  }

  #facts(number: number, header: Term, base: bigint): FlightRecordingFacts {
    const fields = header instanceof ErlMap ? header : map({});
    const integer = (key: string): bigint =>
      BigInt((fields.get(atom(key)) as number | bigint | undefined) ?? 0);
    const stamp = (key: string): number => Number(integer(key) - base);
    return {
      number,
      trigger: this.#trigger(fields, stamp("at")),
      from: stamp("from"),
      to: stamp("to"),
      complete: fields.get(atom("complete")) === atom("true"),
      events: Number(integer("events")),
      lost: Number(integer("lost")),
      before: Number(integer("before")),
      lostBefore: Number(integer("lost_before")),
      suppressed: Number(integer("suppressed")),
    };
  }

  #trigger(fields: ErlMap, at: number): FlightTrigger {
    const trigger = this.#triggers.byNumber[Number(fields.get(atom("trigger")) ?? 0) - 1];
    if (trigger === undefined) return { kind: "snapshot", at };
    const where = fields.get(atom("process"));
    const process = where instanceof Pid || where instanceof Port ? where : undefined;
    if (trigger.on !== "alarm") return { kind: trigger.on, at, trigger, process };
    const info = fields.get(atom("info"));
    const [alarm, details] = info instanceof Tuple ? info.elements : [];
    return {
      kind: "alarm",
      at,
      trigger,
      process,
      alarm: alarm instanceof Atom ? alarm.name : "",
      info: details ?? [],
    };
  }

  /** What it is given, or a rejection as soon as recorder or connection have gone. */
  async #untilGone<T>(promise: Promise<T>): Promise<T> {
    let fail!: (error: Error) => void;
    const gone = new Promise<never>((_, reject) => (fail = reject));
    this.#failing.add(fail);
    try {
      return await Promise.race([promise, gone]);
    } finally {
      this.#failing.delete(fail);
    }
  }

  #fail(error: Error): void {
    for (const fail of this.#failing) fail(error);
  }

  async #stop(options: CallOptions): Promise<void> {
    if (this.hasEnded) return;
    const agent = this.#agent;
    if (agent === undefined) return this.#finish({ kind: "stopped" });
    try {
      this.reportStats(await agent.request(tuple(atom("stop"), this.#id), traceRefused, options));
      await this.#afterLast({ kind: "stopped" });
    } catch (error) {
      this.#finish({ kind: "stopped" });
      throw error;
    }
  }

  /** The node has ended it; what it had offered may still be on its way. */
  async #afterLast(reason: TraceEndReason): Promise<void> {
    const last = Promise.allSettled(this.#fetching.values());
    await withDeadline(last, { timeoutMs: LAST_RECORDING_MS }, "last recording").catch(ignore);
    this.#finish(reason);
  }

  #finish(reason: TraceEndReason): void {
    if (this.#ended !== undefined) return;
    this.#ended = reason;
    this.#options.signal?.removeEventListener("abort", this.#onAbort);
    this.#agent = undefined;
    this.#sites.closed();
    this.#fail(stopped());
    this.#recordings.complete();
    this.#stats.complete();
    this.#settleEnded(reason);
    this.#hooks.onEnded(this, reason);
  }
}

const ignore = (): void => undefined;

function stopped(): BeamtraceError {
  return new BeamtraceError("BT_TRACE_STOPPED", "the flight recorder has ended");
}

/** Room for the contents of a recording, each of which may leave a few bytes unused. */
function payloadBytes(header: Term, events: number): number {
  const told = header instanceof ErlMap ? header.get(atom("contents")) : undefined;
  return typeof told === "number" && told > 0 ? told + 8 * events : 0;
}

/** What the ring holds, in memory of its own. */
function contentsOf(ring: RingBuffer, factory: EventFactory, events: number): SlotBlock {
  const block = new SlotBlock(events + GAPS_MAX);
  const reader = ring.reader();
  try {
    for (let count = reader.poll(BLOCK_EVENTS); count > 0; count = reader.poll(BLOCK_EVENTS)) {
      const { words, floats, start, mask } = reader;
      const straight = reader.contiguous(count);
      const at = (first: number, n: number): EventBatch =>
        new EventBatch({ words, floats, first, count: n, payload: reader }, factory);
      at(start & mask, straight).appendTo(block);
      if (straight < count) at(0, count - straight).appendTo(block);
      reader.release(count);
    }
  } finally {
    reader.close();
  }
  return block;
}
