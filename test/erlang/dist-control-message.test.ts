import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { AltActFlag, Op, readControl } from "../../src/erlang/dist/control-message";
import { SendHeader } from "../../src/erlang/dist/send-header";
import { decodePrefix, encode } from "../../src/erlang/etf";
import { BeamtraceError } from "../../src/erlang/errors";
import { atom, Pid, Reference, tuple, type Term } from "../../src/erlang/term";

const from = new Pid(atom("shop@web1"), 100, 1, 7);
const to = new Pid(atom("me@here"), 2, 0, 99);
const name = atom("server");
const ref = new Reference(atom("shop@web1"), 7, [1, 2, 3]);
const token = tuple(0, 17, 0, from, 0);
const reason = atom("because");
const inPayload = { in: "payload" };
const inControl = { in: "control", term: reason };
const empty = atom("");

const examples: [string, Term[], object][] = [
  ["LINK", [Op.LINK, from, to], { kind: "link", from, to }],
  ["SEND", [Op.SEND, empty, to], { kind: "send", from: undefined, to }],
  ["EXIT", [Op.EXIT, from, to, reason], { kind: "exit", from, to, reason: inControl }],
  ["UNLINK", [Op.UNLINK, from, to], { kind: "unlink", from, to }],
  ["NODE_LINK", [Op.NODE_LINK], { kind: "node-link" }],
  ["REG_SEND", [Op.REG_SEND, from, empty, name], { kind: "send", from, to: name }],
  ["GROUP_LEADER", [Op.GROUP_LEADER, from, to], { kind: "group-leader", from, to }],
  ["EXIT2", [Op.EXIT2, from, to, reason], { kind: "exit2", from, to, reason: inControl }],
  ["SEND_TT", [Op.SEND_TT, empty, to, token], { kind: "send", from: undefined, to, token }],
  ["EXIT_TT", [Op.EXIT_TT, from, to, token, reason], { kind: "exit", from, to, token, reason: inControl }],
  ["REG_SEND_TT", [Op.REG_SEND_TT, from, empty, name, token], { kind: "send", from, to: name, token }],
  ["EXIT2_TT", [Op.EXIT2_TT, from, to, token, reason], { kind: "exit2", from, to, token, reason: inControl }],
  ["MONITOR_P", [Op.MONITOR_P, from, name, ref], { kind: "monitor", from, to: name, ref }],
  ["DEMONITOR_P", [Op.DEMONITOR_P, from, to, ref], { kind: "demonitor", from, to, ref }],
  [
    "MONITOR_P_EXIT",
    [Op.MONITOR_P_EXIT, name, to, ref, reason],
    { kind: "monitor-exit", from: name, to, ref, reason: inControl },
  ],
  ["SEND_SENDER", [Op.SEND_SENDER, from, to], { kind: "send", from, to }],
  ["SEND_SENDER_TT", [Op.SEND_SENDER_TT, from, to, token], { kind: "send", from, to, token }],
  ["PAYLOAD_EXIT", [Op.PAYLOAD_EXIT, from, to], { kind: "exit", from, to, reason: inPayload }],
  [
    "PAYLOAD_EXIT_TT",
    [Op.PAYLOAD_EXIT_TT, from, to, token],
    { kind: "exit", from, to, token, reason: inPayload },
  ],
  ["PAYLOAD_EXIT2", [Op.PAYLOAD_EXIT2, from, to], { kind: "exit2", from, to, reason: inPayload }],
  [
    "PAYLOAD_EXIT2_TT",
    [Op.PAYLOAD_EXIT2_TT, from, to, token],
    { kind: "exit2", from, to, token, reason: inPayload },
  ],
  [
    "PAYLOAD_MONITOR_P_EXIT",
    [Op.PAYLOAD_MONITOR_P_EXIT, from, to, ref],
    { kind: "monitor-exit", from, to, ref, reason: inPayload },
  ],
  [
    "SPAWN_REQUEST",
    [Op.SPAWN_REQUEST, ref, from, from, tuple(atom("m"), atom("f"), 2), [atom("link")]],
    {
      kind: "spawn-request",
      id: ref,
      from,
      groupLeader: from,
      module: atom("m"),
      function: atom("f"),
      arity: 2,
      options: [atom("link")],
    },
  ],
  [
    "SPAWN_REQUEST_TT",
    [Op.SPAWN_REQUEST_TT, ref, from, from, tuple(atom("m"), atom("f"), 2), [], token],
    {
      kind: "spawn-request",
      id: ref,
      from,
      groupLeader: from,
      module: atom("m"),
      function: atom("f"),
      arity: 2,
      options: [],
      token,
    },
  ],
  [
    "SPAWN_REPLY",
    [Op.SPAWN_REPLY, ref, to, 3, from],
    { kind: "spawn-reply", id: ref, to, linked: true, monitored: true, result: from },
  ],
  [
    "SPAWN_REPLY_TT",
    [Op.SPAWN_REPLY_TT, ref, to, 0, reason, token],
    { kind: "spawn-reply", id: ref, to, linked: false, monitored: false, result: reason, token },
  ],
  ["ALIAS_SEND", [Op.ALIAS_SEND, from, ref], { kind: "send", from, to: ref }],
  ["ALIAS_SEND_TT", [Op.ALIAS_SEND_TT, from, ref, token], { kind: "send", from, to: ref, token }],
  ["UNLINK_ID", [Op.UNLINK_ID, 2n ** 63n, from, to], { kind: "unlink-id", id: 2n ** 63n, from, to }],
  ["UNLINK_ID_ACK", [Op.UNLINK_ID_ACK, 5, from, to], { kind: "unlink-id-ack", id: 5, from, to }],
  [
    "ALTACT_SIG_SEND to a pid",
    [Op.ALTACT_SIG_SEND, AltActFlag.PRIORITY, from, to],
    { kind: "send", from, to },
  ],
  ["… to an alias", [Op.ALTACT_SIG_SEND, AltActFlag.ALIAS, from, ref], { kind: "send", from, to: ref }],
  [
    "… to a name, with token",
    [Op.ALTACT_SIG_SEND, AltActFlag.NAME | AltActFlag.TOKEN, from, name, token],
    { kind: "send", from, to: name, token },
  ],
  [
    "… as an exit",
    [Op.ALTACT_SIG_SEND, AltActFlag.EXIT, from, to],
    { kind: "exit2", from, to, reason: inPayload },
  ],
];

