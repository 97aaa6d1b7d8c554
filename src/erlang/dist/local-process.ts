/**
 * One of our pids with what it is bound to: links, monitors of its own, monitors that others hold on it. Bookkeeping only, no I/O.
 * Follows "Erlang Distribution Protocol", section Protocol between Connected Nodes (link protocol), and "Processes" on signals.
 */
import type { Atom, Pid, Reference, Term } from "../term";
import type { Mailbox } from "./node-link";

/** A link to a process on the node. */
export interface Link {
  readonly to: Pid;
  /** Set while our UNLINK_ID with this id is not acknowledged: the link then is broken as far as we are concerned. */
  unlinkId: number | undefined;
}

/** A monitor that a process on the node holds on one of ours. */
export interface ForeignMonitor {
  readonly by: Pid;
  readonly ref: Reference;
}

/** A local pid. */
export class LocalProcess {
  readonly pid: Pid;
  readonly handler: Mailbox;
  /** By `pidKey` of the other end. */
  readonly links = new Map<string, Link>();
  /** References of monitors of its own, by `refKey`. */
  readonly monitors = new Set<string>();
  /** By `refKey`. */
  readonly monitoredBy = new Map<string, ForeignMonitor>();
  /** Set once it has ended. */
  exitReason: Term | undefined;

  constructor(pid: Pid, handler: Mailbox) {
    this.pid = pid;
    this.handler = handler;
  }

  /** Notes a link; false when there was one already, in whatever state. */
  addLink(to: Pid): boolean {
    const key = pidKey(to);
    if (this.links.has(key)) return false;
    this.links.set(key, { to, unlinkId: undefined });
    return true;
  }
}

/** Key for maps: equal pids have equal keys. */
export function pidKey(pid: Pid): string {
  return `${pid.id}.${pid.serial}.${pid.creation}.${pid.node.name}`;
}

/** Key for maps: equal references have equal keys. */
export function refKey(ref: Reference): string {
  return `${ref.numbers.join(".")}.${ref.creation}.${ref.node.name}`;
}

/** What one of our processes monitors. */
export interface OwnMonitor {
  readonly owner: LocalProcess;
  readonly ref: Reference;
  readonly to: Pid | Atom;
}
