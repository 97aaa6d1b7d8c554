/*
 * Checks on what a manager has drained: no record is torn, each process's events come in order, contents are terms that end where they should.
 */
#ifndef BEAMTRACE_STRESS_SEEN_H
#define BEAMTRACE_STRESS_SEEN_H

typedef struct {
    uint32_t id;
    uint32_t number;
} seen_event;

typedef struct {
    int place;
    ErlNifEnv env;
    uint64_t seed;
    term trace;
    uint64_t delivered, lost, frames;
    seen_event *seen; /* by process: the last event's number */
    bool contents;
} manager;

#define SEEN (1u << 16)

/* The records that this thread sorts. */
static _Thread_local const double *sorting;

/* Records of one ring with the same stamp stay in their order, as with the client; not every C library's qsort is stable. */
static int by_stamp(const void *a, const void *b)
{
    uint32_t i = *(const uint32_t *)a;
    uint32_t j = *(const uint32_t *)b;
    double x = sorting[i * (BT_SLOT_WORDS / 2) + BT_SLOT_TIMESTAMP / 2];
    double y = sorting[j * (BT_SLOT_WORDS / 2) + BT_SLOT_TIMESTAMP / 2];

    return x != y ? (x < y ? -1 : 1) : (i > j) - (i < j);
}

static void check(manager *m, const uint32_t *w)
{
    uint32_t kind = w[BT_SLOT_HEAD] & 0xff;
    uint32_t id = w[BT_SLOT_TRACEE_LOW] >> 4;
    seen_event *seen = &m->seen[id % SEEN];

    if ((w[BT_SLOT_TRACEE_LOW] & 0xf) != BT_IDENTITY_PID || w[BT_SLOT_TRACEE_HIGH] != 0)
        fail("a record without a process");
    switch (kind) {
    case BT_KIND_MARKER:
        if (w[BT_SLOT_TAG1] == 0 || w[BT_SLOT_FLAGS] != BT_FLAG_NUMBERS)
            fail("a torn marker");
        break;
    case BT_KIND_GC_MINOR_START:
        if (seen->id == id && w[9] <= seen->number)
            fail("events of a process out of order");
        *seen = (seen_event){id, w[9]};
        break;
    case BT_KIND_FUNCTION_ENTRY:
    case BT_KIND_FUNCTION_RETURN:
    case BT_KIND_FUNCTION_TAIL_CALL:
        if (w[BT_FRAME_MODULE] != a_m || (w[BT_FRAME_ID_LOW] & 1) != 0 || (w[BT_FRAME_ID_LOW] | w[BT_FRAME_ID_HIGH]) == 0)
            fail("a torn frame");
        if (kind == BT_KIND_FUNCTION_ENTRY && (w[BT_SLOT_SHAPE] != (BT_SHAPE_ARGS | 2 << 4) || w[BT_SLOT_TAG1] != a_f))
            fail("a torn entry");
        if (seen->id == id && w[BT_FRAME_SITE] <= seen->number)
            fail("frames of a process out of order");
        *seen = (seen_event){id, w[BT_FRAME_SITE]};
        m->frames++;
        break;
    case BT_KIND_SEND:
        if (w[BT_SLOT_SHAPE] != (BT_SHAPE_TUPLE | 4 << 4) || w[BT_SLOT_TAG1] != a_m || w[BT_SLOT_TAG2] != a_f)
            fail("a torn send");
        break;
    case BT_KIND_RECEIVE:
        if (w[BT_SLOT_SHAPE] != (BT_SHAPE_MAP | 1 << 4))
            fail("a torn receive");
        break;
    case BT_KIND_EXIT:
        if (w[BT_SLOT_SHAPE] != BT_SHAPE_ATOM || w[BT_SLOT_TAG1] != a_m)
            fail("a torn exit");
        break;
    case BT_KIND_SPAWNED:
        if (w[BT_RAW_SPAWN_MODULE] != a_m || w[BT_RAW_SPAWN_FUNCTION] != a_f)
            fail("a torn spawned");
        break;
    default:
        fail("a record of no kind that was made");
    }
}

