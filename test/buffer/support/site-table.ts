/** A table of sites for tests, as `instrumentForms` makes them: its version is that of what it says. */
import { type Site, type SiteTable, tableVersion } from "../../../src/buffer";

/** Entry and return of functions of no arguments, one a line from `line` on. */
export function siteTableFor(module: string, functions: readonly string[], line = 1): SiteTable {
  const sites = functions.flatMap((name, i): Site[] =>
    (["entry", "return"] as const).map((kind, k) => ({
      ...{ id: i * 2 + k, kind, function: name, arity: 0, clause: 1 },
      ...{ file: `${module}.erl`, line: line + i, column: 1, arguments: [] },
    })),
  );
  return { module, version: tableVersion(sites), sites };
}
