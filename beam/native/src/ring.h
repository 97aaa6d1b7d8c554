/*
 * A bounded ring of 64-byte records: one producer, one consumer, no lock. It knows nothing of the VM, so that the torture in
 * stress/ runs the very same code under sanitizers. The owner allocates and frees the memory. A full ring that is held drops the newest and
 * counts it, but keeps a few places for what must be known (births, ends); one that is not held gives its oldest segment up, which the positions
 * tell exactly. Nobody ever reads what is being written: the producer moves the tail before it writes over what lay there, and can't move it
 * while the consumer holds the ring.
 *
 * Where contents are asked for an event takes several records: its own, and continuations that bear its stamp, made visible together. Such a
 * ring counts events beside positions, so that losses are events there as well: a segment's boundary knows how many had begun before it.
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
/* Places of a full ring that are kept: a part of the capacity. */
#define BT_KEPT 32
/* Boundaries that are remembered: more than lie in a ring. */
#define BT_BOUNDARIES 16
/* In the place of a kind: the record before goes on here. */
#define BT_KIND_CONTINUATION 0xffu

typedef struct {
    /* The producer's. Positions only grow; the place is position & mask. */
    _Alignas(BT_CACHE_LINE) _Atomic uint64_t head;
    /* The tail as last seen; less by the places that are kept, or by a segment while the ring overwrites, so that the free segment is made before it is needed. */
    uint64_t known_tail;
    _Atomic uint64_t dropped;
    _Atomic uint64_t filtered;
    bt_record *records;
    uint64_t mask;
    uint64_t segment;
    double last; /* stamp */
    /* The piece of the clock's line that its stamps are on (clock.h). */
    struct {
        uint64_t from;
        uint64_t length;
        double whole; /* ns at its beginning */
        double rate;
        uint32_t number;
    } clock;
    /* Events may take several records: how many have been written, and how many had begun before each of the last boundaries. */
    bool counted;
    _Atomic uint64_t events;
    _Atomic uint64_t begun[BT_BOUNDARIES];
    /* Where the producer gathers the contents of an event. */
    unsigned char *scratch;
    /* Places of a full ring for events that are needed. */
    uint64_t kept;
    /* Position of the oldest record × 2, + BT_HELD. The consumer's while it holds the ring, else the producer's. */
    _Alignas(BT_CACHE_LINE) _Atomic uint64_t tail;
    /* The consumer's: the next record to read, not before the tail; and where positions began. */
    uint64_t at;
    uint64_t origin;
    uint64_t seen_dropped;
    /* How many records the round under way takes. */
    uint64_t taking;
    /* Of a ring that counts events: how many have begun before `at`. */
    uint64_t told;
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
    ring->kept = capacity / BT_KEPT;
    ring->known_tail = -ring->kept;
    atomic_store_explicit(&ring->tail, BT_HELD, memory_order_relaxed);
}

/* How far the tail in `word` is ahead of a position; below 0: behind. Positions wrap around, the tail's a bit sooner. */
static inline int64_t bt_ring_ahead(uint64_t word, uint64_t position)
{
    return (int64_t)((word & ~BT_HELD) - (position << 1)) >> 1;
}

/* Producer, once a segment, and for each event that is dropped or takes a kept place: whether there is room for so many records. */
static bool bt_ring_room(bt_ring *ring, uint64_t head, uint64_t records, bool needed) __attribute__((noinline, unused));
static bool bt_ring_room(bt_ring *ring, uint64_t head, uint64_t records, bool needed)
{
    uint64_t until = head + records - 1;
    uint64_t word = atomic_load_explicit(&ring->tail, memory_order_acquire);
    uint64_t step;

    for (;;) {
        uint64_t tail = head + (uint64_t)bt_ring_ahead(word, head);

        if (word & BT_HELD) {
            ring->known_tail = tail - ring->kept;
            if (until - tail + (needed ? 0 : ring->kept) <= ring->mask)
                return true;
            /* One writer: no read-modify-write is needed. */
            atomic_store_explicit(&ring->dropped, atomic_load_explicit(&ring->dropped, memory_order_relaxed) + 1,
                                  memory_order_relaxed);
            return false;
        }
        if (until - tail + ring->segment <= ring->mask) {
            ring->known_tail = tail - ring->segment;
            return true;
        }
        /* To the next boundary. Fails only when the consumer has taken, held or released it in between. */
        step = 2 * (ring->segment - (tail & (ring->segment - 1)));
        if (atomic_compare_exchange_strong_explicit(&ring->tail, &word, word + step, memory_order_acq_rel, memory_order_acquire))
            word += step;
    }
}

