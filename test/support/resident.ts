import { readFileSync } from "node:fs";

/** Resident memory of a process of the operating system, in bytes (VmRSS of /proc/PID/status). */
export const residentBytes = (osPid: number): number =>
  Number(/^VmRSS:\s+(\d+) kB/m.exec(readFileSync(`/proc/${osPid}/status`, "utf8"))?.[1] ?? NaN) * 1024;
