/*
 * Draining: what the agent takes out of the rings, in the words of a slot, with the atoms that it is the first to name. Runs in the one process
 * that owns the trace's resource, never in a traced one.
 */
#ifndef BEAMTRACE_DRAIN_H
#define BEAMTRACE_DRAIN_H

#include "open.h"
#include "translate.h"

#define BT_DRAIN_MAX 16384u

static const uint32_t bt_atom_masks[BT_KIND_COUNT] = BT_RAW_ATOM_MASKS;

/* The first time that an atom is seen in this trace. Without memory to remember it, every time. */
static bool bt_first_seen(bt_trace *trace, uint32_t word)
{
    uint32_t index = word >> 6;
    uint64_t **page = &trace->atoms[index >> BT_ATOM_PAGE_BITS];
    uint32_t bit = index & ((1u << BT_ATOM_PAGE_BITS) - 1);
    uint64_t *at;

    if (*page == NULL) {
        *page = enif_alloc((1u << BT_ATOM_PAGE_BITS) / 8);
        if (*page == NULL)
            return true;
        memset(*page, 0, (1u << BT_ATOM_PAGE_BITS) / 8);
    }
    at = &(*page)[bit / 64];
    if (*at >> bit % 64 & 1)
        return false;
    *at |= UINT64_C(1) << bit % 64;
    return true;
}

static_assert(((uint64_t)BT_ATOM_PAGES << BT_ATOM_PAGE_BITS) == UINT64_C(1) << 26, "the pages hold every atom word");

static bt_term bt_name_atom(ErlNifEnv *env, bt_trace *trace, uint32_t word, bt_term dictionary)
{
    if (!bt_is_atom(word) || !bt_first_seen(trace, word))
        return dictionary;
    return enif_make_list_cell(env, enif_make_tuple2(env, enif_make_uint(env, word), (bt_term)word), dictionary);
}

#define BT_BIT(kind) (UINT64_C(1) << BT_KIND_##kind)
static const uint64_t bt_kinds_with_other = BT_BIT(SEND) | BT_BIT(SEND_TO_NON_EXISTING_PROCESS) | BT_BIT(LINK) |
                                            BT_BIT(UNLINK) | BT_BIT(GETTING_LINKED) | BT_BIT(GETTING_UNLINKED) | BT_BIT(OPEN);
static const uint64_t bt_spawn_kinds = BT_BIT(SPAWN) | BT_BIT(SPAWNED);

/* Processes and ports of a record in the words of a slot. */
static inline void bt_translate_record(uint32_t *words, uint64_t kind, uint32_t flags)
{
    bt_translate(words + BT_SLOT_TRACEE_LOW);
    if (flags & (BT_FLAG_ALIAS | BT_FLAG_WIDE_PID | BT_FLAG_WIDE_PORT | BT_RAW_NAMED_FLAG))
        return;
    if ((kind & bt_kinds_with_other && words[BT_RAW_REMOTE_NODE] == 0) ||
        (kind & bt_spawn_kinds && words[BT_RAW_SPAWN_REMOTE_NODE] == 0))
        bt_translate(words + BT_SLOT_OTHER_LOW);
}

/* Translates identities, and gathers the atoms that this trace has not told of yet: [{Word, Atom}]. Counts the markers among the records. */
static bt_term bt_finish_records(ErlNifEnv *env, bt_trace *trace, bt_record *records, uint64_t count, uint64_t *markers)
{
    bt_term dictionary = enif_make_list(env, 0);

    for (uint64_t i = 0; i < count; i++) {
        uint32_t *words = records[i].words;
        uint32_t kind = words[BT_SLOT_HEAD] & 0xff;
        uint32_t flags = words[BT_SLOT_FLAGS];
        uint32_t mask = kind < BT_KIND_COUNT ? bt_atom_masks[kind] : 0;

        while (mask != 0) {
            uint32_t word = words[__builtin_ctz(mask)];

            mask &= mask - 1;
            if (word != 0)
                dictionary = bt_name_atom(env, trace, word, dictionary);
        }
        *markers += kind == BT_KIND_MARKER;
        if (kind < BT_KIND_COUNT) {
            bt_translate_record(words, UINT64_C(1) << kind, flags);
            /* One writer. */
            atomic_store_explicit(&trace->kinds[kind], atomic_load_explicit(&trace->kinds[kind], memory_order_relaxed) + 1,
                                  memory_order_relaxed);
        }
        if (kind == BT_KIND_SEND || kind == BT_KIND_SEND_TO_NON_EXISTING_PROCESS || kind == BT_KIND_REGISTER ||
            kind == BT_KIND_UNREGISTER) {
            if ((flags & (BT_FLAG_WIDE_PID | BT_FLAG_WIDE_PORT | BT_FLAG_ALIAS)) == 0)
                dictionary = bt_name_atom(env, trace, words[BT_SLOT_OTHER_LOW], dictionary);
            if (flags & BT_RAW_NAMED_FLAG)
                dictionary = bt_name_atom(env, trace, words[BT_SLOT_OTHER_HIGH], dictionary);
        }
    }
    return dictionary;
}

