/// Builders and readers of application frames; bytes in docs/formats.md.
#ifndef NORIA_FRAMES_H
#define NORIA_FRAMES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "noria_shared.h"

typedef struct {
    uint32_t time_s;
    uint8_t flags; // noria_telemetry_flag_t
    uint8_t mode;
    uint8_t board;
    uint8_t last_reason;
    uint8_t probation; // 1 while the running model may still be rolled back
    uint16_t battery_mv;
    int16_t vwc_shallow_e4;
    int16_t vwc_deep_e4;
    int16_t soil_temp_c100;
    int16_t air_temp_c100;
    int16_t depletion_e1_mm;
    uint16_t taw_e1_mm;
    uint16_t threshold_permille;
    int16_t forecast_24h_e4;
    uint16_t water_season_e1_mm;
    uint32_t model_version;
    uint32_t backbone_id;
} noria_telemetry_t;

typedef struct {
    uint32_t time_s;
    uint8_t code; // noria_event_code_t
    uint8_t reason;
    uint8_t
        detail; // noria_refusal_t of an update, noria_reset_cause_t of BOOTED, sensors of a fault
    uint16_t dose_e1_mm;
    int16_t depletion_e1_mm;
    uint16_t taw_e1_mm;
    uint16_t threshold_permille;
    uint32_t model_version;
} noria_event_t;

typedef struct {
    uint8_t session;
    uint16_t season;
    uint32_t backbone_id;
    const uint8_t *data; // the encoded snapshot
    uint16_t length;
} noria_statistics_frame_t;

typedef struct {
    uint8_t action; // noria_override_action_t
    uint32_t argument;
} noria_override_t;

/// Write a payload and return its length.
size_t noria_frame_telemetry(uint8_t out[NORIA_TELEMETRY_SIZE], const noria_telemetry_t *telemetry);
size_t noria_frame_event(uint8_t out[NORIA_EVENT_SIZE], const noria_event_t *event);

/// How many fragments a snapshot needs at a payload limit; 0 = it cannot be sent.
uint8_t noria_frame_statistics_count(const noria_statistics_frame_t *snapshot,
                                     uint16_t payload_limit);

/// Writes fragment `index`; 0 when there is no such fragment. `out` holds `payload_limit` bytes.
size_t noria_frame_statistics(uint8_t *out, uint16_t payload_limit,
                              const noria_statistics_frame_t *snapshot, uint8_t index);

/// Reads a farmer's override from fPort 13; false refuses it.
bool noria_frame_override(const uint8_t *payload, size_t length, noria_override_t *override);

#endif