/* Producer: the record to fill, or NULL (counted) when there is no room. `needed`: it may take a kept place. */
static inline bt_record *bt_ring_reserve(bt_ring *ring, bool needed)
{
    uint64_t head = atomic_load_explicit(&ring->head, memory_order_relaxed);

    if (__builtin_expect(head - ring->known_tail > ring->mask, 0) && !bt_ring_room(ring, head, 1, needed))
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

/* Producer: whether so many records in a row may be filled, the reserved one the first; if not, the event is dropped and counted. */
static inline bool bt_ring_extend(bt_ring *ring, uint64_t records, bool needed)
{
    uint64_t head = atomic_load_explicit(&ring->head, memory_order_relaxed);

    return head + records - 1 - ring->known_tail <= ring->mask || bt_ring_room(ring, head, records, needed);
}

/* Producer: the record that is so many behind the reserved one. */
static inline bt_record *bt_ring_behind(bt_ring *ring, uint64_t records)
{
    return &ring->records[(atomic_load_explicit(&ring->head, memory_order_relaxed) + records) & ring->mask];
}

static inline _Atomic uint64_t *bt_ring_begun(bt_ring *ring, uint64_t boundary)
{
    return &ring->begun[boundary / ring->segment % BT_BOUNDARIES];
}

/* Producer, of a ring that counts events: makes the records of one visible, all at once. */
static void bt_ring_commit_event(bt_ring *ring, uint64_t records) __attribute__((noinline, unused));
static void bt_ring_commit_event(bt_ring *ring, uint64_t records)
{
    uint64_t head = atomic_load_explicit(&ring->head, memory_order_relaxed);
    uint64_t events = atomic_load_explicit(&ring->events, memory_order_relaxed) + 1;
    uint64_t boundary = head - (head & (ring->segment - 1)) + ring->segment;

    for (uint64_t crossed = (head & (ring->segment - 1)) + records; crossed >= ring->segment; crossed -= ring->segment) {
        atomic_store_explicit(bt_ring_begun(ring, boundary), events, memory_order_relaxed);
        boundary += ring->segment;
    }
    atomic_store_explicit(&ring->head, head + records, memory_order_release);
    /* After that: what is said to be written can be read. */
    atomic_store_explicit(&ring->events, events, memory_order_release);
}

/* Producer, of a ring where an event is a record: makes the reserved one visible. */
static inline void bt_ring_commit_record(bt_ring *ring)
{
    uint64_t head = atomic_load_explicit(&ring->head, memory_order_relaxed);

    atomic_store_explicit(&ring->head, head + 1, memory_order_release);
}

/* Producer: makes the reserved record visible. */
static inline void bt_ring_commit(bt_ring *ring)
{
    if (__builtin_expect(ring->counted, 0))
        bt_ring_commit_event(ring, 1);
    else
        bt_ring_commit_record(ring);
}

/* Births, ends and names: who follows processes needs them more than any message. */
static inline bool bt_is_needed(uint32_t kind)
{
    return kind == BT_KIND_SPAWN || kind == BT_KIND_SPAWNED || kind == BT_KIND_EXIT || kind == BT_KIND_REGISTER || kind == BT_KIND_UNREGISTER;
}

static inline bool bt_is_continuation(const bt_record *record) { return (record->words[BT_SLOT_HEAD] & 0xff) == BT_KIND_CONTINUATION; }

static inline uint64_t bt_count_events(const bt_record *records, uint64_t count)
{
    uint64_t events = 0;

    for (uint64_t i = 0; i < count; i++)
        events += !bt_is_continuation(&records[i]);
    return events;
}

/*
 * Consumer, holding the ring: how many events had begun before a position between tail and head; positions, where an event is a record. Looks
 * at less than a segment.
 */
static inline uint64_t bt_ring_events_before(bt_ring *ring, uint64_t position)
{
    uint64_t tail = position + (uint64_t)bt_ring_ahead(atomic_load_explicit(&ring->tail, memory_order_relaxed), position);
    uint64_t from = position - (position & (ring->segment - 1));
    uint64_t events;

    if (!ring->counted)
        return position - ring->origin;
    if ((int64_t)(from - ring->origin) <= 0) {
        from = ring->origin;
        events = 0;
    } else if ((int64_t)(from - tail) < 0) {
        /* The consumer has left the tail there itself. */
        from = tail;
        events = ring->told;
    } else {
        events = atomic_load_explicit(bt_ring_begun(ring, from), memory_order_relaxed);
    }
    for (; from != position; from++)
        events += !bt_is_continuation(&ring->records[from & ring->mask]);
    return events;
}

/* Consumer: how many events have been written ever; all of them are there to be read. */
static inline uint64_t bt_ring_written(const bt_ring *ring)
{
    return ring->counted ? atomic_load_explicit(&ring->events, memory_order_acquire)
                         : atomic_load_explicit(&ring->head, memory_order_relaxed) - ring->origin;
}

/* Consumer: from now on nothing is overwritten. Returns how many events it has not read and will not find any more. */
static inline uint64_t bt_ring_hold(bt_ring *ring)
{
    int64_t ahead = bt_ring_ahead(atomic_fetch_or_explicit(&ring->tail, BT_HELD, memory_order_acquire), ring->at);
    uint64_t gone = ahead > 0 ? (uint64_t)ahead : 0;

    ring->at += gone;
    if (ring->counted && gone > 0) {
        /* The producer has moved the tail: to a boundary. */
        uint64_t begun = atomic_load_explicit(bt_ring_begun(ring, ring->at), memory_order_relaxed);

        gone = begun - ring->told;
        ring->told = begun;
    }
    return gone;
}

/* Consumer, holding the ring: reads it again from the oldest record on. */
static inline void bt_ring_rewind(bt_ring *ring)
{
    ring->at += (uint64_t)bt_ring_ahead(atomic_load_explicit(&ring->tail, memory_order_relaxed), ring->at);
    ring->told = bt_ring_events_before(ring, ring->at);
}

/* Consumer, holding the ring: leaves records out. */
static inline void bt_ring_skip(bt_ring *ring, uint64_t count)
{
    uint64_t at = ring->at + count;

    ring->told = bt_ring_events_before(ring, at);
    ring->at = at;
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
    if (ring->counted)
        ring->told += bt_count_events(to, count);
    ring->at += count;
}

#endif
