/*
 * The callbacks of erl_tracer (ERTS, erl_tracer(3)). `enabled*` is the gate: it touches nothing but the static table of places. A stale state
 * is answered by `remove` where the VM allows it, when it asks for the status, and by `discard` everywhere else.
 */
#ifndef BEAMTRACE_CALLBACKS_H
#define BEAMTRACE_CALLBACKS_H

#include "sampling.h"

#define BT_NIF(name) static ERL_NIF_TERM name(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[])
#define BT_UNUSED (void)argc

enum { BT_FROM_TAG = BT_KIND_COUNT };

/* The kind of a tag; BT_KIND_UNKNOWN for one of a later VM. */
BT_INLINE uint32_t bt_kind_between(bt_term tag, uint32_t first, uint32_t last)
{
    for (uint32_t kind = first; kind <= last; kind++)
        if (bt_atoms.tag[kind] == tag)
            return kind;
    return BT_KIND_UNKNOWN;
}

static uint32_t bt_kind_of(bt_term tag, bt_term tracee)
{
    uint32_t kind = bt_kind_between(tag, BT_KIND_SPAWN, BT_KIND_CLOSED);

    if (bt_is_local_port(tracee)) {
        if (kind == BT_KIND_IN)
            return BT_KIND_PORT_IN;
        if (kind == BT_KIND_OUT)
            return BT_KIND_PORT_OUT;
    }
    return kind;
}

/* `spawned` of a process in the sample passes the gate always: it tells which new processes are ours. */
BT_INLINE ERL_NIF_TERM bt_gate(bt_term state, uint32_t kind, bt_term tracee)
{
    const bt_place *place = bt_place_of(state);

    if (place == NULL)
        return bt_atoms.discard;
    if (bt_may_be_unseen(kind, tracee) && __builtin_expect(bt_is_sampling(place), 0) && bt_outside(place, state, kind, tracee))
        return bt_atoms.discard;
    if (kind == BT_KIND_SPAWNED)
        return atomic_load_explicit(&place->mask, memory_order_relaxed) != 0 ? bt_atoms.trace : bt_atoms.discard;
    return bt_wanted(place, kind) ? bt_atoms.trace : bt_atoms.discard;
}

BT_NIF(enabled)
{
    BT_UNUSED;
    (void)env;
    if (argv[0] == bt_atoms.trace_status)
        return bt_status(argv[1], argv[2]);
    if (bt_place_of(argv[1]) == NULL)
        return bt_atoms.discard;
    return bt_gate(argv[1], bt_kind_of(argv[0], argv[2]), argv[2]);
}

/*
 * Also of sends and calls, which the VM would bring to trace_send/5 and trace_call/5 if they were there: in some places it asks those two
 * whether a tracer is enabled, with three arguments where they take five. It asks enabled/3 when they are missing.
 */
static ERL_NIF_TERM bt_trace_other(ErlNifEnv *env, const ERL_NIF_TERM argv[]) __attribute__((noinline));
static ERL_NIF_TERM bt_trace_other(ErlNifEnv *env, const ERL_NIF_TERM argv[])
{
    uint32_t kind = bt_kind_between(argv[0], BT_KIND_CALL, BT_KIND_RETURN_TO);

    if (kind != BT_KIND_UNKNOWN) {
        bt_emit(env, argv[1], kind, argv[2], argv[3], argv[4]);
        return bt_atoms.ok;
    }
    kind = bt_kind_of(argv[0], argv[2]);
    if (kind != BT_KIND_UNKNOWN)
        bt_emit(env, argv[1], kind, argv[2], argv[3], argv[4]);
    return bt_atoms.ok;
}

/* Sends by themselves: their code lies together. */
BT_NIF(trace)
{
    BT_UNUSED;
    if (__builtin_expect(argv[0] != bt_atoms.send, 0))
        return bt_trace_other(env, argv);
    bt_emit(env, argv[1], BT_KIND_SEND, argv[2], argv[3], argv[4]);
    return bt_atoms.ok;
}

#define BT_ENABLED(name, KIND)                                                \
    BT_NIF(enabled_##name)                                                    \
    {                                                                         \
        BT_UNUSED;                                                            \
        (void)env;                                                            \
        if (bt_place_of(argv[1]) == NULL)                                     \
            return bt_atoms.discard;                                          \
        return bt_gate(argv[1], (KIND), argv[2]);                             \
    }

/* A pair of specialised callbacks; KIND may look at tag and tracee. */
#define BT_CALLBACKS(name, KIND)                                              \
    BT_ENABLED(name, KIND)                                                    \
    BT_NIF(trace_##name)                                                      \
    {                                                                         \
        uint32_t kind = (KIND);                                               \
                                                                              \
        BT_UNUSED;                                                            \
        if (__builtin_expect(kind != BT_KIND_UNKNOWN, 1))                     \
            bt_emit(env, argv[1], kind, argv[2], argv[3], argv[4]);           \
        return bt_atoms.ok;                                                   \
    }

BT_CALLBACKS(receive, BT_KIND_RECEIVE)
BT_ENABLED(send, argv[0] == bt_atoms.send ? BT_KIND_SEND : BT_KIND_SEND_TO_NON_EXISTING_PROCESS)
BT_ENABLED(call, bt_kind_between(argv[0], BT_KIND_CALL, BT_KIND_RETURN_TO))
BT_CALLBACKS(procs, bt_kind_of(argv[0], argv[2]))
BT_CALLBACKS(ports, bt_kind_of(argv[0], argv[2]))
BT_CALLBACKS(running_procs, bt_kind_between(argv[0], BT_KIND_IN, BT_KIND_OUT_EXITED))
BT_CALLBACKS(running_ports, bt_kind_of(argv[0], argv[2]))
BT_CALLBACKS(garbage_collection, bt_kind_between(argv[0], BT_KIND_GC_MINOR_START, BT_KIND_GC_MAX_HEAP_SIZE))

#endif
