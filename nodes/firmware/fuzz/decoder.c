// Recompressed model bytes, of both kinds of container.
#include "decoder.h"

#include <stdlib.h>
#include <string.h>

#include "bench.h"
#include "noria_shared.h"

static const noria_segment_t full[] = {NORIA_FULL_SEGMENTS};
static const noria_segment_t head[] = {NORIA_HEAD_SEGMENTS};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    _Alignas(4) uint8_t image[NORIA_MODEL_BYTES];
    uint8_t *exact = malloc(size > 0u ? size : 1u);
    memcpy(exact, data, size);
    (void)noria_decode(exact, size, full, sizeof full / sizeof full[0], image, sizeof image);
    (void)noria_decode(exact, size, head, sizeof head / sizeof head[0], image,
                       NORIA_MODEL_HEAD_BYTES);
    free(exact);
    return 0;
}
