/*
 * The native tracer itself, all of it, under threads that do what the VM's threads do: schedulers and other threads run processes that start, work
 * and die, traced by several traces at once; managers open, drain, stop and lose traces all the while. Checks that no record is torn, that each
 * process's events come in order, that produced = delivered + lost wherever a trace was stopped by the protocol, and that no memory is left.
 * Usage: torture SECONDS [beamtrace_nif.so]: with a library it is loaded, and loaded again and again; without one the code is linked in.
 */
#include <dlfcn.h>
#include <sched.h>
#include <unistd.h>

#include "vm.h"

#include "event_schema.h"

#define SCHEDULERS 3
#define OTHERS 3
#define THREADS (SCHEDULERS + OTHERS)
#define MANAGERS 3
#define PROCESSES 4096
#define BEFORE_UNLOAD 40
#define PID(n) ((term)((uint64_t)(n) << 4 | 3))

typedef ERL_NIF_TERM (*nif)(ErlNifEnv *, int, const ERL_NIF_TERM[]);

static struct {
    nif enabled, enabled_gc, enabled_send, enabled_receive, enabled_procs, trace, trace_gc, trace_receive, trace_procs;
    nif open, drain, mask, filter, shut, free, reap, share, produced, mark, usage, layout, proven;
    nif overwrite, trigger, arm, look, window, peek, contents;
    nif enter, leave, tail, instrumented, hide;
} f;

static struct {
    const char *name;
    nif *to;
} const wanted[] = {
    {"enabled", &f.enabled},
    {"enabled_garbage_collection", &f.enabled_gc},
    {"enabled_send", &f.enabled_send},
    {"enabled_receive", &f.enabled_receive},
    {"enabled_procs", &f.enabled_procs},
    {"trace", &f.trace},
    {"trace_garbage_collection", &f.trace_gc},
    {"trace_receive", &f.trace_receive},
    {"trace_procs", &f.trace_procs},
    {"open", &f.open},
    {"drain", &f.drain},
    {"mask", &f.mask},
    {"filter", &f.filter},
    {"shut", &f.shut},
    {"free", &f.free},
    {"reap", &f.reap},
    {"share", &f.share},
    {"produced", &f.produced},
    {"mark", &f.mark},
    {"usage", &f.usage},
    {"layout", &f.layout},
    {"proven", &f.proven},
    {"overwrite", &f.overwrite},
    {"trigger", &f.trigger},
    {"arm", &f.arm},
    {"look", &f.look},
    {"window", &f.window},
    {"peek", &f.peek},
    {"contents", &f.contents},
    {"enter", &f.enter},
    {"leave", &f.leave},
    {"tail", &f.tail},
    {"instrumented", &f.instrumented},
    {"hide", &f.hide},
};

static struct {
    _Atomic bool taken;
    uint32_t id;
    uint32_t events;
} processes[PROCESSES];

/* What processes carry: the states of the traces, and how often a trace was called for, by thread. */
static struct {
    _Atomic uint64_t state;
    _Alignas(128) _Atomic uint64_t called[THREADS];
} flags[MANAGERS];

/* Odd while a thread runs a process; what is read of a flag does not outlive that. */
static struct {
    _Alignas(128) _Atomic uint64_t turn;
} turns[THREADS];

static _Atomic bool stopping;
static _Atomic bool pausing;
static _Atomic uint32_t next_id = 1;
static _Atomic uint64_t delivered_in_all, lost_in_all, fired_in_all, frames_in_all, contents_in_all, stopped_in_all, killed_in_all, loads;
static pthread_rwlock_t loaded = PTHREAD_RWLOCK_INITIALIZER;
static term a_send, a_receive, a_gc, a_spawned, a_exit, a_extra, a_true, a_trace, a_size, a_m, a_f, a_undefined, a_status;

static void fail(const char *what)
{
    fprintf(stderr, "%s\n", what);
    abort();
}

static uint64_t next(uint64_t *seed)
{
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    return *seed;
}

/* What the VM does for a traced event. */
static void event(ErlNifEnv *env, int thread, nif enabled, nif trace, const term *what)
{
    for (int i = 0; i < MANAGERS; i++) {
        uint64_t state = atomic_load_explicit(&flags[i].state, memory_order_acquire);
        term argv[5] = {what[0], state, what[1], what[2], what[3]};

        if (state == 0)
            continue;
        env->callback = true;
        if (enabled(env, 3, argv) == a_trace) {
            atomic_fetch_add_explicit(&flags[i].called[thread], 1, memory_order_relaxed);
            (void)trace(env, 5, argv);
        }
        env->callback = false;
    }
}

