#define NORIA_WANT_STAGE_THRESHOLDS
#include "policy.h"

#include "agronomy.h"
#include "balance.h"
#include "fixed.h"

uint16_t noria_policy_threshold_permille(const noria_core_t *core,
                                         const noria_settings_t *settings) {
    uint32_t stage = noria_growth_stage(noria_days_planted(core, settings), settings->season_days);
    int32_t usual_um = NORIA_USUAL_ET0_UM - noria_clamp(core->et0_average_um, 0, 20000);
    int32_t demand_q10 = 1024 + usual_um * NORIA_DEMAND_Q10_PER_MM / 1000;
    int32_t threshold = settings->threshold_permille * noria_stage_thresholds_q4[stage] >> 4;
    demand_q10 = noria_clamp(demand_q10, NORIA_DEMAND_LOW_Q10, NORIA_DEMAND_HIGH_Q10);
    threshold = threshold * demand_q10 >> 10;
    if (core->mode == NORIA_MODE_BALANCE_ONLY) {
        threshold += threshold >> 1;
    }
    return (uint16_t)noria_clamp(threshold, 1, NORIA_HIGHEST_THRESHOLD_PERMILLE);
}

uint8_t noria_policy_mode(const noria_core_t *core, int32_t planted, bool has_model) {
    if (planted < 0 || !core->started) {
        return NORIA_MODE_COMMISSIONING;
    }
    if (!core->probes_used) {
        return NORIA_MODE_BALANCE_ONLY;
    }
    return has_model && !core->distrusted && !core->disagreeing ? NORIA_MODE_MODEL
                                                                : NORIA_MODE_PHYSICS;
}

static void forget(uint32_t *then_s, uint32_t time_s) {
    if (noria_elapsed_s(time_s, *then_s) < 0) {
        *then_s = time_s;
    }
}

void noria_policy_forget_the_future(noria_core_t *core, uint32_t time_s) {
    forget(&core->last_dose_s, time_s);
    forget(&core->last_telemetry_s, time_s);
    forget(&core->last_statistics_s, time_s);
}

bool noria_policy_override(noria_core_t *core, uint8_t kind, uint32_t value) {
    if (kind == NORIA_OVERRIDE_STOP) {
        core->stop_until_s = value;
        core->pending_water_e1_mm = 0;
    } else if (kind == NORIA_OVERRIDE_WATER && value > 0 && value <= NORIA_MAX_DOSE_E1_MM) {
        core->pending_water_e1_mm = (uint16_t)value;
        core->stop_until_s = 0;
    } else if (kind == NORIA_OVERRIDE_RESUME) {
        core->stop_until_s = 0;
        core->pending_water_e1_mm = 0;
    } else {
        return false;
    }
    return true;
}

/// Whether the season allows water at all; NOT_NEEDED if so.
static uint8_t judge_calendar(const noria_core_t *core, const noria_settings_t *settings,
                              bool last_days) {
    int32_t planted = noria_days_planted(core, settings);
    if (!core->started || planted < 0) {
        return NORIA_REASON_COMMISSIONING;
    }
    if (planted >= settings->season_days) {
        return NORIA_REASON_SEASON_OVER;
    }
    if (last_days && planted * 20 >= settings->season_days * 19) {
        return NORIA_REASON_SEASON_ENDING;
    }
    return NORIA_REASON_NOT_NEEDED;
}

/// Today's reason; DEPLETED means water.
static uint8_t judge(const noria_core_t *core, const noria_settings_t *settings, int32_t left_s,
                     uint32_t time_s) {
    uint8_t reason = judge_calendar(core, settings, true);
    if (reason != NORIA_REASON_NOT_NEEDED) {
        return reason;
    }
    if (core->stop_until_s) {
        return NORIA_REASON_OVERRIDE_STOP;
    }
    if (core->mode == NORIA_MODE_BALANCE_ONLY &&
        (core->faults & NORIA_NO_ET_FAULTS) == NORIA_NO_ET_FAULTS) {
        return NORIA_REASON_SENSOR_FAULT;
    }
    int32_t threshold = noria_policy_threshold_permille(core, settings);
    if (core->depletion_um * 1000 <= noria_balance_taw_um(core) * threshold) {
        return NORIA_REASON_NOT_NEEDED;
    }
    if (left_s <= 0) {
        return NORIA_REASON_OUTSIDE_WINDOW;
    }
    if (core->last_dose_s &&
        noria_elapsed_s(time_s, core->last_dose_s) < settings->min_interval_h * 3600) {
        return NORIA_REASON_MINIMUM_INTERVAL;
    }
    if (!core->anchored && core->drained_dawns && core->drained_dawns <= NORIA_DRAINED_DAWNS) {
        // Water has reached the deep probe: once it has drained, the node knows what full is.
        return NORIA_REASON_MINIMUM_INTERVAL;
    }
    return NORIA_REASON_DEPLETED;
}

