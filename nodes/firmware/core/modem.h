/// Driver of a LoRaWAN modem with RAKwireless RUI3 AT commands (RAK3172), class A. Nothing the
/// modem says is trusted: lines are bounded, unknown ones are skipped, every wait ends.
#ifndef NORIA_MODEM_H
#define NORIA_MODEM_H

#include <stdbool.h>
#include <stdint.h>

#define NORIA_MODEM_PAYLOAD_LIMIT 222u // the most any EU868 data rate carries

typedef enum {
    NORIA_MODEM_SENT,    // on air; whether it arrived nobody knows
    NORIA_MODEM_BUSY,    // try again later
    NORIA_MODEM_REFUSED, // the frame does not fit the data rate or the command is unknown
    NORIA_MODEM_SILENT,  // no sensible answer in time
} noria_modem_result_t;

typedef struct {
    bool present;
    uint8_t f_port;
    uint8_t length;
    uint8_t payload[NORIA_MODEM_PAYLOAD_LIMIT];
} noria_downlink_t;

/// Asks whether the modem has joined, and for its data rate; joins if it must. True: frames can go.
bool noria_modem_start(void);

/// Most bytes one frame carries at the data rate the modem last told, or at the slowest.
uint16_t noria_modem_payload_limit(void);

/// Sends one unconfirmed frame and listens through both receive windows; the first data frame that
/// arrives there lands in `downlink`.
noria_modem_result_t noria_modem_send(uint8_t f_port, const uint8_t *payload, uint16_t length,
                                      noria_downlink_t *downlink);

#endif
