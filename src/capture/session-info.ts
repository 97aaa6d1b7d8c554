/**
 * What a session knows of its node, asked once when it attaches.
 */
import { setMaxListeners } from "node:events";
import { BeamtraceError } from "../erlang/errors";
import type { NodeLink } from "../erlang/dist";
import { atom, Atom, tuple, Tuple, type Term } from "../erlang/term";
import type { CallOptions } from "./deadline";
import { foreseeTracer, type TracerOption } from "./native-loader";

/** Which tracer, and why. */
export interface TracerChoice {
  readonly kind: "native" | "portable";
  readonly reason: string;
}

/** Facts about the node and about what beamtrace can do there. */
export interface SessionInfo {
  /** Full node name. */
  readonly node: string;
  /** Tells this run of the node from an earlier one. */
  readonly creation: number;
  /** Our own name, as the node knows it. */
  readonly self: string;
  /** OTP release, e.g. 27. */
  readonly otp: number;
  /** ERTS version, e.g. `"15.2.7"`. */
  readonly erts: string;
  /** Elixir version when Elixir is loaded. */
  readonly elixir: string | undefined;
  readonly schedulers: number;
  readonly schedulersOnline: number;
  /** Bytes of a machine word. */
  readonly wordSize: number;
  /** e.g. `"x86_64-pc-linux-gnu"`. */
  readonly systemArchitecture: string;
  /** The node's clocks in nanoseconds when the session attached. Time stamps of events count from `base`. */
  readonly clock: {
    /** `erlang:monotonic_time(nanosecond)` */
    readonly base: bigint;
    /** `erlang:time_offset(nanosecond)`: monotonic time + offset = time since 1970. */
    readonly timeOffset: bigint;
  };
  /** The tracer of this session's traces. Until the first one it is what is foreseen; a single trace may differ (`trace.tracer`). */
  readonly tracer: TracerChoice;
  readonly capabilities: {
    /** OTP 27+: traces of several tools don't disturb each other. */
    readonly traceSessions: boolean;
    /** The node can compile the agent itself. */
    readonly compiler: boolean;
  };
}

/** The oldest OTP release that beamtrace supports. */
export const OLDEST_OTP = 25;

/** The text of an Erlang string (a list of code points) or of a binary. */
export function textOf(term: Term | undefined): string {
  if (Array.isArray(term)) return String.fromCodePoint(...(term as number[]));
  if (term instanceof Uint8Array) return Buffer.from(term).toString("utf8");
  return term instanceof Atom ? term.name : "";
}

/** Asks the node for its facts; all questions travel together. */
export async function querySessionInfo(
  link: NodeLink,
  tracer: TracerOption,
  given: CallOptions,
): Promise<SessionInfo> {
  const options: { timeoutMs?: number; signal?: AbortSignal } = { ...given };
  if (given.signal !== undefined) {
    // Each question listens to it; that is meant, and Node need not warn about the caller's signal.
    options.signal = AbortSignal.any([given.signal]);
    setMaxListeners(0, options.signal);
  }
  const systemInfo = (item: Term): Promise<Term> => link.call("erlang", "system_info", [item], options);
  const [otpTerm, erts, schedulers, online, word, arch, sessions, compiler, elixir, base, timeOffset] =
    await Promise.all([
      systemInfo(atom("otp_release")),
      systemInfo(atom("version")),
      systemInfo(atom("schedulers")),
      systemInfo(atom("schedulers_online")),
      systemInfo(tuple(atom("wordsize"), atom("internal"))),
      systemInfo(atom("system_architecture")),
      link.call("code", "which", [atom("trace")], options),
      link.call("code", "which", [atom("compile")], options),
      link.call("application", "get_key", [atom("elixir"), atom("vsn")], options),
      link.call("erlang", "monotonic_time", [atom("nanosecond")], options),
      link.call("erlang", "time_offset", [atom("nanosecond")], options),
    ]);
  const otp = Number.parseInt(textOf(otpTerm), 10);
  if (!(otp >= OLDEST_OTP)) {
    throw new BeamtraceError(
      "BT_OTP_TOO_OLD",
      `${link.peer.name} runs OTP ${textOf(otpTerm)}; beamtrace needs OTP ${OLDEST_OTP} or later`,
    );
  }
  const systemArchitecture = textOf(arch);
  const wordSize = word as number;
  return {
    node: link.peer.name,
    creation: link.peer.creation,
    self: link.self.name,
    otp,
    erts: textOf(erts),
    elixir: elixir instanceof Tuple ? textOf(elixir.elements[1]) : undefined,
    schedulers: schedulers as number,
    schedulersOnline: online as number,
    wordSize,
    systemArchitecture,
    clock: { base: BigInt(base as number | bigint), timeOffset: BigInt(timeOffset as number | bigint) },
    tracer: foreseeTracer(tracer, { systemArchitecture, wordSize }),
    capabilities: {
      traceSessions: otp >= 27 && !(sessions instanceof Atom && sessions.name === "non_existing"),
      compiler: !(compiler instanceof Atom && compiler.name === "non_existing"),
    },
  };
}
