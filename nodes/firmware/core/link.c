#include "link.h"

#include <string.h>

#include "crc.h"
#include "hal.h"
#include "modem.h"
#include "settings.h"

#define DAY_WAKES 96u
#define CHECK_WAKES (DAY_WAKES - 1u) // daily telemetry always finds a check due
#define UNHEARD_LIMIT 8u
#define COMMAND_RESETS_AT 2u // silent exchanges; beyond, the reset line
#define FETCH_LIMIT 3u       // frames more that the modem may fetch by itself

static uint8_t frame[NORIA_MODEM_PAYLOAD_LIMIT];
static noria_downlink_t downlink;

/// Waiting ///

void noria_link_event(noria_link_t *link, const noria_event_t *event) {
    if (link->event_count == NORIA_LINK_EVENTS) {
        link->event_count--;
        memmove(link->events, link->events + 1, link->event_count * sizeof *event);
    }
    link->events[link->event_count++] = *event;
}

void noria_link_telemetry(noria_link_t *link, const noria_telemetry_t *telemetry) {
    noria_frame_telemetry(link->telemetry, telemetry);
    link->telemetry_due = true;
}

void noria_link_statistics(noria_link_t *link, const noria_core_t *core, uint32_t backbone_id) {
    noria_core_snapshot(core, link->snapshot);
    link->statistics = (noria_statistics_frame_t){
        .session = core->statistics_sequence,
        .season = core->season,
        .backbone_id = backbone_id,
        .data = link->snapshot,
        .length = NORIA_SNAPSHOT_BYTES,
    };
    link->fragment = 0;
    link->fragment_limit = UINT16_MAX; // cut when the data rate is known
}

static bool is_anything_waiting(const noria_link_t *link) {
    return link->event_count > 0 || link->telemetry_due || link->reply_length > 0 ||
           link->fragment_limit != 0;
}

/// Sending ///

// The most urgent frame; 0 = nothing waits.
static uint16_t next_frame(noria_link_t *link, uint8_t *f_port) {
    if (link->reply_length > 0) {
        *f_port = NORIA_F_PORT_FRAGMENTATION;
        memcpy(frame, link->reply, link->reply_length);
        return link->reply_length;
    }
    if (link->event_count > 0) {
        *f_port = NORIA_F_PORT_EVENTS;
        return (uint16_t)noria_frame_event(frame, &link->events[0]);
    }
    if (link->telemetry_due) {
        *f_port = NORIA_F_PORT_TELEMETRY;
        memcpy(frame, link->telemetry, NORIA_TELEMETRY_SIZE);
        return NORIA_TELEMETRY_SIZE;
    }
    if (link->fragment_limit == 0) {
        return 0;
    }
    *f_port = NORIA_F_PORT_STATISTICS;
    if (link->fragment_limit != noria_modem_payload_limit()) {
        link->fragment_limit = noria_modem_payload_limit(); // another data rate cuts anew
        link->fragment = 0;
    }
    return (uint16_t)noria_frame_statistics(frame, link->fragment_limit, &link->statistics,
                                            link->fragment);
}

// The frame of `f_port` is on air, or never will be.
static void strike_out(noria_link_t *link, uint8_t f_port) {
    switch (f_port) {
    case NORIA_F_PORT_FRAGMENTATION:
        link->reply_length = 0;
        break;
    case NORIA_F_PORT_EVENTS:
        link->event_count--;
        memmove(link->events, link->events + 1, link->event_count * sizeof link->events[0]);
        break;
    case NORIA_F_PORT_TELEMETRY:
        link->telemetry_due = false;
        break;
    default:
        link->fragment++;
        if (link->fragment >=
            noria_frame_statistics_count(&link->statistics, link->fragment_limit)) {
            link->fragment_limit = 0;
        }
        break;
    }
}

/// Receiving ///

static bool carry_out(noria_link_t *link, noria_update_t *update, noria_core_t *core) {
    if (!downlink.present) {
        return false;
    }
    if (downlink.f_port == NORIA_F_PORT_FRAGMENTATION) {
        link->reply_length =
            (uint8_t)noria_update_downlink(update, downlink.payload, downlink.length, link->reply);
    } else if (downlink.f_port == NORIA_F_PORT_CONTAINER) {
        noria_update_container(update, downlink.payload, downlink.length);
    } else if (downlink.f_port == NORIA_F_PORT_SETTINGS) {
        noria_override_t order;
        return noria_settings_change(downlink.payload, downlink.length) ||
               (noria_frame_override(downlink.payload, downlink.length, &order) &&
                noria_core_override(core, order.action, order.argument));
    }
    return false;
}

/// Patience ///

// Doubles up to a day, and up to half as much again by this node's identity: a farm that lost its
// network together does not come back together. Join requests of 1.5 s (SF12) stay far below what
// LoRaWAN 1.0.3 section 7 allows in the first hour, the first eleven, and a day.
static uint16_t pause_after(uint8_t failures) {
    uint8_t identity[12];
    noria_unique_id(identity);
    const uint32_t wakes = failures < 7u ? 1u << failures : DAY_WAKES;
    const uint32_t lot = noria_crc32(failures, identity, sizeof identity);
    return (uint16_t)(wakes - 1u + lot % (wakes / 2u + 1u));
}

