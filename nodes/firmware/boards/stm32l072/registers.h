/// STM32L072: what differs from STM32L432. Section numbers are RM0376's.
#ifndef NORIA_REGISTERS_H
#define NORIA_REGISTERS_H

#include "peripherals.h"
#include "wakeup.h"

/// Memory map, section 2.2 ///

#define GPIOA_BASE 0x50000000u
#define GPIOB_BASE 0x50000400u
#define LPUART1_BASE 0x40004800u
#define NORIA_AF_LPUART1 6u // datasheet DS10685, table "alternate functions port A"
#define NORIA_AF_I2C1 1u    // table "alternate functions port B"
#define NORIA_AF_TIM2_PA15 5u
#define NORIA_AF_TIM2_PB3 2u
#define NORIA_CORE_KHZ 4194u // MSI, range 6

/// Interrupt numbers, section 12.3 ///

#define NORIA_NVIC_WORDS 1u
#define IRQ_PVD 1u
#define IRQ_RTC 2u
#define IRQ_LPTIM1 13u
#define IRQ_TIM2 15u
#define IRQ_LPUART1 29u

/// Flash, sections 3.3 (keys, sequences) and 3.7 (registers) ///

#define FLASH_BASE_REGISTERS 0x40022000u
#define FLASH_ACR NORIA_REGISTER(FLASH_BASE_REGISTERS + 0x00u)
#define FLASH_ACR_LATENCY (1u << 0)
#define FLASH_PECR NORIA_REGISTER(FLASH_BASE_REGISTERS + 0x04u)
#define FLASH_PEKEYR NORIA_REGISTER(FLASH_BASE_REGISTERS + 0x0Cu)
#define FLASH_PRGKEYR NORIA_REGISTER(FLASH_BASE_REGISTERS + 0x10u)
#define FLASH_SR NORIA_REGISTER(FLASH_BASE_REGISTERS + 0x18u)
#define FLASH_PECR_PELOCK (1u << 0)
#define FLASH_PECR_PRGLOCK (1u << 1)
#define FLASH_PECR_PROG (1u << 3)
#define FLASH_PECR_ERASE (1u << 9)
#define FLASH_SR_BSY (1u << 0)
#define FLASH_SR_EOP (1u << 1)
#define FLASH_SR_ERRORS 0x00032F00u // WRPERR PGAERR SIZERR OPTVERR RDERR NOTZEROERR FWWERR
#define FLASH_PEKEY1 0x89ABCDEFu
#define FLASH_PEKEY2 0x02030405u
#define FLASH_PRGKEY1 0x8C9DAEBFu
#define FLASH_PRGKEY2 0x13141516u
#define FLASH_PAGE 128u
#define EEPROM_WORD NORIA_REGISTER(0x08080000u) // the first of data EEPROM

/// Power, section 6.4 ///

#define PWR_CR NORIA_REGISTER(0x40007000u)
#define PWR_CR_LPSDSR (1u << 0)
#define PWR_CR_CWUF (1u << 2)
#define PWR_CR_PVDE (1u << 4)
#define PWR_CR_PLS_2V3 (2u << 5) // nominal; falling edges switch about 0.1 V lower
#define PWR_CR_DBP (1u << 8)
#define PWR_CR_ULP (1u << 9)
#define PWR_CR_FWU (1u << 10)
#define PWR_CR_VOS_RANGE2 (2u << 11) // up to 16 MHz, flash can be programmed
#define PWR_CSR NORIA_REGISTER(0x40007004u)
#define PWR_CSR_PVDO (1u << 2)

/// Reset and clocks, section 7.3 ///

#define RCC_ICSCR NORIA_REGISTER(0x40021004u)
#define RCC_ICSCR_MSIRANGE (7u << 13)
#define RCC_ICSCR_MSIRANGE_4MHZ (6u << 13) // 4.194 MHz
#define RCC_IOPENR NORIA_REGISTER(0x4002102Cu)
#define RCC_IOPENR_GPIOA (1u << 0)
#define RCC_IOPENR_GPIOB (1u << 1)
#define RCC_APB2ENR NORIA_REGISTER(0x40021034u)
#define RCC_APB2ENR_SYSCFG (1u << 0)
#define RCC_APB2ENR_ADC (1u << 9)
#define RCC_APB1ENR NORIA_REGISTER(0x40021038u)
#define RCC_APB1ENR_TIM2 (1u << 0)
#define RCC_APB1ENR_LPUART1 (1u << 18)
#define RCC_APB1ENR_I2C1 (1u << 21)
#define RCC_APB1ENR_PWR (1u << 28)
#define RCC_APB1ENR_LPTIM1 (1u << 31)
#define RCC_CCIPR NORIA_REGISTER(0x4002104Cu)
#define RCC_CCIPR_LPUART1_LSE (3u << 10)
#define RCC_CCIPR_LPTIM1_LSE (3u << 18)
#define RCC_CSR NORIA_REGISTER(0x40021050u)
#define RCC_CSR_LSION (1u << 0)
#define RCC_CSR_LSEON (1u << 8)
#define RCC_CSR_LSERDY (1u << 9)
#define RCC_CSR_RTCSEL_LSE (1u << 16)
#define RCC_CSR_RTCEN (1u << 18)
#define RCC_CSR_RMVF (1u << 23)
#define RCC_CSR_PORRSTF (1u << 27)
#define NORIA_RCC_CSR_SUPPLY RCC_CSR_PORRSTF
#define RCC_CSR_SFTRSTF (1u << 28)
#define RCC_CSR_IWDGRSTF (1u << 29)
#define RCC_CSR_WWDGRSTF (1u << 30)

/// Converter, section 14.12 ///

#define ADC_BASE 0x40012400u
#define ADC_ISR NORIA_REGISTER(ADC_BASE + 0x00u)
#define ADC_ISR_ADRDY (1u << 0)
#define ADC_ISR_EOC (1u << 2)
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
#define ADC_SMPR_39_CYCLES 5u // at 2.1 MHz 19 us; the reference asks for 10 us
#define ADC_CHSELR NORIA_REGISTER(ADC_BASE + 0x28u)
#define ADC_DR NORIA_REGISTER(ADC_BASE + 0x40u)
#define ADC_CCR NORIA_REGISTER(ADC_BASE + 0x308u)
#define ADC_CCR_VREFEN (1u << 22)
#define ADC_CCR_LFMEN (1u << 25)

/// Factory calibration, datasheet DS10685 section 3.12.1: raw reading of the reference at 3.0 V ///

#define VREFINT_CAL (*(const volatile uint16_t *)(uintptr_t)0x1FF80078u)

/// Unique device identifier, section 33.2: the third word does not follow the second ///

#define UID_WORD0 NORIA_REGISTER(0x1FF80050u)
#define UID_WORD1 NORIA_REGISTER(0x1FF80054u)
#define UID_WORD2 NORIA_REGISTER(0x1FF80064u)

#endif
