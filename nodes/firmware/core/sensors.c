#include "sensors.h"

#include "fixed.h"
#include "hal.h"

/// Air: Sensirion SHT4x, data sheet sections 4.1 to 4.6 ///

#define SHT4X_ADDRESS 0x44u
#define SHT4X_MEASURE_HIGH 0xFDu
#define SHT4X_MEASURE_MS 9u

static uint8_t sensirion_crc(const uint8_t *data) {
    uint8_t crc = 0xFF;
    for (uint32_t i = 0; i < 2u; i++) {
        crc ^= data[i];
        for (uint32_t bit = 0; bit < 8u; bit++) {
            crc = (uint8_t)((crc & 0x80u) != 0u ? (crc << 1) ^ 0x31 : crc << 1);
        }
    }
    return crc;
}

// The air sensor has been fed since before the probes' warm-up: it is ready 1 ms after.
static void read_air(noria_reading_t *reading) {
    const uint8_t command = SHT4X_MEASURE_HIGH;
    uint8_t answer[6];
    reading->air_temp_c100 = NORIA_NO_VALUE;
    reading->rh_e2 = NORIA_NO_VALUE;
    if (!noria_i2c_write(SHT4X_ADDRESS, &command, 1)) {
        return;
    }
    noria_wait_ms(SHT4X_MEASURE_MS);
    if (!noria_i2c_read(SHT4X_ADDRESS, answer, sizeof answer) ||
        sensirion_crc(answer) != answer[2] || sensirion_crc(answer + 3) != answer[5]) {
        return;
    }
    const int32_t ticks_t = answer[0] << 8 | answer[1];
    const int32_t ticks_h = answer[3] << 8 | answer[4];
    reading->air_temp_c100 = (int16_t)(-4500 + (17500 * ticks_t + 32767) / 65535);
    reading->rh_e2 = (int16_t)noria_clamp(-600 + (12500 * ticks_h + 32767) / 65535, 0, 10000);
}

/// Probes, thermometer, light ///

#define PROBE_WARM_UP_MS 10u
#define PROBE_BROKEN_BELOW_MV 100
#define RAIL_MARGIN_MV 40 // nothing healthy stands this close to the supply
#define SOIL_TEMP_MV_AT_0 500
#define SOIL_TEMP_C100_PER_MV 10
#define SOIL_TEMP_BROKEN_BELOW_MV 100 // -40 degrees
#define LIGHT_MV_PER_W_M2 2

static bool at_rail(int32_t millivolts, int32_t supply_mv) {
    return millivolts > supply_mv - RAIL_MARGIN_MV;
}

static int16_t probe_vwc_e4(int32_t millivolts, int32_t supply_mv) {
    if (millivolts < PROBE_BROKEN_BELOW_MV || at_rail(millivolts, supply_mv)) {
        return NORIA_NO_VALUE;
    }
    return (int16_t)((millivolts - 300) * 5 / 2);
}

void noria_sensors_read(noria_reading_t *reading) {
    noria_adc_sweep_t sweep;
    noria_air_power(true);
    noria_sensor_power(true);
    noria_wait_ms(PROBE_WARM_UP_MS);
    noria_adc_sweep(&sweep);
    noria_sensor_power(false);
    reading->vwc_shallow_e4 =
        probe_vwc_e4(sweep.input_mv[NORIA_ADC_PROBE_SHALLOW], sweep.supply_mv);
    reading->vwc_deep_e4 = probe_vwc_e4(sweep.input_mv[NORIA_ADC_PROBE_DEEP], sweep.supply_mv);
    const int32_t soil_mv = sweep.input_mv[NORIA_ADC_SOIL_TEMP];
    reading->soil_temp_c100 =
        soil_mv < SOIL_TEMP_BROKEN_BELOW_MV || at_rail(soil_mv, sweep.supply_mv)
            ? NORIA_NO_VALUE
            : (int16_t)((soil_mv - SOIL_TEMP_MV_AT_0) * SOIL_TEMP_C100_PER_MV);
    const int32_t light_mv = sweep.input_mv[NORIA_ADC_LIGHT];
    reading->light_w_m2 = at_rail(light_mv, sweep.supply_mv)
                              ? NORIA_NO_VALUE
                              : (int16_t)(light_mv / LIGHT_MV_PER_W_M2);
    reading->battery_mv = (int16_t)sweep.supply_mv;
    read_air(reading);
    noria_air_power(false);
}
