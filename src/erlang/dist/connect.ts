/**
 * `connect`: from a node's name, address or Duplex to a live link. Each phase has its own file: epmd, socket, TLS, handshake;
 * here they are put in order under one deadline. Whatever fails, nothing stays open.
 */
import { randomBytes } from "node:crypto";
import { hostname } from "node:os";
import type { Duplex } from "node:stream";
import { Socket } from "node:net";
import { ConnectionError, OptionError } from "../errors";
import type { Connection } from "./connection";
import { findCookie } from "./cookie";
import { Deadline } from "./deadline";
import { DistLink } from "./dist-link";
import { defaultEpmdPort, epmdLookup, epmdNames, type EpmdOptions } from "./epmd";
import { OFFERED_FLAGS } from "./flags";
import type { Established } from "./handshake";
import { shakeHands } from "./handshake-driver";
import type { NodeLink } from "./node-link";
import { parseNodeName, type NodeName } from "./node-name";
import { DirectReads, openSocket } from "./open-socket";
import { secure, type TlsOptions } from "./tls";

/**
 * What to connect to: a node by name (epmd tells its port); a distribution port by address (no epmd); or a stream to such a
 * port that the caller has opened, an SSH tunnel say. `connect` takes the Duplex over, and destroys it in the end.
 */
export type ConnectTarget =
  | string
  | { readonly host: string; readonly port: number; readonly peerName?: string }
  | { readonly duplex: Duplex; readonly peerName?: string };

/** Options of `connect`. */
export interface ConnectOptions {
  /** Default: the user's cookie file. Never shown anywhere. */
  readonly cookie?: string;
  /** Where epmd is; default: on the node's host, at ERL_EPMD_PORT or 4369. */
  readonly epmd?: { readonly host?: string; readonly port?: number };
  /** Speak TLS; `true` with the defaults of `TlsOptions`. */
  readonly tls?: boolean | TlsOptions;
  /** Our node name, with or without host part. Default: the node chooses one for us, which can't clash. */
  readonly name?: string;
  /** When the node already has a connection from `name`: take its place instead of being refused. Default false. */
  readonly replaceExisting?: boolean;
  /** For everything up to the live link; default 7000, the `net_setuptime` of the VM. */
  readonly setupTimeoutMs?: number;
  /** How often we tick while nothing else is sent; default 15000, a quarter of the VM's `net_ticktime`. */
  readonly tickMs?: number;
  /** After how long without a byte from the node it is taken for gone; default 60000. Nodes tick every quarter of their `net_ticktime`. */
  readonly silenceMs?: number;
  /** Longest frame (hence message) accepted, in bytes; default 512 MiB. A longer one ends the link. */
  readonly maxFrameBytes?: number;
  /** Aborts the setup; has no effect on a link that is up. */
  readonly signal?: AbortSignal;
}

const DEFAULTS = {
  setupTimeoutMs: 7_000,
  tickMs: 15_000,
  silenceMs: 60_000,
  maxFrameBytes: 512 * 1024 * 1024,
} as const;

/** Creations below this had a meaning of their own in older releases. */
const FIRST_CREATION = 4;

/**
 * Connects to a node as a hidden node.
 *
 * @example
 * const link = await connect("shop@127.0.0.1", { cookie });
 * const memory = await link.call("erlang", "memory", []);
 * await link.close();
 *
 * @throws OptionError BT_NODE_NAME_INVALID, BT_OPTION_INVALID
 * @throws ConnectionError BT_COOKIE_MISSING, BT_EPMD_UNREACHABLE, BT_NODE_NOT_FOUND, BT_NODE_UNREACHABLE, BT_TLS_FAILED,
 * BT_NOT_A_NODE, BT_HANDSHAKE_FAILED, BT_NOT_ALLOWED, BT_COOKIE_REJECTED, BT_OTP_TOO_OLD
 * @throws AbortedError BT_TIMEOUT, BT_ABORTED
 */
export function connect(target: ConnectTarget, options: ConnectOptions = {}): Promise<NodeLink> {
  return establish(target, options, (connection, { established, host, settings }) => {
    return new DistLink(connection, established, host, settings);
  });
}

/** What is known when the handshake is done. */
export interface ConnectionFacts {
  readonly established: Established;
  /** Host that was connected to. */
  readonly host: string;
  readonly settings: ConnectSettings;
}

/** As `connect`, but the caller makes what lives on the connection; it must call `goLive` before it returns. */
export async function establish<Link>(
  target: ConnectTarget,
  options: ConnectOptions,
  makeLink: (connection: Connection, facts: ConnectionFacts) => Link,
): Promise<Link> {
  if (typeof target !== "string" && (typeof target !== "object" || target === null))
    throw new OptionError("BT_OPTION_INVALID", "target", 'must be "name@host", { host, port } or { duplex }');
  const given = typeof target !== "string" && "duplex" in target ? target.duplex : undefined;
  // Until the connection has it, a stream that fails must not end the process.
  given?.on("error", ignore);
  let open: Duplex | undefined = given;
  try {
    const settings = checkOptions(options);
    using deadline = new Deadline(settings.setupTimeoutMs, options.signal);
    deadline.check();
    const wanted = wantedName(target);
    const cookie = await findCookie(options.cookie);
    const { host, port } = await locate(target, wanted, options, deadline);
    const useTls = options.tls !== undefined && options.tls !== false;
    const direct = given === undefined && !useTls ? new DirectReads() : undefined;
    const socket = given ?? (await openSocket(host, port, deadline, direct));
    open = socket;
    const stream = useTls
      ? await secure(socket, host, options.tls === true ? {} : (options.tls as TlsOptions), deadline)
      : socket;
    const own = ownName(options.name, wanted?.host ?? host, socket);
    const random = randomBytes(8);
    const identity = {
      ...own,
      flags: OFFERED_FLAGS,
      creation: Math.max(FIRST_CREATION, random.readUInt32BE(0)),
      challenge: random.readUInt32BE(4),
      cookie,
      replace: options.replaceExisting ?? false,
    };
    const goLive = (connection: Connection, established: Established): Link => {
      const { name } = established.peer;
      checkPeerName(name, target, wanted);
      return makeLink(connection, { established, host: host === "" ? hostOf(name) : host, settings });
    };
    return await shakeHands(stream, useTls ? 4 : 2, identity, deadline, goLive, direct);
  } catch (error) {
    open?.on("error", ignore).destroy();
    throw error;
  }
}

