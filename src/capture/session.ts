/**
 * A session: one attachment to one node. It owns the link, the agent's client and the traces; it outlives each trace, and
 * nothing is put into the node before the first trace. Ends by `close()`, by disposal, or with the connection, unless it may attach again.
 */
import { EventEmitter } from "eventemitter3";
import { BehaviorSubject, Observable } from "rxjs";
import type { Destination, NodeLink } from "../erlang/dist";
import { AbortedError, BeamtraceError, ConnectionError } from "../erlang/errors";
import { guard } from "../erlang/dist/signal-receiver";
import { inspect, type Pid, type Term } from "../erlang/term";
import { AgentClient } from "./agent-client";
import { throwIfAborted, withDeadline, type CallOptions } from "./deadline";
import { openMonitor, type Monitor } from "./monitor";
import { FlightRecorder, type RecorderHooks } from "./flight-recorder";
import type { FlightRecorderOptions } from "./recorder-options";
import { loadNative, type TracerOption } from "./native-loader";
import { reattachDelays, type ReattachOptions } from "./reattach";
import type { SessionInfo } from "./session-info";
import type { SessionCloseReason, SessionStatus, TraceEndReason } from "./session-status";
import { Trace, type TraceHooks, type TraceOptions } from "./trace";
import type { LinkHost } from "./trace-feed";

/** Lifecycle events for those who don't use RxJS; they show what `status$`, `output$` and `closed` show. */
export interface SessionEvents {
  status: (status: SessionStatus) => void;
  /** Text printed on the node by processes that run under our group leader (those of `session.call`). */
  output: (text: string) => void;
  /** A trace has ended. */
  traceEnded: (trace: Trace, reason: TraceEndReason) => void;
  closed: (reason: SessionCloseReason) => void;
}

/** What `attach` hands to a session; internal. */
export interface SessionParts {
  readonly info: SessionInfo;
  readonly host: LinkHost;
  readonly tracer: TracerOption;
  /** Connects again, for re-attachment. */
  readonly reconnect: (signal: AbortSignal) => Promise<{ host: LinkHost; info: SessionInfo }>;
  readonly leaseMs: number;
  readonly callTimeoutMs: number;
  readonly reattach: ReattachOptions | undefined;
  readonly signal: AbortSignal | undefined;
}

/** One attachment to one node. Made by `attach()`. */
export class Session extends EventEmitter<SessionEvents> {
  #info: SessionInfo;
  #host: LinkHost;
  #agent: Promise<AgentClient> | undefined;
  readonly #parts: SessionParts;
  /** Traces and flight recorders. */
  readonly #traces = new Map<number, Trace | FlightRecorder>();
  readonly #status: BehaviorSubject<SessionStatus>;
  readonly #ending = new AbortController();
  #traceIds = 0;
  /** Resolves when traces that were aborted have gone from the node. */
  #undoing: Promise<void> = Promise.resolve();
  #closing: Promise<void> | undefined;
  #ended: SessionCloseReason | undefined;
  #reattaching = false;
  #settleClosed!: (reason: SessionCloseReason) => void;
  readonly #onAbort = (): void => void this.#finish({ kind: "aborted" });

  /** Resolves with the reason when the session has ended, however; never rejects. */
  readonly closed: Promise<SessionCloseReason>;
  /** State of the session; the present state comes first. Completes when the session has ended. */
  readonly status$: Observable<SessionStatus>;
  /** Text that processes of `session.call` print on the node. */
  readonly output$: Observable<string>;

