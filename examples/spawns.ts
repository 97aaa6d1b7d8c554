/** Attach, and print each process that is spawned: who, by whom, to run what. Ends after twenty. */
import { attach, ofKind } from "beamtrace";
import { inspect } from "beamtrace/erlang";
import { take } from "rxjs";
import { node, options } from "./target";

const session = await attach(node, options);
console.log(`attached to ${session.info.node}, OTP ${session.info.otp}`);

const trace = await session.trace({
  processes: "all",
  events: ["spawned"],
  inherit: "spawn",
  limits: { seconds: 30 },
});

await trace.events$.pipe(ofKind("spawned"), take(20)).forEach((event) => {
  const { module, function: fn, arity } = event.initialCall ?? event.mfa;
  console.log(`${inspect(event.process)} spawned by ${inspect(event.parent)}: ${module}:${fn}/${arity}`);
});

await session.close();
