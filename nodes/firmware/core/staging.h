/// A fragmentation session in flash: a reset does not cost what has arrived.
///
/// One sector: a header, then a record for each fragment that told something new, then marks.
/// Records begin at any unit; what is no valid record (power failed while it was written) is
/// stepped over, unit by unit. There is room for every fragment that can tell something new, for
/// every mark, and for at least one lost record; a session that loses more goes on in RAM, where it
/// is whole in any case.
#ifndef NORIA_STAGING_H
#define NORIA_STAGING_H

#include <stdbool.h>
#include <stdint.h>

#include "fragment.h"
#include "hal.h"

// Each opening of a complete block is marked before it begins. A block whose opening was cut off so
// often, by a weak battery or by itself, is given up.
#define NORIA_STAGING_OPENINGS 4u

typedef struct {
    uint32_t key;     // CRC of the header, which starts those of the session's records
    uint16_t used;    // bytes; NORIA_FLASH_STAGING_SIZE = nothing more can be kept
    uint8_t openings; // begun so far
} noria_staging_t;

/// Puts the session that was under way, or a complete one that was not done with, into `session`.
/// False: there is none.
bool noria_staging_restore(noria_staging_t *staging, noria_fragment_t *session);

/// A new session takes the place of the old one.
void noria_staging_begin(noria_staging_t *staging, const noria_fragment_t *session);

/// Keeps a fragment.
void noria_staging_add(noria_staging_t *staging, const noria_fragment_t *session, uint16_t number,
                       const uint8_t *data);

/// Marks that the block is about to be opened. False: that has been tried too often.
bool noria_staging_open(noria_staging_t *staging);

/// Marks that the session is over, whatever came of it: it will not be restored.
void noria_staging_end(noria_staging_t *staging);

#endif
