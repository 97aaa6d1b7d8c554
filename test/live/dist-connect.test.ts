import { createServer, connect as tcpConnect, type AddressInfo, type Server, type Socket } from "node:net";
import { PassThrough } from "node:stream";
import { inspect } from "node:util";
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from "vitest";
import {
  connect,
  epmdLookup,
  epmdNames,
  type ConnectOptions,
  type ConnectTarget,
} from "../../src/erlang/dist";
import { atom } from "../../src/erlang/term";
import { eventually, freePort, startNode, type ErlNode } from "../support/erl-node";
import { connectTo } from "./dist-eval";

let node: ErlNode;
let port: number;
const servers: Server[] = [];

beforeAll(async () => {
  node = await startNode();
  port = (await epmdLookup(short(node.name), "127.0.0.1", { port: node.epmdPort }))?.port ?? 0;
});
afterAll(() => node.stop());
afterEach(async () => {
  for (const server of servers.splice(0)) server.close();
  vi.unstubAllEnvs();
  expect(
    await eventually(
      () => node.eval("nodes(hidden)"),
      (v) => v === "[]",
    ),
  ).toBe("[]");
});

function short(name: string): string {
  return name.split("@", 1)[0] as string;
}

/** A server that does what `serve` says with each connection. */
async function server(
  serve: (socket: Socket) => void,
): Promise<{ host: string; port: number; ended: () => number }> {
  let open = 0;
  const tcp = createServer((socket) => {
    open += 1;
    socket
      .on("error", () => undefined)
      .on("close", () => (open -= 1))
      .resume();
    serve(socket);
  });
  servers.push(tcp);
  await new Promise<void>((resolve) => tcp.listen(0, "127.0.0.1", resolve));
  return { host: "127.0.0.1", port: (tcp.address() as AddressInfo).port, ended: () => open };
}

async function codeOf(target: ConnectTarget, options: ConnectOptions): Promise<string> {
  const error = await errorOf(target, options);
  return String(error.code);
}

async function errorOf(target: ConnectTarget, options: ConnectOptions): Promise<Error & { code: string }> {
  try {
    const link = await connect(target, options);
    await link.close();
  } catch (error) {
    return error as Error & { code: string };
  }
  return expect.unreachable("it should not connect");
}

describe("epmd", () => {
  test("knows the node, its port and the versions that it speaks", async () => {
    const found = await epmdLookup(short(node.name), "127.0.0.1", { port: node.epmdPort });
    expect(found).toMatchObject({ name: short(node.name), hidden: false, highestVersion: 6 });
    expect(await epmdNames("127.0.0.1", { port: node.epmdPort })).toContainEqual({
      name: short(node.name),
      port,
    });
    expect(await epmdLookup("bt_nobody", "127.0.0.1", { port: node.epmdPort })).toBeUndefined();
  });

  test("ERL_EPMD_PORT is heeded", async () => {
    vi.stubEnv("ERL_EPMD_PORT", String(node.epmdPort));
    expect(await epmdNames("127.0.0.1")).not.toEqual([]);
    vi.stubEnv("ERL_EPMD_PORT", "no port");
    await expect(epmdNames("127.0.0.1")).rejects.toMatchObject({ code: "BT_OPTION_INVALID" });
  });

  test("something else on its port, silence, rubbish", async () => {
    const http = await server((socket) => socket.end("HTTP/1.1 400 Bad Request\r\n\r\n"));
    await expect(epmdLookup("x", "127.0.0.1", http)).rejects.toMatchObject({ code: "BT_EPMD_UNREACHABLE" });
    const silent = await server(() => undefined);
    await expect(epmdNames("127.0.0.1", { ...silent, timeoutMs: 50 })).rejects.toMatchObject({
      code: "BT_TIMEOUT",
    });
    const cut = await server((socket) => socket.end(Buffer.from([119, 0, 1])));
    await expect(epmdLookup("x", "127.0.0.1", cut)).rejects.toMatchObject({ code: "BT_EPMD_UNREACHABLE" });
  });
});

