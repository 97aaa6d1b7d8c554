/** The project's pages, and the code blocks in them. */
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";

/** A `ts` block of a page. */
export interface Snippet {
  readonly page: string;
  /** Line of its first line of code. */
  readonly line: number;
  readonly code: string;
  /** What its output must match, when the block is marked `<!-- runs: … -->`. */
  readonly prints: RegExp | undefined;
}

/** README, CHANGELOG, the guides, the decisions, and the pages beside examples and benchmarks. */
export function pages(root: string): string[] {
  const folders = [".", "docs", "docs/decisions", "examples", "bench/server"];
  return folders
    .filter((folder) => existsSync(join(root, folder)))
    .flatMap((folder) => readdirSync(join(root, folder)).map((file) => join(root, folder, file)))
    .filter((file) => file.endsWith(".md"));
}

/** The `ts` blocks of a page. */
export function snippets(page: string): Snippet[] {
  const text = readFileSync(page, "utf8");
  return [...text.matchAll(/(?:<!-- runs: (.*) -->\n+)?```ts\n([\s\S]*?)```/g)].map((match) => ({
    page,
    line: text.slice(0, match.index + match[0].indexOf("```ts\n")).split("\n").length + 1,
    code: match[2] ?? "",
    prints: match[1] === undefined ? undefined : new RegExp(match[1], "m"),
  }));
}

/** Anchors of a page's headings, as Git hosts make them. */
export function headings(page: string): string[] {
  const text = readFileSync(page, "utf8").replace(/```[\s\S]*?```/g, "");
  return [...text.matchAll(/^#+ (.*)$/gm)].map(([, title = ""]) =>
    title
      .toLowerCase()
      .replace(/[^\p{L}\p{N} _-]/gu, "")
      .replaceAll(" ", "-"),
  );
}
