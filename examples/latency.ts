/** How long does one function take? Entry and return are joined by process; recursion keeps a stack. */
import { attach } from "beamtrace";
import { node, options } from "./target";

const [module, fn, arity] = (process.env["BEAMTRACE_MFA"] ?? "lists:sort/1").split(/[:/]/) as [
  string,
  string,
  string,
];

await using session = await attach(node, options);
const trace = await session.trace({
  processes: "all",
  calls: [{ module, function: fn, arity: Number(arity), returns: true }],
  payload: "none",
  limits: { seconds: 2, events: 10_000 },
});
console.log(`${trace.matched} function(s) matched`);

const entered = new Map<object, number[]>();
const micros: number[] = [];
await trace.events$.forEach((event) => {
  if (event.kind === "call") {
    const stack = entered.get(event.process) ?? [];
    stack.push(event.timestamp);
    entered.set(event.process, stack);
  } else if (event.kind === "return_from") {
    const start = entered.get(event.process)?.pop();
    if (start !== undefined) micros.push((event.timestamp - start) / 1000);
  }
});

micros.sort((a, b) => a - b);
const at = (share: number): string => (micros[Math.floor(micros.length * share)] ?? NaN).toFixed(1);
console.log(`${micros.length} calls: median ${at(0.5)} µs, p95 ${at(0.95)} µs, max ${at(0.9999)} µs`);