describe("reaching a node", () => {
  test("by name: hidden there, with a name that the node chose", async () => {
    const link = await connectTo(node);
    expect(link.peer).toMatchObject({ name: node.name, host: "127.0.0.1" });
    // The node lists whom it has heard: its side of the handshake may end after ours.
    expect(await link.call("erlang", "abs", [-1])).toBe(1);
    expect(await node.eval("{nodes(), nodes(hidden)}")).toBe(`{[],['${link.self.name}']}`);
    expect(await node.eval("nodes(known)")).toContain(node.name);
    await link.close();
    expect(await link.closed).toEqual({ kind: "closed" });
  });

  test("by name: a chosen one, with and without host part", async () => {
    for (const name of ["btviewer", "btviewer@example.org"]) {
      const link = await connectTo(node, { name });
      expect(link.self.name).toBe(name.includes("@") ? name : "btviewer@127.0.0.1");
      expect(await link.call("erlang", "abs", [-1])).toBe(1);
      expect(await node.eval("nodes(hidden)")).toBe(`['${link.self.name}']`);
      await link.close();
      await eventually(
        () => node.eval("nodes(hidden)"),
        (v) => v === "[]",
      );
    }
  });

  test("by address, without epmd", async () => {
    const link = await connect({ host: "127.0.0.1", port }, { cookie: node.cookie });
    expect(link.peer.name).toBe(node.name);
    await link.close();
  });

  test("through a Duplex of the caller", async () => {
    const socket = tcpConnect(port, "127.0.0.1");
    const link = await connect({ duplex: socket }, { cookie: node.cookie });
    expect(link.peer).toMatchObject({ name: node.name, host: "127.0.0.1" });
    expect(await link.call("erlang", "node", [])).toBe(atom(node.name));
    await link.close();
    expect(socket.destroyed).toBe(true);
  });

  test("the same name again is refused, unless it is to take the place", async () => {
    const first = await connectTo(node, { name: "bttwin" });
    const error = await connectTo(node, { name: "bttwin" }).catch((e: unknown) => e);
    expect(error).toMatchObject({ code: "BT_NOT_ALLOWED" });
    expect(await first.call("erlang", "abs", [-1])).toBe(1);
    const second = await connectTo(node, { name: "bttwin", replaceExisting: true });
    expect((await first.closed).kind).toBe("peer-closed");
    expect(await second.call("erlang", "abs", [-2])).toBe(2);
    await second.close();
  });

  test("twenty at once", async () => {
    const links = await Promise.all(Array.from({ length: 20 }, () => connectTo(node)));
    expect(new Set(links.map((link) => link.self.name)).size).toBe(20);
    await Promise.all(links.map((link) => link.close()));
  });
});

describe("what can go wrong", () => {
  test("a name that is none", async () => {
    for (const name of ["", "shop", "a@b@c", "@host", "shop@", "sh op@host", `${"x".repeat(300)}@h`]) {
      expect(await codeOf(name, { cookie: "x" })).toBe("BT_NODE_NAME_INVALID");
    }
    expect(await codeOf(node.name, { cookie: "x", name: "a b" })).not.toBe("");
    expect(await codeOf({ host: "127.0.0.1", port: 70000 }, { cookie: "x" })).toBe("BT_OPTION_INVALID");
    expect(await codeOf(node.name, { cookie: "x", tickMs: 0 })).toBe("BT_OPTION_INVALID");
    expect(await codeOf(node.name, { cookie: "" })).toBe("BT_OPTION_INVALID");
  });

  test("no epmd", async () => {
    const error = await errorOf(node.name, { cookie: "x", epmd: { port: await freePort() } });
    expect(error.code).toBe("BT_EPMD_UNREACHABLE");
    expect(error.message).toContain("ECONNREFUSED");
  });

  test("epmd does not know the node, and says whom it knows", async () => {
    const error = await errorOf("bt_nobody@127.0.0.1", { cookie: "x", epmd: { port: node.epmdPort } });
    expect(error.code).toBe("BT_NODE_NOT_FOUND");
    expect(error.message).toContain(short(node.name));
  });

  test("another node answers than the one that was asked for", async () => {
    const target = { host: "127.0.0.1", port, peerName: "other@127.0.0.1" };
    const error = await errorOf(target, { cookie: node.cookie });
    expect(error.code).toBe("BT_NODE_NOT_FOUND");
    expect(error.message).toContain(node.name);
  });

  test("a closed port", async () => {
    const closed = { host: "127.0.0.1", port: await freePort() };
    expect(await codeOf(closed, { cookie: "x" })).toBe("BT_NODE_UNREACHABLE");
  });

  test("no cookie", async () => {
    vi.stubEnv("HOME", "/nonexistent");
    const error = await errorOf(node.name, { epmd: { port: node.epmdPort } });
    expect(error.code).toBe("BT_COOKIE_MISSING");
  });

  test("the wrong cookie, which is shown nowhere", async () => {
    const cookie = "supersecretvalue";
    const error = await errorOf(node.name, { cookie, epmd: { port: node.epmdPort } });
    expect(error.code).toBe("BT_COOKIE_REJECTED");
    expect(inspect(error, { depth: 20, showHidden: true }) + JSON.stringify(error)).not.toContain(cookie);
  });

  test("the right cookie is not to be found in the link either", async () => {
    const link = await connectTo(node);
    expect(inspect(link, { depth: 30, showHidden: true })).not.toContain(node.cookie);
    await link.close();
  });

  test.each([
    ["an HTTP server", (socket: Socket) => socket.end("HTTP/1.1 400 Bad Request\r\n\r\n"), "BT_NOT_A_NODE"],
    ["an SSH server", (socket: Socket) => socket.write("SSH-2.0-OpenSSH_9.2\r\n"), "BT_NOT_A_NODE"],
    ["one that closes", (socket: Socket) => socket.end(), "BT_NOT_A_NODE"],
    [
      "one that resets",
      (socket: Socket) => socket.once("data", () => socket.resetAndDestroy()),
      "BT_NOT_A_NODE",
    ],
    ["a TLS listener", (s: Socket) => s.end(Buffer.from([0x15, 3, 3, 0, 2, 2, 40])), "BT_NOT_A_NODE"],
    ["half a packet", (s: Socket) => s.end(Buffer.from([0, 3, 0x73])), "BT_NOT_A_NODE"],
    ["handshake version 5", (s: Socket) => s.write(frame("n\x00\x05rest")), "BT_OTP_TOO_OLD"],
    ["not_allowed", (s: Socket) => s.write(frame("snot_allowed")), "BT_NOT_ALLOWED"],
    ["nok", (s: Socket) => s.write(frame("snok")), "BT_HANDSHAKE_FAILED"],
    ["an unknown status", (s: Socket) => s.write(frame("swhatever")), "BT_NOT_A_NODE"],
    ["ok, then close", (s: Socket) => s.end(frame("sok")), "BT_HANDSHAKE_FAILED"],
    [
      "ok, then a node without flags",
      (s: Socket) => s.write(Buffer.concat([frame("sok"), challenge(0n)])),
      "BT_OTP_TOO_OLD",
    ],
    ["a wrong proof", wrongProof, "BT_COOKIE_REJECTED"],
  ])("%s", async (_what, serve, code) => {
    const at = await server(serve);
    expect(await codeOf(at, { cookie: "secret", name: "me" })).toBe(code);
    await eventually(at.ended, (open) => open === 0);
  });

  test("a server that never answers", async () => {
    const silent = await server(() => undefined);
    const error = await errorOf(silent, { cookie: "x", setupTimeoutMs: 60 });
    expect(error.code).toBe("BT_TIMEOUT");
    expect(error.message).toContain("name");
    await eventually(silent.ended, (open) => open === 0);
  });

  test("a Duplex that fails, ends, or is dead already", async () => {
    const failing = new PassThrough();
    const connecting = codeOf({ duplex: failing }, { cookie: "x" });
    failing.destroy(new Error("cut"));
    expect(await connecting).toBe("BT_NOT_A_NODE");
    const dead = new PassThrough();
    dead.destroy();
    expect(await codeOf({ duplex: dead }, { cookie: "x" })).toBe("BT_NOT_A_NODE");
    const unused = new PassThrough();
    expect(await codeOf({ duplex: unused }, { cookie: "x", signal: AbortSignal.abort() })).toBe("BT_ABORTED");
    expect(unused.destroyed).toBe(true);
  });
});

