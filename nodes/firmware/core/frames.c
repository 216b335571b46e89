#include "frames.h"

#include <string.h>

#include "bytes.h"

size_t noria_frame_telemetry(uint8_t out[NORIA_TELEMETRY_SIZE],
                             const noria_telemetry_t *telemetry) {
    uint8_t *p = out;
    p = noria_put_u8(p, NORIA_FRAME_VERSION);
    p = noria_put_u8(p, telemetry->flags);
    p = noria_put_u8(p, telemetry->mode);
    p = noria_put_u8(p, telemetry->board);
    p = noria_put_u32(p, telemetry->time_s);
    p = noria_put_u16(p, telemetry->battery_mv);
    p = noria_put_i16(p, telemetry->vwc_shallow_e4);
    p = noria_put_i16(p, telemetry->vwc_deep_e4);
    p = noria_put_i16(p, telemetry->soil_temp_c100);
    p = noria_put_i16(p, telemetry->air_temp_c100);
    p = noria_put_i16(p, telemetry->depletion_e1_mm);
    p = noria_put_u16(p, telemetry->taw_e1_mm);
    p = noria_put_u16(p, telemetry->threshold_permille);
    p = noria_put_i16(p, telemetry->forecast_24h_e4);
    p = noria_put_u16(p, telemetry->water_season_e1_mm);
    p = noria_put_u32(p, telemetry->model_version);
    p = noria_put_u32(p, telemetry->backbone_id);
    p = noria_put_u8(p, telemetry->last_reason);
    p = noria_put_u8(p, telemetry->probation);
    return (size_t)(p - out);
}

size_t noria_frame_event(uint8_t out[NORIA_EVENT_SIZE], const noria_event_t *event) {
    uint8_t *p = out;
    p = noria_put_u8(p, NORIA_FRAME_VERSION);
    p = noria_put_u8(p, event->code);
    p = noria_put_u8(p, event->reason);
    p = noria_put_u8(p, event->detail);
    p = noria_put_u32(p, event->time_s);
    p = noria_put_u16(p, event->dose_e1_mm);
    p = noria_put_i16(p, event->depletion_e1_mm);
    p = noria_put_u16(p, event->taw_e1_mm);
    p = noria_put_u16(p, event->threshold_permille);
    p = noria_put_u32(p, event->model_version);
    return (size_t)(p - out);
}

uint8_t noria_frame_statistics_count(const noria_statistics_frame_t *snapshot,
                                     uint16_t payload_limit) {
    if (payload_limit <= NORIA_STATISTICS_HEADER_SIZE) {
        return 0;
    }
    uint32_t room = payload_limit - NORIA_STATISTICS_HEADER_SIZE;
    uint32_t count = (snapshot->length + room - 1) / room;
    return count <= NORIA_STATISTICS_FRAGMENT_LIMIT ? (uint8_t)count : 0;
}

size_t noria_frame_statistics(uint8_t *out, uint16_t payload_limit,
                              const noria_statistics_frame_t *snapshot, uint8_t index) {
    uint8_t count = noria_frame_statistics_count(snapshot, payload_limit);
    if (index >= count) {
        return 0;
    }
    size_t room = payload_limit - NORIA_STATISTICS_HEADER_SIZE;
    size_t left = snapshot->length - index * room;
    size_t length = left < room ? left : room;
    uint8_t *p = out;
    p = noria_put_u8(p, snapshot->session);
    p = noria_put_u8(p, index);
    p = noria_put_u8(p, count);
    p = noria_put_u16(p, snapshot->season);
    p = noria_put_u32(p, snapshot->backbone_id);
    memcpy(p, snapshot->data + index * room, length);
    return (size_t)(p - out) + length;
}

bool noria_frame_override(const uint8_t *payload, size_t length, noria_override_t *override) {
    if (length != NORIA_OVERRIDE_SIZE) {
        return false;
    }
    override->action = payload[0];
    override->argument = noria_get_u32(payload + 1);
    switch (override->action) {
    case NORIA_OVERRIDE_ACTION_STOP:
        return true;
    case NORIA_OVERRIDE_ACTION_WATER:
        return override->argument >= 1 && override->argument <= NORIA_OVERRIDE_DOSE_LIMIT_E1_MM;
    case NORIA_OVERRIDE_ACTION_RESUME:
        return override->argument == 0;
    default:
        return false;
    }
}
