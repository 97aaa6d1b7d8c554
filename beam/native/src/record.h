/*
 * From the arguments of a trace callback to a record: the hot path. Runs in traced processes: no allocation, no lock, no send, and work
 * that does not grow with the terms. `kind` is a constant in the specialised callbacks, so that the compiler cuts what does not apply.
 */
#ifndef BEAMTRACE_RECORD_H
#define BEAMTRACE_RECORD_H

#include "clock.h"
#include "contents.h"
#include "initial_call.h"
#include "minifloat.h"
#include "self.h"
#include "shape.h"
#include "trace.h"

/* Monotonic ns since the trace's base. */
BT_INLINE double bt_now(bt_trace *trace, bool after) { return (double)(bt_monotonic_ns(after) - trace->base); }

/* The same for an event that goes into this ring, by its producer. */
BT_INLINE double bt_stamp(bt_trace *trace, bt_ring *ring, bool after)
{
    return bt_ring_in_order(ring, bt_ring_ns(ring, trace->base, after));
}

/* What another process has done comes to this one: the stamp of what that one did must be before. */
BT_INLINE bool bt_comes_from_another(uint32_t kind)
{
    return kind == BT_KIND_RECEIVE || kind == BT_KIND_SPAWNED || kind == BT_KIND_GETTING_LINKED || kind == BT_KIND_GETTING_UNLINKED ||
           kind == BT_KIND_IN;
}

/* What the VM says besides. It is a small map, which is read in place: the VM's own way is a search for any map. */
static inline bool bt_option(ErlNifEnv *env, bt_term options, bt_term key, bt_term *value)
{
    const uint64_t *box = bt_box(options);
    const uint64_t *keys;

    if (__builtin_expect(!bt_is_boxed(options) || !bt_is_map(box, bt_own.layout) || bt_map_kind(box[0]) != BT_MAP_FLAT, 0))
        return enif_get_map_value(env, options, key, value) != 0;
    keys = bt_flat_keys(box);
    for (uint64_t i = 0; i < bt_flat_size(box); i++) {
        if (keys[i] == key) {
            *value = bt_flat_values(box)[i];
            return true;
        }
    }
    return false;
}

static uint32_t bt_scheduler_id(ErlNifEnv *env, bt_self self, bt_term options)
{
    bt_term id;
    uint32_t scheduler = bt_self_scheduler(self);

    if (scheduler == 0) {
        scheduler = 1;
        if (bt_option(env, options, bt_atoms.scheduler_id, &id) && bt_is_small(id))
            scheduler += (uint32_t)bt_small(id) & 0x7ff;
        (void)bt_set_self(bt_self_who(self), bt_self_ring(self), scheduler);
    }
    return scheduler - 1;
}

static inline void bt_put_shape(bt_record *r, bt_shape s)
{
    r->words[BT_SLOT_SHAPE] = s.shape;
    r->words[BT_SLOT_TAG1] = s.tag1;
    r->words[BT_SLOT_TAG2] = s.tag2;
}

static inline void bt_put_content(ErlNifEnv *env, bt_trace *trace, bt_record *r, bt_term term, bt_term *content)
{
    if (__builtin_expect(trace->mode != BT_MODE_NONE, 1)) {
        bt_put_shape(r, bt_shape_of(env, term, bt_own.layout));
        *content = term;
    }
}

static inline bool bt_get_mfa(ErlNifEnv *env, bt_term term, bt_mfa *mfa, bt_term *third)
{
    const bt_term *e;
    int arity;

    if (!bt_is_boxed(term) || !enif_get_tuple(env, term, &arity, &e) || arity != 3)
        return false;
    mfa->module = bt_atom_word(e[0]);
    mfa->function = bt_atom_word(e[1]);
    mfa->arity = bt_is_small(e[2]) ? (uint32_t)bt_small(e[2]) & 0xffff : 0;
    *third = e[2];
    return mfa->module != 0;
}

static inline void bt_put_mfa(bt_record *r, bt_mfa mfa)
{
    r->words[BT_RAW_MODULE] = mfa.module;
    r->words[BT_RAW_FUNCTION] = mfa.function;
    r->words[BT_RAW_ARITY] = mfa.arity;
}

