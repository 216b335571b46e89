#include "balance.h"

#include "agronomy.h"
#include "fixed.h"

int32_t noria_days_planted(const noria_core_t *core, const noria_settings_t *settings) {
    return core->day - noria_day_number(settings->planting_time_s, settings->utc_offset_min);
}

int32_t noria_balance_taw_um(const noria_core_t *core) {
    return noria_total_available_um(core->awc_e4, core->root_depth_mm);
}

/// Closing the day's sums ///

static void close_air(noria_core_t *core) {
    if (core->air_seen) {
        core->air_mean_c100 = (int16_t)((core->air_low_c100 + core->air_high_c100) >> 1);
        core->air_range_c100 = (int16_t)(core->air_high_c100 - core->air_low_c100);
    }
    core->soil_mean_c100 = core->air_mean_c100;
    if (core->soil_count) {
        core->soil_mean_c100 = (int16_t)(core->soil_sum / core->soil_count);
    }
    if (core->humidity_count) {
        core->humidity_mean_e2 = (int16_t)(core->humidity_sum / core->humidity_count);
    }
    core->humidity_average_e2 =
        (int16_t)noria_move_toward(core->humidity_average_e2, core->humidity_mean_e2, 410);
}

/// Shifts the dawn readings and adds today's.
static void push_dawn(noria_core_t *core, int32_t days) {
    int32_t shift = noria_min(days, NORIA_DAWNS);
    core->probes_used = 0;
    for (uint32_t probe = 0; probe < 2; probe++) {
        int16_t *dawn = &core->dawn_e4[probe * NORIA_DAWNS];
        for (int32_t i = NORIA_DAWNS - 1; i > 0; i--) {
            dawn[i] = i >= shift ? dawn[i - shift] : NORIA_NO_VALUE;
        }
        dawn[0] = NORIA_NO_VALUE;
        if (core->probe_q4[probe] != NORIA_NO_VALUE) {
            dawn[0] = (int16_t)((core->probe_q4[probe] + 8) >> 4);
            core->probes_used = (uint8_t)(core->probes_used | 1u << probe);
        }
    }
}

/// ET0 of the day, or the running average where light is not known.
static void close_light(noria_core_t *core) {
    if (core->light_count >= NORIA_LIGHT_WAKES) {
        int32_t light_q4 = (int32_t)(core->light_sum * 16u / core->light_count);
        if (light_q4 >= NORIA_DARK_Q4_W_M2) {
            core->light_mean_q4 = (int16_t)light_q4;
            core->et0_um = noria_reference_et_um(core->air_mean_c100, light_q4);
            core->et0_average_um = noria_move_toward(core->et0_average_um, core->et0_um, 410);
            return;
        }
    }
    core->et0_um = core->et0_average_um;
}

static void clear_day(noria_core_t *core) {
    core->light_sum = core->uptake_sum = 0;
    core->humidity_sum = core->soil_sum = 0;
    core->light_count = core->humidity_count = core->soil_count = 0;
    core->air_seen = 0;
    core->dose_today_um = 0;
}

/// The drained upper limit ///

static int32_t available_capacity_e4(const noria_core_t *core, const noria_settings_t *settings) {
    int32_t shallow = core->upper_limit_e4[0], deep = core->upper_limit_e4[1];
    if (settings->awc_prior_permille) {
        return settings->awc_prior_permille * 10;
    }
    if (shallow != NORIA_NO_VALUE && deep != NORIA_NO_VALUE) {
        return (shallow + deep) >> 2;
    }
    if (shallow != NORIA_NO_VALUE) {
        return shallow >> 1;
    }
    return deep != NORIA_NO_VALUE ? deep >> 1 : NORIA_AWC_DEFAULT_E4;
}

