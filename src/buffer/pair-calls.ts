/**
 * The events of instrumented code as calls: an entry and what ended it, by the call's id. An exception has no event of its own unless the function was
 * instrumented with `exceptions: "wrap"`: a call whose caller goes on without its return has ended by one (docs/transform.md). Pure; what is
 * kept is bounded by `depth` calls a process.
 */
import { Observable, type OperatorFunction } from "rxjs";
import type {
  FunctionEntryEvent,
  FunctionExceptionEvent,
  FunctionReturnEvent,
  FunctionTailCallEvent,
  TraceEvent,
} from "./trace-event";

/** What ended a call. */
export type CallEnd =
  | "return"
  | "tail_call"
  /** An exception that the function told of. */
  | "exception"
  /** No event of its own: the caller went on without it, so that an exception has gone through it. */
  | "abnormal"
  /** The process ended within it. */
  | "exit"
  /** Events were lost, or the call is deeper than what is kept. */
  | "unknown"
  /** It had not ended when the stream did. */
  | "open";

/** A call of an instrumented function. */
export interface FunctionCall {
  readonly entry: FunctionEntryEvent;
  /** Undefined where no event ended it. */
  readonly exit: FunctionReturnEvent | FunctionTailCallEvent | FunctionExceptionEvent | undefined;
  readonly end: CallEnd;
  /** Nanoseconds from the entry to the event that ended it. */
  readonly duration: number | undefined;
  /** Id of the call that it was made in, as far as that one is instrumented and has not been left. */
  readonly caller: number | undefined;
}

/** Options of `pairCalls`. */
export interface PairCallsOptions {
  /** Most calls of a process that are kept open; of more the outermost ends as `unknown`. Default 1024. */
  readonly depth?: number;
}

/** The open calls of one process, outermost first. */
type Frames = FunctionEntryEvent[];

/**
 * Calls, each when it has ended.
 * @example trace.events$.pipe(pairCalls()).subscribe(({ entry, duration, end }) => log(entry.site?.function, duration, end))
 */
export function pairCalls(options: PairCallsOptions = {}): OperatorFunction<TraceEvent, FunctionCall> {
  const most = options.depth ?? 1024;
  return (events$) =>
    new Observable((subscriber) => {
      const sources = new Map<number, Map<string, Frames>>();
      const endAll = (processes: Map<string, Frames> | undefined, end: CallEnd): void => {
        for (const frames of processes?.values() ?? []) endFrom(frames, 0, end);
        processes?.clear();
      };
      const endFrom = (frames: Frames, from: number, end: CallEnd): void => {
        for (let i = frames.length - 1; i >= from; i--) {
          subscriber.next({
            ...{ entry: frames[i]!, exit: undefined, end, duration: undefined },
            caller: frames[i - 1]?.callId,
          });
        }
        frames.length = from;
      };
      return events$.subscribe({
        next: (event) => {
          switch (event.kind) {
            case "function_entry": {
              const frames = framesOf(sources, event);
              if (frames.length >= most) {
                const [outermost] = frames.splice(0, 1);
                subscriber.next({
                  ...{ entry: outermost!, exit: undefined, end: "unknown", duration: undefined },
                  caller: undefined,
                });
              }
              frames.push(event);
              return;
            }
            case "function_return":
            case "function_tail_call":
            case "function_exception": {
              const frames = framesOf(sources, event);
              const at = frames.findLastIndex(({ callId }) => callId === event.callId);
              // Entered before the trace began, or its entry was lost.
              if (at < 0) return;
              endFrom(frames, at + 1, "abnormal");
              const entry = frames.pop()!;
              subscriber.next({
                ...{ entry, exit: event, end: ENDS[event.kind] },
                duration: event.timestamp - entry.timestamp,
                caller: frames[at - 1]?.callId,
              });
              return;
            }
            case "exit": {
              const processes = sources.get(event.source);
              const frames = processes?.get(keyOf(event));
              if (frames !== undefined) endFrom(frames, 0, "exit");
              processes?.delete(keyOf(event));
              return;
            }
            case "gap":
              return endAll(sources.get(event.source), "unknown");
            default:
          }
        },
        error: (error: unknown) => subscriber.error(error),
        complete: () => {
          for (const processes of sources.values()) endAll(processes, "open");
          subscriber.complete();
        },
      });
    });
}

const ENDS = {
  function_return: "return",
  function_tail_call: "tail_call",
  function_exception: "exception",
} as const;

const keyOf = ({
  process,
}: {
  readonly process: { readonly id: number | bigint; readonly serial?: number };
}): string => `${process.serial ?? ""} ${process.id}`;

function framesOf(
  sources: Map<number, Map<string, Frames>>,
  event: FunctionEntryEvent | FunctionReturnEvent | FunctionTailCallEvent | FunctionExceptionEvent,
): Frames {
  let processes = sources.get(event.source);
  if (processes === undefined) sources.set(event.source, (processes = new Map()));
  let frames = processes.get(keyOf(event));
  if (frames === undefined) processes.set(keyOf(event), (frames = []));
  return frames;
}
