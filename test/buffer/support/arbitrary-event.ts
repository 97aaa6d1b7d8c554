/**
 * Arbitrary events, each as what the tracer sends (a term of docs/agent-protocol.md, "Batches") and as what a subscriber must get.
 * Written from the protocol page, not from the decoder.
 */
import fc from "fast-check";
import {
  EVENT_KINDS,
  GC_FIELDS,
  SHAPE_TYPES,
  type EventKind,
  type GapHop,
  type ShapeType,
} from "../../../src/buffer/event-schema";
import { fromMinifloat, toMinifloat } from "../../../src/buffer/minifloat";
import type { TraceEvent } from "../../../src/buffer/trace-event";
import { encode } from "../../../src/erlang/etf";
import { Atom, Pid, Port, Reference, Tuple, type Term } from "../../../src/erlang/term";

export const NODE = "shop@127.0.0.1";
export const CREATION = 1_719_000_001;

export interface WireEvent {
  readonly wire: Tuple;
  /** Without `timestamp` and `source`, which depend on the batch. */
  readonly expected: Omit<TraceEvent, "timestamp" | "source">;
  readonly dt: number;
}

const name = fc.oneof(
  fc.constantFrom("$gen_call", "ok", "Elixir.Shop.Cart", "DOWN", "a", ""),
  fc.string({ unit: "grapheme", maxLength: 20 }),
);
const word = fc.nat({ max: 0xffffffff });
const localPid = fc
  .tuple(fc.oneof(fc.nat({ max: 300 }), fc.nat({ max: 0x0fffffff })), fc.oneof(fc.constant(0), word))
  .map(([id, serial]) => new Pid(Atom.of(NODE), id, serial, CREATION));
const remotePid = fc
  .tuple(
    fc.constantFrom("shop@127.0.0.2", "other@host", NODE),
    word,
    word,
    word.filter((c) => c !== CREATION),
  )
  .map(([node, id, serial, creation]) => new Pid(Atom.of(node), id, serial, creation));
const portId = fc.oneof(
  fc.nat({ max: 0x0fffffff }),
  fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }).map((n) => (n <= Number.MAX_SAFE_INTEGER ? Number(n) : n)),
);
const localPort = fc
  .oneof(fc.nat({ max: 100 }), fc.nat({ max: 2 ** 31 - 1 }))
  .map((id) => new Port(Atom.of(NODE), id, CREATION));
const anyPort = fc
  .tuple(portId, fc.constantFrom([NODE, CREATION] as const, ["far@away", 7] as const))
  .map(([id, [node, creation]]) => new Port(Atom.of(node), id, creation));
const anyPid = fc.oneof(localPid, remotePid);
const reference = fc
  .tuple(fc.boolean(), word, word, word, fc.nat({ max: 0x0fffffff }), word, fc.boolean())
  .map(([local, a, b, c, id, serial, withPid]) => {
    const numbers = withPid ? [a, b, c, id * 16 + 3, serial] : [a, b, c];
    return local
      ? new Reference(Atom.of(NODE), CREATION, numbers)
      : new Reference(Atom.of("far@away"), 9, numbers);
  });
const destination = fc.oneof(
  anyPid,
  anyPort,
  reference,
  name.map((n) => Atom.of(n)),
  fc.tuple(name, name).map(([n, node]) => new Tuple([Atom.of(n), Atom.of(node)])),
);
const mfa = fc.record({ module: name, function: name, arity: fc.nat({ max: 255 }) });
type ArbitraryMfa = { module: string; function: string; arity: number };
const mfaTerms = (m: ArbitraryMfa): Term[] => [Atom.of(m.module), Atom.of(m.function), m.arity];

const shape = fc
  .record({
    type: fc.constantFrom(...(Object.keys(SHAPE_TYPES) as ShapeType[])),
    size: fc.oneof(fc.nat({ max: 300 }), fc.nat({ max: 0x0fffffff })),
    tag1: fc.option(name, { nil: undefined }),
    tag2: fc.option(name, { nil: undefined }),
  })
  .map(({ type, size, tag1, tag2 }) => ({
    terms: [
      SHAPE_TYPES[type] + size * 16,
      tag1 === undefined ? 0 : Atom.of(tag1),
      tag2 === undefined ? 0 : Atom.of(tag2),
    ] as Term[],
    shape: { type, size, tags: tag2 !== undefined ? [tag1 ?? "", tag2] : tag1 !== undefined ? [tag1] : [] },
  }));

const term: fc.Arbitrary<Term> = fc.letrec<{ term: Term }>((tie) => ({
  term: fc.oneof(
    { depthSize: "small" },
    fc.integer(),
    fc.bigInt({ min: 2n ** 60n, max: 2n ** 70n }),
    name.map((n) => Atom.of(n)),
    fc.uint8Array({ maxLength: 20 }),
    fc.array(tie("term"), { maxLength: 4 }),
    fc.array(tie("term"), { maxLength: 4 }).map((e) => new Tuple(e)),
    anyPid,
    reference,
  ),
})).term;

