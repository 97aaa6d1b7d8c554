/*
 * Contents of an event: what the walk keeps of a term, or of several in a row, and the records behind the event's own that it is put into.
 */
#ifndef BEAMTRACE_CONTENTS_H
#define BEAMTRACE_CONTENTS_H

#include "ring.h"
#include "walk.h"

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

/* Of a record that goes on with contents: they stand behind its stamp. */
#define BT_CONTINUED_BYTES 48u

/* How many bytes of contents have been written ever, in whole records. */
static inline uint64_t bt_ring_contents_bytes(const bt_ring *ring)
{
    uint64_t written = bt_ring_written(ring);

    return ring->counted ? (atomic_load_explicit(&ring->head, memory_order_relaxed) - ring->origin - written) * BT_CONTINUED_BYTES : 0;
}

/*
 * Makes an event with contents visible, whose record is filled: the bytes in the ring's scratch go behind it. Without room for all of it the
 * event is dropped and counted.
 */
static void bt_commit_contents(bt_ring *ring, bt_record *r, size_t bytes) __attribute__((noinline));
static void bt_commit_contents(bt_ring *ring, bt_record *r, size_t bytes)
{
    uint64_t more = (bytes + BT_CONTINUED_BYTES - 1) / BT_CONTINUED_BYTES;

    if (!bt_ring_extend(ring, 1 + more, bt_is_needed(r->words[BT_SLOT_HEAD] & 0xff)))
        return;
    r->words[BT_SLOT_FLAGS] |= BT_FLAG_PAYLOAD;
    for (uint64_t i = 0; i < more; i++) {
        bt_record *next = bt_ring_behind(ring, 1 + i);
        size_t from = i * BT_CONTINUED_BYTES;
        size_t part = bytes - from < BT_CONTINUED_BYTES ? bytes - from : BT_CONTINUED_BYTES;

        next->words[BT_SLOT_HEAD] = BT_KIND_CONTINUATION;
        /* How much there is from here on: what comes behind is another's. */
        next->words[BT_SLOT_FLAGS] = (uint32_t)(bytes - from);
        next->doubles[BT_STAMP] = r->doubles[BT_STAMP];
        memcpy((unsigned char *)next + sizeof *next - BT_CONTINUED_BYTES, ring->scratch + from, part);
    }
    bt_ring_commit_event(ring, 1 + more);
}

#endif
