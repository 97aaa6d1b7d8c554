import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import type { NodeLink } from "../../src/erlang/dist";
import { decode } from "../../src/erlang/etf";
import { atom, charlist, tuple, Tuple, type Pid, type Reference } from "../../src/erlang/term";
import { eventually, startNode, type ErlNode } from "../support/erl-node";
import { connectTo, evalOn, RecordingMailbox } from "./dist-eval";

let node: ErlNode;
let link: NodeLink;
let box: RecordingMailbox;

beforeAll(async () => {
  node = await startNode();
});
afterAll(() => node.stop());
beforeEach(async () => {
  link = await connectTo(node);
  box = new RecordingMailbox(link);
});
afterEach(async () => {
  await link.close();
  expect(
    await eventually(
      () => node.eval("nodes(hidden)"),
      (v) => v === "[]",
    ),
  ).toBe("[]");
});

/** A process on the node that waits for a message and exits with it. */
async function waiter(extra = ""): Promise<Pid> {
  return (await evalOn(link, `spawn(fun() -> ${extra} receive M -> exit(M) end end)`)) as Pid;
}

/** Whether `pid` of the node lives, asked without the link. */
function alive(pid: Pid): Promise<string> {
  return node.eval(`is_process_alive(list_to_pid("<0.${pid.id}.${pid.serial}>"))`);
}

describe("messages", () => {
  test("a process of the node sends to a mailbox, with its pid as sender", async () => {
    const sender = await evalOn(link, "P = self(), Box ! {hello, P, 1.5, <<1,2>>}, P", { Box: box.pid });
    const seen = await box.next();
    expect(seen).toMatchObject({ kind: "message", from: sender });
    expect(seen.kind === "message" && seen.message).toBeInstanceOf(Tuple);
  });

  test("messages keep their order", async () => {
    await evalOn(link, "[Box ! N || N <- lists:seq(1, 5000)], ok", { Box: box.pid });
    for (let n = 1; n <= 5000; n += 1) expect(await box.next()).toMatchObject({ message: n });
  });

  test("to a registered name, to a pid, to a process alias", async () => {
    const echo = (await evalOn(
      link,
      `spawn(fun() -> register(bt_echo, self()), A = alias(), Box ! {alias, A},
         (fun L() -> receive stop -> ok; M -> Box ! {got, M}, L() end end)() end)`,
      { Box: box.pid },
    )) as Pid;
    const first = await box.next();
    const alias = (first.kind === "message" && (first.message as Tuple).elements[1]) as Reference;
    link.send({ name: "bt_echo" }, atom("by_name"));
    link.send(echo, atom("by_pid"));
    link.send(alias, atom("by_alias"));
    for (const how of ["by_name", "by_pid", "by_alias"]) {
      expect(await box.next()).toMatchObject({ message: tuple(atom("got"), atom(how)) });
    }
    link.send(echo, atom("stop"));
  });

  test("messages with a trace token arrive", async () => {
    await evalOn(link, "seq_trace:set_token(label, 17), Box ! traced, seq_trace:set_token([]), ok", {
      Box: box.pid,
    });
    expect(await box.next()).toMatchObject({ message: atom("traced") });
  });

  test("a raw mailbox gets the payload as bytes", async () => {
    const payloads: unknown[] = [];
    const raw = link.createMailbox({
      onRaw: (bytes) => payloads.push([bytes[0], decode(bytes)]),
    });
    await evalOn(link, "Box ! {batch, 1, [a, b]}, seq_trace:set_token(label, 1), Box ! token, ok", {
      Box: raw,
    });
    expect(payloads).toEqual([
      [131, tuple(atom("batch"), 1, [atom("a"), atom("b")])],
      [131, atom("token")],
    ]);
  });

  test("between two mailboxes of the same link nothing goes over the wire", async () => {
    const before = link.bytesOut;
    link.send(box.pid, atom("self"));
    expect(await box.next()).toMatchObject({ message: atom("self") });
    expect(link.bytesOut).toBe(before);
  });

  test("a handler that throws does not harm the link", async () => {
    const uncaught: unknown[] = [];
    const listeners = process.listeners("uncaughtException");
    process.removeAllListeners("uncaughtException");
    process.once("uncaughtException", (error) => uncaught.push(error));
    try {
      const bad = link.createMailbox({
        onMessage() {
          throw new Error("thrown by the test");
        },
      });
      await evalOn(link, "Box ! x, ok", { Box: bad });
      await eventually(
        () => uncaught.length,
        (n) => n === 1,
      );
      expect(await link.call("erlang", "abs", [-1])).toBe(1);
    } finally {
      process.removeAllListeners("uncaughtException");
      for (const listener of listeners) process.on("uncaughtException", listener);
    }
  });
});

