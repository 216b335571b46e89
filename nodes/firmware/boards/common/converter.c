// What raw readings mean: the reference tells the supply, the supply the inputs.
#include "board.h"

#define CALIBRATED_AT_MV 3000u
#define FULL_SCALE 4095u

void noria_board_scale(noria_adc_sweep_t *sweep, const uint32_t raw[NORIA_ADC_INPUTS],
                       uint32_t reference, uint32_t calibration) {
    const uint32_t supply_mv = reference > 0u ? CALIBRATED_AT_MV * calibration / reference : 0u;
    for (uint32_t i = 0; i < NORIA_ADC_INPUTS; i++) {
        sweep->input_mv[i] = (int32_t)((raw[i] * supply_mv + FULL_SCALE / 2u) / FULL_SCALE);
    }
    sweep->supply_mv = (int32_t)supply_mv;
}