/* It is scheduled in, and goes on whatever the answer is. */
static void status(ErlNifEnv *env, term pid)
{
    for (int i = 0; i < MANAGERS; i++) {
        uint64_t state = atomic_load_explicit(&flags[i].state, memory_order_acquire);

        if (state == 0)
            continue;
        env->callback = true;
        (void)f.enabled(env, 3, (term[]){a_status, state, pid});
        env->callback = false;
    }
}

/* An instrumented call: what is told of it is numbered by its sites. Erlang code runs on schedulers only. */
static void call(ErlNifEnv *env, uint32_t number, uint64_t *seed)
{
    term result = vm_tuple(env, 2, (term[]){a_m, a_f});
    term id;

    env->callback = true;
    id = f.enter(env, 4, (term[]){a_m, SMALL(++processes[number].events), a_f, SMALL(1)});
    if (id != SMALL(0)) {
        if ((id >> 4) % 2 != 0)
            fail("an odd id");
        if (next(seed) % 2 == 0)
            (void)f.leave(env, 4, (term[]){id, a_m, SMALL(++processes[number].events), result});
        else
            (void)f.tail(env, 3, (term[]){id, a_m, SMALL(++processes[number].events)});
    }
    env->callback = false;
}

#define LONGEST 400

/* Bytes that are all the same, the last one too: what is cut still shows whether it is torn. */
static term bytes_of(ErlNifEnv *env, uint64_t *seed)
{
    unsigned size = (unsigned)(next(seed) % LONGEST);
    term t;

    memset(enif_make_new_binary(env, size, &t), (int)(size & 0xff), size);
    return t;
}

/* Small mostly; long, deep and wide now and then. */
static term content(ErlNifEnv *env, uint64_t *seed)
{
    term t = SMALL(*seed >> 40);
    uint64_t kind = next(seed) % 16;

    if (kind == 0)
        for (int i = 0; i < 100; i++)
            t = vm_tuple(env, 1 + i % 3, (term[]){t, a_f, t});
    else if (kind == 1)
        for (int i = 0; i < 500; i++)
            t = vm_cell(env, i % 2 == 0 ? a_m : NIL, i == 0 ? NIL : t);
    else if (kind == 2)
        t = vm_map(env, 3, (term[]){a_m, t, a_f, a_m, a_size, vm_cell(env, t, t)});
    else if (kind == 3)
        for (int i = 0; i < 80; i++)
            t = vm_map(env, 1, (term[]){t, a_f});
    return t;
}

static void live(ErlNifEnv *env, int thread, uint32_t number, uint64_t *seed)
{
    term pid = PID(processes[number].id);
    term none = vm_map(env, 0, NULL);

    env->pid = pid;
    if (next(seed) % 4 == 0)
        status(env, pid);
    if (vm_thread_type == ERL_NIF_THR_NORMAL_SCHEDULER && next(seed) % 2 == 0)
        call(env, number, seed);

    switch (next(seed) % 8) {
    case 0: {
        term message = vm_tuple(env, 4, (term[]){a_m, vm_tuple(env, 1, (term[]){a_f}), bytes_of(env, seed), content(env, seed)});
        term options = vm_map(env, 1, (term[]){a_extra, PID(*seed % PROCESSES)});

        event(env, thread, f.enabled_send, f.trace, (term[]){a_send, pid, message, options});
        break;
    }
    case 1:
        event(env, thread, f.enabled_receive, f.trace_receive,
              (term[]){a_receive, pid, vm_map(env, 1, (term[]){a_m, bytes_of(env, seed)}), none});
        break;
    case 2: {
        /* It ends, and another begins. */
        term extra = vm_map(env, 1, (term[]){a_extra, vm_tuple(env, 3, (term[]){a_m, a_f, NIL})});

        event(env, thread, f.enabled_procs, f.trace_procs, (term[]){a_exit, pid, a_m, none});
        processes[number].id = atomic_fetch_add_explicit(&next_id, 1, memory_order_relaxed) & 0x7ffffff;
        processes[number].events = 0;
        event(env, thread, f.enabled_procs, f.trace_procs, (term[]){a_spawned, PID(processes[number].id), pid, extra});
        break;
    }
    default:
        /* A thread that may not ask for the time knows it to a few microseconds only: no order to be checked. */
        if (vm_thread_type == ERL_NIF_THR_UNDEFINED)
            break;
        /* The one kind that carries a number of its own. */
        processes[number].events++;
        event(env, thread, f.enabled_gc, f.trace_gc,
              (term[]){a_gc, pid,
                       vm_cell(env, vm_tuple(env, 2, (term[]){a_size, SMALL(processes[number].events)}), NIL), none});
    }
}

