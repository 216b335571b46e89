#define NORIA_WANT_AGRONOMY_TABLES
#include "agronomy.h"

#include "fixed.h"

/// An unknown crop, which no valid settings page holds, is treated as the first.
static uint32_t crop_index(uint8_t crop) {
    return crop >= 1 && crop <= NORIA_CROPS ? crop - 1u : 0;
}

static int32_t season_part_permille(int32_t day, uint16_t season_days) {
    return noria_clamp(day, 0, season_days) * 1000 / season_days;
}

uint32_t noria_growth_stage(int32_t day, uint16_t season_days) {
    int32_t part = season_part_permille(day, season_days);
    if (part < NORIA_STAGE_INITIAL_PERMILLE) {
        return 0;
    }
    if (part < NORIA_STAGE_DEVELOPMENT_PERMILLE) {
        return 1;
    }
    return part < NORIA_STAGE_MIDDLE_PERMILLE ? 2 : 3;
}

int32_t noria_crop_coefficient_e3(uint8_t crop, int32_t day, uint16_t season_days) {
    const uint16_t *kc = &noria_kc_table_e3[3 * crop_index(crop)];
    int32_t initial = kc[0], middle = kc[1], end = kc[2];
    int32_t part = season_part_permille(day, season_days);
    if (part < NORIA_STAGE_INITIAL_PERMILLE) {
        return initial;
    }
    if (part < NORIA_STAGE_DEVELOPMENT_PERMILLE) {
        return initial + (middle - initial) * (part - NORIA_STAGE_INITIAL_PERMILLE) /
                             (NORIA_STAGE_DEVELOPMENT_PERMILLE - NORIA_STAGE_INITIAL_PERMILLE);
    }
    if (part < NORIA_STAGE_MIDDLE_PERMILLE) {
        return middle;
    }
    return middle + (end - middle) * (part - NORIA_STAGE_MIDDLE_PERMILLE) /
                        (1000 - NORIA_STAGE_MIDDLE_PERMILLE);
}

int32_t noria_root_depth_mm(uint8_t crop, int32_t day, uint16_t limit_cm) {
    int32_t deepest = noria_min(noria_root_table_mm[crop_index(crop)], limit_cm * 10);
    if (deepest <= NORIA_ROOT_DEPTH_START_MM) {
        return deepest;
    }
    int32_t grown = noria_clamp(day, 0, NORIA_ROOT_GROWTH_DAYS);
    return NORIA_ROOT_DEPTH_START_MM +
           (deepest - NORIA_ROOT_DEPTH_START_MM) * grown / NORIA_ROOT_GROWTH_DAYS;
}

int32_t noria_reference_et_um(int32_t air_mean_c100, int32_t light_q4_w_m2) {
    int32_t warmth = noria_clamp(air_mean_c100 + 1780, 0, 7000);
    int32_t energy = warmth * noria_clamp(light_q4_w_m2, 0, 16000) >> 8;
    return noria_max(energy * 312 >> 12, 100);
}

int32_t noria_total_available_um(int32_t awc_e4, int32_t depth_mm) {
    return awc_e4 * depth_mm / 10;
}

int32_t noria_crop_et_um(int32_t et0_um, int32_t kc_e3, int32_t depletion_um, int32_t taw_um) {
    int32_t et_um = et0_um * kc_e3 / 1000;
    if (2 * depletion_um <= taw_um || taw_um < 16) {
        return et_um;
    }
    int32_t stress_q10 = ((taw_um - depletion_um) >> 4) * 2048 / (taw_um >> 4);
    return et_um * noria_clamp(stress_q10, 0, 1024) >> 10;
}

static int32_t vapour_pressure_pa(int32_t temperature_c100) {
    int32_t position =
        noria_clamp(temperature_c100, NORIA_VAPOUR_START_C100, 5999) - NORIA_VAPOUR_START_C100;
    int32_t index = position / NORIA_VAPOUR_STEP_C100;
    int32_t low = noria_vapour_table_pa[index], high = noria_vapour_table_pa[index + 1];
    return low +
           (high - low) * (position - index * NORIA_VAPOUR_STEP_C100) / NORIA_VAPOUR_STEP_C100;
}

int32_t noria_vapour_deficit_pa(int32_t air_mean_c100, int32_t humidity_e2) {
    return (vapour_pressure_pa(air_mean_c100) >> 2) * (10000 - noria_clamp(humidity_e2, 0, 10000)) /
           2500;
}