describe("aborting", () => {
  test("before it starts", async () => {
    expect(await codeOf(node.name, { cookie: node.cookie, signal: AbortSignal.abort() })).toBe("BT_ABORTED");
  });

  test("while epmd is asked, and while the node should answer: nothing stays open", async () => {
    for (const stage of ["epmd", "handshake"] as const) {
      const controller = new AbortController();
      const silent = await server(() => controller.abort());
      const options = { cookie: "x", signal: controller.signal };
      const code =
        stage === "epmd"
          ? codeOf("x@127.0.0.1", { ...options, epmd: { port: silent.port } })
          : codeOf(silent, options);
      expect(await code).toBe("BT_ABORTED");
      await eventually(silent.ended, (open) => open === 0);
    }
  });

  test("at every packet of the handshake with a real node", async () => {
    for (let count = 0; count <= 3; count += 1) {
      const controller = new AbortController();
      let packets = 0;
      const proxy = await server((client) => {
        const upstream = tcpConnect(port, "127.0.0.1");
        client.on("data", (chunk) => upstream.write(chunk)).on("close", () => upstream.destroy());
        upstream.on("error", () => undefined).on("close", () => client.destroy());
        upstream.on("data", (chunk) => {
          if (packets++ === count) controller.abort();
          client.write(chunk);
        });
        if (count === 0) controller.abort();
      });
      const result = connect(proxy, { cookie: node.cookie, signal: controller.signal }).then(
        async (link) => (await link.close(), "connected"),
        (error: unknown) => (error as { code: string }).code,
      );
      expect(["BT_ABORTED", "connected"]).toContain(await result);
      await eventually(proxy.ended, (open) => open === 0);
    }
  });
});

function frame(text: string): Buffer {
  const body = Buffer.from(text, "latin1");
  const head = Buffer.alloc(2);
  head.writeUInt16BE(body.length);
  return Buffer.concat([head, body]);
}

function challenge(flags: bigint): Buffer {
  const body = Buffer.alloc(19 + 4);
  body.write("N");
  body.writeBigUInt64BE(flags, 1);
  body.writeUInt16BE(4, 17);
  body.write("a@b!", 19);
  return frame(body.toString("latin1"));
}

function wrongProof(socket: Socket): void {
  socket.write(Buffer.concat([frame("sok"), challenge(0xd07df7fbcn), frame(`a${"x".repeat(16)}`)]));
}