static void *work(void *argument)
{
    int thread = (int)(intptr_t)argument;
    ErlNifEnv env = {.heap = malloc(4096 * sizeof(uint64_t)), .size = 4096};
    uint64_t seed = 0x9E3779B97F4A7C15u * (uint64_t)(thread + 1);

    env.process = &env.pid;

    vm_thread_type = thread < SCHEDULERS     ? ERL_NIF_THR_NORMAL_SCHEDULER
                     : thread < THREADS - 1 ? ERL_NIF_THR_DIRTY_CPU_SCHEDULER
                                            : ERL_NIF_THR_UNDEFINED;
    while (!atomic_load(&stopping)) {
        uint32_t number = (uint32_t)(next(&seed) >> 20) % (next(&seed) % 4 == 0 ? PROCESSES : 16);

        atomic_fetch_add(&turns[thread].turn, 1);
        if (!atomic_load(&pausing) && !atomic_exchange(&processes[number].taken, true)) {
            for (uint64_t n = next(&seed) % 16; n > 0; n--) {
                env.used = 0;
                live(&env, thread, number, &seed);
            }
            atomic_store(&processes[number].taken, false);
        }
        atomic_fetch_add(&turns[thread].turn, 1);
        if (next(&seed) % 64 == 0)
            (void)sched_yield();
    }
    free(env.heap);
    return NULL;
}

/* Until each of these threads has ended the turn that it is in. */
static void barrier(int from, int to)
{
    for (int i = from; i < to; i++) {
        uint64_t turn = atomic_load(&turns[i].turn);

        while (turn % 2 == 1 && atomic_load(&turns[i].turn) == turn)
            (void)sched_yield();
    }
}

typedef struct {
    uint32_t id;
    uint32_t number;
} seen_event;

typedef struct {
    int place;
    ErlNifEnv env;
    uint64_t seed;
    term trace;
    uint64_t delivered, lost, frames;
    seen_event *seen; /* by process: the last event's number */
    bool contents;
} manager;

#define SEEN (1u << 16)

/* The records that this thread sorts. */
static _Thread_local const double *sorting;

/* Records of one ring with the same stamp stay in their order, as with the client; not every C library's qsort is stable. */
static int by_stamp(const void *a, const void *b)
{
    uint32_t i = *(const uint32_t *)a;
    uint32_t j = *(const uint32_t *)b;
    double x = sorting[i * (BT_SLOT_WORDS / 2) + BT_SLOT_TIMESTAMP / 2];
    double y = sorting[j * (BT_SLOT_WORDS / 2) + BT_SLOT_TIMESTAMP / 2];

    return x != y ? (x < y ? -1 : 1) : (i > j) - (i < j);
}

