/** Forms to nodes and back: every node of the abstract format, losslessly; what is not known is refused. */
import { describe, expect, test } from "vitest";

import { atom, equals, float, type Term, tuple } from "../../src/erlang";
import {
  builderAt,
  columnOf,
  exprFromTerm,
  exprToTerm,
  fileOf,
  formFromTerm,
  formToTerm,
  generatedAnno,
  isGenerated,
  lineOf,
} from "../../src/transform";

const a = atom;
const t = tuple;
const one = t(a("integer"), 3, 1);
const x = t(a("var"), 3, a("X"));
const clause = t(a("clause"), 3, [x], [[one, x], [one]], [x, one]);
const generator = (tag: string): Term => t(a(tag), 3, x, one);

/** Every expression of OTP 25 to 29 by the type that it becomes. */
const EXPRESSIONS: readonly (readonly [string, Term])[] = [
  ["atom", t(a("atom"), 3, a("ok"))],
  ["char", t(a("char"), 3, 97)],
  ["integer", t(a("integer"), 3, 1n << 80n)],
  ["float", t(a("float"), 3, float(1))],
  ["string", t(a("string"), 3, [97, 98])],
  ["value", t(a("value"), 3, [1])],
  ["var", x],
  ["nil", t(a("nil"), 3)],
  ["cons", t(a("cons"), 3, one, t(a("nil"), 3))],
  ["tuple", t(a("tuple"), 3, [one, x])],
  ["bin", t(a("bin"), 3, [t(a("bin_element"), 3, x, one, [a("little"), t(a("unit"), 8)])])],
  ["bin", t(a("bin"), 3, [t(a("bin_element"), 3, x, a("default"), a("default"))])],
  ["map", t(a("map"), 3, [t(a("map_field_assoc"), 3, one, x)])],
  ["map_update", t(a("map"), 3, x, [t(a("map_field_exact"), 3, one, x)])],
  ["record", t(a("record"), 3, a("r"), [t(a("record_field"), 3, t(a("atom"), 3, a("f")), x)])],
  ["record", t(a("record"), 3, t(a("m"), a("r")), [])],
  ["record_update", t(a("record"), 3, x, a("r"), [])],
  ["record_access", t(a("record_field"), 3, x, a("r"), t(a("atom"), 3, a("f")))],
  ["record_index", t(a("record_index"), 3, a("r"), t(a("atom"), 3, a("f")))],
  ["record_field", t(a("record_field"), 3, x, one)],
  ["native_record", t(a("native_record"), 3, t(a("m"), a("r")), [])],
  ["native_record_update", t(a("native_record_update"), 3, x, t(), [])],
  ["match", t(a("match"), 3, x, one)],
  ["maybe_match", t(a("maybe_match"), 3, x, one)],
  ["binary_op", t(a("op"), 3, a("+"), x, one)],
  ["unary_op", t(a("op"), 3, a("-"), one)],
  ["call", t(a("call"), 3, t(a("remote"), 3, t(a("atom"), 3, a("m")), t(a("atom"), 3, a("f"))), [x])],
  ["catch", t(a("catch"), 3, x)],
  ["block", t(a("block"), 3, [x, one])],
  ["if", t(a("if"), 3, [clause])],
  ["case", t(a("case"), 3, x, [clause])],
  ["try", t(a("try"), 3, [x], [clause], [clause], [one])],
  ["receive", t(a("receive"), 3, [clause])],
  ["receive_after", t(a("receive"), 3, [clause], one, [x])],
  ["maybe", t(a("maybe"), 3, [x])],
  ["maybe_else", t(a("maybe"), 3, [x], t(a("else"), 3, [clause]))],
  ["fun", t(a("fun"), 3, t(a("clauses"), [clause]))],
  ["named_fun", t(a("named_fun"), 3, a("F"), [clause])],
  ["fun_local", t(a("fun"), 3, t(a("function"), a("f"), 1))],
  ["fun_remote", t(a("fun"), 3, t(a("function"), x, x, one))],
  ["fun_remote", t(a("fun"), 3, t(a("function"), a("m"), a("f"), 1))],
  ["lc", t(a("lc"), 3, x, [generator("generate"), x])],
  ["lc", t(a("lc"), 3, [x, one], [generator("generate_strict")])],
  ["bc", t(a("bc"), 3, x, [generator("b_generate"), generator("b_generate_strict")])],
  [
    "mc",
    t(a("mc"), 3, t(a("map_field_assoc"), 3, x, x), [
      generator("m_generate"),
      generator("m_generate_strict"),
    ]),
  ],
  ["lc", t(a("lc"), 3, x, [t(a("zip"), 3, [generator("generate"), generator("b_generate")])])],
  ["type", t(a("type"), 3, a("fun"), [t(a("type"), 3, a("any")), x])],
  ["type", t(a("type"), 3, a("tuple"), a("any"))],
  ["type", t(a("type"), 3, a("constraint"), [t(a("atom"), 3, a("is_subtype")), [x, x]])],
  ["user_type", t(a("user_type"), 3, a("t"), [x])],
  ["remote_type", t(a("remote_type"), 3, [t(a("atom"), 3, a("m")), t(a("atom"), 3, a("t")), [x]])],
  ["ann_type", t(a("ann_type"), 3, [x, t(a("type"), 3, a("term"), [])])],
];

