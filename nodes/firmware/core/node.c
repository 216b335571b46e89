#include "node.h"

#include <string.h>

#include "core.h"
#include "hal.h"
#include "link.h"
#include "report.h"
#include "sensors.h"
#include "settings.h"
#include "store.h"
#include "timekeeper.h"
#include "update.h"

#define WAKE_PERIOD_S 900u
#define UNPROVISIONED_SLEEP_S 3600u
#define PAUSE_DOUBLINGS 6u // 64 wakes: 16 hours

/// Everything that outlives a reset.
typedef struct {
    noria_core_t core;
    uint32_t saved_s;       // when this was written
    uint32_t valve_close_s; // when the valve is due to close; 0 = it is closed
    noria_timekeeper_t timekeeper;
} noria_memory_t;

#define MEMORY_VERSION (NORIA_CORE_VERSION * 256u + 2u)

static const noria_settings_t *settings;
static noria_memory_t memory;
static noria_update_t update;
static noria_link_t link;
static bool storage_failed; // told once a start

static void tell(uint8_t code, uint8_t detail, const noria_outcome_t *outcome) {
    noria_event_t event = noria_report_event(code, &update, outcome, noria_clock_now_s());
    event.detail = detail;
    noria_link_event(&link, &event);
}

static bool save(void) {
    memory.saved_s = noria_clock_now_s();
    const bool saved = noria_store_save(&memory, sizeof memory, MEMORY_VERSION);
    if (!saved && !storage_failed) {
        tell(NORIA_EVENT_CODE_STORAGE_FAULT, 0, NULL);
    }
    storage_failed = !saved;
    return saved;
}

/// Valve ///

static void drive_valve(bool open) {
    if (settings->valve == NORIA_VALVE_LATCHING) {
        noria_valve_pulse(open);
    } else {
        noria_valve_drive(open);
    }
    noria_supply_watch(open);
}

static void close_valve(void) {
    const uint32_t now_s = noria_clock_now_s();
    drive_valve(false);
    if (memory.valve_close_s > now_s) {
        noria_core_cut_short(&memory.core, settings, memory.valve_close_s - now_s);
    }
    memory.valve_close_s = 0;
}

// The promise to close is in flash before the valve opens: a reset in between cuts the dose short,
// it never forgets it. Without the promise the valve stays shut.
static void open_valve(uint32_t open_s) {
    const uint32_t now_s = noria_clock_now_s(), longest_s = settings->max_on_s;
    const uint32_t length_s = open_s < longest_s ? open_s : longest_s;
    memory.valve_close_s = now_s + length_s;
    if (save()) {
        drive_valve(true);
    } else {
        memory.valve_close_s = 0;
        noria_core_cut_short(&memory.core, settings, length_s);
        tell(NORIA_EVENT_CODE_VALVE_FAULT, 0, NULL);
    }
}

// What stands open closes when its time has come, when the farmer says so, and when the clock shows
// that it cannot have been opened by us.
static void watch_valve(const noria_outcome_t *outcome, uint32_t now_s) {
    if (memory.valve_close_s != 0 && (outcome->close != 0 || memory.valve_close_s <= now_s ||
                                      memory.valve_close_s - now_s > settings->max_on_s)) {
        close_valve();
    }
}

/// Boot ///

static void restore(void) {
    if (!noria_store_load(&memory, sizeof memory, MEMORY_VERSION)) {
        memset(&memory, 0, sizeof memory);
    }
    if (!noria_core_is_valid(&memory.core)) {
        noria_core_init(&memory.core);
    }
    const bool clock_ran = noria_clock_is_set();
    noria_clock_trim(noria_timekeeper_boot(&memory.timekeeper, clock_ran));
    if (!clock_ran) { // a flat battery: go on from the last time known, never backwards
        const uint32_t soak_s = settings->commissioning_days * 86400u;
        noria_clock_set(memory.saved_s != 0 ? memory.saved_s : settings->planting_time_s - soak_s);
    }
}

// A cell too weak to carry a transmission would start anew, report that, and fail again, all day
// long: after each such start the radio waits twice as long. What is retained is the number of such
// starts since a transmission last went well.
static void spare_radio(uint8_t cause) {
    if (cause != NORIA_RESET_CAUSE_POWER_ON && cause != NORIA_RESET_CAUSE_BROWN_OUT) {
        return;
    }
    const uint16_t before = noria_retained();
    const uint16_t doublings = before < PAUSE_DOUBLINGS ? before : PAUSE_DOUBLINGS;
    link.pause_wakes = (uint16_t)((1u << doublings) - 1u);
    noria_retain((uint16_t)(doublings + 1u));
}

