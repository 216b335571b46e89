/// Driver of a LoRaWAN modem with RAKwireless RUI3 AT commands (RAK3172), class A, EU868, at 9600
/// baud (`AT+BAUD=9600`, once, before it is mounted). Nothing the modem says is trusted: lines are
/// bounded, unknown ones are skipped, every wait ends.
#ifndef NORIA_MODEM_H
#define NORIA_MODEM_H

#include <stdbool.h>
#include <stdint.h>

#include "noria_shared.h"

#define NORIA_MODEM_PAYLOAD_LIMIT 222u // the most any EU868 data rate carries

typedef enum {
    NORIA_MODEM_DONE,       // of a frame: on air; whether it arrived nobody knows
    NORIA_MODEM_NO_NETWORK, // it has not joined
    NORIA_MODEM_BUSY,       // try again later
    NORIA_MODEM_REFUSED,    // the frame does not fit the data rate or the command is unknown
    NORIA_MODEM_SILENT,     // no sensible answer in time
} noria_modem_result_t;

typedef struct {
    bool present;
    uint8_t f_port;
    uint8_t length;
    uint8_t payload[NORIA_MODEM_PAYLOAD_LIMIT];
} noria_downlink_t;

/// Questions to the network that ride on a frame, and what came back.
typedef struct {
    bool want_time;
    bool want_check;
    bool heard;              // some answer came down: the network knows this node
    uint32_t asked_s;        // when the time was asked for, by the RTC; 0 = it was not
    uint32_t network_time_s; // Unix seconds at `asked_s`; 0 = not told
} noria_modem_inquiry_t;

/// Asks whether the modem has joined, and for its data rate. DONE: frames can go.
noria_modem_result_t noria_modem_start(void);

/// One attempt to join, after the identity has been written into a modem that has another.
noria_modem_result_t noria_modem_join(const noria_settings_t *settings);

/// Most bytes one frame carries at the data rate the modem last told, or at the slowest.
uint16_t noria_modem_payload_limit(void);

/// Sends one unconfirmed frame and listens through both receive windows; the first data frame that
/// arrives lands in `downlink`.
noria_modem_result_t noria_modem_send(uint8_t f_port, const uint8_t *payload, uint16_t length,
                                      noria_modem_inquiry_t *inquiry, noria_downlink_t *downlink);

/// Listens for a frame the modem fetches by itself, as it does when the network has announced more.
/// False: nothing came.
bool noria_modem_listen(noria_downlink_t *downlink);

/// Resets it, by command or by its reset line; the session is lost.
void noria_modem_restart(bool by_line);

#endif
