import { readFileSync } from "node:fs";

import { defineConfig } from "tsup";

// Every subpath of package.json is built from the index.ts of its folder; besides these, the workers' entry points.
const { exports } = JSON.parse(readFileSync("package.json", "utf8")) as { exports: Record<string, unknown> };
const subpaths = Object.keys(exports).filter((path) => !path.endsWith(".json"));
const barrels = subpaths.map((path) => `${path.slice(2)}/index`.replace(/^\//, ""));

export default defineConfig({
  entry: Object.fromEntries([...barrels, "capture/link-worker"].map((name) => [name, `src/${name}.ts`])),
  format: ["esm", "cjs"],
  target: "node20",
  platform: "node",
  dts: true,
  sourcemap: true,
  clean: true,
  splitting: true,
  shims: true,
  treeshake: true,
});
