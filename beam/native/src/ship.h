/*
 * Records of a trace with contents as they are shipped: the events without their continuations, and beside them what these held, as external
 * terms. Like drain.h it runs in the one process that owns the trace's resource.
 */
#ifndef BEAMTRACE_SHIP_H
#define BEAMTRACE_SHIP_H

#include "drain.h"
#include "encode.h"
#include "probe.h"

/*
 * Puts the continuations that begin at `at` in a row; `at` then is behind them. Returns how many bytes they are; 0: they are not all there. What
 * is left of an event that has been overwritten may come next: at the beginning of another ring's records.
 */
static size_t bt_gather(const bt_record *records, uint64_t count, uint64_t *at, unsigned char *to, size_t room)
{
    size_t bytes = *at < count && bt_is_continuation(&records[*at]) ? records[*at].words[BT_SLOT_FLAGS] : 0;
    uint64_t more = (bytes + BT_CONTINUED_BYTES - 1) / BT_CONTINUED_BYTES;

    if (bytes > room || more > count - *at)
        return 0;
    for (uint64_t i = 0; i < more; i++) {
        const bt_record *record = &records[*at + i];
        size_t from = i * BT_CONTINUED_BYTES;
        size_t part = bytes - from < BT_CONTINUED_BYTES ? bytes - from : BT_CONTINUED_BYTES;

        if (!bt_is_continuation(record) || record->words[BT_SLOT_FLAGS] != bytes - from)
            return 0;
        memcpy(to + from, (const unsigned char *)record + sizeof *record - BT_CONTINUED_BYTES, part);
    }
    *at += more;
    return bytes;
}

/*
 * The events among `records` to `to`; of each that has contents <<Bytes:32/little, Term/binary>> into the encoder. Events whose contents find no
 * memory say so. Continuations of an event that has been overwritten are left out.
 */
static uint64_t bt_separate(bt_encoder *e, bt_trace *trace, const bt_record *records, uint64_t count, bt_record *to, unsigned char *row)
{
    uint64_t events = 0;

    for (uint64_t at = 0; at < count;) {
        bt_record *event = &to[events];
        size_t begun = e->used;
        size_t bytes;

        if (bt_is_continuation(&records[at])) {
            at++;
            continue;
        }
        *event = records[at++];
        events++;
        if (!(event->words[BT_SLOT_FLAGS] & BT_FLAG_PAYLOAD))
            continue;
        bytes = bt_gather(records, count, &at, row, trace->contents->bytes);
        e->failed = false;
        bt_put_number(e, 0, 4);
        if (bt_encode(e, trace->contents, row, bytes)) {
            uint32_t size = (uint32_t)(e->used - begun - 4);

            memcpy(e->out + begun, &size, sizeof size);
        } else {
            e->used = begun;
            event->words[BT_SLOT_FLAGS] = (event->words[BT_SLOT_FLAGS] & ~BT_FLAG_PAYLOAD) | BT_FLAG_PAYLOAD_LOST;
        }
    }
    return events;
}

/*
 * contents(Trace, Records) -> {Records, Contents, Dictionary} | {funs, [Fun]}: records as drain/2 or peek/2 gave them,
 * ready to be shipped; or local funs whose names are to be told first.
 */
BT_NIF(trace_contents)
{
    bt_handle *handle;
    bt_trace *trace;
    ErlNifBinary slots;
    bt_encoder e;
    bt_record *events;
    unsigned char *row;
    bt_term records;
    bt_term contents;
    bt_term result;
    uint64_t count;
    uint64_t kept;
    uint64_t markers = 0;

    BT_UNUSED;
    if (!bt_get_handle(env, argv[0], &handle) || handle->trace->contents == NULL || !enif_inspect_binary(env, argv[1], &slots) ||
        slots.size % sizeof(bt_record) != 0 || (uintptr_t)slots.data % sizeof(double) != 0)
        return enif_make_badarg(env);
    trace = handle->trace;
    count = slots.size / sizeof(bt_record);
    events = enif_alloc(slots.size + trace->contents->bytes + 1);
    if (events == NULL || atomic_exchange(&trace->consuming, true)) {
        enif_free(events);
        return enif_make_badarg(env);
    }
    row = (unsigned char *)(events + count);
    bt_encoder_begin(&e, env, trace->funs, trace->fun_count);
    kept = bt_separate(&e, trace, (const bt_record *)(const void *)slots.data, count, events, row);
    if (bt_is_nil(e.unknown)) {
        bt_term dictionary = bt_finish_records(env, trace, events, kept, &markers);

        if (kept > 0)
            memcpy(enif_make_new_binary(env, kept * sizeof *events, &records), events, kept * sizeof *events);
        else
            (void)enif_make_new_binary(env, 0, &records);
        if (e.used > 0)
            memcpy(enif_make_new_binary(env, e.used, &contents), e.out, e.used);
        else
            (void)enif_make_new_binary(env, 0, &contents);
        result = enif_make_tuple3(env, records, contents, dictionary);
    } else {
        result = enif_make_tuple2(env, bt_atoms.funs, e.unknown);
    }
    atomic_store(&trace->consuming, false);
    enif_free(e.out);
    enif_free(events);
    /* 1 % of a time slice for about 10 µs. */
    (void)enif_consume_timeslice(env, count / 100 >= 99 ? 99 : (int)(count / 100) + 1);
    return result;
}

