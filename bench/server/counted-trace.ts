/**
 * A trace whose every event is handed to a subscriber and counted, by process if wanted. Gap events say what was lost on the way; in the
 * end what came and what was lost must be what the tracer took from its queue, and the stream's gaps must be the losses in the statistics.
 */
import type { EventBatch } from "../../src/buffer";
import { EVENT_KINDS } from "../../src/buffer/event-schema";
import type { Session, Trace, TraceEndReason, TraceOptions } from "../../src/capture";
import { Pid } from "../../src/erlang/term";

/** Events of one process. */
export interface ProcessCount {
  /** `id.serial` of the pid. */
  readonly pid: string;
  sent: number;
  received: number;
}

/** `id.serial`: what a local pid is known by, on the node and here. */
export const pidText = (pid: Pid): string => `${pid.id}.${pid.serial}`;

/** A running trace and its counts. */
export class CountedTrace {
  readonly trace: Trace;
  /** Events that arrived, gaps and markers not counted. */
  delivered = 0;
  /** Sum of the gaps in the stream. */
  lost = 0;
  /** Settles when the stream has ended. */
  readonly complete: Promise<void>;
  /** By process; empty unless asked for. */
  readonly processes = new Map<number, ProcessCount>();
  /** Resolves with the time (`performance.now()`) at which the first event arrived. */
  readonly firstEvent: Promise<number>;
  #onFirstEvent: ((at: number) => void) | undefined;

  private constructor(trace: Trace, byProcess: boolean) {
    this.trace = trace;
    this.firstEvent = new Promise((resolve) => (this.#onFirstEvent = resolve));
    this.complete = trace.batches$.forEach((batch) => this.#count(batch, byProcess));
  }

  /** Starts a trace and subscribes to it. */
  static async start(session: Session, options: TraceOptions, byProcess = false): Promise<CountedTrace> {
    return new CountedTrace(await session.trace(options), byProcess);
  }

  /** Stops the trace, waits for the last event, and checks the accounts; throws when the trace had ended by itself. */
  async stop(): Promise<void> {
    const ended = await this.end();
    if (ended.kind !== "stopped") throw new Error(`the trace ended by itself: ${JSON.stringify(ended)}`);
  }

  /** The same for a trace that may have tripped a limit: tells why it ended. */
  async end(): Promise<TraceEndReason> {
    await this.trace.stop();
    await this.complete;
    const { node, lost, pending } = this.trace.stats;
    const accounts = `received ${node.received}, delivered ${this.delivered}, gaps ${this.lost}, losses ${lost}, pending ${pending}`;
    if (node.received !== this.delivered + this.lost || lost !== this.lost)
      throw new Error(`the accounts do not add up: ${accounts}`);
    return this.trace.ended;
  }

  #count(batch: EventBatch, byProcess: boolean): void {
    let delivered = 0;
    for (let i = 0; i < batch.length; i += 1) {
      const kind = batch.kindCode(i);
      if (kind === EVENT_KINDS.gap) {
        const gap = batch.event(i);
        if (gap.kind === "gap") this.lost += gap.count;
      } else if (kind !== EVENT_KINDS.marker) {
        delivered += 1;
        if (byProcess) this.#countProcess(batch, i);
      }
    }
    this.delivered += delivered;
    if (delivered > 0 && this.#onFirstEvent) {
      this.#onFirstEvent(performance.now());
      this.#onFirstEvent = undefined;
    }
  }

  #countProcess(batch: EventBatch, i: number): void {
    const key = batch.process(i);
    let count = this.processes.get(key);
    if (count === undefined) {
      const identity = batch.identityOf(key, batch.source(i));
      count = { pid: identity instanceof Pid ? pidText(identity) : String(key), sent: 0, received: 0 };
      this.processes.set(key, count);
    }
    const kind = batch.kindCode(i);
    if (kind === EVENT_KINDS.send || kind === EVENT_KINDS.send_to_non_existing_process) count.sent += 1;
    else if (kind === EVENT_KINDS.receive) count.received += 1;
  }
}