static uint32_t big_endian(const unsigned char *at) { return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3]; }

/* Where the external term at `at` ends; fails when it does not, before `end`. The bytes of a binary are all the same. */
static const unsigned char *end_of(const unsigned char *at, const unsigned char *end)
{
    uint32_t count;

    if (end - at < 1 || (end - at < 2 && *at != 106))
        fail("a content that is cut off");
    switch (*at) {
    case 97:
        at += 2;
        break;
    case 98:
        at += 5;
        break;
    case 106:
        at += 1;
        break;
    case 110:
        at += 3 + at[1];
        break;
    case 119:
        at += 2 + at[1];
        break;
    case 109:
        count = end - at < 5 ? UINT32_MAX : big_endian(at + 1);
        if (count > LONGEST || end - at < 5 + (ptrdiff_t)count)
            fail("a binary that is longer than what was kept");
        for (uint32_t i = 1; i < count; i++)
            if (at[5 + i] != at[5])
                fail("a torn content");
        at += 5 + count;
        break;
    case 104:
    case 108:
    case 116:
        if (end - at < (*at == 104 ? 2 : 5))
            fail("a container that is cut off");
        count = *at == 104 ? at[1] : *at == 108 ? big_endian(at + 1) + 1 : 2 * big_endian(at + 1);
        at += *at == 104 ? 2 : 5;
        for (uint32_t i = 0; i < count; i++)
            at = end_of(at, end);
        break;
    default:
        fail("a content of no kind that was made");
    }
    if (at > end)
        fail("a content that goes beyond its end");
    return at;
}

static void check_content(const unsigned char *at, uint32_t size)
{
    if (size < 2 || at[0] != 131 || end_of(at + 1, at + size) != at + size)
        fail("a content that is no term");
}

/* The records that came, ready to be looked at: where contents are kept these are another binary, of events alone. */
static term finished(manager *m, term records)
{
    const term *e;
    const uint64_t *events;
    const unsigned char *at;
    uint64_t left;
    int arity;

    if (!m->contents)
        return records;
    if (!enif_get_tuple(&m->env, f.contents(&m->env, 2, (term[]){m->trace, records}), &arity, &e) || arity != 3)
        fail("contents refuses");
    events = vm_box(e[0]);
    at = (const unsigned char *)(vm_box(e[1]) + 2);
    left = vm_box(e[1])[1];
    for (uint64_t i = 0; i < events[1] / BT_SLOT_BYTES; i++) {
        const uint32_t *w = (const uint32_t *)(events + 2) + i * BT_SLOT_WORDS;
        uint32_t kind = w[BT_SLOT_HEAD] & 0xff;
        uint32_t size;

        bool has = kind == BT_KIND_SEND || kind == BT_KIND_RECEIVE || kind == BT_KIND_EXIT || kind == BT_KIND_FUNCTION_ENTRY ||
                   kind == BT_KIND_FUNCTION_RETURN;

        if (has != (w[BT_SLOT_FLAGS] & BT_FLAG_PAYLOAD))
            fail("contents that are missing, or of nothing");
        if (!(w[BT_SLOT_FLAGS] & BT_FLAG_PAYLOAD))
            continue;
        memcpy(&size, at, sizeof size);
        if (left < sizeof size || left - sizeof size < size)
            fail("contents that are too short");
        check_content(at + sizeof size, size);
        at += sizeof size + size;
        left -= sizeof size + size;
        atomic_fetch_add_explicit(&contents_in_all, 1, memory_order_relaxed);
    }
    if (left != 0)
        fail("contents of nothing");
    return e[0];
}

static void check_sorted(manager *m, const uint64_t *records, uint64_t count)
{
    uint32_t *order = malloc((count + 1) * sizeof *order);

    if (order == NULL)
        fail("no memory");
    for (uint32_t i = 0; i < count; i++)
        order[i] = i;
    sorting = (const double *)(const void *)records;
    qsort(order, count, sizeof *order, by_stamp);
    for (uint64_t i = 0; i < count; i++)
        check(m, (const uint32_t *)records + order[i] * BT_SLOT_WORDS);
    free(order);
}

#endif
