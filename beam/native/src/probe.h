/*
 * For the check at load only: whether the words that terms.h would read of a term can be read at all. On a VM that lays its terms out in another
 * way what is taken for a pointer may be anything; the check must then say no, not end the node. The kernel does the reading: a pipe takes
 * the bytes or answers EFAULT.
 */
#ifndef BEAMTRACE_PROBE_H
#define BEAMTRACE_PROBE_H

#include <unistd.h>

#include "tokens.h"

/* Fewer than a pipe takes at once. */
static bool bt_readable_bytes(const void *at, size_t bytes)
{
    int ends[2];
    bool readable;

    if (at == NULL || pipe(ends) != 0)
        return false;
    readable = write(ends[1], at, bytes) == (ssize_t)bytes;
    (void)close(ends[0]);
    (void)close(ends[1]);
    return readable;
}

static bool bt_readable(const void *at, size_t words) { return bt_readable_bytes(at, words * sizeof(uint64_t)); }

/* Follows bt_bits, bt_fun_mfa and bt_read_identity: what they look at, no more. */
static bool bt_probe(bt_term t, int layout)
{
    const uint64_t *box;

    if (!bt_is_boxed(t))
        return true;
    box = bt_box(t);
    if (!bt_readable(box, 1))
        return false;
    switch (box[0] & 0x3f) {
    case BT_TAG_OTP25_REFC_BINARY: /* BT_TAG_OTP27_HEAP_BITS */
        return bt_readable(box, 2);
    case BT_TAG_OTP25_HEAP_BINARY: /* BT_TAG_OTP27_SUB_BITS */
        return bt_readable(box, layout < BT_LAYOUT_OTP27 ? 2 : 4);
    case BT_TAG_OTP25_SUB_BINARY:
        return bt_readable(box, 4);
    case BT_TAG_FUN:
        if (!bt_readable(box, layout < BT_LAYOUT_OTP27 ? 5 : 2))
            return false;
        return !bt_is_external_fun(box, layout) || bt_readable(bt_export_of(box), bt_fun_module_at(layout) + 2);
    case BT_TAG_REF:
        return bt_readable(box, bt_header_arity(box[0]) == 3 ? 4 : 3);
    case BT_TAG_EXTERNAL_PID:
    case BT_TAG_EXTERNAL_PORT:
        return bt_readable(box, 4) && bt_readable(bt_node_of(box), 5);
    case BT_TAG_EXTERNAL_REF:
        return bt_readable(box, 5) && bt_readable(bt_node_of(box), 5) && (*(const uint32_t *)(box + 3) != 5 || bt_readable(box, 6));
    default:
        return true;
    }
}

/* Follows bt_walk_term as far as it reads directly: a map's keys and nodes, what a part of a binary is of, numbers of a resource, a fun's entry. */
static bool bt_probe_contents(bt_term t, int layout);

/* What is no term of the check's may lead round in circles. */
#define BT_PROBES 20000
static uint32_t bt_probes_left;

static bool bt_probe_node(const uint64_t *box, int layout, int depth)
{
    const uint64_t *children;
    uint32_t count;

    if (depth > 16 || bt_probes_left-- == 0 || !bt_readable(box, 2))
        return false;
    count = bt_map_children(box, &children, layout);
    if (count > 64 || !bt_readable(children, count))
        return false;
    for (uint32_t i = 0; i < count; i++) {
        const uint64_t *child = (const uint64_t *)(uintptr_t)(children[i] & ~(uint64_t)7);

        if (bt_is_list(children[i]) ? !bt_readable(child, 2) || !bt_probe_contents(child[0], layout) || !bt_probe_contents(child[1], layout)
                                    : !bt_is_boxed(children[i]) || !bt_probe_node(child, layout, depth + 1))
            return false;
    }
    return true;
}

