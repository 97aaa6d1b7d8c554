/**
 * What a session and a trace report about themselves: discriminated unions, so that a `switch` sees every case.
 */
import type { GapHop } from "../buffer/event-schema";
import type { ErrorCode } from "../erlang/errors";
import type { Term } from "../erlang/term";

/** Why a session has ended. `session.closed` resolves with it and never rejects. */
export type SessionCloseReason =
  /** `close()` or disposal by this side. */
  | { readonly kind: "closed" }
  /** The connection ended: node stopped, network cut, ticks missing. */
  | { readonly kind: "connection-lost"; readonly detail: string }
  /** The holder on the node ended without being asked to. `reason` is its exit reason. */
  | { readonly kind: "agent-lost"; readonly reason: Term }
  /** The `AbortSignal` given to `attach` fired. */
  | { readonly kind: "aborted" }
  /** Every attempt to attach again failed. */
  | { readonly kind: "reattach-failed"; readonly attempts: number; readonly detail: string };

/** State of a session, on `status$` and on the `status` event. */
export type SessionStatus =
  | { readonly state: "connected"; readonly node: string }
  /** Events are being lost at `hop`; it follows the losses of a running trace, at most once a second. */
  | { readonly state: "overloaded"; readonly traceId: number; readonly hop: GapHop; readonly lost: number }
  /** With `tracer: "auto"`: the native tracer can't be used, traces use the portable one. `detail` is the reason in `info.tracer` or `trace.tracer`. */
  | { readonly state: "warning"; readonly code: "BT_NATIVE_UNAVAILABLE"; readonly detail: string }
  | {
      readonly state: "reattaching";
      readonly attempt: number;
      readonly delayMs: number;
      readonly detail: string;
    }
  | { readonly state: "closed"; readonly reason: SessionCloseReason };

/** Why a trace has ended. `trace.ended` resolves with it and never rejects. */
export type TraceEndReason =
  /** `stop()` or disposal. */
  | { readonly kind: "stopped" }
  /** A limit tripped on the node. */
  | {
      readonly kind: "limit";
      readonly limit: "events" | "rate" | "seconds" | "memory" | "queue" | "overhead";
      readonly measured: number;
      readonly allowed: number;
    }
  /** The tracer on the node ended by itself. */
  | { readonly kind: "tracer-died"; readonly reason: Term }
  /** After a re-attachment the node refused the trace. */
  | { readonly kind: "refused"; readonly code: ErrorCode; readonly detail: string }
  /** The session ended. */
  | { readonly kind: "session-closed"; readonly reason: SessionCloseReason };
