import { afterAll, beforeAll, expect, test } from "vitest";
import {
  any,
  checkMatchSpecOnNode,
  matchSpec,
  MatchSpecError,
  matchSpecFromElixir,
  matchSpecFromErlang,
  mapOf,
  tupleOf,
  v,
} from "../../../src/capture/match-spec";
import { atom, BeamtraceError } from "../../../src/erlang";
import { type SpecNode, startSpecNode } from "./node";
import { show } from "./show";

let on: SpecNode;
let bare: SpecNode;
beforeAll(async () => {
  [on, bare] = await Promise.all([startSpecNode({ elixir: true }), startSpecNode()]);
});
afterAll(() => Promise.all([on.node.stop(), bare.node.stop()]));

const elixir = async (text: string): Promise<string> =>
  show((await matchSpecFromElixir(text, on.evaluate)).toTerm());
const erlang = async (text: string): Promise<string> =>
  show((await matchSpecFromErlang(text, on.evaluate)).toTerm());

test("a function in Elixir and the same in Erlang give the same specification", async () => {
  const pairs: readonly [string, string][] = [
    ["fn _ -> :ok end", "fun(_) -> ok end"],
    ["fn [a, b] when a > 5 -> return_trace() end", "fun([A, B]) when A > 5 -> return_trace() end"],
    [
      "fn [a, %{id: id}] when a > 5 and is_map(id) or not is_nil(a) -> return_trace(); message({a, id, :x}) end",
      "fun([A, #{id := Id}]) when (A > 5 andalso is_map(Id)) orelse not (A =:= nil) -> return_trace(), message({A, Id, x}) end",
    ],
    [
      "fn [{:ok, x}, {a, b, _}] when x != a and x <= b and x === 1 and x !== 2 -> message([x | b]) end",
      "fun([{ok, X}, {A, B, _}]) when X /= A andalso X =< B andalso X =:= 1 andalso X =/= 2 -> message([X | B]) end",
    ],
    [
      'fn ["text", ~c"chars", 1.5, -3, ?c, :"odd atom", nil, true, [h | t]] -> message(h) end',
      `fun([<<"text">>, "chars", 1.5, -3, $c, 'odd atom', nil, true, [H | T]]) -> message(H) end`,
    ],
    [
      "fn args when length(args) > 2 when hd(args) == :x -> message(caller()) end",
      "fun(Args) when length(Args) > 2; hd(Args) == x -> message(caller()) end",
    ],
    [
      "fn\n  [a] -> message(a)\n  [_, b] -> message({b})\nend",
      "fun([A]) -> message(A); ([_, B]) -> message({B}) end",
    ],
    [
      "fn [a, _] = all when is_list(a) -> message(all) end",
      "fun([A, _] = All) when is_list(A) -> message(All) end",
    ],
    [
      "fn [a, a] -> message(object()); message(bindings()) end",
      "fun([A, A]) -> message(object()), message(bindings()) end",
    ],
    [
      "fn [Shop.Cart, %Shop.Item{sku: s}] -> message({Shop.Cart, s}) end",
      "fun(['Elixir.Shop.Cart', #{'__struct__' := 'Elixir.Shop.Item', sku := S}]) -> message({'Elixir.Shop.Cart', S}) end",
    ],
    [
      "fn [t] when elem(t, 0) == :a and rem(elem(t, 1), 2) == 0 -> message(%{t: t}) end",
      "fun([T]) when element(1, T) == a andalso element(2, T) rem 2 == 0 -> message(#{t => T}) end",
    ],
    [
      "fn [m] when is_map_key(m, :k) and :erlang.map_get(:k, m) == [] and map_size(m) < 3 -> :ok end",
      "fun([M]) when is_map_key(k, M) andalso map_get(k, M) == [] andalso map_size(M) < 3 -> ok end",
    ],
    [
      "fn [a] when a in [1, :b] and -a < 0 and div(a, 2) + 1 * 3 / 4 - 1 > 0 -> :ok end",
      "fun([A]) when (A =:= 1 orelse A =:= b) andalso -A < 0 andalso A div 2 + 1 * 3 / 4 - 1 > 0 -> ok end",
    ],
    [
      "fn [a] -> set_seq_token(:label, a); silent(true); enable_trace(:send); trace([:send], [:call]); message(get_tcw()) end",
      "fun([A]) -> set_seq_token(label, A), silent(true), enable_trace(send), trace([send], [call]), message(get_tcw()) end",
    ],
    [
      "fn [a] when node(a) == node() and self() == a and byte_size(a) == binary_part(a, 0, 1) -> message(false) end",
      "fun([A]) when node(A) == node() andalso self() == A andalso byte_size(A) == binary_part(A, 0, 1) -> message(false) end",
    ],
  ];
  for (const [inElixir, inErlang] of pairs) {
    // The Erlang tools work out constant operations; so does no one here.
    const expected = (await erlang(inErlang)).replace(
      "{'-',{'+',{'div','$1',2},0.75},1}",
      "{'-',{'+',{'div','$1',2},{'/',{'*',1,3},4}},1}",
    );
    expect(await elixir(inElixir), inElixir).toBe(expected);
    await checkMatchSpecOnNode((await matchSpecFromElixir(inElixir, on.evaluate)).toTerm(), on.evaluate);
  }
});

