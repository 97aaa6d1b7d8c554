/**
 * The handshake, version 6, as the side that connects: a chain of states, each of which knows only what may come next. Pure:
 * packets in, packets out; `handshake-driver.ts` does the I/O. A state is used once: `receive` returns the next one.
 * Follows "Erlang Distribution Protocol", section Distribution Handshake.
 */
import { ConnectionError } from "../errors";
import type { Cookie } from "./cookie";
import { DistFlag, expandFlags, missingFlags } from "./flags";

/** Who we say we are. */
export interface Identity {
  /** Full node name; only the host part when the node is to choose a name (NAME_ME). */
  readonly name: string;
  readonly nameMe: boolean;
  readonly flags: bigint;
  /** Not 0; another one for every connection. */
  readonly creation: number;
  readonly cookie: Cookie;
  /** Our challenge, 32 random bits. */
  readonly challenge: number;
  /** When the node already has a connection from our name: take its place? */
  readonly replace: boolean;
}

/** What both sides know after the handshake. */
export interface Established {
  readonly stage: "established";
  readonly peer: { readonly name: string; readonly creation: number; readonly flags: bigint };
  readonly self: { readonly name: string; readonly creation: number };
}

/** A state, and the packets to send on entering it. */
export interface Step {
  readonly next: HandshakeState | Established;
  readonly send: readonly Uint8Array[];
}

/** A state that waits for a packet. */
export interface HandshakeState {
  readonly stage: "status" | "challenge" | "ack";
  /**
   * Takes the next packet.
   * @throws ConnectionError
   */
  receive(packet: Uint8Array): Step;
  /** What it means when the peer closes the connection now. */
  closed(): ConnectionError;
}

/** Longest packet of the handshake that makes sense: a name of 255 characters and fixed fields. */
export const MAX_HANDSHAKE_PACKET = 2048;

const TAG_NAME = 0x4e; // "N"
const TAG_OLD_NAME = 0x6e; // "n", handshake version 5
const TAG_STATUS = 0x73; // "s"
const TAG_REPLY = 0x72; // "r"
const TAG_ACK = 0x61; // "a"

/** Begins: sends our name. */
export function beginHandshake(identity: Identity): Step {
  const name = Buffer.from(identity.name, "utf8");
  const packet = Buffer.alloc(15 + name.length);
  packet[0] = TAG_NAME;
  packet.writeBigUInt64BE(identity.flags | (identity.nameMe ? DistFlag.NAME_ME : 0n), 1);
  packet.writeUInt32BE(identity.creation, 9);
  packet.writeUInt16BE(name.length, 13);
  packet.set(name, 15);
  return { next: new StatusAwaited(identity), send: [packet] };
}

/** Our name is sent. */
class StatusAwaited implements HandshakeState {
  readonly stage = "status";
  readonly #identity: Identity;

  constructor(identity: Identity) {
    this.#identity = identity;
  }

