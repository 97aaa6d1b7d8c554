/** Match specifications at work: set on a function of a node whose processes are traced by the node itself, not through beamtrace. */
import { afterAll, beforeAll, expect, test } from "vitest";
import { any, matchSpec, type MatchSpec, tupleOf, v } from "../../../src/capture/match-spec";
import type { Tuple } from "../../../src/erlang";
import { atom, decode, encode, tuple, type Term } from "../../../src/erlang";
import { show } from "./show";
import { type SpecNode, startSpecNode } from "./node";

let on: SpecNode;
beforeAll(async () => {
  on = await startSpecNode();
});
afterAll(() => on.node.stop());

interface Traced {
  readonly spec: MatchSpec;
  readonly event?: "call" | "send" | "receive";
  /** Expressions that the traced process evaluates. */
  readonly doing: string;
  readonly flags?: string;
}

/** The trace messages, without the pid of the process, in order; the process has ended. */
async function traced({
  spec,
  event = "call",
  doing,
  flags = "[call, send, 'receive']",
}: Traced): Promise<Tuple[]> {
  const term = spec.toTerm({ otp: on.otp });
  const text = Buffer.from(encode(term)).toString("base64");
  const pattern = event === "call" ? "{string, uppercase, 1}" : `'${event}'`;
  const off = event === "call" ? "false" : "true";
  const events = await on.term(`
    code:ensure_loaded(string),
    Self = self(),
    {P, Mon} = spawn_monitor(fun() -> receive go -> ok end, ${doing} end),
    Flags = [F || F <- ${flags}, F =:= call orelse '${event}' =:= F],
    erlang:trace_pattern(${pattern}, binary_to_term(base64:decode("${text}")), [${event === "call" ? "local" : ""}]),
    erlang:trace(P, true, [{tracer, Self} | Flags]),
    P ! go,
    receive {'DOWN', Mon, _, _, _} -> ok end,
    Ref = erlang:trace_delivered(P),
    receive {trace_delivered, P, Ref} -> ok end,
    erlang:trace_pattern(${pattern}, ${off}, [${event === "call" ? "local" : ""}]),
    (fun Loop(Acc) -> receive
       M when element(1, M) =:= trace -> Loop([list_to_tuple(tl(tl(tuple_to_list(M)))) | Acc])
     after 0 -> lists:reverse(Acc) end end)([])`);
  return events as unknown as Tuple[];
}

const shown = (events: readonly Tuple[]): string[] => events.map(show);

test("a message is added to the event, false suppresses it, true leaves it bare", async () => {
  const spec = matchSpec
    .call([v("s")])
    .when(({ s }, g) => g.isBinary(s))
    .do(({ s }, act) => act.message(tupleOf(s, act.byteSize(s))))
    .clause([any])
    .when((_variables, g) => g.strictEq(g.hd(g.hd(g.whole())), 97))
    .do((_variables, act) => act.message(true))
    .clause(any)
    .do((_variables, act) => act.message(false));
  const events = await traced({
    spec,
    doing: 'string:uppercase(<<"ab">>), string:uppercase("a"), string:uppercase("b")',
  });
  expect(shown(events)).toEqual([
    '{call,{string,uppercase,[<<"ab">>]},{<<"ab">>,2}}',
    "{call,{string,uppercase,[[97]]}}",
  ]);
});

