/** A client that traces instrumented code until it is killed; prints a line once events arrive. */
import { attach, type AttachOptions } from "../../src/capture";

const [name = "", cookie = "", port = "", tracer = "auto"] = process.argv.slice(2);
const session = await attach(name, {
  ...{ cookie, epmd: { port: Number(port) }, tracer: tracer as NonNullable<AttachOptions["tracer"]> },
});
const trace = await session.trace({ instrumented: true });
let told = false;
trace.batches$.subscribe(() => {
  if (!told) console.log("tracing");
  told = true;
});
