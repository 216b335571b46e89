/// Which sensor to believe, and the day's sums; the mirror of shared_models/plausibility.py.
#ifndef NORIA_PLAUSIBILITY_H
#define NORIA_PLAUSIBILITY_H

#include <stdint.h>

#include "noria_shared.h"

/// Judges both probes and smooths what is plausible; before a day is closed.
void noria_check_probes(noria_core_t *core, const noria_reading_t *reading);

/// Judges the rest and adds it to the day's sums.
void noria_add_air_and_light(noria_core_t *core, const noria_reading_t *reading,
                             uint32_t factor_q12);

#endif
