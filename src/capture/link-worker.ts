/**
 * Entry point of the worker thread of `attach(…, { worker: true })`: connects, decodes the tracers' batches into rings, and relays all other
 * frames to the main thread, those of one turn together. Ends with its connection.
 */
import { parentPort, workerData } from "node:worker_threads";
import { RingBuffer, TraceBatchDecoder, type RingProducer } from "../buffer";
import type { Connection } from "../erlang/dist/connection";
import { establish, type ConnectionFacts } from "../erlang/dist/connect";
import { SendHeader } from "../erlang/dist/send-header";
import type { LinkCloseReason } from "../erlang/dist";
import { encode } from "../erlang/etf";
import {
  toPlainError,
  type FeedRequest,
  type FromWorker,
  type LinkWorkerData,
  type PlainCloseReason,
  type ToWorker,
} from "./worker-protocol";

interface Feed {
  readonly decoder: TraceBatchDecoder;
  readonly sink: RingProducer;
}

const port = parentPort;
if (port === null) throw new Error("link-worker runs as a worker thread only");
const { target, options, counters: countersMemory } = workerData as LinkWorkerData;
const counters = new Float64Array(countersMemory);
const aborting = new AbortController();
const feeds = new Map<number, Feed>();
const producers = new Map<SharedArrayBuffer, { ring: RingBuffer; producer: RingProducer }>();
const header = new SendHeader();
const repeats = new Map<number, () => void>();

/** Frames that go to the main thread at the end of this turn. */
let outgoing: Uint8Array[] = [];
let outgoingBytes = 0;

function post(message: FromWorker, transfer: ArrayBuffer[] = []): void {
  port?.postMessage(message, transfer);
}

function relay(frame: Uint8Array): void {
  const copy = new Uint8Array(4 + frame.length);
  new DataView(copy.buffer).setUint32(0, frame.length);
  copy.set(frame, 4);
  if (outgoing.length === 0) setImmediate(flush);
  outgoing.push(copy);
  outgoingBytes += copy.length;
}

function flush(): void {
  if (outgoing.length === 0) return;
  const bytes = new Uint8Array(outgoingBytes);
  let at = 0;
  for (const part of outgoing) {
    bytes.set(part, at);
    at += part.length;
  }
  outgoing = [];
  outgoingBytes = 0;
  post({ type: "frames", bytes }, [bytes.buffer]);
}

function onFrame(connection: Connection, frame: Uint8Array): void {
  counters[0] = connection.bytesIn;
  if (feeds.size > 0 && header.parse(frame)) {
    const mailbox = header.toId;
    const feed = feeds.get(mailbox);
    if (feed !== undefined) return decode(mailbox, feed, frame.subarray(header.payloadAt));
  }
  relay(frame);
}

function decode(mailbox: number, feed: Feed, payload: Uint8Array): void {
  try {
    const message = feed.decoder.decode(payload, feed.sink);
    if (message.type === "end")
      post({ type: "end", mailbox, stats: message.stats === undefined ? undefined : encode(message.stats) });
  } catch {
    // The next message's counts show how much is missing, as a gap.
    post({ type: "malformed", mailbox });
  }
}

function openFeed(request: FeedRequest): void {
  const { ring: handle, mailbox, ...rest } = request;
  let entry = producers.get(handle.sab);
  if (entry === undefined) {
    const ring = RingBuffer.from(handle);
    entry = { ring, producer: ring.producer() };
    producers.set(handle.sab, entry);
  }
  feeds.set(mailbox, {
    decoder: new TraceBatchDecoder({ dictionary: entry.ring.dictionary, ...rest }),
    sink: entry.producer,
  });
}

function plainReason(reason: LinkCloseReason): PlainCloseReason {
  return "error" in reason ? { kind: reason.kind, error: toPlainError(reason.error) } : reason;
}

function run(connection: Connection, facts: ConnectionFacts): void {
  connection.goLive(
    {
      onFrame: (frame) => onFrame(connection, frame),
      onClosed: (reason) => {
        flush();
        post({ type: "closed", reason: plainReason(reason) });
        port?.close();
      },
    },
    facts.settings.maxFrameBytes,
    facts.settings,
  );
  port?.on("message", (message: ToWorker) => {
    switch (message.type) {
      case "write":
        connection.write(message.bytes);
        break;
      case "repeat":
        repeats.set(message.id, connection.repeat(message.frame, message.everyMs));
        break;
      case "unrepeat":
        repeats.get(message.id)?.();
        repeats.delete(message.id);
        break;
      case "pause":
        connection.pause();
        break;
      case "resume":
        connection.resume();
        break;
      case "close":
      case "abort":
        void connection.close();
        break;
      case "drained":
        void connection.drained().then(() => post({ type: "drained", id: message.id }));
        break;
      case "feed":
        openFeed(message);
        break;
      case "settle": {
        const feed = feeds.get(message.mailbox);
        feed?.decoder.settle(message.received, feed.sink);
        post({ type: "settled", mailbox: message.mailbox });
        break;
      }
      case "unfeed":
        feeds.delete(message.mailbox);
        break;
    }
    counters[1] = connection.bytesOut;
    counters[2] = connection.pendingBytes;
  });
  post({ type: "connected", facts });
}

const onEarlyMessage = (message: ToWorker): void => {
  if (message.type === "abort") aborting.abort();
};
port.on("message", onEarlyMessage);
try {
  await establish(target, { ...options, signal: aborting.signal }, run);
  port.off("message", onEarlyMessage);
} catch (error) {
  post({ type: "failed", error: toPlainError(error) });
  port.close();
}