/// Takes the commissioning's drained readings into the anchor, unless this season's soil was never
/// filled.
static bool anchor_after_soak(noria_core_t *core) {
    int32_t drained[2], change[2];
    for (uint32_t probe = 0; probe < 2; probe++) {
        drained[probe] = core->anchor_sum[probe] / core->anchor_count;
        change[probe] = drained[probe] - core->upper_limit_e4[probe];
    }
    if (!core->anchored || noria_max(change[0], change[1]) > NORIA_MOVED_E4) {
        core->soaks = 0;
    } else if (noria_min(change[0], change[1]) < -NORIA_SOAK_MARGIN_E4) {
        return false;
    }
    core->soaks = (uint8_t)noria_min(core->soaks + 1, NORIA_MOST_SOAKS);
    for (uint32_t probe = 0; probe < 2; probe++) {
        int32_t limit = drained[probe];
        if (core->soaks > 1) {
            limit = core->upper_limit_e4[probe] + change[probe] / core->soaks;
        }
        core->upper_limit_e4[probe] = (int16_t)limit;
    }
    core->anchored = 1;
    return true;
}

/// The drained reading with what the crop has drunk since the rain put back.
static void anchor_after_rain(noria_core_t *core) {
    int32_t drunk_e4 = (core->drained_et_um * 10 * NORIA_TOP_HEAVY_Q2 >> 2) / core->root_depth_mm;
    for (uint32_t probe = 0; probe < 2; probe++) {
        core->upper_limit_e4[probe] = (int16_t)(core->dawn_e4[probe * NORIA_DAWNS] + drunk_e4);
    }
    core->anchored = 1;
}

/// The anchor after a soak; without one a running estimate. True: the anchor was set.
static bool learn_upper_limit(noria_core_t *core, const noria_settings_t *settings,
                              int32_t planted) {
    bool anchored_now = false;
    if (!core->started) {
        if (planted > -NORIA_ANCHOR_DAWNS && core->day - core->first_day >= NORIA_ANCHOR_DAYS &&
            core->probes_used == 3) {
            core->anchor_sum[0] += core->dawn_e4[0];
            core->anchor_sum[1] += core->dawn_e4[NORIA_DAWNS];
            core->anchor_count++;
        }
        if (planted >= 0 && core->anchor_count >= 2) {
            anchored_now = anchor_after_soak(core);
        }
    }
    if (!core->anchored) {
        for (uint32_t probe = 0; probe < 2; probe++) {
            int16_t now = core->dawn_e4[probe * NORIA_DAWNS];
            int16_t before = core->dawn_e4[probe * NORIA_DAWNS + 1];
            int16_t *limit = &core->upper_limit_e4[probe];
            if (now == NORIA_NO_VALUE) {
                continue;
            }
            if (*limit == NORIA_NO_VALUE) {
                *limit = now;
            } else if (before != NORIA_NO_VALUE) {
                *limit = (int16_t)noria_max(*limit, noria_min(now, before));
            }
        }
    }
    core->awc_e4 = (int16_t)noria_clamp(available_capacity_e4(core, settings), NORIA_AWC_LOW_E4,
                                        NORIA_AWC_HIGH_E4);
    return anchored_now;
}

/// Counts the undisturbed dawns since water last reached the deep probe; after the day's ET is
/// known.
static void watch_drainage(noria_core_t *core, int32_t days, int32_t et_um, int32_t shallow_rise,
                           int32_t deep_rise) {
    if (days > 1 || shallow_rise == NORIA_NO_VALUE || deep_rise == NORIA_NO_VALUE) {
        core->drained_dawns = 0;
    } else if (deep_rise > NORIA_DEEP_RESET_RISE_E4) {
        core->drained_dawns = 1;
        core->drained_et_um = 0;
    } else if (noria_max(shallow_rise, deep_rise) > NORIA_CALM_RISE_E4 || core->dose_today_um) {
        core->drained_dawns = 0;
    } else if (core->drained_dawns) {
        core->drained_dawns = (uint8_t)noria_min(core->drained_dawns + 1, NORIA_DRAINED_DAWNS + 1);
        core->drained_et_um += noria_min(et_um, NORIA_MOST_ET_UM);
    }
}

