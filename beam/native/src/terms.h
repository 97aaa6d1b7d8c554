/*
 * Words of the VM as they are in memory: immediates, references, processes of other nodes, sizes of bit strings. The NIF interface has
 * no calls for these that neither copy nor allocate. The layouts differ between releases; beamtrace_native.erl compares what is read
 * here with what the VM itself says of a set of terms before the first trace, and does without this tracer when anything differs.
 */
#ifndef BEAMTRACE_TERMS_H
#define BEAMTRACE_TERMS_H

#include <assert.h>
#include <erl_nif.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "event_schema.h"

static_assert(sizeof(ERL_NIF_TERM) == 8, "64-bit VMs only");

typedef ERL_NIF_TERM bt_term;

/* Whether this release's external format of an alias names the process behind it. */
static bool bt_alias_has_process;

/* The first release of each layout of bit strings and funs. */
enum { BT_LAYOUT_OTP25 = 25, BT_LAYOUT_OTP27 = 27, BT_LAYOUT_OTP29 = 29 };

static inline bool bt_is_atom(bt_term t) { return (t & 0x3f) == 0x0b; }
static inline bool bt_is_small(bt_term t) { return (t & 0xf) == 0xf; }
static inline bool bt_is_local_pid(bt_term t) { return (t & 0xf) == 0x3; }
static inline bool bt_is_local_port(bt_term t) { return (t & 0xf) == 0x7; }
static inline bool bt_is_nil(bt_term t) { return t == 0x3b; }
static inline bool bt_is_list(bt_term t) { return (t & 0x3) == 0x1; }
static inline bool bt_is_boxed(bt_term t) { return (t & 0x3) == 0x2; }
static inline bt_term bt_make_small(uint64_t n) { return n << 4 | 0xf; }
static inline int64_t bt_small(bt_term t) { return (int64_t)t >> 4; }

/* An atom in a 32-bit word; 0, as for no atom, for one beyond the largest atom table that a node can have by default × 60. */
static inline uint32_t bt_atom_word(bt_term t) { return bt_is_atom(t) && t <= UINT32_MAX ? (uint32_t)t : 0; }

static inline const uint64_t *bt_box(bt_term t) { return (const uint64_t *)(uintptr_t)(t & ~(uint64_t)7); }

/* Low six bits of a header word. */
enum {
    BT_TAG_TUPLE = 0x00,
    BT_TAG_REF = 0x10,
    BT_TAG_FUN = 0x14,
    BT_TAG_FLOAT = 0x18,
    BT_TAG_EXTERNAL_PID = 0x30,
    BT_TAG_EXTERNAL_PORT = 0x34,
    BT_TAG_EXTERNAL_REF = 0x38,
    BT_TAG_OTP25_REFC_BINARY = 0x20,
    BT_TAG_OTP25_HEAP_BINARY = 0x24,
    BT_TAG_OTP25_SUB_BINARY = 0x28,
    BT_TAG_OTP27_HEAP_BITS = 0x20,
    BT_TAG_OTP27_SUB_BITS = 0x24,
};

static inline uint64_t bt_header_arity(uint64_t header) { return header >> 6; }

/* Of a boxed term. */
static inline bool bt_is_tuple(bt_term t) { return (bt_box(t)[0] & 0x3f) == BT_TAG_TUPLE; }
static inline bool bt_is_float(bt_term t) { return bt_is_boxed(t) && (bt_box(t)[0] & 0x3f) == BT_TAG_FLOAT; }

/* Bits of a bit string, -1 for what is none. */
static inline int64_t bt_bits(bt_term t, int layout)
{
    const uint64_t *box;

    if (!bt_is_boxed(t))
        return -1;
    box = bt_box(t);
    if (layout < BT_LAYOUT_OTP27) {
        switch (box[0] & 0x3f) {
        case BT_TAG_OTP25_REFC_BINARY:
        case BT_TAG_OTP25_HEAP_BINARY:
            return (int64_t)(box[1] * 8);
        case BT_TAG_OTP25_SUB_BINARY:
            return (int64_t)(box[1] * 8 + (box[3] & 0xff));
        default:
            return -1;
        }
    }
    switch (box[0] & 0x3f) {
    case BT_TAG_OTP27_HEAP_BITS:
        return (int64_t)box[1];
    case BT_TAG_OTP27_SUB_BITS:
        return (int64_t)(box[3] - box[2]);
    default:
        return -1;
    }
}

typedef struct {
    uint32_t module; /* 0: there is none */
    uint32_t function;
    uint32_t arity;
} bt_mfa;

/* `box` is a fun: `fun M:F/A`, by the word of each layout that says so. */
static inline bool bt_is_external_fun(const uint64_t *box, int layout)
{
    if (layout < BT_LAYOUT_OTP27)
        return bt_is_atom(box[4]);
    return layout < BT_LAYOUT_OTP29 ? (box[0] >> 16 & 0xff) == 0 : (box[0] >> 24 & 0xff) != 0;
}