const ignore = (): void => undefined;

/** Limits and times of a connection, with the defaults filled in. */
export type ConnectSettings = { readonly [K in keyof typeof DEFAULTS]: number };

function checkOptions(options: ConnectOptions): ConnectSettings {
  const number = (key: keyof typeof DEFAULTS, max = 2 ** 31 - 1): number => {
    const value = options[key] ?? DEFAULTS[key];
    if (value === Infinity && key !== "tickMs") return key === "maxFrameBytes" ? 2 ** 32 - 1 : value;
    if (typeof value === "number" && value >= 1 && value <= max) return value;
    throw new OptionError("BT_OPTION_INVALID", key, `${String(value)} is not between 1 and ${max}`);
  };
  return {
    setupTimeoutMs: number("setupTimeoutMs"),
    tickMs: number("tickMs"),
    silenceMs: number("silenceMs"),
    maxFrameBytes: number("maxFrameBytes", 2 ** 32 - 1),
  };
}

function wantedName(target: ConnectTarget): NodeName | undefined {
  if (typeof target === "string") return parseNodeName(target);
  return target.peerName === undefined ? undefined : parseNodeName(target.peerName, "peerName");
}

/** Host and port to connect to; of a given Duplex only the host part of the name, as far as it is known. */
async function locate(
  target: ConnectTarget,
  wanted: NodeName | undefined,
  options: ConnectOptions,
  deadline: Deadline,
): Promise<{ host: string; port: number }> {
  if (typeof target !== "string") {
    return "duplex" in target
      ? { host: wanted?.host ?? "", port: 0 }
      : { host: target.host, port: checkPort(target.port) };
  }
  const { alive, host } = wanted as NodeName;
  const epmd: EpmdOptions = { ...options.epmd, timeoutMs: Infinity, signal: deadline.signal };
  deadline.stage = `asking epmd for ${alive}`;
  const node = await unwrapped(deadline, epmdLookup(alive, host, epmd));
  if (node !== undefined) return { host, port: node.port };
  const names = await unwrapped(deadline, epmdNames(host, epmd));
  const known = names.length === 0 ? "no node at all" : names.map((entry) => entry.name).join(", ");
  const where = `${options.epmd?.host ?? host}:${options.epmd?.port ?? defaultEpmdPort()}`;
  throw new ConnectionError(
    "BT_NODE_NOT_FOUND",
    `epmd at ${where} does not know "${alive}"; it knows ${known}`,
  );
}

/** When our own deadline struck, that is the error to tell, not that the question to epmd was aborted. */
async function unwrapped<T>(deadline: Deadline, promise: Promise<T>): Promise<T> {
  try {
    return await promise;
  } catch (error) {
    deadline.check();
    throw error;
  }
}

function checkPort(port: number): number {
  if (Number.isInteger(port) && port >= 1 && port <= 65535) return port;
  throw new OptionError("BT_OPTION_INVALID", "port", `${String(port)} is no TCP port`);
}

/**
 * What we call ourselves. Our host part has the form of the node's (long or short), so that it looks right in `nodes(hidden)`;
 * it need not be resolvable, nobody connects to us.
 */
function ownName(
  name: string | undefined,
  peerHost: string,
  stream: Duplex,
): { name: string; nameMe: boolean } {
  if (name?.includes("@") === true) {
    parseNodeName(name, "name");
    return { name, nameMe: false };
  }
  const host = ownHost(peerHost, stream);
  if (name === undefined) return { name: host, nameMe: true };
  parseNodeName(`${name}@${host}`, "name");
  return { name: `${name}@${host}`, nameMe: false };
}

function ownHost(peerHost: string, stream: Duplex): string {
  const machine = hostname();
  const short = machine.split(".", 1)[0] ?? machine;
  const wantsLong = peerHost.includes(".") || peerHost.includes(":");
  if (!wantsLong) return short === "" ? "localhost" : short;
  const local = stream instanceof Socket ? stream.localAddress : undefined;
  const loopback = local === undefined || local === "::1" || /^(::ffff:)?127\./.test(local);
  if (loopback) return local === undefined && machine.includes(".") ? machine : "127.0.0.1";
  return machine.includes(".") ? machine : local.replace(/^::ffff:/, "").replace(/%.*$/, "");
}

/** Only the part before the @ must be right: the same node may be reached under several host names. */
function checkPeerName(name: string, target: ConnectTarget, wanted: NodeName | undefined): void {
  if (wanted === undefined || name.slice(0, name.lastIndexOf("@")) === wanted.alive) return;
  const asked = typeof target === "string" ? target : (target.peerName ?? "");
  throw new ConnectionError("BT_NODE_NOT_FOUND", `the node that answers is ${name}, not ${asked}`);
}

function hostOf(name: string): string {
  return name.slice(name.lastIndexOf("@") + 1);
}
