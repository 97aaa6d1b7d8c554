/**
 * Which test files talk to a real Erlang node: those that reach test/support/erl-node.ts, or start `erl` themselves.
 * They are what the OTP matrix repeats, and what a machine without Erlang leaves out.
 */
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { dirname, join, relative, resolve } from "node:path";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("..", import.meta.url));
const tests = join(root, "test");

const STARTS_ERLANG = /(?:spawn|spawnSync|execFile|execFileSync)\(\s*["'](?:erl|erlc|epmd|elixir|mix)["']/;

/** The test-side files that a file imports. What is under test starts no node, so src/ is not followed. */
function testImports(file: string, text: string): string[] {
  const specifiers = [...text.matchAll(/(?:from|import)\s*\(?\s*["'](\.[^"']+)["']/g)].map((m) => m[1] ?? "");
  return specifiers.flatMap((specifier) => {
    const path = resolve(dirname(file), specifier);
    const found = [`${path}.ts`, join(path, "index.ts"), path].find(
      (p) => p.endsWith(".ts") && existsSync(p),
    );
    return found?.startsWith(tests) === true ? [found] : [];
  });
}

/** Test files, split by whether they need a node; paths relative to the project. */
export function splitTests(): { withNode: string[]; withoutNode: string[] } {
  const known = new Map<string, boolean>();
  const needsNode = (file: string): boolean => {
    const before = known.get(file);
    if (before !== undefined) return before;
    known.set(file, false);
    const text = readFileSync(file, "utf8");
    const answer =
      file === join(tests, "support", "erl-node.ts") ||
      STARTS_ERLANG.test(text) ||
      testImports(file, text).some(needsNode);
    known.set(file, answer);
    return answer;
  };
  const split = { withNode: [] as string[], withoutNode: [] as string[] };
  const entries = readdirSync(tests, { recursive: true, encoding: "utf8" }).filter((f) =>
    f.endsWith(".test.ts"),
  );
  for (const entry of entries.sort()) {
    const node = needsNode(join(tests, entry)) || entry.startsWith("live");
    split[node ? "withNode" : "withoutNode"].push(relative(root, join(tests, entry)));
  }
  return split;
}
