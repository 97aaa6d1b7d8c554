/*
 * What instrumented code tells (docs/transform.md): the runtime module calls these functions at the entry and at the end of a frame, in every
 * process of the node, traced or not. No allocation, no lock, no send. The gate is one relaxed load. What a trace takes is told by its own sets of
 * modules and processes, as the VM's trace flags have no say here. Erlang code runs on normal schedulers only, so that the barrier over these
 * reaches everybody who is inside.
 */
#ifndef BEAMTRACE_FRAMES_H
#define BEAMTRACE_FRAMES_H

#include "control.h"
#include "drain.h"
#include "probe.h"

static_assert(BT_TRACES == 64, "a bit for each place");
static_assert(BT_RINGS_MAX <= 1024, "ten bits of an id tell the scheduler");

/* Ids of frames are even: twice (count × 1024 + ring), below 2^53 so that a double holds them. */
#define BT_FRAME_RING_BITS 10
#define BT_FRAME_COUNT_MASK ((UINT64_C(1) << (52 - BT_FRAME_RING_BITS)) - 1)
#define BT_HIDDEN_SIZE 256
#define BT_THREADS_SIZE 4096

/* Frames so far, by scheduler; each the scheduler's own. Begins with the clock, so that ids of another load are not met again. */
static struct {
    _Alignas(BT_CACHE_LINE) uint64_t count;
} bt_frames[BT_RINGS_MAX];
static uint64_t bt_frames_base;

/* Processes of beamtrace's, which may run instrumented code as well. One may take another's place, whose frames are then seen. */
static _Atomic uint64_t bt_hidden[BT_HIDDEN_SIZE];

/* What a thread is, by its thread pointer: thread-specific data as the VM offers it costs a fourth of all that is done here. */
static struct {
    _Atomic uintptr_t thread;
    _Atomic bt_self self;
} bt_threads[BT_THREADS_SIZE];

static inline uint32_t bt_hidden_place(bt_term process) { return (uint32_t)(process * UINT64_C(0x9E3779B97F4A7C15) >> 56); }

static inline bool bt_is_hidden(bt_term process)
{
    return atomic_load_explicit(&bt_hidden[bt_hidden_place(process)], memory_order_relaxed) == process;
}

static inline uint32_t bt_thread_place(uintptr_t thread) { return (uint32_t)((uint64_t)thread * UINT64_C(0x9E3779B97F4A7C15) >> 52); }

static_assert(BT_HIDDEN_SIZE == 256 && BT_THREADS_SIZE == 4096, "eight and twelve bits");

/* The entry of this thread, which nobody else writes; the first free one when it has none. NULL: no room. */
static uint32_t bt_thread_entry(uintptr_t thread)
{
    uint32_t place = bt_thread_place(thread);

    for (uint32_t i = 0; i < BT_THREADS_SIZE; i++) {
        uint32_t at = (place + i) % BT_THREADS_SIZE;
        uintptr_t found = atomic_load_explicit(&bt_threads[at].thread, memory_order_relaxed);

        if (found == thread)
            return at;
        if (found == 0 && atomic_compare_exchange_strong(&bt_threads[at].thread, &found, thread))
            return at;
    }
    return BT_THREADS_SIZE;
}

/* Once a thread, and where two threads have one place. */
static bt_self bt_frame_thread(uintptr_t thread) __attribute__((noinline));
static bt_self bt_frame_thread(uintptr_t thread)
{
    uint32_t at = bt_thread_entry(thread);
    bt_self self;

    if (at < BT_THREADS_SIZE && (self = atomic_load_explicit(&bt_threads[at].self, memory_order_relaxed)) != 0)
        return self;
    self = bt_get_self();
    if (at < BT_THREADS_SIZE)
        atomic_store_explicit(&bt_threads[at].self, self, memory_order_relaxed);
    return self;
}

BT_INLINE bt_self bt_frame_self(void)
{
    uintptr_t thread = (uintptr_t)__builtin_thread_pointer();
    uint32_t at = bt_thread_place(thread);
    bt_self self = atomic_load_explicit(&bt_threads[at].self, memory_order_relaxed);

    if (__builtin_expect(atomic_load_explicit(&bt_threads[at].thread, memory_order_relaxed) == thread && self != 0, 1))
        return self;
    return bt_frame_thread(thread);
}

/* The gate. */
BT_INLINE bool bt_nobody_is_told(void) { return atomic_load_explicit(&bt_told, memory_order_relaxed) == 0; }

