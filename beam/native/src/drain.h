/*
 * Opening, draining and closing traces: the agent's side of the library. Everything here runs in the one process that owns the trace's
 * resource, never in a traced one.
 */
#ifndef BEAMTRACE_DRAIN_H
#define BEAMTRACE_DRAIN_H

#include "callbacks.h"
#include "translate.h"

#define BT_CAPACITY_MIN 64u
#define BT_CAPACITY_MAX (1u << 20)
#define BT_RINGS_MAX 1024u
#define BT_DRAIN_MAX 16384u

typedef struct {
    bt_trace *trace;
} bt_handle;

static ErlNifResourceType *bt_handle_type;
static ErlNifMutex *bt_table_lock;
static bt_trace *bt_buried;
static uint64_t bt_buried_count;
static uint64_t bt_burials;
static uint64_t bt_bytes;
/* The agent has found that this VM's terms are read rightly. */
static _Atomic bool bt_proven;

static const uint32_t bt_atom_masks[BT_KIND_COUNT] = BT_RAW_ATOM_MASKS;

static void bt_free_trace(bt_trace *trace)
{
    enif_mutex_lock(bt_table_lock);
    bt_bytes -= trace->bytes;
    enif_mutex_unlock(bt_table_lock);
    for (uint32_t i = 0; i < BT_ATOM_PAGES; i++)
        enif_free(trace->atoms[i]);
    enif_free(trace->block);
}

/* No callback finds the trace any more; those that have found it may still be at work. */
static void bt_shut(bt_trace *trace)
{
    bt_place *place = trace->place;

    if (atomic_load(&place->trace) != trace)
        return;
    atomic_store(&place->state, 0);
    atomic_store(&place->mask, 0);
    atomic_fetch_and(&bt_told, ~(UINT64_C(1) << (place - bt_places)));
    atomic_store(&place->trace, NULL);
}

/* Its owner has died without a barrier: the memory stays until somebody passes one for it (reap), or the library goes. */
static void bt_bury(ErlNifEnv *env, void *object)
{
    bt_handle *handle = object;

    (void)env;
    if (handle->trace == NULL)
        return;
    enif_mutex_lock(bt_table_lock);
    bt_shut(handle->trace);
    handle->trace->burial = ++bt_burials;
    handle->trace->buried = bt_buried;
    bt_buried = handle->trace;
    bt_buried_count++;
    enif_mutex_unlock(bt_table_lock);
    handle->trace = NULL;
}

static bool bt_get_handle(ErlNifEnv *env, bt_term term, bt_handle **handle)
{
    void *object;

    if (!enif_get_resource(env, term, bt_handle_type, &object))
        return false;
    *handle = object;
    return (*handle)->trace != NULL;
}

static void bt_look_at_clock(void)
{
    enif_mutex_lock(bt_table_lock);
    bt_clock_look();
    enif_mutex_unlock(bt_table_lock);
}

static bt_trace *bt_allocate(uint32_t rings, uint64_t capacity)
{
    size_t trace_bytes = (sizeof(bt_trace) + BT_CACHE_LINE - 1) / BT_CACHE_LINE * BT_CACHE_LINE;
    size_t bytes = BT_CACHE_LINE + trace_bytes + bt_rings_bytes(rings) + (rings + 1) * capacity * sizeof(bt_record);
    unsigned char *block = enif_alloc(bytes);
    unsigned char *at;
    bt_trace *trace;

    if (block == NULL)
        return NULL;
    at = block + (BT_CACHE_LINE - (uintptr_t)block % BT_CACHE_LINE) % BT_CACHE_LINE;
    trace = (bt_trace *)(void *)at;
    memset(trace, 0, sizeof *trace);
    trace->block = block;
    trace->bytes = bytes;
    trace->capacity = capacity;
    trace->rings = (bt_rings *)(void *)(at + trace_bytes);
    bt_rings_init(trace->rings, rings, (bt_record *)(void *)(at + trace_bytes + bt_rings_bytes(rings)), capacity);
    return trace;
}

static bool bt_get_modules(ErlNifEnv *env, bt_term list, bt_trace *trace)
{
    bt_term module;

    while (enif_get_list_cell(env, list, &module, &list)) {
        if (!bt_is_atom(module) || trace->module_count == BT_OWN_MODULES)
            return false;
        trace->modules[trace->module_count++] = module;
    }
    return bt_is_nil(list);
}

