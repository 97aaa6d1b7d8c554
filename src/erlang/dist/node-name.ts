/**
 * Node names: `alive@host`. What the VM accepts is checked before anything is sent, so that a typing error is told as such.
 * Follows "Distributed Erlang", section Nodes, and `dist_util`/`net_kernel` on which characters are legal.
 */
import { OptionError } from "../errors";

/** A node name in its two parts. */
export interface NodeName {
  readonly alive: string;
  readonly host: string;
}

/** Longest atom in characters, hence longest node name. */
const MAX_NAME = 255;
/** Anything but a blank, a control character or another @. */
const PART = /^[^\s@\p{Cc}]+$/u;

/**
 * Takes `alive@host` apart.
 * @throws OptionError BT_NODE_NAME_INVALID
 */
export function parseNodeName(name: string, option = "node"): NodeName {
  const at = name.indexOf("@");
  const alive = name.slice(0, at);
  const host = name.slice(at + 1);
  if (at < 0) {
    throw invalid(option, `"${name}" has no host part; write name@host, as node() prints it on the node`);
  }
  if (!PART.test(alive) || !PART.test(host) || [...name].length > MAX_NAME) {
    throw invalid(option, `"${name}" is no node name; it must look like name@host, 255 characters at most`);
  }
  return { alive, host };
}

function invalid(option: string, message: string): OptionError {
  return new OptionError("BT_NODE_NAME_INVALID", option, message);
}