const payload = fc.option(term, { nil: undefined });
const payloadTerms = (p: Term | undefined): Term[] => (p === undefined ? [] : [encode(p)]);

/** A call of instrumented code: id, module, site. */
const frame = fc
  .record({
    callId: fc.oneof(fc.nat({ max: 70_000 }), fc.maxSafeNat()),
    module: name,
    siteNumber: fc.oneof(fc.nat({ max: 300 }), fc.nat({ max: 0x7fffffff })),
  })
  .map(({ callId, module, siteNumber }) => ({
    terms: [callId, Atom.of(module), siteNumber] as Term[],
    fields: { callId, module, siteNumber, site: undefined },
  }));

const gcValue = fc.oneof(fc.nat({ max: 5000 }), fc.nat({ max: 2 ** 40 }));

/** The elements behind K, Dt and Tracee, and the fields behind kind, process and scheduler. */
interface Rest {
  readonly kind: EventKind;
  readonly process: Pid | Port | undefined;
  readonly terms: Term[];
  readonly fields: Record<string, unknown>;
}

const withShape = (
  kinds: readonly EventKind[],
  tracee: fc.Arbitrary<Pid | Port>,
  field: "shape" | "reason",
) =>
  fc.tuple(fc.constantFrom(...kinds), tracee, shape, payload).map(([kind, process, s, p]): Rest => ({
    kind,
    process,
    terms: [...s.terms, ...payloadTerms(p)],
    fields: { [field]: s.shape, payload: p },
  }));

const rest: fc.Arbitrary<Rest> = fc.oneof(
  withShape(["receive"], fc.oneof(localPid, localPort), "shape"),
  withShape(["exit"], localPid, "reason"),
  withShape(["closed"], localPort, "reason"),
  fc
    .tuple(
      fc.constantFrom("send" as const, "send_to_non_existing_process" as const),
      fc.oneof(localPid, localPort),
      destination,
      shape,
      payload,
    )
    .map(([kind, process, to, s, p]): Rest => ({
      kind,
      process,
      terms: [to, ...s.terms, ...payloadTerms(p)],
      fields: { to, shape: s.shape, payload: p },
    })),
  fc
    .tuple(
      fc.constantFrom("spawn" as const, "spawned" as const),
      localPid,
      anyPid,
      mfa,
      fc.option(mfa, { nil: undefined }),
    )
    .map(([kind, process, other, m, initial]): Rest => ({
      kind,
      process,
      terms: [other, ...mfaTerms(m), ...(initial === undefined ? [0, 0, 0] : mfaTerms(initial))],
      fields: { [kind === "spawn" ? "child" : "parent"]: other, mfa: m, initialCall: initial },
    })),
  fc
    .tuple(
      fc.constantFrom(
        "link" as const,
        "unlink" as const,
        "getting_linked" as const,
        "getting_unlinked" as const,
      ),
      fc.oneof(localPid, localPort),
      fc.oneof(anyPid, anyPort),
    )
    .map(([kind, process, other]): Rest => ({ kind, process, terms: [other], fields: { other } })),
  fc
    .tuple(fc.constantFrom("register" as const, "unregister" as const), fc.oneof(localPid, localPort), name)
    .map(([kind, process, n]): Rest => ({ kind, process, terms: [Atom.of(n)], fields: { name: n } })),
  fc
    .tuple(
      localPid,
      mfa,
      shape,
      fc.oneof(mfa, fc.constant("undefined" as const), fc.constant(undefined)),
      payload,
    )
    .map(([process, m, s, caller, p]): Rest => ({
      kind: "call",
      process,
      terms: [
        ...mfaTerms(m),
        ...s.terms,
        caller === undefined
          ? 0
          : caller === "undefined"
            ? Atom.of("undefined")
            : new Tuple(mfaTerms(caller)),
        ...payloadTerms(p),
      ],
      fields: { mfa: m, shape: s.shape, caller, payload: p },
    })),
  fc.tuple(localPid, mfa, shape, payload).map(([process, m, s, p]): Rest => ({
    kind: "return_from",
    process,
    terms: [...mfaTerms(m), ...s.terms, ...payloadTerms(p)],
    fields: { mfa: m, shape: s.shape, payload: p },
  })),
  fc
    .tuple(localPid, mfa, fc.constantFrom("error", "exit", "throw"), shape, payload)
    .map(([process, m, cls, s, p]): Rest => ({
      kind: "exception_from",
      process,
      terms: [...mfaTerms(m), Atom.of(cls), ...s.terms, ...payloadTerms(p)],
      fields: { mfa: m, class: cls, shape: s.shape, payload: p },
    })),
  fc
    .tuple(
      fc.constantFrom("function_entry" as const, "function_return" as const),
      ...([localPid, frame, shape, payload] as const),
    )
    .map(([kind, process, f, s, p]): Rest => ({
      ...{ kind, process, terms: [...f.terms, ...s.terms, ...payloadTerms(p)] },
      fields: { ...f.fields, shape: s.shape, payload: p },
    })),
  fc.tuple(localPid, frame).map(([process, f]): Rest => ({
    ...{ kind: "function_tail_call", process, terms: f.terms },
    fields: f.fields,
  })),
  fc
    .tuple(localPid, frame, fc.constantFrom("error", "exit", "throw"), shape, payload)
    .map(([process, f, cls, s, p]): Rest => ({
      ...{ kind: "function_exception", process },
      terms: [...f.terms, Atom.of(cls), ...s.terms, ...payloadTerms(p)],
      fields: { ...f.fields, class: cls, shape: s.shape, payload: p },
    })),
  fc
    .tuple(
      fc.constantFrom(
        "return_to",
        "in",
        "out",
        "in_exiting",
        "out_exiting",
        "out_exited",
      ) as fc.Arbitrary<EventKind>,
      localPid,
      fc.option(mfa, { nil: undefined }),
    )
    .map(([kind, process, m]): Rest => ({
      kind,
      process,
      terms: m === undefined ? [0] : mfaTerms(m),
      fields: { mfa: m },
    })),
  fc
    .tuple(
      fc.constantFrom("port_in" as const, "port_out" as const),
      localPort,
      fc.option(name, { nil: undefined }),
    )
    .map(([kind, process, op]): Rest => ({
      kind,
      process,
      terms: [op === undefined ? 0 : Atom.of(op)],
      fields: { operation: op },
    })),
  fc
    .tuple(
      fc.constantFrom(
        "gc_minor_start",
        "gc_minor_end",
        "gc_major_start",
        "gc_major_end",
        "gc_max_heap_size",
      ) as fc.Arbitrary<EventKind>,
      localPid,
      fc.array(gcValue, { minLength: 12, maxLength: 12 }),
    )
    .map(([kind, process, values]): Rest => ({
      kind,
      process,
      terms: values,
      fields: Object.fromEntries(
        GC_FIELDS.map(([field, place], i) => [
          field,
          place === "gcBinBlocks" ? fromMinifloat(toMinifloat(values[i]!)) : Math.min(values[i]!, 0xffffffff),
        ]),
      ),
    })),
  fc.tuple(localPort, localPid, name).map(([process, opener, n]): Rest => ({
    kind: "open",
    process,
    terms: [opener, Atom.of(n)],
    fields: { opener, name: n },
  })),
  fc
    .tuple(
      fc.option(fc.oneof(localPid, localPort), { nil: undefined }),
      fc.option(name, { nil: undefined }),
      term,
    )
    .map(([process, tag, p]): Rest => ({
      kind: "unknown",
      process,
      terms: [tag === undefined ? 0 : Atom.of(tag), encode(p)],
      fields: { tag, payload: p },
    })),
  fc.tuple(fc.option(localPid, { nil: undefined }), name, term, term).map(([process, n, a, b]): Rest => ({
    kind: "marker",
    process,
    terms: [Atom.of(n), a, b],
    fields: { name: n, a, b },
  })),
);

