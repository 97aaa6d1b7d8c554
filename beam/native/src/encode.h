/*
 * From the tokens of contents.h to external terms: cut as beamtrace_trim.erl cuts them, now that the lengths of names are known. Runs when
 * draining, in the process that owns the trace, never in a traced one.
 */
#ifndef BEAMTRACE_ENCODE_H
#define BEAMTRACE_ENCODE_H

#include "atoms.h"
#include "contents.h"
#include "translate.h"

/* Tags of the external term format. */
enum {
    BT_EXT_VERSION = 131,
    BT_EXT_NEW_FLOAT = 70,
    BT_EXT_BIT_BINARY = 77,
    BT_EXT_NEW_PID = 88,
    BT_EXT_NEW_PORT = 89,
    BT_EXT_NEWER_REFERENCE = 90,
    BT_EXT_SMALL_INTEGER = 97,
    BT_EXT_INTEGER = 98,
    BT_EXT_SMALL_TUPLE = 104,
    BT_EXT_LARGE_TUPLE = 105,
    BT_EXT_NIL = 106,
    BT_EXT_LIST = 108,
    BT_EXT_BINARY = 109,
    BT_EXT_SMALL_BIG = 110,
    BT_EXT_LARGE_BIG = 111,
    BT_EXT_EXPORT = 113,
    BT_EXT_MAP = 116,
    BT_EXT_ATOM_UTF8 = 118,
    BT_EXT_SMALL_ATOM_UTF8 = 119,
    BT_EXT_V4_PORT = 120,
};

/* ERL_NIF_UTF8, which OTP 25 does not have. */
#define BT_NIF_UTF8 ((ErlNifCharEncoding)2)
#define BT_ATOM_BYTES 1024

/* How this VM counts and writes names: told with the layout, and proved. */
static struct {
    /* Atoms that Latin-1 can tell count for a byte a character and one more (OTP 25). */
    bool latin1;
    /* Ports are told by 64 bits, all of them. */
    bool wide_ports;
} bt_external;

typedef struct {
    ErlNifEnv *env;
    const unsigned char *in;
    const unsigned char *end;
    unsigned char *out;
    size_t used;
    size_t size;
    int64_t left;
    const bt_contents *contents;
    /* Names of local funs, or NULL, and how many there are. */
    const bt_fun_name *funs;
    uint32_t fun_count;
    /* Local funs whose name is to be found: [{Module, Index, Unique, OldIndex, Arity, Md5}]. */
    bt_term unknown;
    bool failed;
    /* What has been written may be the same for different terms. */
    bool lossy;
} bt_encoder;

static bool bt_room(bt_encoder *e, size_t bytes)
{
    size_t size = e->size;
    unsigned char *out;

    if (e->size - e->used >= bytes)
        return true;
    while (size - e->used < bytes)
        size = size < 4096 ? 4096 : 2 * size;
    out = enif_alloc(size);
    if (out == NULL) {
        e->failed = true;
        return false;
    }
    if (e->used > 0)
        memcpy(out, e->out, e->used);
    enif_free(e->out);
    e->out = out;
    e->size = size;
    return true;
}

static inline void bt_put8(bt_encoder *e, unsigned n)
{
    if (bt_room(e, 1))
        e->out[e->used++] = (unsigned char)n;
}

static inline void bt_put_bytes(bt_encoder *e, const void *bytes, size_t count)
{
    if (count > 0 && bt_room(e, count)) {
        memcpy(e->out + e->used, bytes, count);
        e->used += count;
    }
}

/* Big-endian, in so many bytes. */
static inline void bt_put_number(bt_encoder *e, uint64_t n, unsigned bytes)
{
    unsigned char text[8];

    for (unsigned i = 0; i < bytes; i++)
        text[i] = (unsigned char)(n >> 8 * (bytes - 1 - i));
    bt_put_bytes(e, text, bytes);
}

static inline void bt_patch_number(bt_encoder *e, size_t at, uint64_t n, unsigned bytes)
{
    if (!e->failed)
        for (unsigned i = 0; i < bytes; i++)
            e->out[at + i] = (unsigned char)(n >> 8 * (bytes - 1 - i));
}

/* The next bytes of what was kept; zeros and a failure where there are none. */
static inline const unsigned char *bt_get_bytes(bt_encoder *e, size_t bytes)
{
    static const unsigned char nothing[16];
    const unsigned char *at = e->in;

    if ((size_t)(e->end - e->in) < bytes) {
        e->failed = true;
        e->in = e->end;
        return bytes <= sizeof nothing ? nothing : NULL;
    }
    e->in += bytes;
    return at;
}
static inline unsigned bt_get8(bt_encoder *e) { return *bt_get_bytes(e, 1); }
static inline uint32_t bt_get32(bt_encoder *e)
{
    uint32_t n;

    memcpy(&n, bt_get_bytes(e, sizeof n), sizeof n);
    return n;
}
static inline uint64_t bt_get64(bt_encoder *e)
{
    uint64_t n;

    memcpy(&n, bt_get_bytes(e, sizeof n), sizeof n);
    return n;
}
static inline unsigned bt_peek8(const bt_encoder *e) { return e->in < e->end ? *e->in : (unsigned)BT_T_MORE; }

