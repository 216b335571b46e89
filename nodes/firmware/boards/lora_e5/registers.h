/// STM32WLE5 (Seeed LoRa-E5 module): what differs from STM32L432. The manual is RM0461.
///
/// UNCHECKED: no machine-readable description of this part is at hand, and no emulator runs this
/// board. Addresses, interrupt numbers, and the bits of RCC and RTC were compared with ST's header
/// stm32wle5xx.h by eye; those of flash, power and converter are as on STM32L4 and STM32L0.
#ifndef NORIA_REGISTERS_H
#define NORIA_REGISTERS_H

#include <stdbool.h>

/// Extended interrupts, and the registers that this part's newer RTC has moved ///

#define EXTI_BASE 0x58000800u
#define EXTI_RTSR1 NORIA_REGISTER(EXTI_BASE + 0x00u)
#define EXTI_PR1 NORIA_REGISTER(EXTI_BASE + 0x0Cu)
#define EXTI_IMR1 NORIA_REGISTER(EXTI_BASE + 0x80u)
#define RTC_CR NORIA_REGISTER(RTC_BASE + 0x18u)
#define RTC_CALR NORIA_REGISTER(RTC_BASE + 0x28u)

#include "peripherals.h"

/// Memory map ///

#define GPIOA_BASE 0x48000000u
#define GPIOB_BASE 0x48000400u
#define LPUART1_BASE 0x40008000u
#define NORIA_AF_LPUART1 8u // datasheet DS13105, table "alternate functions"
#define NORIA_AF_I2C1 4u    // the same table
#define NORIA_AF_TIM2_PA15 1u
#define NORIA_AF_TIM2_PB3 1u
#define NORIA_CORE_KHZ 4000u // MSI, range 6
#define NORIA_NVIC_WORDS 2u  // 62 interrupts

/// Interrupt numbers ///

#define IRQ_PVD 1u
#define IRQ_RTC 3u
#define IRQ_TIM2 27u
#define IRQ_LPUART1 38u
#define IRQ_LPTIM1 39u

/// RTC: ICSR stands where ISR stood, and keeps its bits but for the flags, which moved to SR. The
/// wake-up's EXTI line is a direct one: it has a mask, but neither edge nor latch.

#define RTC_SR NORIA_REGISTER(RTC_BASE + 0x50u)
#define RTC_SCR NORIA_REGISTER(RTC_BASE + 0x5Cu)
#define RTC_SR_WUTF (1u << 2)
#define RTC_SCR_CWUTF (1u << 2)

static inline void rtc_wakeup_line_enable(void) { EXTI_IMR1 |= EXTI_LINE_RTC_WAKEUP; }

static inline bool rtc_wakeup_flag_set(void) { return (RTC_SR & RTC_SR_WUTF) != 0u; }

static inline void rtc_wakeup_flag_clear(void) { RTC_SCR = RTC_SCR_CWUTF; }

/// Backup register, in this part's tamper block ///

#define TAMP_BKP0R NORIA_REGISTER(0x4000B100u)

/// Flash ///

#define FLASH_BASE_REGISTERS 0x58004000u
#define FLASH_ACR NORIA_REGISTER(FLASH_BASE_REGISTERS + 0x00u)
#define FLASH_ACR_LATENCY 7u
#define FLASH_ECCR NORIA_REGISTER(FLASH_BASE_REGISTERS + 0x18u)
#define FLASH_ECCR_ECCC (1u << 30) // one wrong bit, corrected
#define FLASH_ECCR_ECCD (1u << 31) // two: NMI
#define FLASH_KEYR NORIA_REGISTER(FLASH_BASE_REGISTERS + 0x08u)
#define FLASH_SR NORIA_REGISTER(FLASH_BASE_REGISTERS + 0x10u)
#define FLASH_CR NORIA_REGISTER(FLASH_BASE_REGISTERS + 0x14u)
#define FLASH_CR_PG (1u << 0)
#define FLASH_CR_PER (1u << 1)
#define FLASH_CR_PNB_SHIFT 3u
#define FLASH_CR_STRT (1u << 16)
#define FLASH_CR_LOCK (1u << 31)
#define FLASH_SR_EOP (1u << 0)
#define FLASH_SR_ERRORS 0x0000C3FAu
#define FLASH_SR_BSY ((1u << 16) | (1u << 18)) // and CFGBSY
#define FLASH_KEY1 0x45670123u
#define FLASH_KEY2 0xCDEF89ABu
#define FLASH_PAGE 2048u

/// Power ///

