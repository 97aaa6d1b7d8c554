/** Triggers of a flight recorder as terms: what is refused, and how call triggers and the trace's own patterns share functions. */
import { describe, expect, test } from "vitest";
import { mergePatterns, resolveTriggers, type RecorderTrigger } from "../../src/capture/recorder-triggers";
import { atom, inspect, tuple, type Term } from "../../src/erlang";

const text = (terms: readonly Term[]): string[] => terms.map((term) => inspect(term, { notation: "erlang" }));
const ANY = atom("_");
const call = (m: string, f: string, a: number | undefined, clauses: Term = [], option = "local"): Term =>
  tuple(tuple(atom(m), atom(f), a ?? ANY), clauses, [atom(option)]);
const returns = [tuple(ANY, [], [tuple(atom("return_trace"))])];
const callers = [tuple(ANY, [], [tuple(atom("message"), tuple(atom("caller")))])];
const mark = (n: number): string => `{message,{{'$beamtrace_trigger',${n}}}}`;
const merged = (calls: readonly Term[], numbers: readonly number[]): string[] =>
  text(mergePatterns(calls, numbers)).map((each) => each.replaceAll(" ", ""));

describe("call triggers and the trace's patterns", () => {
  test("of other functions stand side by side", () => {
    expect(merged([call("lists", "sum", 1, returns), call("lists", "seq", 2)], [4])).toEqual([
      "{{lists,sum,1},[{'_',[],[{return_trace}]}],[local]}",
      `{{lists,seq,2},[{'_',[],[${mark(4)}]}],[local]}`,
    ]);
  });

  test("of a function that a wider pattern traces: what the trace does is done at triggers, too", () => {
    const [, trigger] = merged(
      [call("lists", "_", undefined, returns, "global"), call("lists", "seq", 2)],
      [1],
    );
    expect(trigger).toBe(
      `{{lists,seq,2},[{'_',[],[{return_trace},${mark(1)}]},{'_',[],[{return_trace}]}],[global]}`,
    );
  });

  test("with arguments: other calls are traced as before", () => {
    const head = [tuple([1, atom("_")], [tuple(atom("is_node"))], [])];
    const [, trigger] = merged([call("lists", "seq", 2, callers), call("lists", "seq", 2, head)], [1]);
    // The one message that an event can have is the trigger's.
    expect(trigger).toBe(
      `{{lists,seq,2},[{[1,'_'],[{is_node}],[${mark(1)}]},{'_',[],[{message,{caller}}]}],[local]}`,
    );
  });

  test("that are wider than a pattern do not replace it", () => {
    const all = merged([call("lists", "seq", 2, returns), call("lists", "seq", undefined)], [2]);
    expect(all).toEqual([
      "{{lists,seq,2},[{'_',[],[{return_trace}]}],[local]}",
      `{{lists,seq,'_'},[{'_',[],[${mark(2)}]}],[local]}`,
      `{{lists,seq,2},[{'_',[],[{return_trace},${mark(2)}]},{'_',[],[{return_trace}]}],[local]}`,
    ]);
  });

  test("two of the same function: the first that matches is told", () => {
    const one = [tuple([1], [], [])];
    const two = [tuple([2], [], [])];
    const all = merged([call("m", "f", 1, one), call("m", "f", 1, two)], [1, 2]);
    expect(all.at(-1)).toBe(`{{m,f,1},[{[2],[],[${mark(2)}]},{[1],[],[${mark(1)}]}],[local]}`);
  });
});

describe("what is resolved", () => {
  test("numbers, kinds and terms", () => {
    const resolved = resolveTriggers([
      { on: "exit" },
      { on: "message", to: "alarm_handler" },
      { on: "alarm", longGcMs: 10, largeHeapBytes: 8000 },
      { on: "call", module: "m", function: "f" },
    ]);
    expect(text(resolved.terms).map((each) => each.replaceAll(" ", ""))).toEqual([
      "{1,exit}",
      "{2,{message,alarm_handler}}",
      "{3,{alarm,{long_gc,10}}}",
      "{4,{alarm,{large_heap,1000}}}",
      "{5,call}",
    ]);
    expect([...resolved.kinds].sort()).toEqual(["call", "exit", "receive"]);
    expect(resolved.patternNumbers).toEqual([5]);
    expect(resolved.byNumber.map((trigger) => trigger.on)).toEqual([
      "exit",
      "message",
      "alarm",
      "alarm",
      "call",
    ]);
  });

  test.each<[string, RecorderTrigger[]]>([
    ["an alarm without a bound", [{ on: "alarm" }]],
    ["a bound of nothing", [{ on: "alarm", longGcMs: 0 }]],
    ["a name that is empty", [{ on: "message", to: "" }]],
    ["exits twice", [{ on: "exit" }, { on: "exit" }]],
    ["a call without a function", [{ on: "call", module: "lists" }]],
    ["nine names", Array.from({ length: 9 }, (_, i) => ({ on: "message", to: `name${i}` }) as const)],
    ["what does not exist", [{ on: "full moon" } as unknown as RecorderTrigger]],
  ])("%s is refused", (_, triggers) => {
    expect(() => resolveTriggers(triggers)).toThrow(
      expect.objectContaining({ code: "BT_TRACE_SPEC_INVALID" }),
    );
  });
});
