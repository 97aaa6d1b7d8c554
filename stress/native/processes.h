/*
 * What the VM's threads do in the torture: processes that start, work and die, their events handed to the tracer as the VM hands them, their
 * instrumented calls as Erlang code makes them. torture.c says what the library's functions are.
 */
#ifndef BEAMTRACE_STRESS_PROCESSES_H
#define BEAMTRACE_STRESS_PROCESSES_H

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
static _Atomic bool unloading;
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

#endif
