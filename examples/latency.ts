/** How long does a function take? Its entry is joined with its return by process; recursion keeps a stack. */
import { attach } from "beamtrace";
import { node, options } from "./target";

const mfa = process.env["BEAMTRACE_MFA"] ?? "gen_server:call/2";
const [module = "", name = "", arity] = mfa.split(/[:/]/);

await using session = await attach(node, options);
const trace = await session.trace({
  processes: "all",
  calls: [{ module, function: name, arity: Number(arity), exceptions: true }],
  payload: "none",
  limits: { seconds: 2, events: 20_000 },
});
console.log(`${mfa} on ${session.info.node}: ${trace.matched} function matched`);

const entered = new Map<object, number[]>();
const micros: number[] = [];
await trace.events$.forEach((event) => {
  if (event.kind === "call") {
    const stack = entered.get(event.process);
    if (stack === undefined) entered.set(event.process, [event.timestamp]);
    else stack.push(event.timestamp);
  } else if (event.kind === "return_from" || event.kind === "exception_from") {
    const from = entered.get(event.process)?.pop();
    if (from !== undefined) micros.push((event.timestamp - from) / 1000);
  }
});

micros.sort((a, b) => a - b);
const at = (share: number): string =>
  (micros[Math.min(micros.length - 1, Math.floor(micros.length * share))] ?? NaN).toFixed(1);
console.log(`${micros.length} calls: median ${at(0.5)} µs, p95 ${at(0.95)} µs, longest ${at(1)} µs`);
const ended = await trace.ended;
console.log(`ended by ${ended.kind === "limit" ? `limits.${ended.limit}` : ended.kind}`);
