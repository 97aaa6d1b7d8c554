/**
 * Reader of a dbg ip trace port, as a process of its own: reads everything, counts the messages and those that the port dropped.
 * Stream: op:8, n:32, then n bytes of a term (op 0) or nothing (op 1: n messages were dropped here).
 * Asked over IPC: `count` → `{ delivered, lost }`. Ends when its parent disconnects.
 */
import { connect } from "node:net";

const HEADER_BYTES = 5;

let delivered = 0;
let lost = 0;
/** Bytes of the current body that are still to come. */
let skip = 0;
const header = Buffer.alloc(HEADER_BYTES);
let headerBytes = 0;

const fail = (error: string): void => {
  process.send?.({ error });
  process.disconnect();
};

function read(chunk: Buffer): void {
  let at = 0;
  while (at < chunk.length) {
    if (skip > 0) {
      const taken = Math.min(skip, chunk.length - at);
      skip -= taken;
      at += taken;
      continue;
    }
    const taken = Math.min(HEADER_BYTES - headerBytes, chunk.length - at);
    chunk.copy(header, headerBytes, at, at + taken);
    headerBytes += taken;
    at += taken;
    if (headerBytes < HEADER_BYTES) return;
    headerBytes = 0;
    const length = header.readUInt32BE(1);
    if (header[0] === 0) {
      delivered += 1;
      skip = length;
    } else if (header[0] === 1) lost += length;
    else return fail(`unknown op ${header[0]}`);
  }
}

const socket = connect(Number(process.argv[2]), "127.0.0.1", () => process.send?.("connected"));
socket.on("data", read);
socket.on("error", (error) => fail(error.message));
// The port is closed before its reader is; the counts stay to be asked for.
process.on("message", () => process.send?.({ delivered, lost }));
process.on("disconnect", () => process.exit(0));
