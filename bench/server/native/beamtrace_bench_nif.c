/* The VM's floor: an erl_tracer that does nothing. State 0: the gate discards every event; state 1: it lets all pass. */
#include <erl_nif.h>

static ERL_NIF_TERM atom_trace, atom_discard, atom_ok;

static ERL_NIF_TERM enabled(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[])
{
    int pass = 0;

    (void)argc;
    return enif_get_int(env, argv[1], &pass) && pass ? atom_trace : atom_discard;
}

static ERL_NIF_TERM trace(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[])
{
    (void)env, (void)argc, (void)argv;
    return atom_ok;
}

static int load(ErlNifEnv *env, void **priv, ERL_NIF_TERM info)
{
    (void)priv, (void)info;
    atom_trace = enif_make_atom(env, "trace");
    atom_discard = enif_make_atom(env, "discard");
    atom_ok = enif_make_atom(env, "ok");
    return 0;
}

#define PAIR(name) {"enabled_" #name, 3, enabled, 0}, {"trace_" #name, 5, trace, 0}
static ErlNifFunc functions[] = {
    {"enabled", 3, enabled, 0}, {"trace", 5, trace, 0}, PAIR(send), PAIR(receive), PAIR(procs),
};

ERL_NIF_INIT(beamtrace_bench_nif, functions, load, NULL, NULL, NULL)
