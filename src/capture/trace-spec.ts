/**
 * What to trace: the validation of `session.trace()`'s options (trace-options.ts), and their translation to the agent's spec
 * (docs/agent-protocol.md, "Spec"). Pure: terms in, terms out.
 */
import { OptionError } from "../erlang/errors";
import { atom, binary, map, tuple, type ErlMap, Pid, Port, type Term } from "../erlang/term";
import { EVENT_KINDS, type EventKind } from "../buffer/event-schema";
import { RUNTIME_BOTH, RUNTIME_NATIVE, RUNTIME_OFF, RUNTIME_PORTABLE } from "./runtime-code.generated";
import { MatchSpec, type MatchSpecOptions, type MatchTarget } from "./match-spec";
import { sampleOneIn } from "./match-spec/sample";
import { boundsVolume, effectiveLimits, type EffectiveLimits } from "./limits";
import {
  type CallPattern,
  DEFAULT_REDACTED_KEYS,
  GROUPS,
  type PayloadOption,
  type PortSelection,
  type ProcessSelection,
  type SamplingOption,
  type TraceSpec,
} from "./trace-options";

/** What the library's tables hold (BT_SET_MAX of beam/native). */
const INSTRUMENTED_MODULES_MAX = 256;
const INSTRUMENTED_PROCESSES_MAX = 256;
/** The largest `payload.maxBytes` of the native tracer (BT_CONTENTS_MAX of beam/native). */
const NATIVE_CONTENTS_MAX = 32_768;
/** How long a batch may wait by default: each flush costs the node a wake-up. */
const BATCH_MS = 50;

/** A checked trace spec. */
export interface ResolvedTraceSpec {
  /** For the portable tracer. */
  readonly term: ErlMap;
  /** For either tracer; `fallback`: why it is not the native one, for a marker in the stream. */
  termFor(tracer: "native" | "portable", fallback?: string): ErlMap;
  /** How many bytes of contents are to travel; undefined: shapes only, or nothing. */
  readonly contents: number | undefined;
  /** Why only the portable tracer will do; undefined when either does. */
  readonly portableOnly: string | undefined;
  /** Full rings are to overwrite. */
  readonly overwrite: boolean;
  readonly limits: EffectiveLimits;
  readonly kinds: ReadonlySet<EventKind>;
}

const PROCESS_FLAG: Partial<Record<EventKind, string>> = {
  send: "send",
  send_to_non_existing_process: "send",
  receive: "receive",
  call: "call",
  return_from: "call",
  exception_from: "call",
  return_to: "return_to",
  ...Object.fromEntries(GROUPS.functions.map((kind) => [kind, "call"])),
  in: "running",
  out: "running",
  in_exiting: "exiting",
  out_exiting: "exiting",
  out_exited: "exiting",
  ...Object.fromEntries(GROUPS.procs.map((kind) => [kind, "procs"])),
  ...Object.fromEntries(GROUPS.gc.map((kind) => [kind, "garbage_collection"])),
};

const isFrameKind = (kind: EventKind): boolean => (GROUPS.functions as readonly EventKind[]).includes(kind);

/** The module that instrumented code calls. */
const RUNTIME = "beamtrace_rt";

/** The builds of `beamtrace_rt` that the agent switches between. */
const RUNTIME_BUILDS = map({
  off: binary(Buffer.from(RUNTIME_OFF, "base64")),
  portable: binary(Buffer.from(RUNTIME_PORTABLE, "base64")),
  native: binary(Buffer.from(RUNTIME_NATIVE, "base64")),
  both: binary(Buffer.from(RUNTIME_BOTH, "base64")),
});

const INHERIT_FLAG = {
  spawn: "set_on_spawn",
  "first-spawn": "set_on_first_spawn",
  link: "set_on_link",
  "first-link": "set_on_first_link",
} as const;

