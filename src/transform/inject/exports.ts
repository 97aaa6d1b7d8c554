/** What a module's forms say of it: attributes, and which functions others may call. */
import { atom, Atom, type Term, tuple, Tuple } from "../../erlang";
import type { Anno, Form } from "../forms";

/** A function of a module. */
export interface FunctionName {
  readonly function: string;
  readonly arity: number;
}

/** The value of an attribute, or undefined. */
export function attribute(forms: readonly Form[], name: string): Term | undefined {
  const found = forms.find((form) => form.type === "attribute" && form.name.name === name);
  return found?.type === "attribute" ? found.value : undefined;
}

/** Functions (`name/arity`) that attributes of a name list; of imports those of all modules. */
export const namedIn = (forms: readonly Form[], name: string): string[] =>
  forms.flatMap((form) => {
    if (form.type !== "attribute" || form.name.name !== name) return [];
    const list = name === "import" && form.value instanceof Tuple ? form.value.elements[1] : form.value;
    if (!Array.isArray(list)) return [];
    return (list as readonly Term[]).flatMap((entry) =>
      entry instanceof Tuple && entry.elements[0] instanceof Atom
        ? [`${entry.elements[0].name}/${String(entry.elements[1])}`]
        : [],
    );
  });

/** Functions (`name/arity`) that other modules may call. */
export function exportedFunctions(forms: readonly Form[]): ReadonlySet<string> {
  if (!exportsEverything(forms)) return new Set(namedIn(forms, "export"));
  return new Set(
    forms.flatMap((form) => (form.type === "function" ? [`${form.name.name}/${form.arity}`] : [])),
  );
}

const EXPORT_ALL = "export_all";
const isExportAll = (option: Term): boolean => option instanceof Atom && option.name === EXPORT_ALL;
const optionsOf = (value: Term): readonly Term[] =>
  Array.isArray(value) ? (value as readonly Term[]) : [value];

/** `-compile(export_all)`, alone or among others. */
const exportsAll = (form: Form): boolean =>
  form.type === "attribute" && form.name.name === "compile" && optionsOf(form.value).some(isExportAll);

const exportsEverything = (forms: readonly Form[]): boolean => forms.some(exportsAll);

/** `-export([…])` */
export const exportAttribute = (functions: readonly FunctionName[], anno: Anno): Form => ({
  ...{ type: "attribute", anno, name: atom("export") },
  value: functions.map(({ function: name, arity }) => tuple(atom(name), arity)),
});

/** Attributes of a module that exports everything, which then exports the functions that it has so far, by name: what is added stays its own. */
export function withoutExportAll(
  attributes: readonly Form[],
  exported: ReadonlySet<string>,
  anno: Anno,
): Form[] {
  if (!exportsEverything(attributes)) return [...attributes];
  const already = new Set(namedIn(attributes, "export"));
  const named = [...exported]
    .filter((key) => !already.has(key))
    .map((key) => {
      const slash = key.lastIndexOf("/");
      return { function: key.slice(0, slash), arity: Number(key.slice(slash + 1)) };
    });
  return [
    ...attributes.map((form) =>
      exportsAll(form) && form.type === "attribute"
        ? { ...form, value: optionsOf(form.value).filter((option) => !isExportAll(option)) }
        : form,
    ),
    exportAttribute(named, anno),
  ];
}

/** The compiler's option `export_all` as the attribute that says the same, and the other options. */
export function exportAllAsAttribute(options: readonly Term[], forms: Form[], anno: Anno): readonly Term[] {
  const others = options.filter((option) => !isExportAll(option));
  if (others.length === options.length) return options;
  const start = forms.findIndex((form) => form.type === "attribute" && form.name.name === "module") + 1;
  forms.splice(start, 0, { type: "attribute", anno, name: atom("compile"), value: [atom(EXPORT_ALL)] });
  return others;
}