/* The second identity of a link, an open port or a message. */
static inline void bt_put_other(bt_record *r, const bt_identity *id)
{
    r->words[BT_SLOT_OTHER_LOW] = id->low;
    r->words[BT_SLOT_OTHER_HIGH] = id->high;
    r->words[BT_SLOT_FLAGS] |= id->flags;
    r->words[BT_RAW_REMOTE_NODE] = id->node;
    r->words[BT_RAW_REMOTE_CREATION] = id->creation;
    if (id->flags & BT_FLAG_ALIAS) {
        r->words[BT_ALIAS_NUMBER0] = id->numbers[0];
        r->words[BT_ALIAS_NUMBER1] = id->numbers[1];
        r->words[BT_ALIAS_NUMBER2] = id->numbers[2];
    }
}

static inline void bt_put_receiver(ErlNifEnv *env, bt_record *r, bt_term to)
{
    const bt_term *e;
    bt_identity id;
    int arity;

    if (__builtin_expect(bt_is_local_pid(to), 1)) {
        r->words[BT_SLOT_OTHER_LOW] = (uint32_t)to;
        r->words[BT_SLOT_OTHER_HIGH] = (uint32_t)(to >> 32);
    } else if (bt_is_atom(to)) {
        r->words[BT_SLOT_OTHER_LOW] = bt_atom_word(to);
    } else if (bt_read_identity(to, &id)) {
        bt_put_other(r, &id);
    } else if (bt_is_boxed(to) && enif_get_tuple(env, to, &arity, &e) && arity == 2) {
        r->words[BT_SLOT_OTHER_LOW] = bt_atom_word(e[0]);
        r->words[BT_SLOT_OTHER_HIGH] = bt_atom_word(e[1]);
        r->words[BT_SLOT_FLAGS] |= BT_RAW_NAMED_FLAG;
    }
}

static inline void bt_put_spawn(ErlNifEnv *env, bt_record *r, bt_term other, bt_term mfargs)
{
    const bt_term *e;
    bt_identity id;
    bt_mfa initial;
    int arity;

    if (bt_read_identity(other, &id)) {
        r->words[BT_SLOT_OTHER_LOW] = id.low;
        r->words[BT_SLOT_OTHER_HIGH] = id.high;
        r->words[BT_SLOT_FLAGS] |= id.flags & ~BT_FLAG_ALIAS;
        r->words[BT_RAW_SPAWN_REMOTE_NODE] = id.node;
        r->words[BT_RAW_SPAWN_REMOTE_CREATION] = id.creation;
    }
    if (!bt_is_boxed(mfargs) || !enif_get_tuple(env, mfargs, &arity, &e) || arity != 3)
        return;
    r->words[BT_RAW_SPAWN_MODULE] = bt_atom_word(e[0]);
    r->words[BT_RAW_SPAWN_FUNCTION] = bt_atom_word(e[1]);
    r->words[BT_RAW_SPAWN_ARITY] = bt_arity(env, e[2]);
    initial = bt_initial_call(env, e[0], e[1], e[2], bt_own.layout);
    r->words[BT_RAW_INITIAL_MODULE] = initial.module;
    r->words[BT_RAW_INITIAL_FUNCTION] = initial.function;
    r->words[BT_RAW_INITIAL_ARITY] = initial.arity;
}

/* A list of {Key, Value}; its order has been the same since OTP 19, any other order takes the slow way. */
static void bt_put_gc(ErlNifEnv *env, bt_record *r, bt_term list)
{
    /* By the order of the VM's list. */
    static const uint8_t usual[BT_GC_COUNT] = {0, 4, 2, 7, 6, 5, 3, 1, 8, 10, 9, 11};
    bt_term cell;
    uint64_t blocks[2] = {0, 0};

    for (uint32_t i = 0; i < 32 && enif_get_list_cell(env, list, &cell, &list); i++) {
        const bt_term *e;
        ErlNifUInt64 value;
        uint32_t field;
        int arity;

        if (!enif_get_tuple(env, cell, &arity, &e) || arity != 2)
            continue;
        field = i < BT_GC_COUNT ? usual[i] : 0;
        if (e[0] != bt_atoms.gc[field])
            for (field = 0; field < BT_GC_COUNT && e[0] != bt_atoms.gc[field];)
                field++;
        if (field == BT_GC_COUNT || !enif_get_uint64(env, e[1], &value))
            continue;
        if (bt_gc_fields[field].word != 0)
            r->words[bt_gc_fields[field].word] = value > UINT32_MAX ? UINT32_MAX : (uint32_t)value;
        else
            blocks[field - (BT_GC_COUNT - 2)] = value;
    }
    r->words[BT_SLOT_FLAGS] |= bt_minifloat(blocks[0]) << 8 | bt_minifloat(blocks[1]) << 20;
}

