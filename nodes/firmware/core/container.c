#include "container.h"

#include <stdbool.h>
#include <string.h>

#include "bytes.h"
#include "engine.h"
#include "monocypher.h"
#include "restore.h"

#define NOBODY NORIA_PUBLIC_KEY_COUNT

/// The fields of a container, wherever its kind has them.
typedef struct {
    uint8_t kind;
    const uint8_t *payload;
    size_t payload_length;
    uint32_t base_id;
} parts_t;

uint32_t noria_identity(const uint8_t *data, size_t length) {
    uint8_t hash[32];
    crypto_blake2b(hash, sizeof hash, data, length);
    return noria_get_u32(hash);
}

static bool is_zero(const uint8_t *data, size_t length) {
    uint8_t any = 0;
    for (size_t i = 0; i < length; i++) {
        any |= data[i];
    }
    return any == 0;
}

static bool is_personal(const uint8_t *data) {
    return data[0] == (NORIA_CONTAINER_FORMAT << 4 | NORIA_CONTAINER_KIND_PERSONAL);
}

static const uint8_t *key_at(const noria_trust_t *trust, uint8_t place) {
    return trust->public_keys + (size_t)place * NORIA_PUBLIC_KEY_SIZE;
}

/// Proof ///

// The place of the key that signed; NOBODY if none did.
static uint8_t signer(const uint8_t *data, size_t length, const noria_trust_t *trust) {
    const uint8_t *signature = data + length - NORIA_SIGNATURE_SIZE;
    for (uint8_t i = 0; i < NORIA_PUBLIC_KEY_COUNT; i++) {
        const uint8_t *key = key_at(trust, i);
        uint8_t key_id = (uint8_t)noria_identity(key, NORIA_PUBLIC_KEY_SIZE);
        if (key_id == data[NORIA_CONTAINER_KEY_ID_OFFSET] && !is_zero(key, NORIA_PUBLIC_KEY_SIZE) &&
            crypto_eddsa_check(signature, key, data, length - NORIA_SIGNATURE_SIZE) == 0) {
            return i;
        }
    }
    return NOBODY;
}

static bool is_authentic(const uint8_t *data, size_t length, const noria_trust_t *trust) {
    if (is_zero(trust->update_key, NORIA_UPDATE_KEY_SIZE)) {
        return false;
    }
    uint8_t base_id[4], tag[NORIA_TAG_SIZE], difference = 0;
    noria_put_u32(base_id, noria_identity(trust->running, NORIA_MODEL_BYTES));
    crypto_blake2b_ctx hash;
    crypto_blake2b_keyed_init(&hash, sizeof tag, trust->update_key, NORIA_UPDATE_KEY_SIZE);
    crypto_blake2b_update(&hash, data, length - sizeof tag);
    crypto_blake2b_update(&hash, trust->dev_eui, 8);
    crypto_blake2b_update(&hash, base_id, sizeof base_id);
    crypto_blake2b_final(&hash, tag);
    for (size_t i = 0; i < sizeof tag; i++) { // in constant time
        difference |= tag[i] ^ data[length - sizeof tag + i];
    }
    return difference == 0;
}

/// Fields ///

static noria_refusal_t read_parts(const uint8_t *data, size_t length, const noria_trust_t *trust,
                                  parts_t *parts, noria_release_t *release) {
    const bool personal = length > 0 && is_personal(data);
    const size_t header = personal ? NORIA_PERSONAL_HEADER_SIZE : NORIA_CONTAINER_HEADER_SIZE;
    const size_t proof = personal ? NORIA_TAG_SIZE : NORIA_SIGNATURE_SIZE;
    if (length < header + proof || length > header + NORIA_CONTAINER_PAYLOAD_LIMIT + proof) {
        return NORIA_REFUSAL_LENGTH;
    }
    *parts = (parts_t){
        .kind = data[0] & 15u, .payload = data + header, .payload_length = length - header - proof};
    if (data[0] >> 4 != NORIA_CONTAINER_FORMAT || parts->kind < NORIA_CONTAINER_KIND_FULL ||
        parts->kind > NORIA_CONTAINER_KIND_KEYS) {
        return NORIA_REFUSAL_FORMAT;
    }
    if (personal) {
        release->version = noria_get_u16(data + NORIA_PERSONAL_VERSION_OFFSET);
        release->model_id = noria_get_u32(data + NORIA_PERSONAL_MODEL_ID_OFFSET);
        parts->base_id = data[NORIA_PERSONAL_BASE_OFFSET];
        return NORIA_REFUSAL_NONE;
    }
    release->version = noria_get_u32(data + NORIA_CONTAINER_VERSION_OFFSET);
    release->model_id = noria_get_u32(data + NORIA_CONTAINER_MODEL_ID_OFFSET);
    parts->base_id = noria_get_u32(data + NORIA_CONTAINER_BASE_ID_OFFSET);
    const bool is_target = data[NORIA_CONTAINER_BOARD_MASK_OFFSET] >> (trust->board - 1) & 1;
    return is_target ? NORIA_REFUSAL_NONE : NORIA_REFUSAL_TARGET;
}

