/** Which beams a command line means: files as they are, folders with all beams in them, each with the application it belongs to. */
import { readdir, stat } from "node:fs/promises";
import { basename, dirname, join, resolve } from "node:path";
import { OptionError } from "../erlang";

/** A beam to work on. */
export interface BeamPath {
  readonly path: string;
  /** Name of the application that the folder is of, when it can be told. */
  readonly application: string | undefined;
}

/**
 * Beams of files and folders, in the order of their names.
 * @throws OptionError `BT_OPTION_INVALID`: what isn't there or has no beams.
 */
export async function findBeams(inputs: readonly string[], application?: string): Promise<BeamPath[]> {
  const found = new Map<string, BeamPath>();
  for (const input of inputs) {
    const what = await stat(input).catch(() => undefined);
    if (what === undefined) throw new OptionError("BT_OPTION_INVALID", "EBIN", `there is no ${input}`);
    const folder = what.isDirectory() ? input : dirname(input);
    const names = await readdir(folder);
    const beams = what.isDirectory()
      ? names.filter((name) => name.endsWith(".beam")).sort()
      : [basename(input)];
    if (beams.length === 0) {
      throw new OptionError(
        "BT_OPTION_INVALID",
        "EBIN",
        `there are no .beam files in ${input}${await elsewhere(input)}`,
      );
    }
    const owner = application ?? applicationOf(folder, names);
    for (const name of beams) {
      const path = join(folder, name);
      found.set(resolve(path), { path, application: owner });
    }
  }
  return [...found.values()];
}

/** From the `.app` file, else from the folder: `shop-1.2.0/ebin`. */
function applicationOf(folder: string, names: readonly string[]): string | undefined {
  const [app, ...more] = names.filter((name) => name.endsWith(".app"));
  if (app !== undefined && more.length === 0) return app.slice(0, -".app".length);
  const path = resolve(folder);
  if (basename(path) !== "ebin") return undefined;
  return basename(dirname(path)).replace(/-\d[^-]*$/, "");
}

/** Where beams are, when it is a level or three below. */
async function elsewhere(folder: string): Promise<string> {
  const all = await readdir(folder, { recursive: true }).catch(() => []);
  const folders = [
    ...new Set(all.filter((name) => name.endsWith(".beam")).map((name) => join(folder, dirname(name)))),
  ];
  return folders.length === 0
    ? ""
    : `; there are in ${folders.slice(0, 3).join(", ")}${folders.length > 3 ? " …" : ""}`;
}
