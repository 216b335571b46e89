// A container from the air; with NORIA_FUZZ_SIGNS the target signs it, so that what follows the
// signature check is reached too.
#include "container.h"

#include <stdlib.h>
#include <string.h>

#include "bench.h"
#include "monocypher.h"
#include "provisioned.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    uint8_t bytes[NORIA_CONTAINER_LIMIT + 64];
    if (size > sizeof bytes - NORIA_SIGNATURE_SIZE) {
        return 0;
    }
    memcpy(bytes, data, size);
    size_t length = size;
#ifdef NORIA_FUZZ_SIGNS
    crypto_eddsa_sign(bytes + size, noria_fuzz_secret, bytes, size);
    length += NORIA_SIGNATURE_SIZE;
#endif
    const noria_trust_t trust = {
        .public_keys = noria_fuzz_public_keys,
        .update_key = noria_fuzz_update_key,
        .dev_eui = noria_fuzz_region + offsetof(noria_settings_t, dev_eui),
        .running = noria_fuzz_region + NORIA_FLASH_MODEL_A,
        .highest_version = 1,
        .board = NORIA_BOARD_STM32L072,
    };
    // Exact in size, so that one byte too far is seen.
    uint8_t *exact = malloc(length > 0u ? length : 1u);
    _Alignas(4) uint8_t image[NORIA_MODEL_BYTES];
    noria_release_t release;
    memcpy(exact, bytes, length);
    (void)noria_container_open(exact, length, &trust, image, &release);
    free(exact);
    return 0;
}
