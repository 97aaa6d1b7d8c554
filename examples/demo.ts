/**
 * `npm run demo`: starts a real Erlang node with a small shop on it, attaches, shows for some seconds what its processes do, and then asks the
 * node itself whether anything was left behind. Without Erlang it replays a recording of a real Phoenix application, and says so;
 * BEAMTRACE_DEMO=replay asks for that. `npm run demo -- shop.btrec` replays a recording of your own.
 */
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { attach, openRecording, wallClockMs, type EventSource, type Session } from "beamtrace";
import { atom, type Atom } from "beamtrace/erlang";
import { Board } from "./demo/board";
import { hasErlang, startShop, type ShopNode } from "./demo/shop-node";

const CUSTOMERS = 12;
const seconds = Number(process.env["BEAMTRACE_DEMO_SECONDS"] ?? 6);

function say(label: string, text: string): void {
  console.log(`  ${label.padEnd(12)} ${text}`);
}

function number(n: number, digits = 0): string {
  return n.toLocaleString("en-US", { minimumFractionDigits: digits, maximumFractionDigits: digits });
}

/** Shows the source's events second by second until it ends: in one place of a terminal, one below the other elsewhere. */
async function show(source: EventSource, board: Board): Promise<void> {
  let second = 0;
  let height = 0;
  const draw = (): void => {
    const lines = ["", ...board.take(`second ${(second += 1)} of ${seconds}`)];
    const { isTTY, columns = 80 } = process.stdout;
    const erase = isTTY && height > 0 ? `\x1b[${height}A\x1b[J` : "";
    console.log(erase + lines.map((line) => (isTTY ? line.slice(0, columns) : line)).join("\n"));
    height = lines.length;
  };
  const timer = setInterval(draw, 1000);
  await source.events$.forEach((event) => board.add(event)).finally(() => clearInterval(timer));
  if (second < seconds) draw();
}

/** Lets the board show registered names instead of pids. */
async function learnNames(session: Session, board: Board): Promise<void> {
  const names = (await session.call("erlang", "registered", [])) as Atom[];
  const pids = await Promise.all(names.map((name) => session.call("erlang", "whereis", [name])));
  for (const [i, pid] of pids.entries()) board.know(pid, names[i]?.name ?? "");
}

async function live(): Promise<void> {
  console.log(`beamtrace: a small shop on a real Erlang node, watched live for ${seconds} seconds\n`);
  const shop = await startShop(CUSTOMERS);
  try {
    const begun = performance.now();
    await using session = await attach({ host: shop.host, port: shop.port }, { cookie: shop.cookie });
    const attachedMs = performance.now() - begun;
    const { info } = session;
    const processes = Number(await session.call("erlang", "system_info", [atom("process_count")]));
    say("node", `${info.node}, OTP ${info.otp}, ${info.schedulersOnline} schedulers, ${processes} processes`);
    say("attached", `in ${number(attachedMs)} ms, as a hidden node; it calls us ${info.self}`);
    const board = new Board(info.node);
    await learnNames(session, board);

    const trace = await session.trace({
      processes: "all",
      events: ["spawned", "exit", "register", "send", "receive", "gc"],
      limits: { seconds: seconds + 10 },
    });
    say("trace", "all processes; contents stay on the node, only shapes travel");
    const shown = show(trace, board);
    await Promise.race([sleep(seconds * 1000 + 100), trace.ended]);
    await trace.stop();
    await shown;
    const { kind } = await trace.ended;
    if (kind !== "stopped") throw new Error(`the trace ended too soon: ${kind}`);
    await session.close();

    const { node, lost } = trace.stats;
    if (board.total + lost !== node.received) throw new Error("delivered and lost events don't add up");
    console.log("");
    say(
      "stopped",
      `${number(node.received)} events on the node, ${number(board.total)} delivered, ${number(lost)} lost`,
    );
    say(
      "cost",
      `about ${number(node.overhead * 100, 1)} % on top of the node's own CPU, by its own estimate`,
    );
    await expectNothingLeft(shop);
    say("left there", "nothing: the node itself finds no trace flag, session, module,");
    say("", "process, name or connection of beamtrace's");
  } finally {
    await shop.stop();
  }
}

async function expectNothingLeft(shop: ShopNode): Promise<void> {
  const deadline = performance.now() + 2000;
  for (;;) {
    const left = await shop.leftovers();
    if (left === "[]") return;
    if (performance.now() > deadline) throw new Error(`something was left on the node: ${left}`);
    await sleep(50);
  }
}

/** Replays a recording in about the time that the demo takes. */
async function replay(path: string, what: string): Promise<void> {
  console.log(`beamtrace: ${what}\n`);
  await using recording = await openRecording(path);
  const [source] = recording.sources;
  const length = (recording.to - recording.from) / 1e9;
  const speed = Math.max(1, length / seconds);
  if (source !== undefined) {
    const day = new Date(wallClockMs(source, recording.from)).toISOString().slice(0, 10);
    say("node", `${source.node}, OTP ${source.otp}, recorded on ${day}`);
  }
  say(
    "recording",
    `${number(recording.events)} events of ${number(length, 1)} s, at ${number(speed, 1)} times the speed`,
  );
  await showParts(recording.replay({ speed }), source?.node ?? "");
  if (recording.damage.length > 0)
    throw new Error(`the recording is damaged: ${recording.damage[0]?.reason}`);
}

/** One board for each part of a recording; parts are told apart by markers of the name `segment`, as in the bundled one. */
async function showParts(source: EventSource, node: string): Promise<void> {
  let title = "all";
  let board = new Board(node);
  const draw = (): void => {
    if (board.total > 0) console.log(["", ...board.take(title)].join("\n"));
  };
  await source.events$.forEach((event) => {
    if (event.kind === "marker" && event.name === "segment") {
      draw();
      board = new Board(node);
      title = event.b instanceof Uint8Array ? Buffer.from(event.b).toString() : "…";
    } else board.add(event);
  });
  draw();
}

const bundled = fileURLToPath(new URL("../assets/demo.btrec", import.meta.url));
const bundledIs = "a recording of a real Phoenix application, not a live node:";
const [given] = process.argv.slice(2);
try {
  if (given !== undefined) await replay(given, `the recording ${given}`);
  else if (process.env["BEAMTRACE_DEMO"] === "replay")
    await replay(bundled, `${bundledIs}\nBEAMTRACE_DEMO=replay asked for it`);
  else if (!hasErlang()) {
    await replay(bundled, `${bundledIs}\nthere is no Erlang/OTP here, or one older than 25`);
    console.log("\n  To see a live node, install Erlang (Debian, Ubuntu: apt-get install erlang-base).");
  } else await live();
} catch (error) {
  console.error(`\nthe demo failed: ${error instanceof Error ? error.message : String(error)}`);
  process.exitCode = 1;
}