/* Puts the trace into the table; false when all places are taken. */
static bool bt_seat(bt_trace *trace, uint64_t mask)
{
    bool seated = false;

    enif_mutex_lock(bt_table_lock);
    for (uint64_t i = 0; i < BT_TRACES && !seated; i++) {
        bt_place *place = &bt_places[i];

        if (atomic_load(&place->trace) != NULL)
            continue;
        place->generation = (place->generation + 1) & BT_GENERATION_MASK;
        trace->place = place;
        trace->state = ((place->generation * BT_TRACES + i) << 4) | 0xf;
        atomic_store(&place->mask, mask);
        atomic_store(&place->threshold, BT_SAMPLE_ALL);
        atomic_store(&place->ceiling, 0);
        atomic_store(&place->trace, trace);
        atomic_store(&place->state, trace->state);
        bt_bytes += trace->bytes;
        seated = true;
    }
    enif_mutex_unlock(bt_table_lock);
    return seated;
}

/* open(Rings, Capacity, {Shape, Scheduler, Mask}, {Holder, ClientNode, Modules}) -> {Trace, State, Base} | {error, full | memory | unproven} */
BT_NIF(trace_open)
{
    const bt_term *what;
    const bt_term *ours;
    int what_arity;
    int ours_arity;
    unsigned rings;
    unsigned capacity;
    ErlNifUInt64 mask;
    bt_trace *trace;
    bt_handle *handle;
    bt_term term;

    BT_UNUSED;
    if (!enif_get_uint(env, argv[0], &rings) || rings == 0 || rings > BT_RINGS_MAX ||
        !enif_get_uint(env, argv[1], &capacity) || capacity < BT_CAPACITY_MIN || capacity > BT_CAPACITY_MAX ||
        (capacity & (capacity - 1)) != 0 || !enif_get_tuple(env, argv[2], &what_arity, &what) || what_arity != 3 ||
        !enif_get_uint64(env, what[2], &mask) || !enif_get_tuple(env, argv[3], &ours_arity, &ours) || ours_arity != 3 ||
        !bt_is_local_pid(ours[0]) || !bt_is_atom(ours[1]))
        return enif_make_badarg(env);
    if (!atomic_load(&bt_proven))
        return enif_make_tuple2(env, bt_atoms.error, bt_atoms.unproven);
    trace = bt_allocate(rings, capacity);
    if (trace == NULL)
        return enif_make_tuple2(env, bt_atoms.error, bt_atoms.memory);
    trace->mode = what[0] == bt_atoms.true_ ? BT_MODE_SHAPE : BT_MODE_NONE;
    trace->scheduler = what[1] == bt_atoms.true_;
    trace->holder = ours[0];
    trace->client_node = ours[1];
    bt_look_at_clock();
    trace->base = bt_monotonic_ns();
    if (!bt_get_modules(env, ours[2], trace)) {
        enif_free(trace->block);
        return enif_make_badarg(env);
    }
    handle = enif_alloc_resource(bt_handle_type, sizeof *handle);
    if (handle == NULL || !bt_seat(trace, mask)) {
        if (handle != NULL) {
            handle->trace = NULL;
            enif_release_resource(handle);
        }
        enif_free(trace->block);
        return enif_make_tuple2(env, bt_atoms.error, bt_atoms.full);
    }
    handle->trace = trace;
    term = enif_make_resource(env, handle);
    enif_release_resource(handle);
    return enif_make_tuple3(env, term, trace->state, enif_make_int64(env, trace->base));
}

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
    dictionary = bt_finish_records(env, trace, records, count, &markers);
    result = enif_make_tuple(env, 8, enif_make_uint64(env, count - markers), binary, dictionary, enif_make_uint64(env, lost),
                             enif_make_uint64(env, bt_filtered_since(trace)),
                             enif_make_uint64(env, waiting),
                             enif_make_int64(env, now - trace->base), bt_news(env, trace));
    atomic_store(&trace->consuming, false);
    /* 1 % of a time slice for about 80 records of 125 ns. */
    (void)enif_consume_timeslice(env, count / 80 >= 99 ? 99 : (int)(count / 80) + 1);
    return result;
}

