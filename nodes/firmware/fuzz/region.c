// The whole data region at boot: patches (offset, length, bytes) on a node's own flash, then a
// reset and two wakes.
#include <stdbool.h>

#include "bench.h"
#include "flash.h"
#include "node.h"
#include "provisioned.h"

#define WAKES_BEFORE 100 // more than a day: the state has been saved

static int nothing(uint8_t *f_port, uint8_t *payload) {
    (void)f_port;
    (void)payload;
    return -1;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static bool is_used;
    static uint8_t used[NORIA_FLASH_SIZE];
    noria_fuzz_modem(nothing);
    noria_fuzz_reset();
    if (!is_used) {
        is_used = true;
        noria_node_boot();
        for (int wake = 0; wake < WAKES_BEFORE; wake++) {
            noria_node_step();
        }
        noria_flash_read(0, used, sizeof used);
        noria_fuzz_reset();
    }
    noria_host_flash_load(0, used, sizeof used);
    noria_fuzz_input_t input = {data, size};
    while (input.size > 2u) {
        uint8_t patch[255];
        const uint32_t at = (uint32_t)(input.data[0] | input.data[1] << 8) % NORIA_FLASH_SIZE;
        input.data += 2;
        input.size -= 2u;
        const size_t length = noria_fuzz_take(&input, patch);
        const size_t room = NORIA_FLASH_SIZE - at;
        noria_host_flash_load(at, patch, (uint32_t)(length < room ? length : room));
    }
    noria_node_boot();
    noria_node_step();
    noria_node_step();
    return 0;
}
