/*
 * What contents are kept as, in a row of tokens (contents.h writes them, encode.h reads them), what a trace asks for, and how the VM's terms lie
 * in memory where no other part of the library looks: bit strings, maps, entries of funs, resources. Proved at load like terms.h.
 */
#ifndef BEAMTRACE_TOKENS_H
#define BEAMTRACE_TOKENS_H

#include "terms.h"

/* The rules of beamtrace_trim.erl. */
#define BT_TRIM_DEPTH 64
#define BT_TRIM_HEADER 9

#define BT_CONTENTS_MAX 32768
/* An atom takes five bytes and counts for three; a container's end takes one more, and what is begun when all is used up goes on top. */
#define BT_CONTENTS_BYTES(max) (2 * (size_t)(max) + 512)
#define BT_CLOSING_BYTES 256
#define BT_REDACT_MAX 512

/* Little-endian numbers follow: a is 32 bits, b a byte, w a word of the VM. */
enum {
    BT_T_END,      /* a list's: [] */
    BT_T_MORE,     /* there is more of the list, tuple or map than is kept */
    BT_T_TAIL,     /* a term follows that is no list */
    BT_T_CUT,      /* a term that nothing is kept of, all being used up */
    BT_T_DEEP,     /* one that is nested too deep */
    BT_T_LARGE,    /* an integer that is too long */
    BT_T_OTHER,    /* a term of a kind that is not known here */
    BT_T_REDACTED, /* the value under a key that is not to be shown */
    BT_T_NIL,
    BT_T_ATOM,  /* a */
    BT_T_BYTE,  /* b */
    BT_T_SMALL, /* w: a number of 60 bits, not tagged */
    BT_T_FLOAT, /* eight bytes */
    BT_T_BIG,   /* b: negative; a: bytes; these */
    BT_T_LOCAL, /* w: a process or port of this node */
    BT_T_PID,   /* node a, creation a, id a, serial a */
    BT_T_PORT,  /* node a, creation a, w: a plain number */
    BT_T_REF,   /* node a or 0, creation a, count b, count times a */
    BT_T_BITS,  /* a; as many bits, the last byte's low ones are 0 */
    BT_T_EXPORT, /* module a, function a, arity b */
    BT_T_FUN,   /* bt_fun_id */
    BT_T_LIST,
    BT_T_TUPLE, /* arity a */
    BT_T_MAP,   /* pairs a */
};

typedef struct {
    uint32_t at;
    uint32_t size;
} bt_key;

/* What is asked for. Filled before anybody looks. */
typedef struct {
    uint32_t max;
    /* Bytes of a ring's scratch. */
    uint32_t bytes;
    /* This node, as terms of it are told. */
    uint32_t node;
    uint32_t creation;
    /* Keys: atoms' words by open addressing, binaries in a row. */
    uint32_t atoms[2 * BT_REDACT_MAX];
    uint32_t atom_count;
    uint32_t key_count;
    uint32_t key_bytes;
    /* Lengths of keys that there are, a bit each, for those below 64; the last bit for all others. */
    uint64_t lengths;
    bt_key keys[BT_REDACT_MAX];
    unsigned char text[16384];
} bt_contents;

static_assert(BT_REDACT_MAX == 512, "bt_redact_place gives ten bits");
static inline uint32_t bt_redact_place(uint32_t word) { return word * UINT32_C(0x9E3779B1) >> 22; }

static inline bool bt_redacts_atom(const bt_contents *contents, bt_term key)
{
    uint32_t word = bt_atom_word(key);

    for (uint32_t at = bt_redact_place(word); contents->atoms[at] != 0; at = (at + 1) % (2 * BT_REDACT_MAX))
        if (contents->atoms[at] == word)
            return true;
    return false;
}

/* Numbers of a reference that is a resource, and bytes of a binary, are in what it points to. */
static inline const unsigned char *bt_resource_of(const uint64_t *box) { return (const unsigned char *)(uintptr_t)box[1]; }
#define BT_BINARY_BYTES 32

/* The binary that a part is of. */
static inline bt_term bt_whole_of(const uint64_t *box) { return box[4]; }

/* Where the bits of a bit string are: from bit `skip` of the byte `at` on. */
typedef struct {
    const unsigned char *at;
    uint64_t bits;
    unsigned skip;
} bt_bitstring;

/* Of a term that bt_bits accepts. */
static inline bt_bitstring bt_bits_at(bt_term t, int layout)
{
    const uint64_t *box = bt_box(t);
    bt_bitstring s = {NULL, (uint64_t)bt_bits(t, layout), 0};
    uint64_t from = 0;

    if (layout < BT_LAYOUT_OTP27) {
        if ((box[0] & 0x3f) == BT_TAG_OTP25_SUB_BINARY) {
            from = box[2] * 8 + (box[3] >> 8 & 0xff);
            box = bt_box(bt_whole_of(box));
        }
        s.at = (box[0] & 0x3f) == BT_TAG_OTP25_REFC_BINARY ? (const unsigned char *)(uintptr_t)box[4] : (const unsigned char *)(box + 2);
    } else if ((box[0] & 0x3f) == BT_TAG_OTP27_SUB_BITS) {
        from = box[2];
        /* Of a binary that may still grow, and so be moved, only where it is now counts. */
        s.at = (box[1] & 3) == 0 ? (const unsigned char *)(uintptr_t)box[1] : bt_resource_of(bt_box(bt_whole_of(box))) + BT_BINARY_BYTES;
    } else {
        s.at = (const unsigned char *)(box + 2);
    }
    s.at += from / 8;
    s.skip = from % 8;
    return s;
}

