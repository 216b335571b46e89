// LoRa-E5, a module around STM32WLE5JC: clocks, STOP mode, converter, flash. It builds, but is
// neither emulated nor tried.
//
// The part's own sub-GHz radio is not used and stays as reset leaves it: the modem is an external
// one with AT commands on LPUART1, as on the other boards, so that one firmware serves all.
#include <string.h>

#include "board.h"
#include "registers.h"

// The watchdog counts 4096 x 256 periods of LSI, at most 34 kHz over temperature: 30.8 s.
const uint32_t noria_board_sleep_piece_s = 30;

void noria_board_clocks_init(void) {
    FLASH_ACR &= ~FLASH_ACR_LATENCY; // range 2 reads without a wait state up to 6 MHz
    FLASH_ECCR = FLASH_ECCR_ECCC | FLASH_ECCR_ECCD;
    noria_reset_note();
    RCC_APB1ENR1 =
        RCC_APB1ENR1_I2C1 | RCC_APB1ENR1_LPTIM1 | RCC_APB1ENR1_RTCAPB | RCC_APB1ENR1_TIM2;
    RCC_APB1ENR2 = RCC_APB1ENR2_LPUART1;
    RCC_APB2ENR = RCC_APB2ENR_ADC;
    RCC_AHB2ENR = RCC_AHB2ENR_GPIOA | RCC_AHB2ENR_GPIOB;
    PWR_CR1 = PWR_CR1_VOS_RANGE2 | PWR_CR1_DBP | PWR_CR1_LPMS_STOP2;
    if ((RCC_BDCR & RCC_BDCR_RTCEN) == 0u) {
        RCC_BDCR |= RCC_BDCR_LSEON;
        while ((RCC_BDCR & RCC_BDCR_LSERDY) == 0u) {
        }
        RCC_BDCR |= RCC_BDCR_LSESYSEN;
        while ((RCC_BDCR & RCC_BDCR_LSESYSRDY) == 0u) {
        }
        RCC_BDCR |= RCC_BDCR_RTCSEL_LSE | RCC_BDCR_RTCEN;
    }
    RCC_CCIPR = RCC_CCIPR_LPUART1_LSE | RCC_CCIPR_LPTIM1_LSE;
    SCB_SCR = SCB_SCR_SLEEPDEEP;
}

void noria_board_init(void) {
    noria_board_clocks_init();
    noria_peripherals_init(); // held valves only: probe and light sit on the latching valve's lines
    noria_rtc_init();
}

// A brown-out sets the same flag as power-on, but the backup domain lives on down to a lower
// voltage than the brown-out level that the option bytes ask for.
bool noria_board_domain_survived(void) { return (RCC_BDCR & RCC_BDCR_RTCEN) != 0u; }

void noria_board_detector(bool on) { PWR_CR2 = on ? PWR_CR2_PLS_2V2 | PWR_CR2_PVDE : 0u; }

bool noria_board_supply_low(void) { return (PWR_SR2 & PWR_SR2_PVDO) != 0u; }

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

/// Converter ///

#define CHANNEL_PROBE_SHALLOW 2u // PB3
#define CHANNEL_PROBE_DEEP 3u    // PB4
#define CHANNEL_SOIL_TEMP 6u     // PA10
#define CHANNEL_LIGHT 11u        // PA15
#define CHANNEL_REFERENCE 13u
#define REGULATOR_START_US 20u

static uint32_t convert_next(void) {
    while ((ADC_ISR & ADC_ISR_EOC) == 0u) {
    }
    return ADC_DR & 0xFFFu;
}

void noria_adc_sweep(noria_adc_sweep_t *sweep) {
    ADC_CFGR2 = ADC_CFGR2_CKMODE_PCLK_DIV2;
    ADC_CCR = ADC_CCR_VREFEN;
    ADC_CR = ADC_CR_ADVREGEN;
    const uint32_t turns = REGULATOR_START_US * NORIA_CORE_KHZ / 1000u / 2u; // two cycles at least
    for (uint32_t i = 0; i < turns; i++) {
        __asm volatile("" ::: "memory");
    }
    ADC_CR = ADC_CR_ADVREGEN | ADC_CR_ADCAL;
    while ((ADC_CR & ADC_CR_ADCAL) != 0u) {
    }
    ADC_ISR = ADC_ISR_ADRDY;
    ADC_CR = ADC_CR_ADVREGEN | ADC_CR_ADEN;
    while ((ADC_ISR & ADC_ISR_ADRDY) == 0u) {
    }
    ADC_CFGR1 = ADC_CFGR1_WAIT;
    ADC_SMPR = ADC_SMPR_39_CYCLES;
    ADC_ISR = ADC_ISR_CCRDY;
    ADC_CHSELR = (1u << CHANNEL_PROBE_SHALLOW) | (1u << CHANNEL_PROBE_DEEP) |
                 (1u << CHANNEL_SOIL_TEMP) | (1u << CHANNEL_LIGHT) | (1u << CHANNEL_REFERENCE);
    while ((ADC_ISR & ADC_ISR_CCRDY) == 0u) {
    }
    ADC_CR = ADC_CR_ADVREGEN | ADC_CR_ADSTART;
    uint32_t raw[NORIA_ADC_INPUTS];
    for (uint32_t i = 0; i < NORIA_ADC_INPUTS; i++) { // upwards by channel: the order of the inputs
        raw[i] = convert_next();
    }
    const uint32_t reference = convert_next();
    ADC_CR = ADC_CR_ADVREGEN | ADC_CR_ADDIS;
    while ((ADC_CR & ADC_CR_ADEN) != 0u) {
    }
    ADC_CR = 0;
    ADC_CCR = 0;
    // The common scaling takes a calibration at 3.0 V.
    noria_board_scale(sweep, raw, reference, VREFINT_CAL_MV * VREFINT_CAL / 3000u);
}

/// Flash: double words of 64 bits with ECC, pages of 2 KB, erased to ones ///

uint8_t noria_flash_erased_byte(void) { return 0xFF; }

static void flash_unlock(void) {
    FLASH_KEYR = FLASH_KEY1;
    FLASH_KEYR = FLASH_KEY2;
    FLASH_SR = FLASH_SR_ERRORS | FLASH_SR_EOP;
}

static void flash_lock(void) { FLASH_CR = FLASH_CR_LOCK; }

static bool flash_finish(void) {
    while ((FLASH_SR & (FLASH_SR_BSY | FLASH_SR_CFGBSY)) != 0u) {
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
