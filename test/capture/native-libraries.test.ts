/** The prebuilt libraries load where they say, and the check that says so can fail. */
import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { nativePlatform } from "../../src/capture/native-loader";
import { problemsOf } from "../../scripts/check-native-libraries";

const library = (platform: string): Buffer =>
  readFileSync(`beam/native/prebuilt/${platform}/beamtrace_nif.so`);

test.each(["linux-x64", "linux-arm64"])("%s needs nothing but a libc of any age", (platform) => {
  expect(problemsOf(platform, library(platform))).toEqual([]);
});

test("another processor, another symbol or no library at all is found", () => {
  expect(problemsOf("linux-arm64", library("linux-x64"))).toContain("is made for the processor 62");
  const renamed = Buffer.from(
    library("linux-x64").toString("latin1").replaceAll("memset", "system"),
    "latin1",
  );
  expect(problemsOf("linux-x64", renamed)).toEqual(["uses system"]);
  expect(problemsOf("linux-x64", Buffer.alloc(4096))).toEqual(["is no 64-bit little-endian ELF file"]);
});

test("which library a node gets", () => {
  expect(nativePlatform("x86_64-pc-linux-gnu")).toBe("linux-x64");
  expect(nativePlatform("x86_64-alpine-linux-musl")).toBe("linux-x64");
  expect(nativePlatform("aarch64-unknown-linux-gnu")).toBe("linux-arm64");
  for (const other of [
    "x86_64-pc-linux-gnux32",
    "i686-pc-linux-gnu",
    "aarch64-apple-darwin23",
    "armv7l-unknown-linux-gnueabihf",
    "x86_64-unknown-freebsd",
    "aarch64-unknown-linux-android",
  ])
    expect(nativePlatform(other)).toBeUndefined();
});
