/*
 * All rings of a trace: one for each scheduler, and a few guarded ones for all other threads. The consumer cuts at a point in time, so that
 * records of one process that has moved between schedulers never come out in the wrong order: what one round leaves is younger
 * than all that it takes. Knows nothing of the VM.
 */
#ifndef BEAMTRACE_RINGS_H
#define BEAMTRACE_RINGS_H

#include "ring.h"

/*
 * Guarded rings. With one alone, a thread that is taken off its processor while it writes would make all others give their records up. Together they are as
 * large as a scheduler's ring.
 */
#define BT_GUARDS 4
/* Rounds over the guarded rings before a thread that finds them all taken gives its record up: no traced process ever waits. */
#define BT_GUARD_ROUNDS 64

typedef struct {
    /* Somebody writes in the ring. */
    _Alignas(BT_CACHE_LINE) _Atomic bool taken;
    double last;
} bt_guard;

typedef struct {
    bt_guard guards[BT_GUARDS];
    /* Given up without a guarded ring. */
    _Atomic uint64_t refused;
    uint64_t seen_refused;
    /* The consumer's: rings that overwrite are held only while they are read. */
    bool overwrite;
    _Alignas(BT_CACHE_LINE) uint32_t count; /* scheduler rings, which are the first */
    uint32_t all;                           /* the guarded ones too */
    bt_ring rings[];
} bt_rings;

static_assert(offsetof(bt_rings, rings) % BT_CACHE_LINE == 0, "rings start on a cache line");

static inline size_t bt_rings_bytes(uint32_t count) { return sizeof(bt_rings) + (count + BT_GUARDS) * sizeof(bt_ring); }

/* `records`: (count + 1) × capacity of them; capacity a power of two of at least BT_SEGMENTS × BT_GUARDS. */
static inline void bt_rings_init(bt_rings *all, uint32_t count, bt_record *records, uint64_t capacity)
{
    memset(all, 0, sizeof *all);
    all->count = count;
    all->all = count + BT_GUARDS;
    for (uint32_t i = 0; i < count; i++)
        bt_ring_init(&all->rings[i], records + i * capacity, capacity);
    for (uint32_t i = 0; i < BT_GUARDS; i++)
        bt_ring_init(&all->rings[count + i], records + count * capacity + i * (capacity / BT_GUARDS), capacity / BT_GUARDS);
}

/* Events may take several records from now on; `bytes` of scratch a ring. Before the first record is written. */
static inline void bt_rings_count_events(bt_rings *all, unsigned char *scratch, size_t bytes)
{
    for (uint32_t i = 0; i < all->all; i++) {
        all->rings[i].counted = true;
        all->rings[i].scratch = scratch + i * bytes;
    }
}

/* Takes a guarded ring, or returns NULL when others have them all. */
static inline bt_guard *bt_guard_try(bt_rings *all)
{
    for (int i = 0; i < BT_GUARD_ROUNDS * BT_GUARDS; i++) {
        bt_guard *guard = &all->guards[i % BT_GUARDS];

        if (!atomic_load_explicit(&guard->taken, memory_order_relaxed) &&
            !atomic_exchange_explicit(&guard->taken, true, memory_order_acquire))
            return guard;
    }
    return NULL;
}

/* The same for a thread that is no scheduler and has an event: counts a loss when it gets nothing. */
static inline bt_guard *bt_guard_enter(bt_rings *all)
{
    bt_guard *guard = bt_guard_try(all);

    if (guard == NULL)
        atomic_fetch_add_explicit(&all->refused, 1, memory_order_relaxed);
    return guard;
}

static inline bt_ring *bt_guard_ring(bt_rings *all, const bt_guard *guard) { return &all->rings[all->count + (guard - all->guards)]; }

/* A stamp that does not go back within the guard's ring. */
static inline double bt_guard_stamp(bt_guard *guard, double now) { return guard->last = now < guard->last ? guard->last : now; }

static inline void bt_guard_leave(bt_guard *guard) { atomic_store_explicit(&guard->taken, false, memory_order_release); }

/* Does anybody write in a guarded ring? */
static inline bool bt_guarded(bt_rings *all)
{
    bool taken = false;

    for (int i = 0; i < BT_GUARDS; i++)
        taken |= atomic_load_explicit(&all->guards[i].taken, memory_order_acquire);
    return taken;
}

/* Consumer: full rings give up their oldest records from now on. Before the first record is written, or between rounds. */
static inline void bt_rings_overwrite(bt_rings *all)
{
    all->overwrite = true;
    for (uint32_t i = 0; i < all->all; i++)
        bt_ring_release(&all->rings[i]);
}

