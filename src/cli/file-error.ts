/** Failures of the file system, told in its own words and with the file that they are about. */
import { BeamtraceError } from "../erlang";

/** What the system says, `no space left on device (ENOSPC)`; undefined for an error that isn't the system's. */
export function systemWords(error: unknown): string | undefined {
  if (!(error instanceof Error)) return undefined;
  const { code, syscall, message } = error as NodeJS.ErrnoException;
  if (code === undefined || syscall === undefined) return undefined;
  const [, words = message] = /^[A-Z0-9]+: (.+?), /.exec(message) ?? [];
  return `${words} (${code})`;
}

/** Does something with files. @throws BeamtraceError `BT_FILE_FAILED`: `what: why` where the system refuses; all else as it is. */
export async function withFile<T>(what: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (cause) {
    const words = systemWords(cause);
    if (words === undefined) throw cause;
    throw new BeamtraceError("BT_FILE_FAILED", `${what}: ${words}`, { cause });
  }
}
