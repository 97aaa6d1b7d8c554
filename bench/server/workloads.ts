/**
 * The real servers of the benchmarks behind one interface: how to start each, the rates at which it is measured, and a load whose rate can be
 * changed while it runs. Whoever measures something on "the three servers" goes through SERVERS.
 */
import { ejabberdWorkload } from "./ejabberd-workload";
import { httpWorkload } from "./http-workload";
import { rabbitWorkload } from "./rabbitmq-workload";
import type { Workload } from "./variant";

/** A load whose rate can jump while it runs. `rate` is the rate that is demanded at the moment. */
export interface PacedWorkload extends Workload {
  /** Demands so many units a second from now on. What has fallen due before stays due. */
  setRate(unitsPerSecond: number): Promise<void>;
}

/** A real server and its load. */
export interface Server {
  /** Name on the command line: `rabbitmq`. */
  readonly name: string;
  /** Low, middle and high load in units a second; the high one leaves the VM below half of two cores. The middle one is what comparisons use. */
  readonly rates: readonly [low: number, middle: number, high: number];
  /** Starts the server; the load begins with `start()`. At the middle rate unless told otherwise. */
  start(rate?: number): Promise<PacedWorkload>;
}

const rabbitmq: Server = {
  name: "rabbitmq",
  rates: [1000, 5000, 8000],
  start: (rate = 5000) => rabbitWorkload({ rate, bytes: 32, queues: 4 }),
};

const ejabberd: Server = {
  name: "ejabberd",
  rates: [500, 1500, 3000],
  start: (rate = 1500) => ejabberdWorkload({ rate, users: 100, bytes: 64 }),
};

const http: Server = {
  name: "http",
  rates: [100, 400, 800],
  start: (rate = 400) => httpWorkload({ rate, connections: 32 }),
};

/** The servers by name. */
export const SERVERS: Readonly<Record<"rabbitmq" | "ejabberd" | "http", Server>> = {
  rabbitmq,
  ejabberd,
  http,
};

/** So many servers of a kind; all that were started are stopped when one can't be. */
export async function startAlike<W extends Workload>(count: number, start: () => Promise<W>): Promise<W[]> {
  const started: W[] = [];
  try {
    while (started.length < count) started.push(await start());
    return started;
  } catch (error) {
    await stopAll(started);
    throw error;
  }
}

/** Ends loads and nodes. */
export async function stopAll(workloads: readonly Workload[]): Promise<void> {
  for (const workload of workloads) await workload.stop();
}
