/// Keeps the RTC honest by the network's time, when a network offers it: finds the crystal's drift
/// over weeks, has the RTC trimmed, and steps it where it is off. Seconds are all the modem tells,
/// so a week resolves 1.7 ppm.
///
/// A time is believed only near the field's own dates. While the clock is trusted, one that differs
/// by more than an hour is believed only when another, half a day or more later, says the same.
/// A clock known to be lost believes the first.
#ifndef NORIA_TIMEKEEPER_H
#define NORIA_TIMEKEEPER_H

#include <stdbool.h>
#include <stdint.h>

#include "noria_shared.h"

#define NORIA_TIMEKEEPER_VERSION 1u

/// Goes into the node's saved memory. All zero is a clock never compared with a network's.
typedef struct {
    uint32_t asked_s;     // RTC at the last question; 0 = never
    uint32_t believed_s;  // RTC, corrected, at the last believed answer; 0 = never
    uint32_t suspected_s; // RTC at the last answer that was not believed; 0 = none
    int32_t suspicion_s;  // network minus RTC then
    int16_t trim_q4;      // what the RTC runs with, 1/16 ppm
    int8_t left_s;        // network minus RTC left standing at `believed_s`
    uint8_t state;        // bits: lost, drift measured
} noria_timekeeper_t;
_Static_assert(sizeof(noria_timekeeper_t) == 20, "noria_timekeeper_t");

/// What to do with the RTC.
typedef struct {
    int32_t step_s;   // add to the calendar; 0 = leave it
    int32_t trim_ppm; // give to noria_clock_trim
    bool believed;    // the network's answer was taken for the time
} noria_clock_correction_t;

/// At boot. `clock_ran`: the RTC has kept time since it was set. Returns the trim to give it again,
/// ppm.
int32_t noria_timekeeper_boot(noria_timekeeper_t *keeper, bool clock_ran);

/// Whether to ask the network now: daily while in doubt, then weekly.
bool noria_timekeeper_due(const noria_timekeeper_t *keeper, uint32_t rtc_s);

/// Takes the answer to a question put at `rtc_s`; `network_s` = 0: there was none.
noria_clock_correction_t noria_timekeeper_sync(noria_timekeeper_t *keeper,
                                               const noria_settings_t *settings, uint32_t rtc_s,
                                               uint32_t network_s);

/// Whether the RTC tells the time, as far as is known.
bool noria_timekeeper_trusts(const noria_timekeeper_t *keeper);

#endif
