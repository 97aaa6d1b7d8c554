/**
 * Looks into the prebuilt libraries of the native tracer: each must be of the processor that its folder names, need no other library and no version of
 * any symbol (so that it loads with every glibc, 2.31 and older included, and with musl), and use nothing but the NIF interface of OTP 25
 * and the few calls listed here. Part of `npm run generated`; exits with 1 and says what is wrong.
 */
import { readdirSync, readFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";

const PREBUILT = resolve(fileURLToPath(new URL("../beam/native/prebuilt", import.meta.url)));
/** ELF's e_machine. */
const MACHINES: Readonly<Record<string, number>> = { "linux-x64": 62, "linux-arm64": 183 };
/** In every libc since long before glibc 2.31, and in musl. */
const LIBC = new Set([
  "clock_gettime",
  "close",
  "memcmp",
  "memcpy",
  "memmove",
  "memset",
  "open",
  "pipe",
  "read",
  "write",
]);
const SECTION = { dynamic: 6, dynsym: 11, versionNeeded: 0x6ffffffe } as const;
const NEEDED = 1;
const SYMBOL_OF_SECTION = 3;

/** What keeps a library from being shipped; empty for a good one. */
export function problemsOf(platform: string, bytes: Uint8Array): string[] {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (view.getUint32(0) !== 0x7f454c46 || view.getUint8(4) !== 2 || view.getUint8(5) !== 1)
    return ["is no 64-bit little-endian ELF file"];
  const problems: string[] = [];
  const machine = view.getUint16(18, true);
  if (machine !== MACHINES[platform]) problems.push(`is made for the processor ${machine}`);
  const at = (offset: number): number => Number(view.getBigUint64(offset, true));
  const [table, size, count] = [at(40), view.getUint16(58, true), view.getUint16(60, true)];
  const sections = Array.from({ length: count }, (_, i) => {
    const base = table + i * size;
    return {
      type: view.getUint32(base + 4, true),
      offset: at(base + 24),
      size: at(base + 32),
      link: view.getUint32(base + 40, true),
    };
  });
  const text = (strings: number, index: number): string => {
    const from = (sections[strings]?.offset ?? 0) + index;
    return Buffer.from(bytes.subarray(from, bytes.indexOf(0, from))).toString("latin1");
  };
  let symbols = 0;
  for (const { type, offset, size: length, link } of sections) {
    if (type === SECTION.versionNeeded) problems.push("needs versions of symbols");
    if (type === SECTION.dynamic)
      for (let entry = offset; entry < offset + length; entry += 16)
        if (at(entry) === NEEDED) problems.push(`needs ${text(link, at(entry + 8))}`);
    if (type !== SECTION.dynsym) continue;
    for (let symbol = offset + 24; symbol < offset + length; symbol += 24) {
      if ((view.getUint8(symbol + 4) & 0xf) === SYMBOL_OF_SECTION) continue;
      const name = text(link, view.getUint32(symbol, true));
      const defined = view.getUint16(symbol + 6, true) !== 0;
      symbols += 1;
      if (defined ? name !== "nif_init" : !name.startsWith("enif_") && !LIBC.has(name))
        problems.push(`${defined ? "shows" : "uses"} ${name}`);
    }
  }
  if (symbols === 0) problems.push("has no symbols");
  return problems;
}

if (process.argv[1] !== undefined && import.meta.url === pathToFileURL(process.argv[1]).href) {
  const platforms = readdirSync(PREBUILT);
  for (const platform of Object.keys(MACHINES))
    if (!platforms.includes(platform)) {
      console.error(`beam/native/prebuilt has no ${platform}`);
      process.exitCode = 1;
    }
  for (const platform of platforms)
    for (const problem of problemsOf(platform, readFileSync(join(PREBUILT, platform, "beamtrace_nif.so")))) {
      console.error(`beam/native/prebuilt/${platform} ${problem}`);
      process.exitCode = 1;
    }
}