/// What the probes say ///

static int32_t rise_e4(const noria_core_t *core, uint32_t probe) {
    const int16_t *dawn = &core->dawn_e4[probe * NORIA_DAWNS];
    return dawn[0] == NORIA_NO_VALUE || dawn[1] == NORIA_NO_VALUE ? NORIA_NO_VALUE
                                                                  : dawn[0] - dawn[1];
}

/// Water missing below the upper limit, weighted over the probes there are.
static int32_t deficit_e4(const noria_core_t *core) {
    uint8_t probes = core->probes_used;
    int32_t shallow = core->upper_limit_e4[0] - core->dawn_e4[0];
    int32_t deep = core->upper_limit_e4[1] - core->dawn_e4[NORIA_DAWNS];
    if (probes == 1) {
        return shallow;
    }
    if (probes == 2) {
        return deep;
    }
    return (NORIA_DEEP_WEIGHT * deep + (10 - NORIA_DEEP_WEIGHT) * shallow) / 10;
}

static int32_t probe_depletion_um(const noria_core_t *core) {
    int32_t deficit = noria_clamp(deficit_e4(core), 0, core->awc_e4);
    return deficit * core->root_depth_mm / 10;
}

static void update_dry_rate(noria_core_t *core, int32_t shallow_rise, int32_t deep_rise) {
    if (shallow_rise == NORIA_NO_VALUE || deep_rise == NORIA_NO_VALUE) {
        return;
    }
    int32_t change = (shallow_rise + deep_rise) >> 1;
    if (change < NORIA_DRYING_E4) {
        core->dry_rate_q4 = noria_move_toward(core->dry_rate_q4, noria_max(-change, 0) * 16, 256);
        core->et0_dry_um = noria_move_toward(core->et0_dry_um, core->et0_um, 256);
        core->wetting_q4 = (uint16_t)noria_min(core->wetting_q4 + 16, 4000);
    } else {
        core->wetting_q4 = 0;
    }
}

/// The balance ///

static void start(noria_core_t *core) {
    core->started = 1;
    if (core->probes_used) {
        int32_t deficit = deficit_e4(core);
        core->initial_deficit_e4 = (int16_t)noria_clamp(deficit, 0, core->awc_e4 >> 1);
        core->depletion_um = probe_depletion_um(core);
    } else {
        core->initial_deficit_e4 = (int16_t)(core->awc_e4 >> 2);
        core->depletion_um = noria_balance_taw_um(core) >> 2;
    }
}

typedef struct {
    int32_t et_um;     // the physics' ETc
    int32_t beyond_um; // what model and observer together took beyond it
} step_t;

