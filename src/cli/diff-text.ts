/** Two texts as a unified diff, by the system's `diff`. */
import { execFile } from "node:child_process";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { OptionError } from "../erlang";

/** The diff, empty when the texts are equal. @throws OptionError `BT_OPTION_INVALID` when there is no `diff`. */
export async function diffText(name: string, before: string, after: string): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), "beamtrace-diff-"));
  try {
    const files = [join(folder, "before"), join(folder, "after")] as const;
    await Promise.all([writeFile(files[0], before), writeFile(files[1], after)]);
    const labels = ["--label", `${name} (original)`, "--label", `${name} (instrumented)`];
    return await new Promise((resolve, reject) => {
      execFile("diff", ["-u", ...labels, ...files], { maxBuffer: 1 << 28 }, (error, stdout) => {
        // Code 1 says that they differ.
        if (error === null || error.code === 1) resolve(stdout);
        else
          reject(
            new OptionError("BT_OPTION_INVALID", "--diff", `it needs the program diff: ${error.message}`),
          );
      });
    });
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}
