/** Behaviours are found by their attributes, however spelled, and by what `use Task` and `use Agent` leave. */
import { describe, expect, test } from "vitest";

import { atom, type Term } from "../../../src/erlang";
import { behavioursOf, builderAt, type Expr, type Form, type FunctionNode } from "../../../src/transform";

const b = builderAt(3);
const attribute = (name: string, value: Term): Form => ({
  type: "attribute",
  anno: 1,
  name: atom(name),
  value,
});
const map = (entries: Readonly<Record<string, Expr>>): Expr => ({
  type: "map",
  anno: 3,
  fields: Object.entries(entries).map(([key, value]) => ({
    ...{ type: "map_field_assoc", anno: 3, key: b.atom(key), value },
  })),
});
const childSpec = (rest: Readonly<Record<string, Expr>> = {}): FunctionNode =>
  b.function("child_spec", 1, [
    b.clause(
      [b.variable("A")],
      [
        b.match(b.variable("D"), map({ id: b.atom("m"), start: b.tuple(b.atom("m")), ...rest })),
        b.remoteCall("Elixir.Supervisor", "child_spec", [b.variable("D"), b.list([])]),
      ],
    ),
  ]);
const start = b.function("start_link", 0, [
  b.clause([], [b.remoteCall("Elixir.Agent", "start_link", [b.variable("F")])]),
]);

describe("behavioursOf", () => {
  test.each<readonly [string, Form[], string[]]>([
    ["none", [], []],
    ["of Elixir's own servers", [attribute("module", atom("Elixir.Task.Supervised"))], ["Task"]],
    [
      "also where they are gen_servers",
      [attribute("module", atom("Elixir.Agent.Server")), attribute("behaviour", atom("Elixir.GenServer"))],
      ["Agent", "gen_server"],
    ],
    ["of Erlang", [attribute("behaviour", atom("gen_statem"))], ["gen_statem"]],
    ["spelled otherwise", [attribute("behavior", atom("gen_event"))], ["gen_event"]],
    [
      "several, each once",
      [
        attribute("behaviour", atom("gen_server")),
        attribute("behaviour", [atom("my_behaviour"), atom("gen_server")]),
      ],
      ["gen_server", "my_behaviour"],
    ],
    [
      "Elixir's faces of OTP",
      ["GenServer", "Supervisor", "Application"].map((name) =>
        attribute("behaviour", atom(`Elixir.${name}`)),
      ),
      ["gen_server", "supervisor", "application"],
    ],
    [
      "Phoenix and Plug",
      ["Phoenix.LiveView", "Phoenix.LiveComponent", "Phoenix.Channel", "Plug"].map((name) =>
        attribute("behaviour", atom(`Elixir.${name}`)),
      ),
      ["Phoenix.LiveView", "Phoenix.LiveComponent", "Phoenix.Channel", "Plug"],
    ],
    ["use Task", [childSpec({ restart: b.atom("temporary") })], ["Task"]],
    ["use Agent", [childSpec(), start], ["Agent"]],
    [
      "an Agent beside another behaviour",
      [attribute("behaviour", atom("Elixir.My")), childSpec(), start],
      ["My", "Agent"],
    ],
    ["a child_spec alone", [childSpec()], []],
    [
      "a GenServer that has an Agent",
      [attribute("behaviour", atom("Elixir.GenServer")), childSpec(), start],
      ["gen_server"],
    ],
    ["a module that only calls Agent", [start], []],
  ])("%s", (_, forms, names) => {
    expect(behavioursOf(forms)).toEqual(names);
  });
});
