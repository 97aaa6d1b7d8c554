/** A small project of Mix, of Elixir and Erlang, with this project's compiler; and what tests ask of its build. */
import { readFile } from "node:fs/promises";
import { join } from "node:path";

import { BeamFile } from "../../src/erlang";
import { readSiteTable } from "../../src/transform";
import { beamHashes, MIX_DEPENDENCY, mustRun } from "./build-project";

export const MIX_EXS = (extra = "", dependencies = ""): string => `defmodule Shop.MixProject do
  use Mix.Project
  def project do
    [app: :shop, version: "0.1.0", compilers: Mix.compilers() ++ [:beamtrace], ${extra}
     deps: [${MIX_DEPENDENCY}${dependencies}]]
  end
  def application, do: [extra_applications: [:logger]]
end
`;

export const PLAN = JSON.stringify({
  rules: [{ exclude: { function: "__*__" } }, { include: { module: ["Shop.*", "shop_*"] } }],
  environments: { dev: {}, test: { rules: [{ exclude: { module: "Shop.Cart" } }] } },
});

export const SOURCES = {
  "lib/shop/cart.ex": `defmodule Shop.Cart do
  use GenServer
  def init(items), do: {:ok, items}
  def handle_call(:total, _from, items), do: {:reply, total(items), items}
  def total(items), do: Enum.map(items, &Shop.Price.price/1) |> Enum.sum()
end
`,
  "lib/shop/price.ex": `defprotocol Shop.Price do
  def price(item)
end
defimpl Shop.Price, for: Integer do
  def price(item), do: item
end
defimpl Shop.Price, for: Map do
  def price(%{price: price}), do: price
end
`,
  "lib/shop/store.ex": `defmodule Shop.Store do
  def put(store, key, value), do: Map.put(store, key, value)
end
`,
  "src/shop_erl.erl": `-module(shop_erl).
-export([twice/1]).
twice(X) -> 2 * X.
`,
};

export const mix = (folder: string, args: string, env?: Record<string, string>): Promise<string> =>
  mustRun(["mix", ...args.split(" ")], folder, env);
export const ebin = (folder: string, environment = "dev"): string =>
  join(folder, "_build", environment, "lib/shop/ebin");

/** Modules of a folder that have a site table. */
export async function instrumentedIn(folder: string): Promise<string[]> {
  const found: string[] = [];
  for (const path of Object.keys(await beamHashes(folder)))
    if (readSiteTable(BeamFile.read(await readFile(join(folder, path)))) !== undefined) found.push(path);
  return found;
}
