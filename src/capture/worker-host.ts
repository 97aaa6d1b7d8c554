/**
 * A link whose socket, frames and decoding live in a worker thread: neither waits for what this thread does. Control messages are
 * relayed, batches go into the ring there. Owns the worker, which ends with the connection.
 */
import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { Worker } from "node:worker_threads";
import type { ConnectOptions, ConnectTarget, LinkCloseReason } from "../erlang/dist";
import type { FrameReceiver } from "../erlang/dist/connection";
import type { ConnectionFacts } from "../erlang/dist/connect";
import { DistLink } from "../erlang/dist/dist-link";
import type { FrameChannel } from "../erlang/dist/frame-channel";
import { FrameParser } from "../erlang/dist/frame-parser";
import { BeamtraceError, ConnectionError } from "../erlang/errors";
import { decode } from "../erlang/etf";
import { throwIfAborted } from "./deadline";
import type { FeedOptions, LinkHost, TraceFeed } from "./trace-feed";
import {
  fromPlainError,
  type FromWorker,
  type LinkWorkerData,
  type PlainCloseReason,
  type ToWorker,
} from "./worker-protocol";

/** Where the worker's script may lie, seen from this file: in the package's build, or, from the sources, in the build beside them. */
const SCRIPTS = [
  "./link-worker.js",
  "./capture/link-worker.js",
  "../capture/link-worker.js",
  "../../dist/capture/link-worker.js",
];

/** Connects in a worker. */
export async function connectInWorker(target: ConnectTarget, options: ConnectOptions): Promise<LinkHost> {
  const { signal, ...rest } = options;
  throwIfAborted(signal);
  const counters = new SharedArrayBuffer(3 * Float64Array.BYTES_PER_ELEMENT);
  const data: LinkWorkerData = { target, options: rest, counters };
  const worker = new Worker(workerScript(), { workerData: data, name: "beamtrace-link" });
  const channel = new WorkerChannel(worker, new Float64Array(counters));
  const onAbort = (): void => channel.post({ type: "abort" });
  signal?.addEventListener("abort", onAbort, { once: true });
  try {
    const facts = await channel.connected;
    const link = new DistLink(channel, facts.established, facts.host, facts.settings);
    return { link, sameThread: false, openFeed: (feed) => channel.openFeed(link, feed) };
  } catch (error) {
    await worker.terminate();
    throw error;
  } finally {
    signal?.removeEventListener("abort", onAbort);
  }
}

function workerScript(): URL {
  const urls = SCRIPTS.map((path) => new URL(path, import.meta.url));
  const found = urls.find((url) => existsSync(fileURLToPath(url)));
  if (found === undefined)
    throw new BeamtraceError(
      "BT_OPTION_INVALID",
      "worker: the worker's script is not beside the library; keep beamtrace out of your bundle, or build it first",
    );
  return found;
}

/** The relay: a framed channel on this side, the worker's port on the other. */
class WorkerChannel implements FrameChannel {
  readonly connected: Promise<ConnectionFacts>;
  readonly #worker: Worker;
  readonly #counters: Float64Array;
  readonly #feeds = new Map<number, { options: FeedOptions; malformed: number; onSettled: () => void }>();
  readonly #drains = new Map<number, () => void>();
  readonly #gone: Promise<void>;
  #settleGone!: () => void;
  #receiver: FrameReceiver | undefined;
  #parser: FrameParser | undefined;
  /** Frames that came before `goLive`. */
  #early: Uint8Array[] = [];
  #queued: Uint8Array[] = [];
  #ended = false;
  #ids = 0;

  constructor(worker: Worker, counters: Float64Array) {
    this.#worker = worker;
    this.#counters = counters;
    this.#gone = new Promise((resolve) => (this.#settleGone = resolve));
    this.connected = new Promise((resolve, reject) => {
      worker.on("message", (message: FromWorker) => {
        if (message.type === "connected") resolve(message.facts);
        else if (message.type === "failed") reject(fromPlainError(message.error));
        else this.#receive(message);
      });
      worker.on("error", (cause) => {
        const error = new ConnectionError(
          "BT_CONNECTION_LOST",
          `the link's worker failed: ${cause.message}`,
          { cause },
        );
        reject(error);
        this.#end({ kind: "connection-lost", error });
      });
      worker.on("exit", () => {
        const error = new ConnectionError("BT_CONNECTION_LOST", "the link's worker has ended");
        reject(error);
        this.#end({ kind: "connection-lost", error });
      });
    });
  }