/** A frame as it comes: 112, control tuple, payload. */
function frame(control: Term, payload?: Term): Uint8Array {
  return Buffer.concat([
    Buffer.from([112]),
    encode(control),
    payload === undefined ? Buffer.alloc(0) : encode(payload),
  ]);
}

describe("control messages", () => {
  test.each(examples)("%s", (_name, fields, expected) => {
    expect(readControl(tuple(...fields))).toEqual(expected);
  });

  test("every operation has an example", () => {
    const seen = new Set(examples.map(([, fields]) => fields[0]));
    expect([...seen].sort()).toEqual([...Object.values(Op)].sort());
  });

  test("an operation that is unknown is none; what is malformed is a typed error", () => {
    expect(readControl(tuple(99, from))).toBeUndefined();
    for (const [, fields] of examples) {
      for (let length = 1; length < fields.length; length += 1) {
        expect(() => readControl(tuple(...fields.slice(0, length)))).toThrow(BeamtraceError);
      }
    }
    for (const odd of [
      1,
      [],
      tuple(),
      tuple(atom("a")),
      tuple(Op.LINK, 1, 2),
      tuple(Op.SPAWN_REQUEST, ref, from, from, 1, []),
    ]) {
      expect(() => readControl(odd)).toThrow(BeamtraceError);
    }
  });

  test("random and mutated bytes give typed errors or messages, never anything else", () => {
    const bytes = fc.oneof(
      fc.uint8Array({ maxLength: 80 }),
      fc
        .tuple(
          fc.nat(examples.length - 1),
          fc.array(fc.tuple(fc.nat(120), fc.nat(255)), { maxLength: 5 }),
          fc.nat(150),
        )
        .map(([index, flips, cut]) => {
          const whole = Buffer.from(encode(tuple(...(examples[index]?.[1] ?? []))));
          for (const [at, value] of flips) if (at < whole.length) whole[at] = value;
          return whole.subarray(0, cut);
        }),
    );
    fc.assert(
      fc.property(bytes, (bytes) => {
        try {
          readControl(decodePrefix(bytes).term);
        } catch (error) {
          expect(error).toBeInstanceOf(BeamtraceError);
        }
      }),
      { numRuns: 10_000 },
    );
  });
});

describe("SendHeader", () => {
  test("finds receiver, sender and payload of plain messages", () => {
    const header = new SendHeader();
    const sent = frame(tuple(Op.SEND_SENDER, from, to), [1, 2]);
    expect(header.parse(sent)).toBe(true);
    expect(header).toMatchObject({ toId: to.id, toCreation: to.creation, fromAt: 6 });
    expect(decodePrefix(sent, header.payloadAt).term).toEqual([1, 2]);
    expect(header.parse(frame(tuple(Op.SEND, empty, to), 5))).toBe(true);
    expect(header).toMatchObject({ toId: to.id, fromAt: -1 });
  });

  test("leaves all others to the general decoder", () => {
    const header = new SendHeader();
    for (const [, fields] of examples) {
      const plain = fields[0] === Op.SEND || fields[0] === Op.SEND_SENDER;
      expect(header.parse(frame(tuple(...fields), 1))).toBe(plain);
      // Without payload there's nothing to deliver.
      expect(header.parse(frame(tuple(...fields)))).toBe(false);
    }
  });

  test("agrees with the general decoder on whatever it accepts", () => {
    const pid = fc
      .tuple(fc.constantFrom("a@b", "long".repeat(60) + "@h", "grüße@€"), fc.nat(), fc.nat(), fc.nat())
      .map(([node, id, serial, creation]) => new Pid(atom(node), id, serial, creation));
    const flips = fc.array(fc.tuple(fc.nat(300), fc.nat(255)), { maxLength: 3 });
    fc.assert(
      fc.property(pid, pid, flips, fc.nat(600), (from, to, flips, cut) => {
        const whole = Buffer.from(frame(tuple(Op.SEND_SENDER, from, to), tuple(atom("x"), 1)));
        for (const [at, value] of flips) if (at < whole.length) whole[at] = value;
        const bytes = whole.subarray(0, cut);
        const header = new SendHeader();
        if (!header.parse(bytes)) return;
        let general: Term;
        try {
          const { term, next } = decodePrefix(bytes, 1);
          if (next !== header.payloadAt) expect.unreachable("payload elsewhere");
          general = term;
        } catch (error) {
          // The fast path looks at no more than it needs: bad text in the sender's node name, say, is not its business.
          expect(error).toBeInstanceOf(BeamtraceError);
          return;
        }
        const message = readControl(general);
        if (message?.kind !== "send" || !(message.to instanceof Pid)) expect.unreachable("another kind");
        else expect([message.to.id, message.to.creation]).toEqual([header.toId, header.toCreation]);
      }),
      { numRuns: 5000 },
    );
  });
});
