/*
 * The VM's time, cheaply. Asking the VM for it costs as much as all the rest of a record, and a thread that is no scheduler may not ask. So a
 * line is laid through looks at it: when the processor's counter stood here it was this time, and each count takes so long. All schedulers read
 * the same line, so that what happens later has a later stamp, on whichever of them; each look bends the line a bit ahead towards the VM's time,
 * and none breaks it. A line that has not been looked after for a quarter of a second is not used, nor is a counter that does not count
 * evenly, the same on all processors: then every stamp is asked for, and none is before what the line has told.
 */
#ifndef BEAMTRACE_CLOCK_H
#define BEAMTRACE_CLOCK_H

#include <erl_nif.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <time.h>
#include <unistd.h>

#include "ring.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif

#define BT_LINE_VALID_NS 250000000
/* Between two looks; and from a look to where it bends the line: who looks may be put off before the line is shown, and is still in time. */
#define BT_LOOK_NS 30000000
#define BT_AHEAD_NS 20000000
/* For how long a line is bent to come back to the VM's time, and how much; what is further off is not bent but broken. */
#define BT_BEND_NS 20000000
#define BT_BEND_MAX 0.05
#define BT_BREAK_NS 1000000
/* Whoever is reading a line that is broken is told what comes within this time. */
#define BT_BROKEN_NS 1000000
/* A rate is taken over this time; the first as soon as the looks are so much shorter than what lies between them. */
#define BT_RATE_NS 100000000
#define BT_RATE_PRECISION 10000
/* A look that took longer was interrupted: at the VM's time; in all. */
#define BT_BRACKET_NS 2000
#define BT_LOOK_MAX_NS 20000
/* A counter that shows less than this is too coarse, or dearer than the VM's time: emulated. */
#define BT_STEP_MAX_NS 100
/* Rates that differ by more than this are not one counter's; so often, and it is not used any more. */
#define BT_RATE_ODD 0.02
#define BT_STRIKES 3

/* `from` counts after the line's beginning. */
typedef struct {
    _Atomic uint64_t from;
    _Atomic int64_t ns;
    _Atomic double rate; /* ns of a count */
} bt_stretch;

/*
 * From `ticks` on, for `valid` counts. Three stretches: the line before, until a bit after the look, so that it does not matter which of the two is
 * read; bent towards the VM's time; and, if nobody has looked by then, straight on. Nobody is told more than the end of it, nor less once it
 * has ended.
 */
typedef struct {
    _Atomic uint64_t ticks;
    _Atomic uint64_t valid;
    bt_stretch stretches[3];
} bt_line;

/* The line with this number lies at its place; the next one is written beside it. */
static struct {
    _Alignas(64) _Atomic uint32_t number;
    bt_line at[2];
    /* VM's time minus the system's, for threads that may not ask the VM; at most that: what they write is never ahead of what others write behind it. */
    _Atomic int64_t offset;
} bt_lines;

/* Under the lock of the table, or while the library is being loaded. */
static struct {
    bool usable;
    uint32_t strikes;
    double rate; /* ns of a count; 0: not known yet */
    uint64_t step; /* the least that has passed between two counts that differ */
    /* Where the rate is taken from. */
    uint64_t ticks;
    int64_t ns;
    uint64_t took;
    /* The last look. */
    uint64_t looked;
    bool offset_known;
} bt_looks;

/* The processor may read it before what stands before it, or after what stands behind it: by as much as it looks ahead. */
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

