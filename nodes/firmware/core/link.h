/// What waits to go on air, and what came down. Few frames a wake, the urgent ones first; what the
/// modem does not take now waits for the next wake.
///
/// A modem that does not answer is reset, then asked ever more rarely; without a network it tries
/// to join ever more rarely, each node at moments of its own. Both at most once a day in the end,
/// so that neither costs the node its battery. Once a day a frame asks the network whether it is
/// there; after eight days without an answer the node joins anew.
#ifndef NORIA_LINK_H
#define NORIA_LINK_H

#include <stdbool.h>
#include <stdint.h>

#include "core.h"
#include "frames.h"
#include "update.h"

#define NORIA_LINK_EVENTS 8
// Three frames of 51 bytes at SF12 are 8.4 s on air: within 1 % of the 900 s between wakes.
#define NORIA_LINK_FRAMES_PER_WAKE 3

typedef struct {
    // The caller says, before an exchange:
    bool want_time; // ask the network for the time with the next frame; cleared once asked
    bool sparing;   // the battery is weak: one frame a wake
    // An exchange says:
    uint32_t asked_s;        // when it asked for the time, by the RTC; 0 = it did not
    uint32_t network_time_s; // Unix seconds at `asked_s`; 0 = no answer
    bool transmitted;        // a frame went out
    // Its own:
    uint16_t pause_wakes;                    // before the modem is tried again
    uint16_t unchecked_wakes;                // since the network was last asked whether it is there
    uint8_t silent;                          // exchanges in a row without a sensible answer
    uint8_t restarts;                        // of the modem since it last answered
    uint8_t join_failures;                   // in a row
    uint8_t unheard;                         // checks in a row that the network left unanswered
    bool refused;                            // the frame to send next was refused once
    noria_event_t events[NORIA_LINK_EVENTS]; // oldest first; the oldest gives way
    uint8_t event_count;
    bool telemetry_due;
    uint8_t reply_length; // an answer on fPort 201, 0 = none
    uint8_t telemetry[NORIA_TELEMETRY_SIZE];
    uint8_t reply[NORIA_UPDATE_REPLY_SIZE];
    uint8_t fragment;        // of the snapshot to send next
    uint16_t fragment_limit; // payload limit the snapshot was cut for, 0 = no snapshot waits
    noria_statistics_frame_t statistics;
    uint8_t snapshot[NORIA_SNAPSHOT_BYTES];
} noria_link_t;

void noria_link_event(noria_link_t *link, const noria_event_t *event);
void noria_link_telemetry(noria_link_t *link, const noria_telemetry_t *telemetry);

/// Takes the core's snapshot; one still under way is superseded.
void noria_link_statistics(noria_link_t *link, const noria_core_t *core, uint32_t backbone_id);

/// Sends what waits and carries out what comes down; call at every wake. True: a farmer's order
/// reached the core.
bool noria_link_exchange(noria_link_t *link, noria_update_t *update, noria_core_t *core);

#endif
