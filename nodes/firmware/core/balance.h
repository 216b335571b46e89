/// The day's close: water balance, inferred rain, observer, anchor; the mirror of
/// shared_models/balance.py.
#ifndef NORIA_BALANCE_H
#define NORIA_BALANCE_H

#include <stdbool.h>
#include <stdint.h>

#include "noria_shared.h"

/// What the close of a day says to the statistics.
typedef struct {
    bool calm;       // an undisturbed dry-down between two dawns with both probes
    bool anchored;   // the upper limit became known
    int32_t uptake;  // what model and observer took beyond the physics' ETc, head steps
    int32_t mean_e4; // mean of both probes now, or NORIA_NO_VALUE
} noria_day_t;

/// Closes the day that ends at this dawn, `days` after the last; `core->day` is the new day.
noria_day_t noria_balance_close_day(noria_core_t *core, const noria_settings_t *settings,
                                    int32_t days);

/// Days since planting, negative before it.
int32_t noria_days_planted(const noria_core_t *core, const noria_settings_t *settings);

/// TAW at the present root depth.
int32_t noria_balance_taw_um(const noria_core_t *core);

#endif