test("Elixir, Erlang and the builder say the same in three ways", async () => {
  const built = matchSpec
    .call([v("cart"), mapOf({ id: v("id") }), any])
    .when(({ id }, g) => g.andalso(g.isInteger(id), g.gt(id, 5)))
    .do(({ cart, id }, act) => [act.message(tupleOf(cart, id, atom("ok"))), act.exceptionTrace()]);
  const text = show(built.toTerm());
  expect(
    await elixir(
      "fn [cart, %{id: id}, _] when is_integer(id) and id > 5 -> message({cart, id, :ok}); exception_trace() end",
    ),
  ).toBe(text);
  expect(
    await erlang(
      "fun([C, #{id := Id}, _]) when is_integer(Id) andalso Id > 5 -> message({C, Id, ok}), exception_trace() end",
    ),
  ).toBe(text);
});

test("what only Elixir has: fields, ranges, structs, bit operators, sigils, joined texts", async () => {
  expect(await elixir("fn [order] when order.total.amount > 100 -> message(order.id) end")).toBe(
    "[{['$1'],[{'>',{map_get,amount,{map_get,total,'$1'}},100}],[{message,{map_get,id,'$1'}}]}]",
  );
  expect(await elixir("fn [a] when a in 5..1 -> nil end")).toBe(
    "[{['$1'],[{'andalso',{is_integer,'$1'},{'>=','$1',1},{'=<','$1',5}}],[]}]",
  );
  expect(await elixir("fn [a] when a not in ~w(x y)a -> nil end")).toBe(
    "[{['$1'],[{'not',{'orelse',{'=:=','$1',x},{'=:=','$1',y}}}],[]}]",
  );
  expect(await elixir("fn [s] when is_struct(s, Shop.Cart) -> nil end")).toBe(
    "[{['$1'],[{'andalso',{'andalso',{is_map,'$1'},{is_map_key,'__struct__','$1'},{is_atom,{map_get,'__struct__','$1'}}}," +
      "{'=:=',{map_get,'__struct__','$1'},'Elixir.Shop.Cart'}}],[]}]",
  );
  expect(await elixir('fn [a, "x" <> "y"] when Bitwise.band(a, 3) == 1 and (a ||| 1) == a -> nil end')).toBe(
    `[{['$1',<<"xy">>],[{'andalso',{'==',{'band','$1',3},1},{'==',{'bor','$1',1},'$1'}}],[]}]`,
  );
  expect(await elixir("fn [a] -> message(caller_line()); message(current_stacktrace(2)) end")).toBe(
    "[{['$1'],[],[{message,{caller_line}},{message,{current_stacktrace,2}}]}]",
  );
  expect(await elixir('fn [:_, :"$1", :"$x"] -> message(:"$1") end')).toBe(
    "[{['$1','$2','$x'],[{'=:=','$1',{const,'_'}},{'=:=','$2',{const,'$1'}}],[{message,{const,'$1'}}]}]",
  );
  expect(await elixir('fn [%{"k" => v, 1 => 2}] -> message(%{"v" => v}) end')).toBe(
    `[{[#{<<"k">> => '$1',1 => 2}],[],[{message,#{<<"v">> => '$1'}}]}]`,
  );
  expect(await elixir("fn [] -> end")).toBe("[{[],[],[]}]");
});

