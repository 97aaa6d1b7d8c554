import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { FrameParser, FrameTooLongError } from "../../src/erlang/dist/frame-parser";

function header(length: number, width: 2 | 4 = 4): Buffer {
  const bytes = Buffer.alloc(width);
  bytes.writeUIntBE(length, 0, width);
  return bytes;
}

function stream(frames: readonly Uint8Array[], width: 2 | 4 = 4): Buffer {
  return Buffer.concat(frames.flatMap((frame) => [header(frame.length, width), frame]));
}

describe("FrameParser", () => {
  test("yields the same frames however the stream is cut", () => {
    const frames = fc.array(fc.uint8Array({ maxLength: 40 }), { maxLength: 12 });
    const cuts = fc.array(fc.nat({ max: 12 }), { minLength: 1, maxLength: 30 });
    fc.assert(
      fc.property(frames, cuts, fc.constantFrom(2 as const, 4 as const), (frames, cuts, width) => {
        const bytes = stream(frames, width);
        const got: string[] = [];
        const parser = new FrameParser((frame) => got.push(Buffer.from(frame).toString("hex")), width, 1000);
        let at = 0;
        for (let i = 0; at < bytes.length; i += 1) {
          const end = Math.min(bytes.length, at + (cuts[i % cuts.length] ?? 0) + (i % 2));
          parser.push(bytes.subarray(at, end));
          at = end;
        }
        expect(got).toEqual(frames.map((frame) => Buffer.from(frame).toString("hex")));
        expect(parser.midFrame).toBe(false);
      }),
      { numRuns: 2000 },
    );
  });

  test("does not copy a frame that lies within a chunk, and copies one that does not", () => {
    const chunk = stream([new Uint8Array([1, 2, 3]), new Uint8Array(0), new Uint8Array([4])]);
    const owners: boolean[] = [];
    const parser = new FrameParser((frame) => owners.push(frame.buffer === chunk.buffer), 4, 100);
    parser.push(chunk.subarray(0, chunk.length));
    expect(owners).toEqual([true, true, true]);
    parser.push(chunk.subarray(0, 5));
    expect(parser.midFrame).toBe(true);
    parser.push(chunk.subarray(5, 7));
    expect(owners).toEqual([true, true, true, false]);
  });

  test("a header alone in a chunk does not make the frame be copied", () => {
    const body = Buffer.from([7, 8, 9]);
    const seen: ArrayBufferLike[] = [];
    const parser = new FrameParser((frame) => seen.push(frame.buffer), 4, 100);
    parser.push(header(3));
    parser.push(body);
    expect(seen).toEqual([body.buffer]);
  });

  test("a frame of 200 MB in chunks of 64 KiB is put together in one buffer of its size", () => {
    const size = 200_000_000;
    let got: Uint8Array | undefined;
    const parser = new FrameParser((frame) => (got = frame), 4, size);
    parser.push(header(size));
    const chunk = new Uint8Array(65_536);
    for (let at = 0, n = 0; at < size; at += chunk.length, n += 1) {
      chunk[0] = n;
      parser.push(chunk.subarray(0, Math.min(chunk.length, size - at)));
    }
    expect(got?.length).toBe(size);
    expect(got?.buffer.byteLength).toBe(size);
    for (let n = 0; n * chunk.length < size; n += 97) expect(got?.[n * chunk.length]).toBe(n % 256);
  });

  test("a length over the limit is refused when its header is complete, before anything is allocated", () => {
    const parser = new FrameParser(() => expect.unreachable(), 4, 1000);
    parser.push(header(0xffff_ffff).subarray(0, 3));
    expect(() => parser.push(header(0xffff_ffff).subarray(3))).toThrow(FrameTooLongError);
    const whole = new FrameParser(() => undefined, 4, 1000);
    whole.push(stream([new Uint8Array(1000)]));
    expect(() => whole.push(header(1001))).toThrow(/1001.*1000/);
  });

  test("width and limit may change within the callback, for the very next frame", () => {
    const got: string[] = [];
    const parser: FrameParser = new FrameParser(
      (frame) => {
        got.push(Buffer.from(frame).toString());
        if (got.length === 2) {
          parser.headerBytes = 4;
          parser.maxFrameBytes = 100_000;
        }
      },
      2,
      10,
    );
    const large = Buffer.alloc(70_000, "x");
    const bytes = Buffer.concat([stream([Buffer.from("a"), Buffer.from("b")], 2), stream([large])]);
    for (let at = 0; at < bytes.length; at += 999) parser.push(bytes.subarray(at, at + 999));
    expect(got).toEqual(["a", "b", large.toString()]);
  });

  test("after stop() within the callback nothing more is delivered", () => {
    let count = 0;
    const parser: FrameParser = new FrameParser(
      () => {
        count += 1;
        parser.stop();
      },
      4,
      10,
    );
    parser.push(stream([new Uint8Array(1), new Uint8Array(1)]));
    expect(count).toBe(1);
  });
});
