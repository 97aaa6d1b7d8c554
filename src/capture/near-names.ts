/**
 * "Did you mean": names close to one that the node does not have. Knows that an Elixir module carries the prefix `Elixir.`,
 * that `add/3` and `add/2` are one name, and that swapping two letters is one slip. Pure; the caller brings the candidates.
 */
import { distance } from "fastest-levenshtein";

const ELIXIR = "Elixir.";
/** Slips allowed: a third of the name, at least one. */
const slipsAllowed = (length: number): number => Math.max(1, Math.floor(length / 3));

interface Name {
  /** Without the Elixir prefix and without arity. */
  readonly bare: string;
  /** Undefined for modules and where the arity is open (`add/`). */
  readonly arity: number | undefined;
}

function parse(name: string): Name {
  const match = /^(.+)\/(\d*)$/s.exec(name);
  const bare = match?.[1] ?? name;
  return {
    bare: bare.startsWith(ELIXIR) && bare.length > ELIXIR.length ? bare.slice(ELIXIR.length) : bare,
    arity: match?.[2] ? Number(match[2]) : undefined,
  };
}

/** Whether two neighbouring characters are swapped and all else is equal. */
function isOneSwap(a: string, b: string): boolean {
  if (a.length !== b.length) return false;
  let i = 0;
  while (i < a.length && a[i] === b[i]) i += 1;
  return i + 1 < a.length && a[i] === b[i + 1] && a[i + 1] === b[i] && a.slice(i + 2) === b.slice(i + 2);
}

/** Editing steps between two names; 0.5 when only upper and lower case differ. */
function slips(a: string, b: string): number {
  if (a === b) return 0;
  const [x, y] = [a.toLowerCase(), b.toLowerCase()];
  if (x === y) return 0.5;
  return isOneSwap(x, y) ? 1 : distance(x, y);
}

/** How far a candidate is from what was asked for, or undefined when it is not near. Smaller is nearer. */
function farness(wanted: Name, candidate: Name): number | undefined {
  const whole = slips(wanted.bare, candidate.bare);
  let best = whole <= slipsAllowed(wanted.bare.length) ? whole : undefined;
  const offer = (value: number): void => void (best = best === undefined ? value : Math.min(best, value));
  if (wanted.bare.length >= 3) {
    const [w, c] = [wanted.bare.toLowerCase(), candidate.bare.toLowerCase()];
    // `Cart` for `Shop.Cart`; `add` for `add_item`, `fetch` for `do_fetch`: right, but not the whole of it.
    if (c.endsWith(`.${w}`) || w.endsWith(`.${c}`)) offer(0.75);
    else if (c.startsWith(`${w}_`) || c.startsWith(`${w}.`) || c.endsWith(`_${w}`)) offer(1.75);
    else if (c.startsWith(w)) offer(2.25);
    // `Store.Cart` for `Shop.Cart`: the last part says most.
    const [lastOfWanted, lastOfCandidate] = [w.split(".").at(-1) ?? w, c.split(".").at(-1) ?? c];
    if (w.includes(".") && lastOfWanted.length >= 4 && lastOfWanted === lastOfCandidate) offer(2.5);
  }
  if (best === undefined) return undefined;
  const arities =
    wanted.arity === undefined || candidate.arity === undefined
      ? 0
      : Math.abs(wanted.arity - candidate.arity);
  // The arity only orders names that are equally near.
  return best + Math.min(arities, 40) * 0.01;
}

/**
 * Candidates near a name, nearest first.
 *
 * @param name - What was asked for: a module (`Shop.Crat`, `Elixir.Shop.Crat`, `list`), or a function with its arity (`add/3`; `add/` when any arity would do).
 * @param candidates - Names the node has, written alike: modules as the VM names them, functions as `name/arity`.
 * @param max - Most names to return.
 * @returns candidates as they were given, so that they can be used in a call pattern; never `name` itself.
 * @example
 * nearNames("Elixir.Shop.Crat", ["Elixir.Shop.Cart", "lists"]); // ["Elixir.Shop.Cart"]
 * nearNames("add/3", ["add/2", "remove/2"]); // ["add/2"]
 */
export function nearNames(name: string, candidates: Iterable<string>, max = 3): string[] {
  const wanted = parse(name);
  const near: { readonly name: string; readonly farness: number }[] = [];
  for (const candidate of new Set(candidates)) {
    if (candidate === name) continue;
    const value = farness(wanted, parse(candidate));
    if (value !== undefined) near.push({ name: candidate, farness: value });
  }
  near.sort(
    (a, b) =>
      a.farness - b.farness ||
      a.name.length - b.name.length ||
      (a.name < b.name ? -1 : a.name > b.name ? 1 : 0),
  );
  return near.slice(0, max).map((n) => n.name);
}
