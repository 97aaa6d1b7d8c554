/** Sites by number: of the version of the module that the event is of, or none; who has to be asked is asked once. */
import fc from "fast-check";
import { describe, expect, test } from "vitest";

import { encode } from "../../src/erlang/etf";
import {
  Dictionary,
  siteIn,
  siteNumber,
  SITES_MAX,
  siteTableFromTerm,
  siteVersion,
  tableVersion,
} from "../../src/buffer";
import { siteTerm } from "../../src/buffer/site-table";
import { atom, tuple, type Tuple } from "../../src/erlang";
import { siteTableFor } from "./support/site-table";

const before = siteTableFor("m", ["f", "g"], 7);
const after = siteTableFor("m", ["e", "f", "g"], 7);

describe("a version", () => {
  test("is that of what the sites say", () => {
    expect(siteTableFor("m", ["f", "g"], 7).version).toBe(before.version);
    const others = [
      after,
      siteTableFor("m", ["f", "g"], 8),
      siteTableFor("m", ["fg", ""], 7),
      siteTableFor("n", ["f", "g"], 7),
      { version: tableVersion(before.sites.map((s) => ({ ...s, kind: "tail", callee: "f/1" }))) },
      { version: tableVersion(before.sites.map((s) => ({ ...s, arguments: [0] }))) },
      { version: tableVersion(before.sites.map((s) => ({ ...s, column: 2 }))) },
    ];
    const versions = [before, ...others].map(({ version }) => version);
    expect(new Set(versions).size).toBe(versions.length);
  });

  test("is spread evenly: of tables that differ in one line hardly two have the same", () => {
    const versions = Array.from({ length: 2000 }, (_, line) => siteTableFor("m", ["f"], line).version);
    // By chance 1 − e^(−2000 / 21473) of them, 4.5 %.
    expect(new Set(versions).size).toBeGreaterThan(1850);
    expect(Math.min(...versions)).toBeGreaterThanOrEqual(1);
  });

  test("and a place make a number of 31 bits, and come out of it again", () => {
    fc.assert(
      fc.property(fc.nat(SITES_MAX - 1), fc.integer({ min: 0, max: 21_473 }), (id, version) => {
        const number = siteNumber(version, id);
        expect(number).toBeLessThan(2 ** 31);
        expect([siteVersion(number), number % SITES_MAX]).toEqual([version, id]);
      }),
    );
  });

  test("goes with the table", () => {
    expect(siteTableFromTerm(siteTerm(before))).toEqual(before);
    // Tables of before had none, nor had their events.
    const [tag, , ...rest] = (siteTerm(before) as Tuple).elements;
    const old = siteTableFromTerm(tuple(tag!, 2, ...rest.slice(0, -1)));
    expect(old).toEqual({ ...before, version: 0 });
    expect(siteIn(old, 1)).toEqual(before.sites[1]);
    expect(siteIn(before, 1)).toBeUndefined();
    expect(() => siteTableFromTerm(tuple(tag!, 4, ...rest))).toThrow(/format 3/);
    expect(() => siteTableFromTerm(tuple(atom("other"), 3, ...rest))).toThrow();
    expect(encode(siteTerm(before)).length).toBeLessThan(400);
  });
});

describe("tables", () => {
  test("of several versions of a module stand side by side", () => {
    const { sites } = new Dictionary();
    sites.add(before);
    expect(sites.find("m", siteNumber(before.version, 0))).toEqual(before.sites[0]);
    expect(sites.find("m", siteNumber(after.version, 0))).toBeUndefined();
    sites.add(after);
    expect(sites.find("m", siteNumber(before.version, 0))?.function).toBe("f");
    expect(sites.find("m", siteNumber(after.version, 0))?.function).toBe("e");
    expect(sites.find("m", siteNumber(before.version, 4))).toBeUndefined();
    expect(sites.find("n", siteNumber(before.version, 0))).toBeUndefined();
    expect(sites.find("m", 0)).toBeUndefined();
    expect(sites.modules).toEqual(["m"]);
    expect(sites.tables).toEqual([before, after]);
  });

  test("of old versions go when there are too many", () => {
    const { sites } = new Dictionary();
    const tables = Array.from({ length: 70 }, (_, line) => siteTableFor("m", ["f"], line));
    tables.forEach((table) => sites.add(table));
    expect(sites.tables).toHaveLength(64);
    expect(sites.find("m", siteNumber(tables[69]!.version, 0))?.line).toBe(69);
    expect(sites.find("m", siteNumber(tables[0]!.version, 0))).toBeUndefined();
  });

  test("that are missing are asked for, of whom the source has, once for each run of events", async () => {
    const dictionary = new Dictionary();
    const { sites } = dictionary;
    const module = dictionary.atomId("m");
    const asked: string[] = [];
    let answer!: () => void;
    for (const source of [3, 4])
      sites.onMissing(source, (id, version) => {
        asked.push(`${source} ${id === module} ${version === before.version}`);
        return new Promise<void>((resolve) => (answer = resolve));
      });
    const number = siteNumber(before.version, 1);
    for (const source of [3, 3, 4, 5]) expect(sites.at(module, number, source)).toBeUndefined();
    expect(asked).toEqual(["3 true true", "4 true true"]);
    sites.onMissing(4, undefined);
    let settled = false;
    const waiting = sites.settled().then(() => (settled = true));
    sites.add(before);
    expect(sites.at(module, number, 3)).toEqual(before.sites[1]);
    expect(settled).toBe(false);
    answer();
    await Promise.race([waiting, new Promise((resolve) => setImmediate(resolve))]);
    // The other one has not answered.
    expect(settled).toBe(false);
  });
});
