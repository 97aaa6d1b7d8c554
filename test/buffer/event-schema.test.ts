import { expect, test } from "vitest";
import { staleFiles } from "../../scripts/generate-schema";
import { EVENT_KINDS, GAP_HOPS, GC_FIELDS, KIND_NAMES, SHAPE_TYPES } from "../../src/buffer/event-schema";

test("generated headers say what the schema says", () => {
  expect(staleFiles()).toEqual([]);
});

test("numbers are unique and fit their fields", () => {
  for (const [table, max] of [
    [EVENT_KINDS, 63],
    [SHAPE_TYPES, 15],
    [GAP_HOPS, 255],
  ] as const) {
    const codes = Object.values(table);
    expect(new Set(codes).size).toBe(codes.length);
    expect(Math.max(...codes)).toBeLessThanOrEqual(max);
  }
  expect(KIND_NAMES[EVENT_KINDS.marker]).toBe("marker");
  expect(GC_FIELDS.length).toBe(12);
});
