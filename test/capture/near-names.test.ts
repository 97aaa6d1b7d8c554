import fc from "fast-check";
import { expect, test } from "vitest";
import { nearNames } from "../../src/capture/near-names";

const MODULES = [
  "lists",
  "maps",
  "Elixir.Shop.Cart",
  "Elixir.Shop.Cart.Item",
  "Elixir.Shop.Catalog",
  "Elixir.ShopWeb.Router",
  "Elixir.Enum",
  "gen_server",
];
const FUNCTIONS = [
  "add/2",
  "add_item/2",
  "remove/1",
  "handle_call/3",
  "handle_cast/2",
  "fetch/2",
  "fetch!/2",
  "//2",
];

test("a swapped pair of letters is one slip, with and without the Elixir prefix", () => {
  expect(nearNames("Elixir.Shop.Crat", MODULES)[0]).toBe("Elixir.Shop.Cart");
  expect(nearNames("Shop.Crat", MODULES)[0]).toBe("Elixir.Shop.Cart");
});

test("an Elixir module asked for without its prefix is named as the VM names it", () => {
  expect(nearNames("Shop.Cart", MODULES)[0]).toBe("Elixir.Shop.Cart");
  expect(nearNames("Enum", MODULES)).toEqual(["Elixir.Enum"]);
});

test("the last part of a module name is enough", () => {
  expect(nearNames("Cart", MODULES)[0]).toBe("Elixir.Shop.Cart");
  expect(nearNames("Store.Catalog", MODULES)).toContain("Elixir.Shop.Catalog");
});

test("case does not matter much", () => {
  expect(nearNames("shop.cart", MODULES)[0]).toBe("Elixir.Shop.Cart");
  expect(nearNames("GenServer", ["gen_server"])).toEqual(["gen_server"]);
});

test("short names are forgiven one slip only", () => {
  expect(nearNames("list", MODULES)).toEqual(["lists"]);
  expect(nearNames("map", MODULES)).toEqual(["maps"]);
  expect(nearNames("ets", MODULES)).toEqual([]);
});

test("another arity of the same function comes first, the nearest arity before others", () => {
  expect(nearNames("add/3", FUNCTIONS)[0]).toBe("add/2");
  expect(nearNames("seq/4", ["seq/2", "seq/3"])).toEqual(["seq/3", "seq/2"]);
  expect(nearNames("handle_call/2", FUNCTIONS)[0]).toBe("handle_call/3");
});

test("any arity will do where none is asked for", () => {
  expect(nearNames("ad/", FUNCTIONS)[0]).toBe("add/2");
  expect(nearNames("fetch/", FUNCTIONS).slice(0, 2)).toEqual(["fetch/2", "fetch!/2"]);
});

test("longer names that begin or end with it are near", () => {
  expect(nearNames("add/2", ["add_item/2", "do_add/2", "remove/1"])).toEqual(["do_add/2", "add_item/2"]);
});

test("a function whose name is a slash is read right", () => {
  expect(nearNames("//3", FUNCTIONS)[0]).toBe("//2");
});

test("nothing is near a name that is far from all", () => {
  expect(nearNames("Phoenix.LiveView.Channel", MODULES)).toEqual([]);
  expect(nearNames("add/2", [])).toEqual([]);
});

test("the answer is a selection of the candidates, at most max long, without repeats and without the name itself", () => {
  const name = fc.oneof(fc.constantFrom(...MODULES, ...FUNCTIONS), fc.string({ maxLength: 12 }));
  fc.assert(
    fc.property(
      name,
      fc.array(name, { maxLength: 30 }),
      fc.integer({ min: 0, max: 5 }),
      (wanted, candidates, max) => {
        const near = nearNames(wanted, candidates, max);
        expect(near.length).toBeLessThanOrEqual(max);
        expect(new Set(near).size).toBe(near.length);
        for (const n of near) expect(candidates).toContain(n);
        expect(near).not.toContain(wanted);
      },
    ),
  );
});
