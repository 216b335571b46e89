#include "store.h"

#include <stddef.h>
#include <string.h>

#include "bytes.h"
#include "crc.h"
#include "hal.h"

/// A record on flash: magic u16, length u16, sequence u32; payload padded with zeros to whole
/// units; layout version u32, CRC-32 of all before ///

#define UNIT NORIA_FLASH_UNIT
#define CHUNK (8u * UNIT) // programmed at once: each time costs a look at locks and flags
#define RECORD_MAGIC 0x524Eu

static uint32_t record_size(const noria_log_t *log) {
    return UNIT + (log->length + UNIT - 1u) / UNIT * UNIT + UNIT;
}

static uint32_t capacity(const noria_log_t *log) { return log->area_size / record_size(log); }

static uint32_t record_offset(const noria_log_t *log, unsigned area, uint32_t index) {
    return log->area[area] + index * record_size(log);
}

static bool is_valid(const noria_log_t *log, uint32_t offset) {
    const uint8_t *record = noria_flash_at(offset);
    const uint8_t *trailer = record + record_size(log) - UNIT;
    return noria_get_u16(record) == RECORD_MAGIC && noria_get_u16(record + 2) == log->length &&
           noria_get_u32(trailer) == log->version &&
           noria_get_u32(trailer + 4) == noria_crc32(0, record, record_size(log) - 4);
}

static bool is_erased(uint32_t offset, uint32_t length) {
    // By the word: a look for a free place reads several kilobytes.
    const uint32_t *words = (const uint32_t *)(const void *)noria_flash_at(offset);
    const uint32_t erased = noria_flash_erased_byte() * 0x01010101u;
    for (uint32_t i = 0; i < length / 4u; i++) {
        if (words[i] != erased) {
            return false;
        }
    }
    return true;
}

/// The newest record ///

typedef struct {
    bool exists;
    uint32_t offset;
    uint32_t sequence;
    unsigned area;
} newest_t;

// Sequence numbers wrap.
static bool is_newer(uint32_t sequence, uint32_t than) { return (int32_t)(sequence - than) > 0; }

static newest_t find_newest(const noria_log_t *log) {
    newest_t newest = {false, 0, 0, 0};
    for (unsigned area = 0; area < 2; area++) {
        // Within an area a later record is a newer one: the last valid one is enough.
        for (uint32_t index = capacity(log); index-- > 0;) {
            uint32_t offset = record_offset(log, area, index);
            if (is_valid(log, offset)) {
                uint32_t sequence = noria_get_u32(noria_flash_at(offset) + 4);
                if (!newest.exists || is_newer(sequence, newest.sequence)) {
                    newest = (newest_t){true, offset, sequence, area};
                }
                break;
            }
        }
    }
    return newest;
}

bool noria_log_load(const noria_log_t *log, void *payload) {
    newest_t newest = find_newest(log);
    if (!newest.exists) {
        return false;
    }
    memcpy(payload, noria_flash_at(newest.offset) + UNIT, log->length);
    return true;
}

/// Appending ///

// Checksums run over what will be on flash, so that a bit that did not take is noticed at once.
static bool write_record(const noria_log_t *log, uint32_t offset, uint32_t sequence,
                         const uint8_t *payload) {
    uint8_t chunk[CHUNK];
    uint8_t *p = noria_put_u16(noria_put_u16(chunk, RECORD_MAGIC), log->length);
    noria_put_u32(p, sequence);
    uint32_t crc = noria_crc32(0, chunk, UNIT);
    uint32_t to = offset + UNIT;
    bool written = noria_flash_program(offset, chunk, UNIT);
    for (uint32_t at = 0; written && at < log->length; at += CHUNK) {
        const uint32_t left = log->length - at, size = left < CHUNK ? left : CHUNK;
        const uint32_t padded = (size + UNIT - 1u) / UNIT * UNIT;
        memcpy(chunk, payload + at, size);
        memset(chunk + size, 0, padded - size);
        crc = noria_crc32(crc, chunk, padded);
        written = noria_flash_program(to, chunk, padded);
        to += padded;
    }
    noria_put_u32(chunk, log->version);
    noria_put_u32(chunk + 4, noria_crc32(crc, chunk, 4));
    return written && noria_flash_program(to, chunk, UNIT) && is_valid(log, offset);
}

// Torn records are neither valid nor erased: the first free place is behind the last used byte.
static uint32_t first_free(const noria_log_t *log, unsigned area) {
    uint32_t index = capacity(log);
    while (index > 0 && is_erased(record_offset(log, area, index - 1), record_size(log))) {
        index--;
    }
    return index;
}

bool noria_log_append(const noria_log_t *log, const void *payload) {
    if (log->length == 0 || capacity(log) == 0) {
        return false;
    }
    newest_t newest = find_newest(log);
    unsigned area = newest.area;
    if (!newest.exists && !is_erased(log->area[0], log->area_size) &&
        !noria_flash_erase(log->area[0], log->area_size)) {
        return false;
    }
    for (uint32_t index = first_free(log, area); index < capacity(log); index++) {
        if (write_record(log, record_offset(log, area, index), newest.sequence + 1, payload)) {
            return true;
        }
    }
    area ^= 1u;
    return noria_flash_erase(log->area[area], log->area_size) &&
           write_record(log, log->area[area], newest.sequence + 1, payload);
}

/// What is stored ///

static noria_log_t state_log(uint16_t length, uint32_t version) {
    return (noria_log_t){
        {NORIA_FLASH_STATE_A, NORIA_FLASH_STATE_B}, NORIA_FLASH_STATE_SIZE, length, version};
}

bool noria_store_load(void *state, uint16_t length, uint32_t version) {
    noria_log_t log = state_log(length, version);
    return noria_log_load(&log, state);
}

bool noria_store_save(const void *state, uint16_t length, uint32_t version) {
    noria_log_t log = state_log(length, version);
    return noria_log_append(&log, state);
}
