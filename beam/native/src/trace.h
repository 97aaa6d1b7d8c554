/*
 * Traces and the table through which callbacks find them. A tracer's state is a small integer, generation × 64 + place; a callback loads the
 * place's pointer and compares the state, so that a stale one finds nothing. Memory is freed only behind a barrier over all schedulers
 * (`trace_delivered`) that the agent passes after the pointer is gone; without it the trace is buried, and freed by the next one's start or with the library.
 */
#ifndef BEAMTRACE_TRACE_H
#define BEAMTRACE_TRACE_H

#include "rings.h"
#include "terms.h"
#include "tokens.h"
#include "trigger.h"

#define BT_TRACES 64
/* A generation that no earlier load of the library has given: flags that such a one has left on a process find nothing here. */
#define BT_GENERATION_MASK ((UINT64_C(1) << 48) - 1)
#define BT_FILTER_SIZE 256
#define BT_FILTER_MAX 128
#define BT_OWN_MODULES 32
#define BT_NO_PROCESS UINT64_C(0)
#define BT_REMOVED UINT64_C(1)
/* Atoms already told, one bit each, in pages that are allocated when needed. */
#define BT_ATOM_PAGE_BITS 15
#define BT_ATOM_PAGES (1u << (26 - BT_ATOM_PAGE_BITS))
/* A threshold that every hash lies below (sampling.h). */
#define BT_SAMPLE_ALL (1u << 27)
#define BT_BORN_SIZE 4096

enum { BT_MODE_NONE, BT_MODE_SHAPE, BT_MODE_CONTENTS };

/* Words that are not 0: modules or processes. Filled before anybody looks. */
#define BT_SET_SIZE 512
#define BT_SET_MAX 256

typedef struct {
    uint32_t count;
    uint64_t at[BT_SET_SIZE];
} bt_set;

typedef struct bt_trace bt_trace;

/* One place of the table. */
typedef struct {
    /* The tracer state that may pass, a small integer as the VM holds it; 0, which is no term: closed. */
    _Alignas(BT_CACHE_LINE) _Atomic bt_term state;
    _Atomic uint64_t mask; /* kinds wanted */
    _Atomic(bt_trace *) trace;
    /* Who is in the sample, and the highest threshold that there was. */
    _Atomic uint32_t threshold;
    _Atomic uint32_t ceiling;
    uint64_t generation; /* of the last trace here; under the lock of the table */
} bt_place;

struct bt_trace {
    /* Read by every callback: in one cache line. */
    _Alignas(BT_CACHE_LINE) bt_rings *rings;
    bt_term state;
    int64_t base; /* monotonic ns */
    bt_place *place;
    uint32_t mode;
    uint32_t scheduler_rings; /* the first of `rings` */
    /* Where contents are asked for: what, else NULL. */
    bt_contents *contents;
    bool scheduler;
    bool plain_frames; /* of instrumented code: every module's in every process, shapes alone, no scheduler */
    _Atomic uint32_t filter_count;
    bt_triggers triggers; /* its first two words */
    /* Whose processes are not to be seen. */
    bt_term holder;
    bt_term client_node;
    bt_term modules[BT_OWN_MODULES];
    uint32_t module_count;
    /* Open addressing, linear probing. */
    _Alignas(BT_CACHE_LINE) _Atomic uint64_t filter[BT_FILTER_SIZE];
    _Atomic bool filter_fresh[BT_FILTER_SIZE];
    _Atomic uint32_t filter_news;
    /* What instrumented code tells of, where it is to (frames.h). */
    struct {
        _Atomic bool on;
        bool every_module;
        bool every_process;
        bt_set modules;
        bt_set processes;
    } told;
    /* Processes that were born outside of the sample, by their hash. */
    _Atomic uint64_t born[BT_BORN_SIZE];
    _Atomic uint64_t outside; /* how many */
    /* The consumer's. */
    _Atomic bool consuming;
    uint64_t capacity;
    size_t bytes;
    uint64_t seen_filtered;
    double window_end; /* of what the flight recorder reads */
    _Atomic uint64_t kinds[BT_KIND_COUNT]; /* records taken, by kind */
    uint64_t *atoms[BT_ATOM_PAGES];
    bt_fun_name *funs; /* of local funs in contents: NULL as long as there are none */
    uint32_t fun_count;
    void *block; /* as allocated */
    bt_trace *buried;
    uint64_t burial;
};

static_assert(offsetof(bt_trace, triggers) + offsetof(bt_triggers, watch) <= BT_CACHE_LINE, "what every callback reads is in one cache line");

static bt_place bt_places[BT_TRACES];

/* Places whose traces want what instrumented code tells, one bit each. */
static _Atomic uint64_t bt_told;

/* The environment's second word is the process, whose first word is its pid: proved before it is relied on. */
static _Atomic bool bt_env_shows_process;

/* Of these traces the one, where there is one only and nobody need be asked for the process; else NULL. As safe as what is found in the table. */
static _Atomic(bt_trace *) bt_told_trace;

/* Under the lock of the table. */
static void bt_set_told(const bt_place *place, bool wants)
{
    uint64_t bit = UINT64_C(1) << (place - bt_places);
    uint64_t told = wants ? atomic_fetch_or(&bt_told, bit) | bit : atomic_fetch_and(&bt_told, ~bit) & ~bit;
    bool one = told != 0 && (told & (told - 1)) == 0 && atomic_load(&bt_env_shows_process);

    atomic_store(&bt_told_trace, one ? atomic_load(&bt_places[__builtin_ctzll(told)].trace) : NULL);
}

