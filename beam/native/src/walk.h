/*
 * What is kept of a term in a traced process where contents are asked for: the part of it that beamtrace_trim.erl could show, as a row of
 * tokens. How long an atom or a node's name is the library can't ask here, so each term counts for the least that it can take; what has been
 * kept too much is cut when draining (encode.h), where all of it is known. Work and bytes are bounded by the limit, not by the term; no
 * allocation. Local funs are named by what identifies them.
 */
#ifndef BEAMTRACE_WALK_H
#define BEAMTRACE_WALK_H

#include "tokens.h"

/* Containers, and what leads to a pair of a large map. Deeper than that a term is cut. */
#define BT_FRAMES_MAX 384

/* What processes and ports count for. */
#define BT_PID_SIZE 17
#define BT_PORT_SIZE 13

enum { BT_F_LIST, BT_F_TAIL, BT_F_TUPLE, BT_F_PAIR, BT_F_FLAT, BT_F_NODE, BT_F_VALUE, BT_F_ARRAY };

/* A container that is being walked. */
typedef struct {
    const uint64_t *at;
    /* The rest of a list, the values of a small map, a value whose key has been kept. */
    uint64_t rest;
    uint32_t left;
    uint8_t kind;
    /* It is a level of nesting; the end of it is. */
    bool level;
} bt_walked;

typedef struct {
    const bt_contents *contents;
    unsigned char *at;
    unsigned char *end;
    int64_t left;
    int depth;
    int layout;
    uint32_t count;
    bt_walked frames[BT_FRAMES_MAX];
} bt_walk;

static inline void bt_t(bt_walk *w, unsigned token) { *w->at++ = (unsigned char)token; }
static inline void bt_t32(bt_walk *w, uint32_t n)
{
    memcpy(w->at, &n, sizeof n);
    w->at += sizeof n;
}
static inline void bt_t64(bt_walk *w, uint64_t n)
{
    memcpy(w->at, &n, sizeof n);
    w->at += sizeof n;
}

static inline bt_walked *bt_begin(bt_walk *w, uint8_t kind, const uint64_t *at, uint64_t rest, uint32_t left, bool level)
{
    bt_walked *frame = &w->frames[w->count++];

    frame->at = at;
    frame->rest = rest;
    frame->left = left;
    frame->kind = kind;
    frame->level = level;
    w->depth += level;
    return frame;
}

static inline uint64_t bt_small_size(int64_t n)
{
    uint64_t magnitude = n < 0 ? 0 - (uint64_t)n : (uint64_t)n;

    if (n >= 0 && n < 256)
        return 3;
    if (n >= INT32_MIN && n <= INT32_MAX)
        return 6;
    return bt_big_size((71 - (uint64_t)__builtin_clzll(magnitude)) / 8);
}

static void bt_walk_big(bt_walk *w, const uint64_t *box)
{
    uint64_t digits = bt_header_arity(box[0]);
    uint64_t bytes = digits * 8 - (uint64_t)__builtin_clzll(box[digits] | 1) / 8;
    int64_t size = (int64_t)bt_big_size(bytes);

    if (size > w->left && size > BT_TRIM_HEADER) {
        bt_t(w, BT_T_LARGE);
        w->left = 0;
        return;
    }
    bt_t(w, BT_T_BIG);
    bt_t(w, (box[0] & 0x3f) == BT_TAG_NEGATIVE_BIG);
    bt_t32(w, (uint32_t)bytes);
    memcpy(w->at, box + 1, bytes);
    w->at += bytes;
    w->left -= size;
}

static void bt_walk_bits(bt_walk *w, bt_term t)
{
    bt_bitstring s = bt_bits_at(t, w->layout);
    uint64_t most = w->left > BT_TRIM_HEADER ? (uint64_t)(w->left - BT_TRIM_HEADER) * 8 : 0;
    uint64_t bits = s.bits < most ? s.bits : most;

    bt_t(w, BT_T_BITS);
    bt_t32(w, (uint32_t)bits);
    bt_copy_bits(w->at, &s, bits);
    w->at += (bits + 7) / 8;
    w->left -= BT_TRIM_HEADER + (int64_t)((bits + 7) / 8);
}