  receive(packet: Uint8Array): Step {
    const bytes = asBuffer(packet);
    if (bytes[0] === TAG_OLD_NAME) throw tooOld("it answers in handshake version 5");
    if (bytes[0] !== TAG_STATUS) throw notANode("its first packet is no status");
    const status = bytes.toString("latin1", 1);
    const { name, creation } = this.#identity;
    if (status.startsWith("named:")) return this.#named(bytes);
    const next = (): HandshakeState => new ChallengeAwaited(this.#identity, { name, creation });
    switch (status) {
      case "ok":
      case "ok_simultaneous":
        if (this.#identity.nameMe) throw failed("the node did not tell the name that it was asked to choose");
        return { next: next(), send: [] };
      case "alive":
        if (!this.#identity.replace) throw aliveError(name);
        return { next: next(), send: [Buffer.from("strue", "latin1")] };
      case "nok":
        throw failed("the node is just connecting to a node of our name itself (nok)");
      case "not_allowed":
        throw new ConnectionError(
          "BT_NOT_ALLOWED",
          "the node refuses the connection (not_allowed): net_kernel:allow/1 is in force there, or it does not accept our flags; its log tells",
        );
      default:
        throw notANode(`unknown status ${JSON.stringify(status.slice(0, 40))}`);
    }
  }

  #named(bytes: Buffer): Step {
    if (!this.#identity.nameMe) throw failed("the node chose a name although none was asked for");
    const length = bytes.length >= 9 ? bytes.readUInt16BE(7) : -1;
    if (length < 3 || bytes.length < 9 + length + 4) throw failed("malformed status packet");
    const name = bytes.toString("utf8", 9, 9 + length);
    const creation = bytes.readUInt32BE(9 + length);
    return { next: new ChallengeAwaited(this.#identity, { name, creation }), send: [] };
  }

  closed(): ConnectionError {
    return notANode(
      "it closed the connection without an answer. A TLS listener does so, and a node older than OTP 23",
    );
  }
}

/** The node has accepted our name. */
class ChallengeAwaited implements HandshakeState {
  readonly stage = "challenge";
  readonly #identity: Identity;
  readonly #self: Established["self"];

  constructor(identity: Identity, self: Established["self"]) {
    this.#identity = identity;
    this.#self = self;
  }

  receive(packet: Uint8Array): Step {
    const bytes = asBuffer(packet);
    if (bytes[0] === TAG_OLD_NAME) throw tooOld("it answers in handshake version 5");
    if (bytes[0] !== TAG_NAME || bytes.length < 19) throw failed("malformed challenge packet");
    const length = bytes.readUInt16BE(17);
    if (length === 0 || bytes.length < 19 + length) throw failed("malformed challenge packet");
    const flags = bytes.readBigUInt64BE(1);
    const missing = missingFlags(flags);
    if (missing.length > 0) throw tooOld(`it lacks ${missing.join(", ")}`);
    const peer: Established["peer"] = {
      name: bytes.toString("utf8", 19, 19 + length),
      creation: bytes.readUInt32BE(13),
      flags: expandFlags(flags),
    };
    const reply = Buffer.alloc(21);
    reply[0] = TAG_REPLY;
    reply.writeUInt32BE(this.#identity.challenge, 1);
    reply.set(this.#identity.cookie.digest(bytes.readUInt32BE(9)), 5);
    const established: Established = { stage: "established", peer, self: this.#self };
    return { next: new AckAwaited(this.#identity, established), send: [reply] };
  }

  closed(): ConnectionError {
    return failed("the node closed the connection before its challenge");
  }
}

/** We have proved that we know the cookie; now the node does. */
class AckAwaited implements HandshakeState {
  readonly stage = "ack";
  readonly #identity: Identity;
  readonly #established: Established;

  constructor(identity: Identity, established: Established) {
    this.#identity = identity;
    this.#established = established;
  }

  receive(packet: Uint8Array): Step {
    if (packet[0] !== TAG_ACK || packet.length < 17) throw failed("malformed challenge acknowledgement");
    if (!this.#identity.cookie.proves(packet.subarray(1, 17), this.#identity.challenge)) {
      throw new ConnectionError(
        "BT_COOKIE_REJECTED",
        `${this.#established.peer.name} does not know our cookie: its proof is wrong`,
      );
    }
    return { next: this.#established, send: [] };
  }

  closed(): ConnectionError {
    return new ConnectionError(
      "BT_COOKIE_REJECTED",
      `${this.#established.peer.name} rejects our cookie; erlang:get_cookie() on the node tells the right one`,
    );
  }
}

function asBuffer(bytes: Uint8Array): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

function failed(why: string): ConnectionError {
  return new ConnectionError("BT_HANDSHAKE_FAILED", `the handshake failed: ${why}`);
}

/** What listens there doesn't speak the distribution protocol. */
export function notANode(why: string): ConnectionError {
  return new ConnectionError("BT_NOT_A_NODE", `what listens there is no Erlang node: ${why}`);
}

function tooOld(why: string): ConnectionError {
  return new ConnectionError("BT_OTP_TOO_OLD", `the node is too old, OTP 25 or later is needed: ${why}`);
}

function aliveError(name: string): ConnectionError {
  return new ConnectionError(
    "BT_NOT_ALLOWED",
    `the node already has a connection from ${name}; choose another name, none, or replaceExisting`,
  );
}
