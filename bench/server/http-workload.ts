/**
 * An Elixir HTTP server as a workload: the shop of elixir/shop.ex on cowboy (which comes with Debian's RabbitMQ, as does jsx), under requests at a
 * fixed rate that a process of its own sends. A unit is a request that was answered.
 */
import { execFile } from "node:child_process";
import { rmSync } from "node:fs";
import { mkdtemp } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { freePort, startNode, type ErlNode } from "../../test/support/erl-node";
import { startChild, type Child } from "./child";
import { rabbitPlugins } from "./rabbitmq-node";
import type { UnitCount } from "./variant";
import type { PacedWorkload } from "./workloads";

const run = promisify(execFile);

export interface HttpLoadOptions {
  /** Requests a second. */
  readonly rate: number;
  /** Connections that stay open. */
  readonly connections: number;
}

/** The directories that hold Elixir's own applications. */
async function elixirLibraries(): Promise<string[]> {
  const { stdout } = await run("elixir", ["-e", "IO.write(:code.lib_dir(:elixir))"]);
  return ["elixir", "eex", "logger"].map((name) => join(stdout, "..", name, "ebin"));
}

/** Starts the server; the load begins with `start()`. */
export async function httpWorkload({ rate: first, connections }: HttpLoadOptions): Promise<PacedWorkload> {
  const directory = await mkdtemp(join(tmpdir(), "beamtrace-shop-"));
  const removeDirectory = (): void => rmSync(directory, { recursive: true, force: true });
  process.once("exit", removeDirectory);
  const port = await freePort();
  let node: ErlNode | undefined;
  let load: Child | undefined;
  let rate = first;
  const stop = async (): Promise<void> => {
    await load?.end();
    await node?.stop();
    removeDirectory();
    process.off("exit", removeDirectory);
  };
  try {
    await run("elixirc", [fileURLToPath(new URL("./elixir/shop.ex", import.meta.url)), "-o", directory]);
    const paths = [
      directory,
      ...(await rabbitPlugins(["cowboy", "cowlib", "ranch", "jsx"])),
      ...(await elixirLibraries()),
    ];
    node = await startNode({
      root: "",
      args: [
        // Schedulers don't spin while they wait, as in RabbitMQ: what a VM does while idle is not what tracing costs.
        ...["+sbwt", "none", "+sbwtdcpu", "none", "+sbwtdio", "none"],
        ...["-kernel", "inet_dist_use_interface", "{127,0,0,1}", "-pa", ...paths],
      ],
    });
    const started = await node.eval(`'Elixir.BeamtraceBench.Shop':start(${port})`);
    if (started !== "ok") throw new Error(`the shop did not start: ${started}`);
    return {
      name: "HTTP",
      unit: "request",
      node,
      get rate() {
        return rate;
      },
      async start() {
        load = startChild("http-load.ts", [port, rate, connections]);
        await load.ask<"started">();
      },
      units() {
        if (!load) throw new Error("the load has not been started");
        return load.ask<UnitCount>("count");
      },
      async setRate(unitsPerSecond) {
        await load?.ask<UnitCount>(`rate ${unitsPerSecond}`);
        rate = unitsPerSecond;
      },
      stop,
    };
  } catch (error) {
    await stop();
    throw error;
  }
}