const field = t(a("record_field"), 3, t(a("atom"), 3, a("f")));
const FORMS: readonly (readonly [string, Term])[] = [
  ["function", t(a("function"), 3, a("f"), 1, [clause])],
  ["attribute", t(a("attribute"), 3, a("module"), a("m"))],
  ["attribute", t(a("attribute"), 3, a("import_record"), t(a("m"), [a("r")]))],
  ["spec", t(a("attribute"), 3, a("spec"), t(t(a("f"), 1), [t(a("type"), 3, a("fun"), [])]))],
  ["spec", t(a("attribute"), 3, a("callback"), t(t(a("m"), a("f"), 1), []))],
  ...["type", "opaque", "nominal"].map(
    (name) => ["type_declaration", t(a("attribute"), 3, a(name), t(a("t"), x, [x]))] as const,
  ),
  [
    "record_declaration",
    t(a("attribute"), 3, a("record"), t(a("r"), [field, t(a("typed_record_field"), field, x)])),
  ],
  [
    "record_declaration",
    t(a("attribute"), 3, a("native_record"), t(a("r"), [t(a("record_field"), 3, x, one)])),
  ],
  ["eof", t(a("eof"), 9)],
  ["marker", t(a("error"), t(3, a("epp"), a("bad")))],
];

describe("round trip", () => {
  test.each(EXPRESSIONS)("expression %s", (type, term) => {
    const node = exprFromTerm(term);
    expect(node.type).toBe(type);
    expect(equals(exprToTerm(node), term)).toBe(true);
  });

  test.each(FORMS)("form %s", (type, term) => {
    const node = formFromTerm(term);
    expect(node.type).toBe(type);
    expect(equals(formToTerm(node), term)).toBe(true);
  });

  test("lists nest as deep as they are long", () => {
    let list: Term = t(a("nil"), 1);
    for (let i = 0; i < 200_000; i++) list = t(a("cons"), 1, one, list);
    expect(equals(exprToTerm(exprFromTerm(list)), list)).toBe(true);
  });
});

describe("refusal", () => {
  test.each<readonly [string, Term]>([
    ["an unknown tag", t(a("select"), 7, x)],
    ["a known tag of another size", t(a("tuple"), 7, [], [])],
    ["no tuple", a("atom")],
    ["something unknown deep within", t(a("tuple"), 7, [t(a("catch"), 7, t(a("hyper"), 7, 1))])],
    ["an annotation that is none", t(a("nil"), a("here"))],
    ["a fun of another kind", t(a("fun"), 7, t(a("lambda"), 1))],
  ])("%s", (_, term) => {
    expect(() => exprFromTerm(term)).toThrow(expect.objectContaining({ code: "BT_UNKNOWN_FORM" }));
  });

  test("names the line", () => {
    expect(() => exprFromTerm(t(a("block"), 3, [t(a("hyper"), t(41, 5), 1)]))).toThrow(
      /line 41.*\{hyper,\{41,5\},1\}/,
    );
    expect(() => formFromTerm(t(a("module"), 1, a("m")))).toThrow(/is no form/);
  });
});

describe("annotations", () => {
  test("as a line, with a column, as a list", () => {
    const list = [t(a("location"), t(4, 2)), t(a("file"), [97]), t(a("generated"), a("true"))];
    expect([lineOf(7), lineOf(t(7, 3)), lineOf(list), lineOf([])]).toEqual([7, 7, 4, 0]);
    expect([columnOf(7), columnOf(t(7, 3)), columnOf(list)]).toEqual([undefined, 3, 2]);
    expect([fileOf(7), fileOf(list)]).toEqual([undefined, "a"]);
    expect([isGenerated(7), isGenerated(list)]).toEqual([false, true]);
    for (const anno of [7, t(7, 3), [t(a("location"), 7)]]) {
      const marked = generatedAnno(anno);
      expect([isGenerated(marked), lineOf(marked), columnOf(marked)]).toEqual([true, 7, columnOf(anno)]);
      expect(generatedAnno(marked)).toBe(marked);
    }
  });

  test("builders put all they make at one place", () => {
    const b = builderAt(5);
    const node = b.case(b.variable("X"), [
      b.clause([b.atom("a")], [b.remoteCall("m", "f", [b.list([b.integer(1)])])]),
    ]);
    expect(equals(exprToTerm(exprFromTerm(exprToTerm(node))), exprToTerm(node))).toBe(true);
  });
});
