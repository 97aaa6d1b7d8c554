/** Events of a real Phoenix application (test/fixtures/README.md) for benchmarks: as slots, and as the agent's tracer sends them. */
import {
  Dictionary,
  EventBatch,
  EVENT_KINDS,
  EventFactory,
  EventWriter,
  GC_FIELDS,
  RawTraceDecoder,
  SHAPE_TYPES,
  SlotBlock,
  type Mfa,
  type Shape,
  type TraceEvent,
} from "../src/buffer";
import { Atom, encode, Port, Tuple, type Term } from "../src/erlang";
import { traceFixture, type FixtureName } from "../test/buffer/support/fixture";

/**
 * Messages and process events, scheduling, calls, collections: 4 of one sort after the other, as on a busy node. In the recordings under load processes
 * were scheduled 2.5 times as often as collections began or ended, so it is here.
 */
const MIX: readonly FixtureName[] = [
  "phoenix-send-receive-procs",
  "phoenix-running-scheduler",
  "phoenix-send-receive-procs",
  "phoenix-running-scheduler",
  "phoenix-calls",
  "phoenix-send-receive-procs",
  "phoenix-running-scheduler",
  "phoenix-gc",
  "phoenix-send-receive-procs",
  "phoenix-running-scheduler",
  "phoenix-calls",
  "phoenix-send-receive-procs",
  "phoenix-running-scheduler",
  "phoenix-gc",
];

/** The mix, and the node it comes from. */
export interface RealEvents {
  readonly node: string;
  readonly creation: number;
  readonly events: readonly TraceEvent[];
  readonly batch: EventBatch;
}

/** `erlang:monotonic_time(nanosecond)` where the mix begins. */
export const BASE = -576_460_000_000_000_000n;

/** `count` events of the mix, repeated where the recordings end. Stamps rise by 1 to 20 µs. */
export function realEvents(count: number): RealEvents {
  const parts = new Map(MIX.map((name) => [name, fixtureEvents(name)]));
  const positions = new Map<FixtureName, number>();
  const events: TraceEvent[] = [];
  let node = "";
  let creation = 0;
  for (let turn = 0; events.length < count; turn++) {
    const name = MIX[turn % MIX.length] ?? "phoenix-gc";
    const part = parts.get(name);
    if (part === undefined) continue;
    ({ node, creation } = part);
    const at = positions.get(name) ?? 0;
    for (let i = 0; i < 4 && events.length < count; i++) {
      const event = part.events[(at + i) % part.events.length];
      if (event !== undefined)
        events.push({ ...event, timestamp: events.length * 9000 + ((turn * 7919) % 8000) });
    }
    positions.set(name, at + 4);
  }
  return { node, creation, events, batch: slotsOf(node, creation, events) };
}

function fixtureEvents(name: FixtureName): { node: string; creation: number; events: TraceEvent[] } {
  const { records, node, flags } = traceFixture(name);
  const dictionary = new Dictionary();
  const decoder = new RawTraceDecoder({ dictionary, node, flags });
  const block = new SlotBlock();
  for (const record of records) decoder.decode(record, block);
  const creation = decoder.creation ?? 0;
  const source = { node, creation, otp: "27", base: 0n, timeOffset: 0n };
  const all = EventBatch.of(block, new EventFactory(dictionary, [source])).events();
  return { node, creation, events: all.filter((event) => !namesPort(event)) };
}

/** etf.js can't read ports; so that all decode the same bytes, events that name one are left out. */
function namesPort(event: TraceEvent): boolean {
  return [
    event.process,
    "to" in event ? event.to : undefined,
    "other" in event ? event.other : undefined,
  ].some((term) => term instanceof Port);
}

function slotsOf(node: string, creation: number, events: readonly TraceEvent[]): EventBatch {
  const dictionary = new Dictionary();
  const sources = [{ node, creation, otp: "27", base: 0n, timeOffset: 0n }];
  const writer = new EventWriter(dictionary, sources, new SlotBlock(events.length));
  for (const event of events) writer.write(event);
  return EventBatch.of(writer.block, new EventFactory(dictionary, sources));
}

/** The events as messages of the agent's tracer (docs/agent-protocol.md), `perMessage` in each. */
export function tracerMessages(events: readonly TraceEvent[], perMessage: number): Uint8Array[] {
  const messages: Uint8Array[] = [];
  for (let at = 0; at < events.length; at += perMessage) {
    const part = events.slice(at, at + perMessage);
    const start = part[0]?.timestamp ?? 0;
    const base = BASE + BigInt(start);
    messages.push(
      encode(
        new Tuple([1, 77, messages.length, base, at + part.length, 0, part.map((e) => wireEvent(e, start))]),
      ),
    );
  }
  return messages;
}

function wireEvent(event: TraceEvent, start: number): Tuple {
  const head = EVENT_KINDS[event.kind] + (event.scheduler ?? 0) * 256;
  return new Tuple([head, event.timestamp - start, event.process ?? 0, ...wireRest(event)]);
}

function wireRest(event: TraceEvent): Term[] {
  switch (event.kind) {
    case "send":
    case "send_to_non_existing_process":
      return [event.to, ...shape(event.shape)];
    case "receive":
      return shape(event.shape);
    case "exit":
    case "closed":
      return shape(event.reason);
    case "call":
      return [...mfa(event.mfa), ...shape(event.shape), 0];
    case "return_from":
      return [...mfa(event.mfa), ...shape(event.shape)];
    case "exception_from":
      return [...mfa(event.mfa), Atom.of(event.class), ...shape(event.shape)];
    case "return_to":
    case "in":
    case "out":
    case "in_exiting":
    case "out_exiting":
    case "out_exited":
      return event.mfa === undefined ? [0] : mfa(event.mfa);
    case "spawn":
    case "spawned": {
      const other = event.kind === "spawn" ? event.child : event.parent;
      return [
        other,
        ...mfa(event.mfa),
        ...(event.initialCall === undefined ? [0, 0, 0] : mfa(event.initialCall)),
      ];
    }
    case "link":
    case "unlink":
    case "getting_linked":
    case "getting_unlinked":
      return [event.other];
    case "register":
    case "unregister":
      return [Atom.of(event.name)];
    case "gc_minor_start":
    case "gc_minor_end":
    case "gc_major_start":
    case "gc_major_end":
    case "gc_max_heap_size":
      return GC_FIELDS.map(([name]) => event[name]);
    default:
      throw new Error(`${event.kind} is not in the mix`);
  }
}

const mfa = (m: Mfa): Term[] => [Atom.of(m.module), Atom.of(m.function), m.arity];

function shape({ type, size, tags: [tag1, tag2] }: Shape): Term[] {
  const tag = (name: string | undefined) => (name === undefined || name === "" ? 0 : Atom.of(name));
  return [SHAPE_TYPES[type] + size * 16, tag(tag1), tag(tag2)];
}