void noria_node_boot(void) {
    settings = noria_settings_load();
    if (settings == NULL) {
        (void)noria_sleep_until(noria_clock_now_s() + UNPROVISIONED_SLEEP_S);
        return;
    }
    drive_valve(false); // a latching valve may stand open after a reset
    memset(&link, 0, sizeof link);
    storage_failed = false;
    restore();
    noria_update_boot(&update, settings);
    const uint8_t cause = noria_reset_cause();
    spare_radio(cause);
    if (memory.valve_close_s != 0) {
        close_valve();
        (void)save();
    }
    noria_event_t event =
        noria_report_event(NORIA_EVENT_CODE_BOOTED, &update, NULL, noria_clock_now_s());
    event.reason = memory.core.last_reason;
    event.detail = cause;
    noria_link_event(&link, &event);
}

/// Wakes ///

// The next multiple of the period plus this node's phase, after `now_s`.
static uint32_t next_wake_s(uint32_t now_s) {
    const uint32_t phase_s = settings->wake_phase_s % WAKE_PERIOD_S;
    const uint32_t since_s = (now_s + WAKE_PERIOD_S - phase_s) % WAKE_PERIOD_S;
    return now_s + WAKE_PERIOD_S - since_s;
}

static void sleep_until_wake(void) {
    const uint32_t wake_s = next_wake_s(noria_clock_now_s());
    if (memory.valve_close_s != 0) {
        const bool closes = memory.valve_close_s <= wake_s;
        const bool slept = noria_sleep_until(closes ? memory.valve_close_s : wake_s);
        if (!slept) { // while there is still enough to close a latching valve
            close_valve();
            tell(NORIA_EVENT_CODE_LOW_BATTERY, 0, NULL);
        } else if (closes) {
            close_valve();
        }
    }
    (void)noria_sleep_until(wake_s);
}

// What the network says of the time moves the calendar, and with it the promise to close.
static void keep_time(const noria_outcome_t *outcome) {
    if (link.asked_s == 0) {
        return;
    }
    const bool lost = !noria_timekeeper_trusts(&memory.timekeeper);
    const noria_clock_correction_t correction =
        noria_timekeeper_sync(&memory.timekeeper, settings, link.asked_s, link.network_time_s);
    if (!correction.believed) {
        return;
    }
    noria_clock_trim(correction.trim_ppm);
    const int32_t step_s = correction.step_s, wake_s = (int32_t)WAKE_PERIOD_S;
    if (step_s != 0) {
        noria_clock_set(noria_clock_now_s() + (uint32_t)step_s);
        if (memory.valve_close_s != 0) {
            memory.valve_close_s += (uint32_t)step_s;
        }
        (void)save();
    }
    if (lost || step_s > wake_s || step_s < -wake_s) {
        tell(NORIA_EVENT_CODE_CLOCK_CORRECTED, 0, outcome);
    }
}

// Radio last: what it costs in time and charge, the field no longer waits for.
static void exchange(const noria_outcome_t *outcome, uint32_t now_s) {
    noria_supply_watch(false); // that it sags under a transmission says nothing
    link.sparing = outcome->battery_low != 0;
    link.want_time = noria_timekeeper_due(&memory.timekeeper, now_s);
    if (noria_link_exchange(&link, &update, &memory.core)) {
        tell(NORIA_EVENT_CODE_SETTINGS_APPLIED, 0, outcome);
        if (memory.core.stop_until_s != 0 && memory.valve_close_s != 0) {
            close_valve();
        }
        (void)save();
    }
    if (link.transmitted && noria_retained() != 0) {
        noria_retain(0);
    }
    keep_time(outcome);
    noria_supply_watch(memory.valve_close_s != 0);
    (void)noria_update_poll(&update, noria_clock_now_s());
}

static void wake(void) {
    noria_reading_t reading = {.time_s = noria_clock_now_s()};
    noria_outcome_t outcome;
    noria_sensors_read(&reading);
    noria_core_wake(&memory.core, settings, &reading, noria_update_model(&update), &outcome);
    watch_valve(&outcome, reading.time_s);
    if (outcome.dawn != 0) {
        const noria_probation_t record = noria_core_probation(&memory.core);
        (void)noria_update_probation(&update, record.model_energy, record.baseline_energy,
                                     record.rival_energy, record.windows, reading.time_s);
        noria_core_rival(&memory.core, noria_update_predecessor(&update));
    }
    noria_report_wake(&link, &update, &memory.core, &outcome, &reading, memory.valve_close_s != 0);
    if (outcome.open_s != 0) {
        open_valve(outcome.open_s);
    } else if (outcome.dawn != 0) {
        (void)save();
    }
    exchange(&outcome, reading.time_s);
}

void noria_node_step(void) {
    if (settings == NULL) {
        noria_node_boot();
        return;
    }
    sleep_until_wake();
    wake();
}
