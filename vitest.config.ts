import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    include: ["test/**/*.test.ts"],
    testTimeout: 60_000,
    hookTimeout: 60_000,
    // Two cores: more forks than this only make live nodes compete with each other.
    maxWorkers: 2,
    pool: "forks",
    reporters: ["default"],
  },
});
