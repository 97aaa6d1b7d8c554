import { expect, expectTypeOf, test } from "vitest";
import {
  any,
  constant,
  type MatchExpression,
  listOf,
  mapOf,
  matchSpec,
  MatchSpecError,
  type MatchPattern,
  rest,
  tupleOf,
  v,
  type MatchVariable,
} from "../../../src/capture/match-spec";
import { atom, BeamtraceError, binary, charlist, float, map, tuple } from "../../../src/erlang";
import { show } from "./show";

test("variables are numbered in the order of the head, and one name is one variable", () => {
  const spec = matchSpec.call([v("b"), any, tupleOf(v("a"), v("b"))]);
  expect(show(spec.toTerm())).toBe("[{['$1','_',{'$2','$1'}],[],[]}]");
});

test("guards and actions see the variables of the head by name", () => {
  const spec = matchSpec
    .call([v("cart"), v("count")])
    .when(({ count }, g) => [g.isInteger(count), g.gt(count, 5)])
    .do(({ cart }, act) => [act.message(tupleOf(cart, act.caller())), act.returnTrace()]);
  expect(show(spec.toTerm({ arity: 2, otp: 25 }))).toBe(
    "[{['$1','$2'],[{is_integer,'$2'},{'>','$2',5}],[{message,{{'$1',{caller}}}},{return_trace}]}]",
  );
});

test("each step makes a new specification and leaves the old one as it was", () => {
  const bare = matchSpec.call([v("a")]);
  const guarded = bare.when(({ a }, g) => g.isAtom(a));
  guarded.do((_variables, act) => act.returnTrace());
  bare.clause(any);
  bare.sample(7);
  expect(show(bare.toTerm())).toBe("[{['$1'],[],[]}]");
  expect(show(guarded.toTerm())).toBe("[{['$1'],[{is_atom,'$1'}],[]}]");
});

test("several when are one conjunction, several do one body", () => {
  const spec = matchSpec
    .call(v("args"))
    .when(({ args }, g) => g.gt(g.length(args), 1))
    .when(({ args }, g) => g.isAtom(g.hd(args)))
    .do((_variables, act) => act.returnTrace())
    .do((_variables, act) => act.message(act.callerLine()));
  expect(show(spec.toTerm())).toBe(
    "[{'$1',[{'>',{length,'$1'},1},{is_atom,{hd,'$1'}}],[{return_trace},{message,{caller_line}}]}]",
  );
});

test("each clause has its own variables", () => {
  const spec = matchSpec
    .call([atom("get"), v("key")])
    .when(({ key }, g) => g.isBinary(key))
    .clause([atom("put"), any, v("value")])
    .when(({ value }, g) => g.ne(value, 0));
  expect(show(spec.toTerm())).toBe(
    "[{[get,'$1'],[{is_binary,'$1'}],[]},{[put,'_','$1'],[{'/=','$1',0}],[]}]",
  );
  expect(() =>
    matchSpec
      .call([v("a")])
      .clause([v("b")])
      // @ts-expect-error `a` belongs to the clause before
      .when(({ a }, g) => g.isAtom(a)),
  ).toThrow("variable a is not bound in the head (it binds b)");
});

test("heads take literals, lists with a tail, maps, and the rest of the arguments", () => {
  const spec = matchSpec.call([
    [1, v("x")],
    listOf([atom("h")], v("tail")),
    mapOf({ id: v("id"), kind: atom("a") }),
    mapOf([[binary("k"), any]]),
    map({ a: 1 }),
    binary("text"),
    float(1),
    rest,
  ]);
  expect(show(spec.toTerm({ otp: 29 }))).toBe(
    `[{[[1,'$1'],[h|'$2'],#{id => '$3',kind => a},#{<<"k">> => '_'},#{a => 1},<<"text">>,1.0|'_'],[],[]}]`,
  );
  expect(() => spec.toTerm({ otp: 28 })).toThrow("needs OTP 29, the node has 28");
  expect(show(matchSpec.call([rest]).toTerm({ otp: 25 }))).toBe("[{'_',[],[]}]");
});

test("atoms that a head would take for a pattern are compared in a guard", () => {
  const spec = matchSpec
    .call([atom("_"), v("x"), tuple(atom("$1"), atom("$x"))])
    .when(({ x }, g) => g.isAtom(x));
  expect(show(spec.toTerm())).toBe(
    "[{['$1','$2',{'$3','$x'}],[{'=:=','$1',{const,'_'}},{'=:=','$3',{const,'$1'}},{is_atom,'$2'}],[]}]",
  );
  expect(() => matchSpec.call([map([[atom("_"), 1]])])).toThrow("a key of a map in a head");
});

