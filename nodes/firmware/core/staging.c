#include "staging.h"

#include <string.h>

#include "bytes.h"
#include "crc.h"

/// Header: magic u16, count u8, size u8, padding u8, form u8, zero u8[2], descriptor u32, CRC-32 of
/// all before. Fragment: number u16, data, zeros to a whole unit, of which the last 4 bytes are a
/// CRC-32 begun with the header's. Mark: kind u16 (no fragment has such a number), zero u16,
/// CRC-32 begun likewise ///

#define UNIT NORIA_FLASH_UNIT
#define SIZE NORIA_FLASH_STAGING_SIZE
#define MAGIC 0x534Eu
#define HEADER_SIZE (2u * UNIT)
#define OVERHEAD 6u // of a fragment
#define MARK_OPENING 0xB0B0u
#define MARK_END 0xE0E0u
#define RECORD_LIMIT ((NORIA_FRAGMENT_SIZE_LIMIT + OVERHEAD + UNIT - 1u) / UNIT * UNIT)

#define MARKS_SIZE ((NORIA_STAGING_OPENINGS + 1u) * UNIT)

// What one lost record of the smallest fragments that need all the room takes.
#define SPARE (NORIA_BLOCK_LIMIT / NORIA_FRAGMENT_COUNT_LIMIT + OVERHEAD + UNIT - 1u)

_Static_assert(HEADER_SIZE + NORIA_BLOCK_LIMIT +
                       NORIA_FRAGMENT_COUNT_LIMIT * (OVERHEAD + UNIT - 1u) + MARKS_SIZE + SPARE <=
                   SIZE,
               "every fragment and every mark fits, and one lost record");

static uint32_t record_size(const noria_fragment_t *session) {
    return (session->size + OVERHEAD + UNIT - 1u) / UNIT * UNIT;
}

static const uint8_t *at(uint32_t offset) { return noria_flash_at(NORIA_FLASH_STAGING + offset); }

static bool is_sealed(const uint8_t *record, uint32_t size, uint32_t key) {
    return noria_get_u32(record + size - 4) == noria_crc32(key, record, size - 4);
}

// Behind the last byte that is not erased.
static uint32_t used_bytes(void) {
    const uint8_t erased = noria_flash_erased_byte();
    uint32_t used = SIZE;
    while (used > 0 && *at(used - 1) == erased) {
        used--;
    }
    return (used + UNIT - 1u) / UNIT * UNIT;
}

/// Writing ///

// A unit that was programmed, or half so, is never programmed again: a record that fails is tried
// anew behind it.
static bool append(noria_staging_t *staging, const uint8_t *record, uint32_t size, uint32_t limit) {
    while (staging->used + size <= limit) {
        uint32_t done = 0;
        bool taken = true;
        while (taken && done < size) {
            taken = noria_flash_program(NORIA_FLASH_STAGING + staging->used + done, record + done,
                                        UNIT);
            done += UNIT;
        }
        staging->used = (uint16_t)(staging->used + done);
        if (taken) {
            return true;
        }
    }
    return false;
}

static bool mark(noria_staging_t *staging, uint16_t kind) {
    uint8_t unit[UNIT];
    noria_put_u16(noria_put_u16(unit, kind), 0);
    noria_put_u32(unit + 4, noria_crc32(staging->key, unit, 4));
    return append(staging, unit, UNIT, SIZE);
}

static bool write_header(const uint8_t *header) {
    return noria_flash_program(NORIA_FLASH_STAGING, header, HEADER_SIZE);
}

void noria_staging_begin(noria_staging_t *staging, const noria_fragment_t *session) {
    uint8_t header[HEADER_SIZE] = {0};
    uint8_t *p = noria_put_u8(noria_put_u16(header, MAGIC), session->count);
    p = noria_put_u8(noria_put_u8(p, session->size), session->padding);
    noria_put_u8(p, session->form);
    noria_put_u32(header + UNIT, session->descriptor);
    const uint32_t key = noria_crc32(0, header, HEADER_SIZE - 4);
    noria_put_u32(header + HEADER_SIZE - 4, key);
    *staging = (noria_staging_t){key, HEADER_SIZE, 0};
    // What a cut erase left may look erased and yet refuse.
    const bool written = (used_bytes() == 0 && write_header(header)) ||
                         (noria_flash_erase(NORIA_FLASH_STAGING, SIZE) && write_header(header));
    if (!written) {
        staging->used = SIZE;
    }
}

void noria_staging_add(noria_staging_t *staging, const noria_fragment_t *session, uint16_t number,
                       const uint8_t *data) {
    const uint32_t size = record_size(session);
    uint8_t record[RECORD_LIMIT];
    memset(record, 0, size);
    memcpy(noria_put_u16(record, number), data, session->size);
    noria_put_u32(record + size - 4, noria_crc32(staging->key, record, size - 4));
    // The marks come after the last fragment and must fit.
    (void)append(staging, record, size, SIZE - MARKS_SIZE);
}

bool noria_staging_open(noria_staging_t *staging) {
    if (staging->openings >= NORIA_STAGING_OPENINGS) {
        return false;
    }
    staging->openings++;
    if (!mark(staging, MARK_OPENING)) {
        // An opening that cannot be counted must not be repeated at every boot.
        noria_staging_end(staging);
    }
    return true;
}

void noria_staging_end(noria_staging_t *staging) {
    if (!mark(staging, MARK_END) && used_bytes() != 0) {
        (void)noria_flash_erase(NORIA_FLASH_STAGING, SIZE);
    }
    staging->used = SIZE;
}

/// Restoring ///

static bool restore_header(noria_staging_t *staging, noria_fragment_t *session) {
    const uint8_t *header = at(0);
    if (noria_get_u16(header) != MAGIC || !is_sealed(header, HEADER_SIZE, 0) ||
        noria_fragment_setup(session, header[2], header[3], header[4],
                             noria_get_u32(header + UNIT), header[5]) != NORIA_SETUP_REFUSAL_NONE) {
        return false;
    }
    staging->key = noria_get_u32(header + HEADER_SIZE - 4);
    return true;
}

bool noria_staging_restore(noria_staging_t *staging, noria_fragment_t *session) {
    *staging = (noria_staging_t){0, SIZE, 0};
    if (!restore_header(staging, session)) {
        return false;
    }
    const uint32_t size = record_size(session), end = used_bytes();
    uint32_t next = HEADER_SIZE;
    bool over = false;
    while (next < end) {
        const uint8_t *record = at(next);
        const uint16_t number = noria_get_u16(record);
        if (next + size <= SIZE && number <= NORIA_FRAGMENT_INDEX_LIMIT &&
            is_sealed(record, size, staging->key)) {
            (void)noria_fragment_add(session, number, record + 2);
            next += size;
        } else {
            const bool is_mark = is_sealed(record, UNIT, staging->key);
            over = over || (is_mark && number == MARK_END);
            staging->openings = (uint8_t)(staging->openings + (is_mark && number == MARK_OPENING));
            next += UNIT;
        }
    }
    staging->used = (uint16_t)(next > HEADER_SIZE ? next : HEADER_SIZE);
    if (over) {
        session->count = 0;
    }
    return !over;
}