/* Pointers that are followed, each in one place, so that the probe at load looks where the reading looks. */
static inline const uint64_t *bt_export_of(const uint64_t *box) { return (const uint64_t *)(uintptr_t)box[1]; }
static inline const unsigned char *bt_node_of(const uint64_t *box) { return (const unsigned char *)(uintptr_t)box[1]; }

/* Where in its export entry the module stands; the function follows. */
static inline unsigned bt_fun_module_at(int layout) { return layout < BT_LAYOUT_OTP27 ? 7 : 8; }

/* The function that `fun M:F/A` stands for; none for a local fun, whose name the VM finds by a search of the code only. */
static inline bt_mfa bt_fun_mfa(bt_term t, int layout)
{
    bt_mfa mfa = {0, 0, 0};
    const uint64_t *box;
    const uint64_t *entry;
    unsigned at;

    if (!bt_is_boxed(t))
        return mfa;
    box = bt_box(t);
    if ((box[0] & 0x3f) != BT_TAG_FUN)
        return mfa;
    if (!bt_is_external_fun(box, layout))
        return mfa;
    entry = bt_export_of(box);
    at = bt_fun_module_at(layout);
    mfa.module = bt_atom_word(entry[at]);
    mfa.function = bt_atom_word(entry[at + 1]);
    mfa.arity = (uint32_t)(layout < BT_LAYOUT_OTP27 ? box[3] & 0xff : box[0] >> 8 & 0xff);
    return mfa;
}

/* A process, port or reference in the words of a slot. */
typedef struct {
    uint32_t low;
    uint32_t high;
    uint32_t numbers[3];
    /* Of a slot: alias, widePid, widePort. */
    uint32_t flags;
    /* 0: this node. */
    uint32_t node;
    uint32_t creation;
} bt_identity;

/* The external thing's node: name and creation, after the hash bucket and the reference count. */
static inline void bt_external_node(const uint64_t *box, bt_identity *id)
{
    const unsigned char *node = bt_node_of(box);
    uint64_t name;

    memcpy(&name, node + 24, sizeof name);
    memcpy(&id->creation, node + 32, sizeof id->creation);
    id->node = bt_atom_word(name);
}

/* Process, port or reference, as a slot holds it. False for every other term. */
static inline bool bt_read_identity(bt_term t, bt_identity *id)
{
    const uint64_t *box;
    const uint32_t *data;
    uint64_t number;

    memset(id, 0, sizeof *id);
    if (bt_is_local_pid(t) || bt_is_local_port(t)) {
        id->low = (uint32_t)t;
        id->high = (uint32_t)(t >> 32);
        return true;
    }
    if (!bt_is_boxed(t))
        return false;
    box = bt_box(t);
    data = (const uint32_t *)(box + 3);
    switch (box[0] & 0x3f) {
    case BT_TAG_EXTERNAL_PID:
        bt_external_node(box, id);
        id->low = data[0];
        id->high = data[1];
        if (id->low > 0x0fffffff)
            id->flags = BT_FLAG_WIDE_PID;
        else
            id->low = id->low << 4 | BT_IDENTITY_PID;
        return true;
    case BT_TAG_EXTERNAL_PORT:
        bt_external_node(box, id);
        number = box[3];
        if (number >> 60 != 0)
            id->flags = BT_FLAG_WIDE_PORT;
        else
            number = number << 4 | BT_IDENTITY_PORT;
        id->low = (uint32_t)number;
        id->high = (uint32_t)(number >> 32);
        return true;
    case BT_TAG_REF:
        /* Numbers in two words, behind 32 bits of ones; a process alias has the process as the third word. A reference that is
           a resource has more, and is nobody's address. */
        if ((uint32_t)box[1] != UINT32_MAX || bt_header_arity(box[0]) < 2 || bt_header_arity(box[0]) > 3)
            return false;
        id->flags = BT_FLAG_ALIAS;
        memcpy(id->numbers, (const uint32_t *)(box + 1) + 1, sizeof id->numbers);
        if (bt_alias_has_process && bt_header_arity(box[0]) == 3) {
            id->low = (uint32_t)box[3];
            id->high = (uint32_t)(box[3] >> 32);
        }
        return true;
    case BT_TAG_EXTERNAL_REF:
        if (data[0] != 3 && data[0] != 5)
            return false;
        bt_external_node(box, id);
        id->flags = BT_FLAG_ALIAS;
        memcpy(id->numbers, data + 1, sizeof id->numbers);
        if (data[0] == 5) {
            id->low = data[4];
            id->high = data[5];
        }
        return true;
    default:
        return false;
    }
}

#endif
