/** What is put into forms, without a node: where events stand, what stays untouched, what is refused; and the table of sites. */
import { describe, expect, test } from "vitest";

import { atom, BeamFile, encode, type Term, tuple } from "../../src/erlang";
import {
  builderAt,
  type Compiler,
  type Expr,
  type Form,
  type FunctionNode,
  instrumentBeam,
  instrumentForms,
  type InstrumentOptions,
  readSiteTable,
  SITE_CHUNK,
  withSiteTable,
} from "../../src/transform";
import { printed } from "../support/printed";

const b = builderAt(7);
const X = (): Expr => b.variable("X");
const call = (name: string, ...args: Expr[]): Expr => b.call(name, args);
const attribute = (name: string, value: Term): Form => ({
  type: "attribute",
  anno: 1,
  name: atom(name),
  value,
});
const f = (...body: Expr[]): FunctionNode => b.function("f", 1, [b.clause([X()], body)]);
const module = (...functions: FunctionNode[]): Form[] => [
  attribute("module", atom("m")),
  attribute("export", [tuple(atom("f"), 1)]),
  // What has no definition and is not imported can only be a BIF.
  attribute(
    "import",
    tuple(
      atom("other"),
      ["g", "h", "i"].flatMap((name) => [0, 1, 2, 3].map((n) => tuple(atom(name), n))),
    ),
  ),
  ...functions,
  { type: "eof", anno: 9 },
];
const firstFunction = (forms: readonly Form[]): FunctionNode =>
  forms.find((form) => form.type === "function") as FunctionNode;
