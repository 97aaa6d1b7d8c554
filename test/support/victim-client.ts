/** A client that traces until it is killed; prints a line once events arrive. */
import { attach } from "../../src/capture";

const [name = "", cookie = "", port = ""] = process.argv.slice(2);
const session = await attach(name, { cookie, epmd: { port: Number(port) } });
const trace = await session.trace({
  events: ["send", "receive", "procs"],
  calls: [{ module: "lists", function: "seq" }],
});
let told = false;
trace.batches$.subscribe(() => {
  if (!told) console.log("tracing");
  told = true;
});
