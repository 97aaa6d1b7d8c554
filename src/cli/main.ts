#!/usr/bin/env node
/**
 * The command `beamtrace`. A build runs it for a second or so: what it does not need is not loaded (`port` is a file of its own, and one file
 * alone loads quickest), and V8 is told to optimise later and less, as functions are hardly called again and a third of all CPU went into that.
 */
import { setFlagsFromString } from "node:v8";

import type * as Commands from "./command-line";

/**
 * Of V8. Bytes of bytecode that a function runs before it is looked at again (V8 11's own number is a third of it), and that are put in line in a function
 * that is optimised (of 920): compiling is what takes the time here, not running. And the young generation gets its full size at once, not by doubling.
 */
const FLAGS = [
  "--interrupt-budget=400000",
  "--max-inlined-bytecode-size-cumulative=100",
  "--semi-space-growth-factor=16",
];

// The V8 of Node 20, where this was measured. Others have more tiers, and flags of V8 are no promise.
if (process.versions.v8.startsWith("11.")) FLAGS.forEach((flag) => setFlagsFromString(flag));

const args = process.argv.slice(2);
const file = args.length === 1 && args[0] === "port" ? "./port.js" : "./command-line.js";
// By its address, so that the bundler leaves it a file.
const { run } = (await import(new URL(file, import.meta.url).href)) as typeof Commands;
await run(args);
