/// Restores a model image from an update's payload; what is coded in which order is described in
/// shared_models/model_coding.py.
#ifndef NORIA_RESTORE_H
#define NORIA_RESTORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "noria_shared.h"

/// The whole model: from nothing, or as a change of `base`. Backbone id and self-test stay open:
/// noria_engine_seal computes them. False: a number does not fit, or input is left over.
bool noria_restore_model(const uint8_t *payload, size_t length, const uint8_t *base,
                         uint8_t image[NORIA_MODEL_BYTES]);

/// The head above `running`'s backbone: from nothing, or `relative`: perhaps as a change of its
/// head.
bool noria_restore_head(const uint8_t *payload, size_t length, const uint8_t *running,
                        bool relative, uint8_t image[NORIA_MODEL_BYTES]);

#endif
