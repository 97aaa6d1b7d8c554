/* What a process was started for, where the spawned function is only a wrapper: beamtrace_event:initial_call/1. Bounded time. */
#ifndef BEAMTRACE_INITIAL_CALL_H
#define BEAMTRACE_INITIAL_CALL_H

#include "atoms.h"
#include "terms.h"

#define BT_ARITY_MAX 255u
#define BT_ARGS_MAX 8

/* Elements of an argument list, counted up to 255; 0 for what is no list. */
static inline uint32_t bt_arity(ErlNifEnv *env, bt_term args)
{
    bt_term head;
    uint32_t count = 0;

    while (count < BT_ARITY_MAX && enif_get_list_cell(env, args, &head, &args))
        count++;
    return count == BT_ARITY_MAX || bt_is_nil(args) ? count : 0;
}

/* The first elements of a list; how many there are, at most `max`. `proper`: nothing follows. */
static inline int bt_elements(ErlNifEnv *env, bt_term list, bt_term *to, int max, bool *proper)
{
    int count = 0;

    while (count < max && enif_get_list_cell(env, list, &to[count], &list))
        count++;
    *proper = bt_is_nil(list);
    return count;
}

static inline bt_mfa bt_init_of(bt_term module)
{
    return (bt_mfa){bt_atom_word(module), bt_atom_word(bt_atoms.init), 1};
}

static inline bool bt_supervised(ErlNifEnv *env, bt_term tuple, bt_term *module)
{
    const bt_term *e;
    int arity;

    if (!bt_is_boxed(tuple) || !enif_get_tuple(env, tuple, &arity, &e) || arity != 3 || !bt_is_atom(e[1]))
        return false;
    *module = e[1];
    return true;
}

static inline bt_mfa bt_behaviour(ErlNifEnv *env, bt_term m, bt_term f, bt_term args)
{
    bt_term a[BT_ARGS_MAX];
    bt_term module;
    bool proper;
    int count;

    if (m == bt_atoms.gen && f == bt_atoms.init_it) {
        count = bt_elements(env, args, a, BT_ARGS_MAX, &proper);
        if (count >= 5 && a[0] == bt_atoms.gen_server && a[3] == bt_atoms.supervisor && bt_supervised(env, a[4], &module))
            return bt_init_of(module);
        if (count >= 6 && a[0] == bt_atoms.gen_server && a[4] == bt_atoms.supervisor && bt_supervised(env, a[5], &module))
            return bt_init_of(module);
        if (count == 6 && proper && bt_is_atom(a[3]))
            return bt_init_of(a[3]);
        if (count == 7 && proper && bt_is_atom(a[4]))
            return bt_init_of(a[4]);
    }
    if (bt_is_atom(m) && bt_is_atom(f))
        return (bt_mfa){bt_atom_word(m), bt_atom_word(f), bt_arity(env, args)};
    return (bt_mfa){0, 0, 0};
}

static inline bt_mfa bt_initial_call(ErlNifEnv *env, bt_term m, bt_term f, bt_term args, int layout)
{
    bt_term a[BT_ARGS_MAX];
    bool proper;
    int count;

    if (m == bt_atoms.proc_lib && f == bt_atoms.init_p) {
        count = bt_elements(env, args, a, BT_ARGS_MAX, &proper);
        if (count == 3 && proper)
            return bt_fun_mfa(a[2], layout);
        if (count == 5 && proper)
            return bt_behaviour(env, a[2], a[3], a[4]);
    } else if (m == bt_atoms.erlang && f == bt_atoms.apply) {
        count = bt_elements(env, args, a, BT_ARGS_MAX, &proper);
        if (count == 2 && proper)
            return bt_fun_mfa(a[0], layout);
        if (count == 3 && proper && bt_is_atom(a[0]) && bt_is_atom(a[1]))
            return (bt_mfa){bt_atom_word(a[0]), bt_atom_word(a[1]), bt_arity(env, a[2])};
    }
    return (bt_mfa){0, 0, 0};
}

#endif
