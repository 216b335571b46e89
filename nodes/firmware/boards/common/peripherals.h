/// Register blocks that both families share: same IP, same offsets and bits. Section numbers name
/// the register descriptions in RM0376 (STM32L0x2) and RM0394 (STM32L43x). What differs (base
/// addresses of some blocks, clocks, power, flash, converter) is in each board's registers.h.
#ifndef NORIA_PERIPHERALS_H
#define NORIA_PERIPHERALS_H

#include <stdint.h>

#define NORIA_REGISTER(address) (*(volatile uint32_t *)(uintptr_t)(address))

/// General-purpose I/O: RM0376 section 9.4, RM0394 section 8.4 ///

#define GPIO_MODER(port) NORIA_REGISTER((port) + 0x00u)
#define GPIO_BSRR(port) NORIA_REGISTER((port) + 0x18u)
#define GPIO_AFRL(port) NORIA_REGISTER((port) + 0x20u)
#define GPIO_AFRH(port) NORIA_REGISTER((port) + 0x24u)
#define GPIO_OTYPER(port) NORIA_REGISTER((port) + 0x04u)
#define GPIO_PUPDR(port) NORIA_REGISTER((port) + 0x0Cu)
#define GPIO_MODE_OUTPUT 1u
#define GPIO_MODE_ALTERNATE 2u
#define GPIO_MODE_ANALOG 3u
#define GPIO_PULL_DOWN 2u

/// Real-time clock: RM0376 section 26.7, RM0394 section 38.6 ///

#define RTC_BASE 0x40002800u
#define RTC_TR NORIA_REGISTER(RTC_BASE + 0x00u)
#define RTC_DR NORIA_REGISTER(RTC_BASE + 0x04u)
#ifndef RTC_CR // STM32WL has it elsewhere
#define RTC_CR NORIA_REGISTER(RTC_BASE + 0x08u)
#endif
#define RTC_CR_WUCKSEL_1HZ 4u // ck_spre
#define RTC_CR_BYPSHAD (1u << 5)
#define RTC_CR_WUTE (1u << 10)
#define RTC_CR_WUTIE (1u << 14)
#define RTC_ISR NORIA_REGISTER(RTC_BASE + 0x0Cu)
#define RTC_ISR_WUTWF (1u << 2)
#define RTC_ISR_INITS (1u << 4)
#define RTC_ISR_INITF (1u << 6)
#define RTC_ISR_INIT (1u << 7)
#define RTC_ISR_WUTF (1u << 10)
#define RTC_ISR_RECALPF (1u << 16)
#define RTC_PRER NORIA_REGISTER(RTC_BASE + 0x10u)
#define RTC_WUTR NORIA_REGISTER(RTC_BASE + 0x14u)
#define RTC_WPR NORIA_REGISTER(RTC_BASE + 0x24u)
#ifndef RTC_CALR // STM32WL has it elsewhere
#define RTC_CALR NORIA_REGISTER(RTC_BASE + 0x3Cu)
#endif
#define RTC_CALR_CALP (1u << 15) // 512 pulses more in 2^20

/// Low-power timer 1: RM0376 section 24.7, RM0394 section 30.7 ///

#define LPTIM1_BASE 0x40007C00u
#define LPTIM1_ISR NORIA_REGISTER(LPTIM1_BASE + 0x00u)
#define LPTIM1_ICR NORIA_REGISTER(LPTIM1_BASE + 0x04u)
#define LPTIM1_IER NORIA_REGISTER(LPTIM1_BASE + 0x08u)
#define LPTIM1_CFGR NORIA_REGISTER(LPTIM1_BASE + 0x0Cu)
#define LPTIM1_CR NORIA_REGISTER(LPTIM1_BASE + 0x10u)
#define LPTIM1_ARR NORIA_REGISTER(LPTIM1_BASE + 0x18u)
#define LPTIM_ARRM (1u << 1)
#define LPTIM_ARROK (1u << 4)
#define LPTIM_CFGR_PRESC_32 (5u << 9)
#define LPTIM_CR_ENABLE (1u << 0)
#define LPTIM_CR_SNGSTRT (1u << 1)

/// General-purpose timer 2: RM0376 section 21.4, RM0394 section 27.4 ///

#define TIM2_BASE 0x40000000u
#define TIM2_CR1 NORIA_REGISTER(TIM2_BASE + 0x00u)
#define TIM2_DIER NORIA_REGISTER(TIM2_BASE + 0x0Cu)
#define TIM2_SR NORIA_REGISTER(TIM2_BASE + 0x10u)
#define TIM2_EGR NORIA_REGISTER(TIM2_BASE + 0x14u)
#define TIM2_CCMR1 NORIA_REGISTER(TIM2_BASE + 0x18u)
#define TIM2_CCER NORIA_REGISTER(TIM2_BASE + 0x20u)
#define TIM2_PSC NORIA_REGISTER(TIM2_BASE + 0x28u)
#define TIM2_ARR NORIA_REGISTER(TIM2_BASE + 0x2Cu)
#define TIM2_CCR1 NORIA_REGISTER(TIM2_BASE + 0x34u)
#define TIM2_CCR2 NORIA_REGISTER(TIM2_BASE + 0x38u)
#define TIM_CR1_CEN (1u << 0)
#define TIM_CR1_URS (1u << 2)
#define TIM_CR1_OPM (1u << 3)
#define TIM_DIER_UIE (1u << 0)
#define TIM_SR_UIF (1u << 0)
#define TIM_EGR_UG (1u << 0)
#define TIM_CCMR1_OC1M_PWM2 (7u << 4)
#define TIM_CCMR1_OC2M_PWM2 (7u << 12)
#define TIM_CCER_CC1E (1u << 0)
#define TIM_CCER_CC2E (1u << 4)

