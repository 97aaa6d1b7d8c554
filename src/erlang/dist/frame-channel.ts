/**
 * What a live link needs of the connection under it. `Connection` is one on this thread; another relays to a worker thread
 * that owns the socket.
 */
import type { FrameReceiver, TickOptions } from "./connection";

/** A framed connection whose handshake is done. */
export interface FrameChannel {
  readonly bytesIn: number;
  readonly bytesOut: number;
  /** Bytes accepted for sending that the socket hasn't taken yet. */
  readonly pendingBytes: number;
  /** Frames go to this receiver from now on, and ticks start. */
  goLive(receiver: FrameReceiver, maxFrameBytes: number, ticks: TickOptions): void;
  /** Sends one frame, its header included, given in parts. */
  write(...parts: readonly Uint8Array[]): void;
  /** Sends the frame now and every so often from the thread that has the socket, whatever this one does; returns what ends it. */
  repeat(frame: Uint8Array, everyMs: number): () => void;
  drained(): Promise<void>;
  pause(): void;
  resume(): void;
  /** Sends what is pending and resolves when the socket has gone. */
  close(): Promise<void>;
}
