#include "statistics.h"

#include <string.h>

#include "fixed.h"

static const uint8_t target_class[NORIA_TARGETS] = {NORIA_TARGET_CLASS};

void noria_statistics_reset(noria_core_t *core) {
    memset(core->gram, 0, sizeof core->gram);
    memset(core->moment, 0, sizeof core->moment);
    memset(core->energy, 0, sizeof core->energy);
    memset(core->count, 0, sizeof core->count);
    memset(core->start_known, 0, sizeof core->start_known);
    memset(core->calm, 0, sizeof core->calm);
}

void noria_statistics_reset_trust(noria_core_t *core) {
    core->model_energy = core->baseline_energy = 0;
    core->trust_windows = 0;
    core->distrusted = 0;
    core->probation_model_energy = core->probation_baseline_energy = 0;
    core->probation_windows = 0;
    memset(core->forecast_lead, 0, sizeof core->forecast_lead);
    memset(core->forecast_spread, 0, sizeof core->forecast_spread);
    memset(core->forecast_windows, 0, sizeof core->forecast_windows);
}

bool noria_statistics_forecasts_better(const noria_core_t *core, uint32_t k) {
    int64_t lead = core->forecast_lead[k];
    return core->forecast_windows[k] >= NORIA_FORECAST_AFTER && lead > 0 &&
           (lead * lead) >> NORIA_SPREAD_SHIFT > (int64_t)(k + 1) * core->forecast_spread[k];
}

/// Windows ///

static uint32_t square(int32_t value) { return (uint32_t)(value * value); }

static uint32_t running(uint32_t average_q4, uint32_t value) {
    int32_t step = ((int32_t)(value << 4) - (int32_t)average_q4) >> 4;
    return (uint32_t)((int32_t)average_q4 + step);
}

/// Running squared errors of the head and of the baseline, from the same window.
static void compare(noria_core_t *core, int32_t uptake, int32_t drying) {
    uint32_t model =
        square(uptake - core->start_output[0]) + square(drying - core->start_output[1]);
    uint32_t baseline = square(uptake) + square(drying);
    if (core->probation_windows < NORIA_MAX_WINDOWS) {
        core->probation_model_energy += model;
        core->probation_baseline_energy += baseline;
        core->probation_windows++;
    }
    core->model_energy = running(core->model_energy, model);
    core->baseline_energy = running(core->baseline_energy, baseline);
    if (core->trust_windows < NORIA_TRUST_AFTER) {
        core->trust_windows++;
    } else if (core->distrusted) {
        core->distrusted = core->model_energy >= core->baseline_energy;
    } else {
        core->distrusted =
            core->model_energy > core->baseline_energy + (core->baseline_energy >> 3);
    }
}

/// By how much the head's squared error was below the average's over the window that ended.
static void score_forecast(noria_core_t *core, uint32_t k, int32_t drying) {
    uint32_t average = square(drying);
    uint32_t model = square(drying - core->start_forecast[k * NORIA_CLASSES + k]);
    int32_t lead = (int32_t)average - (int32_t)model;
    uint32_t size = lead < 0 ? model - average : (uint32_t)lead; // its square needs all 32 bits
    core->forecast_lead[k] += lead - (core->forecast_lead[k] >> NORIA_RECORD_SHIFT);
    core->forecast_spread[k] -= core->forecast_spread[k] >> NORIA_RECORD_SHIFT;
    core->forecast_spread[k] += size * size >> NORIA_SPREAD_SHIFT;
    if (core->forecast_windows[k] < NORIA_MAX_WINDOWS) {
        core->forecast_windows[k]++;
    }
}

/// Adds one window of class `k`.
static void add(noria_core_t *core, uint32_t k, int32_t uptake, int32_t drying) {
    int32_t phi[NORIA_PHI];
    for (uint32_t i = 0; i < NORIA_ACTIVATIONS; i++) {
        phi[i] = core->start_phi[k * NORIA_ACTIVATIONS + i];
    }
    phi[NORIA_ACTIVATIONS] = 1;
    int32_t *gram = &core->gram[k * NORIA_TRIANGLE];
    for (uint32_t i = 0; i < NORIA_PHI; i++) {
        for (uint32_t j = i; j < NORIA_PHI; j++) {
            *gram++ += phi[i] * phi[j];
        }
    }
    core->count[k]++;
    for (uint32_t target = 0; target < NORIA_TARGETS; target++) {
        if (target_class[target] != k) {
            continue;
        }
        int32_t y = target == 0 ? uptake : drying;
        for (uint32_t i = 0; i < NORIA_PHI; i++) {
            core->moment[target * NORIA_PHI + i] += phi[i] * y;
        }
        core->energy[target] += y * y;
    }
}

