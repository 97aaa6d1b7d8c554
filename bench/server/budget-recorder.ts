/**
 * What a flight recorder that is always on adds to the three servers under `limits.overhead: 0.005`: budget.ts with a recorder instead of a trace.
 * `npx tsx bench/server/budget.ts --recorder 1 --overhead 0.005` is the same, with options.
 */
import type { Row } from "../row";
import { run as measure } from "./budget";

export const run = (quick: boolean): Promise<Row[]> => measure(quick, { recorder: 1, overhead: 0.005 });
