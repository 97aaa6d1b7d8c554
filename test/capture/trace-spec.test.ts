/** What is refused before anything is sent: what can't be meant, and what would silently do nothing. */
import { expect, test } from "vitest";
import { resolveTraceSpec, type TraceSpec } from "../../src/capture/trace-spec";
import { OptionError } from "../../src/erlang/errors";

const refused = (spec: unknown): string => {
  try {
    resolveTraceSpec(spec as TraceSpec);
  } catch (error) {
    if (!(error instanceof OptionError)) throw error;
    return `${error.code} ${error.option}`;
  }
  return "accepted";
};
const events = ["spawn"];
const calls = [{ module: "lists", function: "reverse" }];

test.each([
  [{ calls: [{ ...calls[0], return: true }] }, "BT_TRACE_SPEC_INVALID calls[0].return"],
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
