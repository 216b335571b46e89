/// What each board provides to the code both boards share.
#ifndef NORIA_BOARD_H
#define NORIA_BOARD_H

#include <stdbool.h>
#include <stdint.h>

#include "hal.h"

/// Pins, the same on both boards: PA0 shallow probe, PA1 deep probe, PA2/PA3 modem, PA4 soil
/// temperature, PA5 light, PA8 modem reset, PB0 sensor supply, PB1 held valve, PA15/PB3 latching
/// valve, PB5 air sensor supply, PB6/PB7 I2C.
#define NORIA_PIN_SENSOR_POWER 0u
#define NORIA_PIN_AIR_POWER 5u
#ifndef NORIA_PIN_VALVE
#define NORIA_PIN_VALVE 1u
#endif
#define NORIA_PIN_MODEM_RESET 8u

/// Flash wait states, clocks, power mode, access to the RTC domain, LSE running and selected.
void noria_board_clocks_init(void);

/// Longest sleep between two reloads of the watchdog, s.
extern const uint32_t noria_board_sleep_piece_s;

/// Where noria_retain() keeps its word.
void noria_board_word_store(uint32_t word);
uint32_t noria_board_word_load(void);

/// The start of the data region, from the linker script.
extern uint8_t noria_flash_data[];

/// STOP until an enabled interrupt is pending, then clear that interrupt.
void noria_board_stop(void);
void noria_board_enable_interrupt(uint32_t irq);
void noria_board_clear_pending(uint32_t irq);

/// Whether a reset by the supply left the RTC domain running: then it was a brown-out. False where
/// the part cannot tell.
bool noria_board_domain_survived(void);

/// Reads why the part was reset and clears the flags for the next reset; before the RTC domain is
/// touched.
void noria_reset_note(void);

/// Switches the supply detector; it must work in STOP too.
void noria_board_detector(bool on);
bool noria_board_supply_low(void);

/// Corrects a sweep: `raw` by input, `reference` the raw reading of the internal reference, whose
/// reading at 3.0 V the factory stored.
void noria_board_scale(noria_adc_sweep_t *sweep, const uint32_t raw[NORIA_ADC_INPUTS],
                       uint32_t reference, uint32_t calibration);

/// Whether `length` bytes at `offset` lie in the data region, both multiples of `unit`.
bool noria_board_flash_fits(uint32_t offset, uint32_t length, uint32_t unit);

/// NMI of the part, where it has a source; returns when that is dealt with.
void noria_board_nmi(void);

/// Closes the held valve and waits for the watchdog; does not return.
void noria_board_fault(void);

void noria_rtc_init(void);
void noria_peripherals_init(void);
void noria_valve_init(void);

#endif
