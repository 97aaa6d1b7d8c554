/**
 * Which callbacks a process is in. One that raises tells nothing of its end unless it was instrumented with `exceptions: "wrap"`: it shows by what
 * the process does next, which it could not do within it. Bounded; what is given up is forgotten, not guessed.
 */
import type { Pid } from "../../erlang";
import type { CallbackEvent } from "./callback-event";

/** How it shows that a callback has raised. */
export type ExceptionEvidence =
  /** The function tells of it itself (`exceptions: "wrap"`). */
  | "function"
  /** The behaviour calls `terminate` of the module, without the callback having ended. */
  | "terminate"
  /** The behaviour calls the next callback. */
  | "callback"
  /** The callback that it was called in has ended. */
  | "caller"
  /** The process has exited within it. */
  | "exit";

/** A callback that has begun. */
export interface OpenCallback {
  /** What is known of it so far. */
  readonly event: CallbackEvent;
  /** The module that called it. */
  readonly by: string | undefined;
}

/** A callback whose end shows by something else. */
export interface GoneCallback extends OpenCallback {
  readonly evidence: ExceptionEvidence;
}

/** Behaviours that call one callback after the other, of whatever module, and none within another. */
const ENGINES = new Set(["gen_server", "gen_statem", "gen_event"]);
/** Callbacks within each other; of more the outermost is forgotten. */
const DEPTH_MAX = 64;
/** Processes within a callback; of more the one that entered first is forgotten. */
const PROCESSES_MAX = 10_000;

/** Callbacks that have begun and not ended, by process. */
export class OpenCallbacks {
  readonly #stacks = new Map<Pid, OpenCallback[]>();

  /** A callback begins. Gives those that can't be under way any more, innermost first. */
  begin(process: Pid, next: OpenCallback): GoneCallback[] {
    let stack = this.#stacks.get(process);
    if (stack === undefined) {
      this.#stacks.set(process, (stack = []));
      const [oldest] = this.#stacks.keys();
      if (this.#stacks.size > PROCESSES_MAX && oldest !== undefined) this.#stacks.delete(oldest);
    }
    // What lies above one that is gone is gone as well.
    const from = stack.findIndex((open) => goneBy(open, next) !== undefined);
    const gone = from < 0 ? [] : stack.splice(from);
    const evidence = gone[0] && goneBy(gone[0], next);
    if (stack.length === DEPTH_MAX) stack.shift();
    stack.push(next);
    return gone.reverse().map((open) => ({ ...open, evidence: evidence! }));
  }

  /** The callback of this frame ends. Gives it, if its beginning was seen, and those within it that told no end, innermost first. */
  end(
    process: Pid,
    frame: number | bigint,
  ): { readonly began: OpenCallback | undefined; readonly gone: readonly GoneCallback[] } {
    const stack = this.#stacks.get(process) ?? [];
    const at = stack.findLastIndex(({ event }) => event.frame === frame);
    if (at < 0) return { began: undefined, gone: [] };
    const [began, ...within] = stack.splice(at);
    if (stack.length === 0) this.#stacks.delete(process);
    return { began, gone: within.reverse().map((open) => ({ ...open, evidence: "caller" })) };
  }

  /** The process exits. */
  exit(process: Pid): readonly GoneCallback[] {
    const stack = this.#stacks.get(process) ?? [];
    this.#stacks.delete(process);
    return stack.reverse().map((open) => ({ ...open, evidence: "exit" }));
  }

  clear(): void {
    this.#stacks.clear();
  }
}

/** What the beginning of a callback says of one that has begun before in the same process: that it is gone, or nothing. */
export function goneBy(open: OpenCallback, next: OpenCallback): ExceptionEvidence | undefined {
  const { event, by } = open;
  const { module } = next.event;
  // Called by its own module it may be within the other.
  if (by === undefined || next.by === undefined || next.by === module) return undefined;
  const { trigger } = event.site.callback ?? {};
  const nextTrigger = next.event.site.callback?.trigger;
  if (nextTrigger === "terminate" && module === event.module && trigger !== "terminate") return "terminate";
  // `init` may be where a server's loop is entered.
  if (next.by !== by || trigger === "init") return undefined;
  const same = module === event.module && next.event.callback === event.callback;
  return same || ENGINES.has(by) ? "callback" : undefined;
}