static bool bt_probe_map(const uint64_t *box, int layout)
{
    const uint64_t *keys;

    if (!bt_readable(box, 3))
        return false;
    if (bt_map_kind(box[0]) != BT_MAP_FLAT)
        return bt_probe_node(box, layout, 0);
    keys = bt_box(box[2]);
    if (!bt_is_boxed(box[2]) || box[1] > 64 || !bt_readable(box, 3 + box[1]) || !bt_readable(keys, 1 + box[1]))
        return false;
    for (uint64_t i = 0; i < box[1]; i++)
        if (!bt_probe_contents(keys[1 + i], layout) || !bt_probe_contents(box[3 + i], layout))
            return false;
    return true;
}

static bool bt_probe_bytes(bt_term t, int layout)
{
    const uint64_t *box = bt_box(t);
    bt_bitstring s;

    if (layout < BT_LAYOUT_OTP27 && (box[0] & 0x3f) == BT_TAG_OTP25_SUB_BINARY &&
        (!bt_readable(box, 5) || !bt_is_boxed(bt_whole_of(box)) || !bt_readable(bt_box(bt_whole_of(box)), 5)))
        return false;
    if (layout < BT_LAYOUT_OTP27 && (box[0] & 0x3f) == BT_TAG_OTP25_REFC_BINARY && !bt_readable(box, 5))
        return false;
    if (layout >= BT_LAYOUT_OTP27 && (box[0] & 0x3f) == BT_TAG_OTP27_SUB_BITS && (box[1] & 3) != 0 &&
        (!bt_readable(box, 5) || !bt_readable(bt_box(bt_whole_of(box)), 2)))
        return false;
    s = bt_bits_at(t, layout);
    return s.bits < 64 * 1024 && (s.bits == 0 || bt_readable_bytes(s.at, (s.skip + s.bits + 7) / 8));
}

/* Lists and tuples the VM's own functions are asked about: here only those terms that the check has made, whose parts are few. */
static bool bt_probe_contents(bt_term t, int layout)
{
    const uint64_t *box;

    if (bt_is_list(t)) {
        for (int i = 0; i < 4096 && bt_is_list(t); i++) {
            const uint64_t *cell = (const uint64_t *)(uintptr_t)(t & ~(uint64_t)7);

            if (bt_probes_left-- == 0 || !bt_readable(cell, 2) || !bt_probe_contents(cell[0], layout))
                return false;
            t = cell[1];
        }
        return bt_is_list(t) || bt_probe_contents(t, layout);
    }
    if (!bt_is_boxed(t))
        return true;
    if (bt_probes_left-- == 0 || !bt_probe(t, layout))
        return false;
    box = bt_box(t);
    switch (box[0] & 0x3f) {
    case BT_TAG_TUPLE:
        if (bt_header_arity(box[0]) > 4096 || !bt_readable(box, 1 + bt_header_arity(box[0])))
            return false;
        for (uint64_t i = 1; i <= bt_header_arity(box[0]); i++)
            if (!bt_probe_contents(box[i], layout))
                return false;
        return true;
    case BT_TAG_FLOAT:
        return bt_readable(box, 2);
    case BT_TAG_POSITIVE_BIG:
    case BT_TAG_NEGATIVE_BIG:
        return bt_header_arity(box[0]) > 0 && bt_header_arity(box[0]) < 512 && bt_readable(box, 1 + bt_header_arity(box[0]));
    case BT_TAG_FUN:
        return bt_is_external_fun(box, layout) || bt_readable(bt_export_of(box), 10);
    case BT_TAG_REF:
        return (uint32_t)box[1] == UINT32_MAX || bt_readable(bt_resource_of(box), 7);
    case BT_TAG_EXTERNAL_REF:
        return *(const uint32_t *)(box + 3) <= 5 && bt_readable(box, 6);
    default:
        if (bt_is_map(box, layout))
            return bt_probe_map(box, layout);
        return bt_bits(t, layout) < 0 || bt_probe_bytes(t, layout);
    }
}

/* The elements of a list, as far as bt_initial_call looks at them. */
static bool bt_probe_list(ErlNifEnv *env, bt_term list, int layout)
{
    bt_term head;

    for (int i = 0; i < 16 && enif_get_list_cell(env, list, &head, &list); i++)
        if (!bt_probe(head, layout))
            return false;
    return true;
}

#endif
