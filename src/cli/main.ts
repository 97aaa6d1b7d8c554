#!/usr/bin/env node
/**
 * The command `beamtrace`. A build runs it for a second or so: what it does not need is not loaded (`port` is a file of its own, and one file
 * alone loads quickest), and V8 is told to wait longer before it optimises functions that are hardly called again, where a third of all CPU went.
 */
import { setFlagsFromString } from "node:v8";

import type * as Commands from "./command-line";

/** Bytes of bytecode that a function runs before it is looked at again; V8 11's own number is a third of it. */
const INTERRUPT_BUDGET = 400_000;

// The V8 of Node 20, where this was measured. Others have more tiers, and flags of V8 are no promise.
if (process.versions.v8.startsWith("11.")) setFlagsFromString(`--interrupt-budget=${INTERRUPT_BUDGET}`);

const args = process.argv.slice(2);
const file = args.length === 1 && args[0] === "port" ? "./port.js" : "./command-line.js";
// By its address, so that the bundler leaves it a file.
const { run } = (await import(new URL(file, import.meta.url).href)) as typeof Commands;
await run(args);