static void bt_walk_numbers(bt_walk *w, uint32_t node, uint32_t creation, uint32_t count, const uint32_t *numbers)
{
    bt_t(w, BT_T_REF);
    bt_t32(w, node);
    bt_t32(w, creation);
    bt_t(w, count);
    for (uint32_t i = 0; i < count; i++)
        bt_t32(w, numbers[i]);
    w->left -= 10 + 4 * (int64_t)count;
}

static void bt_walk_reference(bt_walk *w, bt_term t, const uint64_t *box)
{
    uint32_t numbers[5] = {0, 0, 0, 0, 0};
    bt_identity id;
    uint32_t count = 3;

    if (!bt_read_identity(t, &id)) {
        /* A resource, or more numbers than any reference of this time has. */
        if ((box[0] & 0x3f) == BT_TAG_EXTERNAL_REF) {
            bt_t(w, BT_T_OTHER);
            w->left -= BT_TRIM_HEADER;
            return;
        }
        memcpy(id.numbers, bt_resource_of(box) + bt_resource_numbers(w->layout), sizeof id.numbers);
    } else if ((box[0] & 0x3f) == BT_TAG_EXTERNAL_REF) {
        count = *(const uint32_t *)(box + 3);
    } else if (bt_alias_has_process && bt_header_arity(box[0]) == 3) {
        count = 5;
    }
    memcpy(numbers, id.numbers, sizeof id.numbers);
    numbers[3] = id.low;
    numbers[4] = id.high;
    bt_walk_numbers(w, id.node, id.creation, count, numbers);
}

static void bt_walk_fun(bt_walk *w, bt_term t, const uint64_t *box)
{
    if (bt_is_external_fun(box, w->layout)) {
        bt_mfa mfa = bt_fun_mfa(t, w->layout);

        bt_t(w, BT_T_EXPORT);
        bt_t32(w, mfa.module);
        bt_t32(w, mfa.function);
        bt_t(w, mfa.arity);
        w->left -= 3 * BT_TRIM_HEADER;
        return;
    }
    const unsigned char *entry = (const unsigned char *)bt_export_of(box);
    bt_fun_places places = bt_fun_places_of(w->layout);
    bt_fun_id id;
    uint64_t module;

    memcpy(&module, entry + places.module, sizeof module);
    id.module = bt_atom_word(module);
    memcpy(&id.index, entry + places.index, sizeof id.index);
    memcpy(&id.unique, entry + places.unique, sizeof id.unique);
    memcpy(&id.old_index, entry + places.unique + sizeof id.unique, sizeof id.old_index);
    memcpy(id.md5, entry + places.md5, sizeof id.md5);
    id.arity = (uint32_t)(w->layout < BT_LAYOUT_OTP27 ? box[3] & 0xff : box[0] >> 8 & 0xff);
    bt_t(w, BT_T_FUN);
    memcpy(w->at, &id, sizeof id);
    w->at += sizeof id;
    /* A tuple of four: '[fun]', two other atoms, a small number. What is cut of it is cut because all is used up. */
    w->left -= BT_TRIM_HEADER + 8 + 3 + 3 + 3;
}

static void bt_walk_map(bt_walk *w, const uint64_t *box)
{
    bt_t(w, BT_T_MAP);
    bt_t32(w, (uint32_t)box[1]);
    w->left -= BT_TRIM_HEADER;
    if (bt_map_kind(box[0]) == BT_MAP_FLAT) {
        bt_begin(w, BT_F_FLAT, bt_flat_keys(box), (uint64_t)(uintptr_t)bt_flat_values(box), (uint32_t)bt_flat_size(box), true);
    } else {
        const uint64_t *children;
        uint32_t count = bt_map_children(box, &children, w->layout);

        bt_begin(w, BT_F_NODE, children, 0, count, true);
    }
}

