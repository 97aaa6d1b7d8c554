/**
 * The callbacks of the behaviours that are known: where each takes what triggered it, its caller and its state, and how its result is read
 * (`class`, see `outcome/2` of beam/runtime). Follows the documentation of gen_server, gen_statem, gen_event, supervisor, application
 * (OTP 25–29), Phoenix 1.7, LiveView 1.0 and Plug.
 */
import { Atom } from "../../erlang";
import type { Expr, Form, FunctionNode } from "../forms";
import type { CallbackTrigger } from "../../buffer";
import { behavioursOf, ELIXIR_SERVERS } from "./behaviours-of";

/** How the runtime reads the result. */
export type ResultClass =
  | "server"
  | "event"
  | "event_call"
  | "state"
  | "plain"
  | "statem_init"
  | "statem_state"
  | "statem_event"
  | "statem_change"
  | "start"
  | "join"
  | "mount";

/** A callback that a module defines. */
export interface Callback {
  readonly behaviour: string;
  /** As the behaviour's documentation names it: `handle_call/3`; state functions are `StateName/3`. */
  readonly name: string;
  readonly trigger: CallbackTrigger;
  readonly class: ResultClass;
  /** Positions of arguments, from 0: what triggered it, `From` (of a state machine: the event's type), the state, the state's name. */
  readonly message: number | undefined;
  readonly from: number | undefined;
  readonly state: number | undefined;
  /** A position, or the name itself where the function's name says it. */
  readonly stateName: number | string | undefined;
}

/** `name/arity trigger class: arguments`, where m is the message, f From or the event's type, s the state, n its name, `_` anything else. */
const TABLE: Readonly<Record<string, readonly string[]>> = {
  gen_server: [
    "init init server m",
    "handle_call call server mfs",
    "handle_cast cast server ms",
    "handle_info info server ms",
    "handle_continue continue server ms",
    "terminate terminate plain ms",
    "code_change code_change server ms_",
  ],
  gen_statem: [
    "init init statem_init m",
    "terminate terminate plain mns",
    "code_change code_change statem_change mns_",
  ],
  gen_event: [
    "init init event m",
    "handle_event event event ms",
    "handle_call call event_call ms",
    "handle_info info event ms",
    "terminate terminate plain ms",
    "code_change code_change server ms_",
  ],
  supervisor: ["init init server m"],
  DynamicSupervisor: ["init init server m"],
  application: [
    "start start start _m",
    "start_phase start plain m__",
    "prep_stop stop state s",
    "stop stop plain s",
    "config_change config_change plain m__",
  ],
  "Phoenix.LiveView": [
    "mount mount mount m_s",
    "handle_params params server m_s",
    "handle_event event server m_s",
    "handle_info info server ms",
    "handle_cast cast server ms",
    "handle_call call server mfs",
    "handle_async async server m_s",
    "terminate terminate plain ms",
    "render render plain m",
  ],
  "Phoenix.LiveComponent": [
    "mount mount mount s",
    "update update server ms",
    "update_many update plain m",
    "handle_event event server m_s",
    "handle_async async server m_s",
    "render render plain m",
  ],
  "Phoenix.Channel": [
    "join join join m_s",
    "handle_in in server m_s",
    "handle_out out server m_s",
    "handle_info info server ms",
    "handle_cast cast server ms",
    "handle_call call server mfs",
    "terminate terminate plain ms",
    "code_change code_change server ms_",
  ],
  Plug: ["init init plain m", "call plug state sm"],
};

/**
 * What Elixir's own modules call for `Task` and `Agent`, whose modules have no callbacks: an agent is a gen_server whose state is the agent's; of a
 * task it is the function (of no use to others, and so not exported) that runs what it was given, by its owner, and returns what is its result.
 */
const SERVERS: Readonly<Record<string, readonly string[]>> = {
  Agent: TABLE["gen_server"]!,
  Task: ["invoke_mfa task plain fm"],
};

/** Functions of three arguments that a state machine's module may have and that are no states. */
const NO_STATES = new Set(["terminate", "code_change", "format_status"]);

function position(layout: string, letter: string): number | undefined {
  const at = layout.indexOf(letter);
  return at < 0 ? undefined : at;
}

