/// Decoder of recompressed numbers; the coding is described in shared_models/recompression.py. Any
/// bytes at all decode to something, in work bounded by what is asked for.
#ifndef NORIA_DECODER_H
#define NORIA_DECODER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "noria_shared.h"

typedef struct {
    const uint8_t *data;
    size_t length, position;
    uint32_t range, code;
} noria_decoder_t;

typedef struct {
    uint16_t zero; // probability of a zero bit, of 4096
    uint16_t rate; // adaptation shift
} noria_probability_t;

/// The adaptive probabilities of one kind of number.
typedef struct {
    noria_probability_t longer[NORIA_MAGNITUDE_BITS];
    noria_probability_t second[NORIA_MAGNITUDE_BITS + 1];
} noria_number_model_t;

void noria_decoder_begin(noria_decoder_t *decoder, const uint8_t *data, size_t length);

void noria_number_model_reset(noria_number_model_t *model);

/// Plain bits, at most 32.
uint32_t noria_decoder_bits(noria_decoder_t *decoder, uint32_t count);

/// A signed integer of at most 31 bits.
int32_t noria_decoder_number(noria_decoder_t *decoder, noria_number_model_t *model);

/// Whether nothing is left over.
bool noria_decoder_ended(const noria_decoder_t *decoder);

#endif