static void check(manager *m, const uint32_t *w)
{
    uint32_t kind = w[BT_SLOT_HEAD] & 0xff;
    uint32_t id = w[BT_SLOT_TRACEE_LOW] >> 4;
    seen_event *seen = &m->seen[id % SEEN];

    if ((w[BT_SLOT_TRACEE_LOW] & 0xf) != BT_IDENTITY_PID || w[BT_SLOT_TRACEE_HIGH] != 0)
        fail("a record without a process");
    switch (kind) {
    case BT_KIND_MARKER:
        if (w[BT_SLOT_TAG1] == 0 || w[BT_SLOT_FLAGS] != BT_FLAG_NUMBERS)
            fail("a torn marker");
        break;
    case BT_KIND_GC_MINOR_START:
        if (seen->id == id && w[9] <= seen->number)
            fail("events of a process out of order");
        *seen = (seen_event){id, w[9]};
        break;
    case BT_KIND_FUNCTION_ENTRY:
    case BT_KIND_FUNCTION_RETURN:
    case BT_KIND_FUNCTION_TAIL_CALL:
        if (w[BT_FRAME_MODULE] != a_m || (w[BT_FRAME_ID_LOW] & 1) != 0 || (w[BT_FRAME_ID_LOW] | w[BT_FRAME_ID_HIGH]) == 0)
            fail("a torn frame");
        if (kind == BT_KIND_FUNCTION_ENTRY && (w[BT_SLOT_SHAPE] != (BT_SHAPE_ARGS | 2 << 4) || w[BT_SLOT_TAG1] != a_f))
            fail("a torn entry");
        if (seen->id == id && w[BT_FRAME_SITE] <= seen->number)
            fail("frames of a process out of order");
        *seen = (seen_event){id, w[BT_FRAME_SITE]};
        m->frames++;
        break;
    case BT_KIND_SEND:
        if (w[BT_SLOT_SHAPE] != (BT_SHAPE_TUPLE | 4 << 4) || w[BT_SLOT_TAG1] != a_m || w[BT_SLOT_TAG2] != a_f)
            fail("a torn send");
        break;
    case BT_KIND_RECEIVE:
        if (w[BT_SLOT_SHAPE] != (BT_SHAPE_MAP | 1 << 4))
            fail("a torn receive");
        break;
    case BT_KIND_EXIT:
        if (w[BT_SLOT_SHAPE] != BT_SHAPE_ATOM || w[BT_SLOT_TAG1] != a_m)
            fail("a torn exit");
        break;
    case BT_KIND_SPAWNED:
        if (w[BT_RAW_SPAWN_MODULE] != a_m || w[BT_RAW_SPAWN_FUNCTION] != a_f)
            fail("a torn spawned");
        break;
    default:
        fail("a record of no kind that was made");
    }
}

static uint32_t big_endian(const unsigned char *at) { return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3]; }

/* Where the external term at `at` ends; fails when it does not, before `end`. The bytes of a binary are all the same. */
static const unsigned char *end_of(const unsigned char *at, const unsigned char *end)
{
    uint32_t count;

    if (end - at < 1 || (end - at < 2 && *at != 106))
        fail("a content that is cut off");
    switch (*at) {
    case 97:
        at += 2;
        break;
    case 98:
        at += 5;
        break;
    case 106:
        at += 1;
        break;
    case 110:
        at += 3 + at[1];
        break;
    case 119:
        at += 2 + at[1];
        break;
    case 109:
        count = end - at < 5 ? UINT32_MAX : big_endian(at + 1);
        if (count > LONGEST || end - at < 5 + (ptrdiff_t)count)
            fail("a binary that is longer than what was kept");
        for (uint32_t i = 1; i < count; i++)
            if (at[5 + i] != at[5])
                fail("a torn content");
        at += 5 + count;
        break;
    case 104:
    case 108:
    case 116:
        if (end - at < (*at == 104 ? 2 : 5))
            fail("a container that is cut off");
        count = *at == 104 ? at[1] : *at == 108 ? big_endian(at + 1) + 1 : 2 * big_endian(at + 1);
        at += *at == 104 ? 2 : 5;
        for (uint32_t i = 0; i < count; i++)
            at = end_of(at, end);
        break;
    default:
        fail("a content of no kind that was made");
    }
    if (at > end)
        fail("a content that goes beyond its end");
    return at;
}

static void check_content(const unsigned char *at, uint32_t size)
{
    if (size < 2 || at[0] != 131 || end_of(at + 1, at + size) != at + size)
        fail("a content that is no term");
}

/* The records that came, ready to be looked at: where contents are kept these are another binary, of events alone. */
static term finished(manager *m, term records)
{
    const term *e;
    const uint64_t *events;
    const unsigned char *at;
    uint64_t left;
    int arity;

    if (!m->contents)
        return records;
    if (!enif_get_tuple(&m->env, f.contents(&m->env, 2, (term[]){m->trace, records}), &arity, &e) || arity != 3)
        fail("contents refuses");
    events = vm_box(e[0]);
    at = (const unsigned char *)(vm_box(e[1]) + 2);
    left = vm_box(e[1])[1];
    for (uint64_t i = 0; i < events[1] / BT_SLOT_BYTES; i++) {
        const uint32_t *w = (const uint32_t *)(events + 2) + i * BT_SLOT_WORDS;
        uint32_t kind = w[BT_SLOT_HEAD] & 0xff;
        uint32_t size;

        bool has = kind == BT_KIND_SEND || kind == BT_KIND_RECEIVE || kind == BT_KIND_EXIT || kind == BT_KIND_FUNCTION_ENTRY ||
                   kind == BT_KIND_FUNCTION_RETURN;

        if (has != (w[BT_SLOT_FLAGS] & BT_FLAG_PAYLOAD))
            fail("contents that are missing, or of nothing");
        if (!(w[BT_SLOT_FLAGS] & BT_FLAG_PAYLOAD))
            continue;
        memcpy(&size, at, sizeof size);
        if (left < sizeof size || left - sizeof size < size)
            fail("contents that are too short");
        check_content(at + sizeof size, size);
        at += sizeof size + size;
        left -= sizeof size + size;
        atomic_fetch_add_explicit(&contents_in_all, 1, memory_order_relaxed);
    }
    if (left != 0)
        fail("contents of nothing");
    return e[0];
}

