/** What the Elixir of this release leaves in modules that `use` something is recognised. */
import { afterAll, beforeAll, expect, test } from "vitest";

import { atom, BeamFile } from "../../src/erlang";
import { behavioursOf, type CompileServer, formsFromTerm } from "../../src/transform";
import { type ErlNode, startNode } from "../support/erl-node";
import { compileElixir, ELIXIR_EBIN, startCompiler } from "../support/transform";

let node: ErlNode;
let compiler: CompileServer;

beforeAll(async () => {
  node = await startNode({ distributed: false, args: ["-pa", ELIXIR_EBIN] });
  compiler = await startCompiler();
});
afterAll(async () => {
  await compiler.close();
  await node.stop();
});

const SOURCE = `
defmodule Seen.Agent do
  use Agent
  def start_link(_), do: Agent.start_link(fn -> 0 end)
end
defmodule Seen.Task do
  use Task, restart: :permanent
  def start_link(x), do: Task.start_link(fn -> x end)
end
defmodule Seen.Server do
  use GenServer
  def init(x), do: {:ok, x}
end
defmodule Seen.Supervisor do
  use Supervisor
  def init(_), do: Supervisor.init([], strategy: :one_for_one)
end
defmodule Seen.Dynamic do
  use DynamicSupervisor
  def init(_), do: DynamicSupervisor.init([])
end
defmodule Seen.Application do
  use Application
  def start(_, _), do: {:ok, self()}
end
defmodule Seen.Statem do
  @behaviour :gen_statem
  def callback_mode, do: :state_functions
  def init(_), do: {:ok, :a, 1}
end
defmodule Seen.Nothing do
  def child_spec(x), do: %{id: __MODULE__, start: {__MODULE__, :start_link, [x]}}
end
`;

test("behaviours of Elixir's modules", async () => {
  const beams = await compileElixir(node, SOURCE);
  const found: [string, string[]][] = [];
  for (const [module, bytes] of beams) {
    const chunk = BeamFile.read(bytes).chunk("Dbgi") as Uint8Array;
    const { forms } = await compiler.forms(atom(module), "elixir_erl", chunk);
    found.push([module.replace("Elixir.Seen.", ""), behavioursOf(formsFromTerm(forms))]);
  }
  expect(new Map(found)).toEqual(
    new Map([
      ["Agent", ["Agent"]],
      ["Task", ["Task"]],
      ["Server", ["gen_server"]],
      ["Supervisor", ["supervisor"]],
      ["Dynamic", ["DynamicSupervisor"]],
      ["Application", ["application"]],
      ["Statem", ["gen_statem"]],
      ["Nothing", []],
    ]),
  );
});
