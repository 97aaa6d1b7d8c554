/*
 * Time stamps of what happens ten million times a second. Asking the VM for its time costs as much as all the rest of a record; the processor's own
 * counter costs next to nothing. So each ring keeps an anchor, the VM's time and the counter's value at one moment, and a stamp is the anchor's time
 * plus what the counter says has passed since, until the anchor is 20 microseconds old or another process comes. Stamps are the VM's time within
 * what reading it takes, and never ahead of it: whatever a process does later, elsewhere, has a later stamp. Without a counter that counts evenly,
 * the same on all processors, every stamp is asked for.
 */
#ifndef BEAMTRACE_CLOCK_H
#define BEAMTRACE_CLOCK_H

#include "record.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif

#define BT_ANCHOR_NS 20000
/* Between two looks at how fast the counter counts. */
#define BT_TUNE_NS 1000000
/* A reading of the VM's time that took longer was interrupted. */
#define BT_TUNE_BRACKET_NS 5000
/* Rates that differ by more than this are not one counter's; so often, and it is not used any more. */
#define BT_TUNE_ODD 0.02
#define BT_TUNE_STRIKES 3

/* Counts for which an anchor holds; 0: the counter is not used. And nanoseconds of one. */
static _Atomic uint64_t bt_anchor_ticks;
static _Atomic double bt_tick_ns;
/* The last look: under the lock of the table, or while the library is being loaded. */
static struct {
    uint64_t ticks;
    int64_t ns;
    uint32_t strikes;
    bool usable;
} bt_tuning;

static inline uint64_t bt_ticks(void)
{
#if defined(__x86_64__)
    return __builtin_ia32_rdtsc();
#elif defined(__aarch64__)
    uint64_t ticks;

    __asm__ volatile("mrs %0, cntvct_el0" : "=r"(ticks));
    return ticks;
#else
    return 0;
#endif
}

/* Whether the counter counts at one rate, whatever the processor does: the architecture says so, or the processor. */
static bool bt_ticks_even(void)
{
#if defined(__x86_64__)
    unsigned a;
    unsigned b;
    unsigned c;
    unsigned d;

    return __get_cpuid(0x80000007, &a, &b, &c, &d) != 0 && (d >> 8 & 1) != 0;
#elif defined(__aarch64__)
    return true;
#else
    return false;
#endif
}

/* The VM's time and the counter behind it; counts that it took. */
static uint64_t bt_read_both(uint64_t *ticks, int64_t *ns)
{
    uint64_t best = UINT64_MAX;

    *ticks = 0;
    *ns = 0;
    for (int i = 0; i < 3; i++) {
        uint64_t before = bt_ticks();
        int64_t now = enif_monotonic_time(ERL_NIF_NSEC);
        uint64_t after = bt_ticks();

        if (after - before < best) {
            best = after - before;
            *ticks = after;
            *ns = now;
        }
    }
    return best;
}

static void bt_tune_begin(void)
{
    atomic_store(&bt_anchor_ticks, 0);
    bt_tuning.strikes = 0;
    bt_tuning.usable = bt_ticks_even();
    (void)bt_read_both(&bt_tuning.ticks, &bt_tuning.ns);
}

/* Learns the counter's rate. On the agent's side, now and then. */
static void bt_tune(void)
{
    uint64_t ticks;
    uint64_t took;
    int64_t ns;
    double rate;
    double known = atomic_load(&bt_tick_ns);

    if (!bt_tuning.usable)
        return;
    took = bt_read_both(&ticks, &ns);
    if (ns - bt_tuning.ns < BT_TUNE_NS || ticks <= bt_tuning.ticks)
        return;
    rate = (double)(ns - bt_tuning.ns) / (double)(ticks - bt_tuning.ticks);
    if ((double)took * rate > BT_TUNE_BRACKET_NS)
        return;
    bt_tuning.ticks = ticks;
    bt_tuning.ns = ns;
    if (atomic_load(&bt_anchor_ticks) != 0 && (rate > known * (1 + BT_TUNE_ODD) || rate < known * (1 - BT_TUNE_ODD))) {
        if (++bt_tuning.strikes == BT_TUNE_STRIKES) {
            bt_tuning.usable = false;
            atomic_store(&bt_anchor_ticks, 0);
        }
        return;
    }
    atomic_store(&bt_tick_ns, rate);
    atomic_store(&bt_anchor_ticks, (uint64_t)(BT_ANCHOR_NS / rate));
}

/* The VM's time, and a new anchor. */
static double bt_anchor(bt_trace *trace, bt_ring *ring, uint64_t process) __attribute__((noinline));
static double bt_anchor(bt_trace *trace, bt_ring *ring, uint64_t process)
{
    uint64_t before = bt_ticks();
    double stamp = bt_now(trace);
    uint64_t after = bt_ticks();

    /* Who was put off in between has no anchor, only a stamp. */
    ring->anchor_process = after - before < atomic_load_explicit(&bt_anchor_ticks, memory_order_relaxed) / 8 ? process : 0;
    ring->anchor_ticks = after;
    ring->anchor_stamp = stamp;
    return stamp;
}

/* Nanoseconds since the trace's base, of an event of a process on the scheduler that this ring belongs to. */
BT_INLINE double bt_cheap_now(bt_trace *trace, bt_ring *ring, uint64_t process)
{
    uint64_t since = bt_ticks() - ring->anchor_ticks;

    if (__builtin_expect(ring->anchor_process != process || since >= atomic_load_explicit(&bt_anchor_ticks, memory_order_relaxed), 0))
        return bt_anchor(trace, ring, process);
    return ring->anchor_stamp + (double)(int64_t)((double)(int64_t)since * atomic_load_explicit(&bt_tick_ns, memory_order_relaxed));
}

#endif