function instrumented(body: readonly Expr[], options?: InstrumentOptions): string {
  const { forms } = instrumentForms(module(f(...body)), options);
  return printed(firstFunction(forms))
    .replace(/'-beamtrace-(\w+)-'\(BeamtraceId, /g, "$1(")
    .replace(/BeamtraceId = '-beamtrace-enter-'\(m, (.*?)\)/, "enter($1)")
    .replaceAll("Beamtrace", "")
    .trim();
}

describe("events", () => {
  test.each<readonly [string, Expr[], string]>([
    ["a value and nothing else is told by one call", [X()], "f(X) -> '-beamtrace-once-'(m, 0, X, X)."],
    [
      "a value that has to be made is told and given",
      [b.operator("+", X(), b.integer(1))],
      "f(X) -> enter(0, X), leave(X + 1, 1).",
    ],
    [
      "a tail call is told and made as it was",
      [X(), call("g", X())],
      "f(X) -> enter(0, X), X, tail(1), g(X).",
    ],
    [
      "a tail call and nothing else is told of where somebody listens",
      [call("g", X())],
      "f(X) -> case '-beamtrace-enter-'(m, 0, X) of 0 -> ok; Id -> tail(1) end, g(X).",
    ],
    [
      "arguments that are no values are made before, in their order",
      [call("g", call("h"), X(), call("i"))],
      "f(X) -> enter(0, X), V = h(), V2 = i(), tail(1), g(V, X, V2).",
    ],
    [
      "not when two of them bind one variable",
      [call("g", b.match(b.variable("Y"), call("h")), b.match(b.variable("Y"), call("h")))],
      "f(X) -> enter(0, X), tail(1), g(Y = h(), Y = h()).",
    ],
    ["a BIF is no tail call", [call("length", X())], "f(X) -> enter(0, X), leave(length(X), 1)."],
    ["apply is", [X(), call("apply", X(), X())], "f(X) -> enter(0, X), X, tail(1), apply(X, X)."],
    [
      "what never returns is left alone",
      [call("throw", X())],
      "f(X) -> _ = '-beamtrace-enter-'(m, 0, X), throw(X).",
    ],
    [
      "of X = E, X it is E that is in tail position",
      [b.match(b.variable("Y"), call("g")), b.variable("Y")],
      "f(X) -> enter(0, X), Y = begin tail(1), g() end, Y.",
    ],
    [
      "a lazy operator before a tail call tells of what decides",
      [b.operator("andalso", X(), call("g"))],
      "f(X) -> enter(0, X), case X of true -> tail(1), g(); V -> leave(V andalso true, 2) end.",
    ],
    [
      "try without `of` gets one when a handler ends in a tail call",
      [b.try([call("g")], [b.clause([b.tuple(b.atom("error"), b.wildcard(), b.wildcard())], [call("h")])])],
      "f(X) -> enter(0, X), try g() of V -> leave(V, 2) catch error:_ -> tail(1), h() end.",
    ],
    [
      "try whose handlers end in values is one value",
      [b.try([call("g")], [b.clause([b.tuple(b.atom("error"), b.wildcard(), b.wildcard())], [X()])])],
      "f(X) -> enter(0, X), leave(try g() catch error:_ -> X end, 1).",
    ],
    [
      "maybe without else gets one",
      [
        {
          type: "maybe",
          anno: 7,
          body: [{ type: "maybe_match", anno: 7, pattern: b.atom("ok"), value: X() }, call("g")],
        },
      ],
      "f(X) -> enter(0, X), maybe ok ?= X, tail(1), g() else V -> leave(V, 2) end.",
    ],
    [
      "a maybe that ends in ?= tells of what was matched",
      [
        {
          type: "maybe_else",
          anno: 7,
          body: [{ type: "maybe_match", anno: 7, pattern: b.atom("ok"), value: call("g") }],
          otherwise: { type: "else", anno: 7, clauses: [b.clause([b.wildcard()], [call("h")])] },
        },
      ],
      "f(X) -> enter(0, X), maybe (ok = R) ?= g(), leave(R, 1) else _ -> tail(2), h() end.",
    ],
    [
      "a comprehension in tail position is a tail call",
      [
        {
          type: "lc",
          anno: 7,
          template: b.variable("E"),
          qualifiers: [{ type: "generate", anno: 7, pattern: b.variable("E"), value: call("g") }],
        },
      ],
      "f(X) -> enter(0, X), V = g(), tail(1), [E || E <- V].",
    ],
  ])("%s", (_, body, text) => {
    expect(instrumented(body)).toBe(text);
  });

  test("the one call tells of the entry, and of the return at the next site, and gives the value", () => {
    const { forms, table } = instrumentForms(module(f(b.atom("done"))));
    expect(table.sites.map(({ id, kind }) => [id, kind])).toEqual([
      [0, "entry"],
      [1, "return"],
    ]);
    const once = forms.find((form) => form.type === "function" && form.name.name === "-beamtrace-once-");
    expect(printed(once as FunctionNode).trim()).toBe(
      "'-beamtrace-once-'(V0, V1, V2, R) -> case '-beamtrace-enter-'(V0, V1, V2) of 0 -> R; I -> '-beamtrace-leave-'(I, R, V1 + 1) end.",
    );
  });

  test("with many arguments it has them in a list", () => {
    const names = Array.from({ length: 8 }, (_, i) => b.variable(`A${i}`));
    const { forms } = instrumentForms(module(b.function("f", 8, [b.clause(names, [b.atom("done")])])));
    expect(printed(firstFunction(forms))).toContain(
      "-> '-beamtrace-once-list-'(m, 0, [A0, A1, A2, A3, A4, A5, A6, A7], done)",
    );
    const helpers = forms.flatMap((form) =>
      form.type === "function" ? [`${form.name.name}/${form.arity}`] : [],
    );
    expect(helpers).toEqual(
      expect.arrayContaining(["-beamtrace-once-list-/4", "-beamtrace-enter-list-/3", "-beamtrace-leave-/3"]),
    );
  });

  test("names collide with nothing", () => {
    const text = instrumented([b.match(b.variable("BeamtraceR"), X()), b.tuple(b.variable("BeamtraceR"))]);
    expect(text).toBe("f(X) -> enter(0, X), R = X, leave({R}, 1).");
  });

  test("heads gain aliases only where an argument has no name", () => {
    const node = b.function("f", 3, [
      b.clause([X(), b.wildcard(), b.match(b.tuple(b.atom("a")), b.variable("_T"))], [b.atom("ok")]),
    ]);
    const { forms } = instrumentForms(module(node));
    expect(printed(firstFunction(forms))).toMatch(/^f\(X, BeamtraceA2, \(\{a\} = _T\) = BeamtraceA3\) ->/);
  });

  test("all that is added is marked as generated, at the line it stands beside", () => {
    const { forms } = instrumentForms(module(f(X(), call("g", X()))));
    const [enter, , event, tail] = firstFunction(forms).clauses[0]!.body;
    const mark = [tuple(atom("generated"), atom("true")), tuple(atom("location"), 7)];
    expect([enter?.anno, event?.anno, tail?.anno]).toEqual([mark, mark, 7]);
    // What no compiler warns of has the place alone, which travels in a twentieth of the bytes.
    expect(event).toMatchObject({ callee: { anno: 7 }, arguments: [{ anno: 7 }, { anno: 7 }] });
  });

  test("the compiler is only kept from optimising `try` where all that there is are ours", () => {
    const options = (body: Expr): string[] =>
      instrumentForms(module(f(body), b.function("g", 0, [b.clause([], [b.atom("ok")])])), {
        select: ({ function: name }) => name === "g",
      })
        .compileOptions.map(({ name }) => name)
        .filter((name) => name.startsWith("no_ssa"));
    expect(options(call("h"))).toEqual(["no_ssa_opt_try"]);
    expect(options(b.tuple(b.try([call("h")], [b.clause([b.wildcard()], [X()])])))).toEqual([]);
    expect(options(b.tuple({ type: "catch", anno: 7, body: call("h") }))).toEqual([]);
  });
});

describe("what is left alone", () => {
  test("functions that are not selected; nothing selected, nothing changed", () => {
    const forms = module(f(X()));
    const result = instrumentForms(forms, {
      select: ({ exported, module: name }) => !(exported && name === "m"),
    });
    expect(result.instrumented).toEqual([]);
    expect(result.forms).toBe(forms);
  });

  test("stand-ins for native code", () => {
    const stub = f(b.remoteCall("erlang", "nif_error", [b.atom("not_loaded")]));
    expect(instrumentForms(module(stub)).refused).toEqual([
      { function: "f", arity: 1, reason: expect.stringMatching(/native/) as string },
    ]);
    const listed = [attribute("nifs", [tuple(atom("f"), 1)]), ...module(f(X()))];
    expect(instrumentForms(listed).refused).toHaveLength(1);
  });

  test("with exceptions: wrap, functions whose tail calls it would break", () => {
    expect(instrumentForms(module(f(call("g"))), { exceptions: "wrap" }).refused).toHaveLength(1);
    expect(instrumented([X()], { exceptions: "wrap" })).toBe(
      "f(X) -> enter(0, X), try X of R -> leave(R, 2) catch C:E:S -> exception(1, C, E, S), erlang:raise(C, E, S) end.",
    );
  });

  test("forms that are instrumented already", () => {
    const { forms } = instrumentForms(module(f(X())));
    expect(() => instrumentForms(forms)).toThrow(expect.objectContaining({ code: "BT_INSTRUMENT_REFUSED" }));
    expect(() => instrumentForms([])).toThrow(expect.objectContaining({ code: "BT_INSTRUMENT_REFUSED" }));
  });

  test("a module with more places than events can name, until fewer are selected", () => {
    const clauses = Array.from({ length: 50_001 }, (_, i) => b.clause([b.integer(i)], [b.atom("ok")]));
    const forms = (): Form[] =>
      module(b.function("f", 1, clauses), b.function("few", 0, [b.clause([], [X()])]));
    expect(() => instrumentForms(forms())).toThrow(
      expect.objectContaining({
        code: "BT_INSTRUMENT_REFUSED",
        message: expect.stringContaining("100004 places") as string,
      }),
    );
    const few = instrumentForms(forms(), { select: ({ function: name }) => name === "few" });
    expect(few.table.sites).toHaveLength(2);
  });

  test("modules of the code server, unless the runtime is there before them", async () => {
    const beam = BeamFile.of([
      { id: "AtU8", data: Uint8Array.of(0, 0, 0, 1, 5, ...Buffer.from("lists")) },
      {
        id: "Dbgi",
        data: encode(tuple(atom("debug_info_v1"), atom("erl_abstract_code"), tuple([], []))),
      },
    ]).write();
    const compiler: Compiler = {
      forms: () => Promise.reject(new Error("not asked")),
      compile: () => Promise.reject(new Error("not asked")),
    };
    await expect(instrumentBeam(beam, compiler)).rejects.toMatchObject({
      code: "BT_INSTRUMENT_REFUSED",
      message: expect.stringMatching(/runtime: "present"/) as string,
    });
    await expect(instrumentBeam(beam, compiler, { runtime: "present" })).rejects.toThrow(/no -module/);
  });
});

describe("site table", () => {
  const { table } = instrumentForms([
    attribute("file", tuple([...Buffer.from("src/m.erl")], 1)),
    ...module(b.function("f", 1, [b.clause([X()], [X()]), b.clause([X()], [call("g")])])),
  ]);

  test("says where each event is from", () => {
    expect(table.sites).toEqual([
      {
        id: 0,
        kind: "entry",
        function: "f",
        arity: 1,
        clause: 1,
        file: "src/m.erl",
        line: 7,
        column: 0,
        arguments: [0],
      },
      {
        id: 1,
        kind: "return",
        function: "f",
        arity: 1,
        clause: 1,
        file: "src/m.erl",
        line: 7,
        column: 0,
        arguments: [],
      },
      {
        id: 2,
        kind: "entry",
        function: "f",
        arity: 1,
        clause: 2,
        file: "src/m.erl",
        line: 7,
        column: 0,
        arguments: [0],
      },
      {
        id: 3,
        kind: "tail",
        function: "f",
        arity: 1,
        clause: 2,
        file: "src/m.erl",
        line: 7,
        column: 0,
        arguments: [],
      },
    ]);
  });

  test("is read from the beam as it was written", () => {
    const beam = withSiteTable(BeamFile.of([]), table);
    expect(readSiteTable(BeamFile.read(beam.write()))).toEqual(table);
    expect(readSiteTable(BeamFile.of([]))).toBeUndefined();
  });

  test.each([
    ["no tuple", [1, 2]],
    ["another version", tuple(atom("beamtrace_sites"), 99, atom("m"), [], [])],
    ["a site that is none", tuple(atom("beamtrace_sites"), 2, atom("m"), [], [tuple(1)], [])],
    [
      "a file that is not there",
      tuple(
        atom("beamtrace_sites"),
        2,
        atom("m"),
        [],
        [tuple(atom("entry"), atom("f"), 1, 1, 0, 1, 1, [])],
        [],
      ),
    ],
  ])("%s is refused", (_, term) => {
    const beam = BeamFile.of([{ id: SITE_CHUNK, data: encode(term) }]);
    expect(() => readSiteTable(beam)).toThrow(expect.objectContaining({ code: "BT_CORRUPT_BEAM" }));
  });
});
