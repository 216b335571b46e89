/// Receiver of one TS004 session: Gaussian elimination over GF(2) as fragments arrive, in place.
#ifndef NORIA_FRAGMENT_H
#define NORIA_FRAGMENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "noria_shared.h"

// Of a session, as kept in flash: by the package version it was set up in.
#define NORIA_FRAGMENT_FORM_1 0u
#define NORIA_FRAGMENT_FORM_2 1u

/// Row i, once filled, combines fragment i with later ones; `mask` says which. When all rows are
/// filled they are solved from the last to the first and `block` is the block.
typedef struct {
    uint64_t mask[NORIA_FRAGMENT_COUNT_LIMIT];
    uint32_t descriptor;
    uint16_t received; // fragments taken, useful or not
    uint8_t count;     // of the block; 0 = no session
    uint8_t size;      // bytes of each
    uint8_t padding;   // bytes at the end that are not the block's
    uint8_t missing;
    uint8_t form;
    uint8_t block[NORIA_BLOCK_LIMIT];
} noria_fragment_t;

/// Begins a session; noria_setup_refusal_t bits, 0 = accepted. A refused one leaves the old
/// session.
uint8_t noria_fragment_setup(noria_fragment_t *session, uint16_t count, uint8_t size,
                             uint8_t padding, uint32_t descriptor, uint8_t form);

/// Takes fragment `number` (from 1) of `session->size` bytes. True: the block is complete.
bool noria_fragment_add(noria_fragment_t *session, uint16_t number, const uint8_t *data);

/// Whether a session waits for fragments.
bool noria_fragment_incomplete(const noria_fragment_t *session);

/// Length of the complete block without padding.
size_t noria_fragment_length(const noria_fragment_t *session);

/// The fragments that coded fragment `number` (from 1) of a block of `count` combines.
uint64_t noria_fragment_parity(uint16_t number, uint8_t count, uint8_t form);

#endif
