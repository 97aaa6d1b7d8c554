import { defineConfig } from "vitest/config";

import { splitTests } from "./scripts/node-tests.ts";

// BEAMTRACE_WITHOUT_ERLANG=1: only the tests that need no node. BEAMTRACE_OTP_ROOT: only those that need one, on that release.
const { withNode, withoutNode } = splitTests();
const only = process.env["BEAMTRACE_OTP_ROOT"] === undefined ? [] : withoutNode;
const without = process.env["BEAMTRACE_WITHOUT_ERLANG"] === "1" ? withNode : [];

// BEAMTRACE_TEST_REPORT: a file for the results as JSON, besides what is printed.
const report = process.env["BEAMTRACE_TEST_REPORT"] ?? "";

export default defineConfig({
  test: {
    include: ["test/**/*.test.ts"],
    exclude: ["**/node_modules/**", ...only, ...without],
    testTimeout: 180_000,
    hookTimeout: 120_000,
    // Two cores: more forks than this only make live nodes compete with each other.
    maxWorkers: 2,
    pool: "forks",
    reporters: report === "" ? ["default"] : ["default", ["json", { outputFile: report }]],
  },
});
