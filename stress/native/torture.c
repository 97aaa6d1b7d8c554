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
#define LATE_S 60
#define PID(n) ((term)((uint64_t)(n) << 4 | 3))

typedef ERL_NIF_TERM (*nif)(ErlNifEnv *, int, const ERL_NIF_TERM[]);

static struct {
    nif enabled, enabled_gc, enabled_send, enabled_receive, enabled_procs, trace, trace_gc, trace_receive, trace_procs;
    nif open, drain, mask, filter, shut, free, reap, share, produced, mark, usage, layout, proven;
    nif touch, overwrite, trigger, arm, look, window, peek, contents;
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
    {"touch", &f.touch},
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

#include "processes.h"
#include "seen.h"

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
        /* What is still to come would come out of order. */
        if (e[5] >> 4 >= UINT64_C(1) << 50)
            fail("a window that is not over yet");
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
    for (term from = SMALL(0); from != vm_atom("done");)
        from = f.touch(&m->env, 2, (term[]){m->trace, from});
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
        /* A lock that readers take in turn has no time for a writer. */
        if (atomic_load(&unloading)) {
            nap(&m);
            continue;
        }
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

static bool everything_seen(void)
{
    return stopped_in_all > 0 && delivered_in_all > 0 && fired_in_all > 0 && frames_in_all > 0 && contents_in_all > 0;
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
    /* Under valgrind there are few traces in a second: until each kind of them has been seen, or it is too late. */
    while (time(NULL) < end || (!everything_seen() && time(NULL) < end + LATE_S)) {
        struct timespec pause = {0, 300000000};

        nanosleep(&pause, NULL);
        /* Unloaded and loaded again, as with the last session and the next first one. */
        atomic_store(&unloading, true);
        (void)pthread_rwlock_wrlock(&loaded);
        atomic_store(&pausing, true);
        barrier(0, THREADS);
        unload(entry, library);
        entry = load(path, &library);
        atomic_store(&pausing, false);
        atomic_store(&unloading, false);
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
    if (!everything_seen())
        fail("not all that there is was put to the test");
    return 0;
}
