/**
 * What arrives: frames to signals to mailboxes. Keeps the process table true (links, monitors, answered spawns) and sends the
 * answers that the protocol demands, before anything else can be sent. Frames are views; mailboxes get decoded terms, which own
 * their bytes, or (`onRaw`) the view itself.
 * Follows "Erlang Distribution Protocol", Protocol between Connected Nodes.
 */
import { Decoder } from "../etf";
import { ConnectionError } from "../errors";
import type { Reference } from "../term";
import { Atom, Pid, type Term } from "../term";
import { readControl, type ControlMessage, type Reason } from "./control-message";
import { pidKey, refKey, type LocalProcess } from "./local-process";
import type { ProcessTable } from "./process-table";
import { RemoteError } from "./remote-error";
import { SendHeader } from "./send-header";
import type { SignalWriter } from "./signal-writer";

const PASS_THROUGH = 112;
const NOPROC = Atom.of("noproc");
const NOTSUP = Atom.of("notsup");
const NOCONNECTION = Atom.of("noconnection");
/** The peer has proved the cookie and the frame is bounded: what the VM can build must be readable. */
const LIMITS = { maxDepth: Infinity, maxIntegerBytes: 64 * 1024 * 1024 } as const;

type Of<Kind extends ControlMessage["kind"], M = ControlMessage> = M extends { kind: infer Own }
  ? Kind extends Own
    ? M
    : never
  : never;

/** Takes frames and does what they say. */
export class SignalReceiver {
  readonly #table: ProcessTable;
  readonly #writer: SignalWriter;
  readonly #decoder = new Decoder(LIMITS);
  readonly #header = new SendHeader();

  constructor(table: ProcessTable, writer: SignalWriter) {
    this.#table = table;
    this.#writer = writer;
  }

  /** @throws ConnectionError, BadTermError when the frame can't be understood */
  onFrame(frame: Uint8Array): void {
    if (frame[0] !== PASS_THROUGH) {
      throw new ConnectionError(
        "BT_CONNECTION_LOST",
        `the node sent a frame of unknown type ${frame[0] ?? "(empty)"}`,
      );
    }
    const header = this.#header;
    if (header.parse(frame)) {
      const process = this.#table.byId(header.toId, header.toCreation);
      if (process !== undefined) this.#deliver(process, frame, header.payloadAt, header.fromAt);
      return;
    }
    const control = readControl(this.#decoder.decodeAt(frame, 1));
    if (control !== undefined) this.#dispatch(control, frame, this.#decoder.next);
  }

  /** The connection has gone: everything that hangs on it is settled. */
  onDisconnected(error: Error): void {
    const { spawns, monitors } = this.#table;
    const pending = [...spawns.values()];
    const watched = [...monitors.values()];
    spawns.clear();
    monitors.clear();
    for (const spawn of pending) spawn.reject(error);
    for (const process of this.#table.all()) {
      const links = [...process.links.values()];
      process.links.clear();
      process.monitors.clear();
      process.monitoredBy.clear();
      for (const link of links) {
        if (link.unlinkId === undefined) guard(() => process.handler.onExit?.(link.to, NOCONNECTION));
      }
    }
    for (const { owner, ref, to } of watched) guard(() => owner.handler.onDown?.(ref, to, NOCONNECTION));
  }

  #deliver(process: LocalProcess, frame: Uint8Array, payloadAt: number, fromAt: number): void {
    const { handler } = process;
    if (handler.onRaw !== undefined) {
      guard(() => handler.onRaw?.(frame.subarray(payloadAt)));
    } else if (handler.onMessage !== undefined) {
      const from = fromAt < 0 ? undefined : this.#decoder.decodeBareAt(frame, fromAt);
      const message = this.#decoder.decodeAt(frame, payloadAt);
      guard(() => handler.onMessage?.(message, from instanceof Pid ? from : undefined));
    }
  }

