/** A client with a flight recorder that runs until it is killed; prints a line once a recording has come. */
import { attach } from "../../src/capture";

const [name = "", cookie = "", port = ""] = process.argv.slice(2);
const session = await attach(name, { cookie, epmd: { port: Number(port) }, tracer: "native" });
const recorder = await session.flightRecorder({
  events: ["send", "receive", "procs"],
  triggers: [
    { on: "exit" },
    { on: "call", module: "lists", function: "seq", arity: 2 },
    { on: "message", to: "sink" },
    { on: "alarm", longGcMs: 10_000 },
  ],
});
await recorder.snapshot();
console.log("recording");
