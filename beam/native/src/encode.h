/*
 * From the tokens of contents.h to external terms: cut as beamtrace_trim.erl cuts them, now that the lengths of names are known. Runs when
 * draining, in the process that owns the trace, never in a traced one.
 */
#ifndef BEAMTRACE_ENCODE_H
#define BEAMTRACE_ENCODE_H

#include "external.h"

static void bt_encode_term(bt_encoder *e, int depth);
static void bt_skip_term(bt_encoder *e);

/* An element of a tuple that is not in the tokens: an atom that is cut like any other. */
static void bt_put_part(bt_encoder *e, uint32_t word)
{
    if (e->left <= 0)
        bt_put_trimmed(e);
    else
        e->left -= 1 + bt_put_atom(e, word);
}

/* {'[fun]', Module, Name, Arity} */
static void bt_put_fun(bt_encoder *e, int depth)
{
    const unsigned char *kept = bt_get_bytes(e, sizeof(bt_fun_id));
    bt_fun_id id;
    uint32_t name;
    size_t at;
    unsigned parts = 0;

    e->lossy = true;
    if (kept == NULL)
        return;
    memcpy(&id, kept, sizeof id);
    name = bt_find_fun(e, &id);
    if (name == 0) {
        /* Nothing of this will be used. */
        bt_put_trimmed(e);
        return;
    }
    e->left -= BT_TRIM_HEADER;
    bt_put8(e, BT_EXT_SMALL_TUPLE);
    at = e->used;
    bt_put8(e, 4);
    while (parts < 4) {
        if (e->left <= 0) {
            bt_put_trimmed(e);
            parts++;
            break;
        }
        if (depth <= 1) {
            bt_put_trimmed(e);
            e->left -= BT_TRIM_HEADER;
        } else if (parts == 0) {
            BT_PUT_LITERAL(e, "[fun]");
            e->left -= 1 + (bt_external.latin1 ? 3 : 2) + 5;
        } else if (parts == 3) {
            bt_put_small(e, id.arity);
        } else {
            bt_put_part(e, parts == 1 ? id.module : name);
        }
        parts++;
    }
    bt_patch_number(e, at, parts, 1);
}

/* What is left of a list's tokens, or of those of so many terms. */
static void bt_skip_list(bt_encoder *e)
{
    for (;;) {
        unsigned next = bt_peek8(e);

        if (next == BT_T_END || next == BT_T_MORE || next == BT_T_TAIL) {
            (void)bt_get8(e);
            if (next == BT_T_TAIL)
                bt_skip_term(e);
            return;
        }
        bt_skip_term(e);
    }
}

static void bt_skip_terms(bt_encoder *e, uint64_t count)
{
    for (; count > 0; count--) {
        if (bt_peek8(e) == BT_T_MORE) {
            (void)bt_get8(e);
            return;
        }
        bt_skip_term(e);
    }
}

static void bt_skip_term(bt_encoder *e)
{
    uint32_t count;

    switch (bt_get8(e)) {
    case BT_T_ATOM:
        (void)bt_get_bytes(e, 4);
        break;
    case BT_T_BYTE:
        (void)bt_get8(e);
        break;
    case BT_T_SMALL:
    case BT_T_FLOAT:
    case BT_T_LOCAL:
        (void)bt_get64(e);
        break;
    case BT_T_BIG:
        (void)bt_get8(e);
        count = bt_get32(e);
        (void)bt_get_bytes(e, count);
        break;
    case BT_T_PID:
    case BT_T_PORT:
        (void)bt_get_bytes(e, 16);
        break;
    case BT_T_REF:
        (void)bt_get64(e);
        count = bt_get8(e);
        (void)bt_get_bytes(e, 4 * (size_t)count);
        break;
    case BT_T_BITS:
        count = bt_get32(e);
        (void)bt_get_bytes(e, ((size_t)count + 7) / 8);
        break;
    case BT_T_EXPORT:
        (void)bt_get_bytes(e, 9);
        break;
    case BT_T_FUN:
        (void)bt_get_bytes(e, sizeof(bt_fun_id));
        break;
    case BT_T_LIST:
        bt_skip_list(e);
        break;
    case BT_T_TUPLE:
        bt_skip_terms(e, bt_get32(e));
        break;
    case BT_T_MAP:
        bt_skip_terms(e, 2 * (uint64_t)bt_get32(e));
        break;
    default:
        break;
    }
}

static void bt_encode_list(bt_encoder *e, int depth)
{
    size_t at;
    uint32_t count = 0;

    e->left -= BT_TRIM_HEADER;
    bt_put8(e, BT_EXT_LIST);
    at = e->used;
    bt_put_number(e, 0, 4);
    for (;;) {
        unsigned next = bt_peek8(e);

        if (next == BT_T_END) {
            (void)bt_get8(e);
            bt_put8(e, BT_EXT_NIL);
            break;
        }
        if (next == BT_T_TAIL) {
            (void)bt_get8(e);
            bt_encode_term(e, depth - 1);
            break;
        }
        if (next == BT_T_MORE || e->left <= 0 || e->failed) {
            bt_skip_list(e);
            bt_put_trimmed(e);
            bt_put8(e, BT_EXT_NIL);
            count++;
            break;
        }
        bt_encode_term(e, depth - 1);
        count++;
    }
    bt_patch_number(e, at, count, 4);
}