static void check_sorted(manager *m, const uint64_t *records, uint64_t count)
{
    uint32_t *order = malloc((count + 1) * sizeof *order);

    if (order == NULL)
        fail("no memory");
    for (uint32_t i = 0; i < count; i++)
        order[i] = i;
    sorting = (const double *)(const void *)records;
    qsort(order, count, sizeof *order, by_stamp);
    for (uint64_t i = 0; i < count; i++)
        check(m, (const uint32_t *)records + order[i] * BT_SLOT_WORDS);
    free(order);
}

/* Returns how many wait. */
static uint64_t drain(manager *m)
{
    size_t mark = m->env.used;
    term argv[2] = {m->trace, SMALL(16 + next(&m->seed) % 2048)};
    term result = f.drain(&m->env, 2, argv);
    const term *e;
    uint64_t *binary;
    uint64_t count;
    uint64_t markers = 0;
    uint64_t waiting;
    int arity;

    if (result == 0 || !enif_get_tuple(&m->env, result, &arity, &e) || arity != 8)
        fail("drain refuses");
    binary = vm_box(finished(m, e[1]));
    count = binary[1] / BT_SLOT_BYTES;
    check_sorted(m, binary + 2, count);
    for (uint64_t i = 0; i < count; i++)
        markers += (((const uint32_t *)(binary + 2))[i * BT_SLOT_WORDS + BT_SLOT_HEAD] & 0xff) == BT_KIND_MARKER;
    if (binary[1] != count * BT_SLOT_BYTES || e[0] >> 4 != count - markers)
        fail("a binary of another size");
    m->delivered += count - markers;
    m->lost += e[3] >> 4;
    waiting = e[5] >> 4;
    m->env.used = mark;
    return waiting;
}

/* As a flight recorder does: looks at the triggers, and reads everything up to now without taking it. Returns how many were ever written. */
static uint64_t record(manager *m)
{
    size_t mark = m->env.used;
    term argv[3] = {m->trace, SMALL(0), SMALL(0)};
    const term *e;
    uint64_t read = 0;
    uint64_t before;
    uint64_t written;
    bool done;
    int arity;

    if (!enif_get_tuple(&m->env, f.look(&m->env, 1, argv), &arity, &e) || arity != 7)
        fail("look refuses");
    written = e[1] >> 4;
    m->lost += e[2] >> 4;
    if (e[0] != vm_atom("none")) {
        if (!enif_get_tuple(&m->env, e[0], &arity, &e) || arity != 3 || (e[0] >> 4 != 7 && e[0] >> 4 != 8))
            fail("a trigger that was not set");
        atomic_fetch_add(&fired_in_all, 1);
        (void)f.arm(&m->env, 1, argv);
    }
    argv[2] = SMALL(UINT64_C(1) << 50);
    if (!enif_get_tuple(&m->env, f.window(&m->env, 3, argv), &arity, &e) || arity != 3)
        fail("window refuses");
    before = e[1] >> 4;
    memset(m->seen, 0, SEEN * sizeof *m->seen);
    do {
        const uint64_t *binary;
        uint64_t count;
        uint64_t markers = 0;

        m->env.used = mark;
        argv[1] = SMALL(16 + next(&m->seed) % 2048);
        if (!enif_get_tuple(&m->env, f.peek(&m->env, 2, argv), &arity, &e) || arity != 6)
            fail("peek refuses");
        binary = vm_box(finished(m, e[2]));
        count = binary[1] / BT_SLOT_BYTES;
        for (uint64_t i = 0; i < count; i++)
            markers += (((const uint32_t *)(binary + 2))[i * BT_SLOT_WORDS + BT_SLOT_HEAD] & 0xff) == BT_KIND_MARKER;
        if (binary[1] != count * BT_SLOT_BYTES || e[1] >> 4 != count - markers)
            fail("a binary of another size");
        check_sorted(m, binary + 2, count);
        before += count + (e[4] >> 4);
        done = e[0] == a_true || ++read > 64;
    } while (!done);
    m->env.used = mark;
    if (before < written && read <= 64)
        fail("less in the window than was written");
    m->delivered = before;
    return written;
}