const dt = fc.oneof(
  fc.integer({ min: -1000, max: 5_000_000 }),
  fc.integer({ min: -(2 ** 40), max: 2 ** 40 }),
);

const ordinary = fc
  .tuple(rest, dt, fc.oneof(fc.constant(0), fc.nat({ max: 0xffff })))
  .map(([r, dt, scheduler]): WireEvent => ({
    wire: new Tuple([EVENT_KINDS[r.kind] + scheduler * 256, dt, r.process ?? 0, ...r.terms]),
    expected: {
      kind: r.kind,
      scheduler: scheduler === 0 ? undefined : scheduler,
      process: r.process,
      ...r.fields,
    } as unknown as WireEvent["expected"],
    dt,
  }));

const gap = fc
  .tuple(fc.constantFrom("tracer", "link") as fc.Arbitrary<GapHop>, fc.nat({ max: 2 ** 45 }), dt, dt, dt)
  .map(([hop, count, at, from, to]): WireEvent => ({
    wire: new Tuple([EVENT_KINDS.gap, at, 0, Atom.of(hop), count, from, to]),
    // `from` and `to` are relative to the batch; the test adds its offset.
    expected: {
      kind: "gap",
      scheduler: undefined,
      process: undefined,
      hop,
      count,
      from,
      to,
    } as unknown as WireEvent["expected"],
    dt: at,
  }));

/** Events as the tracer may send them. */
export const arbitraryEvent: fc.Arbitrary<WireEvent> = fc.oneof(
  { arbitrary: ordinary, weight: 20 },
  { arbitrary: gap, weight: 1 },
);

/** A message of the tracer with these events. */
export function message(
  events: readonly WireEvent[],
  head: { seq?: number; base?: number | bigint; received?: number; lost?: number } = {},
): Uint8Array {
  const counted = events.filter((e) => e.expected.kind !== "gap" && e.expected.kind !== "marker").length;
  const { seq = 0, base = -576_460_000_000_000_000n, lost = 0, received = counted + lost } = head;
  return encode(new Tuple([1, 77, seq, base, received, lost, events.map((e) => e.wire)]));
}
