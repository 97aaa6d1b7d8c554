/**
 * Control messages: the tuple at the head of every frame, as a discriminated union. Trace-token (`_TT`) variants are the same
 * message with a `token`; EXIT, EXIT2 and MONITOR_P_EXIT carry their reason in the tuple or, as PAYLOAD_ variants, after it.
 * Follows "Erlang Distribution Protocol", Protocol between Connected Nodes (control messages) and New Ctrlmessages.
 */
import { ConnectionError } from "../errors";
import { Atom, Pid, Reference, Tuple, type Term } from "../term";

/** Operation numbers. */
export const Op = {
  LINK: 1,
  SEND: 2,
  EXIT: 3,
  UNLINK: 4,
  NODE_LINK: 5,
  REG_SEND: 6,
  GROUP_LEADER: 7,
  EXIT2: 8,
  SEND_TT: 12,
  EXIT_TT: 13,
  REG_SEND_TT: 16,
  EXIT2_TT: 18,
  MONITOR_P: 19,
  DEMONITOR_P: 20,
  MONITOR_P_EXIT: 21,
  SEND_SENDER: 22,
  SEND_SENDER_TT: 23,
  PAYLOAD_EXIT: 24,
  PAYLOAD_EXIT_TT: 25,
  PAYLOAD_EXIT2: 26,
  PAYLOAD_EXIT2_TT: 27,
  PAYLOAD_MONITOR_P_EXIT: 28,
  SPAWN_REQUEST: 29,
  SPAWN_REQUEST_TT: 30,
  SPAWN_REPLY: 31,
  SPAWN_REPLY_TT: 32,
  ALIAS_SEND: 33,
  ALIAS_SEND_TT: 34,
  UNLINK_ID: 35,
  UNLINK_ID_ACK: 36,
  ALTACT_SIG_SEND: 37,
} as const;

/** Bits of ALTACT_SIG_SEND. */
export const AltActFlag = { PRIORITY: 1, TOKEN: 2, ALIAS: 4, NAME: 8, EXIT: 16 } as const;

/** Where a reason is: in the control tuple, or in the frame's payload. */
export type Reason = { readonly in: "control"; readonly term: Term } | { readonly in: "payload" };

interface Traced {
  /** The sequential trace token, where one came along. */
  readonly token?: Term;
}

/** A control message. Those marked "payload" are followed by a term. */
export type ControlMessage = Traced &
  (
    | { readonly kind: "link" | "unlink" | "group-leader"; readonly from: Pid; readonly to: Pid }
    | { readonly kind: "node-link" }
    /** Payload: the message. */
    | { readonly kind: "send"; readonly from: Pid | undefined; readonly to: Pid | Atom | Reference }
    /** A link broke (`exit`), or exit/2 (`exit2`). */
    | { readonly kind: "exit" | "exit2"; readonly from: Pid; readonly to: Pid; readonly reason: Reason }
    | {
        readonly kind: "monitor" | "demonitor";
        readonly from: Pid;
        readonly to: Pid | Atom;
        readonly ref: Reference;
      }
    | {
        readonly kind: "monitor-exit";
        readonly from: Pid | Atom;
        readonly to: Pid;
        readonly ref: Reference;
        readonly reason: Reason;
      }
    /** Payload: the list of arguments. */
    | {
        readonly kind: "spawn-request";
        readonly id: Reference;
        readonly from: Pid;
        readonly groupLeader: Pid;
        readonly module: Atom;
        readonly function: Atom;
        readonly arity: number;
        readonly options: Term;
      }
    | {
        readonly kind: "spawn-reply";
        readonly id: Reference;
        readonly to: Pid;
        readonly linked: boolean;
        readonly monitored: boolean;
        readonly result: Pid | Atom;
      }
    | {
        readonly kind: "unlink-id" | "unlink-id-ack";
        readonly id: number | bigint;
        readonly from: Pid;
        readonly to: Pid;
      }
  );

const IN_PAYLOAD: Reason = { in: "payload" };

