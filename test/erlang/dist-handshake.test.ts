import fc from "fast-check";
import { mkdtempSync, mkdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { inspect } from "node:util";
import { afterEach, describe, expect, test, vi } from "vitest";
import { Cookie, findCookie } from "../../src/erlang/dist/cookie";
import {
  DistFlag,
  expandFlags,
  MANDATORY_FLAGS,
  missingFlags,
  OFFERED_FLAGS,
} from "../../src/erlang/dist/flags";
import {
  beginHandshake,
  type HandshakeState,
  type Identity,
  type Step,
} from "../../src/erlang/dist/handshake";
import { parseNodeName } from "../../src/erlang/dist/node-name";
import { BeamtraceError } from "../../src/erlang/errors";

const cookie = new Cookie("monster");
const identity: Identity = {
  name: "me@here",
  nameMe: false,
  flags: OFFERED_FLAGS,
  creation: 77,
  cookie,
  challenge: 0xfedcba98,
  replace: false,
};
const OTP_25_FLAGS = 0xd07df7fbcn;

function challengePacket(flags = OTP_25_FLAGS, name = "shop@web1"): Buffer {
  const bytes = Buffer.alloc(19 + name.length);
  bytes.write("N");
  bytes.writeBigUInt64BE(flags, 1);
  bytes.writeUInt32BE(4_000_000_001, 9);
  bytes.writeUInt32BE(5, 13);
  bytes.writeUInt16BE(name.length, 17);
  bytes.write(name, 19);
  return bytes;
}

function ackPacket(): Buffer {
  return Buffer.concat([Buffer.from("a"), cookie.digest(identity.challenge)]);
}

function receive(step: Step, packet: Uint8Array): Step {
  if (step.next.stage === "established") throw new Error("the handshake is over");
  return step.next.receive(packet);
}

describe("the handshake", () => {
  test("by the book", () => {
    const start = beginHandshake(identity);
    expect(Buffer.from(start.send[0] as Uint8Array).toString("hex")).toBe(
      `4e${OFFERED_FLAGS.toString(16).padStart(16, "0")}0000004d0007${Buffer.from("me@here").toString("hex")}`,
    );
    const status = receive(start, Buffer.from("sok"));
    expect(status.send).toEqual([]);
    const reply = receive(status, challengePacket());
    expect(Buffer.from(reply.send[0] as Uint8Array).toString("hex")).toBe(
      `72fedcba98${cookie.digest(4_000_000_001).toString("hex")}`,
    );
    expect(receive(reply, ackPacket()).next).toEqual({
      stage: "established",
      peer: { name: "shop@web1", creation: 5, flags: expandFlags(OTP_25_FLAGS) },
      self: { name: "me@here", creation: 77 },
    });
  });

  test("the node chooses our name", () => {
    const start = beginHandshake({ ...identity, name: "here", nameMe: true });
    expect(Buffer.from(start.send[0] as Uint8Array).readBigUInt64BE(1) & DistFlag.NAME_ME).not.toBe(0n);
    const named = Buffer.concat([
      Buffer.from("snamed:\x00\x06"),
      Buffer.from("x@here"),
      Buffer.from([0, 0, 1, 0]),
    ]);
    const end = [named, challengePacket(), ackPacket()].reduce(receive, start);
    expect(end.next).toMatchObject({ self: { name: "x@here", creation: 256 } });
  });

  test("alive: refused, or taken over", () => {
    expect(() => receive(beginHandshake(identity), Buffer.from("salive"))).toThrow(/already/);
    const step = receive(beginHandshake({ ...identity, replace: true }), Buffer.from("salive"));
    expect(Buffer.from(step.send[0] as Uint8Array).toString()).toBe("strue");
    expect(step.next.stage).toBe("challenge");
  });

  test("ok_simultaneous, and bytes that later versions may add", () => {
    const start = receive(beginHandshake(identity), Buffer.from("sok_simultaneous"));
    const more = Buffer.concat([challengePacket(), Buffer.from("more")]);
    expect(receive(start, more).next.stage).toBe("ack");
  });

  test("a node that lacks a mandatory flag is too old, and which one is said", () => {
    for (const name of MANDATORY_FLAGS) {
      const flags = expandFlags(OTP_25_FLAGS) & ~DistFlag[name] & ~DistFlag.MANDATORY_25_DIGEST;
      expect(missingFlags(flags)).toEqual([name]);
      const status = receive(beginHandshake(identity), Buffer.from("sok"));
      expect(() => receive(status, challengePacket(flags))).toThrow(name);
    }
  });

  test("the flags offered satisfy what OTP 25 to 29 demand, and never ask for frames that we can't read", () => {
    expect(missingFlags(OFFERED_FLAGS)).toEqual([]);
    for (const flag of [DistFlag.PUBLISHED, DistFlag.DIST_HDR_ATOM_CACHE, DistFlag.FRAGMENTS]) {
      expect(OFFERED_FLAGS & flag).toBe(0n);
    }
  });

  test("mutated packets give typed errors or go on, never anything else", () => {
    const script = [Buffer.from("sok"), challengePacket(), ackPacket()];
    const mutation = fc.record({
      packet: fc.nat(2),
      cut: fc.nat(40),
      flips: fc.array(fc.tuple(fc.nat(40), fc.nat(255)), { maxLength: 4 }),
      extra: fc.uint8Array({ maxLength: 5 }),
    });
    fc.assert(
      fc.property(mutation, ({ packet, cut, flips, extra }) => {
        let state: HandshakeState | undefined = beginHandshake(identity).next as HandshakeState;
        try {
          for (const [index, bytes] of script.entries()) {
            let sent: Buffer = Buffer.from(bytes);
            if (index === packet) {
              for (const [at, value] of flips) if (at < sent.length) sent[at] = value;
              sent = Buffer.concat([sent.subarray(0, cut), extra]);
            }
            const next: Step["next"] = (state as HandshakeState).receive(sent).next;
            state = next.stage === "established" ? undefined : next;
            if (state === undefined) return;
            expect(state.closed()).toBeInstanceOf(BeamtraceError);
          }
        } catch (error) {
          expect(error).toBeInstanceOf(BeamtraceError);
        }
      }),
      { numRuns: 5000 },
    );
  });
});

describe("the cookie", () => {
  const directories: string[] = [];
  afterEach(() => {
    vi.unstubAllEnvs();
    for (const directory of directories.splice(0)) rmSync(directory, { recursive: true });
  });

  function home(files: Record<string, string>): void {
    const directory = mkdtempSync(join(tmpdir(), "bt-home-"));
    directories.push(directory);
    for (const [name, text] of Object.entries(files)) {
      mkdirSync(join(directory, name, ".."), { recursive: true });
      writeFileSync(join(directory, name), text);
    }
    vi.stubEnv("HOME", directory);
  }

  test("makes the digests of the VM", () => {
    // erlang:md5("monster" ++ "12345"), as dist_util:gen_digest(12345, monster) makes it.
    expect(cookie.digest(12345).toString("hex")).toBe("a5ed80015fecaf4c95df69831987c39e");
    expect(cookie.proves(cookie.digest(7), 7)).toBe(true);
    expect(cookie.proves(cookie.digest(7), 8)).toBe(false);
    expect(cookie.proves(new Uint8Array(3), 8)).toBe(false);
  });

  test("comes from the files that the VM reads, in its order", async () => {
    home({ ".config/erlang/.erlang.cookie": "second\n" });
    expect((await findCookie(undefined)).proves(new Cookie("second").digest(1), 1)).toBe(true);
    home({ ".erlang.cookie": "  first  \n", ".config/erlang/.erlang.cookie": "second" });
    expect((await findCookie(undefined)).proves(new Cookie("first").digest(1), 1)).toBe(true);
    expect((await findCookie("given")).proves(new Cookie("given").digest(1), 1)).toBe(true);
  });

  test("missing, empty, unreadable", async () => {
    home({});
    await expect(findCookie(undefined)).rejects.toMatchObject({ code: "BT_COOKIE_MISSING" });
    home({ ".erlang.cookie": "\n" });
    await expect(findCookie(undefined)).rejects.toMatchObject({ code: "BT_COOKIE_MISSING" });
    home({ ".erlang.cookie/file": "" });
    await expect(findCookie(undefined)).rejects.toMatchObject({ code: "BT_COOKIE_MISSING" });
    await expect(findCookie("")).rejects.toMatchObject({ code: "BT_OPTION_INVALID" });
    await expect(findCookie("\u20ac")).rejects.toMatchObject({ code: "BT_OPTION_INVALID" });
  });

  test("does not show itself", () => {
    const shown = `${inspect(cookie, { showHidden: true, depth: 9 })}${JSON.stringify(cookie)}${String(cookie)}`;
    expect(shown).not.toContain("monster");
  });
});

test("node names", () => {
  expect(parseNodeName("shop@web1")).toEqual({ alive: "shop", host: "web1" });
  expect(parseNodeName("a.b-c@::1")).toEqual({ alive: "a.b-c", host: "::1" });
  for (const name of ["", "@", "shop", "a@", "@b", "a@b@c", "a b@c", "a@b\n"]) {
    expect(() => parseNodeName(name)).toThrow(BeamtraceError);
  }
});