static void count(uint8_t *counter) {
    if (*counter < UINT8_MAX) {
        (*counter)++;
    }
}

static void fall_silent(noria_link_t *link) {
    count(&link->silent);
    if (link->silent < COMMAND_RESETS_AT) {
        return;
    }
    count(&link->restarts);
    noria_modem_restart(link->silent > COMMAND_RESETS_AT);
    link->pause_wakes = pause_after((uint8_t)(link->silent - COMMAND_RESETS_AT));
}

static void hear_again(noria_link_t *link, const noria_update_t *update) {
    if (link->restarts > 0) {
        const noria_event_t event = {
            .time_s = noria_clock_now_s(),
            .code = NORIA_EVENT_CODE_MODEM_RESTARTED,
            .detail = link->restarts,
            .model_version = noria_update_version(update),
        };
        noria_link_event(link, &event);
    }
    link->restarts = 0;
    link->silent = 0;
}

static bool join(noria_link_t *link, const noria_settings_t *settings) {
    if (noria_modem_join(settings) == NORIA_MODEM_DONE) {
        link->join_failures = 0;
        link->unheard = 0;
        link->unchecked_wakes = 0;
        return true;
    }
    link->pause_wakes = pause_after(link->join_failures);
    count(&link->join_failures);
    return false;
}

// Whether frames can go now.
static bool is_ready(noria_link_t *link, const noria_update_t *update) {
    const noria_modem_result_t result = noria_modem_start();
    if (result == NORIA_MODEM_SILENT) {
        fall_silent(link);
        return false;
    }
    hear_again(link, update);
    return (result == NORIA_MODEM_DONE && link->unheard < UNHEARD_LIMIT) ||
           join(link, update->settings);
}

// The frame that carried the questions went out.
static void take_answers(noria_link_t *link, const noria_modem_inquiry_t *inquiry) {
    if (inquiry->asked_s != 0) {
        link->want_time = false;
        link->asked_s = inquiry->asked_s;
        link->network_time_s = inquiry->network_time_s;
    }
    if (inquiry->want_check) {
        link->unchecked_wakes = 0;
        count(&link->unheard);
    }
    if (inquiry->heard) {
        link->unheard = 0;
    }
}

/// Interface ///

// Sends one frame. False: that was all for this wake.
static bool send_one(noria_link_t *link) {
    uint8_t f_port = 0;
    const uint16_t length = next_frame(link, &f_port);
    if (length == 0) {
        link->fragment_limit = 0; // a snapshot that cannot be sent is given up
        return false;
    }
    noria_modem_inquiry_t inquiry = {
        .want_time = link->want_time,
        .want_check = link->unchecked_wakes >= CHECK_WAKES,
    };
    const noria_modem_result_t result =
        noria_modem_send(f_port, frame, length, &inquiry, &downlink);
    if (result == NORIA_MODEM_REFUSED && !link->refused) {
        link->refused = true; // perhaps the data rate fell just now: asked for at the next wake
        return false;
    }
    if (result == NORIA_MODEM_DONE || result == NORIA_MODEM_REFUSED) {
        link->refused = false;
        link->transmitted = link->transmitted || result == NORIA_MODEM_DONE;
        strike_out(link, f_port);
        take_answers(link, &inquiry);
        return true;
    }
    if (result == NORIA_MODEM_SILENT) {
        fall_silent(link);
    } else if (result == NORIA_MODEM_NO_NETWORK) {
        link->unheard = UNHEARD_LIMIT;
    }
    return false;
}

bool noria_link_exchange(noria_link_t *link, noria_update_t *update, noria_core_t *core) {
    link->asked_s = 0;
    link->network_time_s = 0;
    link->transmitted = false;
    if (link->unchecked_wakes < CHECK_WAKES) {
        link->unchecked_wakes++;
    }
    if (link->reply_length == 0) {
        link->reply_length = (uint8_t)noria_update_status(update, link->reply);
    }
    if (link->pause_wakes > 0) {
        link->pause_wakes--;
        return false;
    }
    if (!is_anything_waiting(link) || !is_ready(link, update)) {
        return false;
    }
    bool ordered = false;
    bool received = false;
    bool more = true;
    for (uint32_t sent = 0; more && sent < (link->sparing ? 1u : NORIA_LINK_FRAMES_PER_WAKE);
         sent++) {
        downlink.present = false;
        more = send_one(link);
        received = received || downlink.present;
        ordered = carry_out(link, update, core) || ordered;
    }
    for (uint32_t i = 0; received && i < FETCH_LIMIT; i++) {
        received = noria_modem_listen(&downlink);
        ordered = carry_out(link, update, core) || ordered;
    }
    return ordered;
}
