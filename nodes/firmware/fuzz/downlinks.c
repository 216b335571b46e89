// Downlinks of one port, one after another, to a running node.
#include <string.h>

#include "bench.h"
#include "node.h"
#include "provisioned.h"

#define STEPS_LIMIT 12

static noria_fuzz_input_t input;

static int downlink(uint8_t *f_port, uint8_t *payload) {
    if (input.size == 0u) {
        return -1;
    }
    uint8_t stretch[255];
    const size_t length = noria_fuzz_take(&input, stretch);
    const size_t kept = length < NORIA_FUZZ_PAYLOAD_LIMIT ? length : NORIA_FUZZ_PAYLOAD_LIMIT;
    memcpy(payload, stretch, kept);
    *f_port = NORIA_FUZZ_PORT;
    return (int)kept;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    noria_fuzz_modem(downlink);
    noria_fuzz_running_node();
    input = (noria_fuzz_input_t){data, size};
    for (int step = 0; step < STEPS_LIMIT && input.size > 0u; step++) {
        noria_node_step();
    }
    noria_node_step(); // what the last one did has to be lived with
    return 0;
}
