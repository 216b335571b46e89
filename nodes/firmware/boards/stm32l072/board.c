// STM32L072: clocks, STOP mode, converter, flash.
#include <string.h>

#include "board.h"
#include "registers.h"

// The watchdog counts 4096 x 256 periods of LSI, and the datasheet allows LSI up to 56 kHz: 18.7 s.
const uint32_t noria_board_sleep_piece_s = 18;

#define POWER_CONTROL (PWR_CR_VOS_RANGE2 | PWR_CR_DBP | PWR_CR_FWU | PWR_CR_LPSDSR)

void noria_board_clocks_init(void) {
    FLASH_ACR &= ~FLASH_ACR_LATENCY; // range 2 reads without a wait state up to 8 MHz
    noria_reset_note();
    RCC_APB1ENR = RCC_APB1ENR_PWR | RCC_APB1ENR_LPUART1 | RCC_APB1ENR_I2C1 | RCC_APB1ENR_LPTIM1 |
                  RCC_APB1ENR_TIM2;
    RCC_APB2ENR = RCC_APB2ENR_SYSCFG | RCC_APB2ENR_ADC;
    RCC_IOPENR = RCC_IOPENR_GPIOA | RCC_IOPENR_GPIOB;
    RCC_ICSCR = (RCC_ICSCR & ~RCC_ICSCR_MSIRANGE) | RCC_ICSCR_MSIRANGE_4MHZ;
    // STOP with the regulator and the reference off; PDDS is clear.
    PWR_CR = POWER_CONTROL | PWR_CR_ULP | PWR_CR_CWUF;
    if ((RCC_CSR & RCC_CSR_RTCEN) == 0u) {
        RCC_CSR |= RCC_CSR_LSEON;
        while ((RCC_CSR & RCC_CSR_LSERDY) == 0u) {
        }
        RCC_CSR |= RCC_CSR_RTCSEL_LSE | RCC_CSR_RTCEN;
    }
    RCC_CCIPR = RCC_CCIPR_LPUART1_LSE | RCC_CCIPR_LPTIM1_LSE;
    SCB_SCR = SCB_SCR_SLEEPDEEP;
}

void noria_board_init(void) {
    noria_board_clocks_init();
    noria_valve_init();
    noria_peripherals_init();
    noria_rtc_init();
}

// A reset by the supply takes the RTC domain with it, and power-on and brown-out share a flag.
bool noria_board_domain_survived(void) { return false; }

// The detector compares with the internal reference, which ULP would switch off in STOP.
void noria_board_detector(bool on) {
    PWR_CR = POWER_CONTROL | (on ? PWR_CR_PLS_2V3 | PWR_CR_PVDE : PWR_CR_ULP);
}

bool noria_board_supply_low(void) { return (PWR_CSR & PWR_CSR_PVDO) != 0u; }

// Its one source, the clock security of an HSE we do not use, is never enabled.
void noria_board_nmi(void) { noria_board_fault(); }

/// Converter ///

#define CHANNEL_REFERENCE 17u

static uint32_t convert_next(void) {
    while ((ADC_ISR & ADC_ISR_EOC) == 0u) {
    }
    return ADC_DR & 0xFFFu;
}

void noria_adc_sweep(noria_adc_sweep_t *sweep) {
    ADC_CFGR2 = ADC_CFGR2_CKMODE_PCLK_DIV2;
    ADC_CCR = ADC_CCR_LFMEN | ADC_CCR_VREFEN;
    ADC_CR = ADC_CR_ADVREGEN;
    ADC_CR = ADC_CR_ADVREGEN | ADC_CR_ADCAL;
    while ((ADC_CR & ADC_CR_ADCAL) != 0u) {
    }
    ADC_CR = ADC_CR_ADVREGEN | ADC_CR_ADEN;
    while ((ADC_ISR & ADC_ISR_ADRDY) == 0u) {
    }
    ADC_CFGR1 = ADC_CFGR1_WAIT;
    ADC_SMPR = ADC_SMPR_39_CYCLES;
    ADC_CHSELR = (1u << 0) | (1u << 1) | (1u << 4) | (1u << 5) | (1u << CHANNEL_REFERENCE);
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
    noria_board_scale(sweep, raw, reference, VREFINT_CAL);
}

/// Flash: words of 32 bits, pages of 128 bytes, erased to zero ///

uint8_t noria_flash_erased_byte(void) { return 0x00; }

static void flash_unlock(void) {
    FLASH_PEKEYR = FLASH_PEKEY1;
    FLASH_PEKEYR = FLASH_PEKEY2;
    FLASH_PRGKEYR = FLASH_PRGKEY1;
    FLASH_PRGKEYR = FLASH_PRGKEY2;
    FLASH_SR = FLASH_SR_ERRORS | FLASH_SR_EOP;
}

static void flash_lock(void) { FLASH_PECR = FLASH_PECR_PELOCK | FLASH_PECR_PRGLOCK; }

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
    FLASH_PECR = FLASH_PECR_PROG | FLASH_PECR_ERASE;
    bool ok = true;
    for (uint32_t page = offset; ok && page < offset + length; page += FLASH_PAGE) {
        *(volatile uint32_t *)(void *)(noria_flash_data + page) = 0u;
        ok = flash_finish();
        noria_watchdog_kick();
    }
    flash_lock();
    return ok;
}

bool noria_flash_program(uint32_t offset, const void *data, uint32_t length) {
    if (!noria_board_flash_fits(offset, length, NORIA_FLASH_UNIT)) {
        return false;
    }
    flash_unlock();
    FLASH_PECR = 0; // word programming needs no mode bit in program memory
    const uint8_t *from = data;
    bool ok = true;
    for (uint32_t at = 0; ok && at < length; at += 4u) {
        uint32_t word;
        memcpy(&word, from + at, 4u);
        *(volatile uint32_t *)(void *)(noria_flash_data + offset + at) = word;
        ok = flash_finish();
        if (at % 512u == 0u) {
            noria_watchdog_kick();
        }
    }
    flash_lock();
    return ok && memcmp(noria_flash_data + offset, data, length) == 0;
}

/// EEPROM: words of 32 bits, erased by the part itself before they are written ///

void noria_board_word_store(uint32_t word) {
    FLASH_PEKEYR = FLASH_PEKEY1;
    FLASH_PEKEYR = FLASH_PEKEY2;
    FLASH_SR = FLASH_SR_ERRORS | FLASH_SR_EOP;
    EEPROM_WORD = word;
    (void)flash_finish();
    flash_lock();
}

uint32_t noria_board_word_load(void) { return EEPROM_WORD; }
