/** Which node the examples attach to: from the environment. */
import type { AttachOptions } from "beamtrace";

export const node = process.env["BEAMTRACE_NODE"] ?? "demo@127.0.0.1";

const cookie = process.env["BEAMTRACE_COOKIE"];
const epmdPort = process.env["ERL_EPMD_PORT"];

export const options: AttachOptions = {
  ...(cookie !== undefined && { cookie }),
  ...(epmdPort !== undefined && { epmd: { port: Number(epmdPort) } }),
};
