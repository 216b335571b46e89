#include "engine.h"

#include <string.h>
#if defined(__ARM_FEATURE_SIMD32)
#include <arm_acle.h>
#endif

#include "bytes.h"
#include "crc.h"
#include "fixed.h"

/// Keeps `sums` in registers; Clang does so unasked.
#if defined(__GNUC__) && !defined(__clang__)
#define UNROLLED _Pragma("GCC unroll 4")
#else
#define UNROLLED
#endif

/// A layer in an image ///

typedef struct {
    int32_t multiplier;
    int8_t shift;
    int8_t input_zero;
    int8_t output_zero;
    const uint8_t *bias;
    const uint8_t *weights;
} layer_t;

static layer_t layer_at(const uint8_t *data, uint32_t outputs) {
    const uint8_t *bias = data + NORIA_LAYER_HEADER_BYTES;
    return (layer_t){
        .multiplier = (int32_t)noria_get_u32(data),
        .shift = (int8_t)data[4],
        .input_zero = (int8_t)data[5],
        .output_zero = (int8_t)data[6],
        .bias = bias,
        .weights = bias + 4 * outputs,
    };
}

_Static_assert((NORIA_MODEL_BACKBONE_OFFSET | NORIA_MODEL_SECOND_OFFSET | NORIA_MODEL_HEAD_OFFSET |
                NORIA_LAYER_HEADER_BYTES | NORIA_INPUTS | NORIA_HIDDEN | NORIA_ACTIVATIONS) %
                       4 ==
                   0,
               "biases and rows of weights begin at multiples of 4");

/// Cortex-M0+ loads words from multiples of 4 only.
static inline uint32_t word_at(const uint8_t *data) {
    uint32_t word;
    memcpy(&word, __builtin_assume_aligned(data, 4), sizeof word);
    return word;
}

/// Products and sums ///

// A core says here how it holds inputs less their zero point (open_inputs), how many outputs it
// sums at a time so that they share the loads of the inputs (ROWS, add_rows), and how it
// multiplies long. Weights come four to a word.

#if defined(__ARM_FEATURE_SIMD32)

/// Two inputs of 16 bits: the first and third of every four, then the second and fourth, as
/// sxtb16 takes bytes from a word.
typedef int16x2_t input_t;

enum { INPUTS_PER_WORD = 2, ROWS = 4 };

static inline int8x4_t even_bytes(uint32_t word) { return (int8x4_t)word; }

static inline int8x4_t odd_bytes(uint32_t word) { return (int8x4_t)(word >> 8 | word << 24); }

static void open_inputs(input_t *x, const int8_t *values, int32_t zero, uint32_t count) {
    input_t less_zero = (input_t)((uint32_t)-zero << 16 | ((uint32_t)-zero & 0xFFFFu));
    for (uint32_t i = 0; i < count; i += 4, x += 2) {
        uint32_t four;
        memcpy(&four, values + i, sizeof four);
        x[0] = __sxtab16(less_zero, even_bytes(four));
        x[1] = __sxtab16(less_zero, odd_bytes(four));
    }
}

static inline int32_t add_four(int32_t sum, const input_t x[2], const uint8_t *row) {
    uint32_t weights = word_at(row);
    sum = __smlad(__sxtb16(even_bytes(weights)), x[0], sum);
    return __smlad(__sxtb16(odd_bytes(weights)), x[1], sum);
}

static inline void add_rows(int32_t sums[ROWS], const input_t *inputs, const uint8_t *row,
                            uint32_t count) {
    int32_t a = sums[0], b = sums[1], c = sums[2], d = sums[3];
    for (const uint8_t *end = row + count; row != end; row += 4, inputs += 2) {
        const input_t x[2] = {inputs[0], inputs[1]};
        const uint8_t *next = row;
        a = add_four(a, x, next);
        next += count;
        b = add_four(b, x, next);
        next += count;
        c = add_four(c, x, next);
        next += count;
        d = add_four(d, x, next);
    }
    sums[0] = a;
    sums[1] = b;
    sums[2] = c;
    sums[3] = d;
}

/// (a * b) >> 32.
static inline int32_t high_word(int32_t a, int32_t b) { return (int32_t)((int64_t)a * b >> 32); }

