/**
 * The demo's own Erlang node, with the shop on it. It needs no epmd, and it ends when its standard input is closed: whichever way the demo
 * ends, also by `kill -9`, nothing stays behind.
 */
import { spawn, spawnSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { createServer, type AddressInfo } from "node:net";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

/** How long the node may take to start. */
const START_MS = 60_000;

/** A running shop. */
export interface ShopNode {
  readonly name: string;
  readonly cookie: string;
  readonly host: string;
  readonly port: number;
  /** Asks the node itself what is left of beamtrace on it, as printed terms: `"[]"` for nothing. */
  leftovers(): Promise<string>;
  stop(): Promise<void>;
}

/** Is there an `erl` here that is not too old? */
export function hasErlang(): boolean {
  const env = { ...process.env, ERL_CRASH_DUMP: "/dev/null" };
  const probe = 'halt(case erlang:system_info(otp_release) >= "25" of true -> 0; false -> 1 end).';
  return spawnSync("erl", ["-noshell", "-eval", probe], { stdio: "ignore", env }).status === 0;
}

async function freePort(host: string): Promise<number> {
  const server = createServer().listen(0, host);
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, "close");
  return port;
}

/** Starts the node, compiles the shop on it and opens it for so many customers. */
export async function startShop(customers: number): Promise<ShopNode> {
  const host = "127.0.0.1";
  const name = `shop@${host}`;
  const cookie = randomBytes(12).toString("hex");
  const port = await freePort(host);
  const files = ["shop_server.erl", "shop.erl", "leftovers.erl"].map((file) =>
    fileURLToPath(new URL(file, import.meta.url)),
  );
  const open = `
    lists:foreach(fun(File) ->
      {ok, Module, Beam} = compile:file(File, [binary]),
      {module, Module} = code:load_binary(Module, File, Beam)
    end, ${JSON.stringify(files)}),
    shop:start(${customers}),
    io:put_chars("open\\n"),
    leftovers:answer().`;
  const args = [
    ...["-noshell", "-name", name, "-setcookie", cookie],
    ...["-start_epmd", "false", "-erl_epmd_port", String(port)],
    ...["-kernel", "inet_dist_use_interface", "{127,0,0,1}", "logger_level", "none"],
    ...["+Bd", "-eval", open],
  ];
  // Port 1: no epmd there, so the node is known to nobody but us and can't clash with another one.
  const env = { ...process.env, ERL_EPMD_PORT: "1", ERL_CRASH_DUMP: "/dev/null" };
  const vm = spawn("erl", args, { env, stdio: ["pipe", "pipe", "inherit"] });
  const exited = once(vm, "exit");
  const failed = exited.then(([code]): never => {
    throw new Error(`the demo's Erlang node has ended with code ${String(code)}`);
  });
  failed.catch(() => undefined);
  vm.stdin.on("error", () => undefined);
  const lines = createInterface({ input: vm.stdout })[Symbol.asyncIterator]();
  const nextLine = async (prefix: string): Promise<string> => {
    for (;;) {
      const { value = "", done } = await Promise.race([lines.next(), failed]);
      if (value.startsWith(prefix)) return value.slice(prefix.length);
      if (done === true) return failed;
    }
  };
  const patience = setTimeout(() => vm.kill("SIGKILL"), START_MS);
  await nextLine("open").finally(() => clearTimeout(patience));
  return {
    name,
    cookie,
    host,
    port,
    leftovers: () => {
      vm.stdin.write("what is left?\n");
      return nextLine("left: ");
    },
    stop: async () => {
      vm.stdin.end();
      const timer = setTimeout(() => vm.kill("SIGKILL"), 3000);
      await exited;
      clearTimeout(timer);
    },
  };
}