const CALL_KEYS: readonly (keyof CallPattern)[] = [
  "module",
  "function",
  "arity",
  "local",
  "returns",
  "exceptions",
  "caller",
  "matchSpec",
];

const SPEC_KEYS: ReadonlySet<string> = new Set<keyof TraceSpec | "into" | "signal">([
  "processes",
  "ports",
  "events",
  "calls",
  "instrumented",
  "sendSpec",
  "receiveSpec",
  "inherit",
  "scheduler",
  "payload",
  "limits",
  "sampling",
  "takeOver",
  "overflow",
  "batch",
  "into",
  "signal",
]);

function invalid(option: string, message: string): OptionError {
  return new OptionError("BT_TRACE_SPEC_INVALID", option, message);
}

function expandEvents(spec: TraceSpec): Set<EventKind> {
  const kinds = new Set<EventKind>();
  if (spec.calls !== undefined && !Array.isArray(spec.calls))
    throw invalid("calls", "must be a list of patterns");
  const instrumented = spec.instrumented !== undefined && spec.instrumented !== false;
  const names =
    spec.events ??
    (spec.calls && spec.calls.length > 0 ? (["call"] as const) : instrumented ? [] : undefined);
  if (names === undefined || (names.length === 0 && !instrumented)) {
    throw invalid("events", 'say which events to trace, e.g. ["spawn", "exit"], or give `calls`');
  }
  for (const name of names) {
    if (typeof name === "string" && Object.hasOwn(GROUPS, name)) {
      for (const kind of GROUPS[name as keyof typeof GROUPS]) kinds.add(kind);
    } else if (
      typeof name === "string" &&
      Object.hasOwn(EVENT_KINDS, name) &&
      !["unknown", "gap", "marker"].includes(name)
    ) {
      kinds.add(name as EventKind);
    } else if ((name as string) === "all") {
      throw invalid(
        "events",
        '"all" is refused: the VM\'s flag `all` implies `silent`, so that no call is seen; name the events',
      );
    } else {
      throw invalid(
        "events",
        `there is no event ${JSON.stringify(name)}; events are ${[...Object.keys(EVENT_KINDS), ...Object.keys(GROUPS)].filter((k) => !["unknown", "gap", "marker"].includes(k)).join(", ")}`,
      );
    }
  }
  const told = GROUPS.functions.some((kind) => kinds.has(kind));
  if (told && !instrumented)
    throw invalid("instrumented", "events of instrumented code need `instrumented: true` or { modules }");
  if (instrumented && !told) for (const kind of GROUPS.functions) kinds.add(kind);
  const calls = spec.calls ?? [];
  if (calls.length > 0) kinds.add("call");
  if (calls.some((c) => c.returns || c.exceptions || c.matchSpec !== undefined)) kinds.add("return_from");
  if (calls.some((c) => c.exceptions || c.matchSpec !== undefined)) kinds.add("exception_from");
  if (
    calls.length === 0 &&
    ["call", "return_from", "exception_from", "return_to"].some((k) => kinds.has(k as EventKind))
  ) {
    throw invalid("calls", "call events need patterns that say which functions");
  }
  return kinds;
}

/** What is spelled wrong would silently do nothing: a redaction that does not redact. */
function checkKeys(at: string, value: object, known: readonly string[]): void {
  for (const key of Object.keys(value))
    if (!known.includes(key))
      throw invalid(`${at}.${key}`, `there is no such option; options are ${known.join(", ")}`);
}

function isNames(value: unknown): value is readonly string[] {
  return Array.isArray(value) && value.every((name) => typeof name === "string");
}

