/*
 * A bounded ring of 64-byte records: one producer, one consumer, no lock. It knows nothing of the VM, so that the torture in
 * stress/ runs the very same code under sanitizers. The owner allocates and frees the memory. A full ring that is held drops the newest and
 * counts it; one that is not held gives its oldest segment up, which the positions tell exactly. Nobody ever reads what is being written: the producer
 * moves the tail before it writes over what lay there, and can't move it while the consumer holds the ring.
 */
#ifndef BEAMTRACE_RING_H
#define BEAMTRACE_RING_H

#include <assert.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "event_schema.h"

/* Two lines: neighbouring lines are fetched in pairs. */
#define BT_CACHE_LINE 128

typedef union {
    uint32_t words[BT_SLOT_WORDS];
    double doubles[BT_SLOT_WORDS / 2];
    uint64_t pairs[BT_SLOT_WORDS / 2]; /* two words each */
} bt_record;

static_assert(sizeof(bt_record) == BT_SLOT_BYTES, "a record has the size of a slot");
static_assert(offsetof(bt_record, doubles) == 0, "words and doubles share the memory");
static_assert(BT_SLOT_TIMESTAMP % 2 == 0, "the stamp is an aligned double");
#define BT_STAMP (BT_SLOT_TIMESTAMP / 2)

/* The lowest bit of `tail`: the consumer holds the ring, nothing is overwritten. Held for good: a ring that drops the newest. */
#define BT_HELD UINT64_C(1)
/* What is given up at once, and what is kept free so that a ring that is held for a moment need not drop: a part of the capacity. */
#define BT_SEGMENTS 8

typedef struct {
    /* The producer's. Positions only grow; the place is position & mask. */
    _Alignas(BT_CACHE_LINE) _Atomic uint64_t head;
    /* The tail as last seen; a segment less while the ring overwrites, so that the free segment is made before it is needed. */
    uint64_t known_tail;
    _Atomic uint64_t dropped;
    _Atomic uint64_t filtered;
    bt_record *records;
    uint64_t mask;
    uint64_t segment;
    double last; /* stamp */
    /* Position of the oldest record × 2, + BT_HELD. The consumer's while it holds the ring, else the producer's. */
    _Alignas(BT_CACHE_LINE) _Atomic uint64_t tail;
    /* The consumer's: the next record to read, not before the tail; and where positions began. */
    uint64_t at;
    uint64_t origin;
    uint64_t seen_dropped;
    /* How many records the round under way takes. */
    uint64_t taking;
} bt_ring;

static_assert(offsetof(bt_ring, tail) % BT_CACHE_LINE == 0, "producer and consumer do not share a cache line");
static_assert(sizeof(bt_ring) % BT_CACHE_LINE == 0, "neighbouring rings do not share a cache line");

/* `capacity` records, a power of two of at least BT_SEGMENTS. Drops the newest until it is released. */
static inline void bt_ring_init(bt_ring *ring, bt_record *records, uint64_t capacity)
{
    memset(ring, 0, sizeof *ring);
    ring->records = records;
    ring->mask = capacity - 1;
    ring->segment = capacity / BT_SEGMENTS;
    atomic_store_explicit(&ring->tail, BT_HELD, memory_order_relaxed);
}

/* How far the tail in `word` is ahead of a position; below 0: behind. Positions wrap around, the tail's a bit sooner. */
static inline int64_t bt_ring_ahead(uint64_t word, uint64_t position)
{
    return (int64_t)((word & ~BT_HELD) - (position << 1)) >> 1;
}

/* Producer, once a segment, and for each record that is dropped: whether there is room for one more. */
static bool bt_ring_room(bt_ring *ring, uint64_t head) __attribute__((noinline, unused));
static bool bt_ring_room(bt_ring *ring, uint64_t head)
{
    uint64_t word = atomic_load_explicit(&ring->tail, memory_order_acquire);

    for (;;) {
        uint64_t tail = head + (uint64_t)bt_ring_ahead(word, head);

        if (word & BT_HELD) {
            ring->known_tail = tail;
            if (head - tail <= ring->mask)
                return true;
            /* One writer: no read-modify-write is needed. */
            atomic_store_explicit(&ring->dropped, atomic_load_explicit(&ring->dropped, memory_order_relaxed) + 1,
                                  memory_order_relaxed);
            return false;
        }
        if (head - tail + ring->segment <= ring->mask) {
            ring->known_tail = tail - ring->segment;
            return true;
        }
        /* Fails only when the consumer has taken, held or released it in between. */
        if (atomic_compare_exchange_strong_explicit(&ring->tail, &word, word + 2 * ring->segment, memory_order_acq_rel,
                                                    memory_order_acquire))
            word += 2 * ring->segment;
    }
}