static void nap(manager *m)
{
    struct timespec pause = {0, (long)(next(&m->seed) % 2000000)};

    nanosleep(&pause, NULL);
}

static void one_trace(manager *m)
{
    term what[3] = {a_true, a_undefined, SMALL(((UINT64_C(1) << BT_KIND_COUNT) - 1))};
    term ours[3] = {PID(0x7ffffff), a_undefined, NIL};
    term argv[4];
    term result;
    const term *e;
    uint64_t called = 0;
    bool exact = next(&m->seed) % 2 == 0;
    bool killed = next(&m->seed) % 4 == 0;
    bool overwriting = next(&m->seed) % 2 == 0;
    bool recording = overwriting && next(&m->seed) % 2 == 0;
    bool telling = next(&m->seed) % 2 == 0;
    term wanted_contents[4];
    int arity;

    m->env.used = 0;
    m->delivered = m->lost = m->frames = 0;
    memset(m->seen, 0, SEEN * sizeof *m->seen);
    /* Rings for fewer schedulers than there are: the rest take the guarded one. */
    argv[0] = SMALL(1 + next(&m->seed) % SCHEDULERS);
    argv[1] = SMALL(UINT64_C(64) << next(&m->seed) % 6);
    m->contents = next(&m->seed) % 2 == 0;
    if (m->contents) {
        wanted_contents[0] = SMALL(16 + next(&m->seed) % 300);
        wanted_contents[1] = vm_cell(&m->env, a_size, NIL);
        wanted_contents[2] = a_m;
        wanted_contents[3] = SMALL(1);
        what[0] = vm_tuple(&m->env, 4, wanted_contents);
        argv[1] = SMALL(UINT64_C(512) << next(&m->seed) % 4);
    }
    argv[2] = vm_tuple(&m->env, 3, what);
    argv[3] = vm_tuple(&m->env, 3, ours);
    result = f.open(&m->env, 4, argv);
    if (result == 0 || !enif_get_tuple(&m->env, result, &arity, &e) || arity != 3)
        fail("no trace");
    m->trace = e[0];
    if (overwriting)
        (void)f.overwrite(&m->env, 1, &m->trace);
    if (telling && f.instrumented(&m->env, 3, (term[]){m->trace, next(&m->seed) % 2 == 0 ? vm_atom("all") : vm_cell(&m->env, a_m, NIL),
                                                       vm_atom("all")}) != a_true)
        fail("instrumented refuses");
    if (recording) {
        (void)f.trigger(&m->env, 4, (term[]){m->trace, vm_atom("exit"), vm_atom("none"), SMALL(7)});
        (void)f.trigger(&m->env, 4, (term[]){m->trace, SMALL(3), PID(next(&m->seed) % PROCESSES), SMALL(8)});
        (void)f.arm(&m->env, 1, &m->trace);
    }
    /* Whoever counts for the trace before has left. */
    barrier(0, THREADS);
    for (int i = 0; i < THREADS; i++)
        atomic_store(&flags[m->place].called[i], 0);
    atomic_store_explicit(&flags[m->place].state, e[1], memory_order_release);
    for (uint64_t n = 1 + next(&m->seed) % 8; n > 0; n--) {
        nap(m);
        if (recording)
            (void)record(m);
        else
            (void)drain(m);
        /* Markers that are overwritten count as lost, and nobody called for them. */
        if (!overwriting && next(&m->seed) % 2 == 0) {
            term state = atomic_load(&flags[m->place].state);

            (void)f.share(&m->env, 2, (term[]){state, SMALL(next(&m->seed) % ((1u << 27) + 1))});
            (void)f.mark(&m->env, 5, (term[]){state, a_m, PID(next(&m->seed) % PROCESSES), SMALL(1), SMALL(2)});
            (void)f.produced(&m->env, 1, &state);
        }
        if (!exact && next(&m->seed) % 4 == 0) {
            term pid = PID(next(&m->seed) % PROCESSES);

            (void)f.filter(&m->env, 3, (term[]){m->trace, pid, a_true});
            (void)f.filter(&m->env, 3, (term[]){m->trace, pid, a_undefined});
        }
    }
    if (killed) {
        /* Its process is killed: nobody stops the trace, and flags stay on for a while. */
        enif_release_resource((void *)(uintptr_t)vm_box(m->trace)[1]);
        nap(m);
        atomic_store(&flags[m->place].state, 0);
        atomic_fetch_add(&killed_in_all, 1);
        return;
    }
    atomic_store(&flags[m->place].state, 0);
    barrier(0, exact ? THREADS : SCHEDULERS);
    if (f.shut(&m->env, 1, &m->trace) == 0)
        fail("shut refuses");
    barrier(0, SCHEDULERS);
    if (recording && exact && record(m) != m->delivered)
        fail("the last window is not all that was written");
    if (telling && !recording)
        atomic_fetch_add(&frames_in_all, m->frames);
    while (!recording && drain(m) > 0)
        ;
    /* Others may be inside still, and write. */
    while (f.free(&m->env, 1, &m->trace) == vm_atom("busy"))
        (void)sched_yield();
    for (int i = 0; i < THREADS; i++)
        called += atomic_load(&flags[m->place].called[i]);
    /* Nobody counts the frames; of the other events none is missing but what is lost. */
    if (telling) {
        if (exact && !recording && (m->delivered - m->frames > called || m->delivered - m->frames + m->lost < called))
            fail("produced is less than delivered, or more than delivered + lost");
    } else if (exact ? m->delivered + m->lost != called : m->delivered + m->lost > called) {
        fprintf(stderr, "%s: called for %llu times, %llu delivered, %llu lost\n", exact ? "exact" : "at most",
                (unsigned long long)called, (unsigned long long)m->delivered, (unsigned long long)m->lost);
        fail("produced is not delivered + lost");
    }
    atomic_fetch_add(&delivered_in_all, m->delivered);
    atomic_fetch_add(&lost_in_all, m->lost);
    atomic_fetch_add(&stopped_in_all, 1);
    enif_release_resource((void *)(uintptr_t)vm_box(m->trace)[1]);
}