/* A normal scheduler that has a ring. */
BT_INLINE bool bt_frame_has_ring(bt_self self)
{
    return (self & (3 | (uint64_t)(BT_SELF_RING_MAX & ~(BT_RINGS_MAX - 1)) << 2)) == BT_SCHEDULER_THREAD;
}

static_assert((BT_RINGS_MAX & (BT_RINGS_MAX - 1)) == 0, "a ring's number is below it when no higher bit is set");

/* The library is loaded: nobody is inside. */
static void bt_frames_begin(uint64_t now)
{
    atomic_store(&bt_told, 0);
    atomic_store(&bt_told_trace, NULL);
    memset(bt_threads, 0, sizeof bt_threads);
    memset(bt_hidden, 0, sizeof bt_hidden);
    bt_frames_base = now & BT_FRAME_COUNT_MASK;
    memset(bt_frames, 0, sizeof bt_frames);
    atomic_store(&bt_env_shows_process, false);
}

BT_INLINE uint64_t bt_frame_id(uint32_t ring)
{
    uint64_t count = (bt_frames_base + ++bt_frames[ring].count) & BT_FRAME_COUNT_MASK;

    return (count << BT_FRAME_RING_BITS | ring) << 1;
}

BT_INLINE bool bt_takes_frame(bt_trace *trace, bt_term module, bt_term process)
{
    return (trace->told.every_module || bt_set_has(&trace->told.modules, module)) &&
           (trace->told.every_process || bt_set_has(&trace->told.processes, process)) && !bt_filtered(trace, process);
}

typedef struct {
    uint32_t kind;
    uint32_t class;
    uint64_t id;
    bt_term module;
    uint32_t site;
    bt_term process;
} bt_frame;

#define BT_PAIR(low, high) ((uint64_t)(low) | (uint64_t)(high) << 32)

static_assert(BT_SLOT_HEAD == 0 && BT_SLOT_FLAGS == 1 && BT_STAMP == 1 && BT_SLOT_TRACEE_LOW == 4 && BT_FRAME_ID_LOW == 8 &&
                  BT_FRAME_SITE == 10 && BT_SLOT_SHAPE == 11 && BT_SLOT_TAG1 == 12 && BT_SLOT_TAG2 == 13 && BT_FRAME_MODULE == 14 &&
                  BT_FRAME_CLASS == 15,
              "the record is written in pairs of words");

/* Terms that contents may be of: one, or a row of them that stands for a list. NULL: there are none. */
typedef struct {
    const bt_term *terms;
    uint32_t count;
    bool row;
} bt_frame_content;

BT_INLINE void bt_fill_frame(bt_record *r, const bt_frame *frame, bt_shape shape, double stamp)
{
    r->pairs[0] = frame->kind;
    r->doubles[BT_STAMP] = stamp;
    r->pairs[2] = frame->process;
    r->pairs[3] = 0;
    r->pairs[4] = frame->id;
    r->pairs[5] = BT_PAIR(frame->site, shape.shape);
    r->pairs[6] = BT_PAIR(shape.tag1, shape.tag2);
    r->pairs[7] = BT_PAIR(bt_atom_word(frame->module), frame->class);
}

/* Writes the event into the ring of this scheduler. */
static void bt_write_frame(bt_trace *trace, bt_self self, const bt_frame *frame, bt_shape shape, bt_frame_content content)
{
    bt_ring *ring;
    bt_record *r;

    if (bt_self_ring(self) >= trace->scheduler_rings) {
        /* More schedulers than rings: that is none of those that the trace was opened for. */
        atomic_fetch_add_explicit(&trace->rings->refused, 1, memory_order_relaxed);
        return;
    }
    ring = &trace->rings->rings[bt_self_ring(self)];
    r = bt_ring_reserve(ring, false);
    if (r == NULL)
        return;
    if (trace->mode == BT_MODE_NONE)
        shape.shape = shape.tag1 = shape.tag2 = 0;
    bt_fill_frame(r, frame, shape, bt_stamp(trace, ring, false));
    if (trace->scheduler && bt_self_scheduler(self) != 0)
        r->words[BT_SLOT_HEAD] |= (bt_self_scheduler(self) - 1) << 16;
    if (trace->mode == BT_MODE_CONTENTS && content.terms != NULL)
        bt_commit_contents(ring, r,
                           content.row ? bt_keep_terms(trace->contents, ring->scratch, content.terms, content.count, bt_own.layout)
                                       : bt_keep_term(trace->contents, ring->scratch, *content.terms, bt_own.layout));
    else
        bt_ring_commit(ring);
}

