/**
 * From a trace's mailbox to the ring: the tracer's messages are decoded where they arrive, undelivered bytes are never kept.
 * `localHost` does it on this thread; worker-host.ts does the same in a worker.
 */
import { TraceBatchDecoder, type RingBuffer } from "../buffer";
import type { NodeLink } from "../erlang/dist";
import type { Pid, Term } from "../erlang/term";
import { producerOf } from "./ring-producer";

/** What a feed reports. */
export interface FeedEvents {
  /** Events were written to the ring. */
  onWritten(): void;
  /** The tracer's last message has come: everything before it is in the ring. */
  onEnd(stats: Term | undefined): void;
}

/** Where the events of one trace go. */
export interface FeedOptions extends FeedEvents {
  readonly ring: RingBuffer;
  /** Index of the trace's source in the ring's source table. */
  readonly source: number;
  readonly node: string;
  readonly creation: number;
  /** The node's monotonic nanoseconds that time stamps count from. */
  readonly base: bigint;
}

/** The receiving end of one trace. */
export interface TraceFeed {
  /** Where the tracer sends to. */
  readonly mailbox: Pid;
  /** Messages that could not be understood; each is a gap in the stream as well. */
  readonly malformed: number;
  /** The tracer had taken so many events in all: what never came becomes a gap. */
  settle(received: number): Promise<void>;
  close(): void;
}

/** A connection, and the thread that its events are decoded on. */
export interface LinkHost {
  readonly link: NodeLink;
  /** Events are written to the ring by this thread. */
  readonly sameThread: boolean;
  openFeed(options: FeedOptions): TraceFeed;
}

/** Decodes on this thread. */
export function localHost(link: NodeLink): LinkHost {
  return { link, sameThread: true, openFeed: (options) => openLocalFeed(link, options) };
}

function openLocalFeed(link: NodeLink, options: FeedOptions): TraceFeed {
  const { ring, source, node, creation, base } = options;
  const decoder = new TraceBatchDecoder({ dictionary: ring.dictionary, node, creation, source, base });
  const sink = producerOf(ring);
  let malformed = 0;
  const mailbox = link.createMailbox({
    onRaw: (payload) => {
      try {
        const message = decoder.decode(payload, sink);
        if (message.type === "end") options.onEnd(message.stats);
        else options.onWritten();
      } catch {
        // The decoder delivered nothing of it; the next message's counts show how much is missing, as a gap.
        malformed += 1;
      }
    },
  });
  return {
    mailbox,
    get malformed() {
      return malformed;
    },
    settle: (received) => {
      decoder.settle(received, sink);
      return Promise.resolve();
    },
    close: () => link.closeMailbox(mailbox),
  };
}
