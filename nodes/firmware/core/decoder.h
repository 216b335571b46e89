/// Decoder of recompressed model bytes; the coding is described in shared_models/recompression.py.
#ifndef NORIA_DECODER_H
#define NORIA_DECODER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct {
    uint8_t type; // noria_segment_type_t
    uint16_t count;
} noria_segment_t;

/// Restores the segments into `out`, which holds `capacity` bytes. False: they do not fit, a number
/// does not fit its type, or input is left over. Work is bounded by the segments, not by the input.
bool noria_decode(const uint8_t *data, size_t length, const noria_segment_t *segments,
                  size_t segment_count, uint8_t *out, size_t capacity);

#endif