/* Waits for all that stands before: what others have done is seen first, and costs more than the counter. */
static inline void bt_see_first(void)
{
#if defined(__x86_64__)
    __builtin_ia32_lfence();
#elif defined(__aarch64__)
    __asm__ volatile("isb" : : : "memory");
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

static bool bt_same_text(const char *a, const char *b)
{
    while (*a != '\0' && *a == *b) {
        a++;
        b++;
    }
    return *a == *b;
}

/* Whether the system goes by the counter itself: it knows whether all processors count the same. Where it does not say: true. */
static bool bt_ticks_trusted(void)
{
    static const char *const trusted[] = {"tsc\n", "kvm-clock\n", "hyperv_clocksource_tsc_page\n", "arch_sys_counter\n"};
    char name[64];
    int file = open("/sys/devices/system/clocksource/clocksource0/current_clocksource", O_RDONLY | O_CLOEXEC);
    ssize_t length;

    if (file < 0)
        return true;
    length = read(file, name, sizeof name - 1);
    (void)close(file);
    if (length <= 0)
        return true;
    name[length] = '\0';
    for (size_t i = 0; i < sizeof trusted / sizeof *trusted; i++)
        if (bt_same_text(name, trusted[i]))
            return true;
    return false;
}

static int64_t bt_system_ns(void)
{
    struct timespec system;

    (void)clock_gettime(CLOCK_MONOTONIC, &system);
    return (int64_t)system.tv_sec * 1000000000 + system.tv_nsec;
}

/* The VM's time, asked for; not before `least`. */
static int64_t bt_asked_ns(int64_t least) __attribute__((noinline, cold));
static int64_t bt_asked_ns(int64_t least)
{
    int64_t now = enif_monotonic_time(ERL_NIF_NSEC);

    if (now == ERL_NIF_TIME_ERROR)
        now = bt_system_ns() + atomic_load_explicit(&bt_lines.offset, memory_order_relaxed);
    return now < least ? least : now;
}

static inline __attribute__((always_inline)) const bt_stretch *bt_stretch_at(const bt_line *line, uint64_t since)
{
    return &line->stretches[(since >= atomic_load_explicit(&line->stretches[1].from, memory_order_acquire)) +
                         (since >= atomic_load_explicit(&line->stretches[2].from, memory_order_acquire))];
}

/* So many counts in ns, to the nearest: as bt_ring_ns rounds. */
static inline int64_t bt_counts_ns(uint64_t counts, double rate) { return (int64_t)((double)(int64_t)counts * rate + 0.5); }

/* What a line tells so many counts after it began. */
static inline __attribute__((always_inline)) int64_t bt_on_line(const bt_line *line, uint64_t since)
{
    const bt_stretch *stretch = bt_stretch_at(line, since);
    uint64_t along = since - atomic_load_explicit(&stretch->from, memory_order_acquire);

    return atomic_load_explicit(&stretch->ns, memory_order_acquire) +
           bt_counts_ns(along, atomic_load_explicit(&stretch->rate, memory_order_acquire));
}

/* The VM's monotonic time, ns. `after`: after all that others have done and this thread has seen, to the nanosecond. */
static inline __attribute__((always_inline)) int64_t bt_monotonic_ns(bool after)
{
    uint32_t number = atomic_load_explicit(&bt_lines.number, memory_order_acquire);

    for (;;) {
        const bt_line *line = &bt_lines.at[number & 1];
        uint64_t from = atomic_load_explicit(&line->ticks, memory_order_acquire);
        uint64_t valid = atomic_load_explicit(&line->valid, memory_order_acquire);
        uint64_t since;
        int64_t told;
        uint32_t now;

        if (after)
            bt_see_first();
        since = bt_ticks() - from;
        told = bt_on_line(line, since < valid ? since : valid);
        if (__builtin_expect(since >= valid, 0))
            told = bt_asked_ns(told);
        now = atomic_load_explicit(&bt_lines.number, memory_order_acquire);
        /* A line is written over only when there has been a later one, which is then read: no two within a look's time. */
        if (__builtin_expect(now == number, 1))
            return told;
        number = now;
    }
}

/* From here on a double has no place behind the point: what is added to it is rounded. */
#define BT_WHOLE 0x1p52

/* Copies the stretch of the line that now is on, where there is one, and gives the time since `base`. */
static double bt_take_stretch(bt_ring *ring, int64_t base) __attribute__((noinline));
static double bt_take_stretch(bt_ring *ring, int64_t base)
{
    uint32_t number = atomic_load_explicit(&bt_lines.number, memory_order_acquire);
    const bt_line *line = &bt_lines.at[number & 1];
    uint64_t from = atomic_load_explicit(&line->ticks, memory_order_acquire);
    uint64_t valid = atomic_load_explicit(&line->valid, memory_order_acquire);
    uint64_t since = bt_ticks() - from;
    const bt_stretch *stretch = bt_stretch_at(line, since);
    uint64_t end = stretch == &line->stretches[2] ? valid : atomic_load_explicit(&stretch[1].from, memory_order_acquire);

    ring->clock.from = from + atomic_load_explicit(&stretch->from, memory_order_acquire);
    ring->clock.length = since < valid ? (end < valid ? end : valid) - atomic_load_explicit(&stretch->from, memory_order_acquire) : 0;
    ring->clock.whole = (double)(atomic_load_explicit(&stretch->ns, memory_order_acquire) - base) + BT_WHOLE;
    ring->clock.rate = atomic_load_explicit(&stretch->rate, memory_order_acquire);
    ring->clock.number = number;
    /* Was the line written over meanwhile? */
    if (atomic_load_explicit(&bt_lines.number, memory_order_acquire) != number)
        ring->clock.length = 0;
    return (double)(bt_monotonic_ns(false) - base);
}

/* Counts since the stretch that the ring has at hand began; false: it is not the one to go by. */
static inline __attribute__((always_inline)) bool bt_ring_since(const bt_ring *ring, uint64_t *since)
{
    *since = bt_ticks() - ring->clock.from;
    return *since < ring->clock.length && atomic_load_explicit(&bt_lines.number, memory_order_acquire) == ring->clock.number;
}

/* All that follows the counter waits for it: one conversion, and whole ns by an addition. In a trace of 52 days or more they are even. */
static inline __attribute__((always_inline)) double bt_ring_told(const bt_ring *ring, uint64_t since)
{
    return (double)(int64_t)since * ring->clock.rate + ring->clock.whole - BT_WHOLE;
}

/* The VM's monotonic time, ns since `base`, by the producer of a ring, which has one base: the same line. */
static inline __attribute__((always_inline)) double bt_ring_ns(bt_ring *ring, int64_t base, bool after)
{
    uint64_t since;

    if (after)
        bt_see_first();
    return __builtin_expect(bt_ring_since(ring, &since), 1) ? bt_ring_told(ring, since) : bt_take_stretch(ring, base);
}

/* The VM's time and the counter before it was asked for; counts that it took. And the VM's time against the system's, unless all looks were interrupted. */
static uint64_t bt_read_both(uint64_t *ticks, int64_t *ns)
{
    uint64_t best = UINT64_MAX;
    int64_t best_system = bt_looks.offset_known ? BT_LOOK_MAX_NS : INT64_MAX;

    *ticks = 0;
    *ns = 0;
    for (int i = 0; i < 3; i++) {
        int64_t system = bt_system_ns();
        uint64_t before = bt_ticks();
        int64_t now = enif_monotonic_time(ERL_NIF_NSEC);
        uint64_t took;
        int64_t system_took;

        bt_see_first();
        took = bt_ticks() - before;
        system_took = bt_system_ns() - system;

        if (took < best) {
            best = took;
            *ticks = before;
            *ns = now;
        }
        if (system_took < best_system) {
            best_system = system_took;
            bt_looks.offset_known = true;
            atomic_store_explicit(&bt_lines.offset, now - system - system_took, memory_order_relaxed);
        }
    }
    return best;
}

static const bt_line *bt_this_line(void) { return &bt_lines.at[atomic_load_explicit(&bt_lines.number, memory_order_relaxed) & 1]; }

/* What the line tells, or will have told, then. */
static int64_t bt_told_at(uint64_t ticks)
{
    const bt_line *line = bt_this_line();
    uint64_t since = ticks - atomic_load_explicit(&line->ticks, memory_order_relaxed);
    uint64_t valid = atomic_load_explicit(&line->valid, memory_order_relaxed);

    return bt_on_line(line, since < valid ? since : valid);
}

static void bt_put_stretch(bt_stretch *stretch, uint64_t from, int64_t ns, double rate)
{
    atomic_store_explicit(&stretch->from, from, memory_order_release);
    atomic_store_explicit(&stretch->ns, ns, memory_order_release);
    atomic_store_explicit(&stretch->rate, rate, memory_order_release);
}

/* The line after this one: at first straight on. `valid` 0: no line, but no stamp before `ns`. */
static bt_line *bt_begin_line(uint64_t ticks, int64_t ns, double rate, uint64_t valid)
{
    bt_line *line = &bt_lines.at[(atomic_load_explicit(&bt_lines.number, memory_order_relaxed) + 1) & 1];

    atomic_store_explicit(&line->ticks, ticks, memory_order_release);
    atomic_store_explicit(&line->valid, valid, memory_order_release);
    bt_put_stretch(&line->stretches[0], 0, ns, rate);
    bt_put_stretch(&line->stretches[1], UINT64_MAX, 0, 0);
    bt_put_stretch(&line->stretches[2], UINT64_MAX, 0, 0);
    return line;
}

static void bt_show_line(void)
{
    atomic_store_explicit(&bt_lines.number, atomic_load_explicit(&bt_lines.number, memory_order_relaxed) + 1, memory_order_release);
}

/* Begins again from here: nothing is known of the counter, and there is no line, but no stamp before `least`. */
static void bt_clock_restart(uint64_t ticks, int64_t ns, uint64_t took, int64_t least)
{
    bt_looks.ticks = bt_looks.looked = ticks;
    bt_looks.ns = ns;
    bt_looks.took = took;
    bt_looks.rate = 0;
    (void)bt_begin_line(ticks, least, 0, 0);
    bt_show_line();
}

/* What one counter does not do. */
static void bt_clock_strike(uint64_t ticks, int64_t ns, uint64_t took)
{
    uint64_t soon = bt_looks.rate > 0 ? (uint64_t)(BT_BROKEN_NS / bt_looks.rate) : 0;

    bt_looks.usable = ++bt_looks.strikes < BT_STRIKES;
    bt_clock_restart(ticks, ns, took, bt_told_at(bt_ticks() + soon));
}

static uint64_t bt_ticks_step(void)
{
    uint64_t last = bt_ticks();
    uint64_t step = UINT64_MAX;

    for (int i = 0; i < 256; i++) {
        uint64_t now = bt_ticks();

        if (now != last && now - last < step)
            step = now - last;
        last = now;
    }
    return step;
}

static void bt_clock_begin(void)
{
    uint64_t ticks;
    int64_t ns;
    uint64_t took = bt_read_both(&ticks, &ns);

    bt_looks.usable = bt_ticks_even() && bt_ticks_trusted();
    bt_looks.strikes = 0;
    bt_looks.step = bt_ticks_step();
    bt_clock_restart(ticks, ns, took, ns);
}

/* Learns the counter's rate; false: it is not known. */
static bool bt_clock_rate(uint64_t ticks, int64_t ns, uint64_t took)
{
    uint64_t span = ticks - bt_looks.ticks;
    double rate = (double)(ns - bt_looks.ns) / (double)span;
    bool first = bt_looks.rate == 0;

    if (first ? span < (took + bt_looks.took) * BT_RATE_PRECISION : ns - bt_looks.ns < BT_RATE_NS)
        return !first;
    if (!first && (rate > bt_looks.rate * (1 + BT_RATE_ODD) || rate < bt_looks.rate * (1 - BT_RATE_ODD))) {
        bt_clock_strike(ticks, ns, took);
        return false;
    }
    if (first && (double)bt_looks.step * rate > BT_STEP_MAX_NS) {
        bt_looks.usable = false;
        return false;
    }
    bt_looks.rate = rate;
    if (!first) {
        bt_looks.ticks = ticks;
        bt_looks.ns = ns;
        bt_looks.took = took;
    }
    return true;
}

/*
 * A line where there is none. It begins before the VM was asked, so that whoever has asked meanwhile was told no more than it tells; and a bit
 * before that, as the counter may have been read before the line was.
 */
static void bt_lay_line(uint64_t ticks, int64_t ns)
{
    double rate = bt_looks.rate;
    int64_t least = bt_told_at(ticks);
    uint64_t early = (uint64_t)(BT_AHEAD_NS / rate);

    (void)bt_begin_line(ticks - early, (ns < least ? least : ns) - bt_counts_ns(early, rate), rate,
                        early + (uint64_t)(BT_LINE_VALID_NS / rate));
}

/* The same line, bent a bit after the look, so that `off` is made good; false: it has another bend just there. */
static bool bt_bend_line(uint64_t ticks, int64_t off)
{
    const bt_line *old = bt_this_line();
    double rate = bt_looks.rate;
    double bend = (double)off / BT_BEND_NS;
    double bent = rate * (1 + (bend > BT_BEND_MAX ? BT_BEND_MAX : bend < -BT_BEND_MAX ? -BT_BEND_MAX : bend));
    uint64_t begin = atomic_load_explicit(&old->ticks, memory_order_relaxed);
    uint64_t until = ticks + (uint64_t)(BT_AHEAD_NS / rate);
    uint64_t for_so_long = (uint64_t)(BT_BEND_NS / bent);
    const bt_stretch *stretch = bt_stretch_at(old, ticks - begin);
    bt_line *line;
    uint64_t from;
    int64_t ns;

    if (stretch != bt_stretch_at(old, until - begin))
        return false;
    from = begin + atomic_load_explicit(&stretch->from, memory_order_relaxed);
    line = bt_begin_line(from, atomic_load_explicit(&stretch->ns, memory_order_relaxed), atomic_load_explicit(&stretch->rate, memory_order_relaxed),
                         until - from + (uint64_t)(BT_LINE_VALID_NS / rate));
    ns = bt_on_line(line, until - from);
    bt_put_stretch(&line->stretches[1], until - from, ns, bent);
    bt_put_stretch(&line->stretches[2], until - from + for_so_long, ns + bt_counts_ns(for_so_long, bent), rate);
    return true;
}

/* Bends the line, or lays the first one. On the agent's side, each time that it looks at a trace; under the lock of the table. */
static void bt_clock_look(void)
{
    const bt_line *line = bt_this_line();
    uint64_t ticks = bt_ticks();
    uint64_t took;
    int64_t ns;
    int64_t off;
    bool lies;

    if (bt_looks.rate != 0 && (double)(ticks - bt_looks.looked) * bt_looks.rate < BT_LOOK_NS)
        return;
    took = bt_read_both(&ticks, &ns);
    if (!bt_looks.usable)
        return;
    if (ticks <= bt_looks.looked || ns <= bt_looks.ns) {
        bt_clock_strike(ticks, ns, took);
        return;
    }
    if ((bt_looks.rate != 0 && (double)took * bt_looks.rate > BT_BRACKET_NS) || !bt_clock_rate(ticks, ns, took))
        return;
    off = ns - bt_told_at(ticks);
    lies = ticks - atomic_load_explicit(&line->ticks, memory_order_relaxed) < atomic_load_explicit(&line->valid, memory_order_relaxed);
    if (lies && (off > BT_BREAK_NS || off < -BT_BREAK_NS)) {
        bt_clock_strike(ticks, ns, took);
        return;
    }
    if (!lies)
        bt_lay_line(ticks, ns);
    else if (!bt_bend_line(ticks, off))
        return;
    /* Too late for the bend: the next look's. */
    if ((double)(bt_ticks() - ticks) * bt_looks.rate > BT_LOOK_MAX_NS)
        return;
    bt_show_line();
    bt_looks.looked = ticks;
}

#endif
