/** What is put into callbacks, without a node: what they tell, what goes on elsewhere, what the site table says of it. */
import { describe, expect, test } from "vitest";

import { readSiteTable, withSiteTable } from "../../src/buffer";
import { atom, BeamFile, type Term, tuple } from "../../src/erlang";
import {
  builderAt,
  type ClauseNode,
  type Expr,
  type Form,
  type FunctionNode,
  instrumentForms,
  type InstrumentedForms,
  type InstrumentOptions,
} from "../../src/transform";
import { printed as printedFunction } from "../support/printed";

const b = builderAt(7);
const v = (name: string): Expr => b.variable(name);
const attribute = (name: string, value: Term): Form => ({
  ...{ type: "attribute", anno: 1, name: atom(name), value },
});
const module = (behaviour: string, functions: readonly FunctionNode[], exported = functions): Form[] => [
  attribute("module", atom("m")),
  attribute("behaviour", atom(behaviour)),
  attribute(
    "export",
    exported.map((f) => tuple(f.name, f.arity)),
  ),
  ...functions,
  { type: "eof", anno: 9 },
];
const f = (name: string, ...clauses: ClauseNode[]): FunctionNode =>
  b.function(name, clauses[0]?.patterns.length ?? 0, clauses);
const clause = (patterns: string[], ...body: Expr[]): ClauseNode => b.clause(patterns.map(v), body);