/* `said`: {'$beamtrace_trigger', Number} when the pattern of a trigger has matched. */
static void bt_call_trigger(ErlNifEnv *env, bt_trace *trace, const bt_record *r, bt_term said) __attribute__((noinline, cold));
static void bt_call_trigger(ErlNifEnv *env, bt_trace *trace, const bt_record *r, bt_term said)
{
    const bt_term *e;
    int arity;

    if (bt_is_boxed(said) && enif_get_tuple(env, said, &arity, &e) && arity == 2 && e[0] == bt_atoms.trigger && bt_is_small(e[1]))
        bt_fire(&trace->triggers, r, (uint32_t)bt_small(e[1]));
}

/* Any reason but those of an orderly end: normal, shutdown, {shutdown, _}. */
static void bt_exit_trigger(ErlNifEnv *env, bt_trace *trace, const bt_record *r, bt_term reason) __attribute__((noinline, cold));
static void bt_exit_trigger(ErlNifEnv *env, bt_trace *trace, const bt_record *r, bt_term reason)
{
    const bt_term *e;
    int arity;

    if (reason == bt_atoms.normal || reason == bt_atoms.shutdown)
        return;
    if (bt_is_boxed(reason) && enif_get_tuple(env, reason, &arity, &e) && arity == 2 && e[0] == bt_atoms.shutdown)
        return;
    bt_fire(&trace->triggers, r, atomic_load_explicit(&trace->triggers.exit, memory_order_relaxed));
}

static inline void bt_put_call(ErlNifEnv *env, bt_trace *trace, bt_record *r, bt_term mfargs, bt_term options, bt_term *content)
{
    bt_mfa mfa;
    bt_mfa caller;
    bt_term third;
    bt_term said;

    if (bt_get_mfa(env, mfargs, &mfa, &third)) {
        if (!bt_is_small(third)) {
            bt_shape args = bt_shape_of_args(env, third, &mfa.arity);

            if (trace->mode != BT_MODE_NONE) {
                bt_put_shape(r, args);
                *content = third;
            }
        }
        bt_put_mfa(r, mfa);
    }
    if (bt_option(env, options, bt_atoms.match_spec_result, &said)) {
        if (said == bt_atoms.undefined) {
            r->words[BT_RAW_CALLER_ARITY] = BT_CALLER_UNDEFINED;
        } else if (bt_get_mfa(env, said, &caller, &third) && bt_is_small(third)) {
            r->words[BT_RAW_CALLER_MODULE] = caller.module;
            r->words[BT_RAW_CALLER_FUNCTION] = caller.function;
            r->words[BT_RAW_CALLER_ARITY] = caller.arity;
        } else {
            bt_call_trigger(env, trace, r, said);
        }
    }
}