#else

typedef int32_t input_t;

enum { INPUTS_PER_WORD = 1, ROWS = 2 };

static void open_inputs(input_t *x, const int8_t *values, int32_t zero, uint32_t count) {
    for (uint32_t i = 0; i < count; i++) {
        x[i] = values[i] - zero;
    }
}

/// One input at a time: more of them do not fit into the eight registers of Cortex-M0+.
static inline void add_rows(int32_t sums[ROWS], const input_t *inputs, const uint8_t *row,
                            uint32_t count) {
    int32_t a = sums[0], b = sums[1];
    for (uint32_t i = 0; i < count; i += 4, row += 4) {
        uint32_t first = word_at(row), second = word_at(row + count);
        int32_t x = inputs[i];
        a += x * (int8_t)first;
        b += x * (int8_t)second;
        x = inputs[i + 1];
        a += x * (int8_t)(first >> 8);
        b += x * (int8_t)(second >> 8);
        x = inputs[i + 2];
        a += x * (int8_t)(first >> 16);
        b += x * (int8_t)(second >> 16);
        x = inputs[i + 3];
        a += x * (int8_t)(first >> 24);
        b += x * (int8_t)(second >> 24);
    }
    sums[0] = a;
    sums[1] = b;
}

/// (a * b) >> 32 for b >= 0, in products of 16 bits: Cortex-M0+ has no long multiplication.
static inline int32_t high_word(int32_t a, int32_t b) {
    int32_t a_low = a & 0xFFFF, a_high = a >> 16, b_low = b & 0xFFFF, b_high = b >> 16;
    int32_t middle = a_high * b_low + (int32_t)((uint32_t)a_low * (uint32_t)b_low >> 16);
    int32_t carry = a_low * b_high + (middle & 0xFFFF);
    return a_high * b_high + (middle >> 16) + (carry >> 16);
}

#endif

/// A layer ///

/// (sum * multiplier + 2^(30 - shift)) >> (31 - shift) for a shift of -31 to 0: halving last rounds
/// to the nearest. |sum| < 2^29.
static inline int32_t rescale(int32_t sum, int32_t multiplier, int32_t shift) {
    return ((high_word(sum * 4, multiplier) >> -shift) + 1) >> 1;
}

static inline int8_t output_of(int32_t sum, const layer_t *layer, int32_t lowest) {
    int32_t scaled = rescale(sum, layer->multiplier, layer->shift);
    return (int8_t)noria_max(noria_clamp(scaled + layer->output_zero, -128, 127), lowest);
}

/// `inputs` and `outputs` are multiples of 4. The sums cannot overflow: |bias| <= 2^28,
/// 24 * 255 * 128 < 2^20.
static void layer_run(const uint8_t *data, const int8_t *values, uint32_t inputs, int8_t *results,
                      uint32_t outputs, bool rectified) {
    layer_t layer = layer_at(data, outputs);
    input_t x[NORIA_INPUTS / INPUTS_PER_WORD];
    open_inputs(x, values, layer.input_zero, inputs);
    int32_t lowest = rectified ? layer.output_zero : -128;
    for (uint32_t j = 0; j < outputs; j += ROWS) {
        int32_t sums[ROWS];
        UNROLLED for (uint32_t k = 0; k < ROWS; k++) {
            sums[k] = (int32_t)word_at(layer.bias + 4 * (j + k));
        }
        add_rows(sums, x, layer.weights + j * inputs, inputs);
        UNROLLED for (uint32_t k = 0; k < ROWS; k++) {
            results[j + k] = output_of(sums[k], &layer, lowest);
        }
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

static bool has_form(const uint8_t *image) {
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
    return second[5] == first[6] && head[5] == second[6] && head[6] == 0;
}

bool noria_engine_verify(const uint8_t *image) {
    return has_form(image) && self_test(image) == noria_engine_self_test(image);
}

bool noria_engine_seal(uint8_t *image) {
    if (!has_form(image)) {
        return false;
    }
    noria_put_u32(image + NORIA_MODEL_SELF_TEST_OFFSET, self_test(image));
    return true;
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