void noria_statistics_finish(noria_core_t *core, int32_t days, const noria_day_t *day) {
    if (days == 1) {
        core->calm[2] = core->calm[1];
        core->calm[1] = core->calm[0];
        core->calm[0] = day->calm;
    } else {
        memset(core->calm, 0, sizeof core->calm);
        memset(core->start_known, 0, sizeof core->start_known);
    }
    if (!day->calm || day->mean_e4 == NORIA_NO_VALUE) {
        return;
    }
    for (uint32_t k = 0; k < NORIA_CLASSES && core->calm[k]; k++) {
        if (!core->start_known[k] || core->count[k] >= NORIA_MAX_WINDOWS) {
            continue;
        }
        int32_t began = (core->dawn_e4[k + 1] + core->dawn_e4[NORIA_DAWNS + k + 1]) >> 1;
        int32_t rate = (core->start_rate_q4[k] + 8) >> 4;
        int32_t drying = noria_clamp((day->mean_e4 - began) / (int32_t)(k + 1) + rate,
                                     -NORIA_DRYING_LIMIT, NORIA_DRYING_LIMIT);
        if (k == 0) {
            compare(core, day->uptake, drying);
        }
        score_forecast(core, k, drying);
        add(core, k, day->uptake, drying);
    }
}

void noria_statistics_begin(noria_core_t *core, int8_t zero, bool known) {
    for (uint32_t k = NORIA_CLASSES - 1; k > 0; k--) {
        core->start_rate_q4[k] = core->start_rate_q4[k - 1];
        core->start_known[k] = core->start_known[k - 1];
    }
    memmove(core->start_phi + NORIA_ACTIVATIONS, core->start_phi,
            sizeof core->start_phi - NORIA_ACTIVATIONS);
    core->start_rate_q4[0] = (int16_t)core->dry_rate_q4;
    core->start_known[0] = known;
    for (uint32_t i = 0; i < NORIA_ACTIVATIONS; i++) {
        core->start_phi[i] = (uint8_t)(core->activations[i] - zero);
    }
    core->start_output[0] = core->outputs[0];
    core->start_output[1] = core->outputs[1];
    memmove(core->start_forecast + NORIA_CLASSES, core->start_forecast,
            sizeof core->start_forecast - NORIA_CLASSES);
    memcpy(core->start_forecast, core->outputs + 1, NORIA_CLASSES);
}

/// The snapshot ///

/// The smallest e from -EXPONENT_BIAS with `value` < 2^(bits + 2e).
static int32_t exponent(int32_t value, int32_t bits) {
    int32_t e = -NORIA_EXPONENT_BIAS;
    while (value >> (bits + 2 * e)) {
        e++;
    }
    return e;
}

/// `value` / 2^`shift`, rounded to nearest.
static int32_t scaled(int32_t value, int32_t shift) {
    return shift < 0 ? value * (1 << -shift) : (value + ((1 << shift) >> 1)) >> shift;
}

/// Appends `count` nibbles of `value`, low one first, at nibble `at`; returns where the next goes.
static uint32_t put(uint8_t *out, uint32_t at, uint32_t value, uint32_t count) {
    for (; count > 0; count--, at++, value >>= 4) {
        out[at >> 1] = (uint8_t)(out[at >> 1] | (value & 15u) << (4 * (at & 1u)));
    }
    return at;
}

void noria_statistics_encode(const noria_core_t *core, uint8_t out[NORIA_SNAPSHOT_BYTES]) {
    int8_t e[NORIA_CLASSES * NORIA_PHI], f[NORIA_TARGETS];
    memset(out, 0, NORIA_SNAPSHOT_BYTES);
    out[0] = NORIA_SNAPSHOT_VERSION;
    uint32_t at = 2;
    for (uint32_t k = 0, n = 0; k < NORIA_CLASSES; k++) {
        const int32_t *diagonal = &core->gram[k * NORIA_TRIANGLE];
        for (uint32_t i = 0; i < NORIA_PHI; i++, n++) {
            e[n] = (int8_t)exponent(*diagonal, 12);
            at = put(out, at, (uint32_t)(e[n] + NORIA_EXPONENT_BIAS), 1);
            diagonal += NORIA_PHI - i;
        }
    }
    for (uint32_t t = 0; t < NORIA_TARGETS; t++) {
        f[t] = (int8_t)exponent(core->energy[t], 10);
        at = put(out, at, (uint32_t)(f[t] + NORIA_EXPONENT_BIAS), 1);
    }
    const int32_t *gram = core->gram;
    for (uint32_t k = 0; k < NORIA_CLASSES; k++) {
        const int8_t *ek = &e[k * NORIA_PHI];
        for (uint32_t i = 0; i < NORIA_PHI; i++) {
            for (uint32_t j = i; j < NORIA_PHI; j++) {
                int32_t code = noria_min(scaled(*gram++, ek[i] + ek[j]), 4095);
                at = put(out, at, (uint32_t)code, 3);
            }
        }
    }
    for (uint32_t t = 0; t < NORIA_TARGETS; t++) {
        const int8_t *ek = &e[target_class[t] * NORIA_PHI];
        for (uint32_t i = 0; i < NORIA_PHI; i++) {
            int32_t code = scaled(core->moment[t * NORIA_PHI + i], ek[i] + f[t]);
            at = put(out, at, (uint32_t)noria_clamp(code, -2047, 2047) & 0xFFFu, 3);
        }
    }
    for (uint32_t t = 0; t < NORIA_TARGETS; t++) {
        int32_t code = scaled(core->energy[t], 2 * f[t] - 2);
        at = put(out, at, (uint32_t)noria_min(code, 4095), 3);
    }
}
