/*
 * The native tracer's rings under many threads, for the sanitizers: threads with a ring of their own and threads that share the guarded
 * ones record events of processes that move between them; one thread drains rings that drop the newest, then rings that overwrite the oldest,
 * then reads windows out of such rings without taking them. Checks that nothing is torn, that every process's events come in order and without
 * a hole but for what was counted, and that what was recorded is what came and what was counted as lost. Usage: rings SECONDS [START]: so long
 * for each, and the positions begin at START, so that they pass 2^32, 2^53 or the end of 64 bits. stress/native/run.sh builds and runs it.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "rings.h"

#define SCHEDULERS 3
#define OTHERS 6
#define PROCESSES 64
#define CAPACITY 256
#define MAX 512

static bt_rings *rings;
static _Atomic bool stopping;
static _Atomic int working;
static struct {
    _Atomic bool taken;
    uint64_t next;
} processes[PROCESSES];
static uint64_t recorded[SCHEDULERS + OTHERS];

/* Events take several records, some of them. */
static bool counted;
static unsigned char scratch[1];
static uint32_t length_of(uint64_t number, uint32_t process) { return counted ? (uint32_t)(number * 7 + process) % 13 * ((number & 1) ^ 1) : 0; }

static double now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static void fill(bt_record *r, uint32_t process, uint64_t number, double stamp)
{
    for (unsigned i = 0; i < BT_SLOT_WORDS; i++)
        r->words[i] = (uint32_t)number;
    r->doubles[BT_STAMP] = stamp;
    r->words[BT_SLOT_TRACEE_LOW] = process;
    r->words[BT_SLOT_OTHER_LOW] = (uint32_t)number;
    r->words[BT_SLOT_OTHER_HIGH] = (uint32_t)(number >> 32);
}

/* Writes an event, if there is room for all of it. */
static void put(bt_ring *ring, uint32_t process, double stamp)
{
    uint64_t number = processes[process].next;
    uint32_t more = length_of(number, process);
    bool needed = process % 8 == 0;
    bt_record *r = bt_ring_reserve(ring, needed);

    if (r == NULL || (more > 0 && !bt_ring_extend(ring, 1 + more, needed)))
        return;
    fill(r, process, number, stamp);
    r->words[BT_SLOT_HEAD] = (uint32_t)number << 8;
    for (uint32_t i = 1; i <= more; i++) {
        bt_record *next = bt_ring_behind(ring, i);

        fill(next, process, number, stamp);
        next->words[BT_SLOT_HEAD] = BT_KIND_CONTINUATION | i << 8;
    }
    if (more > 0)
        bt_ring_commit_event(ring, 1 + more);
    else
        bt_ring_commit(ring);
}

static void event(uint32_t who, uint32_t process)
{
    bt_guard *guard;

    if (who < SCHEDULERS) {
        put(&rings->rings[who], process, now());
    } else if ((guard = bt_guard_enter(rings)) != NULL) {
        put(bt_guard_ring(rings, guard), process, bt_guard_stamp(guard, now()));
        bt_guard_leave(guard);
    }
    processes[process].next++;
    recorded[who]++;
}

static void *work(void *argument)
{
    uint32_t who = (uint32_t)(uintptr_t)argument;
    uint64_t seed = who + 1;

    while (!atomic_load(&stopping)) {
        uint32_t process;

        seed = seed * UINT64_C(6364136223846793005) + 1442695040888963407u;
        process = (uint32_t)(seed >> 40) % PROCESSES;
        if (atomic_exchange(&processes[process].taken, true))
            continue;
        for (uint64_t n = seed >> 60; n < 8; n++)
            event(who, process);
        atomic_store(&processes[process].taken, false);
        if ((seed >> 33 & 0x3ff) == 0) {
            struct timespec pause = {0, 50000};

            nanosleep(&pause, NULL);
        }
    }
    atomic_fetch_sub(&working, 1);
    return NULL;
}

static int by_stamp(const void *a, const void *b)
{
    double x = ((const bt_record *)a)->doubles[BT_STAMP];
    double y = ((const bt_record *)b)->doubles[BT_STAMP];

    return x < y ? -1 : x > y;
}

static void fail(const char *what)
{
    fprintf(stderr, "%s\n", what);
    exit(1);
}

