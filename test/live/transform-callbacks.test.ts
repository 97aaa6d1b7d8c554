/** Callbacks of real servers say what they did: who asked what, what was answered, what became of the state. */
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";

import type { Session, Trace } from "../../src/capture";
import { inspect, type Term } from "../../src/erlang";
import { BeamFile } from "../../src/erlang";
import {
  type CallbackEvent,
  callbackEvent,
  type CompileServer,
  instrumentBeam,
  type InstrumentBeamOptions,
  readSiteTable,
  type SiteTable,
  siteTables,
} from "../../src/transform";
import { RUNTIME_ON } from "../../src/transform/beam-code.generated";
import { type ErlNode, startNode } from "../support/erl-node";
import { attachTo, collect, type Collected } from "../support/traced";
import { compileErlang, fixture, load, startCompiler, unload } from "../support/transform";

let node: ErlNode;
let compiler: CompileServer;
let session: Session;
let trace: Trace;
let collected: Collected;
/** The process on the node that ran the last expressions. */
let client: string;
const tables: SiteTable[] = [];

beforeAll(async () => {
  node = await startNode();
  compiler = await startCompiler();
  session = await attachTo(node);
  await load(node, "beamtrace_rt", RUNTIME_ON);
});
afterAll(async () => {
  await session.close();
  await compiler.close();
  await node.stop();
});

async function instrumented(module: string, options: InstrumentBeamOptions = {}): Promise<void> {
  const plain = await compileErlang(node, fixture(`${module}.erl`));
  const { bytes, warnings } = await instrumentBeam(plain, compiler, options);
  expect(warnings).toEqual([]);
  tables.splice(0, tables.length, readSiteTable(BeamFile.read(bytes)) as SiteTable);
  await load(node, module, bytes);
}

beforeEach(async () => {
  trace = await session.trace({
    calls: [{ module: "beamtrace_rt", function: "called_back", arity: 4 }],
    payload: { maxBytes: 4096 },
  });
  collected = collect(trace);
});
afterEach(async () => {
  await trace.stop();
  await collected.done;
});

/** Runs expressions on the node and gives the callbacks that they led to, once the one that `last` names is among them. */
async function called(expressions: string, last = "terminate/2"): Promise<CallbackEvent[]> {
  client = await node.eval(`${expressions}, pid_to_list(self())`);
  const found = (): CallbackEvent[] =>
    collected.events.flatMap((event) => callbackEvent(event, siteTables(tables)) ?? []);
  await collected.until(() => found().some(({ callback }) => callback === last));
  return found();
}

const text = (term: Term | undefined): string => (term === undefined ? "-" : inspect(term));
const shape = (of: CallbackEvent["before"]): string =>
  of === undefined ? "-" : [of.type, ...(of.size > 0 ? [of.size] : []), ...of.tags].join(" ");
/** One line an event. */
function line(event: CallbackEvent): string {
  const keys = event.changes;
  return [
    `${event.callback} ${event.outcome}`,
    `asked ${shape(event.trigger)}`,
    ...(event.eventType === undefined
      ? []
      : [`as ${typeof event.eventType === "string" ? event.eventType : text(event.eventType)}`]),
    ...(event.caller === undefined ? [] : ["called"]),
    ...(event.reply === undefined ? [] : [`answers ${shape(event.reply)}`]),
    ...(event.reason === undefined ? [] : [`because ${shape(event.reason)}`]),
    ...event.next.map(({ what, value }) => `then ${what} ${text(value)}`),
    ...(event.stateName === undefined
      ? []
      : [`${text(event.stateName.before)} -> ${text(event.stateName.after)}`]),
    `${shape(event.before)} -> ${shape(event.after)}`,
    ...(keys === undefined ? [] : [`changed ${[...keys.changed].map(text).sort().join(" ")}`]),
    ...(keys === undefined || keys.rebuilt.length === 0
      ? []
      : [`rebuilt ${keys.rebuilt.map(text).join(" ")}`]),
    ...(keys === undefined || keys.complete ? [] : ["and more"]),
  ].join("; ");
}
const lines = (events: readonly CallbackEvent[]): string[] => events.map(line);

describe("gen_server", () => {
  beforeAll(() => instrumented("bt_counter"));
  afterAll(() => unload(node, "bt_counter"));

  test("handle_call: message, caller, reply and what changed", async () => {
    const events =
      await called(`{ok, P} = bt_counter:start({map, 1}), 5 = element(2, gen_server:call(P, {add, 4})),
      5 = gen_server:call(P, get), gen_server:call(P, stop)`);
    expect(lines(events)).toEqual([
      "init/1 ok; asked tuple 2 map; - -> map 3",
      "handle_call/3 reply; asked tuple 2 add; called; answers tuple 2 count; map 3 -> map 3; changed count",
      "handle_call/3 reply; asked atom get; called; answers integer; map 3 -> map 3; changed ",
      "handle_call/3 stop; asked atom stop; called; answers atom stopping; because atom normal; map 3 -> map 3; changed ",
      "terminate/2 value; asked atom normal; answers atom done; map 3 -> -",
    ]);
    const [, add] = events;
    expect(add).toMatchObject({ behaviour: "gen_server", module: "bt_counter", source: 0 });
    expect(add?.site).toMatchObject({ kind: "return", function: "handle_call", clause: 1, line: 20 });
    expect(client).toBe(`"<0.${add?.caller?.id}.${add?.caller?.serial}>"`);
    expect(add?.changes?.rebuilt).toEqual([]);
    expect(add?.values).toBeUndefined();
  });
});
