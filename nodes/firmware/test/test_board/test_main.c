// On-target test of the board layer: flash, calendar, timers, converter, air sensor, valves, supply
// detector. Reports on the modem line, one `name:PASS` or `name:FAIL` a line. What an open valve
// does to the probes and to the battery are the bench's doing (nodes/emulator/bench.py).
#include <string.h>

#include "crc.h"
#include "hal.h"
#include "noria_shared.h"
#include "sensors.h"

static void say(const char *name, bool passed) {
    noria_uart_open();
    noria_uart_write((const uint8_t *)name, (uint32_t)strlen(name));
    noria_uart_write((const uint8_t *)(passed ? ":PASS\n" : ":FAIL\n"), 6);
    noria_uart_close();
}

static bool flash_keeps_what_was_programmed(void) {
    static const uint8_t written[16] = "sixteen letters";
    uint8_t erased[16];
    memset(erased, noria_flash_erased_byte(), sizeof erased);
    return noria_flash_erase(NORIA_FLASH_STAGING, NORIA_FLASH_SECTOR) &&
           memcmp(noria_flash_at(NORIA_FLASH_STAGING), erased, sizeof erased) == 0 &&
           noria_flash_program(NORIA_FLASH_STAGING, written, sizeof written) &&
           memcmp(noria_flash_at(NORIA_FLASH_STAGING), written, sizeof written) == 0;
}

static bool flash_refuses_what_does_not_fit(void) {
    static const uint8_t unit[NORIA_FLASH_UNIT] = {1};
    return !noria_flash_erase(NORIA_FLASH_SIZE, NORIA_FLASH_SECTOR) &&
           !noria_flash_erase(8, NORIA_FLASH_SECTOR) &&
           !noria_flash_program(NORIA_FLASH_SIZE, unit, sizeof unit) &&
           !noria_flash_program(NORIA_FLASH_STAGING + 3, unit, sizeof unit);
}

static bool a_number_is_retained(void) {
    static const uint16_t numbers[] = {0xFFFFu, 7u, 0u};
    for (uint32_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        noria_retain(numbers[i]);
        if (noria_retained() != numbers[i]) {
            return false;
        }
    }
    return true;
}

static bool calendar_keeps_unix_time(void) {
    static const uint32_t times_s[] = {4102444799u, 951782400u, 1709164799u, 1709251200u,
                                       1798761599u};
    for (uint32_t i = 0; i < sizeof times_s / sizeof times_s[0]; i++) {
        noria_clock_set(times_s[i]);
        const uint32_t read_s = noria_clock_now_s();
        if (read_s != times_s[i] && read_s != times_s[i] + 1u) {
            return false;
        }
    }
    return noria_clock_is_set();
}

static bool sleep_ends_on_time(void) {
    const uint32_t until_s = noria_clock_now_s() + 100u;
    (void)noria_sleep_until(until_s);
    return noria_clock_now_s() == until_s;
}

static bool silence_on_the_line_ends(void) {
    noria_uart_open();
    const uint32_t before_s = noria_clock_now_s();
    const int byte = noria_uart_read(3000);
    const uint32_t waited_s = noria_clock_now_s() - before_s;
    noria_uart_close();
    return byte == -1 && waited_s >= 2u && waited_s <= 4u;
}

static bool the_line_wakes_the_core(void) {
    noria_uart_open();
    noria_uart_write((const uint8_t *)"?\n", 2); // the bench answers 2 s later
    const int early = noria_uart_read(1000);
    const int answer = noria_uart_read(10000);
    noria_uart_close();
    return early == -1 && answer == '!';
}

static bool sensors_answer(void) {
    noria_reading_t reading = {0};
    noria_sensors_read(&reading);
    return reading.battery_mv > 2900 && reading.battery_mv < 3100 &&
           reading.vwc_shallow_e4 > 1700 && reading.vwc_shallow_e4 < 1800 &&
           reading.air_temp_c100 > 2090 && reading.air_temp_c100 < 2110 && reading.rh_e2 > 5490 &&
           reading.rh_e2 < 5510;
}

static bool valve_is_open(void) {
    noria_adc_sweep_t sweep;
    noria_sensor_power(true);
    noria_wait_ms(10);
    noria_adc_sweep(&sweep);
    noria_sensor_power(false);
    return sweep.input_mv[NORIA_ADC_PROBE_SHALLOW] > 1100;
}

static bool held_valve_follows_its_line(void) {
    noria_valve_drive(true);
    const bool opened = valve_is_open();
    noria_valve_drive(false);
    return opened && !valve_is_open();
}

static bool pulses_move_the_latching_valve(void) {
    for (uint32_t i = 0; i < 2u; i++) {
        noria_valve_pulse(true);
        const bool opened = valve_is_open();
        noria_valve_pulse(false);
        if (!opened || valve_is_open()) {
            return false;
        }
    }
    return true;
}

static bool falling_supply_ends_a_sleep(void) {
    const uint32_t start_s = noria_clock_now_s();
    noria_supply_watch(true);
    const bool quiet = !noria_supply_fell() && noria_sleep_until(start_s + 2u);
    noria_valve_drive(true); // the bench's battery gives way 20 s later
    const bool slept = noria_sleep_until(start_s + 100u);
    const uint32_t woke_s = noria_clock_now_s();
    const bool again = noria_sleep_until(woke_s + 100u);
    const bool told = noria_supply_fell();
    noria_supply_watch(true); // armed anew on a supply that is low already
    const bool low_at_once = noria_supply_fell();
    noria_valve_drive(false);
    noria_supply_watch(false);
    return quiet && !slept && !again && told && low_at_once && woke_s >= start_s + 20u &&
           woke_s < start_s + 30u && noria_clock_now_s() <= woke_s + 1u;
}

static bool unwatched_supply_is_not_told(void) {
    const uint32_t start_s = noria_clock_now_s();
    noria_valve_drive(true);
    const bool slept = noria_sleep_until(start_s + 60u);
    noria_valve_drive(false);
    return slept && !noria_supply_fell() && noria_clock_now_s() == start_s + 60u;
}

static bool part_knows_itself(void) {
    static const uint8_t expected[12] = {0, 0, 0, 0, 0, 0, 0, 0, 'L', 'O', 'T', '1'};
    uint8_t id[12];
    noria_unique_id(id);
    return memcmp(id, expected, sizeof id) == 0 &&
           noria_reset_cause() == NORIA_RESET_CAUSE_POWER_ON;
}

int main(void) {
    noria_board_init();
    say("crc", noria_crc32(0, "123456789", 9) == 0xCBF43926u);
    say("flash_keeps_what_was_programmed", flash_keeps_what_was_programmed());
    say("flash_refuses_what_does_not_fit", flash_refuses_what_does_not_fit());
    say("a_number_is_retained", a_number_is_retained());
    say("calendar_keeps_unix_time", calendar_keeps_unix_time());
    say("sleep_ends_on_time", sleep_ends_on_time());
    say("silence_on_the_line_ends", silence_on_the_line_ends());
    say("the_line_wakes_the_core", the_line_wakes_the_core());
    say("sensors_answer", sensors_answer());
    say("held_valve_follows_its_line", held_valve_follows_its_line());
    say("pulses_move_the_latching_valve", pulses_move_the_latching_valve());
    say("falling_supply_ends_a_sleep", falling_supply_ends_a_sleep());
    say("unwatched_supply_is_not_told", unwatched_supply_is_not_told());
    say("part_knows_itself", part_knows_itself());
    say("end", true);
    for (;;) {
        (void)noria_sleep_until(noria_clock_now_s() + 3600u);
    }
}