/* The value of a pair; whether it is shown depends on the key. */
static void bt_encode_value(bt_encoder *e, int depth)
{
    if (bt_peek8(e) == BT_T_REDACTED) {
        (void)bt_get8(e);
        BT_PUT_LITERAL(e, "[redacted]");
        e->lossy = true;
        e->left -= BT_TRIM_HEADER;
    } else {
        bt_encode_term(e, depth);
    }
}

static void bt_encode_tuple(bt_encoder *e, int depth)
{
    uint32_t arity = bt_get32(e);
    unsigned width = arity > 255 ? 4 : 1;
    uint32_t count = 0;
    size_t at;

    e->left -= BT_TRIM_HEADER;
    bt_put8(e, width == 1 ? BT_EXT_SMALL_TUPLE : BT_EXT_LARGE_TUPLE);
    at = e->used;
    bt_put_number(e, 0, width);
    if (arity == 2) {
        bt_encode_term(e, depth - 1);
        bt_encode_value(e, depth - 1);
        count = 2;
    }
    for (; count < arity; count++) {
        if (e->left <= 0 || bt_peek8(e) == BT_T_MORE || e->failed) {
            bt_skip_terms(e, arity - count);
            bt_put_trimmed(e);
            count++;
            break;
        }
        bt_encode_term(e, depth - 1);
    }
    bt_patch_number(e, at, count, width);
}

/* Where an external term ends that this encoder has written. */
static size_t bt_end_of(const bt_encoder *e, size_t at)
{
    const unsigned char *t = e->out + at;
    uint64_t terms = 0;
    size_t next;

    switch (*t) {
    case BT_EXT_NEW_FLOAT:
        return at + 9;
    case BT_EXT_BIT_BINARY:
        return at + 6 + ((size_t)t[1] << 24 | (size_t)t[2] << 16 | (size_t)t[3] << 8 | t[4]);
    case BT_EXT_NEW_PID:
        return bt_end_of(e, at + 1) + 12;
    case BT_EXT_NEW_PORT:
        return bt_end_of(e, at + 1) + 8;
    case BT_EXT_V4_PORT:
        return bt_end_of(e, at + 1) + 12;
    case BT_EXT_NEWER_REFERENCE:
        return bt_end_of(e, at + 3) + 4 + 4 * (size_t)t[2];
    case BT_EXT_SMALL_INTEGER:
        return at + 2;
    case BT_EXT_INTEGER:
        return at + 5;
    case BT_EXT_SMALL_TUPLE:
        terms = t[1];
        next = at + 2;
        break;
    case BT_EXT_LARGE_TUPLE:
    case BT_EXT_LIST:
    case BT_EXT_MAP:
        terms = (uint64_t)t[1] << 24 | (uint64_t)t[2] << 16 | (uint64_t)t[3] << 8 | t[4];
        terms = *t == BT_EXT_MAP ? 2 * terms : *t == BT_EXT_LIST ? terms + 1 : terms;
        next = at + 5;
        break;
    case BT_EXT_BINARY:
        return at + 5 + ((size_t)t[1] << 24 | (size_t)t[2] << 16 | (size_t)t[3] << 8 | t[4]);
    case BT_EXT_SMALL_BIG:
        return at + 3 + t[1];
    case BT_EXT_LARGE_BIG:
        return at + 6 + ((size_t)t[1] << 24 | (size_t)t[2] << 16 | (size_t)t[3] << 8 | t[4]);
    case BT_EXT_EXPORT:
        return bt_end_of(e, bt_end_of(e, at + 1)) + 2;
    case BT_EXT_ATOM_UTF8:
        return at + 3 + ((size_t)t[1] << 8 | t[2]);
    case BT_EXT_SMALL_ATOM_UTF8:
        return at + 2 + t[1];
    default:
        return at + 1;
    }
    for (; terms > 0; terms--)
        next = bt_end_of(e, next);
    return next;
}

/* Keys that were different may have been cut to the same: of these the last pair stays. Returns how many pairs there are then. */
static uint32_t bt_unique_pairs(bt_encoder *e, size_t first, uint32_t pairs)
{
    size_t at = first;

    for (uint32_t i = 0; i < pairs;) {
        size_t value = bt_end_of(e, at);
        size_t next = bt_end_of(e, value);
        bool again = false;
        size_t other = next;

        for (uint32_t j = i + 1; j < pairs && !again; j++) {
            size_t end = bt_end_of(e, other);

            again = end - other == value - at && memcmp(e->out + other, e->out + at, end - other) == 0;
            other = bt_end_of(e, end);
        }
        if (again) {
            memmove(e->out + at, e->out + next, e->used - next);
            e->used -= next - at;
            pairs--;
        } else {
            at = next;
            i++;
        }
    }
    return pairs;
}

