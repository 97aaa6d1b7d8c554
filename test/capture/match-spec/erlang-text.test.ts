import { afterAll, beforeAll, expect, test } from "vitest";
import {
  checkMatchSpecOnNode,
  any,
  mapOf,
  matchSpec,
  type MatchSpec,
  MatchSpecError,
  matchSpecFromErlang,
  tupleOf,
  v,
} from "../../../src/capture/match-spec";
import { atom, BeamtraceError } from "../../../src/erlang";
import { eventually, PROCESSES, processesAdded } from "../../support/erl-node";
import { type SpecNode, startSpecNode } from "./node";
import { show } from "./show";

let on: SpecNode;
beforeAll(async () => {
  on = await startSpecNode();
});
afterAll(() => on.node.stop());

const FUNS = [
  "fun(_) -> ok end",
  "fun([A, B]) when A > 5 -> return_trace() end",
  "fun([A, {ok, B, _}] = All) when is_atom(A), B =:= foo -> message({A, B, All}) end",
  "fun(Args) when length(Args) > 2; hd(Args) == x -> message(caller()) end",
  "fun([#{id := Id}]) when Id rem 2 =:= 0 -> exception_trace(), message(Id) end",
  `fun([{A, A}, "text", $c, 1.5, -3, <<"bin">>, 'Odd atom']) -> true end`,
  "fun([A]) when (A > 1 andalso A < 10) orelse not is_integer(A) -> message([A | tail]) end",
  "fun([A]) when is_map_key(k, A), map_get(k, A) == [] -> message(#{a => A}) end",
  "fun([A]) -> set_seq_token(label, A), silent(true), enable_trace(send), trace([send], [call]), message(get_tcw()) end",
  "fun([A]) -> message(self()), message(node(A)), message('$x'), message(process_dump()) end",
  "fun([A]) when element(1, A) == a, size(A) > 1, A band 1 == 0 -> message('$*'); ([A, B]) -> message(object()) end",
  "fun([]) -> true end",
];

test("the text of a fun becomes what dbg:fun2ms makes of the same fun in the node's shell", async () => {
  for (const fun of FUNS) {
    const ours = await matchSpecFromErlang(fun, on.evaluate);
    const theirs = await on.term(`dbg:fun2ms(${fun})`);
    expect(show(ours.toTerm()), fun).toBe(show(theirs));
    await checkMatchSpecOnNode(ours.toTerm(), on.evaluate);
  }
});

test("bindings() is the values of the variables, which ms_transform gets wrong", async () => {
  const spec = (
    await matchSpecFromErlang("fun([A, B]) -> message({bindings(), '$*'}) end", on.evaluate)
  ).toTerm();
  expect(show(spec)).toBe("[{['$1','$2'],[],[{message,{{'$$',{const,'$*'}}}}]}]");
  expect(show(await on.test([1, 2], spec))).toBe("{ok,{[1,2],'$*'},[],[]}");
});

test("the rest of the arguments by | _ is for OTP 29", async () => {
  const text = "fun([A | _]) -> message(A) end";
  expect(show((await matchSpecFromErlang(text, on.evaluate)).toTerm())).toBe(
    "[{['$1'|'_'],[],[{message,'$1'}]}]",
  );
  await expect(matchSpecFromErlang(text, on.evaluate, { otp: 27 })).rejects.toThrow(
    "needs OTP 29, the node has 27",
  );
  await matchSpecFromErlang(text, on.evaluate, { otp: 29 });
});

test("a dot, comments and line breaks do not matter", async () => {
  const plain = await matchSpecFromErlang("fun([A]) -> message(A) end", on.evaluate);
  for (const text of ["fun([A]) -> message(A) end.", "fun([A]) -> % the only one\n  message(A)\nend\n% done"])
    expect(show((await matchSpecFromErlang(text, on.evaluate)).toTerm())).toBe(show(plain.toTerm()));
});

test("text and builder give the same specification", async () => {
  const pairs: readonly [string, MatchSpec][] = [
    [
      "fun([Cart, N]) when is_integer(N), N > 5 -> message({Cart, caller()}), return_trace() end",
      matchSpec
        .call([v("cart"), v("n")])
        .when(({ n }, g) => [g.isInteger(n), g.gt(n, 5)])
        .do(({ cart }, act) => [act.message(tupleOf(cart, act.caller())), act.returnTrace()]),
    ],
    [
      "fun([get, K]) when is_binary(K) -> message(K); ([put, _, #{v := V}]) -> message([V]); (_) -> message(false) end",
      matchSpec
        .call([atom("get"), v("k")])
        .when(({ k }, g) => g.isBinary(k))
        .do(({ k }, act) => act.message(k))
        .clause([atom("put"), any, mapOf({ v: v("v") })])
        .do((variables, act) => act.message([variables.v]))
        .clause(any)
        .do((_variables, act) => act.message(false)),
    ],
    [
      "fun([A]) when A =:= x orelse A =:= {y} -> message({'$x', [{A}]}) end",
      matchSpec
        .call([v("a")])
        .when(({ a }, g) => g.oneOf(a, [atom("x"), tupleOf(atom("y"))]))
        .do(({ a }, act) => act.message(tupleOf(atom("$x"), [tupleOf(a)]))),
    ],
  ];
  for (const [text, built] of pairs)
    expect(show((await matchSpecFromErlang(text, on.evaluate)).toTerm())).toBe(show(built.toTerm()));
});

