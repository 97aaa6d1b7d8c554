/*
 * Sampling by process: who carries trace flags at all. A process is in the sample when the hash of its pid, the same as erlang:phash2/1 gives,
 * lies below the trace's threshold, so that a lower threshold keeps a subset. The VM asks for the trace's status each time that it schedules
 * a traced process in; who is not in the sample (any more) is answered `remove`, and the VM takes the flags away itself. So lowering the share
 * costs one store, and a process that carries no flag costs nothing. What ends a process's trace stands in the ring, behind its last event.
 */
#ifndef BEAMTRACE_SAMPLING_H
#define BEAMTRACE_SAMPLING_H

#include "record.h"

static_assert(BT_BORN_SIZE == 4096, "bt_born_place gives twelve bits");

static inline uint32_t bt_process_hash(bt_term process) { return (uint32_t)enif_hash(ERL_NIF_PHASH2, process, 0); }

static inline bool bt_is_sampling(const bt_place *place)
{
    return atomic_load_explicit(&place->threshold, memory_order_relaxed) < BT_SAMPLE_ALL;
}

static inline bool bt_sampled(const bt_place *place, bt_term process)
{
    uint32_t threshold = atomic_load_explicit(&place->threshold, memory_order_relaxed);

    return threshold >= BT_SAMPLE_ALL || bt_process_hash(process) < threshold;
}

/*
 * Processes that were born outside of the sample and have not run yet: nothing of them is recorded, also no end. A later one may take the place
 * of an earlier one, which then gets an end without a beginning.
 */
static inline uint32_t bt_born_place(bt_term process) { return (uint32_t)(process * UINT64_C(0x9E3779B97F4A7C15) >> 52); }

static inline void bt_born_outside(bt_trace *trace, bt_term process)
{
    atomic_store_explicit(&trace->born[bt_born_place(process)], process, memory_order_relaxed);
    atomic_fetch_add_explicit(&trace->outside, 1, memory_order_relaxed);
}

/* Whether nothing of a process outside of the sample has been recorded. */
static inline bool bt_is_unseen(const bt_place *place, bt_trace *trace, bt_term process)
{
    return bt_process_hash(process) >= atomic_load_explicit(&place->ceiling, memory_order_relaxed) ||
           atomic_load_explicit(&trace->born[bt_born_place(process)], memory_order_relaxed) == process;
}

/* A ring has room for one more record; unlike bt_ring_reserve it counts no loss. */
static inline bool bt_ring_has_room(bt_ring *ring)
{
    uint64_t word = atomic_load_explicit(&ring->tail, memory_order_acquire);

    return !(word & BT_HELD) ||
           -bt_ring_ahead(word, atomic_load_explicit(&ring->head, memory_order_relaxed)) <= (int64_t)ring->mask;
}

static bool bt_put_mark(bt_ring *ring, bt_term name, bt_term process, const double *numbers, double stamp)
{
    bt_record *record = bt_ring_has_room(ring) ? bt_ring_reserve(ring, true) : NULL;

    if (record == NULL)
        return false;
    memset(record, 0, sizeof *record);
    record->doubles[BT_STAMP] = stamp;
    record->words[BT_SLOT_HEAD] = BT_KIND_MARKER;
    record->words[BT_SLOT_FLAGS] = BT_FLAG_NUMBERS | (bt_is_local_port(process) ? BT_FLAG_PORT : 0);
    if (bt_is_local_pid(process) || bt_is_local_port(process)) {
        record->words[BT_SLOT_TRACEE_LOW] = (uint32_t)process;
        record->words[BT_SLOT_TRACEE_HIGH] = (uint32_t)(process >> 32);
    }
    record->words[BT_SLOT_TAG1] = bt_atom_word(name);
    record->doubles[BT_MARKER_A_F64] = numbers[0];
    record->doubles[BT_MARKER_B_F64] = numbers[1];
    bt_ring_commit(ring);
    return true;
}

/* A marker in a guarded ring, which has room also when a scheduler's is full. False when it has none after all, or other threads have them all. */
static bool bt_mark(bt_trace *trace, bt_term name, bt_term process, double a, double b)
{
    const double numbers[2] = {a, b};
    bt_guard *guard = bt_guard_try(trace->rings);
    bool marked;

    if (guard == NULL)
        return false;
    marked = bt_put_mark(bt_guard_ring(trace->rings, guard), name, process, numbers, bt_guard_stamp(guard, bt_now(trace, true)));
    bt_guard_leave(guard);
    return marked;
}

/* A process outside of the sample still carries flags. Only its own scheduler may take them away; there was an end to tell, or it stays. */
static ERL_NIF_TERM bt_leave(const bt_place *place, bt_term state, bt_term process) __attribute__((noinline));
static ERL_NIF_TERM bt_leave(const bt_place *place, bt_term state, bt_term process)
{
    static const double nothing[2] = {0, 0};
    bt_self self = bt_get_self();
    bt_trace *trace;
    bool told;

    if (bt_self_who(self) != BT_SCHEDULER_THREAD)
        return bt_atoms.trace;
    trace = bt_trace_of(state);
    if (trace == NULL || bt_is_unseen(place, trace, process) || bt_filtered(trace, process))
        return bt_atoms.remove;
    if (bt_self_ring(self) < trace->scheduler_rings) {
        bt_ring *ring = &trace->rings->rings[bt_self_ring(self)];

        told = bt_put_mark(ring, bt_atoms.process_untraced, process, nothing, bt_ring_in_order(ring, bt_now(trace, true)));
    } else
        told = bt_mark(trace, bt_atoms.process_untraced, process, 0, 0);
    return told ? bt_atoms.remove : bt_atoms.trace;
}

/* The answer to `trace_status`. */
static inline ERL_NIF_TERM bt_status(bt_term state, bt_term process)
{
    const bt_place *place = bt_place_of(state);

    if (place == NULL)
        return bt_atoms.remove;
    if (!bt_is_sampling(place) || !bt_is_local_pid(process) || bt_sampled(place, process))
        return bt_atoms.trace;
    return bt_leave(place, state, process);
}

/*
 * Whether an event of a process or port outside of the sample is to be left out. Until a process runs again it is still traced. Other gates
 * never touch a trace; this one does, so that a thread that is no scheduler counts itself as a visitor.
 */
static bool bt_outside(const bt_place *place, bt_term state, uint32_t kind, bt_term process) __attribute__((noinline));
static bool bt_outside(const bt_place *place, bt_term state, uint32_t kind, bt_term process)
{
    bool visitor;
    bool outside = true;
    bt_trace *trace;

    if (bt_sampled(place, process))
        return false;
    if (bt_is_local_port(process))
        return true;
    visitor = bt_self_who(bt_get_self()) != BT_SCHEDULER_THREAD;
    if (visitor) {
        atomic_fetch_add(&bt_visitors, 1);
        atomic_thread_fence(memory_order_seq_cst);
    }
    trace = bt_trace_of(state);
    if (trace != NULL) {
        if (kind == BT_KIND_SPAWNED)
            bt_born_outside(trace, process);
        else
            outside = bt_is_unseen(place, trace, process);
    }
    if (visitor)
        atomic_fetch_sub_explicit(&bt_visitors, 1, memory_order_release);
    return outside;
}

/* Kinds of which the first may come before a process has run: only for these a process is looked at. */
static inline bool bt_may_be_unseen(uint32_t kind, bt_term process)
{
    return kind == BT_KIND_SPAWNED || kind == BT_KIND_GETTING_LINKED || kind == BT_KIND_GETTING_UNLINKED || bt_is_local_port(process);
}

#endif
