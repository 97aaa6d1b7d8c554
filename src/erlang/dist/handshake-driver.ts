/**
 * Drives the handshake over a connection: frames in, packets out, and every way it can end as a typed error. The hand-over to the
 * live connection happens within the packet that ends the handshake: what follows in the same chunk is already a frame.
 */
import type { Duplex } from "node:stream";
import type { ConnectionError } from "../errors";
import { Connection } from "./connection";
import type { Deadline } from "./deadline";
import { FrameTooLongError } from "./frame-parser";
import {
  beginHandshake,
  MAX_HANDSHAKE_PACKET,
  notANode,
  type Established,
  type HandshakeState,
  type Identity,
} from "./handshake";
import type { LinkCloseReason } from "./node-link";
import type { DirectReads } from "./open-socket";
import { isTlsAlert, tlsError } from "./tls";

const STAGE_TEXT = {
  status: "waiting for the node's answer to our name",
  challenge: "waiting for the node's challenge",
  ack: "waiting for the node's proof of the cookie",
} as const;

/**
 * Shakes hands and makes the live link by `goLive`, which must switch the connection over before it returns.
 * @throws ConnectionError the codes of `connect`
 */
export function shakeHands<Link>(
  duplex: Duplex,
  headerBytes: 2 | 4,
  identity: Identity,
  deadline: Deadline,
  goLive: (connection: Connection, established: Established) => Link,
  direct?: DirectReads,
): Promise<Link> {
  return deadline.race((resolve, reject) => {
    const start = beginHandshake(identity);
    // Its first state is always a waiting one.
    let state = start.next as HandshakeState;
    let heard = false;
    deadline.stage = STAGE_TEXT[state.stage];
    const sendAll = (packets: readonly Uint8Array[]): void => {
      for (const packet of packets) connection.write(header(packet.length, headerBytes), packet);
    };
    const connection = new Connection(
      duplex,
      {
        onFrame(packet) {
          heard = true;
          const step = state.receive(packet);
          sendAll(step.send);
          if (step.next.stage === "established") {
            resolve(goLive(connection, step.next));
          } else {
            state = step.next;
            deadline.stage = STAGE_TEXT[state.stage];
          }
        },
        onClosed: (reason) => reject(closedError(reason, state, heard || connection.bytesIn === 0)),
      },
      headerBytes,
      MAX_HANDSHAKE_PACKET,
      direct,
    );
    sendAll(start.send);
    return () => connection.fail({ kind: "closed" });
  });
}

/** `sane`: what was received so far, if anything, was a packet. */
function closedError(reason: LinkCloseReason, state: HandshakeState, sane: boolean): ConnectionError {
  if (reason.kind === "connection-lost" && isTlsAlert(reason.error.cause)) {
    return tlsError("the node", reason.error.cause);
  }
  if (reason.kind !== "protocol-error") {
    return sane ? state.closed() : notANode("what it sends is no handshake packet");
  }
  const { error } = reason;
  if (!(error instanceof FrameTooLongError)) return error;
  return framingError(error.length);
}

/** The first bytes were no sensible packet length: say what they look like. */
function framingError(length: number): ConnectionError {
  const looksLikeTls = length >>> 8 === 0x15 || length >>> 24 === 0x15;
  return notANode(
    looksLikeTls
      ? "it speaks TLS; pass the option tls"
      : "what it sends is no handshake packet (is it another service, or a node with TLS distribution?)",
  );
}

function header(length: number, width: 2 | 4): Uint8Array {
  const bytes = Buffer.alloc(width);
  bytes.writeUIntBE(length, 0, width);
  return bytes;
}
