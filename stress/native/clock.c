/*
 * The native tracer's clock under many threads: each reads the last stamp that any of them has told, takes one, and tells it. A stamp is never
 * before one that was told earlier, on whichever thread, and is the VM's time within what the line may be off. Where the line bends there is one
 * way around that, a looker who is put off for a millisecond between his last look at the counter and the next instruction: so rare it must be. The VM's time here counts evenly,
 * then in turns a thousandth too fast and too slow, twice what a VM that corrects its time does, then leaps. And a thread that may not ask the VM
 * is never ahead of it, nor far behind, wherever a look at both times is interrupted. Usage: clock SECONDS [used]: so long for each;
 * `used`: the line has to be used, which a sanitizer or an emulator may be too slow for.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int interrupted_gettime(clockid_t clock, struct timespec *t);

#define clock_gettime interrupted_gettime
#include "clock.h"
#undef clock_gettime

#define THREADS 4
#define TURN_NS 50000000
#define LEAP_NS 5000000
#define LEAPS_NS 300000000

enum { EVEN, CORRECTED, LEAPING };
static const char *const names[] = {"even", "corrected", "leaping"};
/* Off by at most so much: by what a look and the first rate are off while a line is valid; by what the VM corrects meanwhile; what a leap has left. */
static const int64_t bounds[] = {30000, 600000, LEAP_NS + 30000};

static int mode;
static int64_t began;
static _Atomic bool stopping;
static _Atomic int64_t told;
static _Atomic uint64_t stamps;
static _Atomic uint64_t asked;
static _Atomic int64_t furthest;
static _Atomic uint64_t earlier;

/* Stamps out of order, where the line bends: of a million, and by how much. */
#define EARLIER_MAX 20
#define EARLIER_MAX_NS 50000

/* The thread is taken off its processor behind every seventh look at the system's time. */
static bool interrupting;
static _Thread_local bool may_not_ask;

static int interrupted_gettime(clockid_t clock, struct timespec *t)
{
    static unsigned looks;
    int result = clock_gettime(clock, t);

    if (interrupting && ++looks % 7 == 0) {
        struct timespec pause = {0, 200000};

        nanosleep(&pause, NULL);
    }
    return result;
}

static int64_t vm_ns(void)
{
    int64_t now = bt_system_ns();
    int64_t turn;

    if (mode == LEAPING)
        return now + (now - began) / LEAPS_NS * LEAP_NS;
    if (mode == EVEN)
        return now;
    turn = now % (2 * TURN_NS);
    return now + (turn < TURN_NS ? turn : 2 * TURN_NS - turn) / 1000;
}

ErlNifTime enif_monotonic_time(ErlNifTimeUnit unit)
{
    (void)unit;
    if (may_not_ask)
        return ERL_NIF_TIME_ERROR;
    atomic_fetch_add_explicit(&asked, 1, memory_order_relaxed);
    return vm_ns();
}

static void fail(const char *what, int64_t by)
{
    fprintf(stderr, "%s: %s, by %lld ns\n", names[mode], what, (long long)by);
    exit(1);
}

static void *work(void *unused)
{
    bt_ring ring = {.head = 0};
    int64_t far = 0;
    uint64_t n = 0;

    (void)unused;
    while (!atomic_load_explicit(&stopping, memory_order_relaxed)) {
        int64_t before = atomic_load_explicit(&told, memory_order_acquire);
        int64_t stamp = n++ % 2 == 0 ? began + (int64_t)bt_ring_ns(&ring, began, true) : bt_monotonic_ns(true);
        int64_t known = before;

        if (stamp < before) {
            if (mode == EVEN || before - stamp > EARLIER_MAX_NS)
                fail("a later stamp is earlier", before - stamp);
            atomic_fetch_add_explicit(&earlier, 1, memory_order_relaxed);
        }
        while (known < stamp && !atomic_compare_exchange_weak_explicit(&told, &known, stamp, memory_order_acq_rel, memory_order_acquire))
            ;
        if ((atomic_fetch_add_explicit(&stamps, 1, memory_order_relaxed) & 15) == 0) {
            int64_t from = vm_ns();
            int64_t middle = bt_monotonic_ns(true);
            int64_t until = vm_ns();
            int64_t off = middle < from ? from - middle : middle > until ? middle - until : 0;

            far = off > far ? off : far;
            if (off > bounds[mode])
                fail("not the VM's time", off);
        }
    }
    for (int64_t known = atomic_load(&furthest); known < far && !atomic_compare_exchange_weak(&furthest, &known, far);)
        ;
    return NULL;
}

static void run(int which, double seconds, bool used)
{
    pthread_t threads[THREADS];
    int64_t end;
    double share;

    mode = which;
    began = bt_system_ns();
    atomic_store(&stopping, false);
    atomic_store(&told, 0);
    atomic_store(&stamps, 0);
    atomic_store(&furthest, 0);
    atomic_store(&earlier, 0);
    bt_clock_begin();
    atomic_store(&asked, 0);
    for (int i = 0; i < THREADS; i++)
        if (pthread_create(&threads[i], NULL, work, NULL) != 0)
            abort();
    for (end = began + (int64_t)(seconds * 1e9); bt_system_ns() < end;) {
        struct timespec pause = {0, 3000000};

        bt_clock_look();
        nanosleep(&pause, NULL);
    }
    atomic_store(&stopping, true);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    share = (double)atomic_load(&asked) / (double)atomic_load(&stamps);
    printf("clock, %s: %llu stamps, %llu out of order, within %lld ns, %.2f %% asked for\n", names[mode],
           (unsigned long long)atomic_load(&stamps), (unsigned long long)atomic_load(&earlier), (long long)atomic_load(&furthest), 100 * share);
    if (atomic_load(&earlier) > atomic_load(&stamps) / 1000000 * EARLIER_MAX)
        fail("later stamps are earlier", (int64_t)atomic_load(&earlier));
    if (used && mode != LEAPING && bt_looks.usable && share > 0.5)
        fail("the line is not used", 0);
}

/* Looks that are interrupted, and what a thread that may not ask knows after each. */
static void aside(double seconds)
{
    int64_t end = bt_system_ns() + (int64_t)(seconds * 1e9);
    int64_t furthest_behind = 0;
    uint64_t looks = 0;

    mode = EVEN;
    bt_clock_begin();
    do {
        uint64_t ticks;
        int64_t ns;
        int64_t from;
        int64_t stamp;

        interrupting = true;
        (void)bt_read_both(&ticks, &ns);
        interrupting = false;
        from = vm_ns();
        may_not_ask = true;
        stamp = bt_asked_ns(0);
        may_not_ask = false;
        if (stamp > vm_ns())
            fail("a thread that may not ask is ahead", stamp - vm_ns());
        if (from - stamp > BT_LOOK_MAX_NS)
            fail("a thread that may not ask is behind", from - stamp);
        furthest_behind = from - stamp > furthest_behind ? from - stamp : furthest_behind;
        looks++;
    } while (bt_system_ns() < end);
    printf("clock, threads that may not ask: %llu looks that were interrupted, never ahead, at most %lld ns behind\n", (unsigned long long)looks,
           (long long)furthest_behind);
}

int main(int argc, char **argv)
{
    double seconds = argc > 1 ? atof(argv[1]) : 5;

    for (int which = EVEN; which <= LEAPING; which++)
        run(which, seconds, argc > 2 && strcmp(argv[2], "used") == 0);
    aside(seconds / 4);
    return 0;
}
