/// Many wakes of the core at one call, for simulations that know a day's readings in advance.
#ifndef NORIA_HOST_WAKES_H
#define NORIA_HOST_WAKES_H

#include <stdint.h>

#include "noria_shared.h"

/// Wakes the core once for each of `count` readings, in order. `model_image` is as for
/// noria_core_wake(); `outcomes` takes one record per reading.
void noria_host_core_wakes(noria_core_t *core, const noria_settings_t *settings,
                           const noria_reading_t *readings, uint32_t count,
                           const uint8_t *model_image, noria_outcome_t *outcomes);

#endif
