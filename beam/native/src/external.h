/*
 * Single terms of the external format as encode.h writes them, each with what it counts for, and the reading of tokens. Runs when draining, in
 * the process that owns the trace, never in a traced one.
 */
#ifndef BEAMTRACE_EXTERNAL_H
#define BEAMTRACE_EXTERNAL_H

#include "atoms.h"
#include "tokens.h"
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

#endif
