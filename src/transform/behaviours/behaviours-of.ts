/**
 * The behaviours of a module, found in its forms: its `-behaviour` attributes (both spellings), and what `use Task` and `use Agent` leave
 * in a module, which have no behaviour to declare. Names are those of OTP where Elixir's module is a face of it.
 */
import { Atom } from "../../erlang";
import { walk } from "../children";
import type { Expr, Form, FunctionNode } from "../forms";

/** Elixir's own modules that run what `Task` and `Agent` are given: where their processes are. */
export const ELIXIR_SERVERS: ReadonlyMap<string, string> = new Map([
  ["Elixir.Agent.Server", "Agent"],
  ["Elixir.Task.Supervised", "Task"],
]);
/** Elixir's faces of OTP behaviours: the same callbacks, called by the same code. */
const FACES: ReadonlyMap<string, string> = new Map([
  ["Elixir.GenServer", "gen_server"],
  ["Elixir.GenEvent", "gen_event"],
  ["Elixir.Supervisor", "supervisor"],
  ["Elixir.Application", "application"],
]);
const ELIXIR = "Elixir.";
/** Behaviours whose `use` makes a `child_spec/1` of its own. */
const HAVE_CHILD_SPEC = new Set(["gen_server", "supervisor", "DynamicSupervisor", "GenStage"]);

/** `Elixir.Phoenix.Channel` as people write it. */
const shortName = (module: string): string =>
  FACES.get(module) ?? (module.startsWith(ELIXIR) ? module.slice(ELIXIR.length) : module);

const isAtom = (node: Expr | undefined, name: string): boolean =>
  node?.type === "atom" && node.value.name === name;

/** Whether the node is a call of `module:name/arity`. */
function isCallOf(node: Expr | undefined, module: string, name: string | undefined): boolean {
  if (node?.type !== "call" || node.callee.type !== "remote") return false;
  return isAtom(node.callee.module, module) && (name === undefined || isAtom(node.callee.function, name));
}

/**
 * Keys of the map that a `child_spec/1` made by `use` hands to `Supervisor.child_spec/2`
 * (`Default = #{id => …, start => …}, 'Elixir.Supervisor':child_spec(Default, Options)`), or undefined for any other function.
 */
function generatedChildSpec(node: FunctionNode): ReadonlyMap<string, Expr> | undefined {
  const only = node.clauses.length === 1 ? node.clauses[0] : undefined;
  const [spec, call] = only?.body ?? [];
  if (only?.body.length !== 2 || spec?.type !== "match" || spec.value.type !== "map") return undefined;
  if (!isCallOf(call, "Elixir.Supervisor", "child_spec")) return undefined;
  const fields = new Map<string, Expr>();
  for (const { key, value } of spec.value.fields) if (key.type === "atom") fields.set(key.value.name, value);
  return fields.has("id") && fields.has("start") ? fields : undefined;
}

/** `Task` or `Agent` when the module is made by `use` of one. */
function usedWithoutBehaviour(forms: readonly Form[]): string | undefined {
  const functions = forms.filter((form) => form.type === "function");
  const childSpec = functions.find(({ name, arity }) => name.name === "child_spec" && arity === 1);
  const fields = childSpec === undefined ? undefined : generatedChildSpec(childSpec);
  if (fields === undefined) return undefined;
  // Only `use Task` says `restart: :temporary`; what `use Agent` says any `use` says: it takes a call of Agent to tell.
  if (isAtom(fields.get("restart"), "temporary")) return "Task";
  if (fields.size !== 2) return undefined;
  let callsAgent = false;
  for (const form of functions)
    walk(form, (node) => {
      callsAgent ||= isCallOf(node as Expr, "Elixir.Agent", undefined);
      return !callsAgent;
    });
  return callsAgent ? "Agent" : undefined;
}

/**
 * Names of the behaviours of a module, each once, in the order of the source: `gen_server`, `gen_statem`, `gen_event`, `supervisor`,
 * `application`, `Phoenix.LiveView`, `Plug` … Elixir's modules go without `Elixir.`, and `GenServer`, `Supervisor` and `Application` by
 * their names in OTP. `Task` and `Agent` are no behaviours: they are seen by the `child_spec/1` that `use` makes, unless the module has
 * one of its own. Elixir's modules that run them, `Task.Supervised` and `Agent.Server`, count as well.
 * @example behavioursOf(formsFromTerm(info.forms)) // ["gen_server"]
 */
export function behavioursOf(forms: readonly Form[]): string[] {
  const found = new Set<string>();
  for (const form of forms) {
    if (form.type !== "attribute") continue;
    if (form.name.name === "module" && form.value instanceof Atom) {
      const server = ELIXIR_SERVERS.get(form.value.name);
      if (server !== undefined) found.add(server);
    }
    if (form.name.name !== "behaviour" && form.name.name !== "behavior") continue;
    const named = Array.isArray(form.value) ? (form.value as readonly unknown[]) : [form.value];
    for (const one of named) if (one instanceof Atom) found.add(shortName(one.name));
  }
  if (![...found].some((name) => HAVE_CHILD_SPEC.has(name))) {
    const used = usedWithoutBehaviour(forms);
    if (used !== undefined) found.add(used);
  }
  return [...found];
}
