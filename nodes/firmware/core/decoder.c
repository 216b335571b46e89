#include "decoder.h"

#include "bytes.h"
#include "noria_shared.h"

#define TOP (1UL << 24)

/// The range decoder ///

typedef struct {
    const uint8_t *data;
    size_t length, position;
    uint32_t range, code;
} coder_t;

typedef struct {
    uint16_t zero; // probability of a zero bit, of 4096
    uint16_t rate; // adaptation shift
} probability_t;

typedef struct {
    probability_t longer[NORIA_MAGNITUDE_BITS];
    probability_t second[NORIA_MAGNITUDE_BITS + 1];
} model_t;

static void read_byte(coder_t *coder) {
    uint8_t byte = coder->position < coder->length ? coder->data[coder->position] : 0;
    coder->code = coder->code << 8 | byte;
    coder->position++;
}

static void normalise(coder_t *coder) {
    while (coder->range < TOP) {
        coder->range <<= 8;
        read_byte(coder);
    }
}

static uint32_t adaptive_bit(coder_t *coder, probability_t *p) {
    uint32_t bound = (coder->range >> NORIA_PROBABILITY_BITS) * p->zero;
    uint32_t bit = coder->code >= bound;
    if (bit) {
        coder->code -= bound;
        coder->range -= bound;
        p->zero = (uint16_t)(p->zero - (p->zero >> p->rate));
    } else {
        coder->range = bound;
        p->zero = (uint16_t)(p->zero + (((1 << NORIA_PROBABILITY_BITS) - p->zero) >> p->rate));
    }
    if (p->rate < NORIA_LAST_RATE) {
        p->rate++;
    }
    normalise(coder);
    return bit;
}

static uint32_t plain_bits(coder_t *coder, uint32_t count) {
    uint32_t value = 0;
    for (; count > 0; count--) {
        coder->range >>= 1;
        uint32_t bit = coder->code >= coder->range;
        if (bit) {
            coder->code -= coder->range;
        }
        value = value << 1 | bit;
        normalise(coder);
    }
    return value;
}

/// Numbers ///

static void reset(model_t *model) {
    for (int i = 0; i < NORIA_MAGNITUDE_BITS; i++) {
        model->longer[i] = (probability_t){NORIA_LONGER_START, NORIA_FIRST_RATE};
    }
    for (int i = 0; i <= NORIA_MAGNITUDE_BITS; i++) {
        model->second[i] = (probability_t){1 << (NORIA_PROBABILITY_BITS - 1), NORIA_FIRST_RATE};
    }
}

static int32_t number(coder_t *coder, model_t *model) {
    uint32_t bits = 0;
    while (bits < NORIA_MAGNITUDE_BITS && adaptive_bit(coder, &model->longer[bits])) {
        bits++;
    }
    if (bits == 0) {
        return 0;
    }
    uint32_t negative = plain_bits(coder, 1);
    uint32_t magnitude = 1;
    if (bits > 1) {
        magnitude = 2 | adaptive_bit(coder, &model->second[bits]);
        magnitude = magnitude << (bits - 2) | plain_bits(coder, bits - 2);
    }
    return negative ? -(int32_t)magnitude : (int32_t)magnitude;
}

bool noria_decode(const uint8_t *data, size_t length, const noria_segment_t *segments,
                  size_t segment_count, uint8_t *out, size_t capacity) {
    coder_t coder = {data, length, 0, 0xFFFFFFFFu, 0};
    for (int i = 0; i < 4; i++) {
        read_byte(&coder);
    }
    model_t bytes, words; // a model per integer type, kept across segments
    reset(&bytes);
    reset(&words);
    for (size_t s = 0; s < segment_count; s++) {
        size_t width = segments[s].type == NORIA_SEGMENT_TYPE_INT32 ? 4 : 1;
        if (segments[s].count * width > capacity) {
            return false;
        }
        capacity -= segments[s].count * width;
        for (uint16_t i = 0; i < segments[s].count; i++) {
            if (segments[s].type == NORIA_SEGMENT_TYPE_RAW) {
                out = noria_put_u8(out, (uint8_t)plain_bits(&coder, 8));
            } else if (segments[s].type == NORIA_SEGMENT_TYPE_INT8) {
                int32_t value = number(&coder, &bytes);
                if (value < INT8_MIN || value > INT8_MAX) {
                    return false;
                }
                out = noria_put_u8(out, (uint8_t)value);
            } else {
                out = noria_put_u32(out, (uint32_t)number(&coder, &words));
            }
        }
    }
    return length <= coder.position;
}
