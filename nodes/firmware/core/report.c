#include "report.h"

#include <stddef.h>

#include "fixed.h"

noria_event_t noria_report_event(uint8_t code, const noria_update_t *update,
                                 const noria_outcome_t *outcome, uint32_t now_s) {
    noria_event_t event = {
        .time_s = now_s, .code = code, .model_version = noria_update_version(update)};
    if (outcome != NULL) {
        event.reason = outcome->reason;
        event.depletion_e1_mm =
            (int16_t)noria_clamp(outcome->depletion_um / 100, INT16_MIN, INT16_MAX);
        event.taw_e1_mm = (uint16_t)noria_clamp(outcome->taw_um / 100, 0, UINT16_MAX);
        event.threshold_permille = outcome->threshold_permille;
    }
    return event;
}

static void tell_of_update(noria_link_t *link, noria_update_t *update,
                           const noria_outcome_t *outcome, uint32_t now_s) {
    noria_update_event_t news;
    while (noria_update_next_event(update, &news)) {
        noria_event_t event = noria_report_event(news.code, update, outcome, now_s);
        event.detail = news.refusal;
        event.model_version = news.model_version;
        noria_link_event(link, &event);
    }
}

static void tell_of_field(noria_link_t *link, const noria_update_t *update,
                          const noria_outcome_t *outcome, uint32_t now_s) {
    const struct {
        bool happened;
        uint8_t code;
        uint8_t detail;
    } news[] = {
        {outcome->new_faults != 0, NORIA_EVENT_CODE_SENSOR_FAULT, outcome->new_faults},
        {outcome->recovered != 0, NORIA_EVENT_CODE_SENSOR_RECOVERED, outcome->recovered},
        {outcome->agreement_changed != 0,
         outcome->disagreeing != 0 ? NORIA_EVENT_CODE_SENSORS_DISAGREE
                                   : NORIA_EVENT_CODE_SENSORS_AGREE,
         0},
        {outcome->battery_changed != 0,
         outcome->battery_low != 0 ? NORIA_EVENT_CODE_LOW_BATTERY
                                   : NORIA_EVENT_CODE_BATTERY_RECOVERED,
         0},
        {outcome->anchored_now != 0, NORIA_EVENT_CODE_ANCHORED, 0},
        {outcome->open_s != 0, NORIA_EVENT_CODE_WATERED, 0},
    };
    for (uint32_t i = 0; i < sizeof news / sizeof news[0]; i++) {
        if (news[i].happened) {
            noria_event_t event = noria_report_event(news[i].code, update, outcome, now_s);
            event.detail = news[i].detail;
            if (news[i].code == NORIA_EVENT_CODE_WATERED) {
                event.dose_e1_mm = outcome->dose_e1_mm;
            }
            noria_link_event(link, &event);
        }
    }
}

static void telemetry(noria_link_t *link, const noria_update_t *update,
                      const noria_outcome_t *outcome, const noria_reading_t *reading,
                      bool valve_open) {
    uint32_t flags = outcome->faults;
    flags |= valve_open ? NORIA_TELEMETRY_FLAG_VALVE_OPEN : 0u;
    flags |= noria_update_active(update) ? NORIA_TELEMETRY_FLAG_UPDATE_ACTIVE : 0u;
    flags |= outcome->anchored != 0 ? NORIA_TELEMETRY_FLAG_ANCHORED : 0u;
    const noria_event_t shared = noria_report_event(0, update, outcome, reading->time_s);
    const noria_telemetry_t frame = {
        .time_s = reading->time_s,
        .flags = (uint8_t)flags,
        .mode = outcome->mode,
        .board = update->settings->board,
        .last_reason = outcome->reason,
        .probation = noria_update_on_probation(update) ? 1u : 0u,
        .battery_mv = (uint16_t)noria_clamp(reading->battery_mv, 0, UINT16_MAX),
        .vwc_shallow_e4 = reading->vwc_shallow_e4,
        .vwc_deep_e4 = reading->vwc_deep_e4,
        .soil_temp_c100 = reading->soil_temp_c100,
        .air_temp_c100 = reading->air_temp_c100,
        .depletion_e1_mm = shared.depletion_e1_mm,
        .taw_e1_mm = shared.taw_e1_mm,
        .threshold_permille = outcome->threshold_permille,
        .forecast_24h_e4 = outcome->forecast_e4[0],
        .water_season_e1_mm = outcome->water_season_e1_mm,
        .model_version = shared.model_version,
        .backbone_id = noria_update_backbone(update),
    };
    noria_link_telemetry(link, &frame);
}

void noria_report_wake(noria_link_t *link, noria_update_t *update, const noria_core_t *core,
                       const noria_outcome_t *outcome, const noria_reading_t *reading,
                       bool valve_open) {
    tell_of_update(link, update, outcome, reading->time_s);
    tell_of_field(link, update, outcome, reading->time_s);
    if (outcome->send_statistics != 0) {
        noria_link_statistics(link, core, noria_update_backbone(update));
    }
    if (outcome->send_telemetry != 0) {
        telemetry(link, update, outcome, reading, valve_open);
    }
}
