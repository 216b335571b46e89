// LoRa-E5, a module around STM32WLE5JC: clocks, STOP mode, converter. It builds, but is
// neither emulated nor tried.
//
// The part's own sub-GHz radio is not used and stays as reset leaves it: the modem is an external
// one with AT commands on LPUART1, as on the other boards, so that one firmware serves all.
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

void noria_board_word_store(uint32_t word) { TAMP_BKP0R = word; }

uint32_t noria_board_word_load(void) { return TAMP_BKP0R; }

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
