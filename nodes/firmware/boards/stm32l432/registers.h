/// STM32L432: what differs from STM32L072. Section numbers are RM0394's.
#ifndef NORIA_REGISTERS_H
#define NORIA_REGISTERS_H

#include "peripherals.h"
#include "wakeup.h"

/// Memory map, section 2.2 ///

#define GPIOA_BASE 0x48000000u
#define GPIOB_BASE 0x48000400u
#define LPUART1_BASE 0x40008000u
#define NORIA_AF_LPUART1 8u // datasheet DS11451, table "alternate functions AF8 to AF15"
#define NORIA_AF_I2C1 4u    // table "alternate functions AF0 to AF7"
#define NORIA_AF_TIM2_PA15 1u
#define NORIA_AF_TIM2_PB3 1u
#define NORIA_CORE_KHZ 4000u // MSI, range 6

/// Interrupt numbers, section 12.3 ///

#define NORIA_NVIC_WORDS 3u
#define IRQ_PVD 1u
#define IRQ_RTC 3u
#define IRQ_TIM2 28u
#define IRQ_LPTIM1 65u
#define IRQ_LPUART1 70u

/// Flash, sections 3.3 (keys, sequences) and 3.7 (registers) ///

#define FLASH_BASE_REGISTERS 0x40022000u
#define FLASH_ACR NORIA_REGISTER(FLASH_BASE_REGISTERS + 0x00u)
#define FLASH_ACR_LATENCY 7u
#define FLASH_KEYR NORIA_REGISTER(FLASH_BASE_REGISTERS + 0x08u)
#define FLASH_SR NORIA_REGISTER(FLASH_BASE_REGISTERS + 0x10u)
#define FLASH_CR NORIA_REGISTER(FLASH_BASE_REGISTERS + 0x14u)
#define FLASH_ECCR NORIA_REGISTER(FLASH_BASE_REGISTERS + 0x18u)
#define FLASH_ECCR_ECCC (1u << 30) // one wrong bit, corrected
#define FLASH_ECCR_ECCD (1u << 31) // two: NMI
#define FLASH_CR_PG (1u << 0)
#define FLASH_CR_PER (1u << 1)
#define FLASH_CR_PNB_SHIFT 3u
#define FLASH_CR_STRT (1u << 16)
#define FLASH_CR_LOCK (1u << 31)
#define FLASH_SR_EOP (1u << 0)
#define FLASH_SR_ERRORS 0x0000C3FAu
#define FLASH_SR_BSY (1u << 16)
#define FLASH_KEY1 0x45670123u
#define FLASH_KEY2 0xCDEF89ABu
#define FLASH_PAGE 2048u

/// Backup register: section 38.6 ///

#define RTC_BKP0R NORIA_REGISTER(RTC_BASE + 0x50u)

/// Power, section 5.4 ///

#define PWR_CR1 NORIA_REGISTER(0x40007000u)
#define PWR_CR1_LPMS_STOP2 2u
#define PWR_CR1_DBP (1u << 8)
#define PWR_CR1_VOS_RANGE2 (2u << 9)
#define PWR_CR2 NORIA_REGISTER(0x40007004u)
#define PWR_CR2_PVDE (1u << 0)
#define PWR_CR2_PLS_2V2 (1u << 1)
#define PWR_SR2 NORIA_REGISTER(0x40007014u)
#define PWR_SR2_PVDO (1u << 11)

/// Reset and clocks, section 6.4; MSI runs at 4 MHz from reset ///

#define RCC_AHB2ENR NORIA_REGISTER(0x4002104Cu)
#define RCC_AHB2ENR_GPIOA (1u << 0)
#define RCC_AHB2ENR_GPIOB (1u << 1)
#define RCC_AHB2ENR_ADC (1u << 13)
#define RCC_APB1ENR1 NORIA_REGISTER(0x40021058u)
#define RCC_APB1ENR1_TIM2 (1u << 0)
#define RCC_APB1ENR1_RTCAPB (1u << 10)
#define RCC_APB1ENR1_I2C1 (1u << 21)
#define RCC_APB1ENR1_PWR (1u << 28)
#define RCC_APB1ENR1_LPTIM1 (1u << 31)
#define RCC_APB1ENR2 NORIA_REGISTER(0x4002105Cu)
#define RCC_APB1ENR2_LPUART1 (1u << 0)
#define RCC_CCIPR NORIA_REGISTER(0x40021088u)
#define RCC_CCIPR_LPUART1_LSE (3u << 10)
#define RCC_CCIPR_LPTIM1_LSE (3u << 18)
#define RCC_BDCR NORIA_REGISTER(0x40021090u)
#define RCC_BDCR_LSEON (1u << 0)
#define RCC_BDCR_LSERDY (1u << 1)
#define RCC_BDCR_RTCSEL_LSE (1u << 8)
#define RCC_BDCR_RTCEN (1u << 15)
#define RCC_CSR NORIA_REGISTER(0x40021094u)
#define RCC_CSR_RMVF (1u << 23)
#define RCC_CSR_BORRSTF (1u << 27)
#define NORIA_RCC_CSR_SUPPLY RCC_CSR_BORRSTF
#define RCC_CSR_SFTRSTF (1u << 28)
#define RCC_CSR_IWDGRSTF (1u << 29)
#define RCC_CSR_WWDGRSTF (1u << 30)

/// Converter, section 16.6 ///

#define ADC_BASE 0x50040000u
#define ADC_ISR NORIA_REGISTER(ADC_BASE + 0x00u)
#define ADC_ISR_ADRDY (1u << 0)
#define ADC_ISR_EOC (1u << 2)
#define ADC_CR NORIA_REGISTER(ADC_BASE + 0x08u)
#define ADC_CR_ADEN (1u << 0)
#define ADC_CR_ADDIS (1u << 1)
#define ADC_CR_ADSTART (1u << 2)
#define ADC_CR_ADVREGEN (1u << 28)
#define ADC_CR_DEEPPWD (1u << 29)
#define ADC_CR_ADCAL (1u << 31)
#define ADC_CFGR NORIA_REGISTER(ADC_BASE + 0x0Cu)
#define ADC_CFGR_AUTDLY (1u << 14)
#define ADC_SMPR1 NORIA_REGISTER(ADC_BASE + 0x14u)
#define ADC_SMPR2 NORIA_REGISTER(ADC_BASE + 0x18u)
#define ADC_SMPR_47_CYCLES 4u // at 4 MHz 12 us; the reference asks for 4 us
#define ADC_SQR1 NORIA_REGISTER(ADC_BASE + 0x30u)
#define ADC_SQR2 NORIA_REGISTER(ADC_BASE + 0x34u)
#define ADC_DR NORIA_REGISTER(ADC_BASE + 0x40u)
#define ADC_CCR NORIA_REGISTER(ADC_BASE + 0x308u)
#define ADC_CCR_CKMODE_HCLK (1u << 16)
#define ADC_CCR_VREFEN (1u << 22)

/// Factory calibration, datasheet DS11451 section 3.15.2: raw reading of the reference at 3.0 V ///

#define VREFINT_CAL (*(const volatile uint16_t *)(uintptr_t)0x1FFF75AAu)

/// Unique device identifier, section 46.1 ///

#define UID_WORD0 NORIA_REGISTER(0x1FFF7590u)
#define UID_WORD1 NORIA_REGISTER(0x1FFF7594u)
#define UID_WORD2 NORIA_REGISTER(0x1FFF7598u)

#endif
