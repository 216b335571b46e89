#include "wakes.h"

#include "core.h"

void noria_host_core_wakes(noria_core_t *core, const noria_settings_t *settings,
                           const noria_reading_t *readings, uint32_t count,
                           const uint8_t *model_image, noria_outcome_t *outcomes) {
    for (uint32_t i = 0; i < count; i++) {
        noria_core_wake(core, settings, &readings[i], model_image, &outcomes[i]);
    }
}