static uint64_t origin;
static uint64_t expected[PROCESSES];
static bt_record batch[(SCHEDULERS + 1) * CAPACITY];

/* Leaves the events; each must have all its continuations behind it. What is left of one that was overwritten has none before it. Returns how many. */
static uint64_t events_of(uint64_t count)
{
    uint64_t events = 0;

    for (uint64_t i = 0; i < count;) {
        const bt_record *r = &batch[i];
        uint32_t more;

        if (bt_is_continuation(r)) {
            i++;
            continue;
        }
        more = length_of(r->words[BT_SLOT_OTHER_LOW] | (uint64_t)r->words[BT_SLOT_OTHER_HIGH] << 32, r->words[BT_SLOT_TRACEE_LOW]);
        if (more >= count - i)
            fail("an event that is cut off");
        for (uint32_t k = 1; k <= more; k++)
            if (r[k].words[BT_SLOT_HEAD] != (BT_KIND_CONTINUATION | k << 8) || r[k].words[BT_SLOT_OTHER_LOW] != r->words[BT_SLOT_OTHER_LOW] ||
                r[k].words[BT_SLOT_TRACEE_LOW] != r->words[BT_SLOT_TRACEE_LOW] || r[k].words[BT_SLOT_WORDS - 1] != r->words[BT_SLOT_WORDS - 1] ||
                r[k].doubles[BT_STAMP] != r->doubles[BT_STAMP])
                fail("a torn continuation");
        batch[events++] = *r;
        i += 1 + more;
    }
    return events;
}

/* `whole`: no event of a process that has been seen may be missing. Returns how many events there are among the records. */
static uint64_t check(uint64_t count, double cut, bool whole)
{
    if (count > sizeof batch / sizeof *batch)
        fail("more than there is");
    count = events_of(count);
    qsort(batch, count, sizeof *batch, by_stamp);
    for (uint64_t i = 0; i < count; i++) {
        const uint32_t *w = batch[i].words;
        uint64_t number = w[BT_SLOT_OTHER_LOW] | (uint64_t)w[BT_SLOT_OTHER_HIGH] << 32;
        uint32_t process = w[BT_SLOT_TRACEE_LOW];

        if (process >= PROCESSES || w[0] != (uint32_t)number << 8 || w[BT_SLOT_WORDS - 1] != (uint32_t)number)
            fail("a torn record");
        if (batch[i].doubles[BT_STAMP] > cut)
            fail("a record beyond the cut");
        if (number < expected[process])
            fail("events of a process out of order");
        if (whole && expected[process] != 0 && number != expected[process])
            fail("an event is missing that was not counted");
        expected[process] = number + 1;
    }
    return count;
}

/* Takes everything. Returns what was lost. */
static uint64_t drain(time_t end, uint64_t *came)
{
    uint64_t lost = 0;
    double last_cut = 0;
    bool done;

    do {
        double cut;
        double until = now();
        uint64_t count;

        done = atomic_load(&working) == 0;
        lost += bt_rings_losses(rings) + bt_rings_hold(rings);
        count = bt_rings_prepare(rings, until, MAX, &cut);
        bt_rings_take(rings, batch);
        bt_rings_release(rings);
        count = check(count, cut, false);
        if (cut < last_cut)
            fail("the cut went back");
        last_cut = cut;
        *came += count;
        if (time(NULL) >= end)
            atomic_store(&stopping, true);
    } while (!done || bt_rings_waiting(rings) > 0);
    return lost + bt_rings_losses(rings);
}

/* When the last loss was seen: windows overlap, so it makes a hole in later ones as well. */
static double last_loss;
static uint64_t whole;

/* One window up to now: what recorder.h does. Returns where it ends, in records ever written. */
static uint64_t window(uint64_t *came, uint64_t *gone)
{
    double end = now();
    double start;
    double cut;
    uint64_t before = 0;
    uint64_t positions = 0;
    uint64_t read = 0;
    uint64_t missed = 0;

    memset(expected, 0, sizeof expected);
    (void)bt_rings_hold(rings);
    start = bt_rings_window(rings, 0);
    for (uint32_t i = 0; i < rings->all; i++)
        before += bt_ring_events_before(&rings->rings[i], rings->rings[i].at);
    bt_rings_release(rings);
    do {
        uint64_t count;

        missed += bt_rings_hold(rings);
        count = bt_rings_prepare(rings, end, MAX, &cut);
        bt_rings_read(rings, batch);
        bt_rings_release(rings);
        if (bt_rings_losses(rings) > 0)
            last_loss = now();
        count = check(count, cut, missed == 0 && last_loss < start);
        whole += missed == 0 && last_loss < start;
        read += count;
    } while (cut < end);
    for (uint32_t i = 0; i < rings->all; i++)
        positions += counted ? rings->rings[i].told : rings->rings[i].at - origin;
    if (before + read + missed != positions)
        fail("a window that does not add up");
    *came += read;
    *gone += missed;
    return positions;
}

