/*
 * beamtrace's native tracer: an erl_tracer that writes 64-byte records into lock-free rings, one for each scheduler, and what the agent needs
 * to drain them. Design: docs/native-tracer.md. The hot path is record.h; this file is the library's face to the VM.
 */
#include "frames.h"
#include "probe.h"
#include "recorder.h"
#include "ship.h"

/* What is read of terms directly, for the agent's check that this VM lays them out as expected. badarg: it can't even be read. */

static bt_term bt_word_term(ErlNifEnv *env, uint32_t word) { return word == 0 ? enif_make_uint(env, 0) : (bt_term)word; }

/* Bits of a process or port: [{Term, Low, High}], each with one bit more than the first, which has none. */
static bool bt_learn_all(ErlNifEnv *env, bt_term list, bt_translation *table)
{
    bt_term cell;
    bt_term none;
    const bt_term *e;
    unsigned low;
    unsigned high;
    int arity;

    memset(table, 0, sizeof *table);
    if (!enif_get_list_cell(env, list, &none, &list))
        return false;
    while (enif_get_list_cell(env, list, &cell, &list)) {
        if (!enif_get_tuple(env, cell, &arity, &e) || arity != 3 || !enif_get_uint(env, e[1], &low) ||
            !enif_get_uint(env, e[2], &high) || !(bt_is_local_pid(e[0]) || bt_is_local_port(e[0])) || e[0] == none ||
            ((e[0] ^ none) & 0xf) != 0)
            return false;
        bt_learn(table, e[0] ^ none, (low & ~UINT32_C(0xf)) | (uint64_t)high << 32);
    }
    return true;
}

/* layout(Otp, AliasHasProcess, Pids, Ports, {Latin1, WidePorts}) -> ok. What is to be proved; never once it has been. */
BT_NIF(layout)
{
    const bt_term *external;
    int arity;
    int otp;

    BT_UNUSED;
    if (atomic_load(&bt_proven) || !enif_get_int(env, argv[0], &otp) || otp < BT_LAYOUT_OTP25)
        return enif_make_badarg(env);
    if (!enif_get_tuple(env, argv[4], &arity, &external) || arity != 2)
        return enif_make_badarg(env);
    bt_external.latin1 = external[0] == bt_atoms.true_;
    bt_external.wide_ports = external[1] == bt_atoms.true_;
    if (!bt_learn_all(env, argv[2], &bt_pids) || !bt_learn_all(env, argv[3], &bt_ports))
        return enif_make_badarg(env);
    bt_alias_has_process = argv[1] == bt_atoms.true_;
    bt_own.layout = otp >= BT_LAYOUT_OTP29 ? BT_LAYOUT_OTP29 : otp >= BT_LAYOUT_OTP27 ? BT_LAYOUT_OTP27 : BT_LAYOUT_OTP25;
    return bt_atoms.ok;
}

/* identity(Term) -> {Low, High, {N0, N1, N2}, Flags, Node | 0, Creation} | false */
BT_NIF(identity)
{
    bt_identity id;

    BT_UNUSED;
    if (!bt_probe(argv[0], bt_own.layout))
        return enif_make_badarg(env);
    if (!bt_read_identity(argv[0], &id))
        return bt_atoms.false_;
    if (id.node == 0 && id.flags == 0) {
        uint32_t words[2] = {id.low, id.high};

        bt_translate(words);
        id.low = words[0];
        id.high = words[1];
    }
    return enif_make_tuple6(env, enif_make_uint(env, id.low), enif_make_uint(env, id.high),
                            enif_make_tuple3(env, enif_make_uint(env, id.numbers[0]), enif_make_uint(env, id.numbers[1]),
                                             enif_make_uint(env, id.numbers[2])),
                            enif_make_uint(env, id.flags), bt_word_term(env, id.node), enif_make_uint(env, id.creation));
}

static bt_term bt_shape_term(ErlNifEnv *env, bt_shape s)
{
    return enif_make_tuple3(env, enif_make_uint(env, s.shape), bt_word_term(env, s.tag1), bt_word_term(env, s.tag2));
}

/* shape(Term) -> {Shape, Tag1, Tag2} */
BT_NIF(shape)
{
    BT_UNUSED;
    if (!bt_probe(argv[0], bt_own.layout))
        return enif_make_badarg(env);
    return bt_shape_term(env, bt_shape_of(env, argv[0], bt_own.layout));
}

/* args(List) -> {Shape, Tag1, Tag2} */
BT_NIF(args)
{
    uint32_t arity;

    BT_UNUSED;
    return bt_shape_term(env, bt_shape_of_args(env, argv[0], &arity));
}

/* initial_call(M, F, Args) -> {Module | 0, Function | 0, Arity} */
BT_NIF(initial_call)
{
    bt_mfa mfa;

    BT_UNUSED;
    if (!bt_probe_list(env, argv[2], bt_own.layout))
        return enif_make_badarg(env);
    mfa = bt_initial_call(env, argv[0], argv[1], argv[2], bt_own.layout);
    return enif_make_tuple3(env, bt_word_term(env, mfa.module), bt_word_term(env, mfa.function), enif_make_uint(env, mfa.arity));
}

/* proven(Said) -> boolean(): whether the check has been passed; `true` says that it has. Without it no trace is opened. */
BT_NIF(proven)
{
    BT_UNUSED;
    (void)env;
    if (argv[0] == bt_atoms.true_)
        atomic_store(&bt_proven, true);
    return atomic_load(&bt_proven) ? bt_atoms.true_ : bt_atoms.false_;
}

