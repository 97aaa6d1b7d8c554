/**
 * Every error that beamtrace throws or rejects with. `code` is stable and meant for programs, `message` says what to do.
 * `instanceof` works across two copies of the package (ESM beside CJS, two versions): classes are recognised by a global symbol, not by identity.
 */

const BRAND = Symbol.for("beamtrace.error");

/** Stable codes of `BeamtraceError`. */
export type ErrorCode =
  // connection
  | "BT_NODE_NAME_INVALID"
  | "BT_EPMD_UNREACHABLE"
  | "BT_NODE_NOT_FOUND"
  | "BT_NODE_UNREACHABLE"
  | "BT_NOT_A_NODE"
  | "BT_HANDSHAKE_FAILED"
  | "BT_NOT_ALLOWED"
  | "BT_COOKIE_MISSING"
  | "BT_COOKIE_REJECTED"
  | "BT_TLS_FAILED"
  | "BT_OTP_TOO_OLD"
  | "BT_CONNECTION_LOST"
  | "BT_CLOSED"
  | "BT_TIMEOUT"
  | "BT_ABORTED"
  // terms
  | "BT_BAD_TERM"
  | "BT_NOT_ENCODABLE"
  // modules
  | "BT_CORRUPT_BEAM"
  | "BT_NO_DEBUG_INFO"
  | "BT_UNKNOWN_FORM"
  | "BT_INSTRUMENT_REFUSED"
  | "BT_COMPILE_FAILED"
  | "BT_PLAN_INVALID"
  | "BT_FILE_FAILED"
  // remote execution
  | "BT_REMOTE_ERROR"
  | "BT_NO_CODE"
  // agent and traces
  | "BT_AGENT_CLASH"
  | "BT_AGENT_FAILED"
  | "BT_NATIVE_UNAVAILABLE"
  | "BT_RUNTIME_CLASH"
  | "BT_TRACER_BUSY"
  | "BT_SYSTEM_MONITOR_BUSY"
  | "BT_NO_MATCH"
  | "BT_MATCH_SPEC_INVALID"
  | "BT_TRACE_SPEC_INVALID"
  | "BT_PROCESS_INVALID"
  | "BT_TRACE_SELF"
  | "BT_GC_TRACE_CONFLICT"
  | "BT_LIMIT_INVALID"
  | "BT_OPTION_INVALID"
  | "BT_TRACE_STOPPED"
  // buffer and files
  | "BT_RING_INVALID"
  | "BT_BATCH_RELEASED"
  | "BT_CORRUPT_RECORDING"
  | "BT_RECORDING_VERSION"
  | "BT_CODEC_INVALID";

/** Options of a `BeamtraceError`. */
export interface BeamtraceErrorOptions {
  readonly cause?: unknown;
}

/** Base class of all errors of beamtrace. */
export class BeamtraceError extends Error {
  /** Stable, for programs. */
  readonly code: ErrorCode;

  constructor(code: ErrorCode, message: string, options: BeamtraceErrorOptions = {}) {
    super(message, options);
    this.code = code;
    Object.defineProperty(this, BRAND, { value: brandsOf(new.target) });
    this.name = new.target.brand;
  }

  /** Name under which copies of the package recognise this class. */
  static readonly brand: string = "BeamtraceError";

  static override [Symbol.hasInstance](value: unknown): boolean {
    if (typeof value !== "object" || value === null) return false;
    const brands = (value as Record<symbol, unknown>)[BRAND];
    return Array.isArray(brands) && brands.includes((this as unknown as typeof BeamtraceError).brand);
  }
}

function brandsOf(target: typeof BeamtraceError): string[] {
  const brands: string[] = [];
  for (let c: unknown = target; typeof c === "function" && "brand" in c; c = Object.getPrototypeOf(c)) {
    brands.push(String(c.brand));
  }
  return brands;
}

/** Reaching a node, proving who we are, or the connection afterwards. */
export class ConnectionError extends BeamtraceError {
  static override readonly brand: string = "ConnectionError";
}

/** Bytes that are no valid external term; `offset` is where. */
export class BadTermError extends BeamtraceError {
  static override readonly brand: string = "BadTermError";
  /** Byte offset into the input. */
  readonly offset: number;

  constructor(message: string, offset: number, options: BeamtraceErrorOptions = {}) {
    super("BT_BAD_TERM", `${message} (at byte ${offset})`, options);
    this.offset = offset;
  }
}

/** Bytes that are no valid `.beam` file; `offset` is where. */
export class CorruptBeamError extends BeamtraceError {
  static override readonly brand: string = "CorruptBeamError";
  /** Byte offset: into the file after inflation, or into the chunk that the message names. */
  readonly offset: number;

  constructor(message: string, offset: number, options: BeamtraceErrorOptions = {}) {
    super("BT_CORRUPT_BEAM", `${message} (at byte ${offset})`, options);
    this.offset = offset;
  }
}

/** A call took longer than its limit, or its `AbortSignal` fired. */
export class AbortedError extends BeamtraceError {
  static override readonly brand: string = "AbortedError";
}

/** Options that can't be meant. */
export class OptionError extends BeamtraceError {
  static override readonly brand: string = "OptionError";
  /** Name of the option. */
  readonly option: string;

  constructor(
    code:
      | "BT_OPTION_INVALID"
      | "BT_LIMIT_INVALID"
      | "BT_TRACE_SPEC_INVALID"
      | "BT_RING_INVALID"
      | "BT_NODE_NAME_INVALID",
    option: string,
    message: string,
    options: BeamtraceErrorOptions = {},
  ) {
    super(code, `${option}: ${message}`, options);
    this.option = option;
  }
}
