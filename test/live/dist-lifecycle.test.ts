import { connect as tcpConnect, createServer, type AddressInfo, type Server, type Socket } from "node:net";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { connect, epmdLookup, type NodeLink } from "../../src/erlang/dist";
import { atom, binary, Tuple, type Pid } from "../../src/erlang/term";
import { eventually, startNode, type ErlNode } from "../support/erl-node";
import { connectTo, evalOn, RecordingMailbox } from "./dist-eval";

let node: ErlNode;
const servers: Server[] = [];

beforeEach(async () => {
  node = await startNode({ args: ["-kernel", "net_ticktime", "4"] });
});
afterEach(async () => {
  for (const server of servers.splice(0)) server.close();
  await node.stop();
});

async function portOf(): Promise<number> {
  const found = await epmdLookup(node.name.split("@", 1)[0] as string, "127.0.0.1", { port: node.epmdPort });
  return found?.port ?? 0;
}

/** A TCP relay to the node whose two ends the test holds in its hands. */
async function relay(): Promise<{ port: number; pairs: { client: Socket; upstream: Socket }[] }> {
  const port = await portOf();
  const pairs: { client: Socket; upstream: Socket }[] = [];
  const server = createServer((client) => {
    const upstream = tcpConnect(port, "127.0.0.1");
    pairs.push({ client, upstream });
    client.on("error", () => undefined).on("close", () => upstream.destroy());
    upstream.on("error", () => undefined).on("close", () => client.destroy());
    client.on("data", (chunk) => upstream.write(chunk));
    upstream.on("data", (chunk) => client.write(chunk));
  });
  servers.push(server);
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return { port: (server.address() as AddressInfo).port, pairs };
}

/** One of everything that waits for the node. */
async function waiting(link: NodeLink) {
  const box = new RecordingMailbox(link);
  const pid = await link.spawnRequest(
    box.pid,
    { module: "timer", function: "sleep" },
    [atom("infinity")],
    [atom("link"), atom("monitor")],
  );
  const byName = link.monitor(box.pid, "kernel_sup");
  const call = link.call("timer", "sleep", [atom("infinity")]).catch((error: unknown) => error);
  const rex = link
    .call("timer", "sleep", [atom("infinity")], { method: "rex" })
    .catch((error: unknown) => error);
  return { box, pid, byName, call, rex };
}

async function expectNoconnection(
  link: NodeLink,
  { box, pid, byName, call, rex }: Awaited<ReturnType<typeof waiting>>,
  code: string,
) {
  expect(await call).toMatchObject({ code: expect.stringMatching(`${code}|BT_CONNECTION_LOST`) });
  expect(await rex).toMatchObject({ code: expect.stringMatching(`${code}|BT_CONNECTION_LOST`) });
  const noconnection = atom("noconnection");
  expect(box.seen).toContainEqual({ kind: "exit", from: pid, reason: noconnection });
  expect(box.seen).toContainEqual({
    kind: "down",
    from: atom("kernel_sup"),
    ref: byName,
    reason: noconnection,
  });
  expect(box.seen.filter((s) => s.kind === "down" && s.from === pid).length).toBeLessThanOrEqual(1);
  expect(box.seen.length).toBe(3);
  await expect(link.call("erlang", "abs", [1])).rejects.toMatchObject({ code });
  // What is asked of a link that has ended is answered as of a node that is not connected.
  const late = link.monitor(box.pid, pid);
  link.link(box.pid, pid);
  link.send(pid, atom("lost"));
  await eventually(
    () => box.seen.length,
    (n) => n === 5,
  );
  expect(box.seen).toContainEqual({ kind: "down", from: pid, ref: late, reason: noconnection });
}

