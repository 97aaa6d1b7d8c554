/**
 * Asks epmd, the port mapper, where a node listens and which nodes it knows. One short TCP connection a question.
 * Follows "Erlang Distribution Protocol", section EPMD Protocol.
 */
import { connect } from "node:net";
import { ConnectionError, OptionError } from "../errors";
import { Deadline } from "./deadline";

/** Where epmd is. */
export interface EpmdOptions {
  /** Default: the node's host. */
  readonly host?: string;
  /** Default: ERL_EPMD_PORT, else 4369. */
  readonly port?: number;
  /** Default 5000. */
  readonly timeoutMs?: number;
  readonly signal?: AbortSignal;
}

/** A node as registered at epmd. */
export interface EpmdEntry {
  /** Without host part. */
  readonly name: string;
  readonly port: number;
}

/** What epmd tells of one node. */
export interface EpmdNode extends EpmdEntry {
  readonly hidden: boolean;
  /** Range of handshake versions that the node speaks. */
  readonly highestVersion: number;
  readonly lowestVersion: number;
}

const DEFAULT_PORT = 4369;
const PORT2_REQ = 122;
const PORT2_RESP = 119;
const NAMES_REQ = 110;
const HIDDEN = 72;
/** More than a thousand nodes; whatever sends more than this is no epmd. */
const MAX_ANSWER = 1 << 20;

/** The port of epmd when none is given. */
export function defaultEpmdPort(): number {
  const text = process.env["ERL_EPMD_PORT"];
  if (text === undefined || text === "") return DEFAULT_PORT;
  const port = Number(text);
  if (!Number.isInteger(port) || port < 1 || port > 65535) {
    throw new OptionError("BT_OPTION_INVALID", "ERL_EPMD_PORT", `"${text}" is no TCP port`);
  }
  return port;
}

/**
 * Names of all nodes that epmd on the host knows.
 * @throws ConnectionError BT_EPMD_UNREACHABLE
 */
export async function epmdNames(host: string, options: EpmdOptions = {}): Promise<EpmdEntry[]> {
  const bytes = await ask(host, Buffer.from([NAMES_REQ]), options);
  if (bytes.length < 4) throw notEpmd(host, options, "its answer is too short");
  const entries: EpmdEntry[] = [];
  for (const line of bytes.toString("utf8", 4).split("\n")) {
    const match = /^name (\S+) at port (\d+)$/.exec(line);
    if (match?.[1] !== undefined) entries.push({ name: match[1], port: Number(match[2]) });
  }
  return entries;
}

/**
 * Port and version range of a node, by the part of its name before the @.
 * @returns undefined when epmd doesn't know it
 * @throws ConnectionError BT_EPMD_UNREACHABLE
 */
export async function epmdLookup(
  alive: string,
  host: string,
  options: EpmdOptions = {},
): Promise<EpmdNode | undefined> {
  const bytes = await ask(
    host,
    Buffer.concat([Buffer.from([PORT2_REQ]), Buffer.from(alive, "utf8")]),
    options,
  );
  if (bytes.length < 2 || bytes[0] !== PORT2_RESP)
    throw notEpmd(host, options, "its answer is no PORT2_RESP");
  if (bytes[1] !== 0) return undefined;
  if (bytes.length < 12) throw notEpmd(host, options, "its answer is cut short");
  const nameEnd = 12 + bytes.readUInt16BE(10);
  if (bytes.length < nameEnd) throw notEpmd(host, options, "its answer is cut short");
  return {
    port: bytes.readUInt16BE(2),
    hidden: bytes[4] === HIDDEN,
    highestVersion: bytes.readUInt16BE(6),
    lowestVersion: bytes.readUInt16BE(8),
    name: bytes.toString("utf8", 12, nameEnd),
  };
}

/** One question; epmd answers and closes. */
async function ask(nodeHost: string, request: Buffer, options: EpmdOptions): Promise<Buffer> {
  const host = options.host ?? nodeHost;
  const port = options.port ?? defaultEpmdPort();
  using deadline = new Deadline(options.timeoutMs ?? 5_000, options.signal);
  deadline.stage = `waiting for epmd at ${host}:${port}`;
  return await deadline.race<Buffer>((resolve, reject) => {
    const chunks: Buffer[] = [];
    let size = 0;
    const socket = connect({ host, port }, () => {
      const head = Buffer.alloc(2);
      head.writeUInt16BE(request.length);
      socket.write(Buffer.concat([head, request]));
    });
    socket.on("data", (chunk: Buffer) => {
      chunks.push(chunk);
      size += chunk.length;
      if (size > MAX_ANSWER) reject(notEpmd(nodeHost, options, "it sends far too much"));
    });
    // allowHalfOpen is off: when epmd has closed, so does the socket.
    socket.on("end", () => resolve(Buffer.concat(chunks)));
    socket.on("error", (cause) => {
      const why = "code" in cause ? String(cause.code) : cause.message;
      const hint =
        "Is a distributed node running there? A firewall in between? Without epmd give host and port.";
      reject(
        new ConnectionError("BT_EPMD_UNREACHABLE", `can't reach epmd at ${host}:${port} (${why}). ${hint}`, {
          cause,
        }),
      );
    });
    return () => socket.destroy();
  });
}

function notEpmd(nodeHost: string, options: EpmdOptions, why: string): ConnectionError {
  const at = `${options.host ?? nodeHost}:${options.port ?? defaultEpmdPort()}`;
  return new ConnectionError("BT_EPMD_UNREACHABLE", `what answers at ${at} is no epmd: ${why}`);
}