static void bt_put_text(bt_encoder *e, const char *text, size_t bytes)
{
    if (bytes > 255) {
        bt_put8(e, BT_EXT_ATOM_UTF8);
        bt_put_number(e, bytes, 2);
    } else {
        bt_put8(e, BT_EXT_SMALL_ATOM_UTF8);
        bt_put8(e, (unsigned)bytes);
    }
    bt_put_bytes(e, text, bytes);
}

/* An atom as the VM itself writes it, where its text can't be asked for. */
static int64_t bt_put_foreign_atom(bt_encoder *e, bt_term atom)
{
    ErlNifBinary written;
    int64_t size;

    if (!enif_term_to_binary(e->env, atom, &written))
        return 0;
    size = (int64_t)written.size - 1;
    bt_put_bytes(e, written.data + 1, written.size - 1);
    enif_release_binary(&written);
    return size;
}

/* Returns what the atom counts for, as erlang:external_size/1 counts it, but for the version. */
static int64_t bt_put_atom(bt_encoder *e, uint32_t word) __attribute__((noinline));
static int64_t bt_put_atom(bt_encoder *e, uint32_t word)
{
    bt_term atom = word;
    char text[BT_ATOM_BYTES];
    int written;

    if (!bt_is_atom(atom)) {
        e->failed = true;
        return 0;
    }
    if (!bt_external.latin1) {
        written = enif_get_atom(e->env, atom, text, sizeof text, BT_NIF_UTF8);
        if (written <= 0)
            return bt_put_foreign_atom(e, atom);
        bt_put_text(e, text, (size_t)written - 1);
        return written - 1 > 255 ? written - 1 + 3 : written - 1 + 2;
    }
    written = enif_get_atom(e->env, atom, text, sizeof text / 2, ERL_NIF_LATIN1);
    if (written <= 0)
        return bt_put_foreign_atom(e, atom);
    {
        char utf8[BT_ATOM_BYTES];
        size_t bytes = 0;

        for (int i = 0; i < written - 1; i++) {
            unsigned char c = (unsigned char)text[i];

            if (c >= 0x80)
                utf8[bytes++] = (char)(0xc0 | c >> 6);
            utf8[bytes++] = (char)(c >= 0x80 ? 0x80 | (c & 0x3f) : c);
        }
        bt_put_text(e, utf8, bytes);
    }
    return written - 1 + 3;
}

#define BT_PUT_LITERAL(e, text) bt_put_text((e), (text), sizeof(text) - 1)

static void bt_put_trimmed(bt_encoder *e)
{
    BT_PUT_LITERAL(e, "[trimmed]");
    e->lossy = true;
}

/* The node of a process, port or reference: this one where it is none. */
static int64_t bt_put_node(bt_encoder *e, uint32_t node) { return bt_put_atom(e, node != 0 ? node : e->contents->node); }

static inline uint32_t bt_creation(const bt_encoder *e, uint32_t node, uint32_t creation)
{
    return node != 0 ? creation : e->contents->creation;
}

static void bt_put_pid(bt_encoder *e, uint32_t node, uint32_t creation, uint32_t id, uint32_t serial)
{
    bt_put8(e, BT_EXT_NEW_PID);
    e->left -= 1 + 1 + bt_put_node(e, node) + 12;
    bt_put_number(e, id, 4);
    bt_put_number(e, serial, 4);
    bt_put_number(e, bt_creation(e, node, creation), 4);
}

static void bt_put_port(bt_encoder *e, uint32_t node, uint32_t creation, uint64_t number)
{
    bool wide = bt_external.wide_ports || number >> 28 != 0;

    bt_put8(e, wide ? BT_EXT_V4_PORT : BT_EXT_NEW_PORT);
    e->left -= 1 + 1 + bt_put_node(e, node) + (wide ? 12 : 8);
    bt_put_number(e, number, wide ? 8 : 4);
    bt_put_number(e, bt_creation(e, node, creation), 4);
}

static void bt_put_local(bt_encoder *e, uint64_t word)
{
    uint32_t words[2] = {(uint32_t)word, (uint32_t)(word >> 32)};

    bt_translate(words);
    if (bt_is_local_pid(word))
        bt_put_pid(e, 0, 0, words[0] >> 4, words[1]);
    else
        bt_put_port(e, 0, 0, words[0] >> 4 | (uint64_t)words[1] << 28);
}