  get bytesIn(): number {
    return this.#counters[0] ?? 0;
  }

  get bytesOut(): number {
    return this.#counters[1] ?? 0;
  }

  get pendingBytes(): number {
    return this.#counters[2] ?? 0;
  }

  post(message: ToWorker): void {
    if (!this.#ended) this.#worker.postMessage(message);
  }

  goLive(receiver: FrameReceiver, maxFrameBytes: number): void {
    this.#receiver = receiver;
    this.#parser = new FrameParser((frame) => receiver.onFrame(frame), 4, maxFrameBytes);
    for (const bytes of this.#early) this.#parser.push(bytes);
    this.#early = [];
  }

  /** What is written in one turn crosses together. */
  write(...parts: readonly Uint8Array[]): void {
    if (this.#ended) return;
    if (this.#queued.length === 0) queueMicrotask(() => this.#flush());
    // The encoder uses its memory again.
    for (const part of parts) this.#queued.push(part.slice());
  }

  repeat(frame: Uint8Array, everyMs: number): () => void {
    const id = (this.#ids += 1);
    this.#flush();
    this.post({ type: "repeat", id, frame, everyMs });
    return () => this.post({ type: "unrepeat", id });
  }

  drained(): Promise<void> {
    if (this.#ended) return Promise.resolve();
    const id = (this.#ids += 1);
    return new Promise((resolve) => {
      this.#drains.set(id, resolve);
      this.#flush();
      this.post({ type: "drained", id });
    });
  }

  pause(): void {
    this.post({ type: "pause" });
  }

  resume(): void {
    this.post({ type: "resume" });
  }

  close(): Promise<void> {
    this.#flush();
    this.post({ type: "close" });
    return this.#gone;
  }

  openFeed(link: DistLink, options: FeedOptions): TraceFeed {
    // The mailbox exists here, so that the pid is ours; what is sent to it is picked out in the worker.
    const mailbox = link.createMailbox({});
    const feed = { options, malformed: 0, onSettled: (): void => undefined };
    this.#feeds.set(mailbox.id, feed);
    const { ring, source, node, creation, base } = options;
    this.post({ type: "feed", mailbox: mailbox.id, ring: ring.handle, source, node, creation, base });
    return {
      mailbox,
      get malformed() {
        return feed.malformed;
      },
      settle: (received) => {
        if (this.#ended) return Promise.resolve();
        return new Promise((resolve) => {
          feed.onSettled = resolve;
          this.post({ type: "settle", mailbox: mailbox.id, received });
        });
      },
      close: () => {
        this.#feeds.delete(mailbox.id);
        this.post({ type: "unfeed", mailbox: mailbox.id });
        link.closeMailbox(mailbox);
      },
    };
  }

  #flush(): void {
    if (this.#queued.length === 0) return;
    const bytes = Buffer.concat(this.#queued);
    this.#queued = [];
    this.post({ type: "write", bytes });
  }

  #receive(message: Exclude<FromWorker, { type: "connected" | "failed" }>): void {
    switch (message.type) {
      case "frames":
        if (this.#parser === undefined) this.#early.push(message.bytes);
        else this.#parser.push(message.bytes);
        return;
      case "drained":
        this.#drains.get(message.id)?.();
        this.#drains.delete(message.id);
        return;
      case "malformed": {
        const feed = this.#feeds.get(message.mailbox);
        if (feed !== undefined) feed.malformed += 1;
        return;
      }
      case "settled":
        this.#feeds.get(message.mailbox)?.onSettled();
        return;
      case "end":
        this.#feeds
          .get(message.mailbox)
          ?.options.onEnd(message.stats === undefined ? undefined : decode(message.stats));
        return;
      case "closed":
        this.#end(richReason(message.reason));
    }
  }

  #end(reason: LinkCloseReason): void {
    if (this.#ended) return;
    this.#ended = true;
    for (const resolve of this.#drains.values()) resolve();
    this.#drains.clear();
    for (const feed of this.#feeds.values()) feed.onSettled();
    void this.#worker.terminate();
    this.#settleGone();
    this.#receiver?.onClosed(reason);
  }
}

function richReason(reason: PlainCloseReason): LinkCloseReason {
  if (!("error" in reason)) return reason;
  const error = fromPlainError(reason.error);
  return {
    kind: reason.kind,
    error:
      error instanceof ConnectionError ? error : new ConnectionError("BT_CONNECTION_LOST", error.message),
  };
}
