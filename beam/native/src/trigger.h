/*
 * What makes a flight recorder keep its window (docs/flight-recorder.md): noticed by the callback that records the event, told by a flag
 * that the agent looks at now and then. Nothing is sent: a traced process does no more than to set a few words, and only the first time.
 */
#ifndef BEAMTRACE_TRIGGER_H
#define BEAMTRACE_TRIGGER_H

#include "ring.h"
#include "terms.h"

/* Processes whose incoming messages are triggers. */
#define BT_WATCHED 8

enum { BT_DISARMED, BT_ARMED, BT_FIRING, BT_FIRED, BT_SEEN };

typedef struct {
    /* Number of the trigger, from 1; 0: none. */
    _Atomic uint32_t exit;
    _Atomic uint32_t watched;
    struct {
        _Atomic bt_term process;
        _Atomic uint32_t number;
    } watch[BT_WATCHED];
    /* Occurrences that found the recorder not armed. */
    _Atomic uint64_t suppressed;
    _Atomic uint32_t state;
    /* What has fired: the callback's while BT_FIRING, the agent's once it is BT_FIRED. */
    uint32_t number;
    bt_term process;
    double stamp;
} bt_triggers;

/* `r`: the record of the event, with its head, stamp and tracee. */
static void bt_fire(bt_triggers *triggers, const bt_record *r, uint32_t number) __attribute__((noinline, cold, unused));
static void bt_fire(bt_triggers *triggers, const bt_record *r, uint32_t number)
{
    uint32_t state = atomic_load_explicit(&triggers->state, memory_order_relaxed);

    if (state != BT_ARMED || !atomic_compare_exchange_strong_explicit(&triggers->state, &state, BT_FIRING, memory_order_acquire,
                                                                     memory_order_relaxed)) {
        if (state != BT_DISARMED)
            atomic_fetch_add_explicit(&triggers->suppressed, 1, memory_order_relaxed);
        return;
    }
    triggers->number = number;
    triggers->process = r->words[BT_SLOT_TRACEE_LOW] | (bt_term)r->words[BT_SLOT_TRACEE_HIGH] << 32;
    triggers->stamp = r->doubles[BT_STAMP];
    atomic_store_explicit(&triggers->state, BT_FIRED, memory_order_release);
}

/* A message has come to the process of `r`. */
static inline void bt_message_trigger(bt_triggers *triggers, const bt_record *r)
{
    bt_term process;

    if (__builtin_expect(atomic_load_explicit(&triggers->watched, memory_order_relaxed) == 0, 1))
        return;
    process = r->words[BT_SLOT_TRACEE_LOW] | (bt_term)r->words[BT_SLOT_TRACEE_HIGH] << 32;
    for (uint32_t i = 0; i < BT_WATCHED; i++)
        if (atomic_load_explicit(&triggers->watch[i].process, memory_order_relaxed) == process)
            bt_fire(triggers, r, atomic_load_explicit(&triggers->watch[i].number, memory_order_relaxed));
}

#endif