/// One day of the balance and the observer's correction.
static step_t advance(noria_core_t *core, int32_t days, int32_t depth_before, int32_t factor_q12,
                      int32_t shallow_rise, int32_t deep_rise) {
    int32_t taw = noria_balance_taw_um(core);
    int32_t et_um = noria_crop_et_um(core->et0_um, core->kc_e3, core->depletion_um, taw);
    int32_t used_um = (et_um * (factor_q12 >> 2) >> 10) * noria_clamp(days, 1, NORIA_MISSED_DAYS);
    int32_t depletion = core->depletion_um + used_um - core->dose_today_um;
    depletion += core->initial_deficit_e4 * (core->root_depth_mm - depth_before) / 10;
    bool rained = false;
    if (noria_max(shallow_rise, deep_rise) > NORIA_RISE_E4) {
        int32_t water = (noria_max(shallow_rise, 0) * NORIA_SHALLOW_STORE_MM +
                         noria_max(deep_rise, 0) * NORIA_DEEP_STORE_MM) /
                        10;
        water += (used_um * 614 >> 10) - core->dose_today_um;
        if (water > 0) {
            depletion -= water;
            rained = water > 1000;
        }
    }
    if (!core->probes_used) {
        core->innovation_q10 = 0;
        core->depletion_um = noria_clamp(depletion, 0, taw);
        return (step_t){.et_um = et_um};
    }
    int32_t observed = probe_depletion_um(core);
    bool near_limit =
        (core->probes_used & 2) &&
        core->dawn_e4[NORIA_DAWNS] > core->upper_limit_e4[1] - NORIA_DEEP_RESET_MARGIN_E4;
    if (deep_rise > NORIA_DEEP_RESET_RISE_E4 && near_limit) {
        depletion = noria_min(depletion, observed);
    }
    depletion = noria_clamp(depletion, 0, taw);
    int32_t innovation = observed - depletion;
    core->innovation_q10 =
        (int16_t)noria_clamp((innovation >> 4) * 1024 / noria_max(taw >> 4, 1), -1024, 1024);
    if (!rained) {
        core->innovation_average_q10 =
            (int16_t)noria_move_toward(core->innovation_average_q10, core->innovation_q10, 256);
    }
    int32_t gain = core->anchored ? NORIA_OBSERVER_GAIN_Q10 : NORIA_UNANCHORED_GAIN_Q10;
    int32_t correction_um = innovation * gain >> 10;
    core->depletion_um = noria_clamp(depletion + correction_um, 0, taw);
    return (step_t){.et_um = et_um, .beyond_um = used_um - et_um + correction_um};
}

noria_day_t noria_balance_close_day(noria_core_t *core, const noria_settings_t *settings,
                                    int32_t days) {
    noria_day_t day = {.mean_e4 = NORIA_NO_VALUE};
    int32_t planted = noria_days_planted(core, settings);
    bool measured = core->air_seen && core->light_count >= NORIA_LIGHT_WAKES;
    close_air(core);
    push_dawn(core, days);
    close_light(core);
    int32_t factor_q12 =
        core->light_sum ? (int32_t)(core->uptake_sum / core->light_sum) : NORIA_EXP_ONE;
    day.anchored = learn_upper_limit(core, settings, planted);
    int32_t shallow_rise = rise_e4(core, 0), deep_rise = rise_e4(core, 1), et_um = 0;
    update_dry_rate(core, shallow_rise, deep_rise);
    core->kc_e3 =
        (int16_t)noria_crop_coefficient_e3(settings->crop, planted, settings->season_days);
    int32_t depth_before = core->root_depth_mm;
    core->root_depth_mm =
        (int16_t)noria_root_depth_mm(settings->crop, planted, settings->root_depth_max_cm);
    if (core->probes_used == 3) {
        day.mean_e4 = (core->dawn_e4[0] + core->dawn_e4[NORIA_DAWNS]) >> 1;
    }
    if (core->started) {
        bool both = shallow_rise != NORIA_NO_VALUE && deep_rise != NORIA_NO_VALUE;
        day.calm = both && days == 1 && measured && core->anchored && core->dose_today_um == 0 &&
                   noria_max(shallow_rise, deep_rise) <= NORIA_CALM_RISE_E4;
        step_t step = advance(core, days, depth_before, factor_q12, shallow_rise, deep_rise);
        day.calm = day.calm && step.et_um >= NORIA_MIN_ET_UM;
        if (day.calm) {
            day.uptake = noria_clamp(step.beyond_um * 256 / step.et_um, -NORIA_UPTAKE_LIMIT,
                                     NORIA_UPTAKE_LIMIT);
        }
        et_um = step.et_um;
    } else if (planted >= 0) {
        start(core);
    }
    watch_drainage(core, days, et_um, shallow_rise, deep_rise);
    if (!core->anchored && core->drained_dawns > NORIA_DRAINED_DAWNS) {
        anchor_after_rain(core);
        day.anchored = true;
    }
    clear_day(core);
    return day;
}