/* Fills a zeroed record, but for head, stamp and tracee. `content`: the term that contents may be of. */
BT_INLINE void bt_fill(ErlNifEnv *env, bt_trace *trace, bt_record *r, uint32_t kind, bt_term subject, bt_term options, bt_term *content)
{
    bt_term extra = 0;
    bt_term third;
    bt_identity id;
    bt_mfa mfa;
    const bt_term *e;
    int arity;

    switch (kind) {
    case BT_KIND_SEND:
    case BT_KIND_SEND_TO_NON_EXISTING_PROCESS:
        if (bt_option(env, options, bt_atoms.extra, &extra))
            bt_put_receiver(env, r, extra);
        bt_put_content(env, trace, r, subject, content);
        break;
    case BT_KIND_RECEIVE:
        bt_message_trigger(&trace->triggers, r);
        bt_put_content(env, trace, r, subject, content);
        break;
    case BT_KIND_EXIT:
        if (__builtin_expect(atomic_load_explicit(&trace->triggers.exit, memory_order_relaxed) != 0, 0))
            bt_exit_trigger(env, trace, r, subject);
        bt_put_content(env, trace, r, subject, content);
        break;
    case BT_KIND_CLOSED:
        bt_put_content(env, trace, r, subject, content);
        break;
    case BT_KIND_CALL:
        bt_put_call(env, trace, r, subject, options, content);
        break;
    case BT_KIND_RETURN_FROM:
        if (bt_get_mfa(env, subject, &mfa, &third))
            bt_put_mfa(r, mfa);
        if (bt_option(env, options, bt_atoms.extra, &extra))
            bt_put_content(env, trace, r, extra, content);
        break;
    case BT_KIND_EXCEPTION_FROM:
        if (bt_get_mfa(env, subject, &mfa, &third))
            bt_put_mfa(r, mfa);
        if (bt_option(env, options, bt_atoms.extra, &extra) && bt_is_boxed(extra) &&
            enif_get_tuple(env, extra, &arity, &e) && arity == 2) {
            r->words[BT_SLOT_EXTRA] = bt_atom_word(e[0]);
            bt_put_content(env, trace, r, e[1], content);
        }
        break;
    case BT_KIND_RETURN_TO:
    case BT_KIND_IN:
    case BT_KIND_OUT:
    case BT_KIND_IN_EXITING:
    case BT_KIND_OUT_EXITING:
    case BT_KIND_OUT_EXITED:
        if (bt_get_mfa(env, subject, &mfa, &third))
            bt_put_mfa(r, mfa);
        break;
    case BT_KIND_SPAWN:
    case BT_KIND_SPAWNED:
        if (bt_option(env, options, bt_atoms.extra, &extra))
            bt_put_spawn(env, r, subject, extra);
        break;
    case BT_KIND_LINK:
    case BT_KIND_UNLINK:
    case BT_KIND_GETTING_LINKED:
    case BT_KIND_GETTING_UNLINKED:
        if (bt_read_identity(subject, &id))
            bt_put_other(r, &id);
        break;
    case BT_KIND_REGISTER:
    case BT_KIND_UNREGISTER:
        r->words[BT_SLOT_OTHER_LOW] = bt_atom_word(subject);
        break;
    case BT_KIND_PORT_IN:
    case BT_KIND_PORT_OUT:
        r->words[BT_SLOT_EXTRA] = bt_atom_word(subject);
        break;
    case BT_KIND_GC_MINOR_START:
    case BT_KIND_GC_MINOR_END:
    case BT_KIND_GC_MAJOR_START:
    case BT_KIND_GC_MAJOR_END:
    case BT_KIND_GC_MAX_HEAP_SIZE:
        bt_put_gc(env, r, subject);
        break;
    case BT_KIND_OPEN:
        if (bt_read_identity(subject, &id))
            bt_put_other(r, &id);
        if (bt_option(env, options, bt_atoms.extra, &extra))
            r->words[BT_SLOT_EXTRA] = bt_atom_word(extra);
        break;
    default:
        break;
    }
}

BT_INLINE void bt_write(ErlNifEnv *env, bt_trace *trace, bt_self self, bt_record *r, uint32_t kind, bt_term tracee, bt_term subject,
                        bt_term options, double stamp, bt_term *content)
{
    memset(r, 0, sizeof *r);
    r->doubles[BT_STAMP] = stamp;
    r->words[BT_SLOT_HEAD] = kind;
    if (trace->scheduler)
        r->words[BT_SLOT_HEAD] |= bt_scheduler_id(env, self, options) << 16;
    if (bt_is_local_port(tracee))
        r->words[BT_SLOT_FLAGS] = BT_FLAG_PORT;
    r->words[BT_SLOT_TRACEE_LOW] = (uint32_t)tracee;
    r->words[BT_SLOT_TRACEE_HIGH] = (uint32_t)(tracee >> 32);
    bt_fill(env, trace, r, kind, subject, options, content);
}

/* Makes an event visible. */
BT_INLINE void bt_commit(bt_trace *trace, bt_ring *ring, bt_record *r, bt_term content)
{
    if (__builtin_expect(trace->mode == BT_MODE_CONTENTS, 0) && content != 0)
        bt_commit_contents(ring, r, bt_keep_term(trace->contents, ring->scratch, content, bt_own.layout));
    else
        bt_ring_commit(ring);
}

/* Any thread but a normal scheduler. Nobody frees the rings while a visitor is inside. */
static void bt_record_guarded(ErlNifEnv *env, bt_self self, bt_term state, uint32_t kind, bt_term tracee, bt_term subject, bt_term options)
    __attribute__((noinline));

/* Counts what is filtered on the ring of this thread; other threads do not count. */
static inline void bt_count_filtered(bt_trace *trace, bt_self self)
{
    if (bt_self_who(self) == BT_SCHEDULER_THREAD && bt_self_ring(self) < trace->scheduler_rings) {
        bt_ring *ring = &trace->rings->rings[bt_self_ring(self)];

        atomic_store_explicit(&ring->filtered, atomic_load_explicit(&ring->filtered, memory_order_relaxed) + 1,
                              memory_order_relaxed);
    }
}

