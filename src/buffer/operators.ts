/**
 * Typed RxJS operators over events and batches. They are pure: they look at time stamps, never at a clock, and so give the same on a live
 * trace and on a recording. Inner loops run over batches without RxJS in between.
 */
import { Observable, Subject, type OperatorFunction } from "rxjs";
import { EventBatch, type EventFilter } from "./event-batch";
import { EVENT_KINDS, SLOT_GAP, type EventKind } from "./event-schema";
import { eventsOf } from "./event-source";
import type { Timestamp } from "./ids";
import type { Pid, Port } from "../erlang/term";
import type { EventOf, TraceEvent } from "./trace-event";

/**
 * Only events of these kinds, with their type.
 * @example trace.events$.pipe(ofKind("send", "receive")).subscribe((event) => event.shape)
 */
export function ofKind<K extends EventKind>(
  ...kinds: readonly K[]
): OperatorFunction<TraceEvent, EventOf<K>> {
  const wanted = new Set<EventKind>(kinds);
  return (events$) =>
    new Observable((subscriber) =>
      events$.subscribe({
        next: (event) => {
          if (wanted.has(event.kind)) subscriber.next(event as EventOf<K>);
        },
        error: (error: unknown) => subscriber.error(error),
        complete: () => subscriber.complete(),
      }),
    );
}

/**
 * Only the events of a batch that pass; batches without any are left out. The result is valid as long as the batch.
 * @example trace.batches$.pipe(select(["send", "receive"]))
 */
export function select(filter: EventFilter): OperatorFunction<EventBatch, EventBatch> {
  return (batches$) =>
    new Observable((subscriber) =>
      batches$.subscribe({
        next: (batch) => {
          const selected = batch.filter(filter);
          if (selected.length > 0) subscriber.next(selected);
        },
        error: (error: unknown) => subscriber.error(error),
        complete: () => subscriber.complete(),
      }),
    );
}

/** Batches as single events, plain objects that are safe to keep. */
export function flatten(): OperatorFunction<EventBatch, TraceEvent> {
  return eventsOf;
}

/** The events of one process or port, in order. */
export interface ProcessEvents extends Observable<TraceEvent> {
  readonly process: Pid | Port;
  /** Index of the source that the process belongs to. */
  readonly sourceIndex: number;
}

const ENDS: ReadonlySet<EventKind> = new Set<EventKind>(["exit", "out_exited", "closed"]);
/** What the VM still tells of a process comes right after its exit; older ones need not be known. */
const ENDED_MAX = 1024;

/**
 * One stream for each process and port, from its first event on. It completes when the process exits (`exit`) or the port is closed (`closed`); what
 * the VM still reports of a process that has exited (`unregister`, `out_exited`) makes short streams of their own. A gap concerns everybody: every
 * open stream gets it. Subscribe at once, in the callback: events are not kept.
 */
export function byProcess(): OperatorFunction<TraceEvent, ProcessEvents> {
  return (events$) =>
    new Observable((subscriber) => {
      const open = new Map<string | number, Subject<TraceEvent>>();
      const ended = new Set<string | number>();
      const end = (key: string | number, group: Subject<TraceEvent>): void => {
        open.delete(key);
        ended.add(key);
        const [oldest] = ended;
        if (ended.size > ENDED_MAX && oldest !== undefined) ended.delete(oldest);
        group.complete();
      };
      const subscription = events$.subscribe({
        next: (event) => {
          const { process } = event;
          if (process === undefined) {
            if (event.kind === "gap") for (const group of [...open.values()]) group.next(event);
            return;
          }
          const key = groupKey(process, event.source);
          let group = open.get(key);
          if (group === undefined) {
            group = new Subject<TraceEvent>();
            open.set(key, group);
            const events = Object.assign(group.asObservable(), { process, sourceIndex: event.source });
            subscriber.next(events);
          }
          group.next(event);
          // A name is taken back after the exit of who had it: nothing would ever end that stream.
          if (event.kind === "spawned" || event.kind === "open") ended.delete(key);
          if (ENDS.has(event.kind) || ended.has(key)) end(key, group);
        },
        error: (error: unknown) => {
          for (const group of open.values()) group.error(error);
          subscriber.error(error);
        },
        complete: () => {
          for (const group of open.values()) group.complete();
          subscriber.complete();
        },
      });
      return () => {
        subscription.unsubscribe();
        open.clear();
      };
    });
}

