/**
 * A framed, ticking byte connection over any Duplex: the shell around `FrameParser`. It owns the Duplex from the moment it
 * gets it: whatever ends the connection, the Duplex is destroyed and the timers are gone when `onClosed` is called.
 * Follows "Erlang Distribution Protocol", Protocol between Connected Nodes (framing, ticks).
 */
import type { Duplex } from "node:stream";
import { ConnectionError } from "../errors";
import { FrameParser } from "./frame-parser";
import type { LinkCloseReason } from "./node-link";
import type { DirectReads } from "./open-socket";

/** Who gets the frames. */
export interface FrameReceiver {
  /** A frame that is no tick; the view is valid only during the call. An exception ends the connection. */
  onFrame(frame: Uint8Array): void;
  /** The connection has ended; called once. */
  onClosed(reason: LinkCloseReason): void;
}

/** Our ticks, and how long a peer may be silent. */
export interface TickOptions {
  readonly tickMs: number;
  readonly silenceMs: number;
}

/** How long `close` waits for the peer to close its side. */
const CLOSE_GRACE_MS = 1_000;
const TICK = Buffer.alloc(4);

/** A framed connection; starts with the handshake's framing, `goLive` switches to that of connected nodes. */
export class Connection {
  readonly #duplex: Duplex;
  readonly #parser: FrameParser;
  #receiver: FrameReceiver;
  #bytesIn = 0;
  #bytesOut = 0;
  #outAtTick = 0;
  #reason: LinkCloseReason | undefined;
  #ended = false;
  #paused = false;
  #corked = false;
  #tickTimer: NodeJS.Timeout | undefined;
  #graceTimer: NodeJS.Timeout | undefined;
  readonly #repeats = new Set<NodeJS.Timeout>();
  #closed: (() => void) | undefined;
  /** Fulfilled when the Duplex has gone. */
  readonly #gone = new Promise<void>((resolve) => (this.#closed = resolve));