static void bt_put_reference(bt_encoder *e)
{
    uint32_t node = bt_get32(e);
    uint32_t creation = bt_get32(e);
    unsigned count = bt_get8(e);

    bt_put8(e, BT_EXT_NEWER_REFERENCE);
    bt_put_number(e, count, 2);
    e->left -= 1 + 1 + 2 + bt_put_node(e, node) + 4 + 4 * (int64_t)count;
    bt_put_number(e, bt_creation(e, node, creation), 4);
    for (unsigned i = 0; i < count; i++)
        bt_put_number(e, bt_get32(e), 4);
}

/* Least significant byte first. Counts as the VM counts. */
static void bt_put_big(bt_encoder *e, bool negative, const unsigned char *bytes, uint32_t count)
{
    int64_t size = (int64_t)bt_big_size(count);

    if (bytes == NULL || (size > e->left && size > BT_TRIM_HEADER)) {
        bt_put_trimmed(e);
        e->left = 0;
        return;
    }
    bt_put8(e, count > 255 ? BT_EXT_LARGE_BIG : BT_EXT_SMALL_BIG);
    bt_put_number(e, count, count > 255 ? 4 : 1);
    bt_put8(e, negative);
    bt_put_bytes(e, bytes, count);
    e->left -= size;
}

static void bt_put_small(bt_encoder *e, int64_t n)
{
    uint64_t magnitude = n < 0 ? 0 - (uint64_t)n : (uint64_t)n;
    unsigned char bytes[8];

    if (n >= 0 && n < 256) {
        bt_put8(e, BT_EXT_SMALL_INTEGER);
        bt_put8(e, (unsigned)n);
        e->left -= 3;
    } else if (n >= INT32_MIN && n <= INT32_MAX) {
        bt_put8(e, BT_EXT_INTEGER);
        bt_put_number(e, (uint64_t)n, 4);
        e->left -= 6;
    } else {
        memcpy(bytes, &magnitude, sizeof bytes);
        bt_put_big(e, n < 0, bytes, (uint32_t)((71 - (unsigned)__builtin_clzll(magnitude)) / 8));
    }
}

static void bt_put_bits(bt_encoder *e)
{
    uint64_t kept = bt_get32(e);
    const unsigned char *bytes = bt_get_bytes(e, (kept + 7) / 8);
    uint64_t most = e->left > BT_TRIM_HEADER ? (uint64_t)(e->left - BT_TRIM_HEADER) * 8 : 0;
    uint64_t bits = kept < most ? kept : most;
    uint64_t count = (bits + 7) / 8;

    if (bytes == NULL)
        return;
    e->lossy |= bits < kept || bits == most;
    bt_put8(e, bits % 8 == 0 ? BT_EXT_BINARY : BT_EXT_BIT_BINARY);
    bt_put_number(e, count, 4);
    if (bits % 8 != 0)
        bt_put8(e, (unsigned)(bits % 8));
    bt_put_bytes(e, bytes, count);
    e->left -= BT_TRIM_HEADER + (int64_t)count;
}

static_assert(BT_FUNS_SIZE == 8192 && BT_FUNS_MAX < BT_FUNS_SIZE, "thirteen bits, and a place is always free");

/* The place of a fun among the names: its own, or the free one where it would be. */
static uint32_t bt_fun_place(const bt_fun_name *funs, const bt_fun_id *id)
{
    uint32_t at = (id->module ^ id->unique ^ id->index * UINT32_C(0x85EBCA6B)) * UINT32_C(0x9E3779B1) >> 19;

    while (funs[at].name != 0 && memcmp(&funs[at].id, id, sizeof *id) != 0)
        at = (at + 1) % BT_FUNS_SIZE;
    return at;
}

/* The name of a fun; 0, and it is told of, when it is not known. */
static uint32_t bt_find_fun(bt_encoder *e, const bt_fun_id *id)
{
    uint32_t name = e->funs != NULL ? e->funs[bt_fun_place(e->funs, id)].name : 0;
    bt_term md5;

    if (name != 0)
        return name;
    if (e->fun_count >= BT_FUNS_MAX)
        return bt_atom_word(bt_atoms.undefined);
    memcpy(enif_make_new_binary(e->env, sizeof id->md5, &md5), id->md5, sizeof id->md5);
    e->unknown = enif_make_list_cell(e->env,
                                     enif_make_tuple6(e->env, bt_is_atom(id->module) ? (bt_term)id->module : bt_atoms.undefined,
                                                      enif_make_uint(e->env, id->index), enif_make_uint(e->env, id->unique),
                                                      enif_make_uint(e->env, id->old_index), enif_make_uint(e->env, id->arity), md5),
                                     e->unknown);
    return 0;
}

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
