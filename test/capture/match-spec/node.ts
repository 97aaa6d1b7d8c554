/** A node to try match specifications on: terms travel as base64 of the external term format through its evaluation loop. */
import { execFileSync } from "node:child_process";
import { decode, encode, tuple, atom, BeamtraceError, type Term } from "../../../src/erlang";
import type { Evaluate } from "../../../src/capture/match-spec";
import { type ErlNode, startNode } from "../../support/erl-node";

export interface SpecNode {
  readonly node: ErlNode;
  /** `apply(M, F, A)` on the node, as `session.call` does it. */
  readonly evaluate: Evaluate;
  /** OTP release, 25, 27 … */
  readonly otp: number;
  /** Evaluates the text of Erlang expressions and returns the value as a term. */
  term(expressions: string): Promise<Term>;
  /** `erlang:match_spec_test/3` for trace. */
  test(target: readonly Term[], spec: readonly Term[]): Promise<Term>;
  /** Whether the node takes the specification for that event: sets it as a pattern, and takes it off again. */
  takes(event: "call" | "send" | "receive", spec: readonly Term[]): Promise<boolean>;
}

const base64 = (term: Term): string => Buffer.from(encode(term)).toString("base64");

/** Where Elixir's beams are: asked of `elixir` itself, of the root that the nodes run in. */
export function elixirEbin(): string {
  const root = process.env["BEAMTRACE_OTP_ROOT"] ?? "";
  const ask = ["-e", "IO.write(:code.lib_dir(:elixir))"];
  const [program, args] = root === "" ? ["elixir", ask] : ["chroot", [root, "elixir", ...ask]];
  return `${execFileSync(program, args, { encoding: "utf8" })}/ebin`;
}

export async function startSpecNode(options: { readonly elixir?: boolean } = {}): Promise<SpecNode> {
  const node = await startNode({ args: options.elixir ? ["-pa", elixirEbin()] : [] });
  const term = async (expressions: string): Promise<Term> => {
    // The value as a tuple of printed text would lose what it is; so: external term format.
    const printed = await node.eval(`base64:encode(term_to_binary(begin ${expressions} end))`);
    return decode(Buffer.from(printed.slice(3, -3), "base64"));
  };
  const evaluate: Evaluate = async (module, fn, args) => {
    const request = base64(tuple(atom(module), atom(fn), [...args]));
    try {
      return await term(`{M, F, A} = binary_to_term(base64:decode("${request}")), apply(M, F, A)`);
    } catch (error) {
      throw new BeamtraceError("BT_REMOTE_ERROR", (error as Error).message, { cause: error });
    }
  };
  const otp = Number((await node.eval("erlang:system_info(otp_release)")).replaceAll('"', ""));
  return {
    node,
    evaluate,
    otp,
    term,
    test: (target, spec) => evaluate("erlang", "match_spec_test", [target, spec, atom("trace")]),
    async takes(event, spec) {
      const request = base64(spec);
      const pattern = event === "call" ? "{lists, seq, 2}" : `'${event}'`;
      const off = event === "call" ? "false" : "true";
      const answer = await node.eval(
        `try erlang:trace_pattern(${pattern}, binary_to_term(base64:decode("${request}")), []) of
           _ -> erlang:trace_pattern(${pattern}, ${off}, []), yes
         catch error:badarg -> no end`,
      );
      return answer === "yes";
    },
  };
}
