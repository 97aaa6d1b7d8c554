/*
 * Opening, steering and closing traces: the agent's side of the library, but for draining (drain.h). Everything here runs in the one process
 * that owns the trace's resource, never in a traced one.
 */
#ifndef BEAMTRACE_OPEN_H
#define BEAMTRACE_OPEN_H

#include "callbacks.h"

#define BT_CAPACITY_MIN 64u
#define BT_CAPACITY_MAX (1u << 20)
#define BT_RINGS_MAX 1024u

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

static void bt_free_trace(bt_trace *trace)
{
    enif_mutex_lock(bt_table_lock);
    bt_bytes -= trace->bytes;
    enif_mutex_unlock(bt_table_lock);
    for (uint32_t i = 0; i < BT_ATOM_PAGES; i++)
        enif_free(trace->atoms[i]);
    enif_free(trace->funs);
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
    bt_set_told(place, false);
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

static inline size_t bt_whole_lines(size_t bytes) { return (bytes + BT_CACHE_LINE - 1) / BT_CACHE_LINE * BT_CACHE_LINE; }

/* `contents`: up to so many bytes, or 0. Each ring then has scratch for one event. */
static bt_trace *bt_allocate(uint32_t rings, uint64_t capacity, uint32_t contents)
{
    size_t trace_bytes = bt_whole_lines(sizeof(bt_trace));
    size_t record_bytes = (rings + 1) * capacity * sizeof(bt_record);
    size_t scratch = contents > 0 ? bt_whole_lines(BT_CONTENTS_BYTES(contents)) : 0;
    size_t more = contents > 0 ? bt_whole_lines(sizeof(bt_contents)) + (rings + BT_GUARDS) * scratch : 0;
    size_t bytes = BT_CACHE_LINE + trace_bytes + bt_rings_bytes(rings) + record_bytes + more;
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
    trace->scheduler_rings = rings;
    bt_rings_init(trace->rings, rings, (bt_record *)(void *)(at + trace_bytes + bt_rings_bytes(rings)), capacity);
    if (contents > 0) {
        at += trace_bytes + bt_rings_bytes(rings) + record_bytes;
        trace->contents = (bt_contents *)(void *)at;
        memset(trace->contents, 0, sizeof *trace->contents);
        trace->contents->bytes = (uint32_t)scratch;
        bt_rings_count_events(trace->rings, at + bt_whole_lines(sizeof(bt_contents)), scratch);
    }
    return trace;
}

/* A key whose values are not to be shown; false when there are too many. */
static bool bt_add_key(ErlNifEnv *env, bt_contents *contents, bt_term key)
{
    ErlNifBinary text;
    uint32_t at = bt_redact_place((uint32_t)key);

    if (bt_is_atom(key)) {
        if (contents->atom_count == BT_REDACT_MAX || bt_atom_word(key) == 0)
            return false;
        while (contents->atoms[at] != 0)
            at = (at + 1) % (2 * BT_REDACT_MAX);
        contents->atoms[at] = bt_atom_word(key);
        contents->atom_count++;
        return true;
    }
    if (!enif_inspect_binary(env, key, &text) || contents->key_count == BT_REDACT_MAX ||
        text.size > sizeof contents->text - contents->key_bytes)
        return false;
    memcpy(contents->text + contents->key_bytes, text.data, text.size);
    contents->keys[contents->key_count++] = (bt_key){contents->key_bytes, (uint32_t)text.size};
    contents->key_bytes += (uint32_t)text.size;
    contents->lengths |= UINT64_C(1) << (text.size < 63 ? text.size : 63);
    return true;
}

/* {MaxBytes, Keys, Node, Creation} */
typedef struct {
    unsigned max;
    bt_term keys;
    bt_term node;
    unsigned creation;
} bt_wanted_contents;

static bool bt_get_contents(ErlNifEnv *env, bt_term term, bt_wanted_contents *wanted)
{
    const bt_term *e;
    int arity;

    if (!enif_get_tuple(env, term, &arity, &e) || arity != 4 || !enif_get_uint(env, e[0], &wanted->max) || wanted->max == 0 ||
        wanted->max > BT_CONTENTS_MAX || !bt_is_atom(e[2]) || !enif_get_uint(env, e[3], &wanted->creation))
        return false;
    wanted->keys = e[1];
    wanted->node = e[2];
    return true;
}

static bool bt_set_contents(ErlNifEnv *env, bt_contents *contents, const bt_wanted_contents *wanted)
{
    bt_term list = wanted->keys;
    bt_term key;

    contents->max = wanted->max;
    contents->node = bt_atom_word(wanted->node);
    contents->creation = wanted->creation;
    while (enif_get_list_cell(env, list, &key, &list))
        if (!bt_add_key(env, contents, key))
            return false;
    return true;
}

/* All records of an event fit into a few segments of the smallest rings. */
static bool bt_has_room(uint64_t capacity, uint32_t contents)
{
    return BT_CONTENTS_BYTES(contents) / BT_CONTINUED_BYTES + 2 <= capacity / BT_GUARDS / 2;
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

/*
 * open(Rings, Capacity, {Shape | Contents, Scheduler, Mask}, {Holder, ClientNode, Modules}) -> {Trace, State, Base} |
 * {error, full | memory | unproven | contents}; the last: the rings are too small, or the keys too many.
 */
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
    bt_wanted_contents contents = {0, 0, 0, 0};

    BT_UNUSED;
    if (!enif_get_uint(env, argv[0], &rings) || rings == 0 || rings > BT_RINGS_MAX ||
        !enif_get_uint(env, argv[1], &capacity) || capacity < BT_CAPACITY_MIN || capacity > BT_CAPACITY_MAX ||
        (capacity & (capacity - 1)) != 0 || !enif_get_tuple(env, argv[2], &what_arity, &what) || what_arity != 3 ||
        !enif_get_uint64(env, what[2], &mask) || !enif_get_tuple(env, argv[3], &ours_arity, &ours) || ours_arity != 3 ||
        !bt_is_local_pid(ours[0]) || !bt_is_atom(ours[1]) || (!bt_is_atom(what[0]) && !bt_get_contents(env, what[0], &contents)))
        return enif_make_badarg(env);
    if (!atomic_load(&bt_proven))
        return enif_make_tuple2(env, bt_atoms.error, bt_atoms.unproven);
    if (contents.max > 0 && !bt_has_room(capacity, contents.max))
        return enif_make_tuple2(env, bt_atoms.error, bt_atoms.contents);
    trace = bt_allocate(rings, capacity, contents.max);
    if (trace == NULL)
        return enif_make_tuple2(env, bt_atoms.error, bt_atoms.memory);
    if (contents.max > 0 && !bt_set_contents(env, trace->contents, &contents)) {
        enif_free(trace->block);
        return enif_make_tuple2(env, bt_atoms.error, bt_atoms.contents);
    }
    trace->mode = contents.max > 0 ? BT_MODE_CONTENTS : what[0] == bt_atoms.true_ ? BT_MODE_SHAPE : BT_MODE_NONE;
    trace->scheduler = what[1] == bt_atoms.true_;
    trace->holder = ours[0];
    trace->client_node = ours[1];
    bt_look_at_clock();
    trace->base = bt_monotonic_ns(true);
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

/* A slice's pages: about a quarter of a millisecond where the system makes them. */
#define BT_TOUCHED_MAX 64
#define BT_PAGE 4096

/*
 * touch(Trace, From) -> Next | done: so many pages of the records' memory from byte From on are there now. Else the system makes each of them, 2 us, in the traced
 * process that writes there first.
 */
BT_NIF(trace_touch)
{
    bt_handle *handle;
    ErlNifUInt64 from;
    const bt_rings *rings;
    size_t bytes;
    unsigned char *records;

    BT_UNUSED;
    if (!bt_get_handle(env, argv[0], &handle) || !enif_get_uint64(env, argv[1], &from))
        return enif_make_badarg(env);
    rings = handle->trace->rings;
    records = (unsigned char *)rings->rings[0].records;
    bytes = (rings->count + 1) * handle->trace->capacity * sizeof(bt_record);
    for (int i = 0; i < BT_TOUCHED_MAX; i++, from += BT_PAGE) {
        if (from >= bytes)
            return bt_atoms.done;
        /* Instrumented code may be writing there already. */
        __atomic_fetch_or((uint64_t *)(void *)(records + from), 0, __ATOMIC_RELAXED);
    }
    return enif_make_uint64(env, from);
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