/* A process or port of another node. */
static void bt_walk_external(bt_walk *w, const uint64_t *box, unsigned token, int64_t size)
{
    bt_identity id;

    bt_external_node(box, &id);
    bt_t(w, token);
    bt_t32(w, id.node);
    bt_t32(w, id.creation);
    bt_t64(w, box[3]);
    w->left -= size;
}

static void bt_walk_boxed(bt_walk *w, bt_term t)
{
    const uint64_t *box = bt_box(t);

    switch (box[0] & 0x3f) {
    case BT_TAG_TUPLE:
        bt_t(w, BT_T_TUPLE);
        bt_t32(w, (uint32_t)bt_header_arity(box[0]));
        w->left -= BT_TRIM_HEADER;
        if (bt_header_arity(box[0]) == 2)
            bt_begin(w, BT_F_PAIR, &box[1], box[2], 0, true);
        else
            bt_begin(w, BT_F_TUPLE, box + 1, 0, (uint32_t)bt_header_arity(box[0]), true);
        return;
    case BT_TAG_FLOAT:
        bt_t(w, BT_T_FLOAT);
        bt_t64(w, box[1]);
        w->left -= 10;
        return;
    case BT_TAG_POSITIVE_BIG:
    case BT_TAG_NEGATIVE_BIG:
        bt_walk_big(w, box);
        return;
    case BT_TAG_FUN:
        bt_walk_fun(w, t, box);
        return;
    case BT_TAG_REF:
    case BT_TAG_EXTERNAL_REF:
        bt_walk_reference(w, t, box);
        return;
    case BT_TAG_EXTERNAL_PID:
        bt_walk_external(w, box, BT_T_PID, BT_PID_SIZE);
        return;
    case BT_TAG_EXTERNAL_PORT:
        bt_walk_external(w, box, BT_T_PORT, BT_PORT_SIZE);
        return;
    default:
        break;
    }
    if (bt_bits(t, w->layout) >= 0) {
        bt_walk_bits(w, t);
        return;
    }
    if (bt_is_map(box, w->layout)) {
        bt_walk_map(w, box);
        return;
    }
    bt_t(w, BT_T_OTHER);
    w->left -= BT_TRIM_HEADER;
}

static void bt_walk_term(bt_walk *w, bt_term t)
{
    /* What is kept takes less than twice what it counts for; the second half is for who does not believe it. */
    if (w->left <= 0 || w->end - w->at < w->left + BT_CLOSING_BYTES) {
        bt_t(w, BT_T_CUT);
    } else if (w->depth == BT_TRIM_DEPTH || w->count > BT_FRAMES_MAX - 2) {
        bt_t(w, BT_T_DEEP);
        w->left -= BT_TRIM_HEADER;
    } else if (bt_is_atom(t)) {
        bt_t(w, BT_T_ATOM);
        bt_t32(w, bt_atom_word(t));
        w->left -= 3;
    } else if (bt_is_small(t)) {
        int64_t n = bt_small(t);
        int64_t size = (int64_t)bt_small_size(n);

        if (size == 3) {
            bt_t(w, BT_T_BYTE);
            bt_t(w, (unsigned)n);
        } else if (size > w->left && size > BT_TRIM_HEADER) {
            bt_t(w, BT_T_LARGE);
            size = w->left;
        } else {
            bt_t(w, BT_T_SMALL);
            bt_t64(w, (uint64_t)n);
        }
        w->left -= size;
    } else if (bt_is_nil(t)) {
        bt_t(w, BT_T_NIL);
        w->left -= 1;
    } else if (bt_is_list(t)) {
        bt_t(w, BT_T_LIST);
        w->left -= BT_TRIM_HEADER;
        bt_begin(w, BT_F_LIST, NULL, t, 0, true);
    } else if (bt_is_boxed(t)) {
        bt_walk_boxed(w, t);
    } else if (bt_is_local_pid(t) || bt_is_local_port(t)) {
        bt_t(w, BT_T_LOCAL);
        bt_t64(w, t);
        w->left -= bt_is_local_pid(t) ? BT_PID_SIZE : BT_PORT_SIZE;
    } else {
        bt_t(w, BT_T_OTHER);
        w->left -= BT_TRIM_HEADER;
    }
}

