// Whatever the modem says while the node starts it, joins, and sends: stretches of bytes, one after
// each command.

#include "bench.h"
#include "node.h"

#define STEPS 6

static noria_fuzz_input_t input;

static void hears_line(void) {
    uint8_t stretch[255];
    // Two stretches at the most: what comes at once, and what comes a second later.
    for (uint32_t delay_us = 10000; delay_us < 2000000 && input.size > 0u; delay_us += 1200000) {
        const size_t length = noria_fuzz_take(&input, stretch);
        if (length == 0u) {
            break;
        }
        noria_host_board_modem_says(stretch, (uint32_t)length,
                                    noria_host_board_now_us() + delay_us);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    noria_fuzz_line(hears_line);
    noria_fuzz_running_node();
    input = (noria_fuzz_input_t){data, size};
    for (int step = 0; step < STEPS; step++) {
        noria_node_step();
    }
    return 0;
}
