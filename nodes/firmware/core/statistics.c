#include "statistics.h"

#include <string.h>

#include "bytes.h"
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
    core->probation_rival_energy = 0;
    core->probation_windows = 0;
    core->rival_known = 0;
}

void noria_statistics_reset_forecasts(noria_core_t *core) {
    memset(core->forecast_lead, 0, sizeof core->forecast_lead);
    memset(core->forecast_spread, 0, sizeof core->forecast_spread);
    memset(core->forecast_windows, 0, sizeof core->forecast_windows);
}

static int64_t clamp_wide(int64_t value, int64_t low, int64_t high) {
    return value < low ? low : value > high ? high : value;
}

/// The head's row for windows of class `k` in 1/2^14 steps per phi, the constant last.
static void row_of(const uint8_t *image, uint32_t k, int32_t row[NORIA_PHI]) {
    const uint8_t *head = image + NORIA_MODEL_HEAD_OFFSET;
    const uint8_t *bias = head + NORIA_LAYER_HEADER_BYTES;
    const uint8_t *weights = bias + 4 * NORIA_OUTPUTS + (k + 1) * NORIA_ACTIVATIONS;
    int64_t multiplier = noria_get_u32(head), half = INT64_C(1) << (16 - (int8_t)head[4]);
    for (uint32_t i = 0; i < NORIA_PHI; i++) {
        int32_t number =
            i < NORIA_ACTIVATIONS ? (int8_t)weights[i] : (int32_t)noria_get_u32(bias + 4 * (k + 1));
        row[i] = (int32_t)clamp_wide((number * multiplier + half) >> (17 - (int8_t)head[4]),
                                     -NORIA_ROW_LIMIT, NORIA_ROW_LIMIT);
    }
}

