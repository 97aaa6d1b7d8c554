import { defineConfig } from "tsup";

export default defineConfig({
  entry: {
    index: "src/index.ts",
    "erlang/index": "src/erlang/index.ts",
    "buffer/index": "src/buffer/index.ts",
    "capture/index": "src/capture/index.ts",
    "capture/link-worker": "src/capture/link-worker.ts",
  },
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
