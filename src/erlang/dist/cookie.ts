/**
 * The cookie, the shared secret of a cluster. It is only ever turned into digests: the value sits in a private field, so
 * that no message, `inspect`, JSON or heap-printing logger of ours can show it.
 * Follows "Distributed Erlang", section Security.
 */
import { createHash, timingSafeEqual } from "node:crypto";
import { readFile } from "node:fs/promises";
import { homedir } from "node:os";
import { join } from "node:path";
import { ConnectionError, OptionError } from "../errors";

/** A cookie that can make digests but isn't shown. */
export class Cookie {
  readonly #value: Buffer;

  constructor(value: string) {
    if (value === "") throw new OptionError("BT_OPTION_INVALID", "cookie", "it is empty");
    // A cookie is an atom, and the VM makes the digest over its code points as bytes: beyond 255 it can't.
    if (!/^[\0-\xff]*$/.test(value)) {
      throw new OptionError("BT_OPTION_INVALID", "cookie", "it has characters that no cookie can have");
    }
    this.#value = Buffer.from(value, "latin1");
  }

  /** MD5 over cookie and challenge, as the handshake wants it. */
  digest(challenge: number): Buffer {
    return createHash("md5").update(this.#value).update(String(challenge)).digest();
  }

  /** Whether a digest was made with this cookie, in constant time. */
  proves(digest: Uint8Array, challenge: number): boolean {
    return digest.length === 16 && timingSafeEqual(digest, this.digest(challenge));
  }

  toString(): string {
    return "[cookie]";
  }

  toJSON(): string {
    return "[cookie]";
  }
}

/** Where the VM keeps its cookie, in the order of `auth:read_cookie`. */
function cookieFiles(): string[] {
  const home = process.env["HOME"] ?? homedir();
  return [join(home, ".erlang.cookie"), join(home, ".config", "erlang", ".erlang.cookie")];
}

/**
 * The given cookie, else that of the user's cookie file.
 * @throws ConnectionError BT_COOKIE_MISSING
 */
export async function findCookie(given: string | undefined): Promise<Cookie> {
  if (given !== undefined) return new Cookie(given);
  const files = cookieFiles();
  for (const file of files) {
    const text = await readFile(file, "latin1").catch((error: NodeJS.ErrnoException) => {
      if (error.code === "ENOENT" || error.code === "ENOTDIR") return "";
      throw new ConnectionError("BT_COOKIE_MISSING", `can't read the cookie file ${file} (${error.code})`, {
        cause: error,
      });
    });
    const line = text.split("\n", 1)[0]?.trim() ?? "";
    if (line !== "") return new Cookie(line);
  }
  throw new ConnectionError(
    "BT_COOKIE_MISSING",
    `no cookie given, and none found in ${files.join(" or ")}; pass the cookie of the node (erlang:get_cookie() tells it)`,
  );
}
