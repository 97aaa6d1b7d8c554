/** `stress/native/run.sh` as a check: the native tracer's C code under TSan, ASan and UBSan, valgrind, on musl and arm64 where these are installed. */
import { spawn } from "node:child_process";
import { fileURLToPath } from "node:url";
import type { Row } from "../bench/row";

const SCRIPT = fileURLToPath(new URL("native/run.sh", import.meta.url));

/** `quick`: two seconds each. */
export async function run(quick: boolean): Promise<Row[]> {
  const output: string[] = [];
  const child = spawn("sh", [SCRIPT, quick ? "2" : "15"], { stdio: ["ignore", "pipe", "pipe"] });
  for (const stream of [child.stdout, child.stderr])
    stream.setEncoding("utf8").on("data", (text: string) => {
      output.push(text);
      process.stderr.write(text);
    });
  const code = await new Promise<number>((resolve, reject) => {
    child.once("error", reject);
    child.once("close", (status) => resolve(status ?? 1));
  });
  const text = output.join("");
  const leftOut = [...text.matchAll(/^(\w+): no .*, left out$/gm)].map(([, name]) => name);
  const delivered = [...text.matchAll(/(\d+) events delivered/g)].reduce((sum, [, n]) => sum + Number(n), 0);
  return [
    {
      what: "native tracer's C code under threads and sanitizers",
      target: "no report, produced = delivered + lost",
      measured: `exit code ${code}; ${delivered} events delivered${leftOut.length > 0 ? `; left out: ${leftOut.join(", ")}` : ""}`,
      value: code,
      ok: code === 0 && delivered > 0,
    },
  ];
}
