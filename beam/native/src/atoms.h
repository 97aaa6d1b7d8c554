/*
 * Atoms that the callbacks compare with, made once when the library is loaded. The first eight lie in one cache line: they are what sends and
 * receives ask for, and on a server whatever a callback touches has left the near caches since the last event.
 */
#ifndef BEAMTRACE_ATOMS_H
#define BEAMTRACE_ATOMS_H

#include <erl_nif.h>
#include <stddef.h>

#include "event_schema.h"

#define BT_ATOMS(X) \
    X(trace, "trace") \
    X(discard, "discard") \
    X(ok, "ok") \
    X(trace_status, "trace_status") \
    X(send, "send") \
    X(extra, "extra") \
    X(gen_call, "$gen_call") \
    X(struct_key, "__struct__") \
    X(error, "error") \
    X(remove, "remove") \
    X(done, "done") \
    X(undefined, "undefined") \
    X(none, "none") \
    X(exit, "exit") \
    X(normal, "normal") \
    X(shutdown, "shutdown") \
    X(trigger, "$beamtrace_trigger") \
    X(match_spec_result, "match_spec_result") \
    X(scheduler_id, "scheduler_id") \
    X(proc_lib, "proc_lib") \
    X(init_p, "init_p") \
    X(erlang, "erlang") \
    X(apply, "apply") \
    X(gen, "gen") \
    X(init_it, "init_it") \
    X(gen_server, "gen_server") \
    X(supervisor, "supervisor") \
    X(init, "init") \
    X(erl_eval, "erl_eval") \
    X(exprs, "exprs") \
    X(modules_binding, "BeamtraceModules") \
    X(true_, "true") \
    X(false_, "false") \
    X(memory, "memory") \
    X(full, "full") \
    X(busy, "busy") \
    X(process_untraced, "process_untraced") \
    X(unproven, "unproven") \
    X(all, "all") \
    X(contents, "contents") \
    X(funs, "funs")

#define BT_ATOM(name, text) ERL_NIF_TERM name;

static struct {
    _Alignas(64) BT_ATOMS(BT_ATOM)
    /* Trace tags by kind; those of ports are those of processes. */
    ERL_NIF_TERM tag[BT_KIND_COUNT];
    /* Keys of a gc event. */
    ERL_NIF_TERM gc[BT_GC_COUNT];
} bt_atoms;

#undef BT_ATOM

static const struct {
    const char *name;
    unsigned word;
} bt_gc_fields[BT_GC_COUNT] = BT_GC_FIELDS;

static void bt_atoms_init(ErlNifEnv *env)
{
    static const struct {
        unsigned kind;
        const char *tag;
    } tags[] = {
        {BT_KIND_SPAWN, "spawn"},
        {BT_KIND_SPAWNED, "spawned"},
        {BT_KIND_EXIT, "exit"},
        {BT_KIND_SEND, "send"},
        {BT_KIND_SEND_TO_NON_EXISTING_PROCESS, "send_to_non_existing_process"},
        {BT_KIND_RECEIVE, "receive"},
        {BT_KIND_LINK, "link"},
        {BT_KIND_UNLINK, "unlink"},
        {BT_KIND_GETTING_LINKED, "getting_linked"},
        {BT_KIND_GETTING_UNLINKED, "getting_unlinked"},
        {BT_KIND_REGISTER, "register"},
        {BT_KIND_UNREGISTER, "unregister"},
        {BT_KIND_CALL, "call"},
        {BT_KIND_RETURN_FROM, "return_from"},
        {BT_KIND_EXCEPTION_FROM, "exception_from"},
        {BT_KIND_RETURN_TO, "return_to"},
        {BT_KIND_IN, "in"},
        {BT_KIND_OUT, "out"},
        {BT_KIND_IN_EXITING, "in_exiting"},
        {BT_KIND_OUT_EXITING, "out_exiting"},
        {BT_KIND_OUT_EXITED, "out_exited"},
        {BT_KIND_GC_MINOR_START, "gc_minor_start"},
        {BT_KIND_GC_MINOR_END, "gc_minor_end"},
        {BT_KIND_GC_MAJOR_START, "gc_major_start"},
        {BT_KIND_GC_MAJOR_END, "gc_major_end"},
        {BT_KIND_GC_MAX_HEAP_SIZE, "gc_max_heap_size"},
        {BT_KIND_OPEN, "open"},
        {BT_KIND_CLOSED, "closed"},
    };

#define BT_ATOM(name, text) bt_atoms.name = enif_make_atom(env, text);
    BT_ATOMS(BT_ATOM)
#undef BT_ATOM
    for (size_t i = 0; i < sizeof tags / sizeof *tags; i++)
        bt_atoms.tag[tags[i].kind] = enif_make_atom(env, tags[i].tag);
    for (size_t i = 0; i < BT_GC_COUNT; i++)
        bt_atoms.gc[i] = enif_make_atom(env, bt_gc_fields[i].name);
}

#endif
