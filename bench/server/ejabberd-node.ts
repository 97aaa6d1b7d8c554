/**
 * ejabberd of Debian as a child process: its own temporary directory, cookie, epmd and port, all on the loopback interface. Plain XMPP without TLS
 * (the load is chat, not cryptography), accounts in Mnesia, no archive, no offline store.
 */
import { rmSync } from "node:fs";
import { mkdtemp, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { delimiter, join } from "node:path";
import { eventually, freePort, startNode, type ErlNode } from "../../test/support/erl-node";
import { libraryPaths, unpackedPackages } from "./debian-packages";

/** ejabberd and what it stands on, but for Erlang/OTP itself. */
const PACKAGES = [
  "ejabberd",
  ...["base64url", "goldrush", "idna", "jiffy", "jose", "lager", "unicode-util-compat"].map(
    (p) => `erlang-${p}`,
  ),
  ...["acme", "cache-tab", "eimp", "mqtree", "pkix", "stringprep", "stun", "tls", "utils", "xml", "xmpp"].map(
    (p) => `erlang-p1-${p}`,
  ),
  ...["yaml", "yconf", "zlib"].map((p) => `erlang-p1-${p}`),
  ...["libyaml-0-2", "libexpat1"],
];

/** The XMPP domain. */
export const DOMAIN = "localhost";

const configuration = (port: number): string => `
hosts: ["${DOMAIN}"]
loglevel: error
log_rotate_count: 0
certfiles: []
acme:
  auto: false
listen:
  -
    port: ${port}
    ip: "127.0.0.1"
    module: ejabberd_c2s
    access: c2s
    starttls: false
auth_method: internal
auth_password_format: plain
access_rules:
  c2s:
    allow: all
modules:
  mod_roster: {}
  mod_private: {}
  mod_disco: {}
  mod_ping: {}
`;

/** The folder that stands for `/` of the unpacked packages. */
export const ejabberdRoot = (): Promise<string> => unpackedPackages("ejabberd", PACKAGES);

/** A running server. */
export interface EjabberdNode {
  readonly node: ErlNode;
  /** Folder of its log files. */
  readonly logs: string;
  /** Its port for clients on 127.0.0.1. */
  readonly xmppPort: number;
  /** Ends the server and removes its directory. */
  stop(): Promise<void>;
}

/** Starts ejabberd, the packages' or that of another root, makes accounts (`user1` with password `user1` and so on), and waits until it takes connections. */
export async function startEjabberd(users: number, root?: string): Promise<EjabberdNode> {
  const { erlang, shared } = await libraryPaths(root ?? (await ejabberdRoot()));
  const directory = await mkdtemp(join(tmpdir(), "beamtrace-ejabberd-"));
  const xmppPort = await freePort();
  await writeFile(join(directory, "ejabberd.yml"), configuration(xmppPort));
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
      name: `ejabberd${xmppPort}`,
      root: "",
      args: [
        // Schedulers don't spin while they wait, as in RabbitMQ: what a VM does while idle is not what tracing costs.
        ...["+K", "true", "+P", "250000", "+sbwt", "none", "+sbwtdcpu", "none", "+sbwtdio", "none"],
        ...["-kernel", "inet_dist_use_interface", "{127,0,0,1}"],
        ...["-mnesia", "dir", JSON.stringify(join(directory, "mnesia")), "-s", "ejabberd"],
      ],
      env: {
        HOME: directory,
        EJABBERD_CONFIG_PATH: join(directory, "ejabberd.yml"),
        EJABBERD_LOG_PATH: join(directory, "ejabberd.log"),
        ERL_LIBS: erlang.join(delimiter),
        LD_LIBRARY_PATH: shared.join(delimiter),
      },
    });
    const server = node;
    await eventually(
      () => server.eval("lists:keymember(ejabberd, 1, application:which_applications())"),
      (started) => started === "true",
      60_000,
    );
    const made = await server.eval(
      `length([ok || N <- lists:seq(1, ${users}), User <- [<<"user", (integer_to_binary(N))/binary>>],
        ok <- [ejabberd_auth:try_register(User, <<"${DOMAIN}">>, User)]])`,
    );
    if (made !== String(users)) throw new Error(`only ${made} of ${users} accounts could be made`);
    // The node is killed first when this process exits; what is still written is removed after that.
    process.off("exit", removeDirectory).once("exit", removeDirectory);
    return { node, xmppPort, logs: directory, stop };
  } catch (error) {
    const output = node?.output() ?? "";
    await stop();
    throw new Error(`ejabberd did not start${output === "" ? "" : `; its output:\n${output.slice(-2000)}`}`, {
      cause: error,
    });
  }
}
