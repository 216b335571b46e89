#include "flash.h"

#include <string.h>

#include "hal.h"

#define NEVER UINT32_MAX
#define UNITS (NORIA_FLASH_SIZE / NORIA_FLASH_UNIT)

static uint8_t memory[NORIA_FLASH_SIZE] __attribute__((aligned(8)));
static bool lost[UNITS]; // units whose check bits a cut left wrong
static uint8_t erased = 0xFF;
static uint32_t operations;
static uint32_t cut_at = NEVER;
static uint32_t noise = 1;
static bool tears, dark, has_ecc, refuses;

// xorshift32
static uint8_t random_byte(void) {
    noise ^= noise << 13;
    noise ^= noise >> 17;
    noise ^= noise << 5;
    return (uint8_t)(noise >> 11);
}

void noria_host_flash_reset(uint8_t erased_byte) {
    erased = erased_byte;
    has_ecc = false;
    refuses = false;
    memset(memory, erased, sizeof memory);
    memset(lost, 0, sizeof lost);
    noria_host_flash_power_on();
}

void noria_host_flash_ecc(void) { has_ecc = true; }

void noria_host_flash_refuse(bool on) { refuses = on; }

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
    for (uint32_t unit = 0; unit < UNITS; unit++) {
        for (uint32_t i = 0; lost[unit] && i < NORIA_FLASH_UNIT; i++) {
            memory[unit * NORIA_FLASH_UNIT + i] = random_byte();
        }
    }
    return was_dark;
}

uint32_t noria_host_flash_operations(void) { return operations; }

uint8_t *noria_host_flash_memory(void) { return memory; }

bool *noria_host_flash_lost(void) { return lost; }

void noria_host_flash_load(uint32_t offset, const uint8_t *data, uint32_t length) {
    if (offset <= sizeof memory && length <= sizeof memory - offset) {
        memcpy(memory + offset, data, length);
    }
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

/// Erasing ///

#define TEAR 128u // bytes that a torn erase treats alike

static void tear_erase(uint32_t at) {
    uint8_t what = random_byte();
    for (uint32_t i = 0; i < TEAR; i++) {
        memory[at + i] = what < 100 ? erased : what < 200 ? memory[at + i] : random_byte();
    }
    for (uint32_t unit = at / NORIA_FLASH_UNIT; unit < (at + TEAR) / NORIA_FLASH_UNIT; unit++) {
        lost[unit] = what < 100 ? false : what < 200 ? lost[unit] : has_ecc;
    }
}

// A torn erase has reached some pages and left others undefined.
bool noria_flash_erase(uint32_t offset, uint32_t length) {
    if (!is_within(offset, length, NORIA_FLASH_SECTOR) || refuses) {
        return false;
    }
    for (uint32_t at = offset; at < offset + length; at += NORIA_FLASH_SECTOR) {
        fate_t fate = next_operation();
        if (fate == DONE) {
            memset(memory + at, erased, NORIA_FLASH_SECTOR);
            memset(lost + at / NORIA_FLASH_UNIT, 0, NORIA_FLASH_SECTOR / NORIA_FLASH_UNIT);
            continue;
        }
        for (uint32_t tear = at; fate == TORN && tear < at + NORIA_FLASH_SECTOR; tear += TEAR) {
            tear_erase(tear);
        }
        return false;
    }
    return true;
}

/// Programming ///

static bool is_programmed(uint32_t at) {
    for (uint32_t i = 0; i < NORIA_FLASH_UNIT; i++) {
        if (memory[at + i] != erased) {
            return true;
        }
    }
    return lost[at / NORIA_FLASH_UNIT];
}

static void program_unit(uint32_t at, const uint8_t *bytes, fate_t fate) {
    for (uint32_t i = 0; i < NORIA_FLASH_UNIT; i++) {
        uint8_t reached = fate == DONE ? 0xFF : random_byte();
        memory[at + i] = (uint8_t)(erased ^ ((bytes[i] ^ erased) & reached));
    }
    lost[at / NORIA_FLASH_UNIT] = fate == TORN && has_ecc;
}

// A torn program has moved only some bits away from the erased state.
bool noria_flash_program(uint32_t offset, const void *data, uint32_t length) {
    if (!is_within(offset, length, NORIA_FLASH_UNIT) || refuses) {
        return false;
    }
    const uint8_t *bytes = data;
    for (uint32_t at = 0; at < length; at += NORIA_FLASH_UNIT) {
        if (is_programmed(offset + at)) {
            return false; // a unit is programmed once
        }
        fate_t fate = next_operation();
        if (fate != OFF) {
            program_unit(offset + at, bytes + at, fate);
        }
        if (fate != DONE) {
            return false;
        }
    }
    return true;
}