static inline unsigned char bt_byte_of(const bt_bitstring *s, uint64_t i)
{
    if (s->skip == 0)
        return s->at[i];
    /* The next byte is looked at only where bits of it are asked for. */
    return (unsigned char)(s->at[i] << s->skip | (i * 8 + 8 - s->skip < s->bits ? s->at[i + 1] >> (8 - s->skip) : 0));
}

/* Copies the first `bits`, no more than there are. */
static inline void bt_copy_bits(unsigned char *to, const bt_bitstring *s, uint64_t bits)
{
    uint64_t bytes = (bits + 7) / 8;

    if (s->skip == 0)
        memcpy(to, s->at, bytes);
    else
        for (uint64_t i = 0; i < bytes; i++)
            to[i] = bt_byte_of(s, i);
    if (bits % 8 != 0)
        to[bytes - 1] &= (unsigned char)(0xff00u >> bits % 8);
}

static bool bt_redacts_binary(const bt_contents *contents, bt_term key, int layout)
{
    int64_t bits = bt_bits(key, layout);
    uint64_t size = (uint64_t)bits / 8;
    bt_bitstring s;

    if (bits < 0 || bits % 8 != 0 || !(contents->lengths >> (size < 63 ? size : 63) & 1))
        return false;
    s = bt_bits_at(key, layout);
    for (uint32_t i = 0; i < contents->key_count; i++) {
        const unsigned char *text = contents->text + contents->keys[i].at;
        uint64_t same = 0;

        if (contents->keys[i].size != size)
            continue;
        while (same < size && bt_byte_of(&s, same) == text[same])
            same++;
        if (same == size)
            return true;
    }
    return false;
}

static inline bool bt_redacts(const bt_contents *contents, bt_term key, int layout)
{
    if (bt_is_atom(key))
        return contents->atom_count != 0 && bt_redacts_atom(contents, key);
    return contents->lengths != 0 && bt_is_boxed(key) && bt_redacts_binary(contents, key, layout);
}

/* Low six bits of a header that terms.h has no need of. */
enum { BT_TAG_POSITIVE_BIG = 0x08, BT_TAG_NEGATIVE_BIG = 0x0c, BT_TAG_OTP25_MAP = 0x3c, BT_TAG_OTP27_MAP = 0x2c };
/* What a map's header says in the next two bits: a small one, or a node of a large one. */
enum { BT_MAP_FLAT, BT_MAP_NODE, BT_MAP_HEAD_FULL, BT_MAP_HEAD };

static inline unsigned bt_map_kind(uint64_t header) { return header >> 6 & 3; }
static inline bool bt_is_map(const uint64_t *box, int layout)
{
    return (box[0] & 0x3f) == (layout < BT_LAYOUT_OTP27 ? BT_TAG_OTP25_MAP : BT_TAG_OTP27_MAP);
}

/* Of a small map: how many pairs, its keys in order, and their values in the same order. Read here alone, so that what is proved at load is what is read. */
static inline uint64_t bt_flat_size(const uint64_t *box) { return box[1]; }
static inline const uint64_t *bt_flat_keys(const uint64_t *box) { return bt_box(box[2]) + 1; }
static inline const uint64_t *bt_flat_values(const uint64_t *box) { return box + 3; }

/* How many of sixteen bits are set. The compiler's own way may call a library that not every system has. */
static inline uint32_t bt_ones(uint32_t bits)
{
    bits -= bits >> 1 & 0x5555;
    bits = (bits & 0x3333) + (bits >> 2 & 0x3333);
    bits = (bits + (bits >> 4)) & 0x0f0f;
    return (bits + (bits >> 8)) & 0x1f;
}

/* Children of a node of a large map, and where they are. */
static inline uint32_t bt_map_children(const uint64_t *box, const uint64_t **children, int layout)
{
    uint32_t bitmap = bt_ones((uint32_t)(box[0] >> 16 & 0xffff));

    if (!bt_is_map(box, layout)) {
        /* A full node, and one of keys with the same hash. */
        *children = box + 1;
        return (uint32_t)bt_header_arity(box[0]);
    }
    *children = bt_map_kind(box[0]) == BT_MAP_NODE ? box + 1 : box + 2;
    return bt_map_kind(box[0]) == BT_MAP_HEAD_FULL ? 16 : bitmap;
}

static inline unsigned bt_resource_numbers(int layout) { return layout < BT_LAYOUT_OTP27 ? 32 : 40; }

/* Where in its entry a local fun is identified. */
typedef struct {
    uint8_t module;
    uint8_t index;
    uint8_t unique;
    uint8_t md5;
} bt_fun_places;

static inline bt_fun_places bt_fun_places_of(int layout)
{
    static const bt_fun_places otp25 = {32, 48, 68, 52}, otp29 = {40, 68, 72, 48};

    return layout < BT_LAYOUT_OTP29 ? otp25 : otp29;
}

/* What identifies a local fun, also one of code that has been loaded anew since. */
typedef struct {
    uint32_t module;
    uint32_t index;
    uint32_t unique;
    uint32_t old_index;
    uint32_t arity;
    unsigned char md5[16];
} bt_fun_id;

/* Its name, as the agent has found it. */
typedef struct {
    bt_fun_id id;
    uint32_t name; /* 0: a free place */
} bt_fun_name;

/* Names by open addressing; who comes later has none. */
#define BT_FUNS_SIZE 8192
#define BT_FUNS_MAX 4096

/* What an integer of so many bytes takes beyond those that fit in 32 bits. */
static inline uint64_t bt_big_size(uint64_t bytes) { return 1 + (bytes > 255 ? 6 : 3) + bytes; }

#endif
