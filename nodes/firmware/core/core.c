#define NORIA_WANT_EXP_TABLE
#include "core.h"

#include <string.h>

#include "agronomy.h"
#include "balance.h"
#include "engine.h"
#include "feature_set.h"
#include "fixed.h"
#include "plausibility.h"
#include "policy.h"
#include "statistics.h"

void noria_core_init(noria_core_t *core) { memset(core, 0, sizeof *core); }

bool noria_core_is_valid(const noria_core_t *core) {
    return core->initialised == 1 && core->mode <= NORIA_MODE_COMMISSIONING &&
           core->probes_used <= 3 && core->awc_e4 >= NORIA_AWC_LOW_E4 &&
           core->awc_e4 <= NORIA_AWC_HIGH_E4 && core->root_depth_mm > 0 &&
           core->root_depth_mm <= 3000 && core->depletion_um >= 0 && core->dose_today_um >= 0;
}

static void fill(int16_t *values, uint32_t count, int16_t value) {
    for (uint32_t i = 0; i < count; i++) {
        values[i] = value;
    }
}

static void initialise(noria_core_t *core, const noria_settings_t *settings, int32_t day,
                       uint32_t time_s) {
    core->initialised = 1;
    core->day = core->first_day = day;
    core->season = settings->season;
    core->last_statistics_s = time_s;
    core->mode = NORIA_MODE_COMMISSIONING;
    core->et0_um = core->et0_average_um = core->et0_dry_um = NORIA_ET0_START_UM;
    core->dry_rate_q4 = NORIA_DRY_RATE_START_Q4;
    core->wetting_q4 = NORIA_WETTING_START_Q4;
    core->probe_q4[0] = core->probe_q4[1] = NORIA_NO_VALUE;
    fill(core->probe_last_e4, 2, NORIA_NO_VALUE);
    fill(core->dawn_e4, 2 * NORIA_DAWNS, NORIA_NO_VALUE);
    fill(core->upper_limit_e4, 2, NORIA_NO_VALUE);
    core->awc_e4 = NORIA_AWC_DEFAULT_E4;
    core->root_depth_mm = NORIA_ROOT_DEPTH_START_MM;
    core->air_mean_c100 = core->soil_mean_c100 = NORIA_AIR_START_C100;
    core->air_range_c100 = NORIA_RANGE_START_C100;
    core->humidity_mean_e2 = core->humidity_average_e2 = NORIA_HUMIDITY_START_E2;
    core->light_mean_q4 = NORIA_LIGHT_START_Q4;
}

/// Sums belong to one backbone and one season; a model's record to the model.
static void meet_model(noria_core_t *core, const noria_settings_t *settings, const uint8_t *image) {
    if (core->season != settings->season) {
        core->season = settings->season;
        core->started = core->anchor_count = 0;
        core->anchor_sum[0] = core->anchor_sum[1] = 0;
        core->first_day = core->day;
        core->water_season_um = 0;
        noria_statistics_reset(core);
    }
    if (image == NULL) {
        return;
    }
    uint32_t backbone_id = noria_engine_backbone_id(image);
    uint32_t tag = noria_engine_self_test(image);
    if (core->backbone_id != backbone_id) {
        core->backbone_id = backbone_id;
        noria_statistics_reset(core);
        noria_statistics_reset_forecasts(core);
    } else if (core->model_tag == tag) {
        return;
    }
    core->model_tag = tag;
    core->evaluated = 0;
    noria_statistics_reset_trust(core);
    noria_statistics_credit(core, image);
}

static void close_day(noria_core_t *core, const noria_settings_t *settings, int32_t days,
                      noria_outcome_t *outcome) {
    noria_day_t day = noria_balance_close_day(core, settings, days);
    outcome->anchored_now = day.anchored;
    core->decided = 0;
    noria_check_agreement(core);
    if (day.calm) {
        int32_t step = (day.uptake * 16 - core->uptake_residual_q4) >> 3;
        core->uptake_residual_q4 = (int16_t)(core->uptake_residual_q4 + step);
    }
    noria_statistics_finish(core, days, &day);
    int32_t season = settings->season_days;
    int32_t planted = noria_clamp(noria_days_planted(core, settings), -season, season);
    noria_features_extract(core, planted * 1024 / season);
    core->evaluated = 0;
}

/// The network on the features since dawn; the answer is kept until they or the model change.
static void evaluate(noria_core_t *core, const uint8_t *image) {
    if (image == NULL) {
        memset(core->activations, 0, sizeof core->activations);
        memset(core->outputs, 0, sizeof core->outputs);
        core->evaluated = 0;
    } else if (!core->evaluated) {
        noria_engine_run(image, core->features, core->activations, core->outputs);
        core->evaluated = 1;
    }
}

static void forecast(const noria_core_t *core, noria_outcome_t *outcome) {
    int32_t rate = (core->dry_rate_q4 + 8) >> 4;
    for (int32_t h = 0; h < NORIA_CLASSES; h++) {
        bool earned =
            core->mode == NORIA_MODE_MODEL && noria_statistics_forecasts_better(core, (uint32_t)h);
        int32_t learned = earned ? core->outputs[1 + h] : 0;
        outcome->forecast_e4[h] = (int16_t)((learned - rate) * (h + 1));
    }
}

