/// Integer arithmetic, as in shared_models/fixed.py. Right shifts of negative numbers are
/// arithmetic in GCC and Clang; left shifts of them are written as multiplications.
#ifndef NORIA_FIXED_H
#define NORIA_FIXED_H

#include <stdint.h>

#include "noria_shared.h"

static inline int32_t noria_min(int32_t a, int32_t b) { return a < b ? a : b; }

static inline int32_t noria_max(int32_t a, int32_t b) { return a > b ? a : b; }

static inline int32_t noria_clamp(int32_t value, int32_t low, int32_t high) {
    return value < low ? low : noria_min(value, high);
}

/// One step of an exponential average.
static inline int32_t noria_move_toward(int32_t value, int32_t target, int32_t gain_q10) {
    return value + ((target - value) * gain_q10 >> 10);
}

/// Days since 1970 that begin at 06:00 local.
static inline int32_t noria_day_number(uint32_t time_s, int16_t utc_offset_min) {
    return (int32_t)((time_s + (uint32_t)(utc_offset_min * 60) - NORIA_DAWN_S) / 86400u);
}

/// `now_s` - `then_s`, signed, so that a clock set back cannot wrap it.
static inline int32_t noria_elapsed_s(uint32_t now_s, uint32_t then_s) {
    return (int32_t)(now_s - then_s);
}

#endif
