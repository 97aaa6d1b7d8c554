/**
 * Reader of dbg's ip trace ports, as a process of its own: reads everything, counts the messages and those that the port dropped.
 * Stream: op:8, n:32, then n bytes of a term (op 0) or nothing (op 1: n messages were dropped here).
 * Asked over IPC: a number connects to that port of 127.0.0.1 and starts the counts again → `connected`; `count` → `{ delivered, lost }`.
 * Never connects to the same trace port twice: what the port had half sent would come without its header.
 */
import { connect, type Socket } from "node:net";

const HEADER_BYTES = 5;

let socket: Socket | undefined;
let delivered = 0;
let lost = 0;
/** Bytes of the current body that are still to come. */
let skip = 0;
let headerBytes = 0;
const header = Buffer.alloc(HEADER_BYTES);

const fail = (error: string): void => void process.send?.({ error });

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
    else {
      fail(`unknown op ${header[0]}`);
      return;
    }
  }
}

function open(port: number): void {
  socket?.destroy();
  delivered = lost = skip = headerBytes = 0;
  const opened = connect(port, "127.0.0.1", () => process.send?.("connected"));
  opened.on("data", (chunk) => {
    if (opened === socket) read(chunk);
  });
  opened.on("error", (error) => {
    if (opened === socket) fail(error.message);
  });
  socket = opened;
}

process.on("message", (question: string) => {
  if (question === "count") process.send?.({ delivered, lost });
  else open(Number(question));
});
process.on("disconnect", () => process.exit(0));