test("literals in guards and bodies are escaped where they would be taken for calls or variables", () => {
  const spec = matchSpec
    .call([v("x")])
    .do(({ x }, act) => [
      act.message([
        tuple(atom("self")),
        atom("$1"),
        atom("_"),
        atom("self"),
        charlist("ab"),
        binary("b"),
        float(2.5),
        map({ k: tuple(1) }),
        [tuple(1)],
        tupleOf(x, 1, tupleOf()),
        mapOf({ x }),
        listOf([1], x),
      ]),
    ]);
  expect(show(spec.toTerm())).toBe(
    "[{['$1'],[],[{message,[{const,{self}},{const,'$1'},'_',self,[97,98],<<\"b\">>,2.5,{const,#{k => {1}}},[{const,{1}}]," +
      "{{'$1',1,{{}}}},#{x => '$1'},[1|'$1']]}]}]",
  );
});

test("sends match [Receiver, Message], receives [Node, Sender, Message]", () => {
  const send = matchSpec
    .send([v("to"), tupleOf(atom("$gen_call"), any, v("request"))])
    .when(({ to }, g) => g.andalso(g.isPid(to), g.not(g.isSeqTrace())))
    .do(({ request }, act) => act.message(request));
  expect(show(send.toTerm())).toBe(
    "[{['$1',{'$gen_call','_','$2'}],[{'andalso',{is_pid,'$1'},{'not',{is_seq_trace}}}],[{message,'$2'}]}]",
  );
  const receive = matchSpec
    .receive([v("node"), any, any])
    .when(({ node }, g) => g.strictNe(node, g.node()))
    .do((_variables, act) => act.message(true));
  expect(show(receive.toTerm())).toBe("[{['$1','_','_'],[{'=/=','$1',{node}}],[{message,true}]}]");
});

test("what an event does not allow does not exist in its types, and is refused where types are got around", () => {
  // @ts-expect-error no caller in send
  expect(() => matchSpec.send(any).do((_v, act) => act.message(act.caller()))).toThrow(TypeError);
  // @ts-expect-error no silent in receive
  expect(() => matchSpec.receive(any).do((_v, act) => act.silent(true))).toThrow(TypeError);
  // @ts-expect-error no is_seq_trace in receive
  expect(() => matchSpec.receive(any).when((_v, g) => g.isSeqTrace())).toThrow(TypeError);
  // @ts-expect-error a send has two parts
  expect(() => matchSpec.send([any, any, any])).toThrow("[Receiver, Message]");
  // @ts-expect-error a receive has three parts
  expect(() => matchSpec.receive([any, any])).toThrow("[Node, Sender, Message]");
  let stolen: MatchExpression | undefined;
  matchSpec.call(any).do((_v, act) => (stolen = act.caller()));
  expect(() => matchSpec.send(any).do((_v, act) => act.message(stolen as MatchExpression))).toThrow(
    "caller can't be used in a match specification for send, only for call",
  );
  expect(() => matchSpec.call(any).when(() => stolen as MatchExpression)).toThrow("caller is an action");
});

test("the number of arguments is compared with the function's arity", () => {
  const spec = matchSpec.call([any, any]).clause(any).clause(v("all"));
  expect(() => spec.toTerm({ arity: 3 })).toThrow("clause 1: the head has 2 arguments, the function has 3");
  expect(spec.toTerm({ arity: 2 })).toHaveLength(3);
  expect(() => matchSpec.call([any, any, rest]).toTerm({ arity: 1 })).toThrow("the head has 2 arguments");
  expect(matchSpec.call([any, any, rest]).toTerm({ arity: 5 })).toHaveLength(1);
});

test("functions of later releases are refused for a node that doesn't have them", () => {
  const spec = matchSpec.call(v("a")).when(({ a }, g) => g.gt(g.tupleSize(g.hd(a)), 2));
  expect(() => spec.toTerm({ otp: 25 })).toThrow(
    "tuple_size/1 needs OTP 26 in match specifications, the node has 25",
  );
  expect(spec.toTerm({ otp: 26 })).toHaveLength(1);
  expect(spec.toTerm()).toHaveLength(1);
  const stack = matchSpec.call(any).do((_v, act) => act.message(act.currentStacktrace(3)));
  expect(() => stack.toTerm({ otp: 25 })).toThrow("current_stacktrace/1 needs OTP 26");
});

