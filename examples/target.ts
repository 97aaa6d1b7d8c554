/** Which node the examples attach to, from the environment; and how they print its terms. */
import type { AttachOptions } from "beamtrace";
import { inspect, type Term } from "beamtrace/erlang";

export const node = process.env["BEAMTRACE_NODE"] ?? "demo@127.0.0.1";

const cookie = process.env["BEAMTRACE_COOKIE"];

/** Without a cookie here, it is read from `~/.erlang.cookie`. epmd is asked at ERL_EPMD_PORT, or 4369. */
export const options: AttachOptions = cookie === undefined ? {} : { cookie };

/** A term as the node's own shell writes it: its pids begin with 0. */
export const show = (term: Term): string => inspect(term, { localNode: node });
