/**
 * Earlier rules of a list that may cover a later one, found without looking at each. A rule can only cover another if one of its own names of a kind
 * (modules, functions, …) covers the other's first: then the other's name starts, or ends, with all that stands before its first `*`, or
 * behind its last. A rule is filed under the kind whose names have the fewest rules beside them.
 */
import type { CompiledRule } from "./compiled-rule";
import type { NamePattern } from "./name-pattern";

/** Longer starts and ends are filed by so many of their characters. */
const KEY_LENGTH = 32;

/**
 * Of rules whose names neither start nor end with anything (`*a*`) each is beside each other. After so many comparisons the rest is taken
 * for sound: a check may miss a mistake, but must end.
 */
const MAX_COMPARISONS = 200_000;

const KINDS = ["modules", "functions", "applications", "behaviours", "attributes"] as const;
type Kind = (typeof KINDS)[number];

function namesOf(rule: CompiledRule, kind: Kind): readonly NamePattern[] | undefined {
  return kind === "functions" ? rule.functions?.map(({ name }) => name) : rule[kind];
}

/** Under which key an alternative is filed: `=whole`, `<start` or `>end`. */
function keyOf(alternative: string): string {
  const star = alternative.indexOf("*");
  if (star < 0) return `=${alternative}`;
  const start = alternative.slice(0, star).slice(0, KEY_LENGTH);
  const end = alternative.slice(alternative.lastIndexOf("*") + 1).slice(-KEY_LENGTH);
  return end.length > start.length ? `>${end}` : `<${start}`;
}

/** All keys under which what covers the name can be filed. */
function keysFor(name: string): string[] {
  const keys = [`=${name}`];
  for (let length = 0; length <= Math.min(KEY_LENGTH, name.length); length++)
    keys.push(`<${name.slice(0, length)}`, `>${name.slice(name.length - length)}`);
  return keys;
}

interface Filed {
  readonly rule: CompiledRule;
  readonly position: number;
}

/** Rules, in the order in which they are added. */
export class RuleIndex {
  private readonly files = new Map<string, Filed[]>();
  /** Those that ask for no names. */
  private readonly nameless: Filed[] = [];
  private size = 0;
  private comparisons = 0;

  add(rule: CompiledRule): void {
    const filed = { rule, position: this.size++ };
    let best: { readonly keys: readonly string[]; readonly beside: number } | undefined;
    for (const kind of KINDS) {
      const names = namesOf(rule, kind);
      if (names === undefined) continue;
      const all = names.flatMap((name) => name.alternatives.map((one) => `${kind}${keyOf(one)}`));
      const keys = [...new Set(all)];
      const beside = Math.max(...keys.map((key) => this.files.get(key)?.length ?? 0));
      if (best === undefined || beside < best.beside) best = { keys, beside };
    }
    if (best === undefined) this.nameless.push(filed);
    for (const key of best?.keys ?? []) {
      const file = this.files.get(key);
      if (file === undefined) this.files.set(key, [filed]);
      else file.push(filed);
    }
  }

  /** The first rule that covers this one, of those that were added. May miss it when there are very many (`MAX_COMPARISONS`). */
  firstCovering(
    rule: CompiledRule,
    covers: (one: CompiledRule, other: CompiledRule) => boolean,
  ): CompiledRule | undefined {
    let first: Filed | undefined;
    const look = (file: readonly Filed[]): void => {
      // They are in order: behind the first nothing is sooner.
      for (const filed of file) {
        if (first !== undefined && filed.position >= first.position) return;
        if (this.comparisons++ >= MAX_COMPARISONS) return;
        if (covers(filed.rule, rule)) return void (first = filed);
      }
    };
    look(this.nameless);
    for (const kind of KINDS) {
      const [name] = namesOf(rule, kind) ?? [];
      if (name === undefined) continue;
      for (const key of keysFor(name.comparable)) {
        const file = this.files.get(`${kind}${key}`);
        if (file !== undefined) look(file);
      }
    }
    return first?.rule;
  }
}