static inline const uint64_t *bt_env_process(const ErlNifEnv *env)
{
    uint64_t words[2];

    memcpy(words, env, sizeof words);
    return (const uint64_t *)(uintptr_t)words[1];
}

/* Asking the VM who this is costs as much as the rest of what is read. */
BT_INLINE bool bt_frame_process(ErlNifEnv *env, bt_term *process)
{
    ErlNifPid pid;

    if (__builtin_expect(atomic_load_explicit(&bt_env_shows_process, memory_order_relaxed), 1)) {
        *process = *bt_env_process(env);
        return true;
    }
    if (enif_self(env, &pid) == NULL)
        return false;
    *process = pid.pid;
    return true;
}

/* In a process that is no callback's. */
static void bt_prove_env(ErlNifEnv *env)
{
    ErlNifPid pid;

    if (atomic_load(&bt_env_shows_process) || !bt_readable(env, 2) ||
        !bt_readable(bt_env_process(env), 1) || enif_self(env, &pid) == NULL)
        return;
    atomic_store(&bt_env_shows_process, *bt_env_process(env) == pid.pid);
}

/* The trace's part in a frame: an id at entry, where there is none yet, and the event. */
static void bt_tell_trace(bt_trace *trace, bt_self self, bt_frame *frame, bt_shape shape, bt_frame_content content)
{
    if (!bt_takes_frame(trace, frame->module, frame->process))
        return;
    if (frame->kind == BT_KIND_FUNCTION_ENTRY && frame->id == 0)
        frame->id = bt_frame_id(bt_self_ring(self));
    if (bt_wanted(trace->place, frame->kind))
        bt_write_frame(trace, self, frame, shape, content);
}

/* What becomes of a frame, for each trace that takes it: its id; 0 when no trace takes the entry. Ids that are odd are not ours. */
static uint64_t bt_tell(ErlNifEnv *env, bt_frame frame, bt_shape shape, bt_frame_content content) __attribute__((noinline));
static uint64_t bt_tell(ErlNifEnv *env, bt_frame frame, bt_shape shape, bt_frame_content content)
{
    uint64_t told = atomic_load_explicit(&bt_told, memory_order_acquire);
    bt_self self = bt_frame_self();

    if ((frame.id & 1) != 0 || !bt_frame_has_ring(self) || !bt_frame_process(env, &frame.process) || bt_is_hidden(frame.process))
        return 0;
    for (; told != 0; told &= told - 1) {
        bt_trace *trace = atomic_load_explicit(&bt_places[__builtin_ctzll(told)].trace, memory_order_acquire);

        /* The place may have been given to another trace since. */
        if (trace != NULL && atomic_load_explicit(&trace->told.on, memory_order_acquire))
            bt_tell_trace(trace, self, &frame, shape, content);
    }
    return frame.id;
}

/*
 * The usual way of a frame: one trace, which takes all of them, shapes alone; a scheduler that has a ring, with room; a stretch of the clock's line
 * at hand. All of that is looked at before anything is written, and nothing is called: what is not usual goes the long way from its beginning.
 */
typedef struct {
    bt_ring *ring;
    bt_record *record;
    bt_term process;
    uint32_t number; /* of the ring */
    uint64_t since;
} bt_usual;

BT_INLINE bool bt_is_usual(const ErlNifEnv *env, uint32_t kind, bt_usual *usual)
{
    bt_trace *trace = atomic_load_explicit(&bt_told_trace, memory_order_acquire);
    uintptr_t thread = (uintptr_t)__builtin_thread_pointer();
    uint32_t at = bt_thread_place(thread);
    bt_self self = atomic_load_explicit(&bt_threads[at].self, memory_order_relaxed);
    uint64_t head;

    if (trace == NULL || !trace->plain_frames || !bt_wanted(trace->place, kind) ||
        atomic_load_explicit(&bt_threads[at].thread, memory_order_relaxed) != thread || !bt_frame_has_ring(self))
        return false;
    usual->number = bt_self_ring(self);
    usual->process = *bt_env_process(env);
    if (usual->number >= trace->scheduler_rings || bt_is_hidden(usual->process) || bt_may_be_filtered(trace, usual->process))
        return false;
    usual->ring = &trace->rings->rings[usual->number];
    head = atomic_load_explicit(&usual->ring->head, memory_order_relaxed);
    usual->record = &usual->ring->records[head & usual->ring->mask];
    return head - usual->ring->known_tail <= usual->ring->mask && bt_ring_since(usual->ring, &usual->since);
}

