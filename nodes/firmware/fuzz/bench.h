/// What every target stands on: a provisioned node on the host's board that can be put back, and a
/// modem that answers.
#ifndef NORIA_FUZZ_BENCH_H
#define NORIA_FUZZ_BENCH_H

#include <stddef.h>
#include <stdint.h>

#include "board.h"

#define NORIA_FUZZ_PAYLOAD_LIMIT 222

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/// A reset: the firmware's RAM as the start-up code lays it out, the board at time 0, flash as it
/// left the factory.
void noria_fuzz_reset(void);

/// Remembers RAM and flash as they are; noria_fuzz_return() comes back to them, at the same time.
void noria_fuzz_keep(void);
void noria_fuzz_return(void);

/// A provisioned node just after its boot, the same at every call.
void noria_fuzz_running_node(void);

/// The answers to the node's commands: all that follows a SEND comes from `downlink`, which writes
/// at most 222 bytes and returns how many, or -1 for none.
typedef int (*noria_fuzz_downlink_t)(uint8_t *f_port, uint8_t *payload);
void noria_fuzz_modem(noria_fuzz_downlink_t downlink);

/// Instead of that modem: called after each line the node has written.
void noria_fuzz_line(void (*hears_line)(void));

/// The next stretch of an input: one byte of length, then so many bytes, fewer at its end.
typedef struct {
    const uint8_t *data;
    size_t size;
} noria_fuzz_input_t;

size_t noria_fuzz_take(noria_fuzz_input_t *input, uint8_t *out);

#endif
