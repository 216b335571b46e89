/// The data region of flash as an array, with the rules of both parts and a power supply that can
/// be cut at any operation.
#ifndef NORIA_HOST_FLASH_H
#define NORIA_HOST_FLASH_H

#include <stdbool.h>
#include <stdint.h>

/// A blank part whose erased state is `erased_byte`, power on.
void noria_host_flash_reset(uint8_t erased_byte);

/// From here on as a part with ECC: a unit that a cut left half written reads as other garbage
/// after each power on, and takes no program before an erase even where it looks erased.
void noria_host_flash_ecc(void);

/// Whether every erase and program is refused, as by a part at the end of its life.
void noria_host_flash_refuse(bool on);

/// Cuts the power at the `operation`-th erase or program from now (from 0); `torn` leaves that one
/// half done, in a way that `seed` decides. Every later operation finds the power off.
void noria_host_flash_cut(uint32_t operation, bool torn, uint32_t seed);

/// Power on again; returns whether it had been cut.
bool noria_host_flash_power_on(void);

/// Erases and programs since the last reset or power on.
uint32_t noria_host_flash_operations(void);

/// The array itself, and which of its units ECC has lost, for tests that save, restore and inspect
/// them.
uint8_t *noria_host_flash_memory(void);
bool *noria_host_flash_lost(void);

/// Factory programming: no rules.
void noria_host_flash_load(uint32_t offset, const uint8_t *data, uint32_t length);

#endif
