#include "link.h"

#include <string.h>

#include "modem.h"

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
    } else if (downlink.f_port == NORIA_F_PORT_SETTINGS) {
        noria_override_t order;
        return noria_frame_override(downlink.payload, downlink.length, &order) &&
               noria_core_override(core, order.action, order.argument);
    }
    return false;
}

bool noria_link_exchange(noria_link_t *link, noria_update_t *update, noria_core_t *core) {
    if (link->reply_length == 0) {
        link->reply_length = (uint8_t)noria_update_status(update, link->reply);
    }
    if (!is_anything_waiting(link) || !noria_modem_start()) {
        return false;
    }
    bool ordered = false;
    for (uint32_t sent = 0; sent < NORIA_LINK_FRAMES_PER_WAKE; sent++) {
        uint8_t f_port = 0;
        const uint16_t length = next_frame(link, &f_port);
        if (length == 0) {
            link->fragment_limit = 0; // a snapshot that cannot be sent is given up
            break;
        }
        const noria_modem_result_t result = noria_modem_send(f_port, frame, length, &downlink);
        if (result == NORIA_MODEM_BUSY || result == NORIA_MODEM_SILENT) {
            break;
        }
        strike_out(link, f_port);
        ordered = carry_out(link, update, core) || ordered;
    }
    return ordered;
}