describe("monitors", () => {
  test("tell the end of a process with its reason", async () => {
    const pid = await waiter();
    const ref = link.monitor(box.pid, pid);
    link.send(pid, tuple(atom("bye"), 42));
    expect(await box.next()).toEqual({ kind: "down", ref, from: pid, reason: tuple(atom("bye"), 42) });
  });

  test("by name, and noproc", async () => {
    const pid = await waiter("register(bt_watched, self()),");
    await eventually(
      () => node.eval("whereis(bt_watched)"),
      (v) => v !== "undefined",
    );
    const ref = link.monitor(box.pid, "bt_watched");
    link.send(pid, atom("over"));
    expect(await box.next()).toMatchObject({
      kind: "down",
      ref,
      from: atom("bt_watched"),
      reason: atom("over"),
    });
    const none = link.monitor(box.pid, "bt_nobody_here");
    expect(await box.next()).toMatchObject({ ref: none, reason: atom("noproc") });
  });

  test("demonitor takes it back", async () => {
    const pid = await waiter();
    const ref = link.monitor(box.pid, pid);
    link.demonitor(ref);
    link.send(pid, atom("unseen"));
    await eventually(
      () => alive(pid),
      (v) => v === "false",
    );
    expect(await link.call("erlang", "abs", [-1])).toBe(1);
    expect(box.seen).toEqual([]);
  });

  test("processes of the node monitor our mailboxes", async () => {
    const watcher = new RecordingMailbox(link);
    const monitorIt = `spawn(fun() -> R = monitor(process, Box), W ! ready,
      receive {'DOWN', R, process, P, Why} -> W ! {down, P =:= Box, Why} end end)`;
    await evalOn(link, monitorIt, { Box: box.pid, W: watcher.pid });
    await watcher.next();
    link.closeMailbox(box.pid, atom("done"));
    expect(await watcher.next()).toMatchObject({ message: tuple(atom("down"), atom("true"), atom("done")) });
    // One that has gone: noproc.
    await evalOn(link, monitorIt, { Box: box.pid, W: watcher.pid });
    await watcher.next();
    expect(await watcher.next()).toMatchObject({
      message: tuple(atom("down"), atom("true"), atom("noproc")),
    });
  });

  test("processes of the node that take their monitor back", async () => {
    await evalOn(link, "R = monitor(process, Box), demonitor(R), ok", { Box: box.pid });
    link.closeMailbox(box.pid);
    expect(await link.call("erlang", "abs", [-1])).toBe(1);
  });
});

describe("links", () => {
  test("we link, the process ends, the mailbox hears of it once", async () => {
    const pid = await waiter();
    link.link(box.pid, pid);
    link.link(box.pid, pid);
    link.send(pid, charlist("why"));
    expect(await box.next()).toEqual({ kind: "exit", from: pid, reason: charlist("why") });
    expect(await link.call("erlang", "abs", [-1])).toBe(1);
    expect(box.seen.length).toBe(1);
  });

  test("we link, the mailbox closes, the process ends with its reason", async () => {
    const watcher = new RecordingMailbox(link);
    const pid = await waiter();
    link.link(box.pid, pid);
    link.monitor(watcher.pid, pid);
    link.closeMailbox(box.pid, atom("crash"));
    expect(await watcher.next()).toMatchObject({ kind: "down", reason: atom("crash") });
  });

  test("the process links, and unlinks again", async () => {
    await evalOn(link, "link(Box), unlink(Box), ok", { Box: box.pid });
    const pid = await waiter("link(Box), unlink(Box), Box ! ready,".replaceAll("Box", boxText()));
    await box.next();
    link.send(pid, atom("silent"));
    await eventually(
      () => alive(pid),
      (v) => v === "false",
    );
    expect(await link.call("erlang", "abs", [-1])).toBe(1);
    expect(box.seen.filter((s) => s.kind === "exit")).toEqual([]);
  });

  test("the process links and dies of it when the mailbox closes", async () => {
    const watcher = new RecordingMailbox(link);
    const pid = (await evalOn(link, "spawn(fun() -> link(Box), Box ! ready, receive _ -> ok end end)", {
      Box: box.pid,
    })) as Pid;
    await box.next();
    link.monitor(watcher.pid, pid);
    link.closeMailbox(box.pid, atom("gone"));
    expect(await watcher.next()).toMatchObject({ reason: atom("gone") });
  });

  test("a link to a pid that is none gives noproc", async () => {
    const pid = await waiter();
    link.exit(box.pid, pid, atom("kill"));
    await eventually(
      () => alive(pid),
      (v) => v === "false",
    );
    link.link(box.pid, pid);
    expect(await box.next()).toMatchObject({ kind: "exit", from: pid, reason: atom("noproc") });
    link.closeMailbox(box.pid);
    const watcher = new RecordingMailbox(link);
    await evalOn(link, "process_flag(trap_exit, true), link(Box), receive {'EXIT', Box, R} -> W ! R end", {
      Box: box.pid,
      W: watcher.pid,
    });
    expect(await watcher.next()).toMatchObject({ message: atom("noproc") });
  });

  test("unlinking and linking again in a hurry leaves exactly one working link", async () => {
    const pid = await waiter();
    for (let i = 0; i < 100; i += 1) {
      link.link(box.pid, pid);
      link.unlink(box.pid, pid);
    }
    link.link(box.pid, pid);
    link.send(pid, atom("end"));
    expect(await box.next()).toMatchObject({ kind: "exit", reason: atom("end") });
    const other = await waiter();
    link.link(box.pid, other);
    link.unlink(box.pid, other);
    link.send(other, atom("unheard"));
    await eventually(
      () => alive(other),
      (v) => v === "false",
    );
    expect(await link.call("erlang", "abs", [-1])).toBe(1);
    expect(box.seen.length).toBe(1);
  });

  test("exit/2 both ways", async () => {
    const watcher = new RecordingMailbox(link);
    const pid = await waiter();
    link.monitor(watcher.pid, pid);
    link.exit(box.pid, pid, tuple(atom("stop"), 1));
    expect(await watcher.next()).toMatchObject({ reason: tuple(atom("stop"), 1) });
    await evalOn(link, "exit(Box, please), ok", { Box: box.pid });
    expect(await box.next()).toMatchObject({ kind: "exit", reason: atom("please") });
  });

  test("an exit that carries a trace token", async () => {
    await evalOn(link, "seq_trace:set_token(label, 3), exit(Box, traced), seq_trace:set_token([]), ok", {
      Box: box.pid,
    });
    expect(await box.next()).toMatchObject({ kind: "exit", reason: atom("traced") });
  });

  function boxText(): string {
    // Within a fun body the binding has to travel as text.
    const { node: name, id, serial, creation } = box.pid;
    return `binary_to_term(<<131,88,119,${Buffer.byteLength(name.name)},"${name.name}",${id}:32,${serial}:32,${creation}:32>>)`;
  }
});