/// Opens the valve for a dose within every cap; returns the reason to record.
static uint8_t water(noria_core_t *core, const noria_settings_t *settings, noria_outcome_t *outcome,
                     int32_t dose_e1_mm, int32_t longest_s, uint8_t reason, uint32_t time_s) {
    int32_t rate = settings->application_rate_e2_mm_h;
    int32_t daily_um = settings->daily_cap_mm * 1000 - core->dose_today_um;
    int32_t seasonal_um = settings->seasonal_cap_mm * 1000 - (int32_t)core->water_season_um;
    if (rate == 0) {
        return NORIA_REASON_VALVE_FAULT;
    }
    if (core->battery_low) {
        return NORIA_REASON_LOW_BATTERY;
    }
    if (daily_um <= 0) {
        return NORIA_REASON_DAILY_CAP;
    }
    if (seasonal_um <= 0) {
        return NORIA_REASON_SEASONAL_CAP;
    }
    int32_t dose_um = noria_min(dose_e1_mm, NORIA_MAX_DOSE_E1_MM) * 100;
    dose_um = noria_min(dose_um, noria_min(daily_um, seasonal_um));
    int32_t open_s = noria_min(dose_um * 360 / rate, longest_s);
    if (open_s == 0) {
        return NORIA_REASON_OUTSIDE_WINDOW;
    }
    int32_t given_um = open_s * rate / 360;
    core->dose_today_um += given_um;
    core->water_season_um += (uint32_t)given_um;
    core->last_dose_s = time_s;
    outcome->open_s = (uint32_t)open_s;
    outcome->dose_e1_mm = (uint16_t)((given_um + 50) / 100);
    return reason;
}

void noria_policy_decide(noria_core_t *core, const noria_settings_t *settings,
                         noria_outcome_t *outcome, uint32_t time_s) {
    int32_t clock_s = (int32_t)((time_s + (uint32_t)(settings->utc_offset_min * 60)) % 86400u);
    int32_t longest_s = (int32_t)settings->max_on_s;
    if (core->stop_until_s && noria_elapsed_s(time_s, core->stop_until_s) >= 0) {
        core->stop_until_s = 0;
    }
    if (core->pending_water_e1_mm) {
        int32_t dose = core->pending_water_e1_mm;
        core->pending_water_e1_mm = 0;
        outcome->decided = 1;
        uint8_t reason = judge_calendar(core, settings, false);
        if (reason == NORIA_REASON_NOT_NEEDED) {
            reason = water(core, settings, outcome, dose, longest_s, NORIA_REASON_OVERRIDE_WATER,
                           time_s);
        }
        core->last_reason = reason;
        return;
    }
    if (core->decided || clock_s < settings->window_start_h * 3600) {
        return;
    }
    core->decided = 1;
    outcome->decided = 1;
    int32_t left_s = settings->window_end_h * 3600 - clock_s;
    uint8_t reason = judge(core, settings, left_s, time_s);
    if (reason == NORIA_REASON_DEPLETED) {
        int32_t dose = settings->dose_e1_mm;
        if (core->mode == NORIA_MODE_BALANCE_ONLY) {
            dose = noria_min(dose, NORIA_CAUTIOUS_DOSE_E1_MM);
        }
        reason = water(core, settings, outcome, dose, noria_min(left_s, longest_s), reason, time_s);
    }
    core->last_reason = reason;
}

void noria_policy_cut_short(noria_core_t *core, const noria_settings_t *settings,
                            uint32_t missing_s) {
    uint64_t missing = missing_s < 86400u ? missing_s : 86400u;
    uint64_t missing_um = missing * settings->application_rate_e2_mm_h / 360u;
    if (missing_um > (uint64_t)core->dose_today_um) {
        missing_um = (uint64_t)core->dose_today_um;
    }
    core->dose_today_um -= (int32_t)missing_um;
    core->water_season_um -=
        missing_um < core->water_season_um ? (uint32_t)missing_um : core->water_season_um;
}
