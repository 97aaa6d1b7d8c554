/* 12-bit floats (exponent:5, mantissa:7), rounded up: src/buffer/minifloat.ts. */
#ifndef BEAMTRACE_MINIFLOAT_H
#define BEAMTRACE_MINIFLOAT_H

#include <stdint.h>

static inline uint32_t bt_minifloat(uint64_t value)
{
    uint32_t exponent = 1;
    uint64_t rest = 0;

    if (value >= UINT64_C(255) << 30)
        return 0xfff;
    if (value <= 127)
        return (uint32_t)value;
    while (value > 255 || (value == 255 && rest != 0)) {
        rest |= value & 1;
        value >>= 1;
        exponent++;
    }
    if (rest != 0)
        value++;
    return exponent << 7 | (uint32_t)(value - 128);
}

#endif
