/** The folder of `--out`: whether it can take what is to be written, looked at before any work. */
import { constants } from "node:fs";
import { access, mkdir, stat } from "node:fs/promises";
import { basename, dirname, resolve } from "node:path";
import type { BeamPath } from "./beam-folders";
import { systemWords } from "./file-error";
import { usageError } from "./usage";

/** Pairs of files that are named; there may be as many as modules. */
const NAMED = 3;

/** @throws OptionError when two of the files have one name: the folder could hold one of them. */
export function refuseSameNames(beams: readonly BeamPath[]): void {
  const paths = new Map<string, string>();
  const pairs: string[] = [];
  for (const { path } of beams) {
    const name = basename(path);
    const other = paths.get(name);
    if (other === undefined) paths.set(name, path);
    else pairs.push(`${other} and ${path}`);
  }
  if (pairs.length === 0) return;
  const more = pairs.length > NAMED ? `, and ${pairs.length - NAMED} more` : "";
  usageError(
    "--out",
    `one folder can't hold ${pairs.slice(0, NAMED).join(", ")}${more}: give those folders in runs of their own, each with another --out, or leave one out`,
  );
}

/** @throws OptionError when there can't be such a folder. Makes nothing: that waits until all else is known to be well. */
export async function checkOutputFolder(folder: string): Promise<void> {
  // The nearest that is there is where a folder would be made.
  let nearest = resolve(folder);
  for (;;) {
    const what = await stat(nearest).catch((error: NodeJS.ErrnoException) => {
      if (error.code === "ENOENT") return undefined;
      if (error.code === "ENOTDIR") return undefined;
      return unusable(folder, error);
    });
    if (what !== undefined && !what.isDirectory())
      usageError("--out", `${nearest === resolve(folder) ? folder : nearest} is a file: name a folder`);
    if (what !== undefined) break;
    nearest = dirname(nearest);
  }
  await access(nearest, constants.W_OK | constants.X_OK).catch((error: unknown) => unusable(folder, error));
}

/** Makes the folder. @throws OptionError */
export async function makeOutputFolder(folder: string): Promise<void> {
  await mkdir(folder, { recursive: true }).catch((error: unknown) => unusable(folder, error));
}

function unusable(folder: string, error: unknown): never {
  const words = systemWords(error);
  if (words === undefined) throw error;
  return usageError("--out", `nothing can be written into ${folder}: ${words}; name another folder`);
}