static uint64_t windows(time_t end, uint64_t *came, uint64_t *gone)
{
    uint64_t lost = 0;
    uint64_t written = 0;
    uint64_t rounds = 0;

    while (time(NULL) < end) {
        uint64_t positions = window(came, gone);

        if (positions < written)
            fail("a window that ends before the last one");
        written = positions;
        rounds++;
    }
    atomic_store(&stopping, true);
    while (atomic_load(&working) > 0)
        ;
    if (rounds == 0 || *came == 0 || whole == 0)
        fail("no whole window");
    lost = atomic_load(&rings->refused);
    for (uint32_t i = 0; i < rings->all; i++)
        lost += atomic_load(&rings->rings[i].dropped) - origin;
    written = 0;
    for (uint32_t i = 0; i < rings->all; i++)
        written += bt_ring_written(&rings->rings[i]);
    *came = written;
    return lost;
}

static int run(const char *mode, int seconds)
{
    bt_record *records = malloc((SCHEDULERS + 1) * CAPACITY * sizeof *records);
    pthread_t threads[SCHEDULERS + OTHERS];
    uint64_t came = 0;
    uint64_t gone = 0;
    uint64_t lost;
    uint64_t sum = 0;
    time_t end = time(NULL) + seconds;

    rings = aligned_alloc(BT_CACHE_LINE, bt_rings_bytes(SCHEDULERS));
    if (rings == NULL || records == NULL)
        fail("no memory");
    bt_rings_init(rings, SCHEDULERS, records, CAPACITY);
    for (uint32_t i = 0; i < rings->all; i++) {
        bt_ring *ring = &rings->rings[i];

        atomic_store(&ring->head, origin);
        atomic_store(&ring->tail, origin << 1 | BT_HELD);
        ring->at = ring->origin = origin;
        ring->known_tail = origin - ring->kept;
        atomic_store(&ring->dropped, origin);
        ring->seen_dropped = origin;
    }
    if (counted)
        bt_rings_count_events(rings, scratch, 0);
    if (mode[0] != 'd')
        bt_rings_overwrite(rings);
    memset(expected, 0, sizeof expected);
    memset(recorded, 0, sizeof recorded);
    for (int i = 0; i < PROCESSES; i++)
        processes[i].next = 0;
    atomic_store(&stopping, false);
    atomic_store(&working, SCHEDULERS + OTHERS);
    for (uintptr_t i = 0; i < SCHEDULERS + OTHERS; i++)
        if (pthread_create(&threads[i], NULL, work, (void *)i) != 0)
            fail("no thread");
    lost = mode[0] == 'w' ? windows(end, &came, &gone) : drain(end, &came);
    for (int i = 0; i < SCHEDULERS + OTHERS; i++) {
        pthread_join(threads[i], NULL);
        sum += recorded[i];
    }
    printf("%s%s: recorded %llu = came %llu + lost %llu", mode, counted ? ", events of several records" : "", (unsigned long long)sum, (unsigned long long)came,
           (unsigned long long)lost);
    if (mode[0] == 'w')
        printf("; whole rounds %llu; overwritten under the reader, and counted: %llu\n", (unsigned long long)whole,
               (unsigned long long)gone);
    else
        printf("\n");
    free(records);
    free(rings);
    return sum == came + lost ? 0 : 1;
}

int main(int argc, char **argv)
{
    int seconds = argc > 1 ? atoi(argv[1]) : 3;

    origin = argc > 2 ? strtoull(argv[2], NULL, 0) : 0;
    for (int i = 0; i < 2; i++) {
        counted = i == 1;
        if (run("drop", seconds) + run("overwrite", seconds) + run("windows", seconds) != 0)
            return 1;
    }
    return 0;
}