BT_INLINE void bt_tell_usual(const bt_usual *usual, bt_frame frame, bt_shape shape)
{
    frame.process = usual->process;
    bt_fill_frame(usual->record, &frame, shape, bt_ring_in_order(usual->ring, bt_ring_told(usual->ring, usual->since)));
    bt_ring_commit_record(usual->ring);
}

BT_INLINE bt_frame bt_entered(const ERL_NIF_TERM argv[])
{
    return (bt_frame){BT_KIND_FUNCTION_ENTRY, 0, 0, argv[0], (uint32_t)bt_small(argv[1]), 0};
}

BT_INLINE bt_frame bt_ended(const ERL_NIF_TERM argv[], uint32_t kind, uint32_t class)
{
    return (bt_frame){kind, class, (uint64_t)bt_small(argv[0]), argv[1], (uint32_t)bt_small(argv[2]), 0};
}

BT_INLINE bt_shape bt_shape_of_row(int argc, const ERL_NIF_TERM argv[])
{
    return (bt_shape){bt_shape_word(BT_SHAPE_ARGS, (uint64_t)argc), argc > 0 ? bt_leading(argv[0]) : 0, argc > 1 ? bt_leading(argv[1]) : 0};
}

/* Either way. The frame's id, as bt_tell gives it. */
BT_INLINE uint64_t bt_tell_either(ErlNifEnv *env, bt_frame frame, bt_shape shape, bt_frame_content content)
{
    bt_usual usual;

    if (__builtin_expect((frame.id & 1) != 0 || !bt_is_usual(env, frame.kind, &usual), 0))
        return bt_nobody_is_told() ? 0 : bt_tell(env, frame, shape, content);
    if (frame.kind == BT_KIND_FUNCTION_ENTRY)
        frame.id = bt_frame_id(usual.number);
    bt_tell_usual(&usual, frame, shape);
    return frame.id;
}

/* The two that come most often have no call in their usual way, so that registers need not be saved. */
static ERL_NIF_TERM bt_enter_otherwise(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]) __attribute__((noinline));
static ERL_NIF_TERM bt_enter_otherwise(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[])
{
    bt_frame_content content = {argv + 2, (uint32_t)argc - 2, true};

    return bt_make_small(bt_nobody_is_told() ? 0 : bt_tell(env, bt_entered(argv), bt_shape_of_row(argc - 2, argv + 2), content));
}

static ERL_NIF_TERM bt_leave_otherwise(ErlNifEnv *env, const ERL_NIF_TERM argv[]) __attribute__((noinline));
static ERL_NIF_TERM bt_leave_otherwise(ErlNifEnv *env, const ERL_NIF_TERM argv[])
{
    if (!bt_nobody_is_told())
        (void)bt_tell_either(env, bt_ended(argv, BT_KIND_FUNCTION_RETURN, 0), bt_shape_of(env, argv[3], bt_own.layout),
                             (bt_frame_content){argv + 3, 1, false});
    return bt_atoms.ok;
}

/* enter(Module, Site, Argument...) -> Id | 0 */
BT_NIF(frame_enter)
{
    bt_frame frame = bt_entered(argv);
    bt_usual usual;

    if (__builtin_expect(!bt_is_usual(env, BT_KIND_FUNCTION_ENTRY, &usual), 0))
        return bt_enter_otherwise(env, argc, argv);
    frame.id = bt_frame_id(usual.number);
    bt_tell_usual(&usual, frame, bt_shape_of_row(argc - 2, argv + 2));
    return bt_make_small(frame.id);
}

/* enter_list(Module, Site, Arguments) -> Id | 0 */
BT_NIF(frame_enter_list)
{
    uint32_t arity;

    BT_UNUSED;
    if (bt_nobody_is_told())
        return bt_make_small(0);
    return bt_make_small(bt_tell_either(env, bt_entered(argv), bt_shape_of_args(env, argv[2], &arity), (bt_frame_content){argv + 2, 1, false}));
}

