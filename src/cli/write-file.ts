/**
 * Files that are either the old or the new one, never half of each. What is being written has a name of its own, of the process and a number;
 * where a process was killed it stays, and the next run removes it.
 */
import { chmod, readdir, rename, rm, stat, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";

let written = 0;

/** Of this version and of those before, which named the file as well: `.cart.beam.beamtrace-123`. */
const TEMPORARY = /^\..*beamtrace-(\d+)(?:-\d+)?$/;

/** Writes the file in one step, with the mode of the one that it replaces. Nothing else stays in the folder, whatever fails. */
export async function writeAtomically(path: string, bytes: Uint8Array): Promise<void> {
  const temporary = join(dirname(path), `.beamtrace-${process.pid}-${written++}`);
  try {
    await writeFile(temporary, bytes, { flag: "wx" });
    const old = await stat(path).catch(() => undefined);
    if (old !== undefined) await chmod(temporary, old.mode);
    await rename(temporary, path);
  } catch (error) {
    await rm(temporary, { force: true }).catch(() => undefined);
    throw error;
  }
}

/** Removes what processes left in the folder that were killed while they wrote. To be called before this one writes. */
export async function removeLeftovers(folder: string): Promise<void> {
  const names = await readdir(folder).catch(() => []);
  for (const name of names) {
    const pid = Number(TEMPORARY.exec(name)?.[1] ?? 0);
    if (pid > 0 && (pid === process.pid || !isAlive(pid)))
      await rm(join(folder, name), { force: true }).catch(() => undefined);
  }
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code !== "ESRCH";
  }
}
