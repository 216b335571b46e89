// STM32L432: clocks, STOP mode, converter.
#include "board.h"
#include "registers.h"

// The watchdog counts 4096 x 256 periods of LSI, at most 34 kHz over temperature: 30.8 s. The
// option bit that would freeze it in STOP is not relied upon.
const uint32_t noria_board_sleep_piece_s = 30;

void noria_board_clocks_init(void) {
    FLASH_ACR &= ~FLASH_ACR_LATENCY; // range 2 reads without a wait state up to 6 MHz
    FLASH_ECCR = FLASH_ECCR_ECCC | FLASH_ECCR_ECCD;
    noria_reset_note();
    RCC_APB1ENR1 = RCC_APB1ENR1_PWR | RCC_APB1ENR1_I2C1 | RCC_APB1ENR1_LPTIM1 |
                   RCC_APB1ENR1_RTCAPB | RCC_APB1ENR1_TIM2;
    RCC_APB1ENR2 = RCC_APB1ENR2_LPUART1;
    RCC_AHB2ENR = RCC_AHB2ENR_GPIOA | RCC_AHB2ENR_GPIOB | RCC_AHB2ENR_ADC;
    PWR_CR1 = PWR_CR1_VOS_RANGE2 | PWR_CR1_DBP | PWR_CR1_LPMS_STOP2;
    if ((RCC_BDCR & RCC_BDCR_RTCEN) == 0u) {
        RCC_BDCR |= RCC_BDCR_LSEON;
        while ((RCC_BDCR & RCC_BDCR_LSERDY) == 0u) {
        }
        RCC_BDCR |= RCC_BDCR_RTCSEL_LSE | RCC_BDCR_RTCEN;
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

// A brown-out sets the same flag as power-on, but the backup domain lives on down to a lower
// voltage than the brown-out level that the option bytes ask for.
bool noria_board_domain_survived(void) { return (RCC_BDCR & RCC_BDCR_RTCEN) != 0u; }

void noria_board_detector(bool on) { PWR_CR2 = on ? PWR_CR2_PLS_2V2 | PWR_CR2_PVDE : 0u; }

bool noria_board_supply_low(void) { return (PWR_SR2 & PWR_SR2_PVDO) != 0u; }

void noria_board_word_store(uint32_t word) { RTC_BKP0R = word; }

uint32_t noria_board_word_load(void) { return RTC_BKP0R; }

/// Converter ///

#define CHANNEL_REFERENCE 0u
#define CHANNEL_PROBE_SHALLOW 5u // PA0
#define CHANNEL_PROBE_DEEP 6u    // PA1
#define CHANNEL_SOIL_TEMP 9u     // PA4
#define CHANNEL_LIGHT 10u        // PA5
#define REGULATOR_START_US 20u

static uint32_t convert_next(void) {
    while ((ADC_ISR & ADC_ISR_EOC) == 0u) {
    }
    return ADC_DR & 0xFFFu;
}

void noria_adc_sweep(noria_adc_sweep_t *sweep) {
    ADC_CCR = ADC_CCR_CKMODE_HCLK | ADC_CCR_VREFEN;
    ADC_CR = 0; // leaves deep power-down
    ADC_CR = ADC_CR_ADVREGEN;
    const uint32_t turns = REGULATOR_START_US * NORIA_CORE_KHZ / 1000u / 2u; // two cycles at least
    for (uint32_t i = 0; i < turns; i++) {
        __asm volatile("" ::: "memory");
    }
    ADC_CR = ADC_CR_ADVREGEN | ADC_CR_ADCAL;
    while ((ADC_CR & ADC_CR_ADCAL) != 0u) {
    }
    ADC_CR = ADC_CR_ADVREGEN | ADC_CR_ADEN;
    while ((ADC_ISR & ADC_ISR_ADRDY) == 0u) {
    }
    ADC_CFGR = ADC_CFGR_AUTDLY;
    ADC_SMPR1 = (ADC_SMPR_47_CYCLES << 0) | (ADC_SMPR_47_CYCLES << 15) |
                (ADC_SMPR_47_CYCLES << 18) | (ADC_SMPR_47_CYCLES << 27);
    ADC_SMPR2 = ADC_SMPR_47_CYCLES;
    ADC_SQR1 = (CHANNEL_PROBE_SHALLOW << 6) | (CHANNEL_PROBE_DEEP << 12) |
               (CHANNEL_SOIL_TEMP << 18) | (CHANNEL_LIGHT << 24) | NORIA_ADC_INPUTS;
    ADC_SQR2 = CHANNEL_REFERENCE;
    ADC_CR = ADC_CR_ADVREGEN | ADC_CR_ADSTART;
    uint32_t raw[NORIA_ADC_INPUTS];
    for (uint32_t i = 0; i < NORIA_ADC_INPUTS; i++) {
        raw[i] = convert_next();
    }
    const uint32_t reference = convert_next();
    ADC_CR = ADC_CR_ADVREGEN | ADC_CR_ADDIS;
    while ((ADC_CR & ADC_CR_ADEN) != 0u) {
    }
    ADC_CR = 0;
    ADC_CR = ADC_CR_DEEPPWD;
    ADC_CCR = 0;
    noria_board_scale(sweep, raw, reference, VREFINT_CAL);
}
