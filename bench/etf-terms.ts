/**
 * General decoding and encoding of external terms against erlang_js and etf.js, in one run on the same bytes.
 * `npx tsx bench/etf-terms.ts`. Each library gets only what it can read; the corpus avoids what the others lack.
 */
import { createRequire } from "node:module";
import { bench, do_not_optimize, group, run, summary } from "mitata";
import {
  atom,
  binary,
  decode,
  Decoder,
  encode,
  Encoder,
  float,
  map,
  Pid,
  type Term,
  tuple,
} from "../src/erlang";

const require = createRequire(import.meta.url);
const erlang = require("erlang_js").Erlang as {
  binary_to_term(data: Buffer, done: (error: unknown, term: unknown) => void): void;
  term_to_binary(term: unknown, done: (error: unknown, data: Buffer) => void): void;
};
const etfJs = require("etf.js") as {
  unpack(data: Uint8Array): unknown;
  pack(term: unknown): Uint8Array;
};

function readErlangJs(data: Buffer): unknown {
  let result: unknown;
  erlang.binary_to_term(data, (error, term) => {
    if (error !== undefined && error !== null) throw error as Error;
    result = term;
  });
  return result;
}

function writeErlangJs(term: unknown): Buffer | undefined {
  let result: Buffer | undefined;
  erlang.term_to_binary(term, (error, data) => {
    if (error !== undefined && error !== null) throw error as Error;
    result = data;
  });
  return result;
}

const pid = new Pid(atom("shop@127.0.0.1"), 312, 0, 1_700_000_000);

/** What travels between nodes. */
const corpus: Record<string, Term> = {
  "a trace tuple (pids)": tuple(
    atom("trace_ts"),
    pid,
    atom("send"),
    tuple(atom("$gen_call"), tuple(pid, 1), atom("get")),
    pid,
    -576_460_000_123_456_789n,
  ),
  "a call's answer": tuple(
    atom("ok"),
    map([
      [atom("id"), 17],
      [atom("name"), binary("a name of some length")],
      [atom("price"), float(12.5)],
      [atom("tags"), [atom("new"), atom("sale"), atom("red")]],
      [atom("stock"), map({ berlin: 3, paris: 400, oslo: 70_000 })],
    ]),
  ),
  "1,000 process infos": Array.from({ length: 1_000 }, (_, i) =>
    tuple(i, [
      tuple(atom("message_queue_len"), i % 7),
      tuple(atom("memory"), 2_688 + i * 8),
      tuple(atom("reductions"), 1_000_000 + i * 12_345),
      tuple(atom("current_function"), tuple(atom("gen_server"), atom("loop"), 7)),
      tuple(atom("status"), atom("waiting")),
    ]),
  ),
  "10,000 integers": Array.from({ length: 10_000 }, (_, i) => i * 7919),
  "a 64 KiB binary": tuple(atom("data"), new Uint8Array(65_536).fill(7)),
};

/** Whether another library reads these bytes at all. */
function reads(read: () => unknown): boolean {
  try {
    return read() !== undefined;
  } catch {
    return false;
  }
}

for (const [name, term] of Object.entries(corpus)) {
  const bytes = encode(term);
  const buffer = Buffer.from(bytes);
  const decoder = new Decoder({ binaries: "view" });
  const encoder = new Encoder();
  group(`decode ${name} (${bytes.length} bytes)`, () => {
    summary(() => {
      bench("beamtrace", () => do_not_optimize(decode(bytes))).baseline(true);
      bench("beamtrace, views", () => do_not_optimize(decoder.decodeAt(bytes)));
      if (reads(() => readErlangJs(buffer))) {
        bench("erlang_js", () => do_not_optimize(readErlangJs(buffer)));
      }
      if (reads(() => etfJs.unpack(bytes))) {
        bench("etf.js", () => do_not_optimize(etfJs.unpack(bytes)));
      }
    });
  });
  group(`encode ${name}`, () => {
    summary(() => {
      bench("beamtrace", () => do_not_optimize(encode(term))).baseline(true);
      bench("beamtrace, into one buffer", () => do_not_optimize(encoder.reset().term(term).length));
      if (reads(() => writeErlangJs(readErlangJs(buffer)))) {
        const theirs = readErlangJs(buffer);
        bench("erlang_js", () => do_not_optimize(writeErlangJs(theirs)));
      }
      if (reads(() => etfJs.pack(etfJs.unpack(bytes)))) {
        const theirs = etfJs.unpack(bytes);
        bench("etf.js", () => do_not_optimize(etfJs.pack(theirs)));
      }
    });
  });
}

await run();
