/**
 * RabbitMQ of Debian as a child process: its own temporary directory, cookie, epmd and ports, all on the loopback interface.
 * An installed package is used as it lies; without one the package is downloaded by apt and unpacked into .cache, so that nothing is
 * installed and no service is ever started. RabbitMQ 3.10 needs the Erlang of the same Debian (OTP 25).
 */
import { existsSync, rmSync } from "node:fs";
import { mkdtemp, readdir, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { freePort, startNode, type ErlNode } from "../../test/support/erl-node";
import { unpackedPackages } from "./debian-packages";

/** Path of the start script below a root, if there is one. */
async function findScript(root: string): Promise<string | undefined> {
  const lib = join(root, "usr/lib/rabbitmq/lib");
  for (const name of existsSync(lib) ? await readdir(lib) : []) {
    const script = join(lib, name, "sbin/rabbitmq-server");
    if (existsSync(script)) return script;
  }
  return undefined;
}

/** The root of a filesystem in which the package lies: this machine's own when it is installed, else one that it is unpacked into. */
async function packageRoot(): Promise<string> {
  return (await findScript("/")) === undefined ? unpackedPackages("rabbitmq", ["rabbitmq-server"]) : "/";
}

async function serverScript(): Promise<string> {
  const script = await findScript(await packageRoot());
  if (script === undefined) throw new Error("the package rabbitmq-server holds no rabbitmq-server script");
  return script;
}

/** The `ebin` directories of applications that RabbitMQ brings along: cowboy and the like. */
export async function rabbitPlugins(names: readonly string[]): Promise<string[]> {
  const plugins = join(dirname(dirname(await serverScript())), "plugins");
  const present = await readdir(plugins);
  return names.map((name) => {
    const found = present.find((entry) => entry.startsWith(`${name}-`));
    if (found === undefined) throw new Error(`the package rabbitmq-server brings no ${name}`);
    return join(plugins, found, "ebin");
  });
}

/** Where RabbitMQ lies: the folder that holds `sbin` and `plugins`. */
export async function rabbitHome(): Promise<string> {
  return dirname(dirname(await serverScript()));
}

/** A running server. */
export interface RabbitNode {
  readonly node: ErlNode;
  /** Folder of its log files. */
  readonly logs: string;
  /** Its AMQP port on 127.0.0.1. */
  readonly amqpPort: number;
  /** Ends the server and removes its directory. */
  stop(): Promise<void>;
}

/** Starts RabbitMQ, the package's or that of another folder, and waits until it takes connections. */
export async function startRabbit(home?: string): Promise<RabbitNode> {
  const program = join(home ?? (await rabbitHome()), "sbin/rabbitmq-server");
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
    return { node, amqpPort, logs: path("log"), stop };
  } catch (error) {
    const output = node?.output() ?? "";
    await stop();
    throw new Error(`RabbitMQ did not start${output === "" ? "" : `; its output:\n${output.slice(-2000)}`}`, {
      cause: error,
    });
  }
}
