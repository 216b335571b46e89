/// FAO-56 in integers; the mirror of shared_models/agronomy.py, where symbols and equations are
/// explained.
#ifndef NORIA_AGRONOMY_H
#define NORIA_AGRONOMY_H

#include <stdbool.h>
#include <stdint.h>

#include "noria_shared.h"

/// 0 initial, 1 development, 2 mid-season, 3 late season.
uint32_t noria_growth_stage(int32_t day, uint16_t season_days);
int32_t noria_crop_coefficient_e3(uint8_t crop, int32_t day, uint16_t season_days);
int32_t noria_root_depth_mm(uint8_t crop, int32_t day, uint16_t limit_cm);
int32_t noria_reference_et_um(int32_t air_mean_c100, int32_t light_q4_w_m2);
int32_t noria_total_available_um(int32_t awc_e4, int32_t depth_mm);
int32_t noria_crop_et_um(int32_t et0_um, int32_t kc_e3, int32_t depletion_um, int32_t taw_um);
int32_t noria_vapour_deficit_pa(int32_t air_mean_c100, int32_t humidity_e2);

#endif
