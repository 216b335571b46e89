// A settings page, with a checksum that holds or not, and the first wakes of a node that has it.
#include <string.h>

#include "bench.h"
#include "bytes.h"
#include "crc.h"
#include "flash.h"
#include "node.h"
#include "noria_shared.h"

static int nothing(uint8_t *f_port, uint8_t *payload) {
    (void)f_port;
    (void)payload;
    return -1;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < 1u) {
        return 0;
    }
    uint8_t page[NORIA_FLASH_SETTINGS_SIZE] = {0};
    memcpy(page, data + 1, size - 1u < sizeof page ? size - 1u : sizeof page);
    if (data[0] % 4u != 0u) {
        noria_put_u32(page + NORIA_SETTINGS_SIZE - 4,
                      noria_crc32(0, page, NORIA_SETTINGS_SIZE - 4));
    }
    noria_fuzz_modem(nothing);
    noria_fuzz_reset();
    noria_host_flash_load(NORIA_FLASH_SETTINGS, page, sizeof page);
    noria_node_boot();
    for (int step = 0; step < 3; step++) {
        noria_node_step();
    }
    return 0;
}
