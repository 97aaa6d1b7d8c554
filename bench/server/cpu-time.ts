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

/** Resident memory in bytes. */
export function residentBytes(pid: number): number {
  return Number(/^VmRSS:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1] ?? NaN) * 1024;
}

/** CPU time of the whole machine in ticks so far: idle and all. */
export function machineTime(): { readonly idle: number; readonly all: number } {
  const line = readFileSync("/proc/stat", "utf8").split("\n", 1)[0] ?? "";
  const fields = line.split(/\s+/).slice(1, 9).map(Number);
  return { idle: (fields[3] ?? NaN) + (fields[4] ?? NaN), all: fields.reduce((sum, each) => sum + each, 0) };
}
