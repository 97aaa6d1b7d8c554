/** What the printer writes is Erlang: the node's own erl_parse reads the same functions out of it, also of instrumented ones. */
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";

import { BeamFile, encode, isAbstractCode, debugInfo, type Term } from "../../src/erlang";
import { formsFromTerm, formsToTerm, instrumentForms, printForms } from "../../src/transform";
import { type ErlNode, startNode } from "../support/erl-node";
import { compileErlang, fixture } from "../support/transform";

let node: ErlNode;
let folder: string;

beforeAll(async () => {
  node = await startNode({ distributed: false });
  folder = await mkdtemp(join(tmpdir(), "beamtrace-print-"));
});
afterAll(async () => {
  await node.stop();
  await rm(folder, { recursive: true });
});

/** Functions in the text that differ from those of the forms, by name; annotations aside. */
async function differences(text: string, forms: readonly Term[]): Promise<string> {
  await writeFile(join(folder, "text.erl"), text);
  await writeFile(join(folder, "forms.etf"), encode(forms));
  return node.eval(`
    {ok, Text} = file:read_file("${folder}/text.erl"),
    {ok, Bytes} = file:read_file("${folder}/forms.etf"),
    {ok, Tokens, _} = erl_scan:string(unicode:characters_to_list(Text), 1, [{reserved_word_fun, fun(W) -> W =:= 'maybe' orelse W =:= 'else' orelse erl_scan:reserved_word(W) end}]),
    Split = fun S([], [], Acc) -> lists:reverse(Acc);
                S([{dot, _} = D | R], One, Acc) -> S(R, [], [lists:reverse([D | One]) | Acc]);
                S([T | R], One, Acc) -> S(R, [T | One], Acc) end,
    %% map_anno leaves the name in R#r.name as it is on OTP 29.
    Names = fun N({record_field, A, R, Name, {atom, _, Field}}) -> {record_field, A, N(R), Name, {atom, 0, Field}};
                N(T) when is_tuple(T) -> list_to_tuple(N(tuple_to_list(T)));
                N([H | T]) -> [N(H) | N(T)];
                N(T) -> T end,
    Plain = fun(F) -> Names(erl_parse:map_anno(fun(_) -> 0 end, F)) end,
    Read = [case erl_parse:parse_form(Ts) of {ok, F} -> Plain(F); {error, E} -> {bad, E, lists:sublist([element(size(T), T) || T <- Ts], 8)} end || Ts <- Split(Tokens, [], [])],
    Bad = [B || {bad, _, _} = B <- Read],
    Wanted = [Plain(F) || {function, _, _, _, _} = F <- binary_to_term(Bytes)],
    Functions = [F || {function, _, _, _, _} = F <- Read],
    {Bad, [{N, A} || {function, _, N, A, _} <- Wanted -- Functions], length(Wanted) =:= length(Functions)}`);
}

function formsOf(beam: Uint8Array): readonly Term[] {
  const info = debugInfo(BeamFile.read(beam));
  if (!isAbstractCode(info)) throw new Error("not Erlang");
  return info.forms;
}

async function check(beam: Uint8Array): Promise<void> {
  const plain = formsFromTerm(formsOf(beam));
  expect(await differences(printForms(plain), formsToTerm(plain))).toBe("{[],[],true}");
  const { forms } = instrumentForms(plain);
  expect(await differences(printForms(forms), formsToTerm(forms))).toBe("{[],[],true}");
}

test.each(["subject", "harness"])("fixture %s", async (name) => {
  await check(await compileErlang(node, fixture(`${name}.erl`)));
});

test("subject_maybe, where the release has maybe", async () => {
  if (Number((await node.eval("erlang:system_info(otp_release)")).replaceAll('"', "")) < 27) return;
  await check(await compileErlang(node, fixture("subject_maybe.erl")));
});

const MODULES = (
  process.env["BEAMTRACE_PRINT_MODULES"] ??
  "lists string gen_server gen_statem erl_lint erl_scan io_lib_pretty shell qlc ets re binary code_server inet_dns user_drv"
).split(" ");

test.each(MODULES)("module %s of OTP", async (name) => {
  const text = await node.eval(
    `{ok, B} = file:read_file(case code:which(${name}) of P when is_list(P) -> P end), base64:encode(B)`,
  );
  await check(Buffer.from(text.slice(3, -3), "base64"));
});