  /** @internal */
  constructor(parts: SessionParts) {
    super();
    this.#parts = parts;
    this.#info = parts.info;
    this.#host = parts.host;
    this.closed = new Promise((resolve) => (this.#settleClosed = resolve));
    this.#status = new BehaviorSubject<SessionStatus>({ state: "connected", node: parts.info.node });
    this.status$ = this.#status.asObservable();
    this.output$ = new Observable((subscriber) => {
      const next = (text: string): void => subscriber.next(text);
      this.on("output", next);
      void this.closed.then(() => subscriber.complete());
      return () => this.off("output", next);
    });
    parts.signal?.addEventListener("abort", this.#onAbort, { once: true });
    this.#watch(parts.host);
  }

  /** Facts about the node. After a re-attachment those of the node as it is now. */
  get info(): SessionInfo {
    return this.#info;
  }

  /** Traces that run in this session. */
  get traces(): readonly Trace[] {
    return [...this.#traces.values()].filter((each) => each instanceof Trace);
  }

  /** Flight recorders that run in this session. */
  get recorders(): readonly FlightRecorder[] {
    return [...this.#traces.values()].filter((each) => each instanceof FlightRecorder);
  }

  /** The connection, for what this class does not offer. It changes when the session attaches again. */
  get link(): NodeLink {
    return this.#host.link;
  }

  /**
   * Applies a function on the node and resolves with its value.
   *
   * @param module - as the VM names it: `"erlang"`, `"Elixir.Enum"`
   * @throws RemoteError `BT_REMOTE_ERROR` with class, reason and stack trace when it raises there
   * While a trace runs the agent makes the call, in a process that no tracer sees; otherwise it leaves nothing there either.
   *
   * @throws AbortedError `BT_TIMEOUT`, `BT_ABORTED`
   */
  async call(module: string, fn: string, args: readonly Term[], options: CallOptions = {}): Promise<Term> {
    this.#assertOpen();
    this.#assertConnected();
    const limited: CallOptions = { timeoutMs: this.#parts.callTimeoutMs, ...options };
    if (this.#traces.size === 0 || this.#agent === undefined)
      return this.link.call(module, fn, args, limited);
    return (await this.#agent).call(module, fn, args, limited);
  }

  /** Sends a message to a process, a registered name, or an alias. Like the VM's own send it does not tell whether it arrived. */
  send(to: Destination, message: Term): void {
    this.#assertOpen();
    this.link.send(to, message);
  }

  /** Watches a process by pid or registered name; its end is `monitor.down`. */
  monitor(target: Pid | string): Monitor {
    this.#assertOpen();
    return openMonitor(this.link, target);
  }

  /**
   * Starts a trace. Resolves when all flags and patterns are set on the node, so that nothing which happens afterwards is missed.
   *
   * @throws OptionError `BT_TRACE_SPEC_INVALID`, `BT_LIMIT_INVALID`: the spec can't be meant; nothing was sent
   * @throws NoMatchError `BT_NO_MATCH` with suggestions
   * @throws TraceRefusedError `BT_TRACER_BUSY`, `BT_MATCH_SPEC_INVALID`, `BT_PROCESS_INVALID`, `BT_TRACE_SELF`, `BT_GC_TRACE_CONFLICT`,
   *   `BT_NATIVE_UNAVAILABLE` when `tracer: "native"` was asked for, `BT_RUNTIME_CLASH` with `instrumented`
   * @throws BeamtraceError `BT_AGENT_CLASH`, `BT_AGENT_FAILED`
   */
  async trace(options: TraceOptions): Promise<Trace> {
    this.#assertOpen();
    this.#assertConnected();
    throwIfAborted(options.signal);
    const hooks: TraceHooks = {
      onOpening: (opening) => this.#opening(opening),
      onUndoing: (undone) => this.#undoAfter(undone),
      onEnded: (ended, reason) => {
        this.#forget(ended);
        this.#tell("traceEnded", ended, reason);
      },
      onOverload: (status) => this.#setStatus(status),
      onFallback: (reason) => this.#warn(reason),
    };
    const trace = new Trace(options, hooks, this.#info.otp);
    await this.#begin(trace, options.signal, (agent) =>
      trace.start(this.#host, agent, this.#info, this.#parts.tracer, this.#parts.callTimeoutMs),
    );
    return trace;
  }

  /**
   * Starts a flight recorder: a trace whose events stay in the node until a trigger fires there or `snapshot()` is called; then the last seconds come as
   * one recording (docs/flight-recorder.md). Resolves when everything is set on the node.
   *
   * @example
   * ```ts
   * await using recorder = await session.flightRecorder({
   *   events: ["send", "receive", "procs"], keep: { seconds: 5 }, triggers: [{ on: "exit" }],
   * });
   * recorder.recordings$.subscribe((recording) => void recording.saveTo(`crash-${recording.number}.btrec`));
   * ```
   * @throws OptionError `BT_TRACE_SPEC_INVALID`, `BT_LIMIT_INVALID`
   * @throws TraceRefusedError `BT_NATIVE_UNAVAILABLE` when the node can't have the native tracer, `BT_SYSTEM_MONITOR_BUSY` when an alarm is a trigger
   *   and another process has the node's system monitor, and what `trace` throws
   */
  async flightRecorder(options: FlightRecorderOptions): Promise<FlightRecorder> {
    this.#assertOpen();
    throwIfAborted(options.signal);
    const hooks: RecorderHooks = {
      onOpening: (opening) => this.#opening(opening),
      onUndoing: (undone) => this.#undoAfter(undone),
      onEnded: (ended) => this.#forget(ended),
    };
    const recorder = new FlightRecorder(options, hooks, this.#info.otp);
    await this.#begin(recorder, options.signal, (agent) =>
      recorder.start(this.#host, agent, this.#info, this.#parts.callTimeoutMs),
    );
    return recorder;
  }

  /** Ends every trace, takes everything out of the node, closes the connection. May be called any number of times. */
  close(): Promise<void> {
    return this.#finish({ kind: "closed" });
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  #assertOpen(): void {
    if (this.#ended !== undefined) throw this.#closedError();
    throwIfAborted(this.#parts.signal);
  }

  #assertConnected(): void {
    if (this.#reattaching)
      throw new ConnectionError(
        "BT_CONNECTION_LOST",
        "the connection was lost and the session is attaching again; wait until status$ says connected",
      );
  }

  #closedError(): ConnectionError {
    const reason = this.#ended;
    return new ConnectionError(
      "BT_CLOSED",
      `the session has ended (${reason === undefined ? "closed" : describe(reason)})`,
    );
  }

  #setStatus(status: SessionStatus): void {
    this.#status.next(status);
    this.#tell("status", status);
  }

  #warn(detail: string): void {
    this.#setStatus({ state: "warning", code: "BT_NATIVE_UNAVAILABLE", detail });
  }

  /** As RxJS does it: a listener that throws surfaces as an uncaught exception, and what goes on here goes on. */
  #tell<Event extends keyof SessionEvents>(event: Event, ...args: Parameters<SessionEvents[Event]>): void {
    guard(() => void (this.emit as (event: Event, ...args: unknown[]) => boolean).call(this, event, ...args));
  }

  /** Known here before the node knows of it, under a new id. */
  #opening(running: Trace | FlightRecorder): number {
    this.#forget(running);
    this.#traces.set((this.#traceIds += 1), running);
    return this.#traceIds;
  }

  /** What begins next waits for this. */
  #undoAfter(undone: Promise<void>): void {
    const before = this.#undoing;
    this.#undoing = before.then(() => undone);
  }

  /** Starts what was just made, when the agent is there and what was given up before has been undone. */
  async #begin(
    running: Trace | FlightRecorder,
    signal: AbortSignal | undefined,
    start: (agent: AgentClient) => Promise<void>,
  ): Promise<void> {
    try {
      const started = this.#undoing.then(() => this.#startAgent());
      await start(await withDeadline(started, signal === undefined ? {} : { signal }, "the agent"));
    } catch (error) {
      this.#forget(running);
      if (this.#ended !== undefined && signal?.aborted !== true) throw this.#closedError();
      throw error;
    }
    if (this.#ended !== undefined) {
      running.sessionClosed(this.#ended);
      throw this.#closedError();
    }
  }

  #forget(trace: Trace | FlightRecorder): void {
    for (const [id, each] of this.#traces) if (each === trace) this.#traces.delete(id);
  }

  #startAgent(): Promise<AgentClient> {
    if (this.#agent === undefined) {
      const link = this.link;
      const starting = AgentClient.start(link, {
        leaseMs: this.#parts.leaseMs,
        timeoutMs: this.#parts.callTimeoutMs,
        signal: this.#ending.signal,
        events: {
          onStopped: (id, reason, stats) => this.#traces.get(id)?.stoppedByNode(reason, stats),
          onStats: (id, stats) => this.#traces.get(id)?.reportStats(stats),
          onRecording: (id, number, header) => {
            const recorder = this.#traces.get(id);
            if (recorder instanceof FlightRecorder) recorder.offered(number, header);
          },
          onLost: (reason) => {
            if (link === this.link) void this.#lost({ kind: "agent-lost", reason });
          },
        },
      });
      const ready = starting.then((agent) => this.#chooseTracer(agent));
      this.#agent = ready;
      ready.catch(() => {
        if (this.#agent === ready) this.#agent = undefined;
      });
    }
    return this.#agent;
  }

  /** With the agent comes the native tracer's library, where it can be had. */
  async #chooseTracer(agent: AgentClient): Promise<AgentClient> {
    if (this.#info.tracer.kind === "native") {
      const tracer = await loadNative(agent, this.#info, {
        timeoutMs: this.#parts.callTimeoutMs,
        signal: this.#ending.signal,
      });
      this.#info = { ...this.#info, tracer };
    }
    const { kind, reason } = this.#info.tracer;
    if (this.#parts.tracer === "auto" && kind === "portable") this.#warn(reason);
    return agent;
  }

  #watch(host: LinkHost): void {
    const stopOutput = host.link.onOutput((text) => this.#tell("output", text));
    void host.link.closed.then(async (reason) => {
      stopOutput();
      if (host !== this.#host) return;
      const detail =
        "error" in reason
          ? reason.error.message
          : reason.kind === "tick-timeout"
            ? `the node was silent for ${reason.silentMs} ms`
            : reason.kind;
      await this.#lost({ kind: "connection-lost", detail });
    });
  }

  /** The connection or the agent has gone without our doing. */
  async #lost(reason: SessionCloseReason): Promise<void> {
    if (this.#closing !== undefined || this.#reattaching) return;
    const old = this.#host;
    this.#dropAgent();
    if (this.#parts.reattach === undefined) return this.#finish(reason);
    this.#reattaching = true;
    try {
      await this.#reattach(this.#parts.reattach, old, describe(reason));
    } finally {
      this.#reattaching = false;
    }
  }

  /** The agent of a connection that has gone. */
  #dropAgent(): void {
    void this.#agent?.then((agent) => agent.abandon()).catch(() => undefined);
    this.#agent = undefined;
  }

  async #reattach(options: ReattachOptions, old: LinkHost, detail: string): Promise<void> {
    // First: a worker that still lives would write to the rings as well.
    await old.link.close();
    for (const trace of this.#traces.values()) trace.suspend();
    let attempt = 0;
    let last = detail;
    for (const delayMs of reattachDelays(options)) {
      attempt += 1;
      this.#setStatus({ state: "reattaching", attempt, delayMs, detail: last });
      if (!(await this.#pause(delayMs))) return;
      try {
        const { host, info } = await this.#parts.reconnect(this.#ending.signal);
        if (this.#ending.signal.aborted) {
          await host.link.close();
          return;
        }
        this.#host = host;
        this.#info = info;
        await this.#resume();
        this.#reattaching = false;
        this.#setStatus({ state: "connected", node: info.node });
        this.#watch(host);
        return;
      } catch (error) {
        if (this.#ending.signal.aborted) return;
        last = error instanceof Error ? error.message : String(error);
        this.#dropAgent();
        if (this.#host !== old) await this.#host.link.close();
        for (const trace of this.#traces.values()) trace.suspend();
        // A wrong cookie does not become right by waiting.
        if (
          error instanceof BeamtraceError &&
          ["BT_COOKIE_REJECTED", "BT_NOT_ALLOWED", "BT_OTP_TOO_OLD"].includes(error.code)
        )
          break;
      }
    }
    await this.#finish({ kind: "reattach-failed", attempts: attempt, detail: last });
  }

  /** Starts the traces again on a new connection. One that the node now refuses ends; the others go on. */
  async #resume(): Promise<void> {
    if (this.#traces.size === 0) return;
    const traces = [...this.#traces.values()];
    const agent = await this.#startAgent();
    for (const trace of traces)
      if (trace instanceof FlightRecorder)
        await trace.restart(this.#host, agent, this.#info, this.#parts.callTimeoutMs);
      else await trace.restart(this.#host, agent, this.#info, this.#parts.tracer, this.#parts.callTimeoutMs);
  }

  /** Waits; false when the session ends meanwhile. */
  #pause(delayMs: number): Promise<boolean> {
    return new Promise((resolve) => {
      const signal = this.#ending.signal;
      const done = (alive: boolean): void => {
        clearTimeout(timer);
        signal.removeEventListener("abort", onAbort);
        resolve(alive);
      };
      const onAbort = (): void => done(false);
      const timer = setTimeout(() => done(!signal.aborted), delayMs);
      signal.addEventListener("abort", onAbort, { once: true });
      if (signal.aborted) done(false);
    });
  }

  #finish(reason: SessionCloseReason): Promise<void> {
    this.#ended ??= reason;
    this.#closing ??= (async () => {
      const orderly = reason.kind === "closed" || reason.kind === "aborted";
      if (orderly)
        await Promise.allSettled(
          [...this.#traces.values()].map((trace) => trace.stop({ timeoutMs: this.#parts.callTimeoutMs })),
        );
      this.#ending.abort(new AbortedError("BT_ABORTED", "the session is closing"));
      const agent = this.#agent;
      this.#agent = undefined;
      if (agent !== undefined) {
        try {
          const client = await agent;
          if (orderly) await client.detach({ timeoutMs: this.#parts.callTimeoutMs });
          else client.abandon();
        } catch {
          // The node could not be told. Closing the link makes its janitor do the same.
        }
      }
      await this.#host.link.close();
      this.#parts.signal?.removeEventListener("abort", this.#onAbort);
      for (const trace of this.#traces.values()) trace.sessionClosed(reason);
      this.#traces.clear();
      this.#setStatus({ state: "closed", reason });
      this.#status.complete();
      this.#settleClosed(reason);
      this.#tell("closed", reason);
      this.removeAllListeners();
    })();
    return this.#closing;
  }
}

function describe(reason: SessionCloseReason): string {
  switch (reason.kind) {
    case "closed":
      return "closed";
    case "connection-lost":
      return `connection lost: ${reason.detail}`;
    case "agent-lost":
      return `the agent on the node ended: ${inspect(reason.reason)}`;
    case "aborted":
      return "aborted";
    case "reattach-failed":
      return `could not attach again after ${reason.attempts} attempts: ${reason.detail}`;
  }
}
