/*
 * For the check at load only: whether the words that terms.h would read of a term can be read at all. On a VM that lays its terms out in another
 * way what is taken for a pointer may be anything; the check must then say no, not end the node. The kernel does the reading: a pipe takes
 * the bytes or answers EFAULT.
 */
#ifndef BEAMTRACE_PROBE_H
#define BEAMTRACE_PROBE_H

#include <unistd.h>

#include "terms.h"

/* Fewer bytes than a pipe takes at once. */
static bool bt_readable(const void *at, size_t words)
{
    int ends[2];
    bool readable;

    if (at == NULL || pipe(ends) != 0)
        return false;
    readable = write(ends[1], at, words * sizeof(uint64_t)) == (ssize_t)(words * sizeof(uint64_t));
    (void)close(ends[0]);
    (void)close(ends[1]);
    return readable;
}

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
