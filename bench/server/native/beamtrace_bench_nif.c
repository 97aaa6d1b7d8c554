/*
 * The VM's floor: an erl_tracer that does nothing. State 0: the gate discards every event; state 1: it lets all pass, and nothing is done with them;
 * state 2: as 1, and the events are counted, which shows that state 1 is called for what it is thought to be called for; state 3: as 1, and the words
 * of each event are written, 64 bytes into a ring of the thread: the least that a recorder does, without stamp, shape, order or reader.
 */
#include <erl_nif.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>

#define THREADS 256u
#define RECORDS 65536u

/* One a thread, each on lines of its own. */
static struct {
    _Alignas(128) _Atomic uint64_t count;
} counts[THREADS];
static _Atomic uint32_t threads;
static _Thread_local uint32_t own;

static ERL_NIF_TERM atom_trace, atom_discard, atom_ok;
/* A small integer is the same word everywhere. */
static ERL_NIF_TERM state_counted, state_written;

static ERL_NIF_TERM enabled(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[])
{
    int pass = 0;

    (void)argc;
    return enif_get_int(env, argv[1], &pass) && pass ? atom_trace : atom_discard;
}

static void add(void)
{
    if (own == 0)
        own = 1 + atomic_fetch_add(&threads, 1);
    /* More threads than places share the last one. */
    atomic_fetch_add_explicit(&counts[own < THREADS ? own : THREADS - 1].count, 1, memory_order_relaxed);
}

struct written {
    _Alignas(64) uint64_t words[8];
};
/* Made at a thread's first event and kept: the library is loaded once, on a node that ends with the benchmark. */
static _Thread_local struct written *ring;
static _Thread_local uint32_t next;

static void write_words(const ERL_NIF_TERM argv[])
{
    if (ring == NULL && posix_memalign((void **)&ring, 64, RECORDS * sizeof *ring) != 0)
        abort();
    struct written *to = &ring[next++ & (RECORDS - 1)];
    for (int i = 0; i < 8; i++)
        to->words[i] = i < 5 ? argv[i] : next;
}

static ERL_NIF_TERM trace(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[])
{
    (void)env, (void)argc;
    if (argv[1] == state_written)
        write_words(argv);
    else if (argv[1] == state_counted)
        add();
    return atom_ok;
}

/* count() -> events that were counted since the library was loaded. */
static ERL_NIF_TERM count(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[])
{
    uint64_t sum = 0;

    (void)argc, (void)argv;
    for (uint32_t i = 0; i < THREADS; i++)
        sum += atomic_load_explicit(&counts[i].count, memory_order_relaxed);
    return enif_make_uint64(env, sum);
}

static int load(ErlNifEnv *env, void **priv, ERL_NIF_TERM info)
{
    (void)priv, (void)info;
    atom_trace = enif_make_atom(env, "trace");
    atom_discard = enif_make_atom(env, "discard");
    atom_ok = enif_make_atom(env, "ok");
    state_counted = enif_make_int(env, 2);
    state_written = enif_make_int(env, 3);
    return 0;
}

#define PAIR(name) {"enabled_" #name, 3, enabled, 0}, {"trace_" #name, 5, trace, 0}
static ErlNifFunc functions[] = {
    {"enabled", 3, enabled, 0}, {"trace", 5, trace, 0}, {"count", 0, count, 0}, PAIR(send), PAIR(receive), PAIR(procs),
};

ERL_NIF_INIT(beamtrace_bench_nif, functions, load, NULL, NULL, NULL)
