/**
 * Reads the control tuple of messages to pids straight from the bytes. Nearly all frames while tracing are of this kind, and
 * need no more than the receiver's id and where the payload starts; decoding the tuple would make five objects a frame.
 * Anything unusual is left to the general decoder.
 * Follows "External Term Format" (pids, atoms) and the control messages SEND, SEND_SENDER and their trace-token forms.
 */
import { Op } from "./control-message";

const VERSION = 131;
const SMALL_TUPLE = 104;
const SMALL_INTEGER = 97;
const NEW_PID = 88;
const ATOM = 100;
const SMALL_ATOM = 115;
const ATOM_UTF8 = 118;
const SMALL_ATOM_UTF8 = 119;
/** Offset of the first element after the operation: 112, 131, 104, arity, 97, op. */
const FIRST = 6;
/** Id, serial and creation after the node. */
const PID_NUMBERS = 12;

/** The receiver and the place of the payload, of the last frame that `parse` accepted. */
export class SendHeader {
  /** Id and creation of the pid that the message is for. */
  toId = 0;
  toCreation = 0;
  /** Where the sender's pid starts (its tag); -1 when the message tells none. */
  fromAt = -1;
  /** Where the payload starts (its 131). */
  payloadAt = 0;

  /** @returns false when the frame isn't a plain message to a pid; the fields then mean nothing */
  parse(frame: Uint8Array): boolean {
    if (frame[1] !== VERSION || frame[2] !== SMALL_TUPLE || frame[3] !== 3 || frame[4] !== SMALL_INTEGER) {
      return false;
    }
    let to: number;
    if (frame[5] === Op.SEND_SENDER) {
      this.fromAt = FIRST;
      to = skipPid(frame, FIRST);
    } else if (frame[5] === Op.SEND) {
      this.fromAt = -1;
      to = skipAtom(frame, FIRST);
    } else {
      return false;
    }
    if (to < 0) return false;
    const end = skipPid(frame, to);
    // The payload takes two bytes at least, so all that is read below lies within the frame.
    if (end < 0 || end + 1 >= frame.length || frame[end] !== VERSION) return false;
    this.toId = readU32(frame, end - 12);
    this.toCreation = readU32(frame, end - 4);
    this.payloadAt = end;
    return true;
  }
}

/** Offset after the atom, or -1. May lie beyond the frame. */
function skipAtom(bytes: Uint8Array, at: number): number {
  switch (bytes[at]) {
    case SMALL_ATOM_UTF8:
    case SMALL_ATOM:
      return at + 2 + (bytes[at + 1] ?? 0);
    case ATOM_UTF8:
    case ATOM:
      return at + 3 + (((bytes[at + 1] ?? 0) << 8) | (bytes[at + 2] ?? 0));
    default:
      return -1;
  }
}

/** Offset after the pid, or -1. May lie beyond the frame. */
function skipPid(bytes: Uint8Array, at: number): number {
  if (bytes[at] !== NEW_PID) return -1;
  const node = skipAtom(bytes, at + 1);
  return node < 0 ? -1 : node + PID_NUMBERS;
}

function readU32(bytes: Uint8Array, at: number): number {
  return (
    (((bytes[at] as number) << 24) |
      ((bytes[at + 1] as number) << 16) |
      ((bytes[at + 2] as number) << 8) |
      (bytes[at + 3] as number)) >>>
    0
  );
}
