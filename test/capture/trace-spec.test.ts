/** What is refused before anything is sent: what can't be meant, and what would silently do nothing. */
import { expect, test } from "vitest";
import type { TraceSpec } from "../../src/capture/trace-options";
import { resolveTraceSpec } from "../../src/capture/trace-spec";
import { OptionError } from "../../src/erlang/errors";
import { atom, inspect, type Term } from "../../src/erlang/term";

const refused = (spec: unknown): string => {
  try {
    resolveTraceSpec(spec as TraceSpec);
  } catch (error) {
    if (!(error instanceof OptionError)) throw error;
    return `${error.code} ${error.option}`;
  }
  return "accepted";
};
const events = ["spawn"] as const;
const calls = [{ module: "lists", function: "reverse" }];

test.each([
  [{ calls: [{ ...calls[0], return: true }] }, "BT_TRACE_SPEC_INVALID calls[0].return"],
  [{ instrumented: true }, "accepted"],
  [{ instrumented: { modules: ["shop"] } }, "accepted"],
  [{ instrumented: { modules: [] } }, "BT_TRACE_SPEC_INVALID instrumented.modules"],
  [{ instrumented: { modules: "shop" } }, "BT_TRACE_SPEC_INVALID instrumented.modules"],
  [
    { instrumented: { modules: Array.from({ length: 257 }, (_, i) => `m${i}`) } },
    "BT_TRACE_SPEC_INVALID instrumented.modules",
  ],
  [{ instrumented: { module: "shop" } }, "BT_TRACE_SPEC_INVALID instrumented.module"],
  [{ instrumented: { beams: ["shop.beam"] } }, "BT_TRACE_SPEC_INVALID instrumented.beams"],
  [{ instrumented: "shop" }, "BT_TRACE_SPEC_INVALID instrumented"],
  [{ instrumented: false }, "BT_TRACE_SPEC_INVALID events"],
  [{ events: ["function_entry"] }, "BT_TRACE_SPEC_INVALID instrumented"],
  [{ events: ["functions"], instrumented: true }, "accepted"],
  [{ events, payload: { maxBytes: 64, redacted: ["pin"] } }, "BT_TRACE_SPEC_INVALID payload.redacted"],
  [{ events, payload: { maxBytes: 64, redact: "pin" } }, "BT_TRACE_SPEC_INVALID payload.redact"],
  [{ events, batch: { size: 1 } }, "BT_TRACE_SPEC_INVALID batch.size"],
  [{ events, processes: null }, "BT_TRACE_SPEC_INVALID processes"],
  [{ events, processes: { registered: "shop" } }, "BT_TRACE_SPEC_INVALID processes.registered"],
  [{ events, processes: { application: 1 } }, "BT_TRACE_SPEC_INVALID processes.application"],
  [{ events: ["open"], ports: null }, "BT_TRACE_SPEC_INVALID ports"],
  [{ events, calls: { module: "lists" } }, "BT_TRACE_SPEC_INVALID calls"],
  [
    { calls: [{ module: "_", function: "f" }], limits: { events: 9 } },
    "BT_TRACE_SPEC_INVALID calls[0].function",
  ],
  [undefined, "BT_TRACE_SPEC_INVALID spec"],
  [{ events, limits: null }, "BT_LIMIT_INVALID limits"],
  [{ events, limits: { seconds: 1e15 } }, "BT_LIMIT_INVALID limits.seconds"],
  [{ events, limits: { events: 2 ** 60 } }, "BT_LIMIT_INVALID limits.events"],
  [{ events, limits: { overhead: 2 } }, "BT_LIMIT_INVALID limits.overhead"],
])("refuses %j", (spec, expected) => {
  expect(refused(spec)).toBe(expected);
});

test.each([
  { events, limits: { seconds: 1e9, events: Number.MAX_SAFE_INTEGER, memory: Infinity } },
  { events, processes: undefined, ports: undefined },
  { calls, payload: { maxBytes: 64, redact: [] } },
])("accepts %j", (spec) => {
  expect(refused(spec)).toBe("accepted");
});

test("what instrumented code tells needs a flag where breakpoints see it, and none where the library does", () => {
  const flagsOf = (spec: TraceSpec, tracer: "native" | "portable"): string =>
    inspect(resolveTraceSpec(spec).termFor(tracer).get(atom("flags")) as Term, { notation: "erlang" });
  expect(flagsOf({ instrumented: true }, "portable")).toBe("[call]");
  expect(flagsOf({ instrumented: true }, "native")).toBe("[]");
  expect(flagsOf({ instrumented: true, calls }, "native")).toBe("[call]");
  expect(flagsOf({ instrumented: true, events }, "native")).toBe("[procs]");
});

test("kinds of instrumented code are those that are named, or all", () => {
  expect([...resolveTraceSpec({ instrumented: true }).kinds]).toHaveLength(4);
  expect([...resolveTraceSpec({ instrumented: true, events }).kinds]).toHaveLength(5);
  const { kinds } = resolveTraceSpec({ instrumented: true, events: ["function_return"] });
  expect([...kinds]).toEqual(["function_return"]);
});

test.each([
  [{ processes: "new" }, /processes: "new"/],
  [{ inherit: "link" }, /inherit/],
  [{ sampling: { processes: 0.1 } }, /sampling/],
  [{ limits: { overhead: 0.1 } }, /overhead/],
  [{ processes: "all" }, undefined],
] as const)("only the portable tracer will do with %j", (spec, reason) => {
  const { portableOnly } = resolveTraceSpec({ instrumented: true, ...spec });
  if (reason === undefined) expect(portableOnly).toBeUndefined();
  else expect(portableOnly).toMatch(reason);
  expect(resolveTraceSpec({ events, ...spec }).portableOnly).toBeUndefined();
});
