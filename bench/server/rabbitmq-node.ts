/**
 * RabbitMQ of Debian as a child process: its own temporary directory, cookie, epmd and ports, all on the loopback interface.
 * An installed package is used as it lies; without one the package is downloaded by apt and unpacked into .cache, so that nothing is
 * installed and no service is ever started. RabbitMQ 3.10 needs the Erlang of the same Debian (OTP 25).
 */
import { execFile } from "node:child_process";
import { existsSync, rmSync } from "node:fs";
import { mkdir, mkdtemp, readdir, rename, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { freePort, startNode, type ErlNode } from "../../test/support/erl-node";

const run = promisify(execFile);
const CACHE = fileURLToPath(new URL("../../.cache/rabbitmq", import.meta.url));

/** Path of the start script below a root, if there is one. */
async function findScript(root: string): Promise<string | undefined> {
  const lib = join(root, "usr/lib/rabbitmq/lib");
  for (const name of existsSync(lib) ? await readdir(lib) : []) {
    const script = join(lib, name, "sbin/rabbitmq-server");
    if (existsSync(script)) return script;
  }
  return undefined;
}

async function download(): Promise<void> {
  const directory = await mkdtemp(join(tmpdir(), "beamtrace-rabbitmq-"));
  try {
    await run("apt-get", ["download", "rabbitmq-server"], { cwd: directory, timeout: 120_000 });
    const deb = (await readdir(directory)).find((name) => name.endsWith(".deb"));
    if (deb === undefined) throw new Error("apt-get download gave no package");
    await mkdir(CACHE, { recursive: true });
    const unpacked = await mkdtemp(join(CACHE, "unpacking-"));
    await run("dpkg-deb", ["-x", join(directory, deb), unpacked]);
    await rm(join(CACHE, "root"), { recursive: true, force: true });
    await rename(unpacked, join(CACHE, "root"));
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

async function serverScript(): Promise<string> {
  const found = (await findScript("/")) ?? (await findScript(join(CACHE, "root")));
  if (found !== undefined) return found;
  try {
    await download();
  } catch (error) {
    throw new Error(
      "RabbitMQ is not installed and could not be downloaded: this benchmark needs the Debian package rabbitmq-server (apt-get install rabbitmq-server, or a working apt source)",
      { cause: error },
    );
  }
  const script = await findScript(join(CACHE, "root"));
  if (script === undefined) throw new Error("the package rabbitmq-server holds no rabbitmq-server script");
  return script;
}

/** A running server. */
export interface RabbitNode {
  readonly node: ErlNode;
  /** Its AMQP port on 127.0.0.1. */
  readonly amqpPort: number;
  /** Ends the server and removes its directory. */
  stop(): Promise<void>;
}

/** Starts RabbitMQ and waits until it takes connections. */
export async function startRabbit(): Promise<RabbitNode> {
  const program = await serverScript();
  const directory = await mkdtemp(join(tmpdir(), "beamtrace-rabbitmq-"));
  const amqpPort = await freePort();
  const name = `rabbit${amqpPort}`;
  const path = (file: string): string => join(directory, file);
  await writeFile(
    path("rabbitmq.conf"),
    [
      `listeners.tcp.local = 127.0.0.1:${amqpPort}`,
      "log.console = false",
      "log.file.level = warning",
      "disk_free_limit.absolute = 50MB",
      "",
    ].join("\n"),
  );
  await writeFile(path("enabled_plugins"), "[].\n");
  await writeFile(path("env.conf"), "");
  let node: ErlNode | undefined;
  const removeDirectory = (): void => rmSync(directory, { recursive: true, force: true });
  process.once("exit", removeDirectory);
  const stop = async (): Promise<void> => {
    await node?.stop();
    removeDirectory();
    process.off("exit", removeDirectory);
  };
  try {
    node = await startNode({
      name,
      root: "",
      program,
      args: ["-kernel", "inet_dist_use_interface", "{127,0,0,1}"],
      env: {
        HOME: directory,
        RABBITMQ_ALLOW_INPUT: "true",
        RABBITMQ_BASE: directory,
        RABBITMQ_CONFIG_FILE: path("rabbitmq.conf"),
        RABBITMQ_CONF_ENV_FILE: path("env.conf"),
        RABBITMQ_ENABLED_PLUGINS_FILE: path("enabled_plugins"),
        RABBITMQ_FEATURE_FLAGS_FILE: path("feature_flags"),
        RABBITMQ_GENERATED_CONFIG_DIR: path("generated"),
        RABBITMQ_LOG_BASE: path("log"),
        RABBITMQ_MNESIA_BASE: path("mnesia"),
        RABBITMQ_NODENAME: `${name}@127.0.0.1`,
        RABBITMQ_NODE_IP_ADDRESS: "127.0.0.1",
        RABBITMQ_NODE_PORT: String(amqpPort),
        RABBITMQ_PID_FILE: path("pid"),
        RABBITMQ_SCHEMA_DIR: path("schema"),
        RABBITMQ_USE_LONGNAME: "true",
      },
    });
    // The node is killed first when this process exits; what is still written is removed after that.
    process.off("exit", removeDirectory).once("exit", removeDirectory);
    const listening = await node.eval(
      "{rabbit:is_running(), [P || {listener,_,amqp,_,_,P,_} <- rabbit_networking:active_listeners()]}",
    );
    if (listening !== `{true,[${amqpPort}]}`) throw new Error(`RabbitMQ does not listen: ${listening}`);
    return { node, amqpPort, stop };
  } catch (error) {
    const output = node?.output() ?? "";
    await stop();
    throw new Error(`RabbitMQ did not start${output === "" ? "" : `; its output:\n${output.slice(-2000)}`}`, {
      cause: error,
    });
  }
}
