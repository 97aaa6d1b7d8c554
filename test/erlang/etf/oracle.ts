/**
 * A BEAM that makes and judges terms (term_oracle.erl, which says what it is asked). It gets its program through stdin,
 * so that it may live in a chroot. BEAMTRACE_OTP_ROOT names the root of one with another OTP release.
 */
import { spawn, spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";

const BOOT = `
P = open_port({fd, 0, 1}, [{packet, 4}, binary]),
receive {P, {data, Source}} ->
  {ok, Tokens, _} = erl_scan:string(unicode:characters_to_list(Source)),
  Split = fun Split([], _, Fs) -> lists:reverse(Fs);
              Split([{dot, _} = D | Ts], F, Fs) -> {ok, Form} = erl_parse:parse_form(lists:reverse([D | F])), Split(Ts, [], [Form | Fs]);
              Split([T | Ts], F, Fs) -> Split(Ts, [T | F], Fs) end,
  {ok, M, Beam} = compile:forms(Split(Tokens, [], []), [report]),
  {module, M} = code:load_binary(M, "term_oracle.erl", Beam),
  M:main(P)
end.`;

/** Bytes and text of a term. Empty bytes: the VM refused what it was given. */
export interface OracleTerm {
  readonly bytes: Uint8Array;
  readonly text: string;
}

export interface Oracle {
  /** Major OTP release. */
  readonly release: number;
  /** Terms of a seed; without text, terms may also hold what has no text that another node could know. */
  generate(
    seed: number,
    count: number,
    options?: { text?: "erlang" | "elixir"; minorVersion?: 1 | 2 },
  ): Promise<OracleTerm[]>;
  /** What the VM makes of external terms. */
  judge(items: readonly Uint8Array[]): Promise<OracleTerm[]>;
  /** Evaluates Erlang expressions that give a binary. */
  eval(expressions: string): Promise<Uint8Array>;
  /** Makes Elixir's `inspect` available; false where there is none. */
  withElixir(): Promise<boolean>;
  stop(): void;
}

export async function startOracle(): Promise<Oracle> {
  const root = process.env["BEAMTRACE_OTP_ROOT"] ?? "";
  const args = ["+pc", "unicode", "-noinput", "-eval", BOOT];
  const child = spawn(root === "" ? "erl" : "chroot", root === "" ? args : [root, "erl", ...args], {
    env: { ...process.env, ERL_CRASH_DUMP: "/dev/null" },
  });
  let stderr = "";
  child.stderr.setEncoding("utf8").on("data", (text: string) => (stderr += text));
  const waiting: { resolve: (bytes: Buffer) => void; reject: (error: Error) => void }[] = [];
  let ended = false;
  child.stdin.on("error", () => undefined);
  child.once("exit", () => {
    ended = true;
    for (const { reject } of waiting.splice(0)) reject(new Error(`the oracle has ended: ${stderr}`));
  });

  let chunks: Buffer[] = [];
  let have = 0;
  child.stdout.on("data", (chunk: Buffer) => {
    chunks.push(chunk);
    have += chunk.length;
    for (;;) {
      if (have < 4) return;
      if ((chunks[0]?.length ?? 0) < 4) chunks = [Buffer.concat(chunks)];
      const size = chunks[0]?.readUInt32BE(0) ?? 0;
      if (have < 4 + size) return;
      const all = Buffer.concat(chunks);
      const packet = all.subarray(4, 4 + size);
      chunks = [all.subarray(4 + size)];
      have -= 4 + size;
      const job = waiting.shift();
      if (packet[0] === 0x2e) job?.resolve(packet.subarray(1));
      else job?.reject(new Error(packet.toString("utf8")));
    }
  });

  const send = (bytes: Uint8Array): void => {
    const size = Buffer.alloc(4);
    size.writeUInt32BE(bytes.length);
    child.stdin.write(size);
    child.stdin.write(bytes);
  };
  const ask = (...parts: (string | Uint8Array)[]): Promise<Buffer> =>
    new Promise((resolve, reject) => {
      if (ended) return reject(new Error("the oracle has ended"));
      waiting.push({ resolve, reject });
      send(Buffer.concat(parts.map((part) => (typeof part === "string" ? Buffer.from(part) : part))));
    });

  send(readFileSync(new URL("term_oracle.erl", import.meta.url)));
  const release = Number((await ask("release")).toString());
  return {
    release,
    async generate(seed, count, { text, minorVersion = 2 } = {}) {
      const head = Buffer.alloc(9);
      head.writeUInt32BE(seed, 0);
      head.writeUInt32BE(count, 4);
      head[8] = (text === undefined ? 0 : 1) | (minorVersion === 1 ? 2 : 0) | (text === "elixir" ? 4 : 0);
      return items(await ask("generate", head));
    },
    async judge(terms) {
      const parts = terms.flatMap((term) => {
        const size = Buffer.alloc(4);
        size.writeUInt32BE(term.length);
        return [size, term];
      });
      return items(await ask("judge", ...parts));
    },
    eval: (expressions) => ask("eval", `${expressions}.`),
    async withElixir() {
      if (root !== "") return false;
      const found = spawnSync("elixir", ["-e", "IO.write(:code.lib_dir(:elixir))"], { encoding: "utf8" });
      if (found.status !== 0) return false;
      await ask("elixir", `${found.stdout}/ebin`);
      return true;
    },
    stop: () => void child.kill("SIGKILL"),
  };
}

/** Pairs of sized bytes and sized text. */
function items(reply: Buffer): OracleTerm[] {
  const terms: OracleTerm[] = [];
  let at = 0;
  const next = (): Buffer => {
    const size = reply.readUInt32BE(at);
    const bytes = reply.subarray(at + 4, at + 4 + size);
    at += 4 + size;
    return bytes;
  };
  while (at < reply.length) terms.push({ bytes: new Uint8Array(next()), text: next().toString("utf8") });
  return terms;
}
