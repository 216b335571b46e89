// Native block hook for Unicorn: adds up instruction costs from static tables, one entry per
// half-word of flash, so that counting costs a few nanoseconds a block and no call into Python.
// And where the engine stopped, in one call from Python: a node stops some fifty times from one
// wake to the next, and each crossing costs as much as what it executes in between.
#include <stdint.h>

typedef struct {
    uint32_t base;                    // address of the first half-word
    uint32_t count;                   // half-words covered
    const uint32_t *cycles_before;    // prefix sums, count + 1 entries
    const uint8_t *after_conditional; // 1 at the half-word that follows a conditional branch
    uint64_t cycles;
    uint64_t blocks;
    uint64_t limit;                  // stop the engine when this many have been counted
    int (*stop)(void *);             // uc_emu_stop
    uint32_t last_end;               // end of the block counted last; 0: none
    const uint32_t *literals_before; // prefix sums of literal loads, count + 1 entries
    uint32_t taken_cycles;           // what a taken conditional branch costs more
    uint32_t wait_states;            // cycles that each read of a flash word waits
    uint32_t word_shift;             // half-words per flash word, as a shift
    void *engine;
    int (*read_register)(void *, int, void *);              // uc_reg_read
    int (*read_memory)(void *, uint64_t, void *, uint64_t); // uc_mem_read
    int32_t program_counter;                                // its number
} noria_cycles_t;

void noria_cycles_block(void *engine, uint64_t address, uint32_t size, void *user) {
    noria_cycles_t *c = user;
    const uint32_t start = ((uint32_t)address - c->base) >> 1;
    const uint32_t end = start + (size >> 1);
    if (c->last_end != 0) {
        const uint32_t after = (c->last_end - c->base) >> 1;
        if (after <= c->count && c->after_conditional[after] && (uint32_t)address != c->last_end) {
            c->cycles += c->taken_cycles;
        }
    }
    if (end <= c->count && start < end) {
        c->cycles += c->cycles_before[end] - c->cycles_before[start];
        if (c->wait_states != 0) {
            const uint32_t words = ((end - 1) >> c->word_shift) - (start >> c->word_shift) + 1;
            const uint32_t literals = c->literals_before[end] - c->literals_before[start];
            c->cycles += (uint64_t)c->wait_states * (words + literals);
        }
    }
    c->blocks++;
    c->last_end = (uint32_t)address + size;
    if (c->cycles > c->limit) {
        (void)c->stop(engine);
    }
}

// The program counter, and above it the half-word before it; that is 0 where nothing can be read.
uint64_t noria_cycles_where(const noria_cycles_t *c) {
    uint32_t at = 0;
    uint16_t before = 0;
    (void)c->read_register(c->engine, c->program_counter, &at);
    at &= ~UINT32_C(1);
    if (c->read_memory(c->engine, at - 2, &before, sizeof before) != 0) {
        before = 0;
    }
    return (uint64_t)before << 32 | at;
}
