/*
 * A bounded ring of 64-byte records: one producer, one consumer, no lock. It knows nothing of the VM, so that the torture in
 * stress/ runs the very same code under sanitizers. The owner allocates and frees the memory; a full ring drops the newest and counts it.
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
} bt_record;

static_assert(sizeof(bt_record) == BT_SLOT_BYTES, "a record has the size of a slot");
static_assert(offsetof(bt_record, doubles) == 0, "words and doubles share the memory");
static_assert(BT_SLOT_TIMESTAMP % 2 == 0, "the stamp is an aligned double");
#define BT_STAMP (BT_SLOT_TIMESTAMP / 2)

typedef struct {
    /* The producer's. Positions only grow; the place is position & mask. */
    _Alignas(BT_CACHE_LINE) _Atomic uint64_t head;
    uint64_t known_tail;
    _Atomic uint64_t dropped;
    _Atomic uint64_t filtered;
    bt_record *records;
    uint64_t mask;
    /* The consumer's. */
    _Alignas(BT_CACHE_LINE) _Atomic uint64_t tail;
    uint64_t seen_dropped;
    /* How many records the round under way takes. */
    uint64_t taking;
} bt_ring;

static_assert(offsetof(bt_ring, tail) % BT_CACHE_LINE == 0, "producer and consumer do not share a cache line");
static_assert(sizeof(bt_ring) % BT_CACHE_LINE == 0, "neighbouring rings do not share a cache line");

/* `capacity` records, a power of two. */
static inline void bt_ring_init(bt_ring *ring, bt_record *records, uint64_t capacity)
{
    memset(ring, 0, sizeof *ring);
    ring->records = records;
    ring->mask = capacity - 1;
}

/* Producer: the record to fill, or NULL (counted) when there is no room. */
static inline bt_record *bt_ring_reserve(bt_ring *ring)
{
    uint64_t head = atomic_load_explicit(&ring->head, memory_order_relaxed);

    if (head - ring->known_tail > ring->mask) {
        ring->known_tail = atomic_load_explicit(&ring->tail, memory_order_acquire);
        if (head - ring->known_tail > ring->mask) {
            /* One writer: no read-modify-write is needed. */
            atomic_store_explicit(&ring->dropped,
                                  atomic_load_explicit(&ring->dropped, memory_order_relaxed) + 1,
                                  memory_order_relaxed);
            return NULL;
        }
    }
    return &ring->records[head & ring->mask];
}

/* Producer: makes the reserved record visible. */
static inline void bt_ring_commit(bt_ring *ring)
{
    uint64_t head = atomic_load_explicit(&ring->head, memory_order_relaxed);

    atomic_store_explicit(&ring->head, head + 1, memory_order_release);
}

/* Consumer: how many records are there to read from position `*tail` on. */
static inline uint64_t bt_ring_pending(bt_ring *ring, uint64_t *tail)
{
    *tail = atomic_load_explicit(&ring->tail, memory_order_relaxed);
    return atomic_load_explicit(&ring->head, memory_order_acquire) - *tail;
}

/* Consumer: how many of `pending` records from `tail` on have a stamp up to `cut`. Stamps of a ring never go back. */
static inline uint64_t bt_ring_until(const bt_ring *ring, uint64_t tail, uint64_t pending, double cut)
{
    uint64_t low = 0;

    if (pending == 0 || ring->records[(tail + pending - 1) & ring->mask].doubles[BT_STAMP] <= cut)
        return pending;
    while (low < pending) {
        uint64_t middle = low + (pending - low) / 2;

        if (ring->records[(tail + middle) & ring->mask].doubles[BT_STAMP] <= cut)
            low = middle + 1;
        else
            pending = middle;
    }
    return low;
}

/* Consumer: copies `count` records out and gives their room back. */
static inline void bt_ring_take(bt_ring *ring, uint64_t tail, uint64_t count, bt_record *to)
{
    uint64_t first = tail & ring->mask;
    uint64_t until_end = ring->mask + 1 - first;
    uint64_t straight = count < until_end ? count : until_end;

    memcpy(to, ring->records + first, straight * sizeof(bt_record));
    if (straight < count)
        memcpy(to + straight, ring->records, (count - straight) * sizeof(bt_record));
    atomic_store_explicit(&ring->tail, tail + count, memory_order_release);
}

#endif
