/// The network's inputs; the mirror of shared_models/features.py. (A header called features.h would
/// hide the C library's.)
#ifndef NORIA_FEATURE_SET_H
#define NORIA_FEATURE_SET_H

#include <stdint.h>

#include "noria_shared.h"

/// Makes `core->features` from the day just closed.
void noria_features_extract(noria_core_t *core, int32_t progress_q10);

#endif
