// Both kinds of valve. A held valve hangs on PB1 and closes when the line is low.
//
// A latching valve moves on a pulse: PA15 opens, PB3 closes, each through its own driver input.
// TIM2 makes the pulse in one-pulse mode and ends it by itself, so that a core that hangs in the
// middle burns no coil. In STOP the timer stands still with its output as it is, so the core only
// SLEEPs meanwhile.
//
// Wiring: both inputs of the driver need a pull-down of 4.7 kohm or less. PA15 and PB3 are JTAG
// pins on STM32L4: from a reset until noria_valve_init(), PA15 has its internal pull-up (25 kohm at
// the least), against which the pull-down must hold the input low. On STM32L0 both float until
// then.
#include "board.h"
#include "registers.h"

#define PIN_OPEN 15u // of port A: TIM2 channel 1
#define PIN_CLOSE 3u // of port B: TIM2 channel 2
#define PULSE_MS 60u
// The core wakes once a pulse. Should something else keep ending its sleep, it polls through a
// whole pulse: no turn takes less than eight cycles.
#define PULSE_POLLS (PULSE_MS * NORIA_CORE_KHZ / 8u)

static void pin_mode(uint32_t port, uint32_t pin, uint32_t mode) {
    GPIO_MODER(port) = (GPIO_MODER(port) & ~(3u << (2u * pin))) | (mode << (2u * pin));
}

static void pin_low(uint32_t port, uint32_t pin) {
    GPIO_BSRR(port) = 1u << (16u + pin);
    GPIO_PUPDR(port) = (GPIO_PUPDR(port) & ~(3u << (2u * pin))) | (GPIO_PULL_DOWN << (2u * pin));
    pin_mode(port, pin, GPIO_MODE_OUTPUT);
}

void noria_valve_init(void) {
    noria_valve_drive(false);
    pin_mode(GPIOB_BASE, NORIA_PIN_VALVE, GPIO_MODE_OUTPUT);
    pin_low(GPIOA_BASE, PIN_OPEN);
    pin_low(GPIOB_BASE, PIN_CLOSE);
    GPIO_AFRH(GPIOA_BASE) = (GPIO_AFRH(GPIOA_BASE) & ~(15u << (4u * (PIN_OPEN - 8u)))) |
                            (NORIA_AF_TIM2_PA15 << (4u * (PIN_OPEN - 8u)));
    GPIO_AFRL(GPIOB_BASE) = (GPIO_AFRL(GPIOB_BASE) & ~(15u << (4u * PIN_CLOSE))) |
                            (NORIA_AF_TIM2_PB3 << (4u * PIN_CLOSE));
    noria_board_enable_interrupt(IRQ_TIM2);
}

void noria_valve_drive(bool open) {
    GPIO_BSRR(GPIOB_BASE) = 1u << (open ? NORIA_PIN_VALVE : 16u + NORIA_PIN_VALVE);
}

// One tick low, then high until the count overflows: PWM mode 2 leaves the output low at rest.
static void timer_prepare(void) {
    TIM2_CR1 = TIM_CR1_OPM | TIM_CR1_URS;
    TIM2_PSC = NORIA_CORE_KHZ - 1u;
    TIM2_ARR = PULSE_MS;
    TIM2_CCR1 = 1;
    TIM2_CCR2 = 1;
    TIM2_CCMR1 = TIM_CCMR1_OC1M_PWM2 | TIM_CCMR1_OC2M_PWM2;
    TIM2_EGR = TIM_EGR_UG; // loads the prescaler
    TIM2_SR = 0;
    TIM2_DIER = TIM_DIER_UIE;
    noria_board_clear_pending(IRQ_TIM2);
}

void noria_valve_pulse(bool open) {
    noria_watchdog_kick();
    timer_prepare();
    TIM2_CCER = open ? TIM_CCER_CC1E : TIM_CCER_CC2E; // the other coil has no output at all
    pin_mode(open ? GPIOA_BASE : GPIOB_BASE, open ? PIN_OPEN : PIN_CLOSE, GPIO_MODE_ALTERNATE);
    SCB_SCR = 0;
    TIM2_CR1 = TIM_CR1_OPM | TIM_CR1_URS | TIM_CR1_CEN;
    for (uint32_t polls = 0; polls < PULSE_POLLS && (TIM2_SR & TIM_SR_UIF) == 0u; polls++) {
        noria_board_stop();
    }
    SCB_SCR = SCB_SCR_SLEEPDEEP;
    pin_mode(GPIOA_BASE, PIN_OPEN, GPIO_MODE_OUTPUT);
    pin_mode(GPIOB_BASE, PIN_CLOSE, GPIO_MODE_OUTPUT);
    TIM2_CR1 = 0;
    TIM2_CCER = 0;
    TIM2_DIER = 0;
    TIM2_SR = 0;
    noria_board_clear_pending(IRQ_TIM2);
}
