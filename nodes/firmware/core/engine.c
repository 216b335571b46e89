#include "engine.h"

#include "bytes.h"
#include "crc.h"
#include "fixed.h"

/// A layer in an image ///

typedef struct {
    int32_t multiplier;
    int8_t shift;
    int8_t input_zero;
    int8_t output_zero;
    const uint8_t *bias;
    const int8_t *weights;
} layer_t;

static layer_t layer_at(const uint8_t *data, uint32_t outputs) {
    const uint8_t *bias = data + NORIA_LAYER_HEADER_BYTES;
    return (layer_t){
        .multiplier = (int32_t)noria_get_u32(data),
        .shift = (int8_t)data[4],
        .input_zero = (int8_t)data[5],
        .output_zero = (int8_t)data[6],
        .bias = bias,
        .weights = (const int8_t *)(bias + 4 * outputs),
    };
}

/// (sum * multiplier + 2^(total_shift - 1)) >> total_shift for a total_shift of 31 to 62, in 32-bit
/// steps: the 64-bit library routines would cost a third of the inference. |sum| < 2^29.
static int32_t rescale(int32_t sum, int32_t multiplier, int32_t total_shift) {
    uint32_t sum_low = (uint32_t)sum & 0xFFFFu, low = (uint32_t)multiplier & 0xFFFFu;
    int32_t sum_high = sum >> 16, high = multiplier >> 16;
    uint32_t bottom = sum_low * low;
    uint32_t middle = sum_low * (uint32_t)high + (bottom >> 16);
    int32_t cross = sum_high * (int32_t)low;
    uint32_t carry = (middle & 0xFFFFu) + ((uint32_t)cross & 0xFFFFu);
    int32_t top =
        sum_high * high + (int32_t)(middle >> 16) + (cross >> 16) + (int32_t)(carry >> 16);
    if (total_shift > 32) {
        int32_t shift = total_shift - 32;
        return (top + (1 << (shift - 1))) >> shift;
    }
    uint32_t rest = carry << 16 | (bottom & 0xFFFFu);
    return total_shift == 32 ? top + (int32_t)(rest >> 31)
                             : top * 2 + (int32_t)(((rest >> 30) + 1u) >> 1);
}

/// `inputs` is a multiple of 8. The sum cannot overflow: |bias| <= 2^28, 24 * 255 * 128 < 2^20.
static void layer_run(const uint8_t *data, const int8_t *values, uint32_t inputs, int8_t *results,
                      uint32_t outputs, bool rectified) {
    layer_t layer = layer_at(data, outputs);
    int32_t shifted[NORIA_INPUTS];
    for (uint32_t i = 0; i < inputs; i++) {
        shifted[i] = values[i] - layer.input_zero;
    }
    int32_t total_shift = 31 - layer.shift;
    int32_t lowest = rectified ? layer.output_zero : -128;
    const int8_t *weight = layer.weights;
    for (uint32_t j = 0; j < outputs; j++) {
        int32_t sum = (int32_t)noria_get_u32(layer.bias + 4 * j);
        for (uint32_t i = 0; i < inputs; i += 8, weight += 8) {
            const int32_t *x = shifted + i;
            sum += x[0] * weight[0] + x[1] * weight[1] + x[2] * weight[2] + x[3] * weight[3];
            sum += x[4] * weight[4] + x[5] * weight[5] + x[6] * weight[6] + x[7] * weight[7];
        }
        int32_t scaled = rescale(sum, layer.multiplier, total_shift);
        results[j] = (int8_t)noria_clamp(scaled + layer.output_zero, lowest, 127);
    }
}

static bool layer_is_valid(const uint8_t *data, uint32_t outputs) {
    layer_t layer = layer_at(data, outputs);
    if (layer.multiplier < 1 << 30 || layer.shift < -31 || layer.shift > 0 || data[7] != 0) {
        return false;
    }
    for (uint32_t j = 0; j < outputs; j++) {
        int32_t bias = (int32_t)noria_get_u32(layer.bias + 4 * j);
        if (bias < -NORIA_BIAS_LIMIT || bias > NORIA_BIAS_LIMIT) {
            return false;
        }
    }
    return true;
}

/// The network ///

void noria_engine_run(const uint8_t *image, const int8_t features[NORIA_INPUTS],
                      int8_t activations[NORIA_ACTIVATIONS], int8_t outputs[NORIA_OUTPUTS]) {
    int8_t hidden[NORIA_HIDDEN];
    layer_run(image + NORIA_MODEL_BACKBONE_OFFSET, features, NORIA_INPUTS, hidden, NORIA_HIDDEN,
              true);
    layer_run(image + NORIA_MODEL_SECOND_OFFSET, hidden, NORIA_HIDDEN, activations,
              NORIA_ACTIVATIONS, true);
    layer_run(image + NORIA_MODEL_HEAD_OFFSET, activations, NORIA_ACTIVATIONS, outputs,
              NORIA_OUTPUTS, false);
}

/// Same pseudo-random inputs as network.self_test_inputs().
static uint32_t self_test(const uint8_t *image) {
    int8_t features[NORIA_INPUTS];
    int8_t results[NORIA_ACTIVATIONS + NORIA_OUTPUTS];
    uint32_t random = NORIA_SELF_TEST_SEED, crc = 0;
    for (uint32_t vector = 0; vector < NORIA_SELF_TEST_VECTORS; vector++) {
        for (uint32_t i = 0; i < NORIA_INPUTS; i++) {
            random ^= random << 13;
            random ^= random >> 17;
            random ^= random << 5;
            features[i] = (int8_t)((int32_t)(random >> 24) - 128);
        }
        noria_engine_run(image, features, results, results + NORIA_ACTIVATIONS);
        crc = noria_crc32(crc, results, sizeof results);
    }
    return crc;
}

bool noria_engine_verify(const uint8_t *image) {
    static const uint8_t form[8] = {
        NORIA_MODEL_FORMAT, NORIA_INPUTS, NORIA_HIDDEN, NORIA_ACTIVATIONS, NORIA_OUTPUTS, 0, 0, 0};
    if (noria_get_u32(image) != NORIA_MODEL_MAGIC) {
        return false;
    }
    for (uint32_t i = 0; i < sizeof form; i++) {
        if (image[4 + i] != form[i]) {
            return false;
        }
    }
    const uint8_t *first = image + NORIA_MODEL_BACKBONE_OFFSET;
    const uint8_t *second = image + NORIA_MODEL_SECOND_OFFSET;
    const uint8_t *head = image + NORIA_MODEL_HEAD_OFFSET;
    if (!layer_is_valid(first, NORIA_HIDDEN) || !layer_is_valid(second, NORIA_ACTIVATIONS) ||
        !layer_is_valid(head, NORIA_OUTPUTS)) {
        return false;
    }
    if (second[5] != first[6] || head[5] != second[6] || head[6] != 0) {
        return false;
    }
    return self_test(image) == noria_engine_self_test(image);
}

uint32_t noria_engine_backbone_id(const uint8_t *image) {
    return noria_get_u32(image + NORIA_MODEL_BACKBONE_ID_OFFSET);
}

uint32_t noria_engine_self_test(const uint8_t *image) {
    return noria_get_u32(image + NORIA_MODEL_SELF_TEST_OFFSET);
}

int8_t noria_engine_activation_zero(const uint8_t *image) {
    return (int8_t)image[NORIA_MODEL_SECOND_OFFSET + 6];
}
