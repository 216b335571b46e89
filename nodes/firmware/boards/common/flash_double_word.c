// Flash of STM32L4 and STM32WL: double words of 64 bits with ECC, pages of 2 KB, erased to ones.
#include <string.h>

#include "board.h"
#include "registers.h"

#ifdef FLASH_ECCR // STM32L0 has words without

// Double words that could not be read, so far.
static volatile uint32_t unreadable;

// A double word whose programming a failed supply tore has two wrong bits, and reading it raises
// NMI. The read delivers what is there: whoever reads records checks their CRC. Without this
// handler such a node would restart for ever, because every start reads its records.
void noria_board_nmi(void) {
    if ((FLASH_ECCR & FLASH_ECCR_ECCD) == 0u) {
        noria_board_fault();
    }
    FLASH_ECCR = FLASH_ECCR_ECCD;
    unreadable++;
}

uint8_t noria_flash_erased_byte(void) { return 0xFF; }

static void flash_unlock(void) {
    FLASH_KEYR = FLASH_KEY1;
    FLASH_KEYR = FLASH_KEY2;
    FLASH_SR = FLASH_SR_ERRORS | FLASH_SR_EOP;
}

static void flash_lock(void) { FLASH_CR = FLASH_CR_LOCK; }

static bool flash_finish(void) {
    while ((FLASH_SR & FLASH_SR_BSY) != 0u) {
    }
    return (FLASH_SR & FLASH_SR_ERRORS) == 0u;
}

bool noria_flash_erase(uint32_t offset, uint32_t length) {
    if (!noria_board_flash_fits(offset, length, NORIA_FLASH_SECTOR)) {
        return false;
    }
    flash_unlock();
    const uint32_t first =
        ((uint32_t)(uintptr_t)noria_flash_data - 0x08000000u + offset) / FLASH_PAGE;
    bool ok = true;
    for (uint32_t page = 0; ok && page < length / FLASH_PAGE; page++) {
        const uint32_t command = FLASH_CR_PER | ((first + page) << FLASH_CR_PNB_SHIFT);
        FLASH_CR = command;
        FLASH_CR = command | FLASH_CR_STRT;
        ok = flash_finish();
        noria_watchdog_kick();
    }
    flash_lock();
    return ok;
}

// A double word can look erased and yet carry the check bits of a torn one: what is programmed
// there may read right and still be wrong by its check bits. Either flag refuses it.
static bool reads_back(uint32_t offset, const void *data, uint32_t length) {
    const uint32_t before = unreadable;
    FLASH_ECCR = FLASH_ECCR_ECCC;
    const bool same = memcmp(noria_flash_data + offset, data, length) == 0;
    return same && unreadable == before && (FLASH_ECCR & FLASH_ECCR_ECCC) == 0u;
}

bool noria_flash_program(uint32_t offset, const void *data, uint32_t length) {
    if (!noria_board_flash_fits(offset, length, NORIA_FLASH_UNIT)) {
        return false;
    }
    flash_unlock();
    FLASH_CR = FLASH_CR_PG;
    const uint8_t *from = data;
    bool ok = true;
    for (uint32_t at = 0; ok && at < length; at += NORIA_FLASH_UNIT) {
        uint32_t words[2];
        memcpy(words, from + at, sizeof words);
        volatile uint32_t *to = (volatile uint32_t *)(void *)(noria_flash_data + offset + at);
        to[0] = words[0];
        to[1] = words[1];
        ok = flash_finish();
    }
    flash_lock();
    return ok && reads_back(offset, data, length);
}

#endif