function processesTerm(selection: ProcessSelection): Term {
  if (typeof selection === "string") {
    if (!["all", "new", "existing", "none"].includes(selection))
      throw invalid("processes", `${JSON.stringify(selection)} is not one of all, new, existing, none`);
    return atom(selection);
  }
  if (Array.isArray(selection)) {
    const pids = selection as readonly unknown[];
    if (pids.length === 0) throw invalid("processes", "the list is empty");
    for (const pid of pids)
      if (!(pid instanceof Pid)) throw invalid("processes", "the list holds something that is not a Pid");
    return tuple(atom("pids"), [...(selection as readonly Pid[])]);
  }
  if (typeof selection === "object" && selection !== null && "registered" in selection) {
    if (!isNames(selection.registered)) throw invalid("processes.registered", "must be a list of names");
    if (selection.registered.length === 0) throw invalid("processes.registered", "the list is empty");
    return tuple(atom("registered"), selection.registered.map(atom));
  }
  if (typeof selection === "object" && selection !== null && "application" in selection) {
    if (typeof selection.application !== "string")
      throw invalid("processes.application", "must be the name of an application");
    return tuple(atom("application"), atom(selection.application));
  }
  throw invalid(
    "processes",
    'must be "all", "new", "existing", "none", a list of pids, { registered } or { application }',
  );
}

function portsTerm(selection: PortSelection): Term {
  if (typeof selection === "string") {
    if (!["all", "new", "existing", "none"].includes(selection))
      throw invalid("ports", `${JSON.stringify(selection)} is not one of all, new, existing, none`);
    return atom(selection);
  }
  if (!Array.isArray(selection))
    throw invalid("ports", 'must be "all", "new", "existing", "none" or a list of ports');
  for (const port of selection as readonly unknown[])
    if (!(port instanceof Port)) throw invalid("ports", "the list holds something that is not a Port");
  return tuple(atom("ports"), [...selection]);
}

function specTerm(at: string, spec: Term | MatchSpec, target: MatchTarget, options: MatchSpecOptions): Term {
  if (!(spec instanceof MatchSpec)) return spec;
  if (spec.target !== target)
    throw invalid(at, `is a match specification for ${spec.target}, not for ${target}`);
  return spec.toTerm(options);
}

function callTerm(pattern: CallPattern, index: number, otp: number | undefined, oneIn: number): Term {
  const at = `calls[${index}]`;
  checkKeys(at, pattern, CALL_KEYS);
  if (typeof pattern.module !== "string" || pattern.module === "")
    throw invalid(`${at}.module`, "a module name is needed");
  if (pattern.arity !== undefined && pattern.function === undefined)
    throw invalid(`${at}.arity`, "an arity needs a function");
  if (
    pattern.arity !== undefined &&
    !(Number.isInteger(pattern.arity) && pattern.arity >= 0 && pattern.arity <= 255)
  ) {
    throw invalid(`${at}.arity`, `must be an integer from 0 to 255, not ${String(pattern.arity)}`);
  }
  if (pattern.module === "_" && pattern.function !== undefined && pattern.function !== "_")
    throw invalid(`${at}.function`, "a wildcard over every module takes every function; name the module");
  // The runtime of instrumented code is there to be watched; what it is called by is the traced program.
  if (pattern.module.startsWith("beamtrace_") && pattern.module !== "beamtrace_rt")
    throw new OptionError("BT_TRACE_SPEC_INVALID", `${at}.module`, "beamtrace never traces itself");
  const mfa = tuple(atom(pattern.module), atom(pattern.function ?? "_"), pattern.arity ?? atom("_"));
  return tuple(
    mfa,
    pattern.matchSpec === undefined
      ? [...sampleOneIn(defaultMatchSpec(pattern), oneIn)]
      : specTerm(`${at}.matchSpec`, pattern.matchSpec, "call", {
          ...(pattern.arity !== undefined && { arity: pattern.arity }),
          ...(otp !== undefined && { otp }),
        }),
    [atom(pattern.local === false ? "global" : "local")],
  );
}

