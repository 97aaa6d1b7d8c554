/*
 * The native tracer's rings under many threads, for the sanitizers: threads with a ring of their own and threads that share the guarded
 * one record events of processes that move between them; one thread drains. Checks that nothing is torn, that every process's events come in
 * order, and that what was recorded is what came and what was counted as lost. Usage: rings SECONDS [START]: the positions begin at START,
 * so that they pass 2^32, 2^53 or the end of 64 bits. stress/native/run.sh builds and runs it.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "rings.h"

#define SCHEDULERS 3
#define OTHERS 2
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

static void event(uint32_t who, uint32_t process)
{
    bt_ring *ring;
    bt_record *r;
    double stamp;

    if (who < SCHEDULERS) {
        ring = &rings->rings[who];
        r = bt_ring_reserve(ring);
        if (r != NULL) {
            fill(r, process, processes[process].next, now());
            bt_ring_commit(ring);
        }
    } else if ((ring = bt_guard_enter(rings)) != NULL) {
        stamp = now();
        if (stamp < rings->last_guarded)
            stamp = rings->last_guarded;
        rings->last_guarded = stamp;
        r = bt_ring_reserve(ring);
        if (r != NULL) {
            fill(r, process, processes[process].next, stamp);
            bt_ring_commit(ring);
        }
        bt_guard_leave(rings);
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

int main(int argc, char **argv)
{
    static uint64_t expected[PROCESSES];
    static bt_record batch[(SCHEDULERS + 1) * CAPACITY];
    int seconds = argc > 1 ? atoi(argv[1]) : 3;
    uint64_t start = argc > 2 ? strtoull(argv[2], NULL, 0) : 0;
    bt_record *records = malloc((SCHEDULERS + 1) * CAPACITY * sizeof *records);
    pthread_t threads[SCHEDULERS + OTHERS];
    uint64_t came = 0;
    uint64_t lost = 0;
    uint64_t sum = 0;
    double last_cut = 0;
    time_t end = time(NULL) + seconds;
    bool done;

    rings = aligned_alloc(BT_CACHE_LINE, bt_rings_bytes(SCHEDULERS));
    if (rings == NULL || records == NULL)
        fail("no memory");
    bt_rings_init(rings, SCHEDULERS, records, CAPACITY);
    for (uint32_t i = 0; i <= SCHEDULERS; i++) {
        atomic_store(&rings->rings[i].head, start);
        atomic_store(&rings->rings[i].tail, start);
        rings->rings[i].known_tail = start;
        atomic_store(&rings->rings[i].dropped, start);
        rings->rings[i].seen_dropped = start;
    }
    atomic_store(&working, SCHEDULERS + OTHERS);
    for (uintptr_t i = 0; i < SCHEDULERS + OTHERS; i++)
        if (pthread_create(&threads[i], NULL, work, (void *)i) != 0)
            fail("no thread");
    do {
        double cut;
        uint64_t count;

        done = atomic_load(&working) == 0;
        lost += bt_rings_losses(rings);
        count = bt_rings_prepare(rings, now(), MAX, &cut);
        if (count > sizeof batch / sizeof *batch)
            fail("more than there is");
        bt_rings_take(rings, batch);
        qsort(batch, count, sizeof *batch, by_stamp);
        for (uint64_t i = 0; i < count; i++) {
            const uint32_t *w = batch[i].words;
            uint64_t number = w[BT_SLOT_OTHER_LOW] | (uint64_t)w[BT_SLOT_OTHER_HIGH] << 32;
            uint32_t process = w[BT_SLOT_TRACEE_LOW];

            if (process >= PROCESSES || w[0] != (uint32_t)number || w[BT_SLOT_WORDS - 1] != (uint32_t)number)
                fail("a torn record");
            if (batch[i].doubles[BT_STAMP] > cut)
                fail("a record beyond the cut");
            if (number < expected[process])
                fail("events of a process out of order");
            expected[process] = number + 1;
        }
        if (cut < last_cut)
            fail("the cut went back");
        last_cut = cut;
        came += count;
        if (time(NULL) >= end)
            atomic_store(&stopping, true);
    } while (!done || bt_rings_waiting(rings) > 0);
    for (int i = 0; i < SCHEDULERS + OTHERS; i++) {
        pthread_join(threads[i], NULL);
        sum += recorded[i];
    }
    lost += bt_rings_losses(rings);
    printf("recorded %llu = came %llu + lost %llu\n", (unsigned long long)sum, (unsigned long long)came,
           (unsigned long long)lost);
    free(records);
    free(rings);
    return sum == came + lost ? 0 : 1;
}
