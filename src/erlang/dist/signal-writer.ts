/**
 * Writes signals: one method for each control message that we send, as frames into the connection.
 * Follows "Erlang Distribution Protocol", Protocol between Connected Nodes: 112, control tuple, optional payload.
 */
import { Encoder } from "../etf";
import { Atom, tuple, type Pid, type Reference, type Term } from "../term";
import { Op } from "./control-message";
import type { FrameChannel } from "./frame-channel";
import type { SpawnFunction } from "./node-link";

const PASS_THROUGH = 112;
/** Memory that the encoder keeps between frames. */
const KEPT_BYTES = 64 * 1024;
/** The field "Unused" of REG_SEND. */
const UNUSED = Atom.of("");

/** Sends control messages over a connection. */
export class SignalWriter {
  readonly #connection: FrameChannel;
  readonly #encoder = new Encoder();

  constructor(connection: FrameChannel) {
    this.#connection = connection;
  }

  send(from: Pid, to: Pid, message: Term): void {
    this.#frame(tuple(Op.SEND_SENDER, from, to), message);
  }

  /** The same message again and again, from the thread that has the socket; returns what ends it. */
  sendEvery(from: Pid, to: Pid, message: Term, everyMs: number): () => void {
    return this.#connection.repeat(this.#encode(tuple(Op.SEND_SENDER, from, to), message).slice(), everyMs);
  }

  sendToName(from: Pid, name: Atom, message: Term): void {
    this.#frame(tuple(Op.REG_SEND, from, UNUSED, name), message);
  }

  sendToAlias(from: Pid, alias: Reference, message: Term): void {
    this.#frame(tuple(Op.ALIAS_SEND, from, alias), message);
  }

  link(from: Pid, to: Pid): void {
    this.#frame(tuple(Op.LINK, from, to));
  }

  unlink(id: number, from: Pid, to: Pid): void {
    this.#frame(tuple(Op.UNLINK_ID, id, from, to));
  }

  unlinkAck(id: number | bigint, from: Pid, to: Pid): void {
    this.#frame(tuple(Op.UNLINK_ID_ACK, id, from, to));
  }

  /** A link breaks because `from` ends. */
  linkExit(from: Pid, to: Pid, reason: Term): void {
    this.#frame(tuple(Op.PAYLOAD_EXIT, from, to), reason);
  }

  /** exit/2. */
  exit(from: Pid, to: Pid, reason: Term): void {
    this.#frame(tuple(Op.PAYLOAD_EXIT2, from, to), reason);
  }

  monitor(from: Pid, to: Pid | Atom, ref: Reference): void {
    this.#frame(tuple(Op.MONITOR_P, from, to, ref));
  }

  demonitor(from: Pid, to: Pid | Atom, ref: Reference): void {
    this.#frame(tuple(Op.DEMONITOR_P, from, to, ref));
  }

  /** Tells a monitor that `from`, pid or name as it was monitored, has ended. */
  monitorExit(from: Pid | Atom, to: Pid, ref: Reference, reason: Term): void {
    this.#frame(tuple(Op.PAYLOAD_MONITOR_P_EXIT, from, to, ref), reason);
  }

  spawnRequest(
    id: Reference,
    from: Pid,
    groupLeader: Pid,
    mfa: SpawnFunction,
    args: readonly Term[],
    options: readonly Term[],
  ): void {
    const target = tuple(Atom.of(mfa.module), Atom.of(mfa.function), args.length);
    this.#frame(tuple(Op.SPAWN_REQUEST, id, from, groupLeader, target, options), args);
  }

  spawnError(id: Reference, to: Pid, reason: Atom): void {
    this.#frame(tuple(Op.SPAWN_REPLY, id, to, 0, reason));
  }

  /**
   * One frame, written in one piece.
   * @throws BeamtraceError BT_NOT_ENCODABLE; then nothing is sent
   */
  #frame(control: Term, payload?: Term): void {
    this.#connection.write(this.#encode(control, payload));
  }

  #encode(control: Term, payload?: Term): Uint8Array {
    const frame = this.#encoder.reset(KEPT_BYTES).u32(0).u8(PASS_THROUGH).term(control);
    if (payload !== undefined) frame.term(payload);
    return frame.patchU32(0, frame.length - 4).bytes();
  }
}