function defaultMatchSpec(pattern: CallPattern): Term[] {
  const actions: Term[] = [];
  if (pattern.exceptions) actions.push(tuple(atom("exception_trace")));
  else if (pattern.returns) actions.push(tuple(atom("return_trace")));
  if (pattern.caller) actions.push(tuple(atom("message"), tuple(atom("caller"))));
  return actions.length === 0 ? [] : [tuple(atom("_"), [], actions)];
}

/** The modules that are asked for; undefined for all. */
function instrumentedModules(option: TraceSpec["instrumented"]): readonly string[] | undefined {
  if (option === undefined || typeof option === "boolean") return undefined;
  if (typeof option !== "object" || option === null)
    throw invalid("instrumented", "must be true, or { modules, beams }");
  checkKeys("instrumented", option, ["modules", "beams"]);
  const { modules, beams } = option;
  if (beams !== undefined && !(Array.isArray(beams) && beams.every((beam) => beam instanceof Uint8Array)))
    throw invalid("instrumented.beams", "must be a list of beams as bytes");
  if (modules === undefined) return undefined;
  if (!isNames(modules)) throw invalid("instrumented.modules", "must be a list of names");
  if (modules.length === 0) throw invalid("instrumented.modules", "the list is empty");
  if (modules.length > INSTRUMENTED_MODULES_MAX)
    throw invalid("instrumented.modules", `at most ${INSTRUMENTED_MODULES_MAX} modules; take all of them`);
  return modules;
}

/** What the native tracer can't do with instrumented code, where no trace flag decides. */
function onlyPortable(spec: TraceSpec, limits: EffectiveLimits, share: number): string | undefined {
  const what =
    spec.processes === "new" || spec.processes === "existing"
      ? `processes: "${spec.processes}"`
      : spec.inherit !== undefined
        ? "inherit"
        : share < 1_000_000
          ? "sampling.processes"
          : limits.overhead !== Infinity
            ? "limits.overhead"
            : Array.isArray(spec.processes) && spec.processes.length > INSTRUMENTED_PROCESSES_MAX
              ? `more than ${INSTRUMENTED_PROCESSES_MAX} processes`
              : spec.calls?.some(({ module }) => module === RUNTIME)
                ? `calls of ${RUNTIME}: its summaries of callbacks, and its variables at lines`
                : undefined;
  return what === undefined
    ? undefined
    : `the native tracer takes no events of instrumented code with ${what}`;
}

function payloadTerm(payload: PayloadOption): Term {
  if (payload === "none" || payload === "shape") return atom(payload);
  if (typeof payload !== "object" || payload === null)
    throw invalid("payload", 'must be "none", "shape" or { maxBytes }');
  if (!Number.isInteger(payload.maxBytes) || payload.maxBytes < 16 || payload.maxBytes > 1 << 20) {
    throw invalid(
      "payload.maxBytes",
      `must be an integer from 16 to 1,048,576, not ${String(payload.maxBytes)}`,
    );
  }
  checkKeys("payload", payload, ["maxBytes", "redact"]);
  const keys = payload.redact ?? DEFAULT_REDACTED_KEYS;
  if (!isNames(keys)) throw invalid("payload.redact", "must be a list of names");
  return tuple(
    atom("bytes"),
    payload.maxBytes,
    keys.flatMap((key): Term[] => [atom(key), binary(key)]),
  );
}

function samplingFields(
  sampling: SamplingOption,
  calls: readonly CallPattern[],
): { processes: number; calls: number } {
  if (typeof sampling !== "object" || sampling === null)
    throw invalid("sampling", "must be { processes, calls }");
  for (const key of Object.keys(sampling))
    if (key !== "processes" && key !== "calls")
      throw invalid(`sampling.${key}`, "there is no such option; options are processes, calls");
  const share = sampling.processes ?? 1;
  if (!(typeof share === "number" && share > 0 && share <= 1))
    throw invalid("sampling.processes", `is a share above 0 and up to 1, not ${String(share)}`);
  const oneIn = sampling.calls ?? 1;
  if (!(Number.isInteger(oneIn) && oneIn >= 1 && oneIn <= 1_000_000))
    throw invalid("sampling.calls", `must be an integer from 1 to 1,000,000, not ${String(oneIn)}`);
  if (oneIn > 1 && calls.length === 0) throw invalid("sampling.calls", "needs `calls`");
  if (oneIn > 1 && calls.some((call) => call.matchSpec !== undefined))
    throw invalid(
      "sampling.calls",
      "does not go with a `matchSpec` of your own: give it `.sample(n)`, and leave sampling.calls out",
    );
  return { processes: Math.max(1, Math.round(share * 1_000_000)), calls: oneIn };
}

