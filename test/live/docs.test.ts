/**
 * What README and guides show is run as it stands there, against a real node with a small shop on it. A block counts when it is marked
 * `<!-- runs: … -->`; the mark says what it prints. Afterwards nothing of beamtrace's is left on the node.
 */
import { execFile } from "node:child_process";
import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { join, relative } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { epmdLookup } from "../../src/erlang";
import { expectClean } from "../support/clean";
import type { ErlNode } from "../support/erl-node";
import { pages, snippets } from "../support/pages";
import { startShop } from "../support/shop";

const root = fileURLToPath(new URL("../..", import.meta.url));
const marked = pages(root)
  .flatMap((page) => snippets(page))
  .filter((snippet) => snippet.prints !== undefined);

/** Stands in for `ssh -W`: connects its standard input and output with the node's port. */
const SSH = `#!/bin/sh
exec "$BEAMTRACE_TEST_NODE" -e 'const s = require("net").connect(process.env.BEAMTRACE_TEST_PORT, "127.0.0.1"); process.stdin.pipe(s).pipe(process.stdout)'
`;

describe("documentation, run against a node", () => {
  let node: ErlNode;
  let folder: string;
  let env: NodeJS.ProcessEnv;

  beforeAll(async () => {
    node = await startShop(8, { name: "shop" });
    mkdirSync(join(root, ".cache"), { recursive: true });
    folder = mkdtempSync(join(root, ".cache/docs-"));
    // The cookie is where every user has it.
    writeFileSync(join(folder, ".erlang.cookie"), node.cookie);
    writeFileSync(join(folder, "ssh"), SSH);
    chmodSync(join(folder, "ssh"), 0o755);
    const port = (await epmdLookup("shop", "127.0.0.1", { port: node.epmdPort }))?.port;
    env = {
      ...process.env,
      HOME: folder,
      PATH: `${folder}:${process.env["PATH"] ?? ""}`,
      ERL_EPMD_PORT: String(node.epmdPort),
      BEAMTRACE_TEST_NODE: process.execPath,
      BEAMTRACE_TEST_PORT: String(port),
    };
  });
  afterEach(() => expectClean(node, { modules: ["gen_server", "shop_server", "shop"] }));
  afterAll(async () => {
    rmSync(folder, { recursive: true });
    await node.stop();
  });

  it("README has an example that is run", () => {
    expect(marked.some(({ page }) => page.endsWith("README.md"))).toBe(true);
  });

  for (const { page, line, code, prints } of marked) {
    it(`${relative(root, page)}, line ${line}`, async () => {
      const file = join(folder, "snippet.ts");
      writeFileSync(file, code);
      const { stdout, stderr } = await promisify(execFile)(process.execPath, ["--import", "tsx", file], {
        cwd: folder,
        env,
        timeout: 50_000,
      });
      expect(stderr).toBe("");
      expect(stdout).toMatch(prints as RegExp);
    });
  }
});