describe("the link ends", () => {
  test("by close(): all that waits is settled, the node forgets us", async () => {
    const link = await connectTo(node);
    const pending = await waiting(link);
    await Promise.all([link.close(), link.close()]);
    expect(await link.closed).toEqual({ kind: "closed" });
    await expectNoconnection(link, pending, "BT_CLOSED");
    expect(
      await eventually(
        () => node.eval("nodes(hidden)"),
        (v) => v === "[]",
      ),
    ).toBe("[]");
    await link.close();
  });

  test("because the node is killed", async () => {
    const link = await connectTo(node);
    const pending = await waiting(link);
    node.kill("SIGKILL");
    expect(["peer-closed", "connection-lost"]).toContain((await link.closed).kind);
    await expectNoconnection(link, pending, "BT_CONNECTION_LOST");
  });

  test("because the node disconnects us", async () => {
    const link = await connectTo(node);
    const pending = await waiting(link);
    await node.eval(`erlang:disconnect_node('${link.self.name}')`);
    // The node's system resets the connection when something of ours is still unread there.
    expect(["peer-closed", "connection-lost"]).toContain((await link.closed).kind);
    await expectNoconnection(link, pending, "BT_CONNECTION_LOST");
  });

  test("because the socket is cut in the middle of a frame", async () => {
    const { port, pairs } = await relay();
    const link = await connect({ host: "127.0.0.1", port }, { cookie: node.cookie });
    const { client, upstream } = pairs[0] as { client: Socket; upstream: Socket };
    upstream.removeAllListeners("data").resume();
    const call = link.call("erlang", "abs", [1]).catch((error: unknown) => error);
    client.end(Buffer.from([0, 0, 1, 0, 112, 131]));
    const reason = await link.closed;
    expect(reason).toMatchObject({ kind: "connection-lost", error: { code: "BT_CONNECTION_LOST" } });
    expect(reason.kind === "connection-lost" && reason.error.message).toContain("middle of a frame");
    expect(await call).toMatchObject({ code: "BT_CONNECTION_LOST" });
  });

  test("because of a reset", async () => {
    const { port, pairs } = await relay();
    const link = await connect({ host: "127.0.0.1", port }, { cookie: node.cookie });
    pairs[0]?.client.resetAndDestroy();
    expect(await link.closed).toMatchObject({ kind: "connection-lost" });
  });

  test("because of a frame over the limit", async () => {
    const link = await connectTo(node, { maxFrameBytes: 10_000 });
    const call = link.call("binary", "copy", [binary("x"), 20_000]).catch((error: unknown) => error);
    const reason = await link.closed;
    expect(reason).toMatchObject({ kind: "protocol-error" });
    expect(reason.kind === "protocol-error" && reason.error.message).toContain("maxFrameBytes");
    expect(await call).toMatchObject({ code: "BT_CONNECTION_LOST" });
    expect(
      await eventually(
        () => node.eval("nodes(hidden)"),
        (v) => v === "[]",
      ),
    ).toBe("[]");
  });

  test.each([
    ["a frame of an unknown type", Buffer.from([0, 0, 0, 2, 113, 131])],
    ["a control message that is no term", Buffer.from([0, 0, 0, 3, 112, 131, 255])],
    ["a control message that is no tuple", Buffer.from([0, 0, 0, 4, 112, 131, 97, 1])],
    ["a malformed control message", Buffer.from([0, 0, 0, 7, 112, 131, 104, 2, 97, 1, 106])],
  ])("because of %s", async (_what, bytes) => {
    const { port, pairs } = await relay();
    const link = await connect({ host: "127.0.0.1", port }, { cookie: node.cookie });
    pairs[0]?.client.write(bytes);
    expect(await link.closed).toMatchObject({
      kind: "protocol-error",
      error: { code: "BT_CONNECTION_LOST" },
    });
  });

  test("not because of an operation that is unknown", async () => {
    const { port, pairs } = await relay();
    const link = await connect({ host: "127.0.0.1", port }, { cookie: node.cookie });
    pairs[0]?.client.write(Buffer.from([0, 0, 0, 6, 112, 131, 104, 1, 97, 99]));
    expect(await link.call("erlang", "abs", [-1])).toBe(1);
    await link.close();
  });
});

