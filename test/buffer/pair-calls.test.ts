/** Entries and ends as calls: by id, and by what their callers do. */
import { from, lastValueFrom, toArray } from "rxjs";
import { expect, test } from "vitest";

import { pairCalls, type FunctionCall } from "../../src/buffer/pair-calls";
import type { TraceEvent } from "../../src/buffer/trace-event";
import { Atom, Pid } from "../../src/erlang";

const shape = { type: "atom", size: 0, tags: [] } as const;
const at = (process: number, timestamp: number) => ({
  ...{ timestamp, source: 0, scheduler: undefined, process: new Pid(Atom.of("a@b"), process, 0, 1) },
});
const frame = (callId: number) => ({ callId, module: "m", siteNumber: 0, site: undefined });
type Told = "entry" | "return" | "tail_call" | "exception";

/** `"entry 1"`: what is told of a call, in process 1 unless it says another; stamps count up. */
function events(lines: readonly string[]): TraceEvent[] {
  return lines.map((line, i): TraceEvent => {
    const [what = "", id = "0", process = "1"] = line.split(" ");
    const common = at(Number(process), i * 10);
    if (what === "exit") return { kind: "exit", ...common, reason: shape, payload: undefined };
    if (what === "gap")
      return {
        kind: "gap",
        ...common,
        process: undefined,
        hop: "ring",
        count: 1,
        from: undefined,
        to: undefined,
      };
    const kind = `function_${what as Told}` as const;
    if (kind === "function_tail_call") return { kind, ...common, ...frame(Number(id)) };
    const content = { ...common, ...frame(Number(id)), shape, payload: undefined };
    return kind === "function_exception" ? { kind, class: "error", ...content } : { kind, ...content };
  });
}

async function calls(lines: readonly string[], depth?: number): Promise<string[]> {
  const options = depth === undefined ? {} : { depth };
  const all: FunctionCall[] = await lastValueFrom(from(events(lines)).pipe(pairCalls(options), toArray()));
  return all.map((c) => `${c.entry.callId} ${c.end} ${c.duration ?? "-"} in ${c.caller ?? "-"}`);
}

test("a call lasts from its entry to what ends it", async () => {
  expect(await calls(["entry 1", "entry 2", "return 2", "tail_call 1"])).toEqual([
    "2 return 10 in 1",
    "1 tail_call 30 in -",
  ]);
  expect(await calls(["entry 1", "exception 1"])).toEqual(["1 exception 10 in -"]);
});

test("who goes on without the return of what it called has seen an exception go through that", async () => {
  expect(await calls(["entry 1", "entry 2", "entry 3", "return 1"])).toEqual([
    "3 abnormal - in 2",
    "2 abnormal - in 1",
    "1 return 30 in -",
  ]);
});

test("processes don't mix, and end what they have open with them", async () => {
  expect(await calls(["entry 1", "entry 1 2", "return 1", "exit 0 2"])).toEqual([
    "1 return 20 in -",
    "1 exit - in -",
  ]);
});

test("ends without an entry are left out; after a gap nothing is known of what was open", async () => {
  expect(await calls(["return 9", "entry 1", "gap", "return 1", "entry 2"])).toEqual([
    "1 unknown - in -",
    "2 open - in -",
  ]);
});

test("what is kept is bounded", async () => {
  expect(await calls(["entry 1", "entry 2", "entry 3", "return 3"], 2)).toEqual([
    "1 unknown - in -",
    "3 return 10 in 2",
    "2 open - in -",
  ]);
});
