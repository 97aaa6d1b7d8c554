/**
 * CPU time of an operating system process, user and system together, over all of its threads.
 * `/proc/PID/stat` gives it in steps of 10 ms. `/proc/PID/task/TID/schedstat` gives the same quantity (the scheduler's
 * sum_exec_runtime, which utime + stime are scaled to) in nanoseconds; it is used where the kernel has it.
 * `statistics(runtime)` on the node is times(2): the steps of 10 ms again, and a message to the node that is measured.
 */
import { readdirSync, readFileSync } from "node:fs";

const MICROSECONDS_PER_TICK = 10_000;

/** Where the figures come from: `schedstat` (nanoseconds) or `stat` (ticks of 10 ms). */
export function cpuTimeSource(pid: number): "schedstat" | "stat" {
  try {
    readFileSync(`/proc/${pid}/task/${pid}/schedstat`);
    return "schedstat";
  } catch {
    return "stat";
  }
}

/** utime + stime in microseconds, in steps of 10 ms. */
export function cpuTicks(pid: number): number {
  const text = readFileSync(`/proc/${pid}/stat`, "utf8");
  const fields = text.slice(text.lastIndexOf(")") + 2).split(" ");
  return (Number(fields[11]) + Number(fields[12])) * MICROSECONDS_PER_TICK;
}

/** CPU time in microseconds that the threads of a process have used so far. Threads that have ended are not in it (a VM keeps its threads). */
export function cpuTime(pid: number): number {
  if (cpuTimeSource(pid) === "stat") return cpuTicks(pid);
  let nanoseconds = 0;
  for (const thread of readdirSync(`/proc/${pid}/task`)) {
    try {
      nanoseconds += Number(readFileSync(`/proc/${pid}/task/${thread}/schedstat`, "utf8").split(" ", 1)[0]);
    } catch {
      // The thread ended between the listing and the reading.
    }
  }
  return nanoseconds / 1000;
}

/** This process and all that descend from it. */
function family(): number[] {
  const children = new Map<number, number[]>();
  for (const name of readdirSync("/proc")) {
    if (!/^\d+$/.test(name)) continue;
    try {
      const text = readFileSync(`/proc/${name}/stat`, "utf8");
      const parent = Number(text.slice(text.lastIndexOf(")") + 2).split(" ")[1]);
      children.set(parent, [...(children.get(parent) ?? []), Number(name)]);
    } catch {
      // It ended meanwhile.
    }
  }
  const members = [process.pid];
  for (const member of members) members.push(...(children.get(member) ?? []));
  return members;
}

/** What others make of the machine: CPU time in microseconds of everything but this process and its descendants. Falls back when one of those ends. */
export function foreignTime(): number {
  const line = readFileSync("/proc/stat", "utf8").split("\n", 1)[0] ?? "";
  const ticks = line.split(/\s+/).slice(1, 9).map(Number);
  const idle = (ticks[3] ?? NaN) + (ticks[4] ?? NaN);
  const busy = (ticks.reduce((sum, each) => sum + each, 0) - idle) * MICROSECONDS_PER_TICK;
  const own = family().reduce((sum, pid) => {
    try {
      return sum + cpuTicks(pid);
    } catch {
      return sum;
    }
  }, 0);
  return busy - own;
}
