/**
 * The documentation holds: links lead somewhere, every `ts` block compiles against the library as it is, every error code and every event
 * kind has its line. Blocks marked `<!-- runs: … -->` are run against a real node by test/live/docs.test.ts.
 */
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { dirname, join, relative, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import ts from "typescript";
import { describe, expect, test } from "vitest";
import { EVENT_KINDS, GAP_HOPS } from "../src/buffer";
import { headings, pages, snippets } from "./support/pages";

const root = fileURLToPath(new URL("..", import.meta.url));

/** What a block may take for granted unless it declares it itself. */
const VALUES = {
  session: 'import("beamtrace").Session',
  trace: 'import("beamtrace").Trace',
  ring: 'import("beamtrace").RingBuffer',
  recording: 'import("beamtrace/buffer").Recording',
};
/** What a block without imports of its own may use. */
const IMPORTS = `import { attach, ofKind, openRecording, record, RingBuffer, ringSource } from "beamtrace";
import { atom, inspect } from "beamtrace/erlang";
`;

function program(code: string): string {
  const given = Object.entries(VALUES)
    .filter(([name]) => !new RegExp(`(const|let|using) ${name}\\b`).test(code))
    .map(([name, type]) => `declare const ${name}: ${type};\n`);
  return `${/^import /m.test(code) ? "" : IMPORTS}${given.join("")}${code}\nexport {};\n`;
}

function compile(files: ReadonlyMap<string, string>): string[] {
  const config = ts.readConfigFile(join(root, "tsconfig.json"), (path) => ts.sys.readFile(path));
  const { options } = ts.parseJsonConfigFileContent(config.config, ts.sys, root);
  const host = ts.createCompilerHost(options);
  const { fileExists, readFile, getSourceFile } = host;
  host.fileExists = (path) => files.has(path) || fileExists.call(host, path);
  host.readFile = (path) => files.get(path) ?? readFile.call(host, path);
  host.getSourceFile = (path, target, ...rest) => {
    const text = files.get(path);
    return text === undefined
      ? getSourceFile.call(host, path, target, ...rest)
      : ts.createSourceFile(path, text, target);
  };
  const program = ts.createProgram([...files.keys()], options, host);
  return [...files.keys()].flatMap((path) => {
    const file = program.getSourceFile(path);
    if (file === undefined) return [`${path} is not there`];
    return [...program.getSyntacticDiagnostics(file), ...program.getSemanticDiagnostics(file)].map(
      ({ messageText, start = 0 }) => {
        const line = file.text.slice(0, start).split("\n").length;
        const text = ts.flattenDiagnosticMessageText(messageText, "\n");
        return `${relative(root, path)}: ${text}\n  ${file.text.split("\n")[line - 1]?.trim() ?? ""}`;
      },
    );
  });
}

describe("documentation", () => {
  test("every ts block compiles", { timeout: 120_000 }, () => {
    const files = new Map<string, string>();
    for (const { page, line, code } of pages(root).flatMap((page) => snippets(page))) {
      const name = `${relative(root, page).replace(/\W/g, "-")}-line-${line}.ts`;
      files.set(join(root, "docs", name), program(code));
    }
    expect(files.size).toBeGreaterThan(0);
    expect(compile(files)).toEqual([]);
  });

  test("every link leads somewhere", () => {
    const dead = pages(root).flatMap((page) => {
      const text = readFileSync(page, "utf8").replace(/```[\s\S]*?```/g, "");
      return [...text.matchAll(/\[[^\]]*\]\(([^)\s]+)\)/g)].flatMap(([, link = ""]) => {
        if (/^[a-z]+:/.test(link)) return [];
        const [path = "", anchor] = link.split("#");
        const target = path === "" ? page : resolve(dirname(page), path);
        const found =
          existsSync(target) &&
          (anchor === undefined || (target.endsWith(".md") && headings(target).includes(anchor)));
        return found ? [] : [`${relative(root, page)}: ${link}`];
      });
    });
    expect(dead).toEqual([]);
  });

  test("every page is in the index", () => {
    const index = readFileSync(join(root, "docs/index.md"), "utf8");
    const all = ["docs", "docs/decisions"].flatMap((folder) =>
      readdirSync(join(root, folder))
        .filter((f) => f.endsWith(".md"))
        .map((file) => join(folder, file)),
    );
    const missing = all
      .map((file) => relative("docs", file))
      .filter((file) => file !== "index.md" && !index.includes(`(${file})`));
    expect(missing).toEqual([]);
  });

  test("every error code is explained", () => {
    const source = readFileSync(join(root, "src/erlang/errors.ts"), "utf8");
    const codes = [...source.matchAll(/^ {2}\| "(BT_\w+)"/gm)].map((match) => match[1] ?? "");
    expect(codes.length).toBeGreaterThan(20);
    const explained = ["attach", "errors"]
      .map((page) => readFileSync(join(root, `docs/${page}.md`), "utf8"))
      .join();
    expect(codes.filter((code) => !explained.includes(`\`${code}\``))).toEqual([]);
  });

  test("every event kind and every hop of loss is explained", () => {
    const explained = readFileSync(join(root, "docs/events.md"), "utf8");
    expect(Object.keys(EVENT_KINDS).filter((kind) => !explained.includes(`\`${kind}\``))).toEqual([]);
    const hops = readFileSync(join(root, "docs/dataflow.md"), "utf8");
    expect(Object.keys(GAP_HOPS).filter((hop) => !hops.includes(`\`${hop}\``))).toEqual([]);
  });
});