test("specifications for send and receive are checked against their event", async () => {
  const send = await matchSpecFromErlang(
    "fun([To, {msg, X}]) when is_pid(To) -> message(X) end",
    on.evaluate,
    {
      target: "send",
    },
  );
  expect(send.target).toBe("send");
  expect(await on.takes("send", send.toTerm())).toBe(true);
  await expect(
    matchSpecFromErlang("fun([_, _]) -> message(caller()) end", on.evaluate, { target: "send" }),
  ).rejects.toThrow("caller can't be used in a match specification for send");
  await expect(
    matchSpecFromErlang("fun([_, _]) -> true end", on.evaluate, { target: "receive" }),
  ).rejects.toThrow("[Node, Sender, Message]");
  await expect(matchSpecFromErlang("fun([_, _]) -> true end", on.evaluate, { arity: 3 })).rejects.toThrow(
    "the head has 2 arguments, the function has 3",
  );
});

test("what the node refuses is a typed error with its own words and the position", async () => {
  const mistakes: readonly [string, string, number?, number?][] = [
    ["fun([A]) -> 'open end", "unterminated", 1],
    ["fun([A]) ->\n  message( end", "syntax error before", 2, 12],
    ["fun([A]) -> message(B) end", "the variable B is unbound", 1, 21],
    ["fun([A]) ->\n  foo(A)\nend", "local function call 'foo/1'", 2, 3],
    ["fun([A]) when lists:member(A, [1]) -> ok end", "remote function call 'lists:member/2'", 1],
    ["fun([A]) -> B = A end", "illegal as match_spec", 1],
    ["fun([<<A, _/binary>>]) -> ok end", "bit syntax", 1],
    ["fun(A, B) -> ok end", "dbg:fun2ms requires fun with single variable or list parameter", 1],
    ["fun([#rec{a = 1}]) -> ok end", "unknown record type rec", 1],
    ["fun(['$1']) -> ok end", "reserved", 1],
    ["fun lists:seq/2", "must be a fun with its clauses", 1],
    ["fun() -> ok end", "dbg:fun2ms requires fun", 1],
    ["{a, b}", "must be a fun with its clauses", 1],
    ["fun([A]) -> ok end, other", "something follows it", 1, 21],
    ["   ", "the text is empty"],
    [`fun([A]) -> ${"a".repeat(20_000)} end`, "at most 16384 are sent to a node"],
  ];
  for (const [text, message, line, column] of mistakes) {
    const error = await matchSpecFromErlang(text, on.evaluate).then(
      () => undefined,
      (e: unknown) => e,
    );
    expect(error, text).toBeInstanceOf(MatchSpecError);
    expect((error as MatchSpecError).code).toBe("BT_MATCH_SPEC_INVALID");
    expect((error as MatchSpecError).message).toContain(message);
    expect((error as MatchSpecError).position?.line, text).toBe(line);
    if (column !== undefined) expect((error as MatchSpecError).position?.column, text).toBe(column);
  }
});

test("nothing of the text is run, whatever it says", async () => {
  const before = await on.node.eval(PROCESSES);
  for (const text of [
    "(fun() -> put(x, 1), persistent_term:put(beamtrace_ran, true) end)()",
    "fun([A]) -> persistent_term:put(beamtrace_ran, true) end",
    "persistent_term:put(beamtrace_ran, true)",
    "fun([A]) when 1 + (2 + 3) > persistent_term:put(beamtrace_ran, true) -> ok end",
  ])
    await expect(matchSpecFromErlang(text, on.evaluate)).rejects.toBeInstanceOf(MatchSpecError);
  expect(await on.node.eval("persistent_term:get(beamtrace_ran, no)")).toBe("no");
  await eventually(
    async () => processesAdded(await on.node.eval(PROCESSES), before),
    (added) => added.length === 0,
  );
});

test("an error of the connection is passed on as it is", async () => {
  const lost = new BeamtraceError("BT_CONNECTION_LOST", "gone");
  await expect(matchSpecFromErlang("fun(_) -> ok end", () => Promise.reject(lost))).rejects.toBe(lost);
});