static void bt_encode_map(bt_encoder *e, int depth)
{
    uint32_t size = bt_get32(e);
    uint32_t pairs = 0;
    bool outside = e->lossy;
    bool lossy = false;
    size_t at;

    e->left -= BT_TRIM_HEADER;
    bt_put8(e, BT_EXT_MAP);
    at = e->used;
    bt_put_number(e, 0, 4);
    for (uint32_t i = 0; i < size; i++, pairs++) {
        e->lossy = false;
        if (e->left <= 0 || bt_peek8(e) == BT_T_MORE || e->failed) {
            bt_skip_terms(e, 2 * (uint64_t)(size - i));
            bt_put_trimmed(e);
            bt_put_trimmed(e);
            outside = true;
            lossy |= pairs > 0;
            pairs++;
            break;
        }
        e->left -= 1;
        bt_encode_term(e, depth - 1);
        lossy |= e->lossy;
        outside |= e->lossy;
        e->lossy = false;
        bt_encode_value(e, depth - 1);
        outside |= e->lossy;
    }
    e->lossy = outside;
    if (lossy && !e->failed)
        pairs = bt_unique_pairs(e, at + 4, pairs);
    bt_patch_number(e, at, pairs, 4);
}

static void bt_encode_term(bt_encoder *e, int depth)
{
    unsigned token;
    uint32_t word;

    if (e->left <= 0 || depth == 0) {
        if (e->left > 0)
            e->left -= BT_TRIM_HEADER;
        bt_put_trimmed(e);
        bt_skip_term(e);
        return;
    }
    token = bt_get8(e);
    switch (token) {
    case BT_T_NIL:
        bt_put8(e, BT_EXT_NIL);
        e->left -= 1;
        break;
    case BT_T_ATOM:
        e->left -= 1 + bt_put_atom(e, bt_get32(e));
        break;
    case BT_T_BYTE:
        bt_put_small(e, bt_get8(e));
        break;
    case BT_T_SMALL:
        bt_put_small(e, (int64_t)bt_get64(e));
        break;
    case BT_T_FLOAT:
        bt_put8(e, BT_EXT_NEW_FLOAT);
        bt_put_number(e, bt_get64(e), 8);
        e->left -= 10;
        break;
    case BT_T_BIG:
        token = bt_get8(e);
        word = bt_get32(e);
        bt_put_big(e, token != 0, bt_get_bytes(e, word), word);
        break;
    case BT_T_LOCAL:
        bt_put_local(e, bt_get64(e));
        break;
    case BT_T_PID: {
        uint32_t node = bt_get32(e);
        uint32_t creation = bt_get32(e);
        uint32_t id = bt_get32(e);

        bt_put_pid(e, node, creation, id, bt_get32(e));
        break;
    }
    case BT_T_PORT: {
        uint32_t node = bt_get32(e);
        uint32_t creation = bt_get32(e);

        bt_put_port(e, node, creation, bt_get64(e));
        break;
    }
    case BT_T_REF:
        bt_put_reference(e);
        break;
    case BT_T_BITS:
        bt_put_bits(e);
        break;
    case BT_T_EXPORT:
        bt_put8(e, BT_EXT_EXPORT);
        (void)bt_put_atom(e, bt_get32(e));
        (void)bt_put_atom(e, bt_get32(e));
        bt_put8(e, BT_EXT_SMALL_INTEGER);
        bt_put8(e, bt_get8(e));
        e->left -= 3 * BT_TRIM_HEADER;
        break;
    case BT_T_FUN:
        bt_put_fun(e, depth);
        break;
    case BT_T_LIST:
        bt_encode_list(e, depth);
        break;
    case BT_T_TUPLE:
        bt_encode_tuple(e, depth);
        break;
    case BT_T_MAP:
        bt_encode_map(e, depth);
        break;
    case BT_T_LARGE:
        bt_put_trimmed(e);
        e->left = 0;
        break;
    default:
        /* Too deep, or unknown. */
        bt_put_trimmed(e);
        e->left -= BT_TRIM_HEADER;
    }
}

static void bt_encoder_begin(bt_encoder *e, ErlNifEnv *env, const bt_fun_name *funs, uint32_t fun_count)
{
    memset(e, 0, sizeof *e);
    e->env = env;
    e->funs = funs;
    e->fun_count = fun_count;
    e->unknown = enif_make_list(env, 0);
}

/* One term of `count` tokens' bytes, behind what has been written. False: there is none, for want of memory. */
static bool bt_encode(bt_encoder *e, const bt_contents *contents, const unsigned char *tokens, size_t count)
{
    e->in = tokens;
    e->end = tokens + count;
    e->left = contents->max;
    e->contents = contents;
    e->failed = e->lossy = false;
    bt_put8(e, BT_EXT_VERSION);
    bt_encode_term(e, BT_TRIM_DEPTH);
    return !e->failed;
}

#endif
