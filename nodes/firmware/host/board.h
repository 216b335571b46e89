/// A board without hardware: everything of hal.h over a simulated clock. What stands around the
/// node is asked through functions; the modem's line is a queue of bytes with their times.
///
/// The firmware runs on a stack of its own and never returns: noria_host_board_run_until lets it go
/// on until its time is reached, wherever it then waits. A reset is a new copy of the library.
#ifndef NORIA_HOST_BOARD_H
#define NORIA_HOST_BOARD_H

#include <stdbool.h>
#include <stdint.h>

#include "hal.h"

#define NORIA_HOST_NEVER UINT64_MAX
#define NORIA_HOST_LINE_BYTES 4096u // most that may wait on the modem's line

/// What stands around the node, asked at the moment noria_host_board_now_us() tells; any may be
/// NULL.
typedef struct {
    void (*sweep)(noria_adc_sweep_t *sweep, bool powered);
    int32_t (*supply_mv)(void); // while it is watched
    void (*sensor_power)(bool on);
    void (*air_power)(bool on);
    bool (*i2c_write)(uint8_t address, const uint8_t *data, uint32_t length);
    bool (*i2c_read)(uint8_t address, uint8_t *data, uint32_t length);
    void (*valve)(bool open);                                  // at every change
    void (*modem_hears)(const uint8_t *data, uint32_t length); // once the bytes have left the line
    void (*modem_acts)(void);                                  // at the time it asked for
    void (*modem_reset)(void);
} noria_host_world_t;

/// Connects the world; before the first run.
void noria_host_board_connect(const noria_host_world_t *world);

/// The board as it starts, time 0, everything off: noria_reset_cause_t, the calendar's microseconds
/// since 1970, and whether it counts as set.
void noria_host_board_start(uint8_t reset_cause, const uint8_t id[12], uint64_t calendar_us,
                            bool calendar_is_set);

/// Lets the firmware run until `time_us` since it was switched on.
void noria_host_board_run_until(uint64_t time_us);

/// Simulated time since it was switched on.
uint64_t noria_host_board_now_us(void);

/// The calendar, for a board that takes over after a reset.
uint64_t noria_host_board_calendar_us(void);
int32_t noria_host_board_trim_ppm(void);

/// Whether water flows.
bool noria_host_board_valve_open(void);

/// The modem starts to send `data` at `at_us`, after what it is sending already. What does not fit
/// the line's buffer is lost.
void noria_host_board_modem_says(const uint8_t *data, uint32_t length, uint64_t at_us);

/// When the modem next acts by itself; NORIA_HOST_NEVER for not at all.
void noria_host_board_modem_due(uint64_t at_us);

#endif
