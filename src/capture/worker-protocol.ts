/**
 * What the two ends of a worker host say to each other. The worker owns socket, frames and decoding; the main thread owns the session.
 * Frames for a feed never cross: they are decoded into the ring where they arrive.
 */
import type { ConnectionFacts } from "../erlang/dist/connect";
import type { ConnectOptions, ConnectTarget, LinkCloseReason } from "../erlang/dist";
import { AbortedError, BeamtraceError, ConnectionError, OptionError, type ErrorCode } from "../erlang/errors";
import type { RingHandle } from "../buffer";

/** `workerData` of a link worker. */
export interface LinkWorkerData {
  readonly target: ConnectTarget;
  readonly options: Omit<ConnectOptions, "signal">;
  /** Three doubles that the worker keeps up to date: bytes in, bytes out, bytes pending. */
  readonly counters: SharedArrayBuffer;
}

/** A feed to be opened in the worker. */
export interface FeedRequest {
  /** Id of the mailbox that the tracer sends to. */
  readonly mailbox: number;
  readonly ring: RingHandle;
  readonly source: number;
  readonly node: string;
  readonly creation: number;
  readonly base: bigint;
}

/** Main thread to worker. */
export type ToWorker =
  | { readonly type: "abort" }
  | { readonly type: "write"; readonly bytes: Uint8Array }
  | {
      readonly type: "repeat";
      readonly id: number;
      readonly frame: Uint8Array;
      readonly everyMs: number;
    }
  | { readonly type: "unrepeat"; readonly id: number }
  | { readonly type: "pause" }
  | { readonly type: "resume" }
  | { readonly type: "close" }
  | { readonly type: "drained"; readonly id: number }
  | ({ readonly type: "feed" } & FeedRequest)
  | { readonly type: "settle"; readonly mailbox: number; readonly received: number }
  | { readonly type: "unfeed"; readonly mailbox: number };

/** Worker to main thread. */
export type FromWorker =
  | { readonly type: "connected"; readonly facts: ConnectionFacts }
  | { readonly type: "failed"; readonly error: PlainError }
  /** Whole frames, each with its u32 length, that arrived in one turn. */
  | { readonly type: "frames"; readonly bytes: Uint8Array }
  | { readonly type: "drained"; readonly id: number }
  | { readonly type: "malformed"; readonly mailbox: number }
  | { readonly type: "settled"; readonly mailbox: number }
  /** The tracer's last message, as external term format of its figures. */
  | { readonly type: "end"; readonly mailbox: number; readonly stats: Uint8Array | undefined }
  | { readonly type: "closed"; readonly reason: PlainCloseReason };

/** A close reason without error objects. */
export type PlainCloseReason =
  | Exclude<LinkCloseReason, { error: unknown }>
  | { readonly kind: "connection-lost" | "protocol-error"; readonly error: PlainError };

/** An error that can be cloned; `cause` becomes its message. */
export interface PlainError {
  readonly name: string;
  readonly code: ErrorCode | undefined;
  readonly message: string;
  readonly option: string | undefined;
}

export function toPlainError(error: unknown): PlainError {
  const { name, message } = error instanceof Error ? error : { name: "Error", message: String(error) };
  return {
    name,
    message,
    code: error instanceof BeamtraceError ? error.code : undefined,
    option: error instanceof OptionError ? error.option : undefined,
  };
}

export function fromPlainError(plain: PlainError): Error {
  const { name, code, message, option } = plain;
  if (code === undefined)
    return new ConnectionError("BT_CONNECTION_LOST", `the link's worker failed: ${message}`);
  if (name === "AbortedError") return new AbortedError(code, message);
  if (option !== undefined)
    return new OptionError(code as "BT_OPTION_INVALID", option, message.slice(option.length + 2));
  return new ConnectionError(code, message);
}
