/// Opens a container: the checks, in order, and the restored model or the new key.
#ifndef NORIA_CONTAINER_H
#define NORIA_CONTAINER_H

#include <stddef.h>
#include <stdint.h>

#include "noria_shared.h"

/// What a node is, trusts and runs.
typedef struct {
    const uint8_t *public_keys; // NORIA_PUBLIC_KEY_COUNT keys; all zero = none
    const uint8_t *update_key;  // proves personal heads; all zero = none
    const uint8_t *dev_eui;     // 8 bytes, as printed
    const uint8_t *running;     // the running model image, or NULL
    uint32_t highest_version;   // of a model that ever ran here
    uint32_t keys_version;      // of the last change of keys
    uint8_t board;              // noria_board_t
} noria_trust_t;

typedef struct {
    uint32_t version;
    uint32_t model_id;
    const uint8_t *key; // a change of keys: the new one, in the container; NULL = a model
    uint8_t key_place;  // which of the keys it replaces
} noria_release_t;

/// Checks length, format, target, version, base, proof; decodes; checks form and model id.
/// `image` is scratch until NORIA_REFUSAL_NONE is returned, then the model, unless
/// `release->key` says that it was a change of keys.
noria_refusal_t noria_container_open(const uint8_t *data, size_t length, const noria_trust_t *trust,
                                     uint8_t image[NORIA_MODEL_BYTES], noria_release_t *release);

/// First 4 bytes of BLAKE2b-256, little endian: the identity of a model, a backbone or a key.
uint32_t noria_identity(const uint8_t *data, size_t length);

#endif
