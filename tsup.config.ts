import { readFileSync } from "node:fs";

import { defineConfig, type Options } from "tsup";

// Every subpath of package.json is built from the index.ts of its folder.
const { exports } = JSON.parse(readFileSync("package.json", "utf8")) as { exports: Record<string, unknown> };
const subpaths = Object.keys(exports).filter((path) => !path.endsWith(".json"));
const barrels = subpaths.map((path) => `${path.slice(2)}/index`.replace(/^\//, ""));

const common: Options = {
  target: "node20",
  platform: "node",
  sourcemap: true,
  splitting: true,
  treeshake: true,
};

export default defineConfig((given) => [
  {
    ...common,
    entry: Object.fromEntries(barrels.map((name) => [name, `src/${name}.ts`])),
    format: ["esm", "cjs"],
    dts: given.dts ?? true,
    shims: true,
  },
  // A worker thread is an ES module whichever way the package itself was loaded.
  { ...common, entry: { "capture/link-worker": "src/capture/link-worker.ts" }, format: ["esm"], dts: false },
  // Each a file by itself: that is what starts quickest, and a build starts `port` each time.
  ...["main", "command-line", "port"].map((name): Options => ({
    ...common,
    entry: { [`cli/${name}`]: `src/cli/${name}.ts` },
    format: ["esm"],
    dts: false,
    splitting: false,
    minifyWhitespace: name === "port",
  })),
]);
