#define _XOPEN_SOURCE 700 // ucontext
#include "board.h"

#include <string.h>
#include <ucontext.h>

#include "node.h"

#define SECOND_US 1000000u
#define UART_BYTE_US 1042u // 9600 baud
#define I2C_BYTE_US 90u    // 100 kHz
#define SWEEP_US 400u
#define SUPPLY_LOW_MV 2200
#define FIRMWARE_STACK 65536u

static noria_host_world_t world;

/// Time ///

static uint64_t now_us;
static uint64_t modem_due_us = NORIA_HOST_NEVER;

static uint8_t cause;
static uint8_t identity[12];
static uint64_t calendar_at_mark_us, mark_us;
static bool calendar_set;
static int32_t trim_ppm;

uint64_t noria_host_board_now_us(void) { return now_us; }

uint64_t noria_host_board_calendar_us(void) {
    const uint64_t since_us = now_us - mark_us;
    const int64_t trimmed_us = (int64_t)(since_us / SECOND_US) * trim_ppm;
    return calendar_at_mark_us + since_us + (uint64_t)trimmed_us;
}

int32_t noria_host_board_trim_ppm(void) { return trim_ppm; }

/// The firmware as a coroutine ///

static uint8_t stack[FIRMWARE_STACK] __attribute__((aligned(16)));
static ucontext_t outside, inside;
static bool is_started;
static uint64_t limit_us =
    NORIA_HOST_NEVER; // a caller that does not come from run_until never waits

static void firmware(void) {
    noria_board_init();
    noria_node_boot();
    for (;;) {
        noria_node_step();
    }
}

void noria_host_board_run_until(uint64_t time_us) {
    limit_us = time_us;
    if (!is_started) {
        is_started = true;
        (void)getcontext(&inside);
        inside.uc_stack.ss_sp = stack;
        inside.uc_stack.ss_size = sizeof stack;
        inside.uc_link = NULL;
        makecontext(&inside, firmware, 0);
    }
    if (now_us < limit_us) {
        (void)swapcontext(&outside, &inside);
    }
}

/// The modem's line ///

typedef struct {
    uint64_t at_us;
    uint8_t byte;
} arrival_t;

static arrival_t line[NORIA_HOST_LINE_BYTES];
static uint32_t line_first, line_count;
static uint64_t line_free_us;
static bool uart_open;
static int received = -1; // one byte, as in the part

void noria_host_board_modem_says(const uint8_t *data, uint32_t length, uint64_t at_us) {
    for (uint32_t i = 0; i < length && line_count < NORIA_HOST_LINE_BYTES; i++) {
        line_free_us = (line_free_us > at_us ? line_free_us : at_us) + UART_BYTE_US;
        line[(line_first + line_count++) % NORIA_HOST_LINE_BYTES] =
            (arrival_t){line_free_us, data[i]};
    }
}

void noria_host_board_modem_due(uint64_t at_us) { modem_due_us = at_us; }

static uint64_t next_arrival_us(void) {
    return line_count > 0 ? line[line_first].at_us : NORIA_HOST_NEVER;
}

static void take_arrival(void) {
    if (uart_open && received < 0) { // else it is overrun
        received = line[line_first].byte;
    }
    line_first = (line_first + 1u) % NORIA_HOST_LINE_BYTES;
    line_count--;
}

static uint64_t earlier(uint64_t a, uint64_t b) { return a < b ? a : b; }

// Passes time until `time_us`, or until a byte has arrived if the firmware waits for one.
static void pass_until(uint64_t time_us, bool for_byte) {
    while (now_us < time_us && !(for_byte && received >= 0)) {
        const uint64_t event_us = earlier(next_arrival_us(), modem_due_us);
        const uint64_t to_us = earlier(earlier(event_us, time_us), limit_us);
        now_us = to_us > now_us ? to_us : now_us;
        if (modem_due_us <= now_us) {
            modem_due_us = NORIA_HOST_NEVER;
            if (world.modem_acts != NULL) {
                world.modem_acts();
            }
        } else if (next_arrival_us() <= now_us) {
            take_arrival();
        } else if (now_us >= limit_us) {
            (void)swapcontext(&inside, &outside);
        }
    }
}

static void pass(uint64_t duration_us) { pass_until(now_us + duration_us, false); }

void noria_uart_open(void) {
    uart_open = true;
    received = -1;
}

void noria_uart_close(void) { uart_open = false; }

void noria_uart_write(const uint8_t *data, uint32_t length) {
    pass((uint64_t)length * UART_BYTE_US);
    if (world.modem_hears != NULL) {
        world.modem_hears(data, length);
    }
}

