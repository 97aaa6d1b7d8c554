/**
 * What rules ask of a module: name, application, behaviours, attributes, functions. Attributes come from chunk `Attr`, which every beam has;
 * functions and behaviours from its forms, which is where functions are that the compiler has put in line.
 */
import { Atom, type BeamFile, chunkTerm, moduleName, type Term, Tuple } from "../../erlang";
import { behavioursOf } from "../behaviours";
import type { Form } from "../forms";
import { exportedFunctions, type FunctionName } from "../inject/exports";

/** A function and who may call it. */
export interface FunctionFacts extends FunctionName {
  readonly exported: boolean;
}

/** Which functions an attribute speaks of. */
export interface AttributeScope {
  /** Functions that it names; undefined when it speaks of the whole module. */
  readonly functions:
    readonly { readonly function: string; readonly arity: number | undefined }[] | undefined;
  covers(fun: FunctionName): boolean;
}

/** A module, as rules see it. */
export interface ModuleFacts {
  /** As the VM names it. */
  readonly module: string;
  readonly application: string | undefined;
  readonly behaviours: readonly string[];
  readonly attributes: ReadonlyMap<string, AttributeScope>;
  readonly functions: readonly FunctionFacts[];
}

const ELIXIR = "Elixir.";
/** Elixir's names of OTP's behaviours: a plan may say either. */
const ALSO_KNOWN_AS: ReadonlyMap<string, string> = new Map([
  ["gen_server", "GenServer"],
  ["gen_event", "GenEvent"],
  ["supervisor", "Supervisor"],
  ["application", "Application"],
]);
const FACES = new Map([...ALSO_KNOWN_AS].map(([otp, elixir]) => [elixir, otp]));
/** Found in forms only: no attribute says so. */
const WITHOUT_ATTRIBUTE = ["Task", "Agent"];

function withOtherNames(names: readonly string[]): string[] {
  const all = new Set<string>();
  for (const name of names) {
    const short = name.startsWith(ELIXIR) ? name.slice(ELIXIR.length) : name;
    all.add(short);
    const other = ALSO_KNOWN_AS.get(short) ?? FACES.get(short);
    if (other !== undefined) all.add(other);
  }
  return [...all];
}

/** The attribute that is ours: it can name functions. */
const OURS = "beamtrace";
const WHOLE: AttributeScope = { functions: undefined, covers: () => true };

/**
 * Functions that `-beamtrace(…)` names: `{add, 2}`, `add`, or a list of them; the whole module by `true`, `all` and values of another
 * kind; none by `false`. Any other attribute speaks of the module.
 */
function scopeOf(name: string, values: readonly Term[]): AttributeScope {
  if (name !== OURS) return WHOLE;
  const named: { function: string; arity: number | undefined }[] = [];
  let whole = values.length === 0;
  let refused = false;
  const read = (value: Term): void => {
    if (Array.isArray(value)) return void (value as readonly Term[]).forEach(read);
    if (value instanceof Atom) {
      if (value.name === "false" || value.name === "nil") refused = true;
      else if (value.name === "true" || value.name === "all") whole = true;
      else named.push({ function: value.name, arity: undefined });
      return;
    }
    const [name, arity] = value instanceof Tuple && value.length === 2 ? value.elements : [];
    if (name instanceof Atom && typeof arity === "number") named.push({ function: name.name, arity });
    else whole = true;
  };
  values.forEach(read);
  const functions = whole && !refused ? undefined : named;
  return {
    functions,
    covers: (fun) =>
      functions === undefined ||
      functions.some((f) => f.function === fun.function && (f.arity === undefined || f.arity === fun.arity)),
  };
}

function readAttributes(beam: BeamFile): Map<string, Term[]> {
  const found = new Map<string, Term[]>();
  const term = chunkTerm(beam, "Attr");
  if (!Array.isArray(term)) return found;
  for (const entry of term as readonly Term[]) {
    const [name, values] = entry instanceof Tuple && entry.length === 2 ? entry.elements : [];
    if (!(name instanceof Atom)) continue;
    const list = Array.isArray(values) ? (values as readonly Term[]) : values === undefined ? [] : [values];
    found.set(name.name, [...(found.get(name.name) ?? []), ...list]);
  }
  return found;
}

/**
 * What the file itself says, without its forms: enough to tell that no rule can match. Functions are none; behaviours are all that it
 * may have.
 */
export function factsOfBeam(beam: BeamFile, application?: string): ModuleFacts {
  const attributes = readAttributes(beam);
  const declared = ["behaviour", "behavior"].flatMap((name) => attributes.get(name) ?? []);
  const names = declared.flatMap((value) => (value instanceof Atom ? [value.name] : []));
  return {
    module: moduleName(beam).name,
    application,
    behaviours: withOtherNames([...names, ...WITHOUT_ATTRIBUTE]),
    attributes: new Map([...attributes].map(([name, values]) => [name, scopeOf(name, values)])),
    functions: [],
  };
}

/** All that rules ask. */
export function factsOfForms(beam: ModuleFacts, forms: readonly Form[]): ModuleFacts {
  const exported = exportedFunctions(forms);
  let behaviours: readonly string[] | undefined;
  return {
    ...beam,
    // Few rules ask for them, and finding them takes a look at every call.
    get behaviours() {
      return (behaviours ??= withOtherNames(behavioursOf(forms)));
    },
    functions: forms.flatMap((form) =>
      form.type === "function"
        ? [
            {
              function: form.name.name,
              arity: form.arity,
              exported: exported.has(`${form.name.name}/${form.arity}`),
            },
          ]
        : [],
    ),
  };
}