/* mask(Trace, Kinds) -> ok: from now on nothing but these. */
BT_NIF(trace_mask)
{
    bt_handle *handle;
    ErlNifUInt64 mask;

    BT_UNUSED;
    if (!bt_get_handle(env, argv[0], &handle) || !enif_get_uint64(env, argv[1], &mask))
        return enif_make_badarg(env);
    enif_mutex_lock(bt_table_lock);
    /* After it was shut the place may be another's. */
    if (atomic_load(&handle->trace->place->trace) == handle->trace)
        atomic_store(&handle->trace->place->mask, mask);
    enif_mutex_unlock(bt_table_lock);
    return bt_atoms.ok;
}

/* filter(Trace, Process, Filtered) -> boolean: false when there is no room. */
BT_NIF(trace_filter)
{
    bt_handle *handle;

    BT_UNUSED;
    if (!bt_get_handle(env, argv[0], &handle) || !(bt_is_local_pid(argv[1]) || bt_is_local_port(argv[1])))
        return enif_make_badarg(env);
    if (argv[2] == bt_atoms.true_)
        return bt_filter_add(handle->trace, argv[1], false) ? bt_atoms.true_ : bt_atoms.false_;
    bt_filter_remove(handle->trace, argv[1]);
    return bt_atoms.true_;
}

/* shut(Trace) -> ok: no callback finds the trace any more. The barrier comes next. */
BT_NIF(trace_shut)
{
    bt_handle *handle;

    BT_UNUSED;
    if (!bt_get_handle(env, argv[0], &handle))
        return enif_make_badarg(env);
    enif_mutex_lock(bt_table_lock);
    bt_shut(handle->trace);
    enif_mutex_unlock(bt_table_lock);
    return bt_atoms.ok;
}

/* free(Trace) -> ok | busy: only after shut, and a barrier over all schedulers after that. */
BT_NIF(trace_free)
{
    bt_handle *handle;
    bt_trace *trace;

    BT_UNUSED;
    if (!bt_get_handle(env, argv[0], &handle))
        return enif_make_badarg(env);
    trace = handle->trace;
    if (atomic_load(&trace->place->trace) == trace || atomic_exchange(&trace->consuming, true))
        return enif_make_badarg(env);
    atomic_thread_fence(memory_order_seq_cst);
    if (atomic_load(&bt_visitors) != 0) {
        atomic_store(&trace->consuming, false);
        return bt_atoms.busy;
    }
    handle->trace = NULL;
    bt_free_trace(trace);
    return bt_atoms.ok;
}

/* reap(Upto) -> {Last, Left}: frees the burials up to this number, after which a barrier has been passed. Last: the latest burial's number. */
BT_NIF(reap)
{
    ErlNifUInt64 upto;
    bt_trace **at = &bt_buried;
    bt_trace *freed = NULL;
    bt_term result;

    BT_UNUSED;
    if (!enif_get_uint64(env, argv[0], &upto))
        return enif_make_badarg(env);
    enif_mutex_lock(bt_table_lock);
    atomic_thread_fence(memory_order_seq_cst);
    while (*at != NULL && atomic_load(&bt_visitors) == 0) {
        bt_trace *trace = *at;

        if (trace->burial <= upto) {
            *at = trace->buried;
            trace->buried = freed;
            freed = trace;
            bt_buried_count--;
        } else {
            at = &trace->buried;
        }
    }
    result = enif_make_tuple2(env, enif_make_uint64(env, bt_burials), enif_make_uint64(env, bt_buried_count));
    enif_mutex_unlock(bt_table_lock);
    while (freed != NULL) {
        bt_trace *next = freed->buried;

        bt_free_trace(freed);
        freed = next;
    }
    return result;
}

/* usage() -> {Open, Buried, Bytes} */
BT_NIF(usage)
{
    unsigned open = 0;
    bt_term result;

    BT_UNUSED;
    (void)argv;
    enif_mutex_lock(bt_table_lock);
    for (uint32_t i = 0; i < BT_TRACES; i++)
        open += atomic_load(&bt_places[i].trace) != NULL;
    result = enif_make_tuple3(env, enif_make_uint(env, open), enif_make_uint64(env, bt_buried_count),
                              enif_make_uint64(env, bt_bytes));
    enif_mutex_unlock(bt_table_lock);
    return result;
}

#endif