describe("spawn_request", () => {
  test("starts a process, linked and monitored", async () => {
    const pid = await link.spawnRequest(
      box.pid,
      { module: "timer", function: "sleep" },
      [atom("infinity")],
      [atom("link"), atom("monitor"), tuple(atom("message_queue_data"), atom("off_heap"))],
    );
    link.exit(box.pid, pid, atom("kill"));
    const seen = [await box.next(), await box.next()];
    expect(seen.map((s) => s.kind).sort()).toEqual(["down", "exit"]);
    for (const s of seen) expect(s).toMatchObject({ from: pid, reason: atom("killed") });
  });

  test("bad options and functions that don't exist", async () => {
    const run = { module: "timer", function: "sleep" };
    await expect(link.spawnRequest(box.pid, run, [1], [atom("no_such_option")])).rejects.toMatchObject({
      code: "BT_REMOTE_ERROR",
      class: "error",
      reason: atom("badopt"),
    });
    const pid = await link.spawnRequest(box.pid, { module: "nope", function: "nope" }, [], [atom("monitor")]);
    const down = await box.next();
    expect(down).toMatchObject({ kind: "down", from: pid });
    expect(down.kind === "down" && (down.reason as Tuple).elements[0]).toBe(atom("undef"));
  });

  test("closing the mailbox before the answer leaves no process behind", async () => {
    const spawning = link.spawnRequest(
      box.pid,
      { module: "timer", function: "sleep" },
      [atom("infinity")],
      [atom("link")],
    );
    link.closeMailbox(box.pid, atom("kill"));
    const pid = await spawning;
    await eventually(
      () => alive(pid),
      (v) => v === "false",
    );
  });

  test("the node may not start processes here", async () => {
    const watcher = new RecordingMailbox(link);
    const self = atom(link.self.name);
    const code = `R = spawn_request(N, erlang, abs, [1]), receive {spawn_reply, R, error, Why} -> W ! Why end`;
    await evalOn(link, code, { N: self, W: watcher.pid });
    expect(await watcher.next()).toMatchObject({ message: atom("notsup") });
  });
});

test("nothing of ours stays on the node: no link, no monitor, no process", async () => {
  const sleepers = () =>
    node.eval(
      "length([P || P <- processes(), process_info(P, current_function) =:= {current_function, {timer, sleep, 1}}])",
    );
  const keeper = "bt_keeper";
  await node.eval(`register(${keeper}, spawn(fun() -> process_flag(trap_exit, true),
    (fun L() -> receive stop -> ok; _ -> L() end end)() end))`);
  const pid = (await link.call("erlang", "whereis", [atom(keeper)])) as Pid;
  link.link(box.pid, pid);
  link.monitor(box.pid, pid);
  await evalOn(link, "P ! x, erlang:monitor(process, B), ok", { P: pid, B: box.pid });
  void link.call("timer", "sleep", [atom("infinity")]).catch(() => undefined);
  await eventually(sleepers, (v) => v === "1");
  expect(await link.call("erlang", "abs", [-1])).toBe(1);
  await link.close();
  await eventually(
    () => node.eval("nodes(hidden)"),
    (v) => v === "[]",
  );
  await eventually(sleepers, (v) => v === "0");
  expect(await node.eval(`process_info(whereis(${keeper}), [links, monitors, monitored_by])`)).toBe(
    "[{links,[]},{monitors,[]},{monitored_by,[]}]",
  );
  await node.eval(`${keeper} ! stop`);
});
