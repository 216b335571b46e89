/// The day's decision and the farmer's word above it; the mirror of shared_models/policy.py.
#ifndef NORIA_POLICY_H
#define NORIA_POLICY_H

#include <stdbool.h>
#include <stdint.h>

#include "noria_shared.h"

/// Depletion that triggers a dose in the present mode, of TAW.
uint16_t noria_policy_threshold_permille(const noria_core_t *core,
                                         const noria_settings_t *settings);

/// What to decide with.
uint8_t noria_policy_mode(const noria_core_t *core, int32_t planted, bool has_model);

/// Takes today's decision when it is due, or carries out the farmer's.
void noria_policy_decide(noria_core_t *core, const noria_settings_t *settings,
                         noria_outcome_t *outcome, uint32_t time_s);

/// After the clock was set back, what was done at a later time was done now.
void noria_policy_forget_the_future(noria_core_t *core, uint32_t time_s);

/// A farmer's order; false: not understood.
bool noria_policy_override(noria_core_t *core, uint8_t kind, uint32_t value);

/// The valve closed `missing_s` before its time: that water was not given.
void noria_policy_cut_short(noria_core_t *core, const noria_settings_t *settings,
                            uint32_t missing_s);

#endif
