/** Lets the node's own compiler of match specifications judge one, before it is set on any function. */
import { atom, Tuple, tuple, type Term } from "../../erlang/term";
import { MatchSpecError } from "./error";
import { charsToString, type Evaluate, evaluateOr, tagged } from "./evaluate";

/**
 * Asks the node whether it takes a match specification, with `erlang:match_spec_test/3`. The restrictions of send and receive are
 * not part of that test. Nothing is carried out: every clause gets a guard that is never true, because on OTP 27 and 29 the test kills
 * the VM when a body with `enable_trace`, `disable_trace` or `trace` is run by it.
 *
 * @throws MatchSpecError `BT_MATCH_SPEC_INVALID` with the node's own words.
 */
export async function checkMatchSpecOnNode(spec: readonly Term[], evaluate: Evaluate): Promise<void> {
  const harmless = spec.map((clause, i) => {
    if (!(clause instanceof Tuple) || clause.length !== 3 || !Array.isArray(clause.elements[1]))
      throw new MatchSpecError(`clause ${i + 1} is no tuple {Head, Guards, Body}`);
    const [head, guards, body] = clause.elements as readonly [Term, readonly Term[], Term];
    return tuple(head, [atom("false"), ...guards], body);
  });
  const result = await evaluateOr("the node could not test it", evaluate, "erlang", "match_spec_test", [
    [],
    harmless,
    atom("trace"),
  ]);
  const errors = tagged(result, "error")?.[0];
  if (!Array.isArray(errors)) return;
  const messages = (errors as readonly Term[]).flatMap((e) => tagged(e, "error")?.map(charsToString) ?? []);
  throw new MatchSpecError(
    `the node refuses the match specification: ${messages.join(" ") || "without a reason"}`,
  );
}
