import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { connect as tcpConnect } from "node:net";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { connect, epmdLookup, type ConnectOptions, type TlsOptions } from "../../src/erlang/dist";
import { atom, binary, Pid } from "../../src/erlang/term";
import { expectClean } from "../support/clean";
import { eventually, startNode, type ErlNode } from "../support/erl-node";
import { attachTo, collect } from "../support/traced";

const root = process.env["BEAMTRACE_OTP_ROOT"] ?? "";
const directory = mkdtempSync(`${root}/tmp/bt-tls-`);
/** The directory as the node sees it. */
const inside = directory.slice(root.length);
const file = (name: string): string => join(directory, name);
const pem = (name: string): Buffer => readFileSync(file(name));

let open: ErlNode;
let strict: ErlNode;
let plain: ErlNode;

function openssl(...args: string[]): void {
  execFileSync("openssl", args, { cwd: directory, stdio: "pipe" });
}

/** A certificate of our own authority. */
function certificate(name: string, subject: string, alt: string): void {
  openssl(
    "req",
    "-newkey",
    "rsa:2048",
    "-nodes",
    "-keyout",
    `${name}.key`,
    "-out",
    `${name}.csr`,
    "-subj",
    subject,
  );
  writeFileSync(file(`${name}.ext`), `subjectAltName=${alt}\n`);
  openssl(
    "x509",
    "-req",
    "-in",
    `${name}.csr`,
    "-CA",
    "ca.pem",
    "-CAkey",
    "ca.key",
    "-CAcreateserial",
    "-days",
    "2",
    "-extfile",
    `${name}.ext`,
    "-out",
    `${name}.pem`,
  );
}

function distOptions(name: string, server: string): string {
  const keys = `{certfile, "${inside}/node.pem"}, {keyfile, "${inside}/node.key"}, {cacertfile, "${inside}/ca.pem"}`;
  writeFileSync(
    file(name),
    `[{server, [${keys}, ${server}]}, {client, [${keys}, {verify, verify_none}]}].\n`,
  );
  return `${inside}/${name}`;
}

function startTls(optfile: string): Promise<ErlNode> {
  return startNode({ args: ["-proto_dist", "inet_tls", "-ssl_dist_optfile", optfile] });
}

beforeAll(async () => {
  openssl(
    "req",
    "-x509",
    "-newkey",
    "rsa:2048",
    "-nodes",
    "-keyout",
    "ca.key",
    "-out",
    "ca.pem",
    "-days",
    "2",
    "-subj",
    "/CN=beamtrace test CA",
  );
  certificate("node", "/CN=node.example", "DNS:node.example,IP:127.0.0.1");
  certificate("client", "/CN=client.example", "DNS:client.example");
  [open, strict, plain] = await Promise.all([
    startTls(distOptions("open.conf", "{verify, verify_none}")),
    startTls(distOptions("strict.conf", "{verify, verify_peer}, {fail_if_no_peer_cert, true}")),
    startNode(),
  ]);
});
afterAll(async () => {
  await Promise.all([open, strict, plain].map((node) => node?.stop()));
  rmSync(directory, { recursive: true, force: true });
});

function connectTls(node: ErlNode, tls: boolean | TlsOptions, more: ConnectOptions = {}) {
  return connect(node.name, { cookie: node.cookie, epmd: { port: node.epmdPort }, tls, ...more });
}

async function expectFailure(promise: Promise<unknown>, code: string): Promise<Error> {
  const error = await promise.then(
    () => expect.unreachable("it should not connect"),
    (e: unknown) => e as Error,
  );
  expect(error).toMatchObject({ code });
  return error;
}

