/** The port for build tools: what it answers to, and that what is no packet, no term or no request of its own ends in words, not in a crash. */
import { spawn } from "node:child_process";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { afterAll, beforeAll, expect, test } from "vitest";

import { atom, decode, type ErlMap, inspect, map, type Term, tuple, type Tuple } from "../../src/erlang";
import { type CompileServer, PacketEncoder, PacketReader } from "../../src/transform";
import { COMMAND } from "../support/build-project";
import { type ErlNode, startNode } from "../support/erl-node";
import { compileText, startCompiler } from "../support/transform";

let node: ErlNode;
let compiler: CompileServer;
let folder: string;

beforeAll(async () => {
  node = await startNode({ distributed: false });
  compiler = await startCompiler();
  folder = await mkdtemp(join(tmpdir(), "beamtrace-port-"));
});
afterAll(async () => {
  await compiler.close();
  await node.stop();
  await rm(folder, { recursive: true });
});

/** The port program, with a compiler at this end. */
class Client {
  private readonly child = spawn(process.execPath, [COMMAND, "port"], { stdio: ["pipe", "pipe", "pipe"] });
  private readonly waiting: ((term: Term) => void)[] = [];
  private readonly arrived: Term[] = [];
  complaints = "";
  readonly ended = new Promise<number | null>((resolve) => this.child.once("close", resolve));

  constructor() {
    const reader = new PacketReader((packet) => void this.received(decode(packet, { maxDepth: 1e7 })));
    this.child.stdout.on("data", (chunk: Buffer) => reader.push(chunk));
    this.child.stderr.on("data", (chunk: Buffer) => (this.complaints += chunk.toString()));
    this.child.stdin.on("error", () => undefined);
  }

  private async received(term: Term): Promise<void> {
    const [name, id, request] = (term as Tuple).elements;
    if (name === atom("compile")) {
      const answer = await (compiler as unknown as { ask(request: Term): Promise<Term> }).ask(
        request as Term,
      );
      return this.send(tuple(atom("compiled"), id as Term, answer));
    }
    const next = this.waiting.shift();
    if (next === undefined) this.arrived.push(term);
    else next(term);
  }

  raw(bytes: Uint8Array): void {
    this.child.stdin.write(bytes);
  }

  send(term: Term): void {
    this.raw(new PacketEncoder().encode(term));
  }

  next(): Promise<Term> {
    const arrived = this.arrived.shift();
    return arrived === undefined
      ? new Promise((resolve) => this.waiting.push(resolve))
      : Promise.resolve(arrived);
  }

  /** Sends a request and gives the answer to it, whichever comes first. */
  async ask(id: number, request: Term): Promise<Tuple> {
    this.send(tuple(id, request));
    const answer = (await this.next()) as Tuple;
    expect(answer.elements[0]).toBe(id);
    return answer.elements[1] as Tuple;
  }

  end(): Promise<number | null> {
    this.child.stdin.end();
    return this.ended;
  }
}

const bin = (text: string): Uint8Array => Buffer.from(text);
const field = (answer: Tuple, name: string): Term => (answer.elements[1] as ErlMap).get(atom(name)) as Term;
const textOf = (term: Term): string => Buffer.from(term as Uint8Array).toString();
const instrument = (plan: Term, bytes: Uint8Array, path = "ebin/m.beam"): Term =>
  tuple(atom("instrument"), plan, map({ bytes, path: bin(path), application: bin("shop") }));