/**
 * Reads a control tuple.
 * @returns undefined for an operation that we don't know
 * @throws ConnectionError BT_CONNECTION_LOST when the tuple is malformed
 */
export function readControl(control: Term): ControlMessage | undefined {
  if (!(control instanceof Tuple)) throw malformed(control);
  const fields = control.elements;
  const op = fields[0];
  if (typeof op !== "number") throw malformed(control);
  const read = readers[op];
  if (read === undefined) return undefined;
  try {
    return read(new Fields(fields));
  } catch (error) {
    if (error === MALFORMED) throw malformed(control);
    throw error;
  }
}

const MALFORMED = Symbol("malformed");

/** Typed access to the elements of a control tuple. */
class Fields {
  readonly #fields: readonly Term[];

  constructor(fields: readonly Term[]) {
    this.#fields = fields;
  }

  at(index: number): Term {
    const field = this.#fields[index];
    if (field === undefined) throw MALFORMED;
    return field;
  }

  pid(index: number): Pid {
    return expect(this.at(index), isPid);
  }

  atom(index: number): Atom {
    return expect(this.at(index), isAtom);
  }

  ref(index: number): Reference {
    return expect(this.at(index), isRef);
  }

  pidOrAtom(index: number): Pid | Atom {
    return expect(this.at(index), (t) => isPid(t) || isAtom(t));
  }

  integer(index: number): number {
    return expect(this.at(index), (t): t is number => typeof t === "number");
  }
}

function expect<T extends Term>(term: Term, is: (term: Term) => term is T): T {
  if (!is(term)) throw MALFORMED;
  return term;
}

const isPid = (term: Term): term is Pid => term instanceof Pid;
const isAtom = (term: Term): term is Atom => term instanceof Atom;
const isRef = (term: Term): term is Reference => term instanceof Reference;

type Reader = (fields: Fields) => ControlMessage;

const simple =
  (kind: "link" | "unlink" | "group-leader"): Reader =>
  (f) => ({ kind, from: f.pid(1), to: f.pid(2) });

/** The token, in the variants that have one, is the element at `index`. */
const token = (f: Fields, index: number | undefined): Traced =>
  index === undefined ? {} : { token: f.at(index) };

const exit =
  (kind: "exit" | "exit2", reasonAt: number | undefined, tokenAt?: number): Reader =>
  (f) => ({
    kind,
    from: f.pid(1),
    to: f.pid(2),
    reason: reasonAt === undefined ? IN_PAYLOAD : { in: "control", term: f.at(reasonAt) },
    ...token(f, tokenAt),
  });

const monitor =
  (kind: "monitor" | "demonitor"): Reader =>
  (f) => ({ kind, from: f.pid(1), to: f.pidOrAtom(2), ref: f.ref(3) });

const monitorExit =
  (reasonAt: number | undefined): Reader =>
  (f) => ({
    kind: "monitor-exit",
    from: f.pidOrAtom(1),
    to: f.pid(2),
    ref: f.ref(3),
    reason: reasonAt === undefined ? IN_PAYLOAD : { in: "control", term: f.at(reasonAt) },
  });

const unlinkId =
  (kind: "unlink-id" | "unlink-id-ack"): Reader =>
  (f) => ({
    kind,
    id: expect(f.at(1), (t): t is number | bigint => typeof t === "number" || typeof t === "bigint"),
    from: f.pid(2),
    to: f.pid(3),
  });

const send =
  (tokenAt?: number): Reader =>
  (f) => ({ kind: "send", from: undefined, to: f.pid(2), ...token(f, tokenAt) });

const sendSender =
  (tokenAt?: number): Reader =>
  (f) => ({ kind: "send", from: f.pid(1), to: f.pid(2), ...token(f, tokenAt) });

const regSend =
  (tokenAt?: number): Reader =>
  (f) => ({ kind: "send", from: f.pid(1), to: f.atom(3), ...token(f, tokenAt) });

const aliasSend =
  (tokenAt?: number): Reader =>
  (f) => ({ kind: "send", from: f.pid(1), to: f.ref(2), ...token(f, tokenAt) });