  #dispatch(control: ControlMessage, frame: Uint8Array, payloadAt: number): void {
    const reason = (r: Reason): Term =>
      r.in === "control" ? r.term : this.#decoder.decodeAt(frame, payloadAt);
    switch (control.kind) {
      case "send":
        return this.#onSend(control, frame, payloadAt);
      case "link":
        return this.#onLink(control.from, control.to);
      case "unlink":
        this.#table.get(control.to)?.links.delete(pidKey(control.from));
        return;
      case "unlink-id":
        return this.#onUnlinkId(control);
      case "unlink-id-ack":
        return this.#onUnlinkAck(control);
      case "exit":
        return this.#onExit(control.from, control.to, reason(control.reason));
      case "exit2": {
        const process = this.#table.get(control.to);
        if (process === undefined) return;
        const why = reason(control.reason);
        return guard(() => process.handler.onExit?.(control.from, why));
      }
      case "monitor":
        return this.#onMonitor(control.from, control.to, control.ref);
      case "demonitor":
        if (control.to instanceof Pid) this.#table.get(control.to)?.monitoredBy.delete(refKey(control.ref));
        return;
      case "monitor-exit":
        return this.#onMonitorExit(control, reason(control.reason));
      case "spawn-request":
        // We run no Erlang code.
        return this.#writer.spawnError(control.id, control.from, NOTSUP);
      case "spawn-reply":
        return this.#onSpawnReply(control);
      case "group-leader":
      case "node-link":
        return;
    }
  }

  #onSend(control: Of<"send">, frame: Uint8Array, payloadAt: number): void {
    const { to, from } = control;
    // We register no names and hand out no aliases.
    if (!(to instanceof Pid)) return;
    const process = this.#table.get(to);
    if (process === undefined) return;
    const { handler } = process;
    if (handler.onRaw !== undefined) return guard(() => handler.onRaw?.(frame.subarray(payloadAt)));
    const message = this.#decoder.decodeAt(frame, payloadAt);
    guard(() => handler.onMessage?.(message, from));
  }

  /** A link that exists already, even one that we are breaking, stays as it is. */
  #onLink(from: Pid, to: Pid): void {
    const process = this.#table.get(to);
    if (process === undefined) this.#writer.linkExit(to, from, NOPROC);
    else process.addLink(from);
  }

  #onUnlinkId({ id, from, to }: Of<"unlink-id">): void {
    this.#writer.unlinkAck(id, to, from);
    const links = this.#table.get(to)?.links;
    const key = pidKey(from);
    if (links?.get(key)?.unlinkId === undefined) links?.delete(key);
  }

  #onUnlinkAck({ id, from, to }: Of<"unlink-id-ack">): void {
    const links = this.#table.get(to)?.links;
    const key = pidKey(from);
    if (links?.get(key)?.unlinkId === Number(id)) links.delete(key);
  }

  #onExit(from: Pid, to: Pid, reason: Term): void {
    const process = this.#table.get(to);
    const key = pidKey(from);
    const link = process?.links.get(key);
    if (process === undefined || link === undefined) return;
    process.links.delete(key);
    if (link.unlinkId === undefined) guard(() => process.handler.onExit?.(from, reason));
  }

  #onMonitor(by: Pid, to: Pid | Atom, ref: Reference): void {
    const process = to instanceof Pid ? this.#table.get(to) : undefined;
    if (process === undefined) this.#writer.monitorExit(to, by, ref, NOPROC);
    else process.monitoredBy.set(refKey(ref), { by, ref });
  }

  #onMonitorExit({ from, ref }: Of<"monitor-exit">, reason: Term): void {
    const key = refKey(ref);
    const monitor = this.#table.monitors.get(key);
    if (monitor === undefined) return;
    this.#table.monitors.delete(key);
    monitor.owner.monitors.delete(key);
    guard(() => monitor.owner.handler.onDown?.(ref, from, reason));
  }

  #onSpawnReply({ id, linked, monitored, result }: Of<"spawn-reply">): void {
    const key = refKey(id);
    const spawn = this.#table.spawns.get(key);
    if (spawn === undefined) return;
    this.#table.spawns.delete(key);
    const { owner } = spawn;
    if (!(result instanceof Pid)) {
      spawn.reject(new RemoteError("spawn_request", "error", result));
      return;
    }
    if (owner.exitReason !== undefined) {
      // The mailbox was closed meanwhile: its new links and monitors end as they would have with it.
      if (linked) this.#writer.linkExit(owner.pid, result, owner.exitReason);
      if (monitored) this.#writer.demonitor(owner.pid, result, id);
    } else {
      if (linked) owner.addLink(result);
      if (monitored) {
        owner.monitors.add(key);
        this.#table.monitors.set(key, { owner, ref: id, to: result });
      }
    }
    spawn.resolve(result);
  }
}

/** A handler that throws must not take the connection with it: the exception surfaces as an uncaught one. */
export function guard(run: () => void): void {
  try {
    run();
  } catch (error) {
    queueMicrotask(() => {
      throw error;
    });
  }
}