/* Consumer: begins a round. Returns how many unread events have been overwritten since the last one. */
static inline uint64_t bt_rings_hold(bt_rings *all)
{
    uint64_t gone = 0;

    if (all->overwrite)
        for (uint32_t i = 0; i < all->all; i++)
            gone += bt_ring_hold(&all->rings[i]);
    return gone;
}

/* Consumer: ends a round. */
static inline void bt_rings_release(bt_rings *all)
{
    if (all->overwrite)
        for (uint32_t i = 0; i < all->all; i++)
            bt_ring_release(&all->rings[i]);
}

/* Consumer: events that found no room since the last time that this was asked. */
static inline uint64_t bt_rings_losses(bt_rings *all)
{
    uint64_t refused = atomic_load_explicit(&all->refused, memory_order_relaxed);
    uint64_t losses = refused - all->seen_refused;

    all->seen_refused = refused;
    for (uint32_t i = 0; i < all->all; i++) {
        uint64_t dropped = atomic_load_explicit(&all->rings[i].dropped, memory_order_relaxed);

        losses += dropped - all->rings[i].seen_dropped;
        all->rings[i].seen_dropped = dropped;
    }
    return losses;
}

/* Consumer: records that wait. */
static inline uint64_t bt_rings_waiting(const bt_rings *all)
{
    uint64_t waiting = 0;

    for (uint32_t i = 0; i < all->all; i++)
        waiting += bt_ring_pending(&all->rings[i]);
    return waiting;
}

/*
 * Consumer, holding the rings: decides what this round takes: of every ring the records up to one point in time, which is `now` or, when more
 * than `max` wait, an earlier one. `now` must have been read before this call. A record that is not visible yet is either younger than `now`,
 * or its process is still in the middle of writing it, so that whatever that process did later is younger than `now`. Returns how many in all.
 */
static inline uint64_t bt_rings_prepare(bt_rings *all, double now, uint64_t max, double *cut)
{
    uint64_t active = 0;
    uint64_t total = 0;
    uint64_t share;

    for (uint32_t i = 0; i < all->all; i++) {
        all->rings[i].taking = bt_ring_pending(&all->rings[i]);
        active += all->rings[i].taking > 0;
    }
    *cut = now;
    if (active == 0)
        return 0;
    share = max / active > 0 ? max / active : 1;
    for (uint32_t i = 0; i < all->all; i++) {
        const bt_ring *ring = &all->rings[i];

        if (ring->taking > share) {
            double stamp = bt_ring_stamp(ring, ring->at + share - 1);

            if (stamp < *cut)
                *cut = stamp;
        }
    }
    for (uint32_t i = 0; i < all->all; i++) {
        bt_ring *ring = &all->rings[i];

        ring->taking = bt_ring_until(ring, ring->taking, *cut);
        total += ring->taking;
    }
    return total;
}

/* Consumer, holding the rings: copies what was decided on, ring by ring. */
static inline void bt_rings_read(bt_rings *all, bt_record *to)
{
    for (uint32_t i = 0; i < all->all; i++) {
        bt_ring *ring = &all->rings[i];
        uint64_t count = ring->taking;

        if (count > 0)
            bt_ring_read(ring, count, to);
        to += count;
        ring->taking = 0;
    }
}

/* The same, and gives the room back. */
static inline void bt_rings_take(bt_rings *all, bt_record *to)
{
    bt_rings_read(all, to);
    for (uint32_t i = 0; i < all->all; i++)
        bt_ring_give_back(&all->rings[i]);
}

/*
 * Consumer, holding the rings: goes to the first record of a window that begins at `from`, or where all rings have everything; in a ring that
 * will soon be full, without the segment that goes next: the reader then has the time that it takes to write one. Returns where the window
 * begins. Stamps are whole numbers.
 */
static inline double bt_rings_window(bt_rings *all, double from)
{
    double start = from;

    for (uint32_t i = 0; i < all->all; i++) {
        bt_ring *ring = &all->rings[i];
        uint64_t pending;

        bt_ring_rewind(ring);
        pending = bt_ring_pending(ring);
        if (all->overwrite && pending + 2 * ring->segment > ring->mask)
            bt_ring_skip(ring, ring->segment);
        /* What lies before may have the same stamp. */
        if (bt_ring_pending(ring) > 0 && ring->at != ring->origin && bt_ring_stamp(ring, ring->at) >= start)
            start = bt_ring_stamp(ring, ring->at) + 1;
    }
    for (uint32_t i = 0; i < all->all; i++)
        bt_ring_skip(&all->rings[i], bt_ring_until(&all->rings[i], bt_ring_pending(&all->rings[i]), start - 1));
    return start;
}

#endif