test("mistakes are errors with the code BT_MATCH_SPEC_INVALID that say what to do", () => {
  const mistakes: readonly [() => unknown, string][] = [
    [() => matchSpec.call([v("")]), "a variable needs a name"],
    [() => matchSpec.call("ok" as never), "the head is a list of patterns"],
    [
      () => matchSpec.call(["ok" as never]),
      'ok in a head is no term; for a name use atom("ok"), for text binary("ok")',
    ],
    [() => matchSpec.call([true as never]), 'use atom("true")'],
    [() => matchSpec.call([1.5]), "for a float use float()"],
    [() => matchSpec.call([{ a: 1 } as never]), "this object in a head is no term"],
    [() => matchSpec.call([null as never]), "is no term"],
    [() => matchSpec.call([rest, any]), "`rest` can only be the last"],
    [() => matchSpec.call([[rest as never]]), "`rest` can only be the last"],
    [
      () => matchSpec.call(any).do((_v, act) => act.message(undefined as never)),
      "is the variable bound in the head?",
    ],
    [
      () => matchSpec.call(any).do((_v, act) => act.message(v("x"))),
      "variable x is not bound in the head (it binds none)",
    ],
    [() => matchSpec.call(any).do((_v, act) => act.message(any as never)), "`any` matches in a head"],
    [() => matchSpec.call(any).when((_v, g) => g.oneOf(1, [])), "oneOf needs at least one value"],
    [() => matchSpec.call(any).when((_v, g) => g.raw(tuple(1, 2))), "neither a call nor {{…}}"],
    [() => matchSpec.call(any).when((_v, g) => g.raw(atom("$3"))), "variable $3 is not bound"],
    [() => matchSpec.call(any).when((_v, g) => g.raw(tuple(atom("hd")))), "hd takes 1 argument, not 0"],
    [
      () =>
        mapOf([
          [atom("a"), 1],
          [atom("a"), 2],
        ]),
      "the same key twice",
    ],
    [() => constant(v("x") as never as number), "a term is expected here"],
    [() => listOf([], any), "at least one element"],
    [() => matchSpec.call(any).sample(0), "sample takes an integer from 1"],
    [() => matchSpec.call(any).sample(1.5), "sample takes an integer from 1"],
  ];
  for (const [mistake, message] of mistakes) {
    let error: unknown;
    try {
      mistake();
    } catch (e) {
      error = e;
    }
    expect(error, message).toBeInstanceOf(MatchSpecError);
    expect(error).toBeInstanceOf(BeamtraceError);
    expect((error as MatchSpecError).code).toBe("BT_MATCH_SPEC_INVALID");
    expect((error as MatchSpecError).message).toContain(message);
  }
});

test("a raw specification goes through as it is", () => {
  const term = [tuple([atom("$1")], [tuple(atom("is_something_new"), atom("$1"))], [tuple(atom("silent"))])];
  expect(matchSpec.raw(term).toTerm({ arity: 4 })).toBe(term);
  expect(matchSpec.raw([], "send").target).toBe("send");
});

test("a sample makes two clauses of each: one for the N-th match, one that counts and lets go", () => {
  const spec = matchSpec
    .call([v("a")])
    .when(({ a }, g) => g.isPid(a))
    .do((_variables, act) => act.returnTrace())
    .sample(10);
  const count = "{set_tcw,{'band',{'+',{get_tcw},1},4294967295}}";
  expect(show(spec.toTerm())).toBe(
    `[{['$1'],[{is_pid,'$1'},{'=:=',{'rem',{get_tcw},10},0}],[${count},{return_trace}]},` +
      `{['$1'],[{is_pid,'$1'}],[${count},{message,false}]}]`,
  );
  expect(show(matchSpec.call(any).sample(1).toTerm())).toBe("[{'_',[],[]}]");
  expect(matchSpec.raw([]).sample(2).toTerm()).toHaveLength(2);
});

test("types: a composite is a pattern when its parts are, an expression when its parts are", () => {
  expectTypeOf(tupleOf(v("a"), 1)).toExtend<MatchPattern<"a">>();
  expectTypeOf(tupleOf(v("a"), 1)).toExtend<MatchExpression>();
  expectTypeOf(tupleOf(v("a"), any)).not.toExtend<MatchExpression>();
  expectTypeOf(tupleOf(v("a"), any)).toExtend<MatchPattern<"a">>();
  matchSpec
    .call([v("a"), [tupleOf(v("b"), mapOf({ k: v("c") })), listOf([any], v("d"))]])
    .when((variables, g) => {
      expectTypeOf(variables).toEqualTypeOf<{
        readonly a: MatchVariable<"a">;
        readonly b: MatchVariable<"b">;
        readonly c: MatchVariable<"c">;
        readonly d: MatchVariable<"d">;
      }>();
      expectTypeOf(tupleOf(variables.a, g.self())).toExtend<MatchExpression>();
      expectTypeOf(tupleOf(variables.a, g.self())).not.toExtend<MatchPattern>();
      // @ts-expect-error a wildcard is no expression
      expect(() => matchSpec.call(any).when(() => g.eq(any, 1))).toThrow("`any` matches in a head");
      return g.isAtom(variables.a);
    });
  matchSpec.call(any).do((_v, act) => {
    // @ts-expect-error a call is no pattern
    expect(() => matchSpec.call([act.caller()])).toThrow("caller can't be called in a head");
    return act.caller();
  });
});