/** A number where it is exact, so that the map needs no strings for the processes of the first source. */
function groupKey(process: Pid | Port, source: number): string | number {
  const isPort = process.kind === "port";
  const number = isPort ? process.id : process.serial * 0x1000_0000 + process.id;
  if (source === 0 && typeof number === "number" && number < 2 ** 52) return number * 2 + (isPort ? 1 : 0);
  return `${source} ${isPort ? "port" : "pid"} ${number}`;
}

/** Events of one span of event time. */
export interface RateWindow {
  readonly source: number;
  /** Start and end of the window, in ns since the base of the source. */
  readonly from: Timestamp;
  readonly to: Timestamp;
  /** Events in the window, gaps and markers excepted. */
  readonly count: number;
  readonly perSecond: number;
  /** Events that gaps in the window told to be lost. */
  readonly lost: number;
}

/** More empty windows than this in a row are left out. */
const MAX_EMPTY_WINDOWS = 1000;

/**
 * Events a second over windows of event time: of events, or of batches (cheaper). A window is told when an event behind its end arrives, the
 * last one, whatever its length, at the end. Events of different processes may come out of order: a late one counts in the open window.
 * @param windowMs - length of a window
 */
export function rate(windowMs: number): OperatorFunction<EventBatch | TraceEvent, RateWindow> {
  const length = windowMs * 1e6;
  if (!(length > 0)) throw new RangeError(`windowMs must be above 0, not ${windowMs}`);
  return (events$) =>
    new Observable((subscriber) => {
      const windows = new Map<number, OpenWindow>();
      const add = (source: number, timestamp: Timestamp, events: number, lost: number) => {
        let window = windows.get(source);
        if (window === undefined) {
          window = { from: Math.floor(timestamp / length) * length, count: 0, lost: 0 };
          windows.set(source, window);
        }
        if (timestamp >= window.from + length) advance(source, window, timestamp);
        window.count += events;
        window.lost += lost;
      };
      const tell = (source: number, { from, count, lost }: OpenWindow) =>
        subscriber.next({
          source,
          from,
          to: from + length,
          count,
          perSecond: (count / windowMs) * 1000,
          lost,
        });
      const advance = (source: number, window: OpenWindow, timestamp: Timestamp) => {
        tell(source, window);
        window.count = window.lost = 0;
        window.from += length;
        const until = Math.floor(timestamp / length) * length;
        if ((until - window.from) / length > MAX_EMPTY_WINDOWS) window.from = until;
        for (; window.from < until; window.from += length) tell(source, window);
      };
      return events$.subscribe({
        next: (value) => {
          if (value instanceof EventBatch) addBatch(value, add);
          else
            add(
              value.source,
              value.timestamp,
              ...weights(value.kind, value.kind === "gap" ? value.count : 0),
            );
        },
        error: (error: unknown) => subscriber.error(error),
        complete: () => {
          for (const [source, window] of windows) tell(source, window);
          subscriber.complete();
        },
      });
    });
}

interface OpenWindow {
  from: number;
  count: number;
  lost: number;
}

function weights(kind: EventKind, gapCount: number): [events: number, lost: number] {
  return kind === "gap" ? [0, gapCount] : [kind === "marker" ? 0 : 1, 0];
}

function addBatch(
  batch: EventBatch,
  add: (source: number, timestamp: number, events: number, lost: number) => void,
): void {
  for (let i = 0; i < batch.length; i++) {
    const code = batch.kindCode(i);
    if (code === EVENT_KINDS.gap) {
      add(batch.source(i), batch.timestamp(i), 0, batch.floats[(batch.slot(i) >>> 1) + SLOT_GAP.countF64]!);
    } else {
      add(batch.source(i), batch.timestamp(i), code === EVENT_KINDS.marker ? 0 : 1, 0);
    }
  }
}
