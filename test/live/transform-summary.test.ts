/** Summaries of callbacks, by the runtime itself: what it says of two states is true, and takes bounded work, whatever the states. */
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, expect, test } from "vitest";

import { type ErlNode, startNode } from "../support/erl-node";
import { compileErlang, compileText, load } from "../support/transform";

const RUNTIME = fileURLToPath(new URL("../../beam/runtime/src/beamtrace_rt.erl", import.meta.url));

let node: ErlNode;

beforeAll(async () => {
  node = await startNode({ distributed: false });
  // The same source, with all of its functions to be called.
  const beam = await compileErlang(
    node,
    RUNTIME,
    "{d, 'ON'}, {d, 'PORTABLE'}, export_all, nowarn_export_all",
  );
  await load(node, "beamtrace_rt", beam);
});
afterAll(() => node.stop());

/** Random terms, and others that differ from them in a place or not at all, as copies of their own. */
const TERMS = `
  Copy = fun(T) -> binary_to_term(term_to_binary(T)) end,
  Small = fun() -> lists:nth(rand:uniform(9), [a, b, 1, 2, 1.0, <<"x">>, [], 1 bsl 70, {}]) end,
  Term = fun
    T(0) -> Small();
    T(D) ->
      case rand:uniform(6) of
        1 -> list_to_tuple([T(D - 1) || _ <- lists:seq(1, rand:uniform(4))]);
        2 -> [T(D - 1) || _ <- lists:seq(1, rand:uniform(5))];
        3 -> maps:from_list([{T(0), T(D - 1)} || _ <- lists:seq(1, rand:uniform(5))]);
        4 -> maps:from_list([{I, T(0)} || I <- lists:seq(1, rand:uniform(50))]);
        5 -> [T(D - 1) | Small()];
        6 -> Small()
      end
  end,
  Other = fun O(T) ->
    case rand:uniform(3) of
      1 -> Copy(T);
      2 when is_tuple(T), tuple_size(T) > 0 -> I = rand:uniform(tuple_size(T)), setelement(I, T, O(element(I, T)));
      2 when is_list(T), T =/= [] -> [O(hd(T)) | tl(T)];
      2 when is_map(T), map_size(T) > 0 -> [K | _] = maps:keys(T), T#{K := O(maps:get(K, T))};
      _ -> Term(2)
    end
  end,`;

test("terms that are said to be equal are, and so are those that are said to differ", async () => {
  const counts = await node.eval(`${TERMS}
    Judge = fun(A, B) -> case beamtrace_rt:equal(A, B, 32) of N when is_integer(N) -> equal; Said -> Said end end,
    Said = [begin A = Term(3), B = Other(A), {Judge(A, B), A =:= B} end || _ <- lists:seq(1, 20000)],
    [length([x || S <- Said, S =:= Which]) || Which <- [{equal, true}, {different, false}, {unknown, true}, {unknown, false}, {equal, false}, {different, true}]]`);
  const [equal, different, unknownEqual, unknownDifferent, wrong, alsoWrong] = JSON.parse(counts) as number[];
  expect([wrong, alsoWrong]).toEqual([0, 0]);
  for (const common of [equal, different, unknownEqual, unknownDifferent]) expect(common).toBeGreaterThan(50);
});

test("the keys that are said to have changed are those that have, where all were looked at", async () => {
  const counts = await node.eval(`${TERMS}
    Map = fun() -> maps:from_list([{K, Term(1)} || K <- [a, b, c, 1, 2, <<"k">>], rand:uniform(3) > 1]) end,
    Checked = [begin
      Old = Map(),
      New = maps:merge(maps:without([a || rand:uniform(3) =:= 1], maps:map(fun(_, V) -> case rand:uniform(2) of 1 -> V; 2 -> Other(V) end end, Old)), case rand:uniform(3) of 1 -> Map(); _ -> #{} end),
      {Ds, Rs, true} = beamtrace_rt:changes({it, Old}, {it, New}),
      True = [K || K <- maps:keys(maps:merge(Old, New)), maps:find(K, Old) =/= maps:find(K, New)],
      %% Nothing is missing, nothing too much; what was not compared may be either.
      {True -- (Ds ++ Rs), Ds -- True, length(Ds)}
    end || _ <- lists:seq(1, 5000)],
    [length([x || {[_ | _], _, _} <- Checked]), length([x || {_, [_ | _], _} <- Checked]), lists:sum([N || {_, _, N} <- Checked])]`);
  const [missing, tooMuch, found] = JSON.parse(counts) as number[];
  expect([missing, tooMuch]).toEqual([0, 0]);
  expect(found).toBeGreaterThan(1_000);
});

/** Terms are taken from where nobody copies them, and each summary is made in a process of its own, so that no collection is counted. */
const WORK = `-module(work).
-export([all/0]).
all() ->
    Copy = fun(T) -> binary_to_term(term_to_binary(T)) end,
    Million = maps:from_list([{I, I} || I <- lists:seq(1, 1000000)]),
    Long = lists:seq(1, 1000000),
    Deep = lists:foldl(fun(_, T) -> {T} end, leaf, lists:seq(1, 100000)),
    Wide = list_to_tuple(Long),
    Bigs = maps:from_list([{list_to_binary([X, lists:duplicate(5000, $k)]), X} || X <- lists:seq(1, 60)]),
    Text = binary:copy(<<"x">>, 1000000),
    States = [
        {Million, Million#{1 := x, new => y}},
        {#{l => Long}, #{l => Copy(Long)}},
        {#{d => Deep}, #{d => Copy(Deep)}},
        {Wide, setelement(3, Wide, x)},
        {Bigs, Bigs#{x => 1}},
        {#{b => 1 bsl 1000000}, #{b => (1 bsl 1000000) + 1}},
        {#{b => Text}, #{b => <<"y", Text/binary>>}},
        {#{b => Text}, #{b => Copy(Text)}}
    ],
    persistent_term:put(work, {States, [Long, Deep, {a, Million}, fun() -> Long end]}),
    [one(State, Message, Bytes) || State <- lists:seq(1, length(States)), Message <- [1, 2, 3, 4], Bytes <- [0, 512]].
one(State, Message, Bytes) ->
    {_, Ref} = spawn_opt(fun() ->
        {States, Messages} = persistent_term:get(work),
        {Old, New} = lists:nth(State, States),
        Asked = lists:nth(Message, Messages),
        Context = {Asked, {self(), make_ref()}, Old, '-beamtrace-none-'},
        {reductions, R0} = process_info(self(), reductions),
        Summary = beamtrace_rt:summary(Context, beamtrace_rt:outcome(server, {reply, Asked, New}), Bytes),
        {reductions, R1} = process_info(self(), reductions),
        exit({work, R1 - R0, erlang:external_size(Summary)})
    end, [monitor, {min_heap_size, 100000}]),
    receive {'DOWN', Ref, _, _, {work, Reductions, Size}} -> [Reductions, Size, -1] end.
`;

test("a summary takes bounded work and space, whatever message and state", async () => {
  await load(node, "work", await compileText(node, "work", WORK));
  const all = JSON.parse(await node.eval("work:all()")) as [number, number, -1][];
  expect(all).toHaveLength(64);
  for (const [reductions, bytes] of all) {
    expect(reductions).toBeLessThan(10_000);
    expect(bytes).toBeLessThan(8_192);
  }
});