static bool is_base_right(const parts_t *parts, const uint8_t *running) {
    switch (parts->kind) {
    case NORIA_CONTAINER_KIND_FULL:
    case NORIA_CONTAINER_KIND_KEYS:
        return parts->base_id == 0;
    case NORIA_CONTAINER_KIND_HEAD:
        return running != NULL && parts->base_id == noria_engine_backbone_id(running);
    case NORIA_CONTAINER_KIND_DELTA:
        return running != NULL && parts->base_id == noria_identity(running, NORIA_MODEL_BYTES);
    default:
        return running != NULL &&
               parts->base_id == (noria_identity(running, NORIA_MODEL_BYTES) & 0xFFu);
    }
}

/// Contents ///

// The release key may replace itself; the recovery key may replace either.
static noria_refusal_t open_keys(const parts_t *parts, uint8_t by, const noria_trust_t *trust,
                                 noria_release_t *release) {
    const uint8_t place = parts->payload_length > 0 ? parts->payload[0] : NORIA_PUBLIC_KEY_COUNT;
    if (parts->payload_length != NORIA_KEYS_PAYLOAD_SIZE || place >= NORIA_PUBLIC_KEY_COUNT) {
        return NORIA_REFUSAL_DECODE;
    }
    const uint8_t *key = parts->payload + 1;
    if (noria_identity(key, NORIA_PUBLIC_KEY_SIZE) != release->model_id) {
        return NORIA_REFUSAL_MODEL_ID;
    }
    const bool is_locked = by == NORIA_RELEASE_KEY && place == NORIA_RECOVERY_KEY &&
                           !is_zero(key_at(trust, NORIA_RECOVERY_KEY), NORIA_PUBLIC_KEY_SIZE);
    if (is_locked ||
        memcmp(key, key_at(trust, (uint8_t)(1u - place)), NORIA_PUBLIC_KEY_SIZE) == 0) {
        return NORIA_REFUSAL_BASE;
    }
    release->key = key;
    release->key_place = place;
    return NORIA_REFUSAL_NONE;
}

static bool restore(const parts_t *parts, const uint8_t *running, uint8_t *image) {
    if (parts->kind == NORIA_CONTAINER_KIND_FULL || parts->kind == NORIA_CONTAINER_KIND_DELTA) {
        const uint8_t *base = parts->kind == NORIA_CONTAINER_KIND_DELTA ? running : NULL;
        return noria_restore_model(parts->payload, parts->payload_length, base, image);
    }
    return noria_restore_head(parts->payload, parts->payload_length, running,
                              parts->kind == NORIA_CONTAINER_KIND_PERSONAL, image);
}

static noria_refusal_t open_model(const parts_t *parts, const uint8_t *running, uint32_t model_id,
                                  uint8_t *image) {
    if (!restore(parts, running, image)) {
        return NORIA_REFUSAL_DECODE;
    }
    noria_put_u32(image + NORIA_MODEL_BACKBONE_ID_OFFSET,
                  noria_identity(image + NORIA_MODEL_BACKBONE_OFFSET, NORIA_MODEL_BACKBONE_BYTES));
    if (!noria_engine_seal(image)) {
        return NORIA_REFUSAL_SELF_TEST;
    }
    return noria_identity(image, NORIA_MODEL_BYTES) == model_id ? NORIA_REFUSAL_NONE
                                                                : NORIA_REFUSAL_MODEL_ID;
}

noria_refusal_t noria_container_open(const uint8_t *data, size_t length, const noria_trust_t *trust,
                                     uint8_t image[NORIA_MODEL_BYTES], noria_release_t *release) {
    parts_t parts;
    release->key = NULL;
    const noria_refusal_t refusal = read_parts(data, length, trust, &parts, release);
    if (refusal != NORIA_REFUSAL_NONE) {
        return refusal;
    }
    const bool keys = parts.kind == NORIA_CONTAINER_KIND_KEYS;
    if (release->version <= (keys ? trust->keys_version : trust->highest_version)) {
        return NORIA_REFUSAL_VERSION;
    }
    if (!is_base_right(&parts, trust->running)) {
        return NORIA_REFUSAL_BASE;
    }
    uint8_t by = NOBODY;
    if (parts.kind != NORIA_CONTAINER_KIND_PERSONAL) {
        by = signer(data, length, trust);
    } else if (is_authentic(data, length, trust)) {
        by = NORIA_RELEASE_KEY;
    }
    if (by == NOBODY) {
        return NORIA_REFUSAL_SIGNATURE;
    }
    return keys ? open_keys(&parts, by, trust, release)
                : open_model(&parts, trust->running, release->model_id, image);
}