/* As the next trace's start does it. */
static void reap(manager *m)
{
    term last = SMALL(0);
    const term *e;
    int arity;

    m->env.used = 0;
    (void)enif_get_tuple(&m->env, f.reap(&m->env, 1, &last), &arity, &e);
    last = e[0];
    barrier(0, SCHEDULERS);
    (void)f.reap(&m->env, 1, &last);
}

static void *manage(void *argument)
{
    int place = (int)(intptr_t)argument;
    manager m = {.place = place, .env = {.heap = malloc((1u << 20) * 8), .size = 1u << 20}, .seed = 0xD1B54A32D192ED03u * (uint64_t)(place + 1)};

    m.env.pid = PID(0x7fffffe);
    m.env.process = &m.env.pid;
    m.seen = malloc(SEEN * sizeof *m.seen);
    vm_thread_type = ERL_NIF_THR_NORMAL_SCHEDULER;
    while (!atomic_load(&stopping)) {
        (void)pthread_rwlock_rdlock(&loaded);
        reap(&m);
        one_trace(&m);
        (void)pthread_rwlock_unlock(&loaded);
        nap(&m);
    }
    free(m.seen);
    free(m.env.heap);
    return NULL;
}

#ifdef BEAMTRACE_LINKED
ErlNifEntry *nif_init(void);
#endif