/// Independent watchdog: RM0376 section 27.4, RM0394 section 36.4 ///

#define IWDG_BASE 0x40003000u
#define IWDG_KR NORIA_REGISTER(IWDG_BASE + 0x00u)
#define IWDG_PR NORIA_REGISTER(IWDG_BASE + 0x04u)
#define IWDG_RLR NORIA_REGISTER(IWDG_BASE + 0x08u)
#define IWDG_SR NORIA_REGISTER(IWDG_BASE + 0x0Cu)
#define IWDG_KEY_START 0xCCCCu
#define IWDG_KEY_ACCESS 0x5555u
#define IWDG_KEY_RELOAD 0xAAAAu
#define IWDG_PR_DIV256 6u

/// I2C 1: RM0376 section 31.7, RM0394 section 37.7 ///

#define I2C1_BASE 0x40005400u
#define I2C1_CR1 NORIA_REGISTER(I2C1_BASE + 0x00u)
#define I2C1_CR2 NORIA_REGISTER(I2C1_BASE + 0x04u)
#define I2C1_TIMINGR NORIA_REGISTER(I2C1_BASE + 0x10u)
#define I2C1_ISR NORIA_REGISTER(I2C1_BASE + 0x18u)
#define I2C1_ICR NORIA_REGISTER(I2C1_BASE + 0x1Cu)
#define I2C1_RXDR NORIA_REGISTER(I2C1_BASE + 0x24u)
#define I2C1_TXDR NORIA_REGISTER(I2C1_BASE + 0x28u)
#define I2C_CR1_PE (1u << 0)
#define I2C_CR2_RD_WRN (1u << 10)
#define I2C_CR2_START (1u << 13)
#define I2C_CR2_NBYTES_SHIFT 16u
#define I2C_CR2_AUTOEND (1u << 25)
#define I2C_ISR_TXIS (1u << 1)
#define I2C_ISR_RXNE (1u << 2)
#define I2C_ISR_NACKF (1u << 4)
#define I2C_ISR_STOPF (1u << 5)
#define I2C_TIMINGR_100KHZ_AT_4MHZ 0x00420F13u // table "I2C timing examples", prescaler 1

/// Low-power UART: RM0376 section 33.7, RM0394 section 40.7 ///

#define LPUART1_CR1 NORIA_REGISTER(LPUART1_BASE + 0x00u)
#define LPUART1_CR3 NORIA_REGISTER(LPUART1_BASE + 0x08u)
#define LPUART1_BRR NORIA_REGISTER(LPUART1_BASE + 0x0Cu)
#define LPUART1_ISR NORIA_REGISTER(LPUART1_BASE + 0x1Cu)
#define LPUART1_ICR NORIA_REGISTER(LPUART1_BASE + 0x20u)
#define LPUART1_RDR NORIA_REGISTER(LPUART1_BASE + 0x24u)
#define LPUART1_TDR NORIA_REGISTER(LPUART1_BASE + 0x28u)
#define LPUART_CR1_UE (1u << 0)
#define LPUART_CR1_UESM (1u << 1)
#define LPUART_CR1_RE (1u << 2)
#define LPUART_CR1_TE (1u << 3)
#define LPUART_CR1_RXNEIE (1u << 5)
#define LPUART_CR1_TCIE (1u << 6)
#define LPUART_CR3_WUS_RXNE (3u << 20)
#define LPUART_CR3_WUFIE (1u << 22)
#define LPUART_ISR_ORE (1u << 3)
#define LPUART_ISR_RXNE (1u << 5)
#define LPUART_ISR_TC (1u << 6)
#define LPUART_ICR_ALL 0x0012025Fu
#define LPUART_BRR_9600_LSE 874u // 256 x 32768 / 9600

/// Extended interrupts: RM0376 section 13.5, RM0394 section 13.5 ///

#ifndef EXTI_BASE // STM32WL's is laid out differently
#define EXTI_BASE 0x40010400u
#define EXTI_IMR1 NORIA_REGISTER(EXTI_BASE + 0x00u)
#define EXTI_RTSR1 NORIA_REGISTER(EXTI_BASE + 0x08u)
#define EXTI_PR1 NORIA_REGISTER(EXTI_BASE + 0x14u)
#endif
#define EXTI_LINE_PVD (1u << 16) // rises when the supply falls below the detector's level
#define EXTI_LINE_RTC_WAKEUP (1u << 20)

/// Core: Armv6-M B3.2 to B3.4, Armv7-M B3.2 to B3.4 ///

#define NVIC_ISER(word) NORIA_REGISTER(0xE000E100u + 4u * (word))
#define NVIC_ICER(word) NORIA_REGISTER(0xE000E180u + 4u * (word))
#define NVIC_ICPR(word) NORIA_REGISTER(0xE000E280u + 4u * (word))
#define SCB_SCR NORIA_REGISTER(0xE000ED10u)
#define SCB_SCR_SLEEPDEEP (1u << 2)

#endif
