/**
 * The live link over a framed connection: the face (`NodeLink`) over process table, signal writer and signal receiver.
 * It owns the connection.
 */
import { encode } from "../etf";
import type { BeamtraceError } from "../errors";
import { ConnectionError, OptionError } from "../errors";
import { Atom, Pid, Reference, type Term } from "../term";
import type { TickOptions } from "./connection";
import { DistFlag } from "./flags";
import type { FrameChannel } from "./frame-channel";
import { GroupLeader } from "./group-leader";
import type { Established } from "./handshake";
import { pidKey, refKey, type LocalProcess } from "./local-process";
import type {
  CallOptions,
  Destination,
  LinkCloseReason,
  Mailbox,
  NodeLink,
  PeerInfo,
  SelfInfo,
  SpawnFunction,
} from "./node-link";
import { ProcessTable } from "./process-table";
import { callByRex, callBySpawn } from "./remote-call";
import { guard, SignalReceiver } from "./signal-receiver";
import { SignalWriter } from "./signal-writer";

const NORMAL = Atom.of("normal");
const NOCONNECTION = Atom.of("noconnection");

/** A `NodeLink` over a connection whose handshake is done. */
export class DistLink implements NodeLink {
  readonly peer: PeerInfo;
  readonly self: SelfInfo;
  readonly closed: Promise<LinkCloseReason>;
  readonly #connection: FrameChannel;
  readonly #table: ProcessTable;
  readonly #writer: SignalWriter;
  readonly #leader: GroupLeader;
  #closing = false;
  #endReason: LinkCloseReason | undefined;

