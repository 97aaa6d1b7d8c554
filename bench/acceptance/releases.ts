/** The tests that talk to nodes, on this machine's Erlang and on each other release: they must be the same and all pass. */
import type { Row } from "../row";
import { onEveryRelease } from "./tests-on-release";

export const run = (): Promise<Row[]> => onEveryRelease({ what: "tests with nodes" });
