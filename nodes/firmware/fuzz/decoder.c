// Payloads, of every kind that holds a model.
#include "restore.h"

#include <stdlib.h>
#include <string.h>

#include "bench.h"
#include "hal.h"
#include "provisioned.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    _Alignas(4) uint8_t image[NORIA_MODEL_BYTES];
    uint8_t *exact = malloc(size > 0u ? size : 1u);
    memcpy(exact, data, size);
    const uint8_t *running = noria_fuzz_region + NORIA_FLASH_MODEL_A;
    (void)noria_restore_model(exact, size, NULL, image);
    (void)noria_restore_model(exact, size, running, image);
    (void)noria_restore_head(exact, size, running, false, image);
    (void)noria_restore_head(exact, size, running, true, image);
    free(exact);
    return 0;
}
