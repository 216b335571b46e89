// A model image: form, layers, and the arithmetic of the self-test.
#include "engine.h"

#include <string.h>

#include "bench.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    _Alignas(4) uint8_t image[NORIA_MODEL_BYTES] = {0};
    memcpy(image, data, size < sizeof image ? size : sizeof image);
    (void)noria_engine_verify(image);
    return 0;
}
