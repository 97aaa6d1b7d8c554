/**
 * One in N inside the VM, with no code on the node: the trace control word counts the matches. It is one 32-bit number of the
 * whole node, shared by all tracing tools, and counting is not atomic across schedulers, so that N is exact for one process and
 * close for many.
 */
import type { Tuple } from "../../erlang/term";
import { atom, tuple, type Term } from "../../erlang/term";
import { MatchSpecError } from "./error";

const WORD = 0xffffffff;

/**
 * Of the events that a match specification lets through, lets one in `oneIn` through.
 * Each clause becomes two: the first for every N-th match, the second counts the others and lets them go.
 */
export function sampleOneIn(spec: readonly Term[], oneIn: number): readonly Term[] {
  if (!Number.isInteger(oneIn) || oneIn < 1 || oneIn > WORD)
    throw new MatchSpecError(`sample takes an integer from 1 to ${WORD}, not ${String(oneIn)}`);
  if (oneIn === 1) return spec;
  // An empty specification means "every call, no action".
  const clauses = spec.length === 0 ? [tuple(atom("_"), [], [])] : spec;
  const word = tuple(atom("get_tcw"));
  // Wraps by itself: set_tcw refuses numbers over 32 bits, and would then stay at the highest for ever.
  const count = tuple(atom("set_tcw"), tuple(atom("band"), tuple(atom("+"), word, 1), WORD));
  const isTurn = tuple(atom("=:="), tuple(atom("rem"), word, oneIn), 0);
  const drop = tuple(atom("message"), atom("false"));
  return clauses.flatMap((clause) => {
    const [head, guards, body] = (clause as Tuple).elements as readonly [
      Term,
      readonly Term[],
      readonly Term[],
    ];
    return [tuple(head, [...guards, isTurn], [count, ...body]), tuple(head, guards, [count, drop])];
  });
}