describe("TLS distribution", () => {
  test("with the authority known, by address", async () => {
    const link = await connectTls(open, { ca: pem("ca.pem") });
    expect(await link.call("erlang", "node", [])).toBe(atom(open.name));
    const bytes = (await link.call("binary", "copy", [binary("ab"), 2_000_000])) as Uint8Array;
    expect(bytes.length).toBe(4_000_000);
    await link.close();
    expect(
      await eventually(
        () => open.eval("nodes(hidden)"),
        (v) => v === "[]",
      ),
    ).toBe("[]");
  });

  test("with a server name, and through a Duplex", async () => {
    const found = await epmdLookup(open.name.split("@", 1)[0] as string, "127.0.0.1", {
      port: open.epmdPort,
    });
    const socket = tcpConnect(found?.port ?? 0, "127.0.0.1");
    const tls = { ca: pem("ca.pem"), servername: "node.example" };
    const link = await connect({ duplex: socket }, { cookie: open.cookie, tls });
    expect(await link.call("erlang", "abs", [-1])).toBe(1);
    await link.close();
    expect(socket.destroyed).toBe(true);
  });

  test("without looking at the certificate, when told so", async () => {
    const link = await connectTls(open, { rejectUnauthorized: false });
    await link.close();
  });

  test("with a client certificate where the node demands one", async () => {
    const tls = { ca: pem("ca.pem"), cert: pem("client.pem"), key: pem("client.key") };
    const link = await connectTls(strict, tls);
    expect(await link.call("erlang", "abs", [-1])).toBe(1);
    await link.close();
  });

  test("an unknown authority, a wrong name, a key that is none", async () => {
    await expectFailure(connectTls(open, true), "BT_TLS_FAILED");
    await expectFailure(
      connectTls(open, { ca: pem("ca.pem"), servername: "other.example" }),
      "BT_TLS_FAILED",
    );
    await expectFailure(connectTls(open, { ca: pem("ca.pem"), cert: "no", key: "no" }), "BT_TLS_FAILED");
  });

  test("no client certificate where the node demands one", async () => {
    await expectFailure(connectTls(strict, { ca: pem("ca.pem") }), "BT_TLS_FAILED");
  });

  test("the wrong cookie", async () => {
    await expectFailure(connectTls(open, { ca: pem("ca.pem") }, { cookie: "wrong" }), "BT_COOKIE_REJECTED");
  });

  test("plain text to a TLS node, and TLS to a plain node", async () => {
    const toTls = connect(open.name, {
      cookie: open.cookie,
      epmd: { port: open.epmdPort },
      setupTimeoutMs: 3000,
    });
    const error = await expectFailure(toTls, "BT_NOT_A_NODE");
    expect(error.message).toContain("TLS");
    // A plain node takes the hello for the length of a long packet, and waits for the rest of it.
    const toPlain = connectTls(plain, { ca: pem("ca.pem") }, { setupTimeoutMs: 1000 });
    expect((await expectFailure(toPlain, "BT_TIMEOUT")).message).toContain("without TLS");
  });

  test("aborted while TLS is set up", async () => {
    const controller = new AbortController();
    const connecting = connectTls(open, { ca: pem("ca.pem") }, { signal: controller.signal });
    setImmediate(() => controller.abort());
    await expectFailure(connecting, "BT_ABORTED");
  });

  test("a trace of everything does not see its own connection, which would never end", async () => {
    const session = await attachTo(open, { tls: { ca: pem("ca.pem") } });
    const trace = await session.trace({ processes: "all", events: ["send", "receive"] });
    const seen = collect(trace);
    await open.eval("[self() ! {n, I} || I <- lists:seq(1, 1000)], ok");
    // Each of these crosses the connection while it is traced.
    for (let i = 0; i < 20; i++) await session.call("erlang", "node", []);
    await trace.stop();
    await seen.done;
    // <0.N.S> there is pid N, S here.
    const connection = await open.eval(
      `[[binary_to_integer(N) || N <- lists:droplast(tl(binary:split(list_to_binary(pid_to_list(P)), [<<".">>, <<">">>], [global])))] || P <- processes(), {dictionary, D} <- [process_info(P, dictionary)], lists:member(tls_dist_connection_sup, proplists:get_value('$ancestors', D, []))]`,
    );
    const processes = seen.events.flatMap((e) =>
      e.process instanceof Pid ? [`[${e.process.id},${e.process.serial}]`] : [],
    );
    expect(connection).toMatch(/\[\d+,\d+\],\[\d+,\d+\]/);
    expect(processes.length).toBeGreaterThanOrEqual(1000);
    expect(processes.filter((process) => connection.includes(process))).toEqual([]);
    expect(seen.events.filter((e) => e.kind === "receive" && e.shape.tags[0] === "n")).toHaveLength(1000);
    await session.close();
    await expectClean(open);
  });
});
