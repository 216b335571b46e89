#include "decoder.h"

#define TOP (1UL << 24)

static void read_byte(noria_decoder_t *decoder) {
    uint8_t byte = decoder->position < decoder->length ? decoder->data[decoder->position] : 0;
    decoder->code = decoder->code << 8 | byte;
    decoder->position++;
}

static void normalise(noria_decoder_t *decoder) {
    while (decoder->range < TOP) {
        decoder->range <<= 8;
        read_byte(decoder);
    }
}

static uint32_t adaptive_bit(noria_decoder_t *decoder, noria_probability_t *p) {
    uint32_t bound = (decoder->range >> NORIA_PROBABILITY_BITS) * p->zero;
    uint32_t bit = decoder->code >= bound;
    if (bit) {
        decoder->code -= bound;
        decoder->range -= bound;
        p->zero = (uint16_t)(p->zero - (p->zero >> p->rate));
    } else {
        decoder->range = bound;
        p->zero = (uint16_t)(p->zero + (((1 << NORIA_PROBABILITY_BITS) - p->zero) >> p->rate));
    }
    if (p->rate < NORIA_LAST_RATE) {
        p->rate++;
    }
    normalise(decoder);
    return bit;
}

void noria_decoder_begin(noria_decoder_t *decoder, const uint8_t *data, size_t length) {
    *decoder = (noria_decoder_t){data, length, 0, 0xFFFFFFFFu, 0};
    for (int i = 0; i < 4; i++) {
        read_byte(decoder);
    }
}

void noria_number_model_reset(noria_number_model_t *model) {
    for (int i = 0; i < NORIA_MAGNITUDE_BITS; i++) {
        model->longer[i] = (noria_probability_t){NORIA_LONGER_START, NORIA_FIRST_RATE};
    }
    for (int i = 0; i <= NORIA_MAGNITUDE_BITS; i++) {
        model->second[i] =
            (noria_probability_t){1 << (NORIA_PROBABILITY_BITS - 1), NORIA_FIRST_RATE};
    }
}

uint32_t noria_decoder_bits(noria_decoder_t *decoder, uint32_t count) {
    uint32_t value = 0;
    for (; count > 0; count--) {
        decoder->range >>= 1;
        uint32_t bit = decoder->code >= decoder->range;
        if (bit) {
            decoder->code -= decoder->range;
        }
        value = value << 1 | bit;
        normalise(decoder);
    }
    return value;
}

int32_t noria_decoder_number(noria_decoder_t *decoder, noria_number_model_t *model) {
    uint32_t bits = 0;
    while (bits < NORIA_MAGNITUDE_BITS && adaptive_bit(decoder, &model->longer[bits])) {
        bits++;
    }
    if (bits == 0) {
        return 0;
    }
    uint32_t negative = noria_decoder_bits(decoder, 1);
    uint32_t magnitude = 1;
    if (bits > 1) {
        magnitude = 2 | adaptive_bit(decoder, &model->second[bits]);
        magnitude = magnitude << (bits - 2) | noria_decoder_bits(decoder, bits - 2);
    }
    return negative ? -(int32_t)magnitude : (int32_t)magnitude;
}

bool noria_decoder_ended(const noria_decoder_t *decoder) {
    return decoder->length <= decoder->position;
}
