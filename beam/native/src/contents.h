/*
 * What is kept of a term in a traced process where contents are asked for: the part of it that beamtrace_trim.erl could show, as a row of
 * tokens. How long an atom or a node's name is the library can't ask here, so each term counts for the least that it can take; what has been
 * kept too much is cut when draining (encode.h), where all of it is known. Work and bytes are bounded by the limit, not by the term; no
 * allocation. Local funs are named by what identifies them.
 */
#ifndef BEAMTRACE_CONTENTS_H
#define BEAMTRACE_CONTENTS_H

#include "terms.h"

/* The rules of beamtrace_trim.erl. */
#define BT_TRIM_DEPTH 64
#define BT_TRIM_HEADER 9

#define BT_CONTENTS_MAX 32768
/* An atom takes five bytes and counts for three; a container's end takes one more, and what is begun when all is used up goes on top. */
#define BT_CONTENTS_BYTES(max) (2 * (size_t)(max) + 512)
#define BT_CLOSING_BYTES 256
/* Containers, and what leads to a pair of a large map. Deeper than that a term is cut. */
#define BT_FRAMES_MAX 384
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
} bt_piece;

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
    bt_piece keys[BT_REDACT_MAX];
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
            box = bt_box(box[4]);
        }
        s.at = (box[0] & 0x3f) == BT_TAG_OTP25_REFC_BINARY ? (const unsigned char *)(uintptr_t)box[4] : (const unsigned char *)(box + 2);
    } else if ((box[0] & 0x3f) == BT_TAG_OTP27_SUB_BITS) {
        from = box[2];
        /* Of a binary that may still grow, and so be moved, only where it is now counts. */
        s.at = (box[1] & 3) == 0 ? (const unsigned char *)(uintptr_t)box[1] : bt_resource_of(bt_box(box[4])) + BT_BINARY_BYTES;
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

/* Children of a node of a large map, and where they are. */
static inline uint32_t bt_map_children(const uint64_t *box, const uint64_t **children, int layout)
{
    uint32_t bitmap = (uint32_t)__builtin_popcount((uint32_t)(box[0] >> 16 & 0xffff));

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

/* What an integer of so many bytes takes beyond those that fit in 32 bits. */
static inline uint64_t bt_big_size(uint64_t bytes) { return 1 + (bytes > 255 ? 6 : 3) + bytes; }

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
        /* Size, keys, values. */
        bt_begin(w, BT_F_FLAT, bt_box(box[2]) + 1, (uint64_t)(uintptr_t)(box + 3), (uint32_t)box[1], true);
    } else {
        const uint64_t *children;
        uint32_t count = bt_map_children(box, &children, w->layout);

        bt_begin(w, BT_F_NODE, children, 0, count, true);
    }
}

static void bt_walk_boxed(bt_walk *w, bt_term t)
{
    const uint64_t *box = bt_box(t);
    bt_identity id;

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
        bt_external_node(box, &id);
        bt_t(w, BT_T_PID);
        bt_t32(w, id.node);
        bt_t32(w, id.creation);
        bt_t64(w, box[3]);
        w->left -= 17;
        return;
    case BT_TAG_EXTERNAL_PORT:
        bt_external_node(box, &id);
        bt_t(w, BT_T_PORT);
        bt_t32(w, id.node);
        bt_t32(w, id.creation);
        bt_t64(w, box[3]);
        w->left -= 13;
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
        w->left -= bt_is_local_pid(t) ? 17 : 13;
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

static size_t bt_walked_bytes(bt_walk *w, const unsigned char *from)
{
    while (w->count > 0)
        bt_walk_on(w, &w->frames[w->count - 1]);
    return (size_t)(w->at - from);
}

static inline void bt_walk_begin(bt_walk *w, const bt_contents *contents, unsigned char *to, int layout)
{
    w->contents = contents;
    w->at = to;
    w->end = to + contents->bytes;
    w->left = contents->max;
    w->depth = 0;
    w->count = 0;
    w->layout = layout;
}

/* Keeps a term; `to` has room for contents->bytes. Returns how many they are. */
static size_t bt_keep_term(const bt_contents *contents, unsigned char *to, bt_term t, int layout) __attribute__((noinline));
static size_t bt_keep_term(const bt_contents *contents, unsigned char *to, bt_term t, int layout)
{
    bt_walk w;

    bt_walk_begin(&w, contents, to, layout);
    bt_walk_term(&w, t);
    return bt_walked_bytes(&w, to);
}

/* The same of terms in a row, as a list of them. */
static size_t bt_keep_terms(const bt_contents *contents, unsigned char *to, const bt_term *terms, uint32_t count, int layout)
    __attribute__((noinline, unused));
static size_t bt_keep_terms(const bt_contents *contents, unsigned char *to, const bt_term *terms, uint32_t count, int layout)
{
    bt_walk w;

    bt_walk_begin(&w, contents, to, layout);
    if (count == 0) {
        bt_walk_term(&w, 0x3b);
    } else {
        bt_t(&w, BT_T_LIST);
        w.left -= BT_TRIM_HEADER;
        bt_begin(&w, BT_F_ARRAY, (const uint64_t *)terms, 0, count, true);
    }
    return bt_walked_bytes(&w, to);
}

#endif
