/** Behaviours are recognised and their callbacks tell what they did; locals at a line; plans of rules: on every release. */
import type { Row } from "../row";
import { onEveryRelease } from "./tests-on-release";

const LIVE = [
  ...["transform-behaviours", "transform-callbacks", "transform-callbacks-elixir", "transform-summary"],
  ...["transform-locals", "instrument-command"],
];

export const run = (): Promise<Row[]> =>
  onEveryRelease({
    what: "callbacks, locals, plans",
    files: LIVE.map((name) => `test/live/${name}.test.ts`),
  });