/* leave(Id, Module, Site, Result) -> ok */
BT_NIF(frame_leave)
{
    bt_frame frame = bt_ended(argv, BT_KIND_FUNCTION_RETURN, 0);
    bt_usual usual;
    bt_shape shape;

    BT_UNUSED;
    /* No term is looked at while there is no trace: how they lie may not have been proved yet. */
    if (__builtin_expect((frame.id & 1) != 0 || atomic_load_explicit(&bt_told_trace, memory_order_relaxed) == NULL ||
                             !bt_shape_at_sight(argv[3], bt_own.layout, &shape) || !bt_is_usual(env, BT_KIND_FUNCTION_RETURN, &usual),
                         0))
        return bt_leave_otherwise(env, argv);
    bt_tell_usual(&usual, frame, shape);
    return bt_atoms.ok;
}

/* tail(Id, Module, Site) -> ok */
BT_NIF(frame_tail)
{
    BT_UNUSED;
    (void)bt_tell_either(env, bt_ended(argv, BT_KIND_FUNCTION_TAIL_CALL, 0), (bt_shape){0, 0, 0}, (bt_frame_content){NULL, 1, false});
    return bt_atoms.ok;
}

/* exception(Id, Module, Site, Class, Reason, Stack) -> ok */
BT_NIF(frame_exception)
{
    uint32_t class = argv[3] == bt_atoms.error ? BT_CLASS_ERROR : argv[3] == bt_atoms.exit ? BT_CLASS_EXIT : BT_CLASS_THROW;

    BT_UNUSED;
    if (!bt_nobody_is_told())
        (void)bt_tell_either(env, bt_ended(argv, BT_KIND_FUNCTION_EXCEPTION, class), bt_shape_of(env, argv[4], bt_own.layout),
                             (bt_frame_content){argv + 4, 1, false});
    return bt_atoms.ok;
}

/* `all`, or the list's terms. False when they are too many, or none of these. */
static bool bt_get_set(ErlNifEnv *env, bt_term list, bool *every, bt_set *set, bool atoms)
{
    bt_term item;

    if (list == bt_atoms.all) {
        *every = true;
        return true;
    }
    while (enif_get_list_cell(env, list, &item, &list))
        if (!(atoms ? bt_is_atom(item) : bt_is_local_pid(item)) || !bt_set_add(set, item))
            return false;
    return bt_is_nil(list);
}

/* instrumented(Trace, Modules | all, Processes | all) -> boolean(): from now on the trace takes frames. False: too many. Once a trace. */
BT_NIF(trace_instrumented)
{
    bt_handle *handle;
    bt_trace *trace;

    BT_UNUSED;
    if (!bt_get_handle(env, argv[0], &handle) || atomic_load(&handle->trace->told.on))
        return enif_make_badarg(env);
    trace = handle->trace;
    bt_prove_env(env);
    if (!bt_get_set(env, argv[1], &trace->told.every_module, &trace->told.modules, true) ||
        !bt_get_set(env, argv[2], &trace->told.every_process, &trace->told.processes, false))
        return bt_atoms.false_;
    trace->plain_frames = trace->told.every_module && trace->told.every_process && trace->mode == BT_MODE_SHAPE && !trace->scheduler;
    enif_mutex_lock(bt_table_lock);
    if (atomic_load(&trace->place->trace) == trace) {
        atomic_store(&trace->told.on, true);
        bt_set_told(trace->place, true);
    }
    enif_mutex_unlock(bt_table_lock);
    return bt_atoms.true_;
}

/* hide(Process, Hidden) -> ok: one of ours. */
BT_NIF(frame_hide)
{
    uint64_t process = argv[0];

    BT_UNUSED;
    if (!bt_is_local_pid(process))
        return enif_make_badarg(env);
    if (argv[1] == bt_atoms.true_)
        atomic_store_explicit(&bt_hidden[bt_hidden_place(process)], process, memory_order_relaxed);
    else if (bt_is_hidden(process))
        atomic_store_explicit(&bt_hidden[bt_hidden_place(process)], 0, memory_order_relaxed);
    return bt_atoms.ok;
}

/* scheduler(Id) -> ok: the number of the scheduler that this runs on. */
BT_NIF(frame_scheduler)
{
    uint32_t at = bt_thread_entry((uintptr_t)__builtin_thread_pointer());
    bt_self self = bt_get_self();
    unsigned id;

    BT_UNUSED;
    if (!enif_get_uint(env, argv[0], &id) || id > 0x7ff)
        return enif_make_badarg(env);
    self = bt_set_self(bt_self_who(self), bt_self_ring(self), id + 1);
    if (at < BT_THREADS_SIZE)
        atomic_store_explicit(&bt_threads[at].self, self, memory_order_relaxed);
    return bt_atoms.ok;
}

#endif
