/// Which sensor to believe, and the day's sums; the mirror of shared_models/plausibility.py.
#ifndef NORIA_PLAUSIBILITY_H
#define NORIA_PLAUSIBILITY_H

#include <stdint.h>

#include "noria_shared.h"

/// Judges both probes and smooths what is plausible; before a day is closed.
void noria_check_probes(noria_core_t *core, const noria_reading_t *reading);

/// Whether the battery may open a valve.
void noria_check_battery(noria_core_t *core, int16_t battery_mv);

/// Whether probes and balance tell of the same soil; at dawn, after the observer.
void noria_check_agreement(noria_core_t *core);

/// Judges the rest and adds it to the day's sums.
void noria_add_air_and_light(noria_core_t *core, const noria_reading_t *reading,
                             uint32_t factor_q12);

#endif
