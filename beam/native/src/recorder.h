/*
 * The agent's side of rings that overwrite: the flight recorder looks at the triggers, and when one has fired reads a window of time out of the
 * rings without taking it, so that the next window may overlap. Like drain.h it runs in the one process that owns the trace's resource.
 */
#ifndef BEAMTRACE_RECORDER_H
#define BEAMTRACE_RECORDER_H

#include "drain.h"

/* A handle that nobody else is using; give it back with bt_leave_window. */
static bt_trace *bt_enter_window(ErlNifEnv *env, bt_term term)
{
    bt_handle *handle;

    if (!bt_get_handle(env, term, &handle) || atomic_exchange(&handle->trace->consuming, true))
        return NULL;
    return handle->trace;
}

static void bt_leave_window(bt_trace *trace) { atomic_store(&trace->consuming, false); }

/* overwrite(Trace) -> ok: full rings give up their oldest records. Before flags are set. */
BT_NIF(trace_overwrite)
{
    bt_trace *trace;

    BT_UNUSED;
    trace = bt_enter_window(env, argv[0]);
    if (trace == NULL)
        return enif_make_badarg(env);
    bt_rings_overwrite(trace->rings);
    bt_leave_window(trace);
    return bt_atoms.ok;
}

/* trigger(Trace, exit | Slot, none | Process, Number) -> ok: exits that are not orderly, or messages to a process. */
BT_NIF(trace_trigger)
{
    bt_handle *handle;
    bt_triggers *triggers;
    bt_term process;
    unsigned slot;
    unsigned number;
    uint32_t watched = 0;

    BT_UNUSED;
    if (!bt_get_handle(env, argv[0], &handle) || !enif_get_uint(env, argv[3], &number))
        return enif_make_badarg(env);
    triggers = &handle->trace->triggers;
    if (argv[1] == bt_atoms.exit) {
        atomic_store_explicit(&triggers->exit, number, memory_order_relaxed);
        return bt_atoms.ok;
    }
    if (!enif_get_uint(env, argv[1], &slot) || slot >= BT_WATCHED || !(bt_is_local_pid(argv[2]) || argv[2] == bt_atoms.none))
        return enif_make_badarg(env);
    process = bt_is_local_pid(argv[2]) ? argv[2] : 0;
    atomic_store_explicit(&triggers->watch[slot].number, number, memory_order_relaxed);
    atomic_store_explicit(&triggers->watch[slot].process, process, memory_order_relaxed);
    for (uint32_t i = 0; i < BT_WATCHED; i++)
        watched += atomic_load_explicit(&triggers->watch[i].process, memory_order_relaxed) != 0;
    atomic_store_explicit(&triggers->watched, watched, memory_order_relaxed);
    return bt_atoms.ok;
}

/* arm(Trace) -> ok. What has fired meanwhile and was not looked at counts as suppressed. */
BT_NIF(trace_arm)
{
    bt_handle *handle;
    bt_triggers *triggers;
    uint32_t state;

    BT_UNUSED;
    if (!bt_get_handle(env, argv[0], &handle))
        return enif_make_badarg(env);
    triggers = &handle->trace->triggers;
    state = atomic_load_explicit(&triggers->state, memory_order_acquire);
    if (state == BT_FIRED)
        atomic_fetch_add_explicit(&triggers->suppressed, 1, memory_order_relaxed);
    /* While a callback is writing down what has fired there is nothing to arm. */
    if (state != BT_FIRING)
        atomic_store_explicit(&triggers->state, BT_ARMED, memory_order_release);
    return bt_atoms.ok;
}

/*
 * look(Trace) -> {none | {Number, Stamp, Process}, Written, Lost, Suppressed, Filtered, Now, News}. What has fired is told once; until the
 * recorder is armed again all else is suppressed. Lost and Filtered: since the last look.
 */
