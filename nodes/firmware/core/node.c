#include "node.h"

#include <string.h>

#include "core.h"
#include "hal.h"
#include "link.h"
#include "report.h"
#include "sensors.h"
#include "store.h"
#include "timekeeper.h"
#include "update.h"

#define WAKE_PERIOD_S 900u
#define UNPROVISIONED_SLEEP_S 3600u

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

static void save(uint32_t now_s) {
    memory.saved_s = now_s;
    (void)noria_store_save(&memory, sizeof memory, MEMORY_VERSION);
}

/// Valve ///

static void close_valve(uint32_t now_s) {
    noria_valve_drive(false);
    if (memory.valve_close_s > now_s) {
        noria_core_cut_short(&memory.core, settings, memory.valve_close_s - now_s);
    }
    memory.valve_close_s = 0;
}

// The promise to close is in flash before the valve opens: a reset in between cuts the dose short,
// it never forgets it.
static void open_valve(uint32_t open_s, uint32_t now_s) {
    const uint32_t longest_s = settings->max_on_s;
    memory.valve_close_s = now_s + (open_s < longest_s ? open_s : longest_s);
    save(now_s);
    noria_valve_drive(true);
}

/// Boot ///

void noria_node_boot(void) {
    settings = noria_store_settings();
    if (settings == NULL) {
        (void)noria_sleep_until(noria_clock_now_s() + UNPROVISIONED_SLEEP_S);
        return;
    }
    memset(&link, 0, sizeof link);
    if (!noria_store_load(&memory, sizeof memory, MEMORY_VERSION) ||
        !noria_core_is_valid(&memory.core)) {
        memset(&memory, 0, sizeof memory);
        noria_core_init(&memory.core);
    }
    noria_clock_trim(noria_timekeeper_boot(&memory.timekeeper, noria_clock_is_set()));
    if (!noria_clock_is_set()) { // a flat battery: go on from the last time known, never backwards
        const uint32_t soak_s = settings->commissioning_days * 86400u;
        noria_clock_set(memory.saved_s != 0 ? memory.saved_s : settings->planting_time_s - soak_s);
    }
    const uint32_t now_s = noria_clock_now_s();
    if (memory.valve_close_s != 0) {
        close_valve(now_s);
        save(now_s);
    }
    noria_update_boot(&update, settings);
    const noria_event_t event = {
        .time_s = now_s,
        .code = NORIA_EVENT_CODE_BOOTED,
        .reason = memory.core.last_reason,
        .model_version = noria_update_version(&update),
    };
    noria_link_event(&link, &event);
}

/// Wakes ///

// The next multiple of the period plus this node's phase, after `now_s`.
static uint32_t next_wake_s(uint32_t now_s) {
    const uint32_t phase_s = settings->wake_phase_s % WAKE_PERIOD_S;
    const uint32_t since_s = (now_s + WAKE_PERIOD_S - phase_s) % WAKE_PERIOD_S;
    return now_s + WAKE_PERIOD_S - since_s;
}

// What the network said about the time, if it was asked.
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
    if (correction.step_s != 0) {
        noria_clock_set(noria_clock_now_s() + (uint32_t)correction.step_s);
        if (memory.valve_close_s != 0) {
            memory.valve_close_s += (uint32_t)correction.step_s;
        }
        save(noria_clock_now_s());
    }
    const int32_t wake_s = (int32_t)WAKE_PERIOD_S;
    if (lost || correction.step_s > wake_s || correction.step_s < -wake_s) {
        const noria_event_t event = noria_report_event(NORIA_EVENT_CODE_CLOCK_CORRECTED, &update,
                                                       outcome, noria_clock_now_s());
        noria_link_event(&link, &event);
    }
}

static void sleep_until_wake(void) {
    const uint32_t now_s = noria_clock_now_s();
    const uint32_t wake_s = next_wake_s(now_s);
    if (memory.valve_close_s != 0 && memory.valve_close_s <= wake_s) {
        (void)noria_sleep_until(memory.valve_close_s);
        close_valve(noria_clock_now_s());
    }
    (void)noria_sleep_until(wake_s);
}

static void wake(void) {
    noria_reading_t reading = {.time_s = noria_clock_now_s()};
    noria_outcome_t outcome;
    noria_sensors_read(&reading);
    noria_core_wake(&memory.core, settings, &reading, noria_update_model(&update), &outcome);
    if (outcome.close != 0 && memory.valve_close_s != 0) {
        close_valve(reading.time_s);
    }
    if (outcome.dawn != 0) {
        const noria_probation_t record = noria_core_probation(&memory.core);
        (void)noria_update_probation(&update, record.model_energy, record.baseline_energy,
                                     record.windows, reading.time_s);
    }
    noria_report_wake(&link, &update, &memory.core, &outcome, &reading, memory.valve_close_s != 0);
    if (outcome.open_s != 0) {
        open_valve(outcome.open_s, reading.time_s);
    } else if (outcome.dawn != 0) {
        save(reading.time_s);
    }
    link.want_time = noria_timekeeper_due(&memory.timekeeper, noria_clock_now_s());
    const bool ordered = noria_link_exchange(&link, &update, &memory.core);
    keep_time(&outcome);
    if (ordered) {
        const noria_event_t applied = noria_report_event(NORIA_EVENT_CODE_SETTINGS_APPLIED, &update,
                                                         &outcome, noria_clock_now_s());
        noria_link_event(&link, &applied);
        if (memory.core.stop_until_s != 0 && memory.valve_close_s != 0) {
            close_valve(noria_clock_now_s());
        }
        save(noria_clock_now_s());
    }
    (void)noria_update_poll(&update, noria_clock_now_s());
}

void noria_node_step(void) {
    if (settings == NULL) {
        noria_node_boot();
        return;
    }
    sleep_until_wake();
    wake();
}
