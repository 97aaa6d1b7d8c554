/** Stands where the worker's side will be. */
import type { ConnectOptions, ConnectTarget } from "../erlang/dist";
import { OptionError } from "../erlang/errors";
import type { LinkHost } from "./trace-feed";

export async function connectInWorker(_target: ConnectTarget, _options: ConnectOptions): Promise<LinkHost> {
  throw new OptionError("BT_OPTION_INVALID", "worker", "not yet");
}