#define PWR_CR1 NORIA_REGISTER(0x58000400u)
#define PWR_CR1_LPMS_STOP2 2u
#define PWR_CR1_DBP (1u << 8)
#define PWR_CR1_VOS_RANGE2 (2u << 9)
#define PWR_CR2 NORIA_REGISTER(0x58000404u)
#define PWR_CR2_PVDE (1u << 0)
#define PWR_CR2_PLS_2V2 (1u << 1)
#define PWR_SR2 NORIA_REGISTER(0x58000414u)
#define PWR_SR2_PVDO (1u << 11)

/// Reset and clocks; MSI runs at 4 MHz from reset ///

#define RCC_AHB2ENR NORIA_REGISTER(0x5800004Cu)
#define RCC_AHB2ENR_GPIOA (1u << 0)
#define RCC_AHB2ENR_GPIOB (1u << 1)
#define RCC_APB1ENR1 NORIA_REGISTER(0x58000058u)
#define RCC_APB1ENR1_TIM2 (1u << 0)
#define RCC_APB1ENR1_RTCAPB (1u << 10)
#define RCC_APB1ENR1_I2C1 (1u << 21)
#define RCC_APB1ENR1_LPTIM1 (1u << 31)
#define RCC_APB1ENR2 NORIA_REGISTER(0x5800005Cu)
#define RCC_APB1ENR2_LPUART1 (1u << 0)
#define RCC_APB2ENR NORIA_REGISTER(0x58000060u)
#define RCC_APB2ENR_ADC (1u << 9)
#define RCC_CCIPR NORIA_REGISTER(0x58000088u)
#define RCC_CCIPR_LPUART1_LSE (3u << 10)
#define RCC_CCIPR_LPTIM1_LSE (3u << 18)
#define RCC_BDCR NORIA_REGISTER(0x58000090u)
#define RCC_BDCR_LSEON (1u << 0)
#define RCC_BDCR_LSERDY (1u << 1)
#define RCC_BDCR_LSESYSEN (1u << 7) // LSE for more than the RTC
#define RCC_BDCR_RTCSEL_LSE (1u << 8)
#define RCC_BDCR_LSESYSRDY (1u << 11)
#define RCC_BDCR_RTCEN (1u << 15)
#define RCC_CSR NORIA_REGISTER(0x58000094u)
#define RCC_CSR_RMVF (1u << 23)
#define RCC_CSR_BORRSTF (1u << 27)
#define NORIA_RCC_CSR_SUPPLY RCC_CSR_BORRSTF
#define RCC_CSR_SFTRSTF (1u << 28)
#define RCC_CSR_IWDGRSTF (1u << 29)
#define RCC_CSR_WWDGRSTF (1u << 30)

/// Converter: like STM32L0's ///

#define ADC_BASE 0x40012400u
#define ADC_ISR NORIA_REGISTER(ADC_BASE + 0x00u)
#define ADC_ISR_ADRDY (1u << 0)
#define ADC_ISR_EOC (1u << 2)
#define ADC_ISR_CCRDY (1u << 13)
#define ADC_CR NORIA_REGISTER(ADC_BASE + 0x08u)
#define ADC_CR_ADEN (1u << 0)
#define ADC_CR_ADDIS (1u << 1)
#define ADC_CR_ADSTART (1u << 2)
#define ADC_CR_ADVREGEN (1u << 28)
#define ADC_CR_ADCAL (1u << 31)
#define ADC_CFGR1 NORIA_REGISTER(ADC_BASE + 0x0Cu)
#define ADC_CFGR1_WAIT (1u << 14)
#define ADC_CFGR2 NORIA_REGISTER(ADC_BASE + 0x10u)
#define ADC_CFGR2_CKMODE_PCLK_DIV2 (1u << 30)
#define ADC_SMPR NORIA_REGISTER(ADC_BASE + 0x14u)
#define ADC_SMPR_39_CYCLES 5u // at 2 MHz 20 us
#define ADC_CHSELR NORIA_REGISTER(ADC_BASE + 0x28u)
#define ADC_DR NORIA_REGISTER(ADC_BASE + 0x40u)
#define ADC_CCR NORIA_REGISTER(ADC_BASE + 0x308u)
#define ADC_CCR_VREFEN (1u << 22)

/// Factory calibration, datasheet DS13105: raw reading of the reference at 3.3 V ///

#define VREFINT_CAL (*(const volatile uint16_t *)(uintptr_t)0x1FFF75AAu)
#define VREFINT_CAL_MV 3300u

/// Unique device identifier ///

#define UID_WORD0 NORIA_REGISTER(0x1FFF7590u)
#define UID_WORD1 NORIA_REGISTER(0x1FFF7594u)
#define UID_WORD2 NORIA_REGISTER(0x1FFF7598u)

#endif