function printed({ forms }: InstrumentedForms, name: string): string {
  const found = forms.find((form) => form.type === "function" && form.name.name === name);
  if (found?.type !== "function") throw new Error(`no ${name}`);
  return printedFunction(found)
    .replace(/'-beamtrace-([\w-]+)-'\((?=BeamtraceId)/g, "$1(")
    .replace(/(?<='-beamtrace-(enter|once)-'\()m, /g, "")
    .replaceAll("Beamtrace", "")
    .trim();
}
const reply = b.tuple(b.atom("reply"), b.atom("ok"), v("S"));
const server = (options?: InstrumentOptions, ...functions: FunctionNode[]): InstrumentedForms =>
  instrumentForms(module("gen_server", functions, functions.slice(0, 1)), options);

describe("a callback", () => {
  test("tells what it was called with, and keeps it, where somebody listens, and tells at its end", () => {
    expect(printed(server({}, f("handle_call", clause(["M", "_", "S"], reply))), "handle_call")).toBe(
      "handle_call(M, A2, S) -> Id = '-beamtrace-enter-'(0, M, A2, S), " +
        "C = case Id of 0 -> none; _ -> begins(Id, 0, server, {M, A2, S, '-beamtrace-none-'}) end, callback(Id, 1, server, C, {reply, ok, S}).",
    );
  });

  test("says how much of its terms is to travel", () => {
    const text = printed(
      server({ callbacks: { maxBytes: 99 } }, f("handle_cast", clause(["M", "S"], reply))),
      "handle_cast",
    );
    expect(text).toContain("callback(Id, 1, {server, 99}, C, {reply, ok, S})");
    for (const maxBytes of [0, 1.5, 1e6]) {
      expect(() => server({ callbacks: { maxBytes } }, f("g", clause([], reply)))).toThrow(
        expect.objectContaining({ code: "BT_OPTION_INVALID", option: "callbacks.maxBytes" }),
      );
    }
  });

  test("is a function like any other when that is asked for, or when nobody can call it", () => {
    const call = f("handle_call", clause(["M", "F", "S"], reply));
    const plain = "-beamtrace-once-'(0, M, F, S, {reply, ";
    expect(printed(server({ callbacks: "none" }, call), "handle_call")).toContain(plain);
    const hidden = f("handle_call", clause(["M", "F", "S"], reply));
    const { forms } = instrumentForms(module("gen_server", [hidden], []));
    expect(printed({ forms } as InstrumentedForms, "handle_call")).toContain(plain);
    const all = [
      attribute("compile", [atom("export_all")]),
      ...module("gen_server", [f("init", clause(["A"], reply))], []),
    ];
    expect(instrumentForms(all).table.sites[0]?.callback?.name).toBe("init/1");
  });

  test("that never returns tells what it was called with and keeps nothing", () => {
    const text = printed(
      server({}, f("handle_cast", clause(["M", "S"], b.call("exit", [v("M")])))),
      "handle_cast",
    );
    expect(text).toBe(
      "handle_cast(M, S) -> Id = '-beamtrace-enter-'(0, M, S), _ = case Id of 0 -> none; _ -> " +
        "begins(Id, 0, server, {M, '-beamtrace-none-', S, '-beamtrace-none-'}) end, exit(M).",
    );
  });

  test("that is wrapped tells of an exception what it would tell of a result", () => {
    const told = server(
      { exceptions: "wrap" },
      f("handle_cast", clause(["M", "S"], b.call("exit", [v("M")]))),
    );
    expect(printed(told, "handle_cast")).toContain("callback-exception(Id, 1, C, E, S, server, C2)");
    const other = server({ exceptions: "wrap" }, f("other", clause(["M"], b.call("exit", [v("M")]))));
    expect(printed(other, "other")).toContain("exception(Id, 1, C, E, S)");
  });

  test("of a state machine goes by what callback_mode says", () => {
    const mode = (body: Expr): FunctionNode => f("callback_mode", b.clause([], [body]));
    const functions = (body: Expr): FunctionNode[] => [
      f("idle", clause(["T", "E", "D"], reply)),
      f("handle_event", clause(["T", "E", "N", "D"], reply)),
      f("terminate", clause(["W", "N", "D"], reply)),
      mode(body),
    ];
    const names = (body: Expr): (string | undefined)[] => {
      const { table } = instrumentForms(module("gen_statem", functions(body)));
      return [...new Set(table.sites.map((site) => site.callback?.name))];
    };
    expect(names(b.atom("handle_event_function"))).toEqual([undefined, "handle_event/4", "terminate/3"]);
    expect(names(b.list([b.atom("state_functions"), b.atom("state_enter")]))).toEqual([
      ...["StateName/3", undefined, "terminate/3"],
    ]);
    expect(names(b.call("computed", []))).toEqual([
      "StateName/3",
      "handle_event/4",
      "terminate/3",
      undefined,
    ]);
  });
});

describe("where a callback goes on", () => {
  const functions = (): FunctionNode[] => [
    f(
      "handle_call",
      clause(["M", "F", "S"], b.call("next", [v("S"), v("M")])),
      clause(["M", "F", "S"], b.call("last", [v("M"), v("S")])),
    ),
    f("next", clause(["S", "M"], b.call("last", [v("M"), v("S")]))),
    f("last", clause(["M", "S"], reply)),
    f("handle_cast", clause(["M", "S"], b.call("own", [b.tuple(v("S"))]))),
    f("own", clause(["S"], b.remoteCall("m", "own", [v("S")])), clause(["S"], reply)),
    f("other", clause(["S"], reply)),
  ];
  const result = (): InstrumentedForms => server({}, ...functions());

  test("it says to whom, and that one says when it begins and what it answers", () => {
    const told = result();
    expect(printed(told, "handle_call")).toMatch(/callback-tail\(Id, 1, server, C\), next\(S, M\)/);
    expect(printed(told, "next")).toMatch(
      /_ -> \{'-beamtrace-none-', '-beamtrace-none-', S, '-beamtrace-none-'\} end, continues\(Id, \d+\), callback-tail\(Id, \d+, server, C\), last\(M, S\)\./,
    );
    expect(printed(told, "last")).toMatch(
      /\{'-beamtrace-none-', '-beamtrace-none-', S, .*continues\(Id, \d+\).*callback\(/,
    );
    expect(printed(told, "other")).toContain("-beamtrace-once-'(");
  });

  test("which argument is the state is only said where all agree", () => {
    const forms = module("gen_server", functions(), functions().slice(0, 4));
    expect(printed(instrumentForms(forms), "own")).toMatch(
      /\{'-beamtrace-none-', '-beamtrace-none-', '-beamtrace-none-', '-beamtrace-none-'\}/,
    );
  });

  test("is in the site table", () => {
    const { table } = result();
    const tails = table.sites.filter((site) => site.kind === "tail" && site.callee !== undefined);
    expect(tails.map((site) => `${site.function} ${site.callee}`)).toEqual([
      ...["handle_call next/2", "handle_call last/2", "next last/2"],
    ]);
    expect(table.sites.find((site) => site.function === "next")?.callback).toEqual({
      ...{ behaviour: "gen_server", name: "next/2", trigger: "continuation" },
    });
    const beam = withSiteTable(BeamFile.of([]), table);
    expect(readSiteTable(BeamFile.read(beam.write()))).toEqual(table);
  });
});