/* A new process that is ours, or one of the client's. */
static bool bt_is_ours(ErlNifEnv *env, bt_trace *trace, bt_term parent, bt_term options)
{
    const bt_term *e;
    const bt_term *binding;
    bt_identity id;
    bt_term extra;
    bt_term cell;
    bt_term rest;
    int arity;

    if (parent == trace->holder)
        return true;
    if (!bt_is_local_pid(parent) && bt_read_identity(parent, &id) && id.node != 0 && id.node == bt_atom_word(trace->client_node))
        return true;
    if (!bt_option(env, options, bt_atoms.extra, &extra) || !bt_is_boxed(extra) ||
        !enif_get_tuple(env, extra, &arity, &e) || arity != 3)
        return false;
    for (uint32_t i = 0; i < trace->module_count; i++)
        if (trace->modules[i] == e[0])
            return true;
    return e[0] == bt_atoms.erl_eval && e[1] == bt_atoms.exprs && enif_get_list_cell(env, e[2], &cell, &rest) &&
           enif_get_list_cell(env, rest, &cell, &rest) && enif_get_list_cell(env, cell, &cell, &rest) &&
           enif_get_tuple(env, cell, &arity, &binding) && arity == 2 && binding[0] == bt_atoms.modules_binding;
}

/* What has to be known before an event is recorded. */
BT_INLINE bool bt_admit(ErlNifEnv *env, bt_trace *trace, bt_self self, uint32_t kind, bt_term tracee, bt_term subject, bt_term options)
{
    if (bt_filtered(trace, tracee)) {
        bt_count_filtered(trace, self);
        return false;
    }
    if (kind == BT_KIND_SPAWNED) {
        if (bt_is_ours(env, trace, subject, options)) {
            (void)bt_filter_add(trace, tracee, true);
            bt_count_filtered(trace, self);
            return false;
        }
    }
    return bt_wanted(trace->place, kind);
}

static void bt_record_guarded(ErlNifEnv *env, bt_self self, bt_term state, uint32_t kind, bt_term tracee, bt_term subject, bt_term options)
{
    bt_trace *trace;
    bt_guard *guard;
    bt_ring *ring;
    bt_record *record;
    bt_term content = 0;
    double stamp;

    atomic_fetch_add(&bt_visitors, 1);
    atomic_thread_fence(memory_order_seq_cst);
    trace = bt_trace_of(state);
    if (trace != NULL && bt_admit(env, trace, self, kind, tracee, subject, options)) {
        guard = bt_guard_enter(trace->rings);
        if (guard != NULL) {
            ring = bt_guard_ring(trace->rings, guard);
            stamp = bt_guard_stamp(guard, bt_now(trace, true));
            record = bt_ring_reserve(ring, bt_is_needed(kind));
            if (record != NULL) {
                bt_write(env, trace, self, record, kind, tracee, subject, options, stamp, &content);
                bt_commit(trace, ring, record, content);
            }
            bt_guard_leave(guard);
        }
    }
    atomic_fetch_sub_explicit(&bt_visitors, 1, memory_order_release);
}

/* One event. */
BT_INLINE void bt_emit(ErlNifEnv *env, bt_term state, uint32_t kind, bt_term tracee, bt_term subject, bt_term options)
{
    bt_self self = bt_get_self();
    bt_trace *trace;
    bt_ring *ring;
    bt_record *record;
    bt_term content = 0;

    if (__builtin_expect(bt_self_who(self) != BT_SCHEDULER_THREAD, 0)) {
        bt_record_guarded(env, self, state, kind, tracee, subject, options);
        return;
    }
    trace = bt_trace_of(state);
    if (trace == NULL || !bt_admit(env, trace, self, kind, tracee, subject, options))
        return;
    if (__builtin_expect(bt_self_ring(self) >= trace->scheduler_rings, 0)) {
        bt_record_guarded(env, self, state, kind, tracee, subject, options);
        return;
    }
    ring = &trace->rings->rings[bt_self_ring(self)];
    record = bt_ring_reserve(ring, bt_is_needed(kind));
    if (record == NULL)
        return;
    bt_write(env, trace, self, record, kind, tracee, subject, options, bt_stamp(trace, ring, bt_comes_from_another(kind)), &content);
    bt_commit(trace, ring, record, content);
}

#endif