BT_NIF(trace_look)
{
    bt_trace *trace;
    bt_triggers *triggers;
    bt_term fired;
    uint64_t written = 0;
    uint64_t lost;
    int64_t now;

    BT_UNUSED;
    trace = bt_enter_window(env, argv[0]);
    if (trace == NULL)
        return enif_make_badarg(env);
    bt_look_at_clock();
    now = bt_monotonic_ns(true);
    triggers = &trace->triggers;
    fired = bt_atoms.none;
    if (atomic_load_explicit(&triggers->state, memory_order_acquire) == BT_FIRED) {
        fired = enif_make_tuple3(env, enif_make_uint(env, triggers->number), enif_make_int64(env, (int64_t)triggers->stamp),
                                 bt_is_local_pid(triggers->process) || bt_is_local_port(triggers->process) ? triggers->process
                                                                                                          : bt_atoms.none);
        atomic_store_explicit(&triggers->state, BT_SEEN, memory_order_relaxed);
    }
    lost = bt_rings_losses(trace->rings);
    for (uint32_t i = 0; i < trace->rings->all; i++)
        written += bt_ring_written(&trace->rings->rings[i]);
    fired = enif_make_tuple7(env, fired, enif_make_uint64(env, written), enif_make_uint64(env, lost),
                             enif_make_uint64(env, atomic_load_explicit(&triggers->suppressed, memory_order_relaxed)),
                             enif_make_uint64(env, bt_filtered_since(trace)), enif_make_int64(env, now - trace->base),
                             bt_news(env, trace));
    bt_leave_window(trace);
    return fired;
}

/*
 * window(Trace, From, To) -> {Start, Before, Count}: what peek/2 reads from now on. From Start on, which is not before From, no record of any
 * ring had been overwritten; Before: records that lie before it, ever; Count: those that lie in it so far. All atoms will be told anew. It ends
 * at To, or now if that is earlier: of what is still to come a ring that is looked at first would not have what another one has.
 */
BT_NIF(trace_window)
{
    bt_trace *trace;
    ErlNifSInt64 from;
    ErlNifSInt64 to;
    double now;
    double start;
    uint64_t before = 0;
    uint64_t count = 0;

    BT_UNUSED;
    if (!enif_get_int64(env, argv[1], &from) || !enif_get_int64(env, argv[2], &to) || (trace = bt_enter_window(env, argv[0])) == NULL)
        return enif_make_badarg(env);
    now = bt_now(trace, true);
    trace->window_end = (double)to < now ? (double)to : now;
    (void)bt_rings_hold(trace->rings);
    start = bt_rings_window(trace->rings, (double)from);
    for (uint32_t i = 0; i < trace->rings->all; i++) {
        bt_ring *ring = &trace->rings->rings[i];
        uint64_t until = ring->at + bt_ring_until(ring, bt_ring_pending(ring), trace->window_end);
        uint64_t begun = bt_ring_events_before(ring, ring->at);

        before += begun;
        count += bt_ring_events_before(ring, until) - begun;
    }
    bt_rings_release(trace->rings);
    for (uint32_t i = 0; i < BT_ATOM_PAGES; i++)
        if (trace->atoms[i] != NULL)
            memset(trace->atoms[i], 0, (1u << BT_ATOM_PAGE_BITS) / 8);
    bt_leave_window(trace);
    return enif_make_tuple3(env, enif_make_int64(env, (int64_t)start), enif_make_uint64(env, before), enif_make_uint64(env, count));
}

/*
 * peek(Trace, Max) -> {Done, Count, Records, Dictionary, Gone, Cut}: the next records of the window, up to the stamp Cut; they stay where they
 * are. Gone: records of the window that were overwritten before they could be read. Done: nothing of the window is left, but for what schedulers are writing right now.
 */
BT_NIF(trace_peek)
{
    bt_trace *trace;
    bt_record *records;
    bt_term binary;
    bt_term dictionary;
    unsigned max;
    uint64_t count;
    uint64_t gone;
    uint64_t markers = 0;
    double cut;
    bool guarded;

    BT_UNUSED;
    if (!enif_get_uint(env, argv[1], &max) || max == 0 || max > BT_DRAIN_MAX || (trace = bt_enter_window(env, argv[0])) == NULL)
        return enif_make_badarg(env);
    guarded = bt_guarded(trace->rings);
    gone = bt_rings_hold(trace->rings);
    count = bt_rings_prepare(trace->rings, trace->window_end, max, &cut);
    records = (bt_record *)(void *)enif_make_new_binary(env, count * sizeof *records, &binary);
    bt_rings_read(trace->rings, records);
    bt_rings_release(trace->rings);
    if (trace->contents == NULL) {
        dictionary = bt_finish_records(env, trace, records, count, &markers);
    } else {
        dictionary = enif_make_list(env, 0);
        markers = bt_count_unmeant(records, count);
    }
    bt_leave_window(trace);
    (void)enif_consume_timeslice(env, count / 80 >= 99 ? 99 : (int)(count / 80) + 1);
    return enif_make_tuple6(env, cut >= trace->window_end && !guarded ? bt_atoms.true_ : bt_atoms.false_,
                            enif_make_uint64(env, count - markers), binary, dictionary, enif_make_uint64(env, gone),
                            enif_make_int64(env, (int64_t)cut));
}

#endif
