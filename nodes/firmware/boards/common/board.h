/// What each board provides to the code both boards share.
#ifndef NORIA_BOARD_H
#define NORIA_BOARD_H

#include <stdbool.h>
#include <stdint.h>

#include "hal.h"

/// Pins, the same on both boards: PA0 shallow probe, PA1 deep probe, PA2/PA3 modem, PA4 soil
/// temperature, PA5 light, PA8 modem reset, PB0 sensor supply, PB1 valve, PB6/PB7 I2C.
#define NORIA_PIN_SENSOR_POWER 0u
#define NORIA_PIN_VALVE 1u
#define NORIA_PIN_MODEM_RESET 8u

/// Clocks, power mode, access to the RTC domain, LSE running and selected.
void noria_board_clocks_init(void);

/// Longest sleep between two reloads of the watchdog, s.
extern const uint32_t noria_board_sleep_piece_s;

/// The start of the data region, from the linker script.
extern uint8_t noria_flash_data[];

/// STOP until an enabled interrupt is pending, then clear that interrupt.
void noria_board_stop(void);
void noria_board_clear_pending(uint32_t irq);

void noria_rtc_init(void);
void noria_peripherals_init(void);

#endif
