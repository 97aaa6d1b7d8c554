/**
 * `attach()`: from a node's name to a session.
 */
import { connect, type ConnectOptions, type ConnectTarget } from "../erlang/dist";
import { OptionError } from "../erlang/errors";
import type { CallOptions } from "./deadline";
import { checkReattach, type ReattachOptions } from "./reattach";
import type { TracerOption } from "./native-loader";
import { nearNames } from "./near-names";
import { querySessionInfo, type SessionInfo } from "./session-info";
import { Session } from "./session";
import { localHost, type LinkHost } from "./trace-feed";
import { connectInWorker } from "./worker-host";

/** Options of `attach()`. */
export interface AttachOptions extends ConnectOptions {
  /** Milliseconds until a call to the node rejects with `BT_TIMEOUT`, unless the call says otherwise. Default: 5,000. */
  readonly callTimeoutMs?: number;
  /**
   * Milliseconds that the node waits for a sign of life from us before it takes out everything that we put in.
   * It matters for silent networks only; when the connection or this process ends, clean-up is immediate. Default: 10,000.
   */
  readonly leaseMs?: number;
  /**
   * Which tracer to use. `"native"`: a library in the node that records where events happen, several times cheaper than a process that
   * gets them as messages; a trace rejects with `BT_NATIVE_UNAVAILABLE` where it can't be had. `"portable"`: that process.
   * Default `"auto"`: native where it can be had, else portable; `session.info.tracer` and `trace.tracer` tell what was chosen and why.
   */
  readonly tracer?: TracerOption;
  /** Attach again when the connection is lost: traces start again after a gap marker. Default: false, the session ends. */
  readonly reattach?: boolean | ReattachOptions;
  /** Socket and decoding in a worker thread, so that neither waits for what this thread does. Same API. Default: false. */
  readonly worker?: boolean;
}

const OPTIONS: Readonly<Record<keyof AttachOptions, true>> = {
  cookie: true,
  epmd: true,
  tls: true,
  name: true,
  replaceExisting: true,
  setupTimeoutMs: true,
  tickMs: true,
  silenceMs: true,
  maxFrameBytes: true,
  signal: true,
  callTimeoutMs: true,
  leaseMs: true,
  tracer: true,
  reattach: true,
  worker: true,
};

const DEFAULT_LEASE_MS = 10_000;
const DEFAULT_CALL_TIMEOUT_MS = 5_000;

/**
 * Attaches to a live node as a hidden node. Nothing is put into it before the first trace.
 *
 * @param target - node name `"name@host"` (looked up in epmd), `{ host, port }`, or `{ duplex }`
 * @throws ConnectionError `BT_NODE_NAME_INVALID`, `BT_EPMD_UNREACHABLE`, `BT_NODE_NOT_FOUND`, `BT_NODE_UNREACHABLE`, `BT_NOT_A_NODE`,
 *   `BT_COOKIE_MISSING`, `BT_COOKIE_REJECTED`, `BT_NOT_ALLOWED`, `BT_OTP_TOO_OLD`, `BT_TLS_FAILED`
 * @throws AbortedError `BT_TIMEOUT`, `BT_ABORTED`
 * @throws OptionError `BT_OPTION_INVALID`
 * @example
 * ```ts
 * await using session = await attach("shop@127.0.0.1");
 * const trace = await session.trace({ events: ["spawn", "exit"] });
 * await trace.events$.forEach((event) => console.log(event));
 * ```
 */
export async function attach(target: ConnectTarget, options: AttachOptions = {}): Promise<Session> {
  const {
    callTimeoutMs = DEFAULT_CALL_TIMEOUT_MS,
    leaseMs = DEFAULT_LEASE_MS,
    reattach,
    tracer = "auto",
    worker = false,
    ...rest
  } = options;
  for (const key of Object.keys(options))
    if (!Object.hasOwn(OPTIONS, key)) {
      const [near] = nearNames(key, Object.keys(OPTIONS), 1);
      throw new OptionError(
        "BT_OPTION_INVALID",
        key,
        `there is no such option${near === undefined ? `; options are ${Object.keys(OPTIONS).join(", ")}` : `; did you mean ${near}?`}`,
      );
    }
  if (!(callTimeoutMs > 0))
    throw new OptionError("BT_OPTION_INVALID", "callTimeoutMs", "must be a positive number of milliseconds");
  if (!(leaseMs >= 500 && leaseMs <= 3_600_000))
    throw new OptionError("BT_OPTION_INVALID", "leaseMs", "must be from 500 to 3,600,000 milliseconds");
  if (!["auto", "native", "portable"].includes(tracer))
    throw new OptionError("BT_OPTION_INVALID", "tracer", '"auto", "native" or "portable"');
  const reattachOptions = reattach === true ? {} : reattach || undefined;
  if (reattachOptions !== undefined) checkReattach(reattachOptions);
  if (reattachOptions !== undefined && isDuplex(target)) {
    throw new OptionError(
      "BT_OPTION_INVALID",
      "reattach",
      "a Duplex can't be opened again; attach by name or by host and port",
    );
  }
  if (worker && isDuplex(target))
    throw new OptionError("BT_OPTION_INVALID", "worker", "a Duplex can't be moved to a worker");

  const open = async (signal: AbortSignal | undefined): Promise<{ host: LinkHost; info: SessionInfo }> => {
    const connectOptions: ConnectOptions = { ...rest };
    if (signal === undefined) delete (connectOptions as { signal?: AbortSignal }).signal;
    else (connectOptions as { signal?: AbortSignal }).signal = signal;
    const host = worker
      ? await connectInWorker(target, connectOptions)
      : localHost(await connect(target, connectOptions));
    const callOptions: CallOptions = { timeoutMs: callTimeoutMs, ...(signal !== undefined && { signal }) };
    try {
      return { host, info: await querySessionInfo(host.link, tracer, callOptions) };
    } catch (error) {
      await host.link.close();
      throw error;
    }
  };

  const { host, info } = await open(options.signal);
  return new Session({
    info,
    host,
    tracer,
    reconnect: open,
    leaseMs: Math.floor(leaseMs),
    callTimeoutMs,
    reattach: reattachOptions,
    signal: options.signal,
  });
}

function isDuplex(target: ConnectTarget): boolean {
  return typeof target === "object" && target !== null && "duplex" in target;
}