static ErlNifEntry *load(const char *path, void **library)
{
    ErlNifEnv env = {.heap = malloc(4096 * 8), .size = 4096};
    term list = NIL;
    ErlNifEntry *entry;
    void *private_data = NULL;

#ifdef BEAMTRACE_LINKED
    (void)path;
    (void)library;
    entry = nif_init();
#else
    ErlNifEntry *(*init)(void);

    *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (*library == NULL)
        fail(dlerror());
    *(void **)&init = dlsym(*library, "nif_init");
    entry = init();
#endif
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++) {
        *wanted[i].to = NULL;
        for (int j = 0; j < entry->num_of_funcs; j++)
            if (strcmp(entry->funcs[j].name, wanted[i].name) == 0)
                *wanted[i].to = entry->funcs[j].fptr;
        if (*wanted[i].to == NULL)
            fail(wanted[i].name);
    }
    if (entry->load(&env, &private_data, NIL) != 0)
        fail("load refuses");
    for (int i = 0; i < 27; i++)
        list = vm_cell(&env, vm_tuple(&env, 3, (term[]){PID(UINT64_C(1) << i), SMALL(UINT64_C(16) << i), SMALL(0)}), list);
    list = vm_cell(&env, PID(0), list);
    if (f.layout(&env, 5, (term[]){SMALL(25), a_true, list, vm_cell(&env, 7, NIL), vm_tuple(&env, 2, (term[]){a_true, a_true})}) == 0 ||
        f.proven(&env, 1, (term[]){a_true}) != a_true)
        fail("layout refuses");
    free(env.heap);
    atomic_fetch_add(&loads, 1);
    return entry;
}

/* All traces have ended, nobody runs. */
static void unload(ErlNifEntry *entry, void *library)
{
    ErlNifEnv env = {.heap = malloc(64 * 8), .size = 64};
    term last = SMALL(0);
    const term *e;
    int arity;

    (void)enif_get_tuple(&env, f.reap(&env, 1, &last), &arity, &e);
    last = e[0];
    (void)f.reap(&env, 1, &last);
    (void)enif_get_tuple(&env, f.usage(&env, 0, NULL), &arity, &e);
    if (e[0] != SMALL(0) || e[1] != SMALL(0) || e[2] != SMALL(0))
        fail("something is left");
    entry->unload(&env, NULL);
    free(env.heap);
    if (library != NULL)
        (void)dlclose(library);
}

int main(int argc, char **argv)
{
    time_t end = time(NULL) + (argc > 1 ? atoi(argv[1]) : 5);
    const char *path = argc > 2 ? argv[2] : NULL;
    pthread_t threads[THREADS + MANAGERS];
    void *library = NULL;
    ErlNifEntry *entry;

    vm_thread_type = ERL_NIF_THR_NORMAL_SCHEDULER;
    a_status = vm_atom("trace_status"), a_send = vm_atom("send"), a_receive = vm_atom("receive"), a_gc = vm_atom("gc_minor_start"), a_spawned = vm_atom("spawned");
    a_exit = vm_atom("exit"), a_extra = vm_atom("extra"), a_true = vm_atom("true"), a_trace = vm_atom("trace");
    a_size = vm_atom("heap_size"), a_m = vm_atom("a_module"), a_f = vm_atom("a_function"), a_undefined = vm_atom("undefined");
    for (uint32_t i = 0; i < PROCESSES; i++)
        processes[i].id = next_id++;
    entry = load(path, &library);
    for (intptr_t i = 0; i < THREADS; i++)
        if (pthread_create(&threads[i], NULL, work, (void *)i) != 0)
            fail("no thread");
    for (intptr_t i = 0; i < MANAGERS; i++)
        if (pthread_create(&threads[THREADS + i], NULL, manage, (void *)i) != 0)
            fail("no thread");
    while (time(NULL) < end) {
        struct timespec pause = {0, 300000000};

        nanosleep(&pause, NULL);
        /* Unloaded and loaded again, as with the last session and the next first one. */
        (void)pthread_rwlock_wrlock(&loaded);
        atomic_store(&pausing, true);
        barrier(0, THREADS);
        unload(entry, library);
        entry = load(path, &library);
        atomic_store(&pausing, false);
        (void)pthread_rwlock_unlock(&loaded);
    }
    atomic_store(&stopping, true);
    for (int i = 0; i < THREADS + MANAGERS; i++)
        (void)pthread_join(threads[i], NULL);
    unload(entry, library);
    printf("%llu traces stopped, %llu killed, %llu loads; %llu events delivered, %llu lost; %llu frames; %llu contents; %llu triggers; %u processes\n",
           (unsigned long long)stopped_in_all, (unsigned long long)killed_in_all, (unsigned long long)loads,
           (unsigned long long)delivered_in_all, (unsigned long long)lost_in_all,
           (unsigned long long)frames_in_all, (unsigned long long)contents_in_all, (unsigned long long)fired_in_all, next_id);
    return stopped_in_all > 0 && delivered_in_all > 0 && fired_in_all > 0 && frames_in_all > 0 && contents_in_all > 0 ? 0 : 1;
}