test("mistakes are typed errors that say where and what instead", async () => {
  const mistakes: readonly [string, string, number?, number?][] = [
    ["fn [a] -> message(b) end", "variable b is not bound in the head", 1, 19],
    ["fn [a] when a == self -> :ok end", "for the function write self()", 1, 18],
    ["fn [a] ->\n  foo(a)\nend", "foo/1 can't be part of a match specification", 2, 3],
    ["fn [a] when a && true -> :ok end", "use and", 1],
    ["fn [a] when !a -> :ok end", "use not", 1],
    ["fn [a] when Enum.member?([1], a) -> :ok end", "Enum.member?/2 can't be part", 1],
    ["fn [a] when :lists.member(a, [1]) -> :ok end", ":lists.member/2 can't be part", 1],
    ["fn [a] when a[:k] == 1 -> :ok end", "use value.key", 1],
    ["fn [a] when a.k() == 1 -> :ok end", ".k() on a value", 1],
    ["fn [a] when element(1, a) == 1 -> :ok end", "use elem/2", 1],
    ["fn [^a] -> :ok end", "nothing outside to pin", 1],
    ["fn [{:ok, b} = a] -> :ok end", "only the whole list of arguments", 1],
    ['fn ["pre" <> rest] -> :ok end', "compare binary_part/3 in a guard", 1],
    ["fn [<<a, _::binary>>] -> :ok end", "segments", 1],
    ['fn [a] -> message("x#{a}") end', "interpolation", 1],
    ["fn [%{a => 1}] -> :ok end", "a key of a map must be a simple literal", 1],
    ["fn a, b -> :ok end", "takes one parameter: the list of arguments", 1],
    ["fn -> :ok end", "takes one parameter: the list of arguments", 1],
    ["fn {:ok, a} -> :ok end", "the parameter must be the list of arguments"],
    ["fn [a] -> b = a end", "patterns stand in the head only", 1],
    ["fn [a] -> a |> message() end", "write the call out", 1],
    ["fn [a] -> if a, do: 1 end", "write a clause for each case", 1],
    ["fn [a] -> hd(a, a) end", "match specifications have no hd/2", 1],
    ["&(&1)", "the text must be a function", 1],
    ["fn [a] ->", "missing terminator", 1],
    ["fn [a] -> message(a)) end", "unexpected token: )", 1],
    ["fn [a] -> 1 + end", "syntax error before:", 1],
    [":ok", "the text must be a function"],
    ["", "the text is empty"],
    ["fn [a] -> ~r/x/ end", "the sigil ~r", 1],
    ["fn [a, a: 1] -> a.() end", "calling a value", 1],
  ];
  for (const [text, message, line, column] of mistakes) {
    const error = await matchSpecFromElixir(text, on.evaluate).then(
      () => undefined,
      (e: unknown) => e,
    );
    expect(error, text).toBeInstanceOf(MatchSpecError);
    expect((error as MatchSpecError).message, text).toContain(message);
    expect((error as MatchSpecError).position?.line, text).toBe(line);
    if (column !== undefined) expect((error as MatchSpecError).position?.column, text).toBe(column);
  }
});

test("the event, the arity and the release are checked as for built specifications", async () => {
  await expect(
    matchSpecFromElixir("fn [_, _] -> message(caller()) end", on.evaluate, { target: "send" }),
  ).rejects.toThrow("caller can't be used in a match specification for send");
  await expect(matchSpecFromElixir("fn [_] -> nil end", on.evaluate, { arity: 2 })).rejects.toThrow(
    "1 argument",
  );
  await expect(
    matchSpecFromElixir("fn [t] when tuple_size(t) > 2 -> nil end", on.evaluate, { otp: 25 }),
  ).rejects.toThrow("tuple_size/1 needs OTP 26");
  const receive = await matchSpecFromElixir("fn [_node, _from, {:hello, x}] -> message(x) end", on.evaluate, {
    target: "receive",
  });
  expect(await on.takes("receive", receive.toTerm())).toBe(true);
});

test("the node's atom table grows by nothing that the text names", async () => {
  const unique = (i: number): string => `zq${process.pid}_${i}`;
  const text = (i: number): string =>
    `fn [${unique(i)}, %{k${unique(i)}: _other${unique(i)}}] when ${unique(i)} == :v${unique(i)} -> message(Zq.M${unique(i)}) end`;
  await matchSpecFromElixir(text(0), on.evaluate);
  const before = Number(await on.node.eval("erlang:system_info(atom_count)"));
  for (let i = 1; i <= 20; i += 1) await matchSpecFromElixir(text(i), on.evaluate);
  expect(Number(await on.node.eval("erlang:system_info(atom_count)"))).toBe(before);
});

test("nothing of the text is run, and nothing is printed on the node", async () => {
  for (const text of [
    ":persistent_term.put(:beamtrace_ran, true)",
    "fn [a] -> :persistent_term.put(:beamtrace_ran, true) end",
    'fn [a] -> message("#{:persistent_term.put(:beamtrace_ran, true)}") end',
    "~X(a)",
  ])
    await expect(matchSpecFromElixir(text, on.evaluate)).rejects.toBeInstanceOf(MatchSpecError);
  await matchSpecFromElixir("fn ['old charlist'] -> nil end", on.evaluate);
  expect(await on.node.eval("persistent_term:get(beamtrace_ran, no)")).toBe("no");
  expect(on.node.output()).toBe("");
});

test("a node without Elixir is told apart", async () => {
  const error = await matchSpecFromElixir("fn _ -> nil end", bare.evaluate).then(
    () => undefined,
    (e: unknown) => e,
  );
  expect(error).toBeInstanceOf(BeamtraceError);
  expect((error as BeamtraceError).code).toBe("BT_NO_CODE");
  expect((error as BeamtraceError).message).toContain("the node has no Elixir");
});
