/* Which thread a callback runs in, told without asking the VM each time. */
#ifndef BEAMTRACE_SELF_H
#define BEAMTRACE_SELF_H

#include <assert.h>
#include <erl_nif.h>
#include <stdatomic.h>
#include <stdint.h>

#define BT_INLINE static inline __attribute__((always_inline))

/*
 * What this thread is, in one word of thread-specific data: who, ring, scheduler id + 1 (0: not asked for yet), and the library's load, because
 * the VM does not forget a key's values when the key goes. Not _Thread_local: glibc gives a library's static thread-local space
 * back in part only, and a library that is loaded again and again would exhaust it; dynamic space is allocated on first access.
 */
enum { BT_UNKNOWN_THREAD = 0, BT_SCHEDULER_THREAD = 1, BT_OTHER_THREAD = 2 };
typedef uint64_t bt_self;

/* What every callback reads of the library itself: in one cache line, and never written after it has been loaded and proved. */
static struct {
    _Alignas(64) uint64_t load;
    ErlNifTSDKey self_key;
    int layout;
} bt_own;
static _Atomic uint32_t bt_next_ring;

#define BT_SELF_LOAD_SHIFT 26
#define BT_SELF_LOAD_MASK ((UINT64_C(1) << (64 - BT_SELF_LOAD_SHIFT)) - 1)
/* More rings than a VM has schedulers: a guarded one is used then. */
#define BT_SELF_RING_MAX 0xfffu
static_assert(sizeof(void *) == sizeof(bt_self), "a word of thread-specific data");

static inline uint32_t bt_self_who(bt_self self) { return self & 3; }
static inline uint32_t bt_self_ring(bt_self self) { return self >> 2 & BT_SELF_RING_MAX; }
static inline uint32_t bt_self_scheduler(bt_self self) { return self >> 14 & 0xfff; }

static bt_self bt_set_self(uint32_t who, uint32_t ring, uint32_t scheduler)
{
    bt_self self = who | (uint64_t)ring << 2 | (uint64_t)(scheduler & 0xfff) << 14 | bt_own.load << BT_SELF_LOAD_SHIFT;

    enif_tsd_set(bt_own.self_key, (void *)(uintptr_t)self);
    return self;
}

/* Once a thread. */
static bt_self bt_know_self(void) __attribute__((noinline));
static bt_self bt_know_self(void)
{
    if (enif_thread_type() == ERL_NIF_THR_NORMAL_SCHEDULER) {
        uint32_t ring = atomic_fetch_add_explicit(&bt_next_ring, 1, memory_order_relaxed);

        return bt_set_self(BT_SCHEDULER_THREAD, ring > BT_SELF_RING_MAX ? BT_SELF_RING_MAX : ring, 0);
    }
    return bt_set_self(BT_OTHER_THREAD, 0, 0);
}

BT_INLINE bt_self bt_get_self(void)
{
    bt_self self = (uint64_t)(uintptr_t)enif_tsd_get(bt_own.self_key);

    return __builtin_expect(self >> BT_SELF_LOAD_SHIFT == bt_own.load, 1) ? self : bt_know_self();
}

#endif
