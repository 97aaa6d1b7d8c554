/**
 * What the demo shows of a span of time, usually a second: processes, gen_server calls and functions with their durations, messages by type, who
 * received most, garbage collections, schedulers, crashes. It takes events one by one and does not know where they come from.
 */
import type { Mfa, Shape, TraceEvent } from "beamtrace";
import { inspect, type Term } from "beamtrace/erlang";
import { grouped, Timings } from "./timings";

/** Exit reasons that are no crash. */
const IN_ORDER = ["normal", "shutdown", "killed", "noproc", "noconnection"];

export class Board {
  readonly #node: string;
  /** Registered names, by the text of their pid. */
  readonly #names = new Map<string, string>();
  readonly #calls = new Timings();
  readonly #functions = new Timings();
  readonly #collections = new Timings();
  /** Labels of lines that were shown. */
  readonly #seen = new Set<string>();
  #counts = new Counts();
  #total = 0;

  /** @param node - whose pids are shown with a leading 0, as its own shell does */
  constructor(node: string) {
    this.#node = node;
  }

  /** The registered name of a process. */
  know(process: Term, name: string): void {
    this.#names.set(this.#text(process), name);
  }

  /** Events so far, over all spans. */
  get total(): number {
    return this.#total;
  }

  add(event: TraceEvent): void {
    const counts = this.#counts;
    const { timestamp } = event;
    if (event.kind === "gap") counts.lost += event.count;
    else if (event.kind !== "marker") {
      counts.events += 1;
      this.#total += 1;
    }
    switch (event.kind) {
      case "spawned":
        counts.started += 1;
        break;
      case "exit": {
        counts.ended += 1;
        const reason = event.reason.tags.join(" ").trim() || event.reason.type;
        if (!IN_ORDER.includes(event.reason.tags[0] ?? "")) count(counts.crashes, reason);
        for (const timings of [this.#calls, this.#functions, this.#collections])
          timings.forget(event.process);
        break;
      }
      case "register":
        this.know(event.process, event.name);
        break;
      case "send":
        count(counts.messages, messageType(event.shape));
        if (event.shape.tags[0] === "$gen_call") {
          this.#calls.forget(event.process);
          this.#calls.begin(event.process, event.shape.tags[1] ?? "?", timestamp);
        }
        break;
      case "receive":
        count(counts.received, event.process);
        // The answer to a call is {Tag, Reply}, and its tag is no atom.
        if (event.shape.type === "tuple" && event.shape.size === 2 && !event.shape.tags[0])
          this.#calls.end(event.process, timestamp);
        break;
      case "call":
        this.#functions.begin(event.process, functionName(event.mfa), timestamp);
        break;
      case "return_from":
      case "exception_from":
        this.#functions.end(event.process, timestamp);
        break;
      case "gc_minor_start":
        this.#collections.begin(event.process, "minor", timestamp);
        break;
      case "gc_major_start":
        this.#collections.begin(event.process, "major", timestamp);
        break;
      case "gc_minor_end":
      case "gc_major_end":
        this.#collections.end(event.process, timestamp);
        break;
      case "in":
        count(counts.schedulers, `scheduler ${event.scheduler ?? "?"}`);
        break;
      case "open":
        counts.opened += 1;
        break;
      case "closed":
        counts.closed += 1;
        break;
      default:
    }
  }

  /** The lines of the span that ends here; the next one begins. A line that was there once stays, so that the others keep their place. */
  take(title: string): string[] {
    const now = this.#counts;
    this.#counts = new Counts();
    const received = new Map([...now.received].map(([process, n]) => [this.#name(process as Term), n]));
    const lines = [`${title} · ${grouped(now.events)} events, ${grouped(now.lost)} lost`];
    const add = (label: string, texts: readonly string[]): void => {
      if (texts.length > 0) this.#seen.add(label);
      else if (this.#seen.has(label)) texts = ["none"];
      lines.push(...texts.map((text, i) => `  ${(i === 0 ? label : "").padEnd(12)} ${text}`));
    };
    add("processes", pair(now.started, "started", now.ended, "ended"));
    add("ports", pair(now.opened, "opened", now.closed, "closed"));
    add("calls", this.#calls.take(3));
    add("functions", this.#functions.take(5));
    add("messages", top(now.messages));
    add("received by", top(received));
    add("collections", this.#collections.take(2));
    add("scheduled on", top(now.schedulers));
    add("crashes", top(now.crashes));
    return lines;
  }

  #text(process: Term): string {
    return inspect(process, { localNode: this.#node });
  }

  #name(process: Term): string {
    const text = this.#text(process);
    return this.#names.get(text) ?? text;
  }
}

/** Counts of one span. */
class Counts {
  readonly messages = new Map<string, number>();
  readonly received = new Map<object, number>();
  readonly schedulers = new Map<string, number>();
  readonly crashes = new Map<string, number>();
  events = 0;
  lost = 0;
  started = 0;
  ended = 0;
  opened = 0;
  closed = 0;
}

/** `{'$gen_call', _, {add, _}}` as `call add`, other tuples by their leading atoms, the rest by its type. */
function messageType({ type, size, tags: [first = "", second = ""] }: Shape): string {
  if (first === "$gen_call" || first === "$gen_cast") return `${first.slice(5)} ${second || "…"}`;
  if (type !== "tuple") return first || type;
  const elements = [first || "_", second || "_"].slice(0, size);
  return `{${[...elements, ...(size > 2 ? ["…"] : [])].join(",")}}`;
}

function functionName({ module, function: name, arity }: Mfa): string {
  return `${module.replace(/^Elixir\./, "")}.${name}/${arity}`;
}

function count<K>(map: Map<K, number>, key: K): void {
  map.set(key, (map.get(key) ?? 0) + 1);
}

/** The most frequent ones in one line, as far as it takes them. */
function top(counts: ReadonlyMap<string, number>): string[] {
  let line = "";
  for (const [name, n] of [...counts].sort((a, b) => b[1] - a[1]).slice(0, 4)) {
    const part = `${line === "" ? "" : "   "}${name.slice(0, 40)} ${grouped(n)}`;
    if (line.length + part.length > 64) break;
    line += part;
  }
  return line === "" ? [] : [line];
}

function pair(a: number, first: string, b: number, second: string): string[] {
  return a + b === 0 ? [] : [`${grouped(a)} ${first}, ${grouped(b)} ${second}`];
}