  /** @param direct where the chunks come from when the Duplex was opened with it */
  constructor(
    duplex: Duplex,
    receiver: FrameReceiver,
    headerBytes: 2 | 4,
    maxFrameBytes: number,
    direct?: DirectReads,
  ) {
    this.#duplex = duplex;
    this.#receiver = receiver;
    this.#parser = new FrameParser((frame) => this.#onFrame(frame), headerBytes, maxFrameBytes);
    if (direct === undefined) duplex.on("data", this.#onData);
    else direct.onChunk = this.#onData;
    duplex.on("end", this.#onEnd);
    duplex.on("error", this.#onError);
    duplex.on("close", this.#onClose);
    if (duplex.destroyed || duplex.readableEnded) queueMicrotask(this.#onClose);
  }

  get bytesIn(): number {
    return this.#bytesIn;
  }

  get bytesOut(): number {
    return this.#bytesOut;
  }

  get pendingBytes(): number {
    return this.#duplex.writableLength;
  }

  /** The handshake is over: frames have a u32 header and go to another receiver, ticks start. */
  goLive(receiver: FrameReceiver, maxFrameBytes: number, ticks: TickOptions): void {
    this.#receiver = receiver;
    this.#parser.headerBytes = 4;
    this.#parser.maxFrameBytes = maxFrameBytes;
    this.#startTicks(ticks);
  }

  /** Sends one frame, its header included, given in parts. What is sent in one turn goes out together. */
  write(...parts: readonly Uint8Array[]): void {
    if (this.#ended || this.#reason !== undefined) return;
    if (!this.#corked) {
      this.#corked = true;
      this.#duplex.cork();
      process.nextTick(this.#uncork);
    }
    for (const part of parts) {
      this.#bytesOut += part.length;
      this.#duplex.write(part);
    }
  }

  /** Sends the frame now and every so often until the returned function is called or the connection ends. */
  repeat(frame: Uint8Array, everyMs: number): () => void {
    this.write(frame);
    const timer = setInterval(() => this.write(frame), everyMs);
    timer.unref();
    this.#repeats.add(timer);
    return () => {
      clearInterval(timer);
      this.#repeats.delete(timer);
    };
  }

  /** Resolves when the Duplex takes more, or the connection has ended. */
  drained(): Promise<void> {
    if (this.#ended || !this.#duplex.writableNeedDrain) return Promise.resolve();
    return new Promise((resolve) => {
      const done = (): void => {
        this.#duplex.off("drain", done);
        resolve();
      };
      this.#duplex.once("drain", done);
      void this.#gone.then(done);
    });
  }

  pause(): void {
    this.#paused = true;
    this.#duplex.pause();
  }

  resume(): void {
    this.#paused = false;
    this.#duplex.resume();
  }

  /** Sends what is pending, says goodbye, and resolves when the Duplex has gone. */
  close(): Promise<void> {
    if (this.#reason === undefined) {
      this.#reason = { kind: "closed" };
      this.#stopTicks();
      this.#parser.stop();
      // The rest is read and thrown away: closing a socket with unread data would make the system reset it, and our last words be lost.
      this.resume();
      this.#uncork();
      this.#duplex.end();
      this.#graceTimer = setTimeout(() => this.#end(), CLOSE_GRACE_MS);
    }
    return this.#gone;
  }

  /** Ends the connection at once, for this reason. */
  fail(reason: LinkCloseReason): void {
    this.#reason ??= reason;
    this.#end();
  }

  readonly #onData = (chunk: Uint8Array | string): void => {
    // A direct read may still be under way when the connection has ended.
    if (this.#ended) return;
    this.#bytesIn += chunk.length;
    try {
      if (typeof chunk === "string")
        throw new TypeError("the Duplex yields text; it must not have an encoding set");
      this.#parser.push(chunk);
    } catch (error) {
      this.fail({ kind: "protocol-error", error: asConnectionError(error) });
    }
  };

  readonly #onEnd = (): void => {
    if (this.#parser.midFrame) {
      const error = new ConnectionError(
        "BT_CONNECTION_LOST",
        "the connection ended in the middle of a frame",
      );
      this.#reason ??= { kind: "connection-lost", error };
    }
    this.#reason ??= { kind: "peer-closed" };
    this.#end();
  };

  readonly #onError = (cause: Error): void => {
    const why = "code" in cause ? String(cause.code) : cause.message;
    const error = new ConnectionError("BT_CONNECTION_LOST", `the connection broke (${why})`, { cause });
    this.#reason ??= { kind: "connection-lost", error };
    this.#end();
  };

  readonly #onClose = (): void => {
    const error = new ConnectionError("BT_CONNECTION_LOST", "the connection was closed on our side");
    this.#reason ??= { kind: "connection-lost", error };
    this.#end();
  };

  readonly #uncork = (): void => {
    if (!this.#corked) return;
    this.#corked = false;
    this.#duplex.uncork();
  };

  #onFrame(frame: Uint8Array): void {
    if (this.#reason !== undefined) return;
    if (frame.length === 0 && this.#tickTimer !== undefined) this.#onTick();
    else this.#receiver.onFrame(frame);
  }

  /** A node with a shorter net_ticktime than ours must hear from us as often as it ticks; two of our kind don't play ping-pong. */
  #onTick(): void {
    if (this.#bytesOut === this.#outAtTick) this.write(TICK);
    this.#outAtTick = this.#bytesOut;
  }

  #end(): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#stopTicks();
    clearTimeout(this.#graceTimer);
    this.#parser.stop();
    this.#duplex.off("data", this.#onData);
    this.#duplex.off("end", this.#onEnd);
    // Errors may still come while it is torn down; nobody is interested in them, but unheard they would end the process.
    this.#duplex.destroy();
    this.#closed?.();
    this.#receiver.onClosed(this.#reason ?? { kind: "closed" });
  }

  /**
   * Silence is counted in ticks of ours, not in clock time: after a pause of the whole process (debugger, suspended machine)
   * the socket is read before the next tick, so a healthy peer is never taken for dead.
   */
  #startTicks({ tickMs, silenceMs }: TickOptions): void {
    const limit = Math.max(1, Math.ceil(silenceMs / tickMs));
    let lastIn = this.#bytesIn;
    let lastOut = this.#bytesOut;
    let silent = 0;
    this.#tickTimer = setInterval(() => {
      silent = this.#paused || this.#bytesIn !== lastIn ? 0 : silent + 1;
      if (silent >= limit) return this.fail({ kind: "tick-timeout", silentMs: silent * tickMs });
      if (this.#bytesOut === lastOut && this.#duplex.writableLength === 0) this.write(TICK);
      lastIn = this.#bytesIn;
      lastOut = this.#bytesOut;
    }, tickMs);
    this.#tickTimer.unref();
  }

  #stopTicks(): void {
    clearInterval(this.#tickTimer);
    for (const timer of this.#repeats) clearInterval(timer);
    this.#repeats.clear();
  }
}

function asConnectionError(error: unknown): ConnectionError {
  if (error instanceof ConnectionError) return error;
  const why = error instanceof Error ? error.message : String(error);
  return new ConnectionError("BT_CONNECTION_LOST", `the node sent what can't be understood: ${why}`, {
    cause: error,
  });
}