/* Where contents are kept: what is no event among records that ship.h will finish. */
static uint64_t bt_count_unmeant(const bt_record *records, uint64_t count)
{
    uint64_t unmeant = 0;

    for (uint64_t i = 0; i < count; i++)
        unmeant += bt_is_continuation(&records[i]) || (records[i].words[BT_SLOT_HEAD] & 0xff) == BT_KIND_MARKER;
    return unmeant;
}

/* Processes that callbacks have recognised as ours since the last time. */
static bt_term bt_news(ErlNifEnv *env, bt_trace *trace)
{
    bt_term news = enif_make_list(env, 0);

    if (atomic_exchange_explicit(&trace->filter_news, 0, memory_order_acquire) == 0)
        return news;
    for (uint32_t i = 0; i < BT_FILTER_SIZE; i++)
        if (atomic_exchange_explicit(&trace->filter_fresh[i], false, memory_order_acquire)) {
            uint64_t process = atomic_load_explicit(&trace->filter[i], memory_order_relaxed);

            if (bt_is_local_pid(process) || bt_is_local_port(process))
                news = enif_make_list_cell(env, process, news);
        }
    return news;
}

static uint64_t bt_filtered_since(bt_trace *trace)
{
    uint64_t sum = 0;
    uint64_t since;

    for (uint32_t i = 0; i < trace->rings->count; i++)
        sum += atomic_load_explicit(&trace->rings->rings[i].filtered, memory_order_relaxed);
    since = sum - trace->seen_filtered;
    trace->seen_filtered = sum;
    return since;
}

/*
 * drain(Trace, Max) -> {Count, Records, Dictionary, Lost, Filtered, Waiting, Now, News}. At most Max records, about; markers are not in Count.
 * Of a trace with contents the records are as they lie in the rings, for contents/2.
 * Now in ns since the trace's base. What is lost was lost before Now.
 */
BT_NIF(trace_drain)
{
    bt_handle *handle;
    bt_trace *trace;
    bt_record *records;
    unsigned max;
    uint64_t count;
    uint64_t markers = 0;
    uint64_t lost;
    uint64_t waiting;
    int64_t now;
    double cut;
    bt_term binary;
    bt_term dictionary;
    bt_term result;

    BT_UNUSED;
    if (!bt_get_handle(env, argv[0], &handle) || !enif_get_uint(env, argv[1], &max) || max == 0 || max > BT_DRAIN_MAX)
        return enif_make_badarg(env);
    trace = handle->trace;
    if (atomic_exchange(&trace->consuming, true))
        return enif_make_badarg(env);
    bt_look_at_clock();
    now = bt_monotonic_ns();
    lost = bt_rings_losses(trace->rings) + bt_rings_hold(trace->rings);
    count = bt_rings_prepare(trace->rings, (double)(now - trace->base), max, &cut);
    records = (bt_record *)(void *)enif_make_new_binary(env, count * sizeof *records, &binary);
    bt_rings_take(trace->rings, records);
    waiting = bt_rings_waiting(trace->rings);
    bt_rings_release(trace->rings);
    if (trace->contents == NULL) {
        dictionary = bt_finish_records(env, trace, records, count, &markers);
    } else {
        dictionary = enif_make_list(env, 0);
        markers = bt_count_unmeant(records, count);
    }
    result = enif_make_tuple(env, 8, enif_make_uint64(env, count - markers), binary, dictionary, enif_make_uint64(env, lost),
                             enif_make_uint64(env, bt_filtered_since(trace)),
                             enif_make_uint64(env, waiting),
                             enif_make_int64(env, now - trace->base), bt_news(env, trace));
    atomic_store(&trace->consuming, false);
    /* 1 % of a time slice for about 80 records of 125 ns. */
    (void)enif_consume_timeslice(env, count / 80 >= 99 ? 99 : (int)(count / 80) + 1);
    return result;
}

#endif
