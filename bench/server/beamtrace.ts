/** beamtrace as a variant: trace everything into a ring, hand every event to a subscriber. Attached at its first block, idle during those of others. */
import { attach, type AttachOptions, type Session } from "../../src/capture";
import type { ErlNode } from "../../test/support/erl-node";
import { CountedTrace } from "./counted-trace";
import type { Variant } from "./variant";

/** Attaches to a node of the benchmarks. */
export const attachTo = (node: ErlNode, options: AttachOptions = {}): Promise<Session> =>
  attach(node.name, { cookie: node.cookie, epmd: { port: node.epmdPort }, ...options });

/** What differs from variant to variant. */
export interface BeamtraceVariant {
  readonly detaches?: boolean;
  /** Bytes of contents; none: shapes. */
  readonly maxBytes?: number;
}

/**
 * A tracer with its defaults, but for a rate limit that a busy server would trip. Variant `beamtrace` is the portable one, asked for by name.
 * `detaches`: after each block, for comparisons in which another variant runs the agent's code itself (native-peers.ts).
 */
export function beamtrace(
  tracer: "native" | "portable" = "portable",
  { detaches = false, maxBytes }: BeamtraceVariant = {},
): Variant {
  let session: Session | undefined;
  let counted: CountedTrace | undefined;
  const running = (): CountedTrace => {
    if (!counted) throw new Error("the trace has not been started");
    return counted;
  };
  const detach = async (): Promise<void> => {
    await session?.close();
    session = undefined;
  };
  return {
    name: `${tracer === "native" ? "native" : "beamtrace"}${maxBytes === undefined ? "" : `, ${maxBytes} bytes`}`,
    async start(node) {
      session ??= await attachTo(node, { tracer });
      counted = await CountedTrace.start(session, {
        processes: "all",
        events: ["send", "receive", "procs"],
        limits: { rate: Infinity, seconds: 600 },
        ...(maxBytes !== undefined && { payload: { maxBytes } }),
      });
    },
    count: () => Promise.resolve({ delivered: running().delivered, lost: running().lost }),
    backlog: () => Promise.resolve(running().trace.stats.node.queue),
    async stop() {
      try {
        await counted?.stop();
      } finally {
        counted = undefined;
        if (detaches) await detach();
      }
    },
    dispose: detach,
  };
}
