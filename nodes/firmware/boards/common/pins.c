// Sensor supply, and the pins of the I2C bus: the same on both boards.
#include "board.h"
#include "registers.h"

static void pin_mode(uint32_t port, uint32_t pin, uint32_t mode) {
    GPIO_MODER(port) = (GPIO_MODER(port) & ~(3u << (2u * pin))) | (mode << (2u * pin));
}

void noria_peripherals_init(void) {
    noria_sensor_power(false);
    noria_air_power(false);
    pin_mode(GPIOB_BASE, NORIA_PIN_SENSOR_POWER, GPIO_MODE_OUTPUT);
    pin_mode(GPIOB_BASE, NORIA_PIN_AIR_POWER, GPIO_MODE_OUTPUT);
    GPIO_OTYPER(GPIOB_BASE) |= (1u << 6) | (1u << 7);
    GPIO_AFRL(GPIOB_BASE) |= NORIA_AF_I2C1 << 24 | NORIA_AF_I2C1 << 28;
    pin_mode(GPIOB_BASE, 6, GPIO_MODE_ALTERNATE);
    pin_mode(GPIOB_BASE, 7, GPIO_MODE_ALTERNATE);
    GPIO_AFRL(GPIOA_BASE) |= NORIA_AF_LPUART1 << 8 | NORIA_AF_LPUART1 << 12;
    pin_mode(GPIOA_BASE, 2, GPIO_MODE_ALTERNATE);
    pin_mode(GPIOA_BASE, 3, GPIO_MODE_ALTERNATE);
    // Open drain, released before it is an output: the modem's own pull-up holds it high.
    GPIO_BSRR(GPIOA_BASE) = 1u << NORIA_PIN_MODEM_RESET;
    GPIO_OTYPER(GPIOA_BASE) |= 1u << NORIA_PIN_MODEM_RESET;
    pin_mode(GPIOA_BASE, NORIA_PIN_MODEM_RESET, GPIO_MODE_OUTPUT);
    pin_mode(GPIOA_BASE, 0, GPIO_MODE_ANALOG);
    pin_mode(GPIOA_BASE, 1, GPIO_MODE_ANALOG);
    pin_mode(GPIOA_BASE, 4, GPIO_MODE_ANALOG);
    pin_mode(GPIOA_BASE, 5, GPIO_MODE_ANALOG);
    I2C1_TIMINGR = I2C_TIMINGR_100KHZ_AT_4MHZ;
}

void noria_sensor_power(bool on) {
    GPIO_BSRR(GPIOB_BASE) = 1u << (on ? NORIA_PIN_SENSOR_POWER : 16u + NORIA_PIN_SENSOR_POWER);
}

void noria_air_power(bool on) {
    GPIO_BSRR(GPIOB_BASE) = 1u << (on ? NORIA_PIN_AIR_POWER : 16u + NORIA_PIN_AIR_POWER);
}

#define MODEM_RESET_MS 10u

void noria_modem_hard_reset(void) {
    GPIO_BSRR(GPIOA_BASE) = 1u << (16u + NORIA_PIN_MODEM_RESET);
    noria_wait_ms(MODEM_RESET_MS);
    GPIO_BSRR(GPIOA_BASE) = 1u << NORIA_PIN_MODEM_RESET;
}