const spawnRequest =
  (tokenAt?: number): Reader =>
  (f) => {
    const mfa = f.at(4);
    if (!(mfa instanceof Tuple)) throw MALFORMED;
    const parts = new Fields(mfa.elements);
    return {
      kind: "spawn-request",
      id: f.ref(1),
      from: f.pid(2),
      groupLeader: f.pid(3),
      module: parts.atom(0),
      function: parts.atom(1),
      arity: parts.integer(2),
      options: f.at(5),
      ...token(f, tokenAt),
    };
  };

const spawnReply =
  (tokenAt?: number): Reader =>
  (f) => {
    const flags = f.integer(3);
    return {
      kind: "spawn-reply",
      id: f.ref(1),
      to: f.pid(2),
      linked: (flags & 1) !== 0,
      monitored: (flags & 2) !== 0,
      result: f.pidOrAtom(4),
      ...token(f, tokenAt),
    };
  };

const altAct: Reader = (f) => {
  const flags = f.integer(1);
  const traced = token(f, (flags & AltActFlag.TOKEN) !== 0 ? 4 : undefined);
  if ((flags & AltActFlag.EXIT) !== 0) {
    return { kind: "exit2", from: f.pid(2), to: f.pid(3), reason: IN_PAYLOAD, ...traced };
  }
  const to =
    (flags & AltActFlag.ALIAS) !== 0 ? f.ref(3) : (flags & AltActFlag.NAME) !== 0 ? f.atom(3) : f.pid(3);
  return { kind: "send", from: f.pid(2), to, ...traced };
};

const readers: Readonly<Record<number, Reader | undefined>> = {
  [Op.LINK]: simple("link"),
  [Op.SEND]: send(),
  [Op.EXIT]: exit("exit", 3),
  [Op.UNLINK]: simple("unlink"),
  [Op.NODE_LINK]: () => ({ kind: "node-link" }),
  [Op.REG_SEND]: regSend(),
  [Op.GROUP_LEADER]: simple("group-leader"),
  [Op.EXIT2]: exit("exit2", 3),
  [Op.SEND_TT]: send(3),
  [Op.EXIT_TT]: exit("exit", 4, 3),
  [Op.REG_SEND_TT]: regSend(4),
  [Op.EXIT2_TT]: exit("exit2", 4, 3),
  [Op.MONITOR_P]: monitor("monitor"),
  [Op.DEMONITOR_P]: monitor("demonitor"),
  [Op.MONITOR_P_EXIT]: monitorExit(4),
  [Op.SEND_SENDER]: sendSender(),
  [Op.SEND_SENDER_TT]: sendSender(3),
  [Op.PAYLOAD_EXIT]: exit("exit", undefined),
  [Op.PAYLOAD_EXIT_TT]: exit("exit", undefined, 3),
  [Op.PAYLOAD_EXIT2]: exit("exit2", undefined),
  [Op.PAYLOAD_EXIT2_TT]: exit("exit2", undefined, 3),
  [Op.PAYLOAD_MONITOR_P_EXIT]: monitorExit(undefined),
  [Op.SPAWN_REQUEST]: spawnRequest(),
  [Op.SPAWN_REQUEST_TT]: spawnRequest(6),
  [Op.SPAWN_REPLY]: spawnReply(),
  [Op.SPAWN_REPLY_TT]: spawnReply(5),
  [Op.ALIAS_SEND]: aliasSend(),
  [Op.ALIAS_SEND_TT]: aliasSend(3),
  [Op.UNLINK_ID]: unlinkId("unlink-id"),
  [Op.UNLINK_ID_ACK]: unlinkId("unlink-id-ack"),
  [Op.ALTACT_SIG_SEND]: altAct,
};

function malformed(control: Term): ConnectionError {
  const what = control instanceof Tuple ? `operation ${String(control.elements[0])}` : "no tuple";
  return new ConnectionError("BT_CONNECTION_LOST", `the node sent a malformed control message (${what})`);
}
