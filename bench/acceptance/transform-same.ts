/**
 * Programs behave the same plain and instrumented, on every release: a corpus of constructs in Erlang and Elixir to the letter of their stack
 * traces, and random valid programs; builds that are instrumented; what the events say.
 */
import type { Row } from "../row";
import { onEveryRelease } from "./tests-on-release";

/** Random programs a release. */
const PROGRAMS = { full: 250, quick: 25 };

const LIVE = [
  ...[
    "transform-differential",
    "transform-random",
    "transform-elixir",
    "transform-print",
    "transform-events",
  ],
  ...["instrumented", "instrument-command", "mix-build", "rebar3-build", "port"],
];

export const run = (quick: boolean): Promise<Row[]> =>
  onEveryRelease({
    what: `programs and ${quick ? PROGRAMS.quick : PROGRAMS.full} random ones, builds, events`,
    files: LIVE.map((name) => `test/live/${name}.test.ts`),
    env: { BEAMTRACE_RANDOM_PROGRAMS: String(quick ? PROGRAMS.quick : PROGRAMS.full) },
  });
