/// What one writes first: the same network over the same image, an output and an input at a time,
/// with the compiler's 64-bit arithmetic.
#include <stdint.h>
#include <string.h>

#include "noria_shared.h"

static void layer(const uint8_t *data, const int8_t *values, int inputs, int8_t *results,
                  int outputs, int rectified) {
    int32_t multiplier, bias;
    memcpy(&multiplier, data, sizeof multiplier);
    int total_shift = 31 - (int8_t)data[4], input_zero = (int8_t)data[5];
    int output_zero = (int8_t)data[6], lowest = rectified ? output_zero : -128;
    const int8_t *weights = (const int8_t *)data + NORIA_LAYER_HEADER_BYTES + 4 * outputs;
    for (int j = 0; j < outputs; j++) {
        memcpy(&bias, data + NORIA_LAYER_HEADER_BYTES + 4 * j, sizeof bias);
        int32_t sum = bias;
        for (int i = 0; i < inputs; i++) {
            sum += (values[i] - input_zero) * weights[j * inputs + i];
        }
        int64_t half = (int64_t)1 << (total_shift - 1);
        int32_t scaled = (int32_t)(((int64_t)sum * multiplier + half) >> total_shift) + output_zero;
        results[j] = (int8_t)(scaled < lowest ? lowest : scaled > 127 ? 127 : scaled);
    }
}

void int8_loop(const uint8_t *image, const int8_t *features, int8_t *activations, int8_t *outputs) {
    int8_t hidden[NORIA_HIDDEN];
    layer(image + NORIA_MODEL_BACKBONE_OFFSET, features, NORIA_INPUTS, hidden, NORIA_HIDDEN, 1);
    layer(image + NORIA_MODEL_SECOND_OFFSET, hidden, NORIA_HIDDEN, activations, NORIA_ACTIVATIONS,
          1);
    layer(image + NORIA_MODEL_HEAD_OFFSET, activations, NORIA_ACTIVATIONS, outputs, NORIA_OUTPUTS,
          0);
}
