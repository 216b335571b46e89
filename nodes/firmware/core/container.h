/// Opens a signed model container: the checks, in order, and the restored model.
#ifndef NORIA_CONTAINER_H
#define NORIA_CONTAINER_H

#include <stddef.h>
#include <stdint.h>

#include "noria_shared.h"

/// What a node trusts and runs.
typedef struct {
    const uint8_t *public_keys; // NORIA_PUBLIC_KEY_COUNT keys; all zero = none
    const uint8_t *running;     // the running model image, or NULL
    uint32_t highest_version;   // that ever ran here
    uint8_t board;              // noria_board_t
} noria_trust_t;

typedef struct {
    uint32_t version;
    uint32_t model_id;
} noria_release_t;

/// Checks length, format, target, version, base, signature; decodes; checks model id and self-test.
/// `image` is scratch until NORIA_REFUSAL_NONE is returned, then the model.
noria_refusal_t noria_container_open(const uint8_t *data, size_t length, const noria_trust_t *trust,
                                     uint8_t image[NORIA_MODEL_BYTES], noria_release_t *release);

/// First 4 bytes of BLAKE2b-256, little endian: the identity of a model or a backbone.
uint32_t noria_identity(const uint8_t *data, size_t length);

#endif
