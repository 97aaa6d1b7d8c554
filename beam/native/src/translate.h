/*
 * From the VM's own words of local processes and ports to the words of a slot. What a VM stores is no plain number: it holds an index into the
 * process table whose bits are permuted by the table's size. The permutation is learned from terms with a single bit set
 * (beamtrace_native_check.erl) and applied when draining, by table, a byte at a time.
 */
#ifndef BEAMTRACE_TRANSLATE_H
#define BEAMTRACE_TRANSLATE_H

#include "terms.h"

typedef struct {
    uint64_t bytes[8][256];
    uint64_t upper; /* which of the bits above the 32nd matter */
} bt_translation;

static bt_translation bt_pids;
static bt_translation bt_ports;

/* The lowest of the bits in `set` says that the result has the bits of `to`. */
static inline void bt_learn(bt_translation *table, uint64_t set, uint64_t to)
{
    unsigned bit = (unsigned)__builtin_ctzll(set) - 4;

    for (unsigned value = 0; value < 256; value++)
        if (value >> bit % 8 & 1)
            table->bytes[bit / 8][value] |= to;
    if (bit >= 32)
        table->upper |= UINT64_C(1) << (bit - 32);
}

/* Without the tag. */
static inline uint64_t bt_translated(const bt_translation *table, uint64_t word)
{
    uint64_t data = word >> 4;
    uint64_t upper = data >> 32 & table->upper;
    uint64_t result = table->bytes[0][data & 0xff] | table->bytes[1][data >> 8 & 0xff] |
                      table->bytes[2][data >> 16 & 0xff] | table->bytes[3][data >> 24 & 0xff];

    for (unsigned i = 4; upper != 0; i++, upper >>= 8)
        result |= table->bytes[i][upper & 0xff];
    return result;
}

/* Two words of a slot, in place; anything but a local process or port stays as it is. */
static inline void bt_translate(uint32_t *words)
{
    uint64_t word = words[0] | (uint64_t)words[1] << 32;
    uint64_t result;

    if (bt_is_local_pid(word))
        result = bt_translated(&bt_pids, word) | BT_IDENTITY_PID;
    else if (bt_is_local_port(word))
        result = bt_translated(&bt_ports, word) | BT_IDENTITY_PORT;
    else
        return;
    words[0] = (uint32_t)result;
    words[1] = (uint32_t)(result >> 32);
}

#endif
