/**
 * What a live connection to a node offers: mailboxes (local pids), signals, remote calls, and its own end.
 * Two implementations: `DistLink` over a socket of this thread, and a relay across a worker thread. Who calls
 * `connect` owns the link and closes it; mailboxes die with it.
 * Follows "Erlang Distribution Protocol", section Protocol between Connected Nodes.
 */
import type { ConnectionError } from "../errors";
import type { Atom, Pid, Reference, Term } from "../term";

/** The node at the other end. */
export interface PeerInfo {
  /** Full node name, `shop@web1`, as it named itself in the handshake. */
  readonly name: string;
  /** Tells this run of the node from an earlier one. */
  readonly creation: number;
  /** Distribution flags it offered (see `DistFlag`). */
  readonly flags: bigint;
  /** Host that was connected to; the host part of the name where that isn't known (custom Duplex). */
  readonly host: string;
}

/** How the node knows us. */
export interface SelfInfo {
  readonly name: string;
  readonly creation: number;
}

/**
 * Receives what is sent to one local pid. Handlers run in the socket's turn, in the order of the wire; they should not throw
 * (an exception is passed on to the process as uncaught, the link goes on). A mailbox behaves like a process that traps exits.
 */
export interface Mailbox {
  /** A message. `from` is the sender where the node told it. */
  onMessage?(message: Term, from: Pid | undefined): void;
  /** A message as external term format, beginning with 131, undecoded. Takes precedence over `onMessage`. The view is valid only during the call. */
  onRaw?(payload: Uint8Array): void;
  /** A link broke, or someone called `exit/2` on the mailbox. On connection loss `from` is the linked process and the reason `noconnection`. */
  onExit?(from: Pid, reason: Term): void;
  /** A monitored process ended; `from` is the pid, or the registered name as it was monitored. On connection loss the reason is `noconnection`. */
  onDown?(ref: Reference, from: Pid | Atom, reason: Term): void;
}

/** Receiver of a message: a process, a registered name, or a process alias. */
export type Destination = Pid | { readonly name: string } | Reference;

/** Module and function to start a process with; the arity is that of the arguments. */
export interface SpawnFunction {
  readonly module: string;
  readonly function: string;
}

/** Options of `NodeLink.call`. */
export interface CallOptions {
  /** Gives up after that long; default: never. */
  readonly timeoutMs?: number;
  readonly signal?: AbortSignal;
  /** How to run it. `spawn` (default): a process of its own, by spawn_request of `erpc:execute_call/4`. `rex`: through the rpc server. */
  readonly method?: "spawn" | "rex";
}

/** Why a link ended. */
export type LinkCloseReason =
  /** `close()` was called. */
  | { readonly kind: "closed" }
  /** The node closed the connection in an orderly way: it stopped, or disconnected us. */
  | { readonly kind: "peer-closed" }
  /** The connection broke. */
  | { readonly kind: "connection-lost"; readonly error: ConnectionError }
  /** Nothing was heard from the node for that long. */
  | { readonly kind: "tick-timeout"; readonly silentMs: number }
  /** The node sent what we can't follow: a frame over the limit, a malformed control message. */
  | { readonly kind: "protocol-error"; readonly error: ConnectionError };

/** One live connection to a node. */
export interface NodeLink {
  readonly peer: PeerInfo;
  readonly self: SelfInfo;

  /** Makes a fresh local pid. */
  createMailbox(handler: Mailbox): Pid;
  /** Ends the pid as a process would: breaks its links and answers its monitors with the reason (default `normal`), takes back its own monitors. */
  closeMailbox(pid: Pid, reason?: Term): void;

  /** Sends a message; `from` should be one of our mailboxes (default: the link's own). Silently nothing once the link has ended. */
  send(to: Destination, message: Term, from?: Pid): void;
  /**
   * Sends the message to a process on the node now and every `everyMs`, from the thread that has the socket: also while this one is
   * busy, where that is another. For signs of life.
   * @returns ends it; so does the end of the link
   */
  sendEvery(to: Pid, message: Term, everyMs: number, from?: Pid): () => void;
  /**
   * Starts a process on the node. Options are those of the wire: `link`, `monitor`, `{message_queue_data, off_heap}` …
   * With `monitor`, the mailbox's `onDown` tells its end. Output goes to `groupLeader`, default the link's own (see `onOutput`).
   * @throws RemoteError BT_REMOTE_ERROR with the node's reason (`badopt`, `system_limit` …).
   * @throws ConnectionError BT_CONNECTION_LOST when the link ends first.
   */
  spawnRequest(
    from: Pid,
    mfa: SpawnFunction,
    args: readonly Term[],
    opts?: readonly Term[],
    groupLeader?: Pid,
  ): Promise<Pid>;
  link(from: Pid, to: Pid): void;
  unlink(from: Pid, to: Pid): void;
  /** Monitors a process by pid or registered name; its end, or `noproc`, comes as `onDown`. */
  monitor(from: Pid, to: Pid | string): Reference;
  demonitor(ref: Reference): void;
  /** `exit/2`. */
  exit(from: Pid, to: Pid, reason: Term): void;

  /**
   * Applies a function on the node and resolves with its value.
   * @throws RemoteError BT_REMOTE_ERROR with class, reason and stacktrace as terms.
   * @throws AbortedError BT_TIMEOUT, BT_ABORTED; the calling process on the node is then killed.
   * @throws ConnectionError BT_CONNECTION_LOST when the link ends first.
   */
  call(module: string, fn: string, args: readonly Term[], options?: CallOptions): Promise<Term>;

  /**
   * Text that processes under our group leader print; it is lost while nobody listens.
   * @returns takes the handler back
   */
  onOutput(handler: (text: string, from: Pid) => void): () => void;

  /** Bytes received and sent, framing included. */
  readonly bytesIn: number;
  readonly bytesOut: number;
  /** Bytes accepted for sending that the socket hasn't taken yet. */
  readonly pendingBytes: number;
  /** Resolves at once while little is pending, otherwise when the backlog has gone; also when the link has ended. */
  drained(): Promise<void>;
  /**
   * Stops reading from the socket: the node's queue to us fills, then processes that send to us are suspended there (unless they use
   * `nosuspend`). Frames of the chunk at hand are still delivered. Ticks go on being sent; the peer's silence, and that it
   * has closed the connection, are not noticed before `resume`.
   */
  pause(): void;
  resume(): void;

  /** Resolves when the link has ended, however; never rejects. */
  readonly closed: Promise<LinkCloseReason>;
  /** Flushes, closes and resolves when the socket has gone. May be called any number of times. */
  close(): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
}