void noria_statistics_credit(noria_core_t *core, const uint8_t *image) {
    for (uint32_t k = 0; k < NORIA_CLASSES && core->count[k] >= NORIA_FORECAST_AFTER; k++) {
        const int32_t *gram = &core->gram[k * NORIA_TRIANGLE];
        const int32_t *moment = &core->moment[(k + 1) * NORIA_PHI];
        int32_t row[NORIA_PHI];
        int64_t along[NORIA_PHI] = {0}, square = 0, agreed = 0;
        row_of(image, k, row);
        for (uint32_t i = 0; i < NORIA_PHI; i++) {
            for (uint32_t j = i; j < NORIA_PHI; j++, gram++) {
                along[i] += (int64_t)*gram * row[j];
                if (j != i) {
                    along[j] += (int64_t)*gram * row[i];
                }
            }
        }
        for (uint32_t i = 0; i < NORIA_PHI; i++) {
            square += (along[i] >> 14) * row[i];
            agreed += (int64_t)row[i] * moment[i];
        }
        square = clamp_wide(square >> 14, 0, NORIA_MOST_SQUARE);
        core->forecast_lead[k] =
            (int32_t)clamp_wide((agreed >> 13) - square, -NORIA_MOST_SQUARE, NORIA_MOST_SQUARE);
        core->forecast_spread[k] = (uint32_t)clamp_wide(
            core->energy[k + 1] / core->count[k] * square >> (NORIA_SPREAD_SHIFT - 2), 0,
            NORIA_MOST_SQUARE);
        core->forecast_windows[k] = core->count[k];
    }
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

/// Running squared errors of the head, of the baseline, and of the model before, from the same
/// window.
static void compare(noria_core_t *core, int32_t uptake, int32_t drying) {
    uint32_t model =
        square(uptake - core->start_output[0]) + square(drying - core->start_output[1]);
    uint32_t baseline = square(uptake) + square(drying);
    if (core->probation_windows < NORIA_MAX_WINDOWS) {
        core->probation_model_energy += model;
        core->probation_baseline_energy += baseline;
        core->probation_rival_energy +=
            core->rival_known
                ? square(uptake - core->rival_output[0]) + square(drying - core->rival_output[1])
                : model;
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
    core->rival_known = 0;
    memmove(core->start_forecast + NORIA_CLASSES, core->start_forecast,
            sizeof core->start_forecast - NORIA_CLASSES);
    memcpy(core->start_forecast, core->outputs + 1, NORIA_CLASSES);
}

/// The snapshot ///

/// The root of `value`, rounded to nearest.
static uint32_t root_of(uint32_t value) {
    uint32_t root = 0;
    for (uint32_t bit = 1u << 30; bit > 0; bit >>= 2) {
        if (value >= root + bit) {
            value -= root + bit;
            root = (root >> 1) + bit;
        } else {
            root >>= 1;
        }
    }
    return value > root ? root + 1 : root;
}

typedef struct {
    uint8_t *out;
    uint32_t at; // bits so far
} writer_t;

/// Appends the lowest `width` bits of `code`, low one first.
static void put(writer_t *writer, uint32_t code, uint32_t width) {
    for (; width > 0; width--, writer->at++, code >>= 1) {
        uint8_t *byte = &writer->out[writer->at >> 3];
        *byte = (uint8_t)(*byte | (code & 1u) << (writer->at & 7u));
    }
}

/// Writes the root of a sum of squares in quarters, seven significant bits of it, and returns it.
static uint32_t put_root(writer_t *writer, int32_t sum) {
    uint32_t root = root_of((uint32_t)sum << 4), shift = 0;
    while ((root + (1u << shift >> 1)) >> shift > 127) {
        shift++;
    }
    uint32_t mantissa = (root + (1u << shift >> 1)) >> shift;
    put(writer, (shift << 6) + mantissa, NORIA_ROOT_BITS);
    return mantissa << shift;
}

/// `value` over the product of two roots in 1/1024, at most 2047; 0 where there is no product.
static uint32_t ratio_q10(uint32_t value, uint32_t product) {
    if (product == 0) {
        return 0;
    }
    uint32_t ratio = 0, rest = value << 4;
    if (rest >= product) {
        rest -= product;
        if (rest >= product) {
            return 2047;
        }
        ratio = 1;
    }
    for (uint32_t i = 0; i < 10; i++) {
        uint32_t carried = rest >> 31;
        rest <<= 1;
        ratio <<= 1;
        if (carried || rest >= product) {
            rest -= product;
            ratio |= 1;
        }
    }
    return ratio;
}

/// The product of two roots in sixteenths; the constant's root is in 1/64, the others in quarters.
static uint32_t product_of(const uint32_t roots[NORIA_PHI], uint32_t i, uint32_t other) {
    return i == NORIA_ACTIVATIONS ? roots[i] * other >> 4 : roots[i] * other;
}

/// A above its diagonal relative to the roots, row by row; NO_RATIO where there is nothing.
enum { NO_RATIO = -1, MOST_RATIO = (1 << NORIA_RATIO_BITS) - 1 };

static void find_ratios(const int32_t *gram, const uint32_t roots[NORIA_PHI],
                        int16_t ratios[NORIA_PAIRS]) {
    for (uint32_t i = 0; i < NORIA_ACTIVATIONS; i++) {
        gram++; // the diagonal's
        for (uint32_t j = i + 1; j < NORIA_PHI; j++, gram++) {
            uint32_t product = product_of(roots, j, roots[i]);
            int32_t ratio = (int32_t)((ratio_q10((uint32_t)*gram, product) * 125 + 128) >> 8);
            *ratios++ = (int16_t)(product ? noria_min(ratio, MOST_RATIO) : NO_RATIO);
        }
    }
}

/// By how much a longer window's ratios exceed a day's, all with one shift.
static void put_excess(writer_t *writer, const int16_t ratios[NORIA_PAIRS],
                       const int16_t day[NORIA_PAIRS]) {
    int32_t excess[NORIA_PAIRS], largest = 0, shift = 0;
    for (uint32_t p = 0; p < NORIA_PAIRS; p++) {
        excess[p] = ratios[p] == NO_RATIO ? 0 : ratios[p] - noria_max(day[p], 0);
        largest = noria_max(largest, excess[p] < 0 ? -excess[p] : excess[p]);
    }
    while ((largest + (1 << shift >> 1)) >> shift >= 1 << (NORIA_EXCESS_BITS - 1)) {
        shift++;
    }
    put(writer, (uint32_t)shift, NORIA_SHIFT_BITS);
    for (uint32_t p = 0; p < NORIA_PAIRS; p++) {
        int32_t size = excess[p] < 0 ? -excess[p] : excess[p];
        size = (size + (1 << shift >> 1)) >> shift;
        put(writer, (uint32_t)(excess[p] < 0 ? -size : size), NORIA_EXCESS_BITS);
    }
}

static void put_moment(writer_t *writer, int32_t value, uint32_t product) {
    uint32_t size = value < 0 ? (uint32_t)-value : (uint32_t)value;
    int32_t code = noria_min((int32_t)((ratio_q10(size, product) * 125 + 256) >> 9),
                             (1 << (NORIA_RATIO_BITS - 1)) - 1);
    put(writer, (uint32_t)(value < 0 ? -code : code), NORIA_RATIO_BITS);
}

void noria_statistics_encode(const noria_core_t *core, uint8_t out[NORIA_SNAPSHOT_BYTES]) {
    uint32_t roots[NORIA_CLASSES][NORIA_PHI], energies[NORIA_TARGETS];
    int16_t day[NORIA_PAIRS], longer[NORIA_PAIRS];
    writer_t writer = {.out = out};
    memset(out, 0, NORIA_SNAPSHOT_BYTES);
    put(&writer, NORIA_SNAPSHOT_VERSION, NORIA_VERSION_BITS);
    for (uint32_t k = 0; k < NORIA_CLASSES; k++) {
        put(&writer, core->count[k], NORIA_COUNT_BITS);
    }
    for (uint32_t k = 0; k < NORIA_CLASSES; k++) {
        const int32_t *diagonal = &core->gram[k * NORIA_TRIANGLE];
        for (uint32_t i = 0; i < NORIA_ACTIVATIONS; i++) {
            roots[k][i] = put_root(&writer, *diagonal);
            diagonal += NORIA_PHI - i;
        }
        roots[k][NORIA_ACTIVATIONS] = root_of((uint32_t)core->count[k] << 12);
    }
    for (uint32_t t = 0; t < NORIA_TARGETS; t++) {
        energies[t] = put_root(&writer, core->energy[t]);
    }
    find_ratios(core->gram, roots[0], day);
    for (uint32_t p = 0; p < NORIA_PAIRS; p++) {
        put(&writer, (uint32_t)noria_max(day[p], 0), NORIA_RATIO_BITS);
    }
    for (uint32_t k = 1; k < NORIA_CLASSES; k++) {
        find_ratios(&core->gram[k * NORIA_TRIANGLE], roots[k], longer);
        put_excess(&writer, longer, day);
    }
    for (uint32_t t = 0; t < NORIA_TARGETS; t++) {
        for (uint32_t i = 0; i < NORIA_PHI; i++) {
            uint32_t product = product_of(roots[target_class[t]], i, energies[t]);
            put_moment(&writer, core->moment[t * NORIA_PHI + i], product);
        }
    }
}