describe("ticks", () => {
  test("a node with a net_ticktime of 4 s keeps us, although nothing else is said", async () => {
    const link = await connectTo(node);
    let ended = false;
    void link.closed.then(() => (ended = true));
    const before = { in: link.bytesIn, out: link.bytesOut };
    // Six ticks from the node are more than its time-out.
    await eventually(
      () => link.bytesIn - before.in,
      (bytes) => bytes >= 6 * 4,
      30_000,
    );
    expect(link.bytesOut).toBeGreaterThan(before.out);
    expect(ended).toBe(false);
    expect(await link.call("erlang", "abs", [-1])).toBe(1);
    await link.close();
  });

  test("a peer that falls silent is given up", async () => {
    const link = await connectTo(node, { tickMs: 50, silenceMs: 3000 });
    const pending = await waiting(link);
    node.kill("SIGSTOP");
    try {
      expect(await link.closed).toMatchObject({ kind: "tick-timeout" });
      await expectNoconnection(link, pending, "BT_CONNECTION_LOST");
    } finally {
      node.kill("SIGCONT");
    }
  });

  test("close() does not wait for a peer that is silent", async () => {
    const link = await connectTo(node);
    node.kill("SIGSTOP");
    try {
      await link.close();
      expect(await link.closed).toEqual({ kind: "closed" });
    } finally {
      node.kill("SIGCONT");
    }
  });
});

describe("back-pressure", () => {
  test("while we don't read, the node's queue fills; then everything arrives, in order", async () => {
    const link = await connectTo(node);
    const sizes: number[] = [];
    const box = link.createMailbox({
      onMessage: (message) => sizes.push((message as Tuple).elements[0] as number),
    });
    const sender = new RecordingMailbox(link);
    const code = `spawn(fun() -> B = binary:copy(<<0>>, 65536), [P ! {N, B} || N <- lists:seq(1, 400)], D ! sent end)`;
    link.pause();
    // The answers to these calls can't be read either; the node does the work all the same.
    await node.eval(
      `register(bt_sender, spawn(fun() -> receive {P, D} -> ${code.replace("spawn(fun() ->", "(fun() ->").replace(/\)$/, ")()")} end end))`,
    );
    link.send({ name: "bt_sender" }, new Tuple([box, sender.pid]));
    const status = await eventually(
      () =>
        node.eval(
          "case whereis(bt_sender) of undefined -> gone; P -> element(2, process_info(P, status)) end",
        ),
      (s) => s === "suspended",
    );
    expect(status).toBe("suspended");
    expect(sizes.length).toBe(0);
    link.resume();
    await sender.next();
    expect(sizes).toEqual(Array.from({ length: 400 }, (_, n) => n + 1));
    await link.close();
  });

  test("while the node doesn't read, drained() waits and pendingBytes tells how much", async () => {
    const link = await connectTo(node);
    const box = new RecordingMailbox(link);
    const sink = (await evalOn(
      link,
      `spawn(fun L() -> receive {stop, From} -> From ! done; _ -> L() end end)`,
    )) as Pid;
    await link.drained();
    node.kill("SIGSTOP");
    const chunk = new Uint8Array(1 << 20);
    for (let n = 0; n < 32; n += 1) link.send(sink, chunk);
    await new Promise((resolve) => setImmediate(resolve));
    expect(link.pendingBytes).toBeGreaterThan(1 << 20);
    let drained = false;
    const draining = link.drained().then(() => (drained = true));
    await new Promise((resolve) => setImmediate(resolve));
    expect(drained).toBe(false);
    node.kill("SIGCONT");
    await draining;
    link.send(sink, new Tuple([atom("stop"), box.pid]));
    expect(await box.next()).toMatchObject({ message: atom("done") });
    expect(link.bytesOut).toBeGreaterThan(32 * chunk.length);
    await link.close();
    await link.drained();
  });
});