static ErlNifFunc functions[] = {
    {"enabled", 3, enabled, 0},
    {"enabled_call", 3, enabled_call, 0},
    {"enabled_garbage_collection", 3, enabled_garbage_collection, 0},
    {"enabled_ports", 3, enabled_ports, 0},
    {"enabled_procs", 3, enabled_procs, 0},
    {"enabled_receive", 3, enabled_receive, 0},
    {"enabled_running_ports", 3, enabled_running_ports, 0},
    {"enabled_running_procs", 3, enabled_running_procs, 0},
    {"enabled_send", 3, enabled_send, 0},
    {"trace", 5, trace, 0},
    {"trace_garbage_collection", 5, trace_garbage_collection, 0},
    {"trace_ports", 5, trace_ports, 0},
    {"trace_procs", 5, trace_procs, 0},
    {"trace_receive", 5, trace_receive, 0},
    {"trace_running_ports", 5, trace_running_ports, 0},
    {"trace_running_procs", 5, trace_running_procs, 0},
    {"open", 4, trace_open, 0},
    {"drain", 2, trace_drain, 0},
    {"mask", 2, trace_mask, 0},
    {"filter", 3, trace_filter, 0},
    {"shut", 1, trace_shut, 0},
    {"free", 1, trace_free, 0},
    {"share", 2, trace_share, 0},
    {"produced", 1, trace_produced, 0},
    {"mark", 5, trace_mark, 0},
    {"reap", 1, reap, 0},
    {"usage", 0, usage, 0},
    {"touch", 2, trace_touch, 0},
    {"overwrite", 1, trace_overwrite, 0},
    {"trigger", 4, trace_trigger, 0},
    {"arm", 1, trace_arm, 0},
    {"look", 1, trace_look, 0},
    {"window", 3, trace_window, 0},
    {"peek", 2, trace_peek, 0},
    {"enter", 2, frame_enter, 0},
    {"enter", 3, frame_enter, 0},
    {"enter", 4, frame_enter, 0},
    {"enter", 5, frame_enter, 0},
    {"enter", 6, frame_enter, 0},
    {"enter", 7, frame_enter, 0},
    {"enter", 8, frame_enter, 0},
    {"enter_list", 3, frame_enter_list, 0},
    {"leave", 4, frame_leave, 0},
    {"tail", 3, frame_tail, 0},
    {"exception", 6, frame_exception, 0},
    {"instrumented", 3, trace_instrumented, 0},
    {"hide", 2, frame_hide, 0},
    {"scheduler", 1, frame_scheduler, 0},
    {"contents", 2, trace_contents, 0},
    {"name_fun", 3, trace_name_fun, 0},
    {"layout", 5, layout, 0},
    {"readable", 1, readable, 0},
    {"show", 3, show, 0},
    {"proven", 1, proven, 0},
    {"identity", 1, identity, 0},
    {"shape", 1, shape, 0},
    {"args", 1, args, 0},
    {"initial_call", 3, initial_call, 0},
};

/* The system maps one file once: loaded a second time before it has been unloaded, its memory would be two loads' at once. */
static _Atomic bool bt_loaded;

static int load(ErlNifEnv *env, void **priv_data, ERL_NIF_TERM load_info)
{
    uint64_t now = (uint64_t)enif_monotonic_time(ERL_NIF_USEC);

    (void)priv_data;
    (void)load_info;
    if (atomic_load(&bt_loaded))
        return 1;
    bt_atoms_init(env);
    bt_own.layout = BT_LAYOUT_OTP25;
    /* Not 0, which a thread that has never been here shows. Repeats after 38 hours, to the microsecond. */
    bt_own.load = (now & (BT_SELF_LOAD_MASK >> 1)) | (BT_SELF_LOAD_MASK ^ BT_SELF_LOAD_MASK >> 1);
    /* Where dlclose keeps the memory this is not the first time. */
    atomic_store(&bt_proven, false);
    atomic_store(&bt_next_ring, 0);
    bt_frames_begin(now);
    bt_clock_begin();
    for (uint32_t i = 0; i < BT_TRACES; i++)
        bt_places[i].generation = now & BT_GENERATION_MASK;
    /* Never taken over from another load of this module: what that one has opened lies in its own table. */
    bt_handle_type = enif_open_resource_type(env, NULL, "beamtrace_trace", bt_bury, ERL_NIF_RT_CREATE, NULL);
    if (bt_handle_type == NULL)
        return 1;
    bt_table_lock = enif_mutex_create("beamtrace_table");
    if (bt_table_lock == NULL)
        return 1;
    if (enif_tsd_key_create("beamtrace_self", &bt_own.self_key) != 0) {
        enif_mutex_destroy(bt_table_lock);
        return 1;
    }
    atomic_store(&bt_loaded, true);
    return 0;
}

/* Refused while traces of the version before are open (see above); otherwise nothing is handed over. */
static int upgrade(ErlNifEnv *env, void **priv_data, void **old_priv_data, ERL_NIF_TERM load_info)
{
    (void)old_priv_data;
    return load(env, priv_data, load_info);
}

/* The agent unloads behind a barrier, and the VM not before the last trace's resource has gone: nobody is inside. */
static void unload(ErlNifEnv *env, void *priv_data)
{
    (void)env;
    (void)priv_data;
    while (bt_buried != NULL) {
        bt_trace *next = bt_buried->buried;

        bt_free_trace(bt_buried);
        bt_buried = next;
    }
    enif_mutex_destroy(bt_table_lock);
    enif_tsd_key_destroy(bt_own.self_key);
    atomic_store(&bt_loaded, false);
}

ERL_NIF_INIT(beamtrace_nif, functions, load, NULL, upgrade, unload)
