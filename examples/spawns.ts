/** Attach to a node and print each process that is started there: who, by whom, to run what. Ends after twenty. */
import { attach, ofKind } from "beamtrace";
import { take } from "rxjs";
import { node, options, show } from "./target";

await using session = await attach(node, options);
console.log(`attached to ${session.info.node}, OTP ${session.info.otp}`);

// Only new processes carry the flag: what runs already is not touched.
const trace = await session.trace({
  processes: "new",
  events: ["spawned"],
  limits: { seconds: 30 },
});

await trace.events$.pipe(ofKind("spawned"), take(20)).forEach(({ process, parent, mfa, initialCall }) => {
  // Behind proc_lib, every process begins with proc_lib:init_p; the initial call is what it really runs.
  const { module, function: name, arity } = initialCall ?? mfa;
  console.log(`${show(process)} spawned by ${show(parent)}: ${module}:${name}/${arity}`);
});
