/**
 * Patterns for names of modules, functions, applications and behaviours: `*` stands for any characters, `{a,b}` for either; all else is
 * itself. File globs would not do: `?`, `!` and `.` are parts of names (`valid?`, `save!`, `Shop.Cart`).
 */
import { BeamtraceError } from "../../erlang";

/** Stands for "whatever the other pattern's `*` stands for" where two patterns are compared; no name has it. */
const ANYTHING = "\uE000";
/** More alternatives than this are no pattern but a mistake. */
const MAX_ALTERNATIVES = 1000;

/** A pattern, ready to be compared with names. */
export class NamePattern {
  readonly text: string;
  /** The pattern without braces, written out. */
  readonly alternatives: readonly string[];
  private readonly expression: RegExp;

  /** @throws BeamtraceError `BT_PLAN_INVALID`: braces that don't match. */
  constructor(text: string) {
    this.text = text;
    this.alternatives = expand(text);
    const sources = this.alternatives.map((one) => one.split("*").map(escape).join(".*"));
    this.expression = new RegExp(`^(?:${sources.join("|")})$`, "su");
  }

  /** Whether it is a name and nothing more. */
  get isLiteral(): boolean {
    return this.alternatives.length === 1 && !this.text.includes("*");
  }

  /** Its first alternative as `covers` compares it: what covers the pattern matches this text. */
  get comparable(): string {
    return comparable(this.alternatives[0] ?? "");
  }

  matches(name: string): boolean {
    return this.expression.test(name);
  }

  /** Whether every name that the other pattern matches is matched by this one. May say no where it is so, never yes where it isn't. */
  covers(other: NamePattern): boolean {
    return other.alternatives.every((one) => this.expression.test(comparable(one)));
  }
}

const comparable = (alternative: string): string => alternative.replaceAll("*", ANYTHING);

const escape = (text: string): string => text.replace(/[\\^$.*+?()[\]{}|/-]/gu, "\\$&");

/** `Shop.{Cart,Store}` → `Shop.Cart`, `Shop.Store`. */
function expand(text: string): string[] {
  const open = text.indexOf("{");
  const stray = text.indexOf("}");
  if (open < 0 && stray < 0) return [text];
  const close = text.indexOf("}", open);
  const inner = text.slice(open + 1, close);
  if (open < 0 || close < 0 || stray < open || inner.includes("{")) {
    throw new BeamtraceError(
      "BT_PLAN_INVALID",
      `the braces of "${text}" don't match (write {a,b} for a or b, not nested)`,
    );
  }
  const rests = expand(text.slice(close + 1));
  const all = inner.split(",").flatMap((one) => rests.map((rest) => `${text.slice(0, open)}${one}${rest}`));
  if (all.length > MAX_ALTERNATIVES)
    throw new BeamtraceError("BT_PLAN_INVALID", `"${text}" stands for more than ${MAX_ALTERNATIVES} names`);
  return all;
}
