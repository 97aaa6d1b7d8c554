/** Which beams a command line means: files as they are, folders with all beams in them, each with the application it belongs to. */
import { readdir, readFile, readlink, realpath, stat } from "node:fs/promises";
import { basename, dirname, join, resolve } from "node:path";
import { BeamtraceError, OptionError } from "../erlang";
import { systemWords, withFile } from "./file-error";
import { usageError } from "./usage";

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
    const what = await stat(input).catch((error: unknown) => unusable(input, error));
    const folder = what.isDirectory() ? input : dirname(input);
    // Beside a file that is named the folder only says which application it is of.
    const names = await readdir(folder).catch((error: unknown) =>
      what.isDirectory() ? unusable(input, error) : [],
    );
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
      // A folder that is named twice, once through a link, has each module once.
      const real = await realpath(path).catch(() => resolve(path));
      found.set(`${real}\0${name}`, { path, application: owner });
    }
  }
  return [...found.values()];
}

function unusable(input: string, error: unknown): never {
  const words = systemWords(error);
  if (words === undefined) throw error;
  const missing = (error as NodeJS.ErrnoException).code === "ENOENT";
  return usageError("EBIN", missing ? `there is no ${input}` : `${input} can't be read: ${words}`);
}

/** The bytes of a beam. @throws BeamtraceError `BT_FILE_FAILED`: it is no file, a link to nothing, or may not be read. */
export function readBeam(path: string): Promise<Uint8Array> {
  return withFile("it can't be read", async () => {
    const what = await stat(path).catch(async (error: unknown) => {
      const target = await readlink(path).catch(() => undefined);
      if (target === undefined) throw error;
      throw new BeamtraceError("BT_FILE_FAILED", `it is a link to ${target}, which can't be read`, {
        cause: error,
      });
    });
    // Reading a pipe would wait for whoever writes.
    if (!what.isFile())
      throw new BeamtraceError(
        "BT_FILE_FAILED",
        `it is a ${what.isDirectory() ? "folder" : "device"}, not a file`,
      );
    return readFile(path);
  });
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
