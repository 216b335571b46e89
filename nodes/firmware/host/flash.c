#include "flash.h"

#include <string.h>

#include "hal.h"

#define NEVER UINT32_MAX

static uint8_t memory[NORIA_FLASH_SIZE] __attribute__((aligned(8)));
static uint8_t erased = 0xFF;
static uint32_t operations;
static uint32_t cut_at = NEVER;
static uint32_t noise = 1;
static bool tears, dark;

void noria_host_flash_reset(uint8_t erased_byte) {
    erased = erased_byte;
    memset(memory, erased, sizeof memory);
    noria_host_flash_power_on();
}

void noria_host_flash_cut(uint32_t operation, bool torn, uint32_t seed) {
    cut_at = operations + operation;
    tears = torn;
    noise = seed | 1u;
}

bool noria_host_flash_power_on(void) {
    bool was_dark = dark;
    dark = false;
    operations = 0;
    cut_at = NEVER;
    return was_dark;
}

uint32_t noria_host_flash_operations(void) { return operations; }

uint8_t *noria_host_flash_memory(void) { return memory; }

void noria_host_flash_load(uint32_t offset, const uint8_t *data, uint32_t length) {
    if (offset <= sizeof memory && length <= sizeof memory - offset) {
        memcpy(memory + offset, data, length);
    }
}

// xorshift32
static uint8_t random_byte(void) {
    noise ^= noise << 13;
    noise ^= noise >> 17;
    noise ^= noise << 5;
    return (uint8_t)(noise >> 11);
}

typedef enum { DONE, TORN, OFF } fate_t;

static fate_t next_operation(void) {
    if (!dark && operations == cut_at) {
        dark = true;
        return tears ? TORN : OFF;
    }
    operations++;
    return dark ? OFF : DONE;
}

uint8_t noria_flash_erased_byte(void) { return erased; }

const uint8_t *noria_flash_at(uint32_t offset) { return memory + offset; }

void noria_flash_read(uint32_t offset, void *data, uint32_t length) {
    memcpy(data, memory + offset, length);
}

static bool is_within(uint32_t offset, uint32_t length, uint32_t grain) {
    return offset % grain == 0 && length % grain == 0 && offset <= sizeof memory &&
           length <= sizeof memory - offset;
}

// A torn erase has reached some pages and left others undefined.
bool noria_flash_erase(uint32_t offset, uint32_t length) {
    if (!is_within(offset, length, NORIA_FLASH_SECTOR)) {
        return false;
    }
    const uint32_t page = 128;
    for (uint32_t at = offset; at < offset + length; at += NORIA_FLASH_SECTOR) {
        fate_t fate = next_operation();
        if (fate == DONE) {
            memset(memory + at, erased, NORIA_FLASH_SECTOR);
            continue;
        }
        for (uint32_t p = at; fate == TORN && p < at + NORIA_FLASH_SECTOR; p += page) {
            uint8_t what = random_byte();
            for (uint32_t i = 0; i < page; i++) {
                memory[p + i] = what < 100 ? erased : what < 200 ? memory[p + i] : random_byte();
            }
        }
        return false;
    }
    return true;
}

// A torn program has moved only some bits away from the erased state.
bool noria_flash_program(uint32_t offset, const void *data, uint32_t length) {
    if (!is_within(offset, length, NORIA_FLASH_UNIT)) {
        return false;
    }
    const uint8_t *bytes = data;
    for (uint32_t at = 0; at < length; at += NORIA_FLASH_UNIT) {
        for (uint32_t i = 0; i < NORIA_FLASH_UNIT; i++) {
            if (memory[offset + at + i] != erased) {
                return false; // a unit is programmed once
            }
        }
        fate_t fate = next_operation();
        for (uint32_t i = 0; i < NORIA_FLASH_UNIT && fate != OFF; i++) {
            uint8_t reached = fate == DONE ? 0xFF : random_byte();
            memory[offset + at + i] = (uint8_t)(erased ^ ((bytes[at + i] ^ erased) & reached));
        }
        if (fate != DONE) {
            return false;
        }
    }
    return true;
}
