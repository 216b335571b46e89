#include "restore.h"

#include <string.h>

#include "bytes.h"
#include "decoder.h"

#define INPUT_ZERO 5u // in a layer's header
#define OUTPUT_ZERO 6u

/// Payload, and the probabilities of biases and weights.
typedef struct {
    noria_decoder_t decoder;
    noria_number_model_t biases, weights;
} source_t;

/// Where numbers go.
typedef struct {
    const uint8_t *base; // they are differences from these; NULL = from zero
    uint8_t *out;
    uint32_t count;
    uint32_t width; // bytes of each
    uint32_t row;   // from FIRST_LIKE rows on, differences from the row before; 0 = never
} numbers_t;

static void begin_part(source_t *source) {
    noria_number_model_reset(&source->biases);
    noria_number_model_reset(&source->weights);
}

static uint32_t get(const uint8_t *numbers, uint32_t i, uint32_t width) {
    if (numbers == NULL) {
        return 0;
    }
    return width == 1 ? (uint32_t)(int32_t)(int8_t)numbers[i] : noria_get_u32(numbers + 4 * i);
}

static bool restore_numbers(source_t *source, noria_number_model_t *model, const numbers_t *n) {
    uint8_t *out = n->out;
    const uint32_t zeros = noria_decoder_bits(&source->decoder, NORIA_ZEROS_BITS);
    for (uint32_t i = 0; i < n->count; i++) {
        uint32_t value = (uint32_t)noria_decoder_number(&source->decoder, model) << zeros;
        value += get(n->base, i, n->width);
        if (n->row != 0 && i >= NORIA_FIRST_LIKE * n->row) {
            value += get(out, i - n->row, n->width) - get(n->base, i - n->row, n->width);
        }
        if (n->width == 4) {
            noria_put_u32(out + 4 * i, value);
            continue;
        }
        if (value + 128u > 255u) {
            return false;
        }
        out[i] = (uint8_t)value;
    }
    return true;
}

static const uint8_t *part_of(const uint8_t *base, uint32_t offset) {
    return base == NULL ? NULL : base + offset;
}

// A layer whose header is in place.
static bool restore_layer(source_t *source, const uint8_t *base, uint8_t *layer, uint32_t inputs,
                          uint32_t outputs) {
    const uint32_t biases = NORIA_LAYER_HEADER_BYTES, weights = biases + 4 * outputs;
    const numbers_t bias = {part_of(base, biases), layer + biases, outputs, 4, 0};
    const numbers_t weight = {part_of(base, weights), layer + weights, inputs * outputs, 1, 0};
    return restore_numbers(source, &source->biases, &bias) &&
           restore_numbers(source, &source->weights, &weight);
}

static void restore_rescaling(source_t *source, uint8_t *layer) {
    noria_put_u32(layer, noria_decoder_bits(&source->decoder, NORIA_MULTIPLIER_BITS));
    layer[4] = (uint8_t)(0u - noria_decoder_bits(&source->decoder, NORIA_RESCALING_SHIFT_BITS));
}

static void restore_scale(source_t *source, uint8_t *layer) {
    static const uint32_t multipliers[NORIA_GRID_PER_OCTAVE] = NORIA_GRID_MULTIPLIERS;
    const uint32_t code = noria_decoder_bits(&source->decoder, NORIA_SCALE_BITS);
    if (code >= NORIA_OFF_GRID) {
        restore_rescaling(source, layer);
        return;
    }
    noria_put_u32(layer, multipliers[code % NORIA_GRID_PER_OCTAVE]);
    layer[4] = (uint8_t)(0u - code / NORIA_GRID_PER_OCTAVE);
}

// The head, and that nothing is left over.
static bool restore_head(source_t *source, const uint8_t *base, uint8_t *image) {
    const uint32_t biases = NORIA_MODEL_HEAD_OFFSET + NORIA_LAYER_HEADER_BYTES;
    const uint32_t weights = biases + 4 * NORIA_OUTPUTS;
    uint8_t *head = image + NORIA_MODEL_HEAD_OFFSET;
    begin_part(source);
    const uint8_t *from =
        base != NULL && noria_decoder_bits(&source->decoder, 1) != 0 ? base : NULL;
    if (from != NULL) {
        memcpy(head, from + NORIA_MODEL_HEAD_OFFSET, NORIA_LAYER_HEADER_BYTES);
    } else {
        memset(head, 0, NORIA_LAYER_HEADER_BYTES);
        restore_scale(source, head);
    }
    head[INPUT_ZERO] = image[NORIA_MODEL_SECOND_OFFSET + OUTPUT_ZERO];
    const numbers_t bias = {part_of(from, biases), image + biases, NORIA_OUTPUTS, 4, 1};
    const numbers_t weight = {part_of(from, weights), image + weights,
                              NORIA_OUTPUTS * NORIA_ACTIVATIONS, 1, NORIA_ACTIVATIONS};
    return restore_numbers(source, &source->biases, &bias) &&
           restore_numbers(source, &source->weights, &weight) &&
           noria_decoder_ended(&source->decoder);
}

// Headers of the hidden layers: the base's, or what the payload says.
static void restore_header(source_t *source, const uint8_t *base, uint8_t *layer) {
    if (base != NULL) {
        memcpy(layer, base, NORIA_LAYER_HEADER_BYTES);
        return;
    }
    restore_rescaling(source, layer);
    layer[7] = 0;
}

bool noria_restore_model(const uint8_t *payload, size_t length, const uint8_t *base,
                         uint8_t image[NORIA_MODEL_BYTES]) {
    static const uint8_t start[NORIA_MODEL_BACKBONE_ID_OFFSET] = NORIA_MODEL_START;
    uint8_t *first = image + NORIA_MODEL_BACKBONE_OFFSET;
    uint8_t *second = image + NORIA_MODEL_SECOND_OFFSET;
    source_t source;
    noria_decoder_begin(&source.decoder, payload, length);
    begin_part(&source);
    memcpy(image, start, sizeof start);
    restore_header(&source, part_of(base, NORIA_MODEL_BACKBONE_OFFSET), first);
    if (base == NULL) {
        first[INPUT_ZERO] = (uint8_t)noria_decoder_bits(&source.decoder, 8);
        first[OUTPUT_ZERO] = (uint8_t)noria_decoder_bits(&source.decoder, 8);
    }
    if (!restore_layer(&source, part_of(base, NORIA_MODEL_BACKBONE_OFFSET), first, NORIA_INPUTS,
                       NORIA_HIDDEN)) {
        return false;
    }
    restore_header(&source, part_of(base, NORIA_MODEL_SECOND_OFFSET), second);
    if (base == NULL) {
        second[INPUT_ZERO] = first[OUTPUT_ZERO];
        second[OUTPUT_ZERO] = (uint8_t)noria_decoder_bits(&source.decoder, 8);
    }
    return restore_layer(&source, part_of(base, NORIA_MODEL_SECOND_OFFSET), second, NORIA_HIDDEN,
                         NORIA_ACTIVATIONS) &&
           restore_head(&source, base, image);
}

bool noria_restore_head(const uint8_t *payload, size_t length, const uint8_t *running,
                        bool relative, uint8_t image[NORIA_MODEL_BYTES]) {
    source_t source;
    noria_decoder_begin(&source.decoder, payload, length);
    memcpy(image, running, NORIA_MODEL_HEAD_OFFSET);
    return restore_head(&source, relative ? running : NULL, image);
}
