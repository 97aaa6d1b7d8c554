/** Recorded trace messages of a real application, see test/fixtures/README.md. */
import { readFileSync } from "node:fs";
import { gunzipSync } from "node:zlib";

export interface TraceFixture {
  readonly flags: readonly string[];
  readonly node: string;
  readonly otp: string;
  readonly timeOffset: bigint;
  readonly countByTag: Readonly<Record<string, number>>;
  /** One external term each. */
  readonly records: readonly Uint8Array[];
}

export type FixtureName =
  | "phoenix-calls"
  | "phoenix-gc"
  | "phoenix-ports"
  | "phoenix-running-scheduler"
  | "phoenix-send-receive-procs"
  | "phoenix-send-receive-procs-no-timestamp";

export function traceFixture(name: FixtureName): TraceFixture {
  const at = (suffix: string) => new URL(`../../fixtures/trace/${name}${suffix}`, import.meta.url);
  const info = JSON.parse(readFileSync(at(".json"), "utf8")) as {
    flags: string[];
    nodes: string[];
    otp: string;
    time_offset_ns: string;
    count_by_tag: Record<string, number>;
  };
  const bytes = gunzipSync(readFileSync(at(".etf.gz")));
  const records: Uint8Array[] = [];
  for (let offset = 0; offset < bytes.length;) {
    const length = bytes.readUInt32BE(offset);
    records.push(new Uint8Array(bytes.subarray(offset + 4, offset + 4 + length)));
    offset += 4 + length;
  }
  return {
    flags: info.flags,
    node: info.nodes[0]!,
    otp: info.otp,
    timeOffset: BigInt(info.time_offset_ns),
    countByTag: info.count_by_tag,
    records,
  };
}
