/*
 * What the agent's sampling process asks of a trace: it does not own the trace's resource, so it names it by the tracer's state, and counts itself
 * as a visitor as threads do that the barrier over all schedulers does not reach: whoever frees the trace waits for it.
 */
#ifndef BEAMTRACE_CONTROL_H
#define BEAMTRACE_CONTROL_H

#include "callbacks.h"

/* The trace, which stays until bt_visit_end. */
static bt_trace *bt_visit(bt_term state)
{
    bt_trace *trace;

    atomic_fetch_add(&bt_visitors, 1);
    atomic_thread_fence(memory_order_seq_cst);
    trace = bt_is_small(state) ? bt_trace_of(state) : NULL;
    if (trace == NULL)
        atomic_fetch_sub_explicit(&bt_visitors, 1, memory_order_release);
    return trace;
}

static void bt_visit_end(void) { atomic_fetch_sub_explicit(&bt_visitors, 1, memory_order_release); }

/* share(State, Threshold) -> boolean() */
BT_NIF(trace_share)
{
    unsigned threshold;
    bt_trace *trace;

    BT_UNUSED;
    if (!enif_get_uint(env, argv[1], &threshold) || threshold > BT_SAMPLE_ALL)
        return enif_make_badarg(env);
    trace = bt_visit(argv[0]);
    if (trace == NULL)
        return bt_atoms.false_;
    /* The ceiling first: who is let in by the new threshold must not leave unseen. */
    if (threshold > atomic_load(&trace->place->ceiling))
        atomic_store(&trace->place->ceiling, threshold);
    atomic_store(&trace->place->threshold, threshold);
    bt_visit_end();
    return bt_atoms.true_;
}

/* produced(State) -> {Produced, Outside, Contents, Kinds} | false. Contents: in bytes. */
BT_NIF(trace_produced)
{
    bt_trace *trace = bt_visit(argv[0]);
    bt_term kinds = enif_make_list(env, 0);
    uint64_t produced;
    uint64_t outside;
    uint64_t contents = 0;

    BT_UNUSED;
    if (trace == NULL)
        return bt_atoms.false_;
    produced = atomic_load_explicit(&trace->rings->refused, memory_order_relaxed);
    for (uint32_t i = 0; i < trace->rings->all; i++) {
        const bt_ring *ring = &trace->rings->rings[i];

        produced += bt_ring_written(ring) +
                    atomic_load_explicit(&ring->dropped, memory_order_relaxed) +
                    atomic_load_explicit(&ring->filtered, memory_order_relaxed);
        contents += bt_ring_contents_bytes(ring);
    }
    for (uint32_t kind = BT_KIND_COUNT; kind > 0; kind--)
        kinds = enif_make_list_cell(
            env, enif_make_uint64(env, atomic_load_explicit(&trace->kinds[kind - 1], memory_order_relaxed)), kinds);
    outside = atomic_load_explicit(&trace->outside, memory_order_relaxed);
    bt_visit_end();
    return enif_make_tuple4(env, enif_make_uint64(env, produced), enif_make_uint64(env, outside), enif_make_uint64(env, contents), kinds);
}

static bool bt_get_number(ErlNifEnv *env, bt_term term, double *number)
{
    ErlNifSInt64 integer;

    if (enif_get_int64(env, term, &integer)) {
        *number = (double)integer;
        return true;
    }
    return enif_get_double(env, term, number) != 0;
}

/* mark(State, Name, Process, A, B) -> boolean() */
BT_NIF(trace_mark)
{
    bt_trace *trace;
    double a;
    double b;
    bool marked;

    BT_UNUSED;
    if (!bt_is_atom(argv[1]) || !bt_get_number(env, argv[3], &a) || !bt_get_number(env, argv[4], &b))
        return enif_make_badarg(env);
    trace = bt_visit(argv[0]);
    if (trace == NULL)
        return bt_atoms.false_;
    marked = bt_mark(trace, argv[1], argv[2], a, b);
    bt_visit_end();
    return marked ? bt_atoms.true_ : bt_atoms.false_;
}

#endif