/*
 * Threads that are no scheduler, or a dirty one, and may be inside a trace. The barrier over all schedulers does not reach them; they count
 * themselves before they look for the trace, and whoever frees it takes it out of the table before it looks at the count.
 */
static _Atomic uint32_t bt_visitors;

/* The gate: the place of a tracer state, NULL when it is closed, stale, or no state of ours at all. Never touches a trace. */
static inline bt_place *bt_place_of(bt_term state)
{
    bt_place *place = &bt_places[(state >> 4) % BT_TRACES];

    return atomic_load_explicit(&place->state, memory_order_relaxed) == state ? place : NULL;
}

/*
 * Between the two loads the place may have been given to the next trace: whoever was put off there would write into a stranger's rings. What
 * is found can't be freed before this thread has left, so that it may be asked who it is.
 */
static inline bt_trace *bt_trace_of(bt_term state)
{
    bt_place *place = bt_place_of(state);
    bt_trace *trace;

    if (place == NULL)
        return NULL;
    trace = atomic_load_explicit(&place->trace, memory_order_acquire);
    return trace != NULL && trace->state == state ? trace : NULL;
}

static inline bool bt_wanted(const bt_place *place, uint32_t kind)
{
    return atomic_load_explicit(&place->mask, memory_order_relaxed) >> kind & 1;
}

static inline uint32_t bt_filter_place(uint64_t process) { return (uint32_t)(process * UINT64_C(0x9E3779B97F4A7C15) >> 56); }

static_assert(BT_FILTER_SIZE == 256, "bt_filter_place gives eight bits");

static inline bool bt_filtered(bt_trace *trace, uint64_t process)
{
    uint32_t at;

    if (atomic_load_explicit(&trace->filter_count, memory_order_relaxed) == 0)
        return false;
    at = bt_filter_place(process);
    for (uint32_t i = 0; i < BT_FILTER_SIZE; i++) {
        uint64_t found = atomic_load_explicit(&trace->filter[(at + i) % BT_FILTER_SIZE], memory_order_relaxed);

        if (found == process)
            return true;
        if (found == BT_NO_PROCESS)
            return false;
    }
    return false;
}

/* By one look, which is all that nearly every process takes. */
static inline bool bt_may_be_filtered(bt_trace *trace, uint64_t process)
{
    return atomic_load_explicit(&trace->filter[bt_filter_place(process)], memory_order_relaxed) != BT_NO_PROCESS;
}

static inline uint32_t bt_set_place(uint64_t word) { return (uint32_t)(word * UINT64_C(0x9E3779B97F4A7C15) >> 55); }

static_assert(BT_SET_SIZE == 512 && BT_SET_MAX < BT_SET_SIZE, "bt_set_place gives nine bits, and a place is always free");

static inline bool bt_set_has(const bt_set *set, uint64_t word)
{
    uint32_t at = bt_set_place(word);

    while (set->at[at] != 0) {
        if (set->at[at] == word)
            return true;
        at = (at + 1) % BT_SET_SIZE;
    }
    return false;
}

/* False when there is no room. */
static inline bool bt_set_add(bt_set *set, uint64_t word)
{
    uint32_t at = bt_set_place(word);

    if (bt_set_has(set, word))
        return true;
    if (set->count == BT_SET_MAX)
        return false;
    while (set->at[at] != 0)
        at = (at + 1) % BT_SET_SIZE;
    set->at[at] = word;
    set->count++;
    return true;
}

/* `fresh`: the agent is to be told. False when there is no room. */
static inline bool bt_filter_add(bt_trace *trace, uint64_t process, bool fresh)
{
    uint32_t at = bt_filter_place(process);

    if (bt_filtered(trace, process))
        return true;
    if (atomic_fetch_add_explicit(&trace->filter_count, 1, memory_order_relaxed) >= BT_FILTER_MAX) {
        atomic_fetch_sub_explicit(&trace->filter_count, 1, memory_order_relaxed);
        return false;
    }
    for (uint32_t i = 0; i < BT_FILTER_SIZE; i++) {
        uint32_t place = (at + i) % BT_FILTER_SIZE;
        uint64_t found = atomic_load_explicit(&trace->filter[place], memory_order_relaxed);

        if (found != BT_NO_PROCESS && found != BT_REMOVED)
            continue;
        if (!atomic_compare_exchange_strong_explicit(&trace->filter[place], &found, process, memory_order_relaxed,
                                                     memory_order_relaxed))
            continue;
        if (fresh) {
            atomic_store_explicit(&trace->filter_fresh[place], true, memory_order_release);
            atomic_fetch_add_explicit(&trace->filter_news, 1, memory_order_release);
        }
        return true;
    }
    atomic_fetch_sub_explicit(&trace->filter_count, 1, memory_order_relaxed);
    return false;
}

static inline void bt_filter_remove(bt_trace *trace, uint64_t process)
{
    uint32_t at = bt_filter_place(process);

    for (uint32_t i = 0; i < BT_FILTER_SIZE; i++) {
        uint32_t place = (at + i) % BT_FILTER_SIZE;
        uint64_t found = atomic_load_explicit(&trace->filter[place], memory_order_relaxed);

        if (found == BT_NO_PROCESS)
            return;
        if (found != process)
            continue;
        atomic_store_explicit(&trace->filter_fresh[place], false, memory_order_relaxed);
        atomic_store_explicit(&trace->filter[place], BT_REMOVED, memory_order_relaxed);
        atomic_fetch_sub_explicit(&trace->filter_count, 1, memory_order_relaxed);
        return;
    }
}

#endif