function limitTerm(value: number, scale = 1): Term {
  return value === Infinity ? atom("infinity") : Math.max(1, Math.ceil(value * scale));
}

function flags(kinds: ReadonlySet<EventKind>, spec: TraceSpec): Set<string> {
  const result = new Set<string>();
  for (const kind of kinds) {
    const flag = PROCESS_FLAG[kind];
    if (flag !== undefined) result.add(flag);
  }
  if (spec.inherit !== undefined) {
    if (!Object.hasOwn(INHERIT_FLAG, spec.inherit))
      throw invalid("inherit", `must be one of ${Object.keys(INHERIT_FLAG).join(", ")}`);
    result.add(INHERIT_FLAG[spec.inherit]);
  }
  return result;
}

/**
 * Checks a trace spec and translates it for the agent.
 *
 * @param otp - release of the node, to check match specifications against
 * @throws OptionError `BT_TRACE_SPEC_INVALID` or `BT_LIMIT_INVALID`; nothing has been sent to the node then.
 */
export function resolveTraceSpec(spec: TraceSpec, otp?: number): ResolvedTraceSpec {
  if (typeof spec !== "object" || spec === null) throw invalid("spec", "must be an object of options");
  const release: MatchSpecOptions = otp === undefined ? {} : { otp };
  for (const key of Object.keys(spec))
    if (!SPEC_KEYS.has(key))
      throw invalid(key, `there is no such option; options are ${[...SPEC_KEYS].join(", ")}`);
  const kinds = expandEvents(spec);
  const limits = effectiveLimits(spec.limits);
  const calls = spec.calls ?? [];
  const sampling = samplingFields(spec.sampling ?? {}, calls);
  for (const [i, call] of calls.entries()) {
    if (call.module === "_" && !boundsVolume(spec.limits)) {
      throw new OptionError(
        "BT_LIMIT_INVALID",
        `calls[${i}].module`,
        "a wildcard over every module needs limits.events, limits.rate or limits.overhead",
      );
    }
  }
  const events = spec.events ?? [];
  const portGroup = events.some((e) =>
    ["ports", "running_ports", "open", "closed", "port_in", "port_out"].includes(e),
  );
  const ports = spec.ports === undefined ? (portGroup ? "all" : "none") : spec.ports;
  const portFlags = new Set<string>();
  if (ports !== "none") {
    if (events.some((e) => ["ports", "open", "closed"].includes(e))) portFlags.add("ports");
    if (events.some((e) => ["running_ports", "port_in", "port_out"].includes(e)))
      portFlags.add("running_ports");
    if (kinds.has("send")) portFlags.add("send");
    if (kinds.has("receive")) portFlags.add("receive");
    if (portFlags.size === 0) throw invalid("ports", "none of the events asked for happens in a port");
  }
  const processFlags = flags(kinds, spec);
  // register and the like in the group `ports` are events of ports only, unless they were asked for by name as well.
  if (portGroup && !events.some((e) => e === "procs" || GROUPS.procs.includes(e as never)))
    processFlags.delete("procs");
  const { overflow } = spec;
  if (overflow !== undefined && overflow !== "drop-newest" && overflow !== "overwrite-oldest")
    throw invalid("overflow", 'must be "drop-newest" or "overwrite-oldest"');
  if (spec.batch !== undefined) checkKeys("batch", spec.batch, ["events", "milliseconds"]);
  const batch = { events: spec.batch?.events ?? 512, milliseconds: spec.batch?.milliseconds ?? BATCH_MS };
  if (!Number.isInteger(batch.events) || batch.events < 1 || batch.events > 65_536)
    throw invalid("batch.events", "must be an integer from 1 to 65,536");
  if (!(batch.milliseconds >= 1 && batch.milliseconds <= 10_000))
    throw invalid("batch.milliseconds", "must be a number from 1 to 10,000");
  let mask = 0n;
  for (const kind of kinds) mask |= 1n << BigInt(EVENT_KINDS[kind]);
  const told = GROUPS.functions.some((kind) => kinds.has(kind));
  const modules = instrumentedModules(spec.instrumented);
  const processes = processesTerm(spec.processes === undefined ? "all" : spec.processes);
  // The library hears of instrumented code without any flag.
  const nativeFlags = new Set(processFlags);
  if (told && ![...kinds].some((kind) => PROCESS_FLAG[kind] === "call" && !isFrameKind(kind)))
    nativeFlags.delete("call");
  const fields: Record<string, Term> = {
    ports: portsTerm(ports),
    port_flags: [...portFlags].map(atom),
    kinds: mask <= BigInt(Number.MAX_SAFE_INTEGER) ? Number(mask) : mask,
    calls: calls.map((call, i) => callTerm(call, i, otp, sampling.calls)),
    send_spec:
      spec.sendSpec === undefined ? atom("true") : specTerm("sendSpec", spec.sendSpec, "send", release),
    receive_spec:
      spec.receiveSpec === undefined
        ? atom("true")
        : specTerm("receiveSpec", spec.receiveSpec, "receive", release),
    scheduler: atom(String(spec.scheduler ?? (kinds.has("in") || kinds.has("port_in")))),
    payload: payloadTerm(spec.payload ?? "shape"),
    limits: map({
      events: limitTerm(limits.events),
      rate: limitTerm(limits.rate),
      seconds: limitTerm(limits.seconds),
      memory: limitTerm(limits.memory),
      queue: limitTerm(limits.queue),
      overhead: limitTerm(limits.overhead, 1_000_000),
    }),
    batch: map({ events: batch.events, ms: Math.round(batch.milliseconds) }),
    sampling: map(sampling),
    take_over: atom(String(spec.takeOver ?? false)),
  };
  if (told) {
    fields["instrumented"] = map({
      modules: modules === undefined ? atom("all") : modules.map((name) => atom(name)),
      processes,
      builds: RUNTIME_BUILDS,
    });
  }
  const contents = typeof spec.payload === "object" ? spec.payload.maxBytes : undefined;
  const forFlags = (wanted: ReadonlySet<string>): Record<string, Term> => ({
    ...fields,
    processes: wanted.size === 0 ? atom("none") : processes,
    flags: [...wanted].map(atom),
  });
  return {
    term: map(forFlags(processFlags)),
    termFor: (tracer, fallback) =>
      map({
        ...forFlags(tracer === "native" ? nativeFlags : processFlags),
        tracer: atom(tracer),
        ...(overflow === "overwrite-oldest" && { overflow: atom("overwrite_oldest") }),
        ...(fallback !== undefined && { marker: tuple(atom("portable_tracer"), binary(fallback), 0) }),
      }),
    contents,
    portableOnly:
      contents !== undefined && contents > NATIVE_CONTENTS_MAX
        ? `the native tracer carries contents up to ${NATIVE_CONTENTS_MAX} bytes (payload.maxBytes)`
        : told
          ? onlyPortable(spec, limits, sampling.processes)
          : undefined,
    overwrite: overflow === "overwrite-oldest",
    limits,
    kinds,
  };
}
