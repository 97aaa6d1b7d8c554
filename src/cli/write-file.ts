/** Files that are either the old or the new one, never half of each. */
import { chmod, mkdir, rename, rm, stat, writeFile } from "node:fs/promises";
import { basename, dirname, join } from "node:path";

/** Writes the file in one step, with the mode of the one that it replaces. */
export async function writeAtomically(path: string, bytes: Uint8Array): Promise<void> {
  const folder = dirname(path);
  await mkdir(folder, { recursive: true });
  const temporary = join(folder, `.${basename(path)}.beamtrace-${process.pid}`);
  try {
    await writeFile(temporary, bytes);
    const old = await stat(path).catch(() => undefined);
    if (old !== undefined) await chmod(temporary, old.mode);
    await rename(temporary, path);
  } catch (error) {
    await rm(temporary, { force: true });
    throw error;
  }
}
