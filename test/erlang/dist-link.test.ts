import { createHash } from "node:crypto";
import type { Duplex } from "node:stream";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { connect, type LinkCloseReason, type NodeLink } from "../../src/erlang/dist";
import { Op } from "../../src/erlang/dist/control-message";
import { encode } from "../../src/erlang/etf";
import { ConnectionError } from "../../src/erlang/errors";
import { atom, Pid, Reference, tuple, type Term } from "../../src/erlang/term";
import { duplexPair } from "./dist-duplex-pair";

const COOKIE = "c";

function packet(body: Buffer, width: 2 | 4): Buffer {
  const head = Buffer.alloc(width);
  head.writeUIntBE(body.length, 0, width);
  return Buffer.concat([head, body]);
}

function frame(control: Term, payload?: Term): Buffer {
  const parts = [Buffer.from([112]), Buffer.from(encode(control))];
  if (payload !== undefined) parts.push(Buffer.from(encode(payload)));
  return packet(Buffer.concat(parts), 4);
}

/** Plays the node's part of the handshake over one end of a pair; `first` follows in the very same chunk. */
async function shaken(
  first = Buffer.alloc(0),
): Promise<{ link: NodeLink; peer: Duplex; heard: () => Buffer }> {
  const [ours, peer] = duplexPair();
  const name = "n@h";
  const challenge = Buffer.alloc(19 + name.length);
  challenge.write("N");
  challenge.writeBigUInt64BE(0xd07df7fbcn, 1);
  challenge.writeUInt32BE(7, 9);
  challenge.writeUInt32BE(9, 13);
  challenge.writeUInt16BE(name.length, 17);
  challenge.write(name, 19);
  let received = Buffer.alloc(0);
  let greeted = false;
  let proved = false;
  const onData = (chunk: Buffer): void => {
    received = Buffer.concat([received, chunk]);
    if (!greeted) {
      greeted = true;
      peer.write(Buffer.concat([packet(Buffer.from("sok"), 2), packet(challenge, 2)]));
    }
    const reply = received.indexOf("r", 2 + received.readUInt16BE(0));
    if (reply < 0 || proved) return;
    proved = true;
    const proof = createHash("md5")
      .update(`${COOKIE}${received.readUInt32BE(reply + 1)}`)
      .digest();
    peer.write(Buffer.concat([packet(Buffer.concat([Buffer.from("a"), proof]), 2), first]));
  };
  peer.on("data", onData);
  const link = await connect({ duplex: ours }, { cookie: COOKIE, name: "me@h" });
  return { link, peer, heard: () => received };
}

const theirs = new Pid(atom("n@h"), 1, 0, 9);

describe("a link over a Duplex", () => {
  test("frames that follow the handshake in the same chunk are not lost", async () => {
    // The link answers a monitor that came along with the last packet of the handshake.
    const ref = new Reference(atom("n@h"), 9, [1, 2, 3]);
    const first = Buffer.concat([Buffer.alloc(4), frame(tuple(Op.MONITOR_P, theirs, atom("nobody"), ref))]);
    const { link, heard } = await shaken(first);
    while (!heard().includes("noproc")) await new Promise((resolve) => setImmediate(resolve));
    await link.close();
  });

  test("mutated frames end it with a typed reason or are ignored; the Duplex is then gone", async () => {
    const frames = (link: NodeLink, box: Pid): Buffer[] => {
      const ref = new Reference(atom("n@h"), 9, [1, 2, 3]);
      return [
        frame(tuple(Op.SEND_SENDER, theirs, box), [1, tuple(atom("a"), atom("b"))]),
        frame(tuple(Op.LINK, theirs, box)),
        frame(tuple(Op.PAYLOAD_EXIT2, theirs, box), atom("why")),
        frame(tuple(Op.UNLINK_ID, 5, theirs, box)),
        frame(tuple(Op.MONITOR_P, theirs, box, ref)),
        frame(tuple(Op.SPAWN_REPLY, ref, box, 3, theirs)),
        frame(tuple(Op.PAYLOAD_MONITOR_P_EXIT, theirs, box, ref), [atom(link.self.name)]),
      ];
    };
    const mutation = fc.record({
      index: fc.nat(6),
      flips: fc.array(fc.tuple(fc.nat(120), fc.nat(255)), { minLength: 1, maxLength: 4 }),
    });
    await fc.assert(
      fc.asyncProperty(fc.array(mutation, { minLength: 1, maxLength: 4 }), async (mutations) => {
        const { link, peer } = await shaken();
        const box = link.createMailbox({ onMessage() {}, onExit() {}, onDown() {} });
        const good = frames(link, box);
        for (const { index, flips } of mutations) {
          const bytes = Buffer.from(good[index] as Buffer);
          // The length stays right: what is damaged is the frame's inside.
          for (const [at, value] of flips) if (at + 4 < bytes.length) bytes[at + 4] = value;
          peer.write(bytes);
        }
        peer.end();
        const reason: LinkCloseReason = await link.closed;
        if (reason.kind === "protocol-error") expect(reason.error).toBeInstanceOf(ConnectionError);
        else expect(reason.kind).toBe("peer-closed");
        await link.close();
      }),
      { numRuns: 500 },
    );
  });
});
