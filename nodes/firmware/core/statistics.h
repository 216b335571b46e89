/// Dry-down windows and the sums learned from them; the mirror of shared_models/windows.py and the
/// encoder of shared_models/moments.py.
#ifndef NORIA_STATISTICS_H
#define NORIA_STATISTICS_H

#include <stdbool.h>
#include <stdint.h>

#include "balance.h"
#include "noria_shared.h"

/// Forgets the sums: another backbone, another season.
void noria_statistics_reset(noria_core_t *core);

/// A model not seen before starts without a record.
void noria_statistics_reset_trust(noria_core_t *core);

/// Another backbone: no head like it has said anything before.
void noria_statistics_reset_forecasts(noria_core_t *core);

/// What the season's sums say of a new head's forecasts, for a record to begin with; of too few
/// windows they say nothing, and it inherits its predecessor's.
void noria_statistics_credit(noria_core_t *core, const uint8_t *image);

/// Whether the head's forecasts over k + 1 days have beaten the dry-rate average on this field.
bool noria_statistics_forecasts_better(const noria_core_t *core, uint32_t k);

/// Ends the windows that end at this dawn.
void noria_statistics_finish(noria_core_t *core, int32_t days, const noria_day_t *day);

/// Opens the windows that start at this dawn; `zero` is the activations' zero point.
void noria_statistics_begin(noria_core_t *core, int8_t zero, bool known);

/// The snapshot as it goes on the air.
void noria_statistics_encode(const noria_core_t *core, uint8_t out[NORIA_SNAPSHOT_BYTES]);

#endif
