#include "fragment.h"

#include <string.h>

uint8_t noria_fragment_setup(noria_fragment_t *session, uint16_t count, uint8_t size,
                             uint8_t padding, uint32_t descriptor, uint8_t form) {
    if (count == 0 || size == 0 || padding >= size) {
        return NORIA_SETUP_REFUSAL_ENCODING;
    }
    if (count > NORIA_FRAGMENT_COUNT_LIMIT || size > NORIA_FRAGMENT_SIZE_LIMIT ||
        (uint32_t)count * size > NORIA_BLOCK_LIMIT) {
        return NORIA_SETUP_REFUSAL_MEMORY;
    }
    memset(session, 0, sizeof *session);
    session->count = (uint8_t)count;
    session->size = size;
    session->padding = padding;
    session->descriptor = descriptor;
    session->form = form;
    session->missing = (uint8_t)count;
    return NORIA_SETUP_REFUSAL_NONE;
}

bool noria_fragment_incomplete(const noria_fragment_t *session) {
    return session->count > 0 && session->missing > 0;
}

size_t noria_fragment_length(const noria_fragment_t *session) {
    return (size_t)session->count * session->size - session->padding;
}

// TS004: PRBS23 seeded with 1 + 1001 n, drawn modulo M (or M + 1 if M is a power of two), draws
// that are no index repeated. In version 1 a fragment drawn again is one of the M / 2, in version 2
// not.
uint64_t noria_fragment_parity(uint16_t number, uint8_t count, uint8_t form) {
    uint32_t modulus = count + ((count & (count - 1)) == 0 ? 1u : 0u);
    uint32_t state = 1 + 1001 * (uint32_t)number;
    uint64_t mask = 0;
    for (uint8_t left = count / 2; left > 0;) {
        uint32_t drawn;
        do {
            state = state >> 1 | ((state ^ state >> 5) & 1) << 22;
            drawn = state % modulus;
        } while (drawn >= count);
        const uint64_t fragment = (uint64_t)1 << drawn;
        if (form == NORIA_FRAGMENT_FORM_1 || (mask & fragment) == 0) {
            left--;
        }
        mask |= fragment;
    }
    return mask;
}

static uint8_t *row(noria_fragment_t *session, uint8_t index) {
    return session->block + (size_t)index * session->size;
}

static void add_row(uint8_t *sum, const uint8_t *other, uint8_t size) {
    for (uint8_t i = 0; i < size; i++) {
        sum[i] ^= other[i];
    }
}

static void solve(noria_fragment_t *session) {
    for (uint8_t i = session->count; i-- > 0;) {
        for (uint8_t later = i + 1; later < session->count; later++) {
            if (session->mask[i] >> later & 1) {
                add_row(row(session, i), row(session, later), session->size);
            }
        }
        session->mask[i] = (uint64_t)1 << i;
    }
}

bool noria_fragment_add(noria_fragment_t *session, uint16_t number, const uint8_t *data) {
    if (!noria_fragment_incomplete(session) || number == 0 || number > NORIA_FRAGMENT_INDEX_LIMIT) {
        return false;
    }
    if (session->received < NORIA_FRAGMENT_INDEX_LIMIT) {
        session->received++;
    }
    uint64_t mask = number <= session->count
                        ? (uint64_t)1 << (number - 1)
                        : noria_fragment_parity((uint16_t)(number - session->count), session->count,
                                                session->form);
    uint8_t sum[NORIA_FRAGMENT_SIZE_LIMIT];
    memcpy(sum, data, session->size);
    for (uint8_t i = 0; i < session->count && mask != 0; i++) {
        if (!(mask >> i & 1)) {
            continue;
        }
        if (session->mask[i] == 0) {
            session->mask[i] = mask;
            memcpy(row(session, i), sum, session->size);
            session->missing--;
            break;
        }
        mask ^= session->mask[i];
        add_row(sum, row(session, i), session->size);
    }
    if (session->missing > 0) {
        return false;
    }
    solve(session);
    return true;
}
