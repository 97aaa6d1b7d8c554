/**
 * All local pids and references of one connection, and what waits for an answer. A pid or reference is not used twice within a
 * connection, and our creation is another one for every connection: a late signal never reaches the wrong process.
 */
import { Atom, Pid, Reference } from "../term";
import { LocalProcess, type OwnMonitor } from "./local-process";
import type { Mailbox } from "./node-link";

/** A spawn_request that hasn't been answered. */
export interface PendingSpawn {
  readonly owner: LocalProcess;
  readonly id: Reference;
  readonly resolve: (pid: Pid) => void;
  readonly reject: (error: Error) => void;
}

/** Ids have 28 bits in older releases' notation; that is far more mailboxes than a connection ever has. */
const MAX_ID = 2 ** 28;
/** The first number of a reference keeps to 18 bits, as every release accepts. */
const REF_LOW = 2 ** 18;

/** Local pids, references and what hangs on them. */
export class ProcessTable {
  /** Own monitors by `refKey`. */
  readonly monitors = new Map<string, OwnMonitor>();
  /** Unanswered spawn requests by `refKey`. */
  readonly spawns = new Map<string, PendingSpawn>();
  readonly node: Atom;
  readonly creation: number;
  readonly #processes = new Map<number, LocalProcess>();
  #lastId = 0;
  #lastRef = 0;
  #lastUnlink = 0;

  constructor(nodeName: string, creation: number) {
    this.node = Atom.of(nodeName);
    this.creation = creation;
  }

  create(handler: Mailbox): LocalProcess {
    do {
      this.#lastId = (this.#lastId % (MAX_ID - 1)) + 1;
    } while (this.#processes.has(this.#lastId));
    const process = new LocalProcess(new Pid(this.node, this.#lastId, 0, this.creation), handler);
    this.#processes.set(this.#lastId, process);
    return process;
  }

  remove(process: LocalProcess): void {
    this.#processes.delete(process.pid.id);
  }

  /** The live process of this pid. */
  get(pid: Pid): LocalProcess | undefined {
    return pid.node === this.node ? this.byId(pid.id, pid.creation) : undefined;
  }

  /** The live process of this id; `creation` must be that of this connection. */
  byId(id: number, creation: number): LocalProcess | undefined {
    return creation === this.creation ? this.#processes.get(id) : undefined;
  }

  /** Whether the pid belongs to this connection, alive or not. */
  isLocal(pid: Pid): boolean {
    return pid.node === this.node && pid.creation === this.creation;
  }

  all(): LocalProcess[] {
    return [...this.#processes.values()];
  }

  makeRef(): Reference {
    const n = (this.#lastRef += 1);
    return new Reference(this.node, this.creation, [n % REF_LOW, Math.floor(n / REF_LOW) >>> 0, 0]);
  }

  /** Not 0, and not that of another unlink under way. */
  makeUnlinkId(): number {
    return (this.#lastUnlink += 1);
  }
}