static inline void bt_finish(bt_walk *w)
{
    w->count--;
    w->depth -= w->frames[w->count].level;
}

/* The key of a pair; its value is what the frame goes on with. */
static inline void bt_walk_pair(bt_walk *w, bt_walked *pair, bt_term key, bt_term value)
{
    pair->kind = BT_F_VALUE;
    pair->rest = value;
    pair->left = bt_redacts(w->contents, key, w->layout);
    bt_walk_term(w, key);
}

/* A pair of a map: at its level of nesting. */
static inline void bt_walk_association(bt_walk *w, bt_term key, bt_term value)
{
    w->left -= 1;
    bt_walk_pair(w, bt_begin(w, BT_F_PAIR, NULL, 0, 0, false), key, value);
}

static void bt_walk_on(bt_walk *w, bt_walked *frame)
{
    const uint64_t *cell;
    bt_term value;

    switch (frame->kind) {
    case BT_F_LIST:
        if (bt_is_list(frame->rest)) {
            cell = (const uint64_t *)(uintptr_t)(frame->rest & ~(uint64_t)7);
            if (w->left <= 0) {
                bt_t(w, BT_T_MORE);
                bt_finish(w);
                return;
            }
            frame->rest = cell[1];
            bt_walk_term(w, cell[0]);
        } else if (bt_is_nil(frame->rest)) {
            bt_t(w, BT_T_END);
            bt_finish(w);
        } else {
            bt_t(w, BT_T_TAIL);
            frame->kind = BT_F_TAIL;
            bt_walk_term(w, frame->rest);
        }
        return;
    case BT_F_TAIL:
        bt_finish(w);
        return;
    case BT_F_ARRAY:
        if (frame->left == 0) {
            bt_t(w, BT_T_END);
            bt_finish(w);
            return;
        }
        /* As a tuple. */
        __attribute__((fallthrough));
    case BT_F_TUPLE:
        if (frame->left == 0) {
            bt_finish(w);
        } else if (w->left <= 0) {
            bt_t(w, BT_T_MORE);
            bt_finish(w);
        } else {
            frame->left--;
            bt_walk_term(w, *frame->at++);
        }
        return;
    case BT_F_PAIR:
        bt_walk_pair(w, frame, *frame->at, frame->rest);
        return;
    case BT_F_VALUE:
        value = frame->rest;
        if (frame->left != 0) {
            bt_t(w, BT_T_REDACTED);
            w->left -= BT_TRIM_HEADER;
            bt_finish(w);
        } else {
            frame->kind = BT_F_TAIL;
            bt_walk_term(w, value);
        }
        return;
    case BT_F_FLAT:
        if (frame->left == 0) {
            bt_finish(w);
        } else if (w->left <= 0) {
            bt_t(w, BT_T_MORE);
            bt_finish(w);
        } else {
            cell = (const uint64_t *)(uintptr_t)frame->rest;
            frame->rest += sizeof *cell;
            frame->left--;
            bt_walk_association(w, *frame->at++, *cell);
        }
        return;
    case BT_F_NODE:
        if (frame->left == 0) {
            bt_finish(w);
        } else if (w->left <= 0) {
            /* Told once, by the map itself. */
            if (frame->level)
                bt_t(w, BT_T_MORE);
            else
                w->frames[w->count - 2].left = 1;
            bt_finish(w);
        } else {
            value = *frame->at++;
            frame->left--;
            cell = (const uint64_t *)(uintptr_t)(value & ~(uint64_t)7);
            if (bt_is_list(value)) {
                bt_walk_association(w, cell[0], cell[1]);
            } else if (w->count > BT_FRAMES_MAX - 2) {
                /* Nothing of VMs as we know them is that deep. */
                w->left = 0;
                frame->left++;
            } else {
                const uint64_t *children;
                uint32_t count = bt_map_children(cell, &children, w->layout);

                bt_begin(w, BT_F_NODE, children, 0, count, false);
            }
        }
        return;
    default:
        bt_finish(w);
    }
}

#endif
