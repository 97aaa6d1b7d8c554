/** Chat on ejabberd as a workload: tsung keeps sessions online that send to each other at a fixed rate. A unit is a message sent, routed and received. */
import { eventually } from "../../test/support/erl-node";
import { DOMAIN, startEjabberd } from "./ejabberd-node";
import { startChat, type ChatLoad } from "./tsung";
import type { PacedWorkload } from "./workloads";

export interface ChatLoadOptions {
  /** Messages a second. */
  readonly rate: number;
  /** Sessions that are online. */
  readonly users: number;
  /** Bytes of a message's body. */
  readonly bytes: number;
  /** Root that the server lies in; default: the unpacked packages'. */
  readonly root?: string;
}

/** Starts ejabberd; the sessions log in and the load begins with `start()`. */
export async function ejabberdWorkload({
  rate: first,
  users,
  bytes,
  root,
}: ChatLoadOptions): Promise<PacedWorkload & { readonly logs: string }> {
  const { node, xmppPort, logs, stop } = await startEjabberd(users, root);
  let chat: ChatLoad | undefined;
  let rate = first;
  return {
    name: "ejabberd",
    unit: "message",
    node,
    logs,
    get rate() {
      return rate;
    },
    async start() {
      chat = await startChat({ xmppPort, domain: DOMAIN, users, bytes });
      // A message to somebody whom the server doesn't know to be online is stored or refused, which is other work.
      await eventually(
        () =>
          node.eval(
            "length([S || S <- ejabberd_sm:dirty_get_my_sessions_list(), is_integer(element(5, S))])",
          ),
        (available) => Number(available) === users,
      );
      await chat.setRate(rate);
    },
    units() {
      if (!chat) throw new Error("the load has not been started");
      return chat.units();
    },
    async setRate(unitsPerSecond) {
      await chat?.setRate(unitsPerSecond);
      rate = unitsPerSecond;
    },
    async stop() {
      await chat?.stop();
      await stop();
    },
  };
}