/* Producer: the record to fill, or NULL (counted) when there is no room. */
static inline bt_record *bt_ring_reserve(bt_ring *ring)
{
    uint64_t head = atomic_load_explicit(&ring->head, memory_order_relaxed);

    if (__builtin_expect(head - ring->known_tail > ring->mask, 0) && !bt_ring_room(ring, head))
        return NULL;
    return &ring->records[head & ring->mask];
}

/* Producer: a stamp that does not go back. */
static inline double bt_ring_in_order(bt_ring *ring, double stamp)
{
    if (__builtin_expect(stamp < ring->last, 0))
        stamp = ring->last;
    ring->last = stamp;
    return stamp;
}

/* Producer: makes the reserved record visible. */
static inline void bt_ring_commit(bt_ring *ring)
{
    uint64_t head = atomic_load_explicit(&ring->head, memory_order_relaxed);

    atomic_store_explicit(&ring->head, head + 1, memory_order_release);
}

/* Consumer: from now on nothing is overwritten. Returns how many records it has not read and will not find any more. */
static inline uint64_t bt_ring_hold(bt_ring *ring)
{
    int64_t ahead = bt_ring_ahead(atomic_fetch_or_explicit(&ring->tail, BT_HELD, memory_order_acquire), ring->at);
    uint64_t gone = ahead > 0 ? (uint64_t)ahead : 0;

    ring->at += gone;
    return gone;
}

/* Consumer, holding the ring: reads it again from the oldest record on. */
static inline void bt_ring_rewind(bt_ring *ring)
{
    ring->at += (uint64_t)bt_ring_ahead(atomic_load_explicit(&ring->tail, memory_order_relaxed), ring->at);
}

/* Consumer: the producer may overwrite again. */
static inline void bt_ring_release(bt_ring *ring) { atomic_fetch_and_explicit(&ring->tail, ~BT_HELD, memory_order_release); }

/* Consumer, holding the ring: gives the room of all that was read back. */
static inline void bt_ring_give_back(bt_ring *ring)
{
    atomic_store_explicit(&ring->tail, ring->at << 1 | BT_HELD, memory_order_release);
}

/* Consumer: how many records there are that it has not read. */
static inline uint64_t bt_ring_pending(const bt_ring *ring)
{
    return atomic_load_explicit(&ring->head, memory_order_acquire) - ring->at;
}

static inline double bt_ring_stamp(const bt_ring *ring, uint64_t position)
{
    return ring->records[position & ring->mask].doubles[BT_STAMP];
}

/* Consumer, holding the ring: how many of `pending` records from `at` on have a stamp up to `cut`. Stamps of a ring never go back. */
static inline uint64_t bt_ring_until(const bt_ring *ring, uint64_t pending, double cut)
{
    uint64_t low = 0;

    if (pending == 0 || bt_ring_stamp(ring, ring->at + pending - 1) <= cut)
        return pending;
    while (low < pending) {
        uint64_t middle = low + (pending - low) / 2;

        if (bt_ring_stamp(ring, ring->at + middle) <= cut)
            low = middle + 1;
        else
            pending = middle;
    }
    return low;
}

/* Consumer, holding the ring: reads `count` records. */
static inline void bt_ring_read(bt_ring *ring, uint64_t count, bt_record *to)
{
    uint64_t first = ring->at & ring->mask;
    uint64_t until_end = ring->mask + 1 - first;
    uint64_t straight = count < until_end ? count : until_end;

    memcpy(to, ring->records + first, straight * sizeof(bt_record));
    if (straight < count)
        memcpy(to + straight, ring->records, (count - straight) * sizeof(bt_record));
    ring->at += count;
}

#endif
