/**
 * Watching the end of a process on the node.
 */
import type { NodeLink } from "../erlang/dist";
import type { Atom, Pid, Term } from "../erlang/term";

/** How a monitored process ended. */
export interface ProcessDown {
  readonly process: Pid | Atom;
  /** Its exit reason; `noproc` when there was no such process, `noconnection` when the connection was lost. */
  readonly reason: Term;
}

/** A monitor on a process. */
export interface Monitor {
  /** Resolves when the process has ended; never rejects. Stays pending after `demonitor()`. */
  readonly down: Promise<ProcessDown>;
  /** Takes the monitor back. */
  demonitor(): void;
  [Symbol.dispose](): void;
}

/** Sets a monitor; its mailbox goes with it. */
export function openMonitor(link: NodeLink, target: Pid | string): Monitor {
  let settle!: (down: ProcessDown) => void;
  const down = new Promise<ProcessDown>((resolve) => (settle = resolve));
  let open = true;
  const mailbox = link.createMailbox({
    onDown: (_ref, process, reason) => {
      open = false;
      link.closeMailbox(mailbox);
      settle({ process, reason });
    },
  });
  const ref = link.monitor(mailbox, target);
  const demonitor = (): void => {
    if (!open) return;
    open = false;
    link.demonitor(ref);
    link.closeMailbox(mailbox);
  };
  return { down, demonitor, [Symbol.dispose]: demonitor };
}