test("returns and exceptions are events of their own", async () => {
  const returning = matchSpec.call(any).do((_variables, act) => act.returnTrace());
  expect(shown(await traced({ spec: returning, doing: 'string:uppercase("a")' }))).toEqual([
    "{call,{string,uppercase,[[97]]}}",
    "{return_from,{string,uppercase,1},[65]}",
  ]);
  const raising = matchSpec.call(any).do((_variables, act) => act.exceptionTrace());
  const events = await traced({ spec: raising, doing: "catch string:uppercase(not_text)" });
  expect(shown(events)[1]).toMatch(/^\{exception_from,\{string,uppercase,1\},\{error,/);
});

test("caller, its line and the stack trace tell who called", async () => {
  const spec = matchSpec
    .call(any)
    .do((_variables, act) =>
      on.otp >= 26
        ? act.message(tupleOf(act.caller(), act.callerLine(), act.currentStacktrace(2)))
        : act.message(tupleOf(act.caller(), act.callerLine())),
    );
  // string:titlecase is no caller of ours; a module of the node's own libraries is.
  const [event] = await traced({ spec, doing: 'lists:map(fun string:uppercase/1, ["a"])' });
  const extra = (event as Tuple).elements[2] as Tuple;
  const [caller, line] = extra.elements as [Tuple, Tuple];
  expect(show(caller)).toMatch(/^\{lists,map(_1)?,2\}$/);
  expect(show(line.elements[3] as Term)).toMatch(/^\{\[.*\],\d+\}$/);
  if (on.otp >= 26) expect((extra.elements[2] as readonly Term[]).length).toBeLessThanOrEqual(2);
});

test("silent, flags, the process dump and the sequential trace token work in a body", async () => {
  const silence = matchSpec
    .call([[97]])
    .do((_variables, act) => act.silent(true))
    .clause([[98]])
    .do((_variables, act) => act.silent(false))
    .clause(any);
  const calls = ["c", "a", "c", "b", "c"].map((s) => `string:uppercase("${s}")`).join(", ");
  expect(shown(await traced({ spec: silence, doing: calls }))).toEqual([
    "{call,{string,uppercase,[[99]]}}",
    "{call,{string,uppercase,[[98]]}}",
    "{call,{string,uppercase,[[99]]}}",
  ]);

  const flags = matchSpec
    .call([[97]])
    .do((_variables, act) => [
      act.enableTrace("send"),
      act.trace([], ["procs"]),
      act.enableTrace(act.self(), "receive"),
    ])
    .clause(any)
    .do((_variables, act) => [
      act.disableTrace("send"),
      act.traceProcess(act.self(), ["procs", "receive"], []),
    ]);
  const sends = await traced({
    spec: flags,
    flags: "[call]",
    doing:
      'self() ! one, string:uppercase("a"), self() ! two, receive two -> ok end, string:uppercase("b"), self() ! three',
  });
  expect(shown(sends).map((s) => s.split(",").slice(0, 2).join(","))).toEqual([
    "{call,{string",
    "{send,two",
    "{'receive',one}",
    "{'receive',two}",
    "{call,{string",
  ]);

  const dump = matchSpec
    .call(any)
    .do((_variables, act) => [
      act.setSeqToken("label", 17),
      act.message(tupleOf(act.getSeqToken(), act.processDump())),
      act.isSeqTrace(),
    ]);
  const [event] = await traced({ spec: dump, doing: 'string:uppercase("a")' });
  const [token, text] = ((event as Tuple).elements[2] as Tuple).elements;
  expect(show((token as Tuple).elements[1] as Term)).toBe("17");
  expect(new TextDecoder().decode(text as Uint8Array)).toContain("=proc:");
});

test("sends are filtered by receiver and message, receives by node, sender and message", async () => {
  const send = matchSpec
    .send([v("to"), tupleOf(atom("wanted"), v("x"))])
    .when(({ to, x }, g) => g.andalso(g.strictEq(to, g.self()), g.gt(x, 1)))
    .do(({ x }, act) => act.message(x));
  const doing =
    "self() ! {wanted, 1}, self() ! {wanted, 2}, self() ! {other, 3}, receive {other, 3} -> ok end";
  const sent = await traced({ spec: send, event: "send", doing });
  expect(
    sent.map((e) => show(tuple(e.elements[0] as Term, e.elements[1] as Term, e.elements[3] as Term))),
  ).toEqual(["{send,{wanted,2},2}"]);
  const receive = matchSpec
    .receive([v("node"), any, tupleOf(atom("wanted"), any)])
    .when(({ node }, g) => g.eq(node, g.node()))
    .do((variables, act) => act.message(variables.node));
  const received = await traced({ spec: receive, event: "receive", doing });
  expect(shown(received)).toEqual([
    `{'receive',{wanted,1},'${on.node.name}'}`,
    `{'receive',{wanted,2},'${on.node.name}'}`,
  ]);
});

test("a sample of one process is exact, and the control word wraps round", async () => {
  const spec = matchSpec
    .call([v("s")])
    .when(({ s }, g) => g.ne(s, [120]))
    .sample(10);
  await on.node.eval("erlang:system_flag(trace_control_word, 0)");
  const doing = '[begin string:uppercase("a"), string:uppercase("x") end || _ <- lists:seq(1, 1000)]';
  const events = await traced({ spec, doing });
  expect(events).toHaveLength(100);
  expect(new Set(shown(events))).toEqual(new Set(["{call,{string,uppercase,[[97]]}}"]));
  expect(await on.node.eval("erlang:system_info(trace_control_word)")).toBe("1000");
  await on.node.eval("erlang:system_flag(trace_control_word, 16#ffffffff)");
  await traced({ spec, doing: '[string:uppercase("a") || _ <- lists:seq(1, 3)]' });
  expect(await on.node.eval("erlang:system_info(trace_control_word)")).toBe("2");
});

test("what the builder makes survives the way to the node and back", async () => {
  const spec = matchSpec
    .call([v("a"), any])
    .when(({ a }, g) => g.oneOf(a, [atom("x"), tuple(1)]))
    .toTerm();
  const back = await on.evaluate("lists", "append", [[], [...spec]]);
  expect(show(back)).toBe(show(decode(encode(spec))));
});