test("a plan, several modules at a time, failures among them; the end of input ends it", async () => {
  const client = new Client();
  const hello = await client.ask(0, tuple(atom("hello"), 1));
  expect(
    Buffer.from(field(hello, "compiler") as Uint8Array)
      .subarray(0, 4)
      .toString(),
  ).toBe("FOR1");
  const path = join(folder, "plan.json");
  await writeFile(
    path,
    JSON.stringify({
      rules: [{ include: { application: "shop", function: "f" } }],
      environments: { dev: {}, prod: { inherit: false } },
    }),
  );
  const load = (environment: string): Term => tuple(atom("load_plan"), bin(path), bin(environment));
  const plan = field(await client.ask(1, load("dev")), "plan");
  const prod = await client.ask(2, load("prod"));
  expect(inspect(field(prod, "empty"))).toBe("true");
  const modules = await Promise.all(
    ["a", "b", "c", "d"].map((name) =>
      compileText(
        node,
        name,
        `-module(${name}).\n-export([${name === "d" ? "g" : "f"}/1]).\n${name === "d" ? "g" : "f"}(X) -> X.\n`,
      ),
    ),
  );
  const requests = [...modules, bin("no beam")];
  requests.forEach((bytes, i) => client.send(tuple(10 + i, instrument(plan, bytes))));
  const answers = new Map<number, Tuple>();
  for (const _ of requests) {
    const [id, answer] = ((await client.next()) as Tuple).elements as [number, Tuple];
    answers.set(id, answer);
  }
  const status = (id: number): string => inspect(field(answers.get(id) as Tuple, "status"));
  expect([10, 11, 12, 13].map(status)).toEqual(["instrumented", "instrumented", "instrumented", "unchanged"]);
  expect(textOf(field(answers.get(14) as Tuple, "code"))).toBe("BT_CORRUPT_BEAM");
  expect(textOf(field(answers.get(14) as Tuple, "file"))).toBe("ebin/m.beam");
  const again = await client.ask(20, instrument(field(prod, "plan"), modules[0] as Uint8Array));
  expect(inspect(field(again, "status"))).toBe("unchanged");
  expect(await client.end()).toBe(0);
  expect(client.complaints).toBe("");
});

test("requests that make no sense are refused one by one", async () => {
  const client = new Client();
  const requests: [Term, RegExp][] = [
    [atom("hello"), /there are the requests/],
    [tuple(atom("hello"), 2), /version 1/],
    [tuple(atom("load_plan")), /path must be a binary/],
    [tuple(atom("load_plan"), Buffer.from([0xff]), atom("undefined")), /must be UTF-8/],
    [tuple(atom("load_plan"), bin("/nowhere/plan.json"), atom("undefined")), /no such file/],
    [instrument(7, bin("")), /load it first/],
    [instrument(-1, bin("")), /load it first/],
    [tuple(atom("instrument"), 0, 0), /load it first/],
    [[1, 2, 3], /there are the requests/],
  ];
  for (const [i, [request, message]] of requests.entries()) {
    const answer = await client.ask(i, request);
    expect(inspect(answer.elements[0] as Term)).toBe("error");
    expect(textOf(field(answer, "message"))).toMatch(message);
  }
  expect(await client.end()).toBe(0);
});

test("what is no packet, no term or no part of the conversation ends it with a reason", async () => {
  const term = (value: Term): Uint8Array => new PacketEncoder().encode(value);
  const garbage: [Uint8Array, RegExp][] = [
    [bin("GET / HTTP/1.1\r\nHost: x\r\n\r\n"), /a packet of \d+ bytes; at most/],
    [Buffer.from([0, 0, 0, 3, 1, 2, 3]), /is no external term/],
    [Buffer.from([0, 0, 0, 0]), /is no external term/],
    [term(7), /neither \{Id, Request\} nor/],
    [term(tuple(atom("compiled"), 99, tuple(atom("ok"), 1))), /nothing was asked for/],
    [term(tuple(atom("compiled"), 0)), /neither/],
  ];
  for (const [bytes, message] of garbage) {
    const client = new Client();
    client.raw(bytes);
    const fatal = (await client.next()) as Tuple;
    expect(inspect(fatal.elements[0] as Term)).toBe("fatal");
    expect(textOf(field(fatal, "message"))).toMatch(message);
    expect([await client.ended, client.complaints]).toEqual([1, ""]);
  }
  const cut = new Client();
  cut.raw(Buffer.from([0, 0, 0, 9, 131]));
  const end = cut.end();
  expect(textOf(field((await cut.next()) as Tuple, "message"))).toMatch(/ends within a packet \(5 bytes/);
  expect(await end).toBe(1);
});

test("bytes at random never make it crash or hang", async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(fc.uint8Array({ maxLength: 40 }), { maxLength: 4 }), async (packets) => {
      const client = new Client();
      for (const bytes of packets) client.raw(Buffer.concat([Buffer.from([0, 0, 0, bytes.length]), bytes]));
      expect([0, 1]).toContain(await client.end());
      expect(client.complaints).toBe("");
    }),
    { numRuns: 15 },
  );
});
