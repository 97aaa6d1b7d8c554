/*
 * The shape of a term: type, size and leading atoms, by the rules of beamtrace_shape.erl. Bounded time, whatever the term; no allocation.
 */
#ifndef BEAMTRACE_SHAPE_H
#define BEAMTRACE_SHAPE_H

#include "atoms.h"
#include "terms.h"

typedef struct {
    uint32_t shape;
    uint32_t tag1;
    uint32_t tag2;
} bt_shape;

static inline uint32_t bt_shape_word(uint32_t type, uint64_t size)
{
    return type | (uint32_t)(size > BT_SHAPE_SIZE_MAX ? BT_SHAPE_SIZE_MAX : size) << 4;
}

/* The atom that a term begins with, or 0. */
static inline uint32_t bt_leading(bt_term t)
{
    if (bt_is_atom(t))
        return bt_atom_word(t);
    return bt_is_boxed(t) && bt_is_tuple(t) && bt_header_arity(bt_box(t)[0]) > 0 ? bt_atom_word(bt_box(t)[1]) : 0;
}

/*
 * In line where it counts: a shape that is returned by a function goes through memory in two halves that are read as one, for which the
 * processor has to wait.
 */
#define BT_SHAPE_INLINE static inline __attribute__((always_inline))

BT_SHAPE_INLINE bt_shape bt_shape_of_tuple(uint64_t arity, const bt_term *elements)
{
    bt_shape s = {bt_shape_word(BT_SHAPE_TUPLE, arity), 0, 0};

    if (arity > 0)
        s.tag1 = bt_atom_word(elements[0]);
    if (__builtin_expect(arity == 3 && elements[0] == bt_atoms.gen_call, 0))
        s.tag2 = bt_leading(elements[2]);
    else if (arity > 1)
        s.tag2 = bt_leading(elements[1]);
    return s;
}

static inline uint32_t bt_count_list(ErlNifEnv *env, bt_term list)
{
    bt_term head;
    uint32_t count = 0;

    while (count < BT_SHAPE_LIST_MAX && enif_get_list_cell(env, list, &head, &list))
        count++;
    return count;
}

/* What one look at the term tells without asking the VM: false for lists, maps and what is rarer. */
BT_SHAPE_INLINE bool bt_shape_at_sight(bt_term t, int layout, bt_shape *s)
{
    int64_t bits;

    *s = (bt_shape){BT_SHAPE_INTEGER, 0, 0};
    if (bt_is_boxed(t) && bt_is_tuple(t)) {
        *s = bt_shape_of_tuple(bt_header_arity(bt_box(t)[0]), bt_box(t) + 1);
    } else if (bt_is_atom(t)) {
        *s = (bt_shape){BT_SHAPE_ATOM, bt_atom_word(t), 0};
    } else if ((bits = bt_bits(t, layout)) >= 0) {
        s->shape = bits % 8 == 0 ? bt_shape_word(BT_SHAPE_BINARY, (uint64_t)bits / 8) : bt_shape_word(BT_SHAPE_BITSTRING, (uint64_t)bits);
    } else if (bt_is_nil(t)) {
        s->shape = BT_SHAPE_NIL;
    } else if (bt_is_local_pid(t)) {
        s->shape = BT_SHAPE_PID;
    } else if (bt_is_local_port(t)) {
        s->shape = BT_SHAPE_PORT;
    } else {
        return bt_is_small(t);
    }
    return true;
}

/* The VM is asked. Not whether it is a list of what looks like a box: the check at load is to see that (beamtrace_native_check.erl). */
BT_SHAPE_INLINE bt_shape bt_shape_asked(ErlNifEnv *env, bt_term t)
{
    bt_shape s = {BT_SHAPE_OTHER, 0, 0};
    bt_term module;
    size_t pairs;

    if (bt_is_list(t) && !bt_is_boxed(t)) {
        s.shape = bt_shape_word(BT_SHAPE_LIST, bt_count_list(env, t));
    } else if (enif_get_map_size(env, t, &pairs)) {
        s.shape = bt_shape_word(BT_SHAPE_MAP, pairs);
        if (enif_get_map_value(env, t, bt_atoms.struct_key, &module))
            s.tag1 = bt_atom_word(module);
    } else if (enif_is_ref(env, t)) {
        s.shape = BT_SHAPE_REFERENCE;
    } else if (enif_is_number(env, t)) {
        s.shape = bt_is_float(t) ? BT_SHAPE_FLOAT : BT_SHAPE_INTEGER;
    } else if (enif_is_fun(env, t)) {
        s.shape = BT_SHAPE_FUN;
    } else if (enif_is_pid(env, t)) {
        s.shape = BT_SHAPE_PID;
    } else if (enif_is_port(env, t)) {
        s.shape = BT_SHAPE_PORT;
    }
    return s;
}

BT_SHAPE_INLINE bt_shape bt_shape_of_any(ErlNifEnv *env, bt_term t, int layout)
{
    bt_shape s;

    return __builtin_expect(bt_shape_at_sight(t, layout, &s), 1) ? s : bt_shape_asked(env, t);
}

/* Of a message, a return value, an exit reason. */
static bt_shape bt_shape_of(ErlNifEnv *env, bt_term t, int layout) __attribute__((noinline));
static bt_shape bt_shape_of(ErlNifEnv *env, bt_term t, int layout) { return bt_shape_of_any(env, t, layout); }

/* Of the arguments of a call. */
static inline bt_shape bt_shape_of_args(ErlNifEnv *env, bt_term args, uint32_t *arity)
{
    bt_shape s = {0, 0, 0};
    bt_term head;
    uint32_t count = 0;

    while (count < 256 && enif_get_list_cell(env, args, &head, &args)) {
        if (count == 0)
            s.tag1 = bt_leading(head);
        else if (count == 1)
            s.tag2 = bt_leading(head);
        count++;
    }
    s.shape = bt_shape_word(BT_SHAPE_ARGS, count);
    *arity = count;
    return s;
}

#endif
