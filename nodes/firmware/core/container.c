#include "container.h"

#include <stdbool.h>
#include <string.h>

#include "bytes.h"
#include "decoder.h"
#include "engine.h"
#include "monocypher.h"

static const uint8_t image_start[NORIA_MODEL_CODED_OFFSET] = NORIA_MODEL_START;
static const noria_segment_t full_segments[] = {NORIA_FULL_SEGMENTS};
static const noria_segment_t head_segments[] = {NORIA_HEAD_SEGMENTS};

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

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

static bool is_signed(const uint8_t *data, size_t length, const uint8_t *public_keys) {
    const uint8_t *signature = data + length - NORIA_SIGNATURE_SIZE;
    for (int i = 0; i < NORIA_PUBLIC_KEY_COUNT; i++) {
        const uint8_t *key = public_keys + i * NORIA_PUBLIC_KEY_SIZE;
        uint8_t key_id = (uint8_t)noria_identity(key, NORIA_PUBLIC_KEY_SIZE);
        if (key_id == data[NORIA_CONTAINER_KEY_ID_OFFSET] && !is_zero(key, NORIA_PUBLIC_KEY_SIZE) &&
            crypto_eddsa_check(signature, key, data, length - NORIA_SIGNATURE_SIZE) == 0) {
            return true;
        }
    }
    return false;
}

static bool restore(const uint8_t *payload, size_t length, bool full, const uint8_t *running,
                    uint8_t *image) {
    if (full) {
        memcpy(image, image_start, sizeof image_start);
        return noria_decode(payload, length, full_segments, COUNT(full_segments),
                            image + sizeof image_start, NORIA_MODEL_BYTES - sizeof image_start);
    }
    memcpy(image, running, NORIA_MODEL_HEAD_OFFSET);
    return noria_decode(payload, length, head_segments, COUNT(head_segments),
                        image + NORIA_MODEL_HEAD_OFFSET, NORIA_MODEL_HEAD_BYTES);
}

noria_refusal_t noria_container_open(const uint8_t *data, size_t length, const noria_trust_t *trust,
                                     uint8_t image[NORIA_MODEL_BYTES], noria_release_t *release) {
    if (length < NORIA_CONTAINER_HEADER_SIZE + NORIA_SIGNATURE_SIZE) {
        return NORIA_REFUSAL_LENGTH;
    }
    size_t payload_length = noria_get_u16(data + NORIA_CONTAINER_PAYLOAD_LENGTH_OFFSET);
    if (payload_length > NORIA_CONTAINER_PAYLOAD_LIMIT ||
        length != NORIA_CONTAINER_HEADER_SIZE + payload_length + NORIA_SIGNATURE_SIZE) {
        return NORIA_REFUSAL_LENGTH;
    }
    uint8_t kind = data[NORIA_CONTAINER_KIND_OFFSET];
    bool full = kind == NORIA_CONTAINER_KIND_FULL;
    if (data[NORIA_CONTAINER_FORMAT_OFFSET] != NORIA_CONTAINER_FORMAT ||
        (!full && kind != NORIA_CONTAINER_KIND_HEAD)) {
        return NORIA_REFUSAL_FORMAT;
    }
    if (!(data[NORIA_CONTAINER_BOARD_MASK_OFFSET] >> (trust->board - 1) & 1)) {
        return NORIA_REFUSAL_TARGET;
    }
    release->version = noria_get_u32(data + NORIA_CONTAINER_VERSION_OFFSET);
    release->model_id = noria_get_u32(data + NORIA_CONTAINER_MODEL_ID_OFFSET);
    if (release->version <= trust->highest_version) {
        return NORIA_REFUSAL_VERSION;
    }
    uint32_t base_id = noria_get_u32(data + NORIA_CONTAINER_BASE_ID_OFFSET);
    if (full ? base_id != 0
             : trust->running == NULL || base_id != noria_engine_backbone_id(trust->running)) {
        return NORIA_REFUSAL_BASE;
    }
    if (!is_signed(data, length, trust->public_keys)) {
        return NORIA_REFUSAL_SIGNATURE;
    }
    if (!restore(data + NORIA_CONTAINER_HEADER_SIZE, payload_length, full, trust->running, image)) {
        return NORIA_REFUSAL_DECODE;
    }
    if (noria_identity(image, NORIA_MODEL_BYTES) != release->model_id) {
        return NORIA_REFUSAL_MODEL_ID;
    }
    bool is_sound =
        noria_engine_verify(image) &&
        noria_engine_backbone_id(image) ==
            noria_identity(image + NORIA_MODEL_BACKBONE_OFFSET, NORIA_MODEL_BACKBONE_BYTES);
    return is_sound ? NORIA_REFUSAL_NONE : NORIA_REFUSAL_SELF_TEST;
}
