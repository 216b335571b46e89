/// The little that the firmware asks of a board. Implemented in boards/<board>/, and over arrays in
/// the host build.
///
/// Interrupts: the firmware runs with PRIMASK set from reset on and has no handlers. A pended
/// interrupt still ends WFI; its flag is then polled and cleared in software. So there is no
/// concurrency anywhere: no volatile state outside the boards, no race between a wake-up flag and
/// the sleep that waits for it.
#ifndef NORIA_HAL_H
#define NORIA_HAL_H

#include <stdbool.h>
#include <stdint.h>

/// Non-volatile memory ///

// Offsets into the data region at the end of flash. Every area is a multiple of the largest page of
// any board (2 KB), so that one map serves all.
#define NORIA_FLASH_SETTINGS 0x0000u  // provisioning page, 2 KB, written at the factory
#define NORIA_FLASH_BOOT_A 0x0800u    // boot record log, 2 KB
#define NORIA_FLASH_BOOT_B 0x1000u    // its other area
#define NORIA_FLASH_MODEL_A 0x1800u   // model slot, 2 KB
#define NORIA_FLASH_MODEL_B 0x2000u   // its other slot
#define NORIA_FLASH_STAGING 0x2800u   // fragments of an update under way, 2 KB
#define NORIA_FLASH_CHANGES_A 0x3000u // changed settings, 2 KB
#define NORIA_FLASH_CHANGES_B 0x3800u // its other area
#define NORIA_FLASH_STATE_A 0x4000u   // core state, 4 KB
#define NORIA_FLASH_STATE_B 0x5000u   // its other area
#define NORIA_FLASH_SIZE 0x6000u      // the whole data region, 24 KB

#define NORIA_FLASH_SETTINGS_SIZE 0x0800u
#define NORIA_FLASH_BOOT_SIZE 0x0800u
#define NORIA_FLASH_MODEL_SIZE 0x0800u
#define NORIA_FLASH_STAGING_SIZE 0x0800u
#define NORIA_FLASH_CHANGES_SIZE 0x0800u
#define NORIA_FLASH_STATE_SIZE 0x1000u

#define NORIA_FLASH_SECTOR 0x0800u // every erase is a multiple of this, at a multiple of this
#define NORIA_FLASH_UNIT 8u        // every program is a multiple of this, at a multiple of this

/// 0x00 on STM32L0, 0xFF on STM32L4. A unit may be programmed once after an erase.
uint8_t noria_flash_erased_byte(void);

/// Erases `length` bytes; both multiples of NORIA_FLASH_SECTOR. False: refused or failed in part.
bool noria_flash_erase(uint32_t offset, uint32_t length);

/// Programs `length` bytes into erased units; both multiples of NORIA_FLASH_UNIT. Verifies what it
/// wrote. False: refused or failed in part.
bool noria_flash_program(uint32_t offset, const void *data, uint32_t length);

void noria_flash_read(uint32_t offset, void *data, uint32_t length);

/// Flash is memory: a pointer into the data region, for data used in place.
const uint8_t *noria_flash_at(uint32_t offset);

/// A small number that outlives a loss of power without wearing out program memory: in EEPROM where
/// the part has one, else in a backup register, which outlives a supply that fails for a moment. 0
/// when nothing was retained.
void noria_retain(uint16_t number);
uint16_t noria_retained(void);

/// Time ///

/// Clocks, pins, watchdog; everything off, valve closed.
void noria_board_init(void);

/// noria_reset_cause_t of this start.
uint8_t noria_reset_cause(void);

/// The part's factory-programmed identity.
void noria_unique_id(uint8_t id[12]);

/// Whether the calendar has run since it was set; it survives a reset but not a flat battery.
bool noria_clock_is_set(void);
void noria_clock_set(uint32_t time_s);

/// Unix seconds UTC from the RTC calendar.
uint32_t noria_clock_now_s(void);

/// Makes the calendar run faster (positive) or slower, in parts per million within +-480; holds
/// until set again, through resets.
void noria_clock_trim(int32_t ppm);

/// Sleeps in STOP until the calendar reads `time_s`; longer waits than the watchdog allows are cut
/// into pieces. Returns at once when that time has passed. False: it woke before, because the
/// watched supply fell.
bool noria_sleep_until(uint32_t time_s);

/// Sleeps in STOP for `duration_ms` (at most 2,000) on the low-power timer.
void noria_wait_ms(uint32_t duration_ms);

/// The watchdog resets the node when this is not called for about 26 s.
void noria_watchdog_kick(void);

/// Sensors ///

#define NORIA_ADC_PROBE_SHALLOW 0
#define NORIA_ADC_PROBE_DEEP 1
#define NORIA_ADC_SOIL_TEMP 2
#define NORIA_ADC_LIGHT 3
#define NORIA_ADC_INPUTS 4

/// Switches the supply rail of the probes and the thermistor.
void noria_sensor_power(bool on);

/// Feeds the air sensor and the pull-ups of its bus; without, the bus is dead.
void noria_air_power(bool on);

/// One sweep of the converter: the inputs in mV, corrected by the factory calibration of the
/// internal reference, and the supply itself.
typedef struct {
    int32_t input_mv[NORIA_ADC_INPUTS];
    int32_t supply_mv;
} noria_adc_sweep_t;

void noria_adc_sweep(noria_adc_sweep_t *sweep);

/// One I2C write or read, with a STOP condition; false: no acknowledge or a stuck bus.
bool noria_i2c_write(uint8_t address, const uint8_t *data, uint32_t length);
bool noria_i2c_read(uint8_t address, uint8_t *data, uint32_t length);

/// Supply ///

/// Watches the supply for falling below 2.2 V; a fall ends noria_sleep_until. Costs current: only
/// while a valve is open.
void noria_supply_watch(bool on);
bool noria_supply_fell(void);

/// Valve ///

/// Drives a held valve; the line's pull-down closes it through every reset.
void noria_valve_drive(bool open);

/// Sends a latching valve one pulse. A hardware timer ends it, whatever becomes of the core.
void noria_valve_pulse(bool open);

/// Modem ///

/// Pulls the modem's reset line low for a moment.
void noria_modem_hard_reset(void);

void noria_uart_open(void);
void noria_uart_write(const uint8_t *data, uint32_t length);

/// The next byte, or -1 after `timeout_ms` (at most 15,000) of silence; sleeps in STOP meanwhile.
int noria_uart_read(uint32_t timeout_ms);
void noria_uart_close(void);

#endif
