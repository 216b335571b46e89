#define NORIA_WANT_FEATURE_TABLE
#include "feature_set.h"

#include "agronomy.h"
#include "fixed.h"

/// `value` / `whole` in 1/2^bits, kept small.
static int32_t share(int32_t value, int32_t whole, int32_t bits) {
    return noria_clamp(value * (1 << bits) / noria_max(whole, 1), -8192, 8191);
}

void noria_features_extract(noria_core_t *core, int32_t progress_q10) {
    int32_t values[NORIA_INPUTS];
    for (uint32_t i = 0; i < NORIA_INPUTS; i++) {
        values[i] = noria_feature_table[i].centre;
    }
    int32_t awc = core->awc_e4;
    int32_t taw_um = noria_total_available_um(awc, core->root_depth_mm);
    if (core->started) {
        values[0] = share(core->depletion_um >> 4, taw_um >> 4, 10);
    }
    values[1] = core->innovation_q10;
    values[2] = core->innovation_average_q10;
    for (uint32_t probe = 0; probe < 2; probe++) {
        int32_t now = core->dawn_e4[probe * NORIA_DAWNS];
        int32_t before = core->dawn_e4[probe * NORIA_DAWNS + 1];
        if (now != NORIA_NO_VALUE) {
            values[3 + probe] = share(core->upper_limit_e4[probe] - now, awc, 10);
            if (before != NORIA_NO_VALUE) {
                values[5 + probe] = before - now;
            }
        }
    }
    int32_t now = core->dawn_e4[NORIA_DAWNS], before = core->dawn_e4[NORIA_DAWNS + 3];
    if (now != NORIA_NO_VALUE && before != NORIA_NO_VALUE) {
        values[7] = before - now;
    }
    values[8] = (core->dry_rate_q4 + 8) >> 4;
    values[9] = share(core->dry_rate_q4 * 50, core->et0_dry_um, 6);
    values[10] = core->wetting_q4;
    values[11] = core->air_mean_c100;
    values[12] = core->air_range_c100;
    values[13] = core->humidity_mean_e2;
    values[14] = core->light_mean_q4;
    values[15] = noria_vapour_deficit_pa(core->air_mean_c100, core->humidity_mean_e2);
    values[16] = core->et0_um;
    values[17] = core->et0_average_um * core->kc_e3 / 1000;
    values[18] = core->humidity_mean_e2 - core->humidity_average_e2;
    values[19] = core->soil_mean_c100 - core->air_mean_c100;
    values[20] = core->kc_e3;
    values[21] = progress_q10;
    values[22] = core->root_depth_mm;
    values[23] = core->uptake_residual_q4;
    for (uint32_t i = 0; i < NORIA_INPUTS; i++) {
        int32_t shift = noria_feature_table[i].shift;
        int32_t away = values[i] - noria_feature_table[i].centre + ((1 << shift) >> 1);
        core->features[i] = (int8_t)noria_clamp(away >> shift, -128, 127);
    }
}