function row(behaviour: string, line: string): readonly [string, Callback] {
  const [name, trigger, how, layout] = line.split(" ") as [string, CallbackTrigger, ResultClass, string];
  const key = `${name}/${layout.length}`;
  return [
    key,
    {
      ...{ behaviour, name: key, trigger, class: how },
      ...{ message: position(layout, "m"), from: position(layout, "f"), state: position(layout, "s") },
      stateName: position(layout, "n"),
    },
  ];
}

/** Which callback modes a state machine's module may choose. */
interface CallbackModes {
  readonly stateFunctions: boolean;
  readonly handleEvent: boolean;
}

/** What `callback_mode/0` says; both where that is not a constant. */
function callbackModes(forms: readonly Form[]): CallbackModes {
  const found = forms.find((form) => form.type === "function" && form.name.name === "callback_mode");
  const body = found?.type === "function" && found.arity === 0 ? found.clauses[0]?.body : undefined;
  const names = new Set<string>();
  let node: Expr | undefined = body?.length === 1 ? body[0] : undefined;
  for (; node?.type === "cons"; node = node.tail)
    if (node.head.type === "atom") names.add(node.head.value.name);
  if (node?.type === "atom") names.add(node.value.name);
  const [stateFunctions, handleEvent] = ["state_functions", "handle_event_function"].map((m) => names.has(m));
  if (stateFunctions === handleEvent) return { stateFunctions: true, handleEvent: true };
  return { stateFunctions: stateFunctions === true, handleEvent: handleEvent === true };
}

const event = { behaviour: "gen_statem", trigger: "event", message: 1, from: 0 } as const;
const HANDLE_EVENT: Callback = {
  ...{ ...event, name: "handle_event/4", class: "statem_event", state: 3, stateName: 2 },
};

/** The callback that a function is in a state machine's module, besides those of the table. */
function statemCallback(form: FunctionNode, modes: CallbackModes): Callback | undefined {
  const name = form.name.name;
  if (form.arity === 4 && name === "handle_event") return modes.handleEvent ? HANDLE_EVENT : undefined;
  if (!modes.stateFunctions || form.arity !== 3 || NO_STATES.has(name)) return undefined;
  return { ...event, name: "StateName/3", class: "statem_state", state: 2, stateName: name };
}

/**
 * The callbacks that a module defines, by `name/arity`. Of two behaviours that both have a callback of that name the first one counts.
 * Functions that behaviours call by their name only where they are exported are left out when they are not.
 */
export function callbacksOf(
  forms: readonly Form[],
  isExported: (key: string) => boolean,
): ReadonlyMap<string, Callback> {
  const behaviours = behavioursOf(forms);
  const known = new Map<string, Callback>();
  const server = ELIXIR_SERVERS.get(moduleOf(forms) ?? "");
  for (const line of SERVERS[server ?? ""] ?? []) known.set(...row(server!, line));
  for (const behaviour of behaviours)
    for (const line of TABLE[behaviour] ?? []) {
      const [key, callback] = row(behaviour, line);
      if (!known.has(key)) known.set(key, callback);
    }
  const modes = behaviours.includes("gen_statem") ? callbackModes(forms) : undefined;
  const found = new Map<string, Callback>();
  for (const form of forms) {
    if (form.type !== "function") continue;
    const key = `${form.name.name}/${form.arity}`;
    const callback = known.get(key) ?? (modes && statemCallback(form, modes));
    if (callback !== undefined && (isExported(key) || callback.trigger === "task")) found.set(key, callback);
  }
  return found;
}

function moduleOf(forms: readonly Form[]): string | undefined {
  const form = forms.find((one) => one.type === "attribute" && one.name.name === "module");
  return form?.type === "attribute" && form.value instanceof Atom ? form.value.name : undefined;
}

/** Fields of the records that a module declares, by record: what the positions of a changed tuple are called. */
export function recordFields(forms: readonly Form[]): ReadonlyMap<string, readonly string[]> {
  const records = new Map<string, readonly string[]>();
  for (const form of forms) {
    if (form.type !== "record_declaration") continue;
    const names = form.fields.map((field) => {
      const plain = field.type === "typed_record_field" ? field.field : field;
      return "name" in plain && plain.name.type === "atom" ? plain.name.value.name : "";
    });
    records.set(form.recordName.name, names);
  }
  return records;
}
