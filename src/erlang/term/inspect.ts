/** Terms as text, for people: in Erlang's or Elixir's notation, within limits. Iterative: nesting costs no JavaScript stack. */
import { elixirNotation } from "./elixir-notation";
import { erlangNotation } from "./erlang-notation";
import type { LayOptions, Layout } from "./layout";
import type { Term } from "./term";

/** Options of `inspect`. */
export interface InspectOptions {
  /** `erlang` (default): as `~0tp` writes. `elixir`: as `inspect/1` writes. */
  readonly notation?: "erlang" | "elixir";
  /** Characters at most; what is cut off is marked by `…`. Default 100,000. */
  readonly maxLength?: number;
  /** Elements of one container at most; the rest is `...`. Default: all. */
  readonly limit?: number;
  /** Containers within containers at most; deeper ones are `...`. Default: all. */
  readonly maxDepth?: number;
  /** Lists of printable code points as text (default), or as numbers. */
  readonly charlists?: "infer" | "as-lists";
  /**
   * Node whose pids, ports and references are written with 0 in front, as that node itself does. All others carry the name
   * of their node: the number that stands there in a shell means something to that one node only.
   */
  readonly localNode?: string;
}

/** A container that is being written. */
class Frame {
  readonly layout: Layout;
  next = 0;

  constructor(layout: Layout) {
    this.layout = layout;
  }
}

/**
 * A term as text.
 * @example inspect(tuple(atom("ok"), binary("x")))                          // {ok,<<"x">>}
 * @example inspect(tuple(atom("ok"), binary("x")), { notation: "elixir" })  // {:ok, "x"}
 */
export function inspect(term: Term, options: InspectOptions = {}): string {
  const { maxLength = 100_000, limit = Infinity, maxDepth = Infinity } = options;
  const notation = options.notation === "elixir" ? elixirNotation : erlangNotation;
  const layOptions: LayOptions = {
    charlists: options.charlists !== "as-lists",
    localNode: options.localNode,
  };
  const stack: Frame[] = [];
  let text = "";

  const enter = (part: Term): void => {
    const laid = notation.lay(part, layOptions, maxLength - text.length + 1);
    if (typeof laid === "string") text += laid;
    else if (stack.length >= maxDepth && laid.parts.length > 0) text += `${laid.open}...${laid.close}`;
    else {
      text += laid.open;
      stack.push(new Frame(laid));
    }
  };

  enter(term);
  for (;;) {
    if (text.length > maxLength) return `${cut(text, maxLength)}…`;
    const frame = stack[stack.length - 1];
    if (frame === undefined) return text;
    const { layout } = frame;
    const { parts, arrow } = layout;
    const position = frame.next++;
    if (position === parts.length) {
      text += layout.close;
      stack.pop();
      continue;
    }
    const second = arrow !== undefined && position % 2 === 1;
    if (second) text += arrow;
    else if (position > 0) {
      text += layout.bar !== undefined && position === parts.length - 1 ? layout.bar : layout.comma;
    }
    if (!second && position >= (arrow === undefined ? limit : 2 * limit)) {
      text += `...${layout.close}`;
      stack.pop();
      continue;
    }
    if (layout.labels !== undefined) text += layout.labels[position];
    enter(parts[position] as Term);
  }
}

/** Cuts without leaving half a surrogate pair. */
function cut(text: string, length: number): string {
  const last = text.charCodeAt(length - 1);
  return text.slice(0, last >= 0xd800 && last <= 0xdbff ? length - 1 : length);
}