static bt_fun_name *bt_no_names(void)
{
    bt_fun_name *funs = enif_alloc(BT_FUNS_SIZE * sizeof *funs);

    if (funs != NULL)
        memset(funs, 0, BT_FUNS_SIZE * sizeof *funs);
    return funs;
}

static bool bt_name_fun(ErlNifEnv *env, bt_fun_name *funs, uint32_t *count, bt_term fun, bt_term name)
{
    bt_fun_id id;
    ErlNifBinary md5;
    const bt_term *e;
    uint32_t place;
    int arity;

    if (!enif_get_tuple(env, fun, &arity, &e) || arity != 6 || !bt_is_atom(e[0]) || !enif_get_uint(env, e[1], &id.index) ||
        !enif_get_uint(env, e[2], &id.unique) || !enif_get_uint(env, e[3], &id.old_index) ||
        !enif_get_uint(env, e[4], &id.arity) || !enif_inspect_binary(env, e[5], &md5) || md5.size != sizeof id.md5 ||
        bt_atom_word(name) == 0)
        return false;
    id.module = bt_atom_word(e[0]);
    memcpy(id.md5, md5.data, sizeof id.md5);
    place = bt_fun_place(funs, &id);
    if (funs[place].name == 0 && *count == BT_FUNS_MAX)
        return true;
    *count += funs[place].name == 0;
    funs[place].id = id;
    funs[place].name = bt_atom_word(name);
    return true;
}

/* name_fun(Trace, {Module, Index, Unique, OldIndex, Arity, Md5}, Name) -> ok. */
BT_NIF(trace_name_fun)
{
    bt_handle *handle;
    bt_trace *trace;

    BT_UNUSED;
    if (!bt_get_handle(env, argv[0], &handle))
        return enif_make_badarg(env);
    trace = handle->trace;
    if (trace->funs == NULL)
        trace->funs = bt_no_names();
    if (trace->funs == NULL || !bt_name_fun(env, trace->funs, &trace->fun_count, argv[1], argv[2]))
        return enif_make_badarg(env);
    return bt_atoms.ok;
}

/* readable(Term) -> boolean(): whether show/3 may look at the term. */
BT_NIF(readable)
{
    BT_UNUSED;
    (void)env;
    bt_probes_left = BT_PROBES;
    return bt_probe_contents(argv[0], bt_own.layout) ? bt_atoms.true_ : bt_atoms.false_;
}

/* show(Term, Contents, [{Fun, Name}]) -> binary() | {funs, [Fun]}: what would be shipped of a term. For the check, once the term has been found to be readable. */
BT_NIF(show)
{
    bt_fun_name *funs;
    bt_wanted_contents wanted;
    bt_contents *contents;
    bt_encoder e;
    bt_term list = argv[2];
    bt_term item;
    bt_term result;
    unsigned char *tokens;
    uint32_t count = 0;
    const bt_term *n;
    int arity;

    BT_UNUSED;
    if (!bt_get_contents(env, argv[1], &wanted))
        return enif_make_badarg(env);
    funs = bt_no_names();
    while (funs != NULL && enif_get_list_cell(env, list, &item, &list))
        if (enif_get_tuple(env, item, &arity, &n) && arity == 2)
            (void)bt_name_fun(env, funs, &count, n[0], n[1]);
    contents = enif_alloc(sizeof *contents + BT_CONTENTS_BYTES(wanted.max));
    if (contents == NULL || funs == NULL) {
        enif_free(contents);
        enif_free(funs);
        return enif_make_badarg(env);
    }
    memset(contents, 0, sizeof *contents);
    contents->bytes = BT_CONTENTS_BYTES(wanted.max);
    tokens = (unsigned char *)(contents + 1);
    bt_encoder_begin(&e, env, funs, count);
    if (!bt_set_contents(env, contents, &wanted) ||
        !bt_encode(&e, contents, tokens, bt_keep_term(contents, tokens, argv[0], bt_own.layout))) {
        result = enif_make_badarg(env);
    } else if (bt_is_nil(e.unknown)) {
        memcpy(enif_make_new_binary(env, e.used, &result), e.out, e.used);
    } else {
        result = enif_make_tuple2(env, bt_atoms.funs, e.unknown);
    }
    enif_free(e.out);
    enif_free(contents);
    enif_free(funs);
    return result;
}

#endif