/// Daily and rarer reports go at dawn, more frequent ones at any wake.
static void plan_reports(noria_core_t *core, const noria_settings_t *settings, uint32_t time_s,
                         bool has_model, noria_outcome_t *outcome) {
    int32_t period_s = settings->telemetry_period_h * 3600;
    int32_t waited_s = noria_elapsed_s(time_s, core->last_telemetry_s);
    bool due;
    if (core->last_telemetry_s == 0) {
        due = true;
    } else if (settings->telemetry_period_h >= 24) {
        due = outcome->dawn && waited_s >= period_s - 43200;
    } else {
        due = waited_s >= period_s - 450;
    }
    if (due) {
        core->last_telemetry_s = time_s;
        outcome->send_telemetry = 1;
    }
    waited_s = noria_elapsed_s(time_s, core->last_statistics_s);
    if (outcome->dawn && waited_s >= settings->statistics_period_h * 3600 - 43200) {
        core->last_statistics_s = time_s;
        if (has_model && core->count[0]) {
            core->statistics_sequence++;
            outcome->send_statistics = 1;
        }
    }
}

void noria_core_wake(noria_core_t *core, const noria_settings_t *settings,
                     const noria_reading_t *reading, const uint8_t *model_image,
                     noria_outcome_t *outcome) {
    memset(outcome, 0, sizeof *outcome);
    bool has_model = model_image != NULL;
    int32_t day = noria_day_number(reading->time_s, settings->utc_offset_min);
    if (!core->initialised) {
        initialise(core, settings, day, reading->time_s);
    }
    noria_policy_forget_the_future(core, reading->time_s);
    meet_model(core, settings, model_image);
    uint8_t faults_before = core->faults, low_before = core->battery_low;
    uint8_t contrary_before = core->disagreeing;
    noria_check_probes(core, reading);
    noria_check_battery(core, reading->battery_mv);
    int32_t days = day - core->day;
    core->day = day;
    if (days > 0) {
        outcome->dawn = 1;
        close_day(core, settings, days, outcome);
    }
    evaluate(core, model_image);
    int32_t planted = noria_days_planted(core, settings);
    core->mode = noria_policy_mode(core, planted, has_model);
    if (outcome->dawn) {
        int8_t zero = has_model ? noria_engine_activation_zero(model_image) : 0;
        bool known = has_model && noria_growth_stage(planted, settings->season_days) > 0;
        noria_statistics_begin(core, zero, known);
    }
    uint32_t factor_q12 =
        core->mode == NORIA_MODE_MODEL ? noria_exp_table[core->outputs[0] + 128] : NORIA_EXP_ONE;
    noria_add_air_and_light(core, reading, factor_q12);
    outcome->depletion_um = core->depletion_um;
    outcome->taw_um = noria_balance_taw_um(core);
    noria_policy_decide(core, settings, outcome, reading->time_s);
    outcome->threshold_permille = noria_policy_threshold_permille(core, settings);
    outcome->water_season_e1_mm =
        (uint16_t)noria_min((int32_t)(core->water_season_um / 100u), 65535);
    outcome->close = core->stop_until_s != 0;
    outcome->mode = core->mode;
    outcome->reason = core->last_reason;
    outcome->faults = core->faults;
    outcome->new_faults = (uint8_t)(core->faults & ~faults_before);
    outcome->recovered = (uint8_t)(faults_before & ~core->faults);
    outcome->anchored = core->anchored;
    outcome->battery_low = core->battery_low;
    outcome->battery_changed = core->battery_low ^ low_before;
    outcome->disagreeing = core->disagreeing;
    outcome->agreement_changed = core->disagreeing ^ contrary_before;
    forecast(core, outcome);
    plan_reports(core, settings, reading->time_s, has_model, outcome);
}

bool noria_core_override(noria_core_t *core, uint8_t kind, uint32_t value) {
    return noria_policy_override(core, kind, value);
}

void noria_core_cut_short(noria_core_t *core, const noria_settings_t *settings,
                          uint32_t missing_s) {
    noria_policy_cut_short(core, settings, missing_s);
}

void noria_core_snapshot(const noria_core_t *core, uint8_t out[NORIA_SNAPSHOT_BYTES]) {
    noria_statistics_encode(core, out);
}

void noria_core_rival(noria_core_t *core, const uint8_t *image) {
    int8_t activations[NORIA_ACTIVATIONS], outputs[NORIA_OUTPUTS];
    core->rival_known = image != NULL;
    if (image != NULL) {
        noria_engine_run(image, core->features, activations, outputs);
        core->rival_output[0] = outputs[0];
        core->rival_output[1] = outputs[1];
    }
}

noria_probation_t noria_core_probation(const noria_core_t *core) {
    return (noria_probation_t){
        .model_energy = core->probation_model_energy,
        .baseline_energy = core->probation_baseline_energy,
        .rival_energy = core->probation_rival_energy,
        .windows = core->probation_windows,
    };
}
