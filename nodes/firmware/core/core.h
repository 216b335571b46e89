/// The node's mind: one call per wake, everything it remembers in one flat record. The reference in
/// Python is shared_models/reference.py; both give the same bits.
#ifndef NORIA_CORE_H
#define NORIA_CORE_H

#include <stdbool.h>
#include <stdint.h>

#include "noria_shared.h"

/// Starts from nothing; the first wake fills in the rest.
void noria_core_init(noria_core_t *core);

/// Whether a restored record can be gone on from: every index and flag within its range.
bool noria_core_is_valid(const noria_core_t *core);

/// One wake. `model_image` is a verified image in place, or NULL: then the physics decides.
void noria_core_wake(noria_core_t *core, const noria_settings_t *settings,
                     const noria_reading_t *reading, const uint8_t *model_image,
                     noria_outcome_t *outcome);

/// A farmer's order: 1 stop until a time, 2 water a dose (0.1 mm) now, 3 resume.
bool noria_core_override(noria_core_t *core, uint8_t kind, uint32_t value);

/// Tells the core that the valve closed `missing_s` before its time.
void noria_core_cut_short(noria_core_t *core, const noria_settings_t *settings, uint32_t missing_s);

/// The statistics so far, as they go on the air.
void noria_core_snapshot(const noria_core_t *core, uint8_t out[NORIA_SNAPSHOT_BYTES]);

/// Asks `image`, the model before, for what it says at this dawn: call after a dawn's wake while a
/// model is on probation. NULL: there is none.
void noria_core_rival(noria_core_t *core, const uint8_t *image);

/// A model's record since it was activated.
typedef struct {
    uint32_t model_energy;    // sum of its squared error
    uint32_t baseline_energy; // the same of the physics
    uint32_t rival_energy;    // of the model before; its own in windows for which that is unknown
    uint16_t windows;         // finished 24 h windows
} noria_probation_t;

noria_probation_t noria_core_probation(const noria_core_t *core);

#endif
