/// Power-loss-safe records in flash: a log in two areas of which one always holds a complete
/// record.
///
/// A record is written unit by unit, its checksum last; a record without a matching checksum never
/// was. When an area is full the other is erased and the log goes on there, so the newest record is
/// never in what is being erased. Every unit is programmed once, whatever the erased state of the
/// part. Nothing is cached: the flash is the state.
#ifndef NORIA_STORE_H
#define NORIA_STORE_H

#include <stdbool.h>
#include <stdint.h>

typedef struct {
    uint32_t area[2];   // offsets in the data region
    uint32_t area_size; // bytes of each
    uint16_t length;    // bytes of a record's payload
    uint32_t version;   // of the payload's layout; records of another are as if they were not there
} noria_log_t;

/// The newest record's payload; false when there is none.
bool noria_log_load(const noria_log_t *log, void *payload);

/// Appends a record. False: the flash refused; the newest record is still the old one.
bool noria_log_append(const noria_log_t *log, const void *payload);

/// The core's state, as opaque bytes. A record must fit an area: at most
/// NORIA_FLASH_STATE_SIZE - 16 bytes.
bool noria_store_load(void *state, uint16_t length, uint32_t version);
bool noria_store_save(const void *state, uint16_t length, uint32_t version);

#endif
