#include "plausibility.h"

#include <stdbool.h>

#include "fixed.h"

/// The telemetry flag of a sensor at fault.
static uint8_t fault_bit(uint32_t sensor) { return (uint8_t)(2u << sensor); }

/// Whether a sensor has neither a fault nor a beginning of one.
static bool is_sound(const noria_core_t *core, uint32_t sensor) {
    return core->bad_wakes[sensor] == 0 && !(core->faults & fault_bit(sensor));
}

/// Counts towards a fault or a recovery.
static void judge(noria_core_t *core, uint32_t sensor, bool plausible) {
    uint8_t bit = fault_bit(sensor);
    if (plausible) {
        if (core->bad_wakes[sensor] > 0) {
            core->bad_wakes[sensor]--;
        }
        if (core->faults & bit) {
            core->good_wakes[sensor]++;
            if (core->good_wakes[sensor] >= NORIA_GOOD_WAKES) {
                core->faults = (uint8_t)(core->faults & ~bit);
                core->bad_wakes[sensor] = 0;
            }
        }
    } else {
        core->good_wakes[sensor] = 0;
        core->bad_wakes[sensor] = (uint8_t)noria_min(core->bad_wakes[sensor] + NORIA_BAD_WEIGHT,
                                                     NORIA_BAD_WAKES * NORIA_BAD_WEIGHT);
        if (core->bad_wakes[sensor] >= NORIA_BAD_WAKES * NORIA_BAD_WEIGHT) {
            core->faults |= bit;
        }
    }
}

static bool probe_in_range(int32_t value) {
    return value >= NORIA_PROBE_LOW_E4 && value <= NORIA_PROBE_HIGH_E4;
}

static void check_probe(noria_core_t *core, uint32_t probe, int16_t value) {
    int32_t last = core->probe_last_e4[probe];
    if (value != last) {
        core->same_wakes[probe] = 0;
    } else if (core->same_wakes[probe] < NORIA_STUCK_WAKES) {
        core->same_wakes[probe]++;
    }
    bool plausible = probe_in_range(value) && core->same_wakes[probe] < NORIA_STUCK_WAKES;
    if (plausible && probe_in_range(last) && last - value > NORIA_PROBE_FALL_E4) {
        plausible = false;
    }
    core->probe_last_e4[probe] = value;
    if (plausible) {
        int32_t smooth = core->probe_q4[probe];
        core->probe_q4[probe] = smooth == NORIA_NO_VALUE
                                    ? value * 16
                                    : smooth + ((value * 16 - smooth) >> NORIA_SMOOTHING_SHIFT);
    }
    if (plausible && is_sound(core, probe)) {
        return;
    }
    judge(core, probe, plausible);
    if (core->faults & fault_bit(probe)) {
        core->probe_q4[probe] = NORIA_NO_VALUE;
    }
}

void noria_check_probes(noria_core_t *core, const noria_reading_t *reading) {
    check_probe(core, NORIA_SENSOR_SHALLOW, reading->vwc_shallow_e4);
    check_probe(core, NORIA_SENSOR_DEEP, reading->vwc_deep_e4);
}

void noria_check_battery(noria_core_t *core, int16_t battery_mv) {
    if (battery_mv == NORIA_NO_VALUE) {
        return;
    }
    if (battery_mv < NORIA_BATTERY_LOW_MV) {
        core->battery_low = 1;
    } else if (battery_mv >= NORIA_BATTERY_GOOD_MV) {
        core->battery_low = 0;
    }
}

void noria_check_agreement(noria_core_t *core) {
    if (!core->started || !core->anchored || !core->probes_used) {
        return;
    }
    int32_t apart = core->innovation_q10 < 0 ? -core->innovation_q10 : core->innovation_q10;
    bool contrary =
        core->disagreeing ? apart < NORIA_CONTRARY_Q10 >> 1 : apart > NORIA_CONTRARY_Q10;
    core->contrary_dawns = contrary ? (uint8_t)(core->contrary_dawns + 1) : 0;
    if (core->contrary_dawns >= NORIA_CONTRARY_DAWNS) {
        core->contrary_dawns = 0;
        core->disagreeing ^= 1;
    }
}

static bool temperature_in_range(int16_t value_c100) {
    return value_c100 >= NORIA_TEMPERATURE_LOW_C100 && value_c100 <= NORIA_TEMPERATURE_HIGH_C100;
}

static void note(noria_core_t *core, uint32_t sensor, bool plausible) {
    if (!plausible || !is_sound(core, sensor)) {
        judge(core, sensor, plausible);
    }
}

void noria_add_air_and_light(noria_core_t *core, const noria_reading_t *reading,
                             uint32_t factor_q12) {
    bool plausible = temperature_in_range(reading->soil_temp_c100);
    if (plausible && core->soil_count < NORIA_MAX_DAY_WAKES) {
        core->soil_sum += reading->soil_temp_c100;
        core->soil_count++;
    }
    note(core, NORIA_SENSOR_SOIL, plausible);

    int16_t air = reading->air_temp_c100;
    plausible = temperature_in_range(air);
    if (plausible) {
        if (!core->air_seen) {
            core->air_seen = 1;
            core->air_low_c100 = core->air_high_c100 = air;
        } else if (air < core->air_low_c100) {
            core->air_low_c100 = air;
        } else if (air > core->air_high_c100) {
            core->air_high_c100 = air;
        }
    }
    note(core, NORIA_SENSOR_AIR, plausible);

    if (reading->rh_e2 >= 0 && reading->rh_e2 <= 10000 &&
        core->humidity_count < NORIA_MAX_DAY_WAKES) {
        core->humidity_sum += reading->rh_e2;
        core->humidity_count++;
    }

    int16_t light = reading->light_w_m2;
    plausible = light >= 0 && light <= NORIA_LIGHT_HIGH_W_M2;
    if (plausible && core->light_count < NORIA_MAX_DAY_WAKES) {
        uint32_t watts = (uint16_t)light;
        core->light_sum += watts;
        core->uptake_sum += watts * factor_q12;
        core->light_count++;
    }
    note(core, NORIA_SENSOR_LIGHT, plausible);
}