  constructor(
    connection: FrameChannel,
    established: Established,
    host: string,
    settings: TickOptions & { readonly maxFrameBytes: number },
  ) {
    this.peer = { ...established.peer, host };
    this.self = established.self;
    this.#connection = connection;
    this.#table = new ProcessTable(this.self.name, this.self.creation);
    this.#writer = new SignalWriter(connection);
    const receiver = new SignalReceiver(this.#table, this.#writer);
    let ended: (reason: LinkCloseReason) => void;
    this.closed = new Promise((resolve) => (ended = resolve));
    connection.goLive(
      {
        onFrame: (frame) => receiver.onFrame(frame),
        onClosed: (reason) => {
          this.#endReason = reason;
          receiver.onDisconnected(this.#lostError());
          ended(reason);
        },
      },
      settings.maxFrameBytes,
      settings,
    );
    this.#leader = new GroupLeader(this);
  }

  get bytesIn(): number {
    return this.#connection.bytesIn;
  }

  get bytesOut(): number {
    return this.#connection.bytesOut;
  }

  get pendingBytes(): number {
    return this.#connection.pendingBytes;
  }

  createMailbox(handler: Mailbox): Pid {
    return this.#table.create(handler).pid;
  }

  closeMailbox(pid: Pid, reason: Term = NORMAL): void {
    const process = this.#table.get(pid);
    if (process === undefined) return;
    process.exitReason = reason;
    this.#table.remove(process);
    for (const link of process.links.values()) {
      if (link.unlinkId === undefined) this.#writer.linkExit(pid, link.to, reason);
    }
    for (const { by, ref } of process.monitoredBy.values()) this.#writer.monitorExit(pid, by, ref, reason);
    for (const key of process.monitors) {
      const monitor = this.#table.monitors.get(key);
      this.#table.monitors.delete(key);
      if (monitor !== undefined) this.#writer.demonitor(pid, monitor.to, monitor.ref);
    }
  }

  send(to: Destination, message: Term, from: Pid = this.#leader.pid): void {
    if (to instanceof Pid) {
      if (this.#table.isLocal(to)) this.#sendLocally(to, message, from);
      else this.#writer.send(from, to, message);
    } else if (to instanceof Reference) {
      this.#writer.sendToAlias(from, to, message);
    } else if (typeof to?.name === "string") {
      this.#writer.sendToName(from, Atom.of(to.name), message);
    } else {
      throw new OptionError("BT_OPTION_INVALID", "to", 'must be a pid, an alias or { name: "registered" }');
    }
  }

  sendEvery(to: Pid, message: Term, everyMs: number, from: Pid = this.#leader.pid): () => void {
    this.#checkRemote(to);
    return this.#writer.sendEvery(from, to, message, everyMs);
  }

  async spawnRequest(
    from: Pid,
    mfa: SpawnFunction,
    args: readonly Term[],
    opts: readonly Term[] = [],
    groupLeader: Pid = this.#leader.pid,
  ): Promise<Pid> {
    const owner = this.#process(from);
    this.#checkOpen();
    const id = this.#table.makeRef();
    this.#writer.spawnRequest(id, from, groupLeader, mfa, args, opts);
    return await new Promise((resolve, reject) => {
      this.#table.spawns.set(refKey(id), { owner, id, resolve, reject });
    });
  }

  link(from: Pid, to: Pid): void {
    const process = this.#process(from);
    this.#checkRemote(to);
    if (this.#endReason !== undefined) {
      queueMicrotask(() => guard(() => process.handler.onExit?.(to, NOCONNECTION)));
      return;
    }
    const link = process.links.get(pidKey(to));
    if (link !== undefined && link.unlinkId === undefined) return;
    if (link === undefined) process.addLink(to);
    else link.unlinkId = undefined;
    this.#writer.link(from, to);
  }

  unlink(from: Pid, to: Pid): void {
    const link = this.#process(from).links.get(pidKey(to));
    if (link === undefined || link.unlinkId !== undefined) return;
    link.unlinkId = this.#table.makeUnlinkId();
    this.#writer.unlink(link.unlinkId, from, to);
  }

  monitor(from: Pid, to: Pid | string): Reference {
    const owner = this.#process(from);
    const target = typeof to === "string" ? Atom.of(to) : to;
    if (target instanceof Pid) this.#checkRemote(target);
    const ref = this.#table.makeRef();
    if (this.#endReason !== undefined) {
      queueMicrotask(() => guard(() => owner.handler.onDown?.(ref, target, NOCONNECTION)));
      return ref;
    }
    const key = refKey(ref);
    owner.monitors.add(key);
    this.#table.monitors.set(key, { owner, ref, to: target });
    this.#writer.monitor(from, target, ref);
    return ref;
  }

  demonitor(ref: Reference): void {
    const key = refKey(ref);
    const monitor = this.#table.monitors.get(key);
    if (monitor === undefined) return;
    this.#table.monitors.delete(key);
    monitor.owner.monitors.delete(key);
    this.#writer.demonitor(monitor.owner.pid, monitor.to, ref);
  }

  exit(from: Pid, to: Pid, reason: Term): void {
    if (!this.#table.isLocal(to)) return this.#writer.exit(from, to, reason);
    const process = this.#table.get(to);
    queueMicrotask(() => guard(() => process?.handler.onExit?.(from, reason)));
  }

  async call(module: string, fn: string, args: readonly Term[], options: CallOptions = {}): Promise<Term> {
    this.#checkOpen();
    const call = { module, function: fn, args };
    const canSpawn = (this.peer.flags & DistFlag.SPAWN) !== 0n;
    if (canSpawn && options.method !== "rex") return await callBySpawn(this, call, options);
    return await callByRex(this, call, this.#leader.pid, options);
  }

  onOutput(handler: (text: string, from: Pid) => void): () => void {
    return this.#leader.onOutput(handler);
  }

  drained(): Promise<void> {
    return this.#connection.drained();
  }

  pause(): void {
    this.#connection.pause();
  }

  resume(): void {
    this.#connection.resume();
  }

  async close(): Promise<void> {
    this.#closing = true;
    await this.#connection.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  #process(pid: Pid): LocalProcess {
    const process = this.#table.get(pid);
    if (process === undefined) {
      throw new OptionError("BT_OPTION_INVALID", "from", "is not the pid of an open mailbox of this link");
    }
    return process;
  }

  #checkRemote(pid: Pid): void {
    if (this.#table.isLocal(pid)) {
      throw new OptionError(
        "BT_OPTION_INVALID",
        "to",
        "is a mailbox of this link; only processes of the node can be linked or monitored",
      );
    }
  }

  #checkOpen(): void {
    if (this.#closing || this.#endReason !== undefined) throw this.#lostError();
  }

  #lostError(): BeamtraceError {
    const reason = this.#endReason;
    const { name } = this.peer;
    if (this.#closing || reason === undefined || reason.kind === "closed") {
      return new ConnectionError("BT_CLOSED", `the link to ${name} is closed`);
    }
    const why = "error" in reason ? reason.error.message : reason.kind;
    const cause = "error" in reason ? { cause: reason.error } : {};
    return new ConnectionError("BT_CONNECTION_LOST", `the connection to ${name} has ended: ${why}`, cause);
  }

  /** Between two mailboxes of ours nothing goes over the wire; but as there, it arrives later, and as a copy where bytes are wanted. */
  #sendLocally(to: Pid, message: Term, from: Pid): void {
    const { handler } = this.#table.get(to) ?? {};
    if (handler === undefined) return;
    const bytes = handler.onRaw === undefined ? undefined : encode(message);
    queueMicrotask(() =>
      guard(() => {
        if (bytes !== undefined) handler.onRaw?.(bytes);
        else handler.onMessage?.(message, from);
      }),
    );
  }
}
