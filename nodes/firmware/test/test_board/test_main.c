// On-target test of the board layer: flash, calendar, timers, converter, air sensor. Reports on the
// modem line, one `name:PASS` or `name:FAIL` a line.
#include <string.h>

#include "crc.h"
#include "hal.h"
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

static bool sensors_answer(void) {
    noria_reading_t reading = {0};
    noria_sensors_read(&reading);
    return reading.battery_mv > 2900 && reading.battery_mv < 3100 &&
           reading.vwc_shallow_e4 > 1700 && reading.vwc_shallow_e4 < 1800 &&
           reading.air_temp_c100 > 2090 && reading.air_temp_c100 < 2110 && reading.rh_e2 > 5490 &&
           reading.rh_e2 < 5510;
}

int main(void) {
    noria_board_init();
    say("crc", noria_crc32(0, "123456789", 9) == 0xCBF43926u);
    say("flash_keeps_what_was_programmed", flash_keeps_what_was_programmed());
    say("flash_refuses_what_does_not_fit", flash_refuses_what_does_not_fit());
    say("calendar_keeps_unix_time", calendar_keeps_unix_time());
    say("sleep_ends_on_time", sleep_ends_on_time());
    say("silence_on_the_line_ends", silence_on_the_line_ends());
    say("sensors_answer", sensors_answer());
    say("end", true);
    for (;;) {
        (void)noria_sleep_until(noria_clock_now_s() + 3600u);
    }
}
