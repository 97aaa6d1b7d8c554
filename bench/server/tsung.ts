/**
 * tsung of Debian as the load generator of XMPP chat: one VM of its own, which keeps a number of sessions online and lets them send to each other
 * at a rate that can be set (erlang/beamtrace_bench_tsung.erl). It ends by itself when its time is up, whatever becomes of us.
 */
import { rmSync } from "node:fs";
import { mkdtemp, readFile, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { delimiter, join } from "node:path";
import { eventually, startNode, type ErlNode } from "../../test/support/erl-node";
import { libraryPaths, unpackedPackages } from "./debian-packages";
import { loadErlangModule } from "./erlang-module";
import type { UnitCount } from "./variant";

const MODULE = "beamtrace_bench_tsung";
/** Sessions that log in a second. */
const LOGINS = 25;
const HOURS = 6;

export interface ChatOptions {
  readonly xmppPort: number;
  readonly domain: string;
  /** Accounts `user1` … on the server, all of which come online. */
  readonly users: number;
  /** Bytes of a message's body. */
  readonly bytes: number;
}

const configuration = (
  dtd: string,
  { xmppPort, domain, users, bytes }: ChatOptions,
): string => `<?xml version="1.0"?>
<!DOCTYPE tsung SYSTEM "${dtd}">
<tsung loglevel="error" version="1.0">
  <clients><client host="localhost" use_controller_vm="true" maxusers="${users + 1}"/></clients>
  <servers><server host="127.0.0.1" port="${xmppPort}" type="tcp"/></servers>
  <load duration="${HOURS}" unit="hour">
    <arrivalphase phase="1" duration="${HOURS}" unit="hour"><users maxnumber="${users}" arrivalrate="${LOGINS}" unit="second"/></arrivalphase>
  </load>
  <options>
    <option type="ts_jabber" name="global_number" value="${users}"/>
    <option type="ts_jabber" name="userid_max" value="${users}"/>
    <option type="ts_jabber" name="domain" value="${domain}"/>
    <option type="ts_jabber" name="username" value="user"/>
    <option type="ts_jabber" name="passwd" value="user"/>
  </options>
  <sessions>
    <session probability="100" name="chat" type="${MODULE}" bidi="true">
      <request><jabber type="connect" ack="parse"/></request>
      <request><jabber type="auth_sasl" ack="parse"/></request>
      <request><jabber type="connect" ack="parse"/></request>
      <request><jabber type="auth_sasl_bind" ack="parse"/></request>
      <request><jabber type="auth_sasl_session" ack="parse"/></request>
      <request><jabber type="presence:initial" ack="no_ack"/></request>
      <for from="1" to="1000000000" var="round">
        <setdynvars sourcetype="erlang" callback="${MODULE}:pace"><var name="think"/><var name="due"/></setdynvars>
        <thinktime value="%%_think%%"/>
        <if var="due" eq="yes"><request><jabber type="chat" ack="no_ack" size="${bytes}" destination="online"/></request></if>
      </for>
    </session>
  </sessions>
</tsung>
`;

/** A running load. */
export interface ChatLoad {
  /** Messages that fell due and messages that arrived, since the first rate was set. */
  units(): Promise<UnitCount>;
  setRate(messagesPerSecond: number): Promise<void>;
  stop(): Promise<void>;
}

/** Starts tsung and waits until every session is online; nobody sends before the first rate is set. */
export async function startChat(options: ChatOptions): Promise<ChatLoad> {
  const root = await unpackedPackages("tsung", ["tsung"]);
  const { erlang } = await libraryPaths(root);
  const directory = await mkdtemp(join(tmpdir(), "beamtrace-tsung-"));
  const file = join(directory, "tsung.xml");
  // tsung checks its configuration; its document type knows only its own plug-ins.
  const dtd = await readFile(join(root, "usr/share/tsung/tsung-1.0.dtd"), "utf8");
  await writeFile(join(directory, "tsung.dtd"), dtd.replaceAll("ts_jabber |", `ts_jabber | ${MODULE} |`));
  await writeFile(file, configuration(join(directory, "tsung.dtd"), options));
  let node: ErlNode | undefined;
  const removeDirectory = (): void => rmSync(directory, { recursive: true, force: true });
  process.once("exit", removeDirectory);
  const stop = async (): Promise<void> => {
    await node?.stop();
    removeDirectory();
    process.off("exit", removeDirectory);
  };
  const settings = {
    config_file: `"${file}"`,
    log_dir: `"${directory}/"`,
    mon_file: '"tsung.log"',
    exclude_tag: '""',
    ...{ web_gui: "false", keep_web_gui: "false", smp_disable: "false", debug_level: "1", warm_time: "1" },
  };
  try {
    node = await startNode({
      root: "",
      args: [
        ...["+K", "true", "+P", "250000", "+sbwt", "none", "+sbwtdcpu", "none", "+sbwtdio", "none"],
        ...["-kernel", "inet_dist_use_interface", "{127,0,0,1}", "-sasl", "sasl_error_logger", "false"],
        ...Object.entries(settings).flatMap(([name, value]) => ["-tsung_controller", name, value]),
      ],
      env: { HOME: directory, ERL_LIBS: erlang.join(delimiter) },
    });
    const load = node;
    await loadErlangModule(load, MODULE);
    await load.eval(`${MODULE}:prepare(), tsung_controller:start()`);
    await eventually(
      () => load.eval(`${MODULE}:online()`),
      // A session that has to connect anew says so again; whether all are there, the server knows.
      (online) => Number(online) >= options.users,
      30_000 + (options.users / LOGINS) * 2000,
    );
    return {
      async units() {
        const [due, , arrived] = (await load.eval(`${MODULE}:counts()`)).match(/\d+/g) ?? [];
        return { due: Number(due), done: Number(arrived) };
      },
      setRate: async (messagesPerSecond) => void (await load.eval(`${MODULE}:rate(${messagesPerSecond})`)),
      stop,
    };
  } catch (error) {
    const output = node?.output() ?? "";
    await stop();
    throw new Error(`tsung did not start${output === "" ? "" : `; its output:\n${output.slice(-2000)}`}`, {
      cause: error,
    });
  }
}
