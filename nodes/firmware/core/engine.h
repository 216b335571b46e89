/// The int8 network 24-16-8-4 over a model image in place; image and arithmetic are described in
/// shared_models/network.py. Equal to LiteRT's reference kernels with single rounding. An image
/// lies at a multiple of 4.
#ifndef NORIA_ENGINE_H
#define NORIA_ENGINE_H

#include <stdbool.h>
#include <stdint.h>

#include "noria_shared.h"

/// Whether `image` (NORIA_MODEL_BYTES) has the right form and its self-test agrees. Who must know
/// that the backbone id belongs to the backbone compares hashes besides.
bool noria_engine_verify(const uint8_t *image);

/// Computes the self-test of an image that lacks it. False: it has not the right form.
bool noria_engine_seal(uint8_t *image);

/// Runs a verified image.
void noria_engine_run(const uint8_t *image, const int8_t features[NORIA_INPUTS],
                      int8_t activations[NORIA_ACTIVATIONS], int8_t outputs[NORIA_OUTPUTS]);

/// What a model says of itself.
uint32_t noria_engine_backbone_id(const uint8_t *image);
uint32_t noria_engine_self_test(const uint8_t *image);

/// Zero point of the activations: phi counts from it.
int8_t noria_engine_activation_zero(const uint8_t *image);

#endif