int noria_uart_read(uint32_t timeout_ms) {
    pass_until(now_us + (uint64_t)timeout_ms * 1000u, true);
    const int byte = received;
    received = -1;
    return byte;
}

void noria_modem_hard_reset(void) {
    if (world.modem_reset != NULL) {
        world.modem_reset();
    }
}

/// Clocks ///

uint8_t noria_reset_cause(void) { return cause; }

static uint16_t retained;

void noria_retain(uint16_t number) { retained = number; }

uint16_t noria_retained(void) { return retained; }

void noria_unique_id(uint8_t id[12]) { memcpy(id, identity, sizeof identity); }

bool noria_clock_is_set(void) { return calendar_set; }

static void clock_mark(uint64_t calendar_us) {
    calendar_at_mark_us = calendar_us;
    mark_us = now_us;
}

void noria_clock_set(uint32_t time_s) {
    clock_mark((uint64_t)time_s * SECOND_US);
    calendar_set = true;
}

void noria_clock_trim(int32_t ppm) {
    clock_mark(noria_host_board_calendar_us());
    trim_ppm = ppm;
}

uint32_t noria_clock_now_s(void) { return (uint32_t)(noria_host_board_calendar_us() / SECOND_US); }

void noria_wait_ms(uint32_t duration_ms) { pass((uint64_t)duration_ms * 1000u); }

void noria_watchdog_kick(void) {}

/// Supply ///

static bool supply_watched, supply_fell;

void noria_supply_watch(bool on) {
    supply_watched = on;
    supply_fell = false;
}

static bool look_at_supply(void) {
    if (supply_watched && world.supply_mv != NULL && world.supply_mv() < SUPPLY_LOW_MV) {
        supply_fell = true;
    }
    return supply_fell;
}

bool noria_supply_fell(void) { return supply_watched && look_at_supply(); }

// A watched supply is looked at every second; the part's own detector never looks away.
bool noria_sleep_until(uint32_t time_s) {
    while (noria_clock_now_s() < time_s) {
        if (supply_watched && look_at_supply()) {
            return false;
        }
        const uint64_t to_go_us = (uint64_t)time_s * SECOND_US - noria_host_board_calendar_us();
        pass(supply_watched && to_go_us > SECOND_US ? SECOND_US : to_go_us);
    }
    return true;
}

/// Sensors ///

static bool sensors_powered;

void noria_sensor_power(bool on) {
    sensors_powered = on;
    if (world.sensor_power != NULL) {
        world.sensor_power(on);
    }
}

void noria_air_power(bool on) {
    if (world.air_power != NULL) {
        world.air_power(on);
    }
}

void noria_adc_sweep(noria_adc_sweep_t *sweep) {
    memset(sweep, 0, sizeof *sweep);
    pass(SWEEP_US);
    if (world.sweep != NULL) {
        world.sweep(sweep, sensors_powered);
    }
}

bool noria_i2c_write(uint8_t address, const uint8_t *data, uint32_t length) {
    pass((length + 1u) * I2C_BYTE_US);
    return world.i2c_write != NULL && world.i2c_write(address, data, length);
}

bool noria_i2c_read(uint8_t address, uint8_t *data, uint32_t length) {
    pass((length + 1u) * I2C_BYTE_US);
    return world.i2c_read != NULL && world.i2c_read(address, data, length);
}

/// Valve ///

static bool held_open, latched_open;

bool noria_host_board_valve_open(void) { return held_open || latched_open; }

static void move_valve(bool *which, bool open) {
    const bool before = noria_host_board_valve_open();
    *which = open;
    if (noria_host_board_valve_open() != before && world.valve != NULL) {
        world.valve(!before);
    }
}

void noria_valve_drive(bool open) { move_valve(&held_open, open); }

void noria_valve_pulse(bool open) { move_valve(&latched_open, open); }

/// Start ///

void noria_host_board_connect(const noria_host_world_t *around) { world = *around; }

void noria_host_board_start(uint8_t reset_cause, const uint8_t id[12], uint64_t calendar_us,
                            bool calendar_is_set) {
    now_us = 0;
    modem_due_us = NORIA_HOST_NEVER;
    line_count = 0;
    line_free_us = 0;
    uart_open = false;
    received = -1;
    trim_ppm = 0;
    supply_watched = false;
    sensors_powered = false;
    held_open = latched_open = false;
    cause = reset_cause;
    memcpy(identity, id, sizeof identity);
    clock_mark(calendar_us);
    calendar_set = calendar_is_set;
}

void noria_board_init(void) { noria_valve_drive(false); }
