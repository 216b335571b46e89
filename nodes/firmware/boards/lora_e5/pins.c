// The module's pins: PA2/PA3 modem, PA9 sensor supply, PB15 valve, PB6/PB7 I2C; PB5 modem
// reset, PB10 air sensor supply; PB3 shallow probe, PB4 deep probe, PA10 soil temperature, PA15
// light.
#include "board.h"
#include "registers.h"

#define PIN_SENSOR_POWER 9u // of port A
#define PIN_MODEM_RESET 5u  // of port B
#define PIN_AIR_POWER 10u   // of port B
#define MODEM_RESET_MS 10u

static void pin_mode(uint32_t port, uint32_t pin, uint32_t mode) {
    GPIO_MODER(port) = (GPIO_MODER(port) & ~(3u << (2u * pin))) | (mode << (2u * pin));
}

void noria_peripherals_init(void) {
    noria_sensor_power(false);
    noria_valve_drive(false);
    noria_air_power(false);
    pin_mode(GPIOA_BASE, PIN_SENSOR_POWER, GPIO_MODE_OUTPUT);
    pin_mode(GPIOB_BASE, NORIA_PIN_VALVE, GPIO_MODE_OUTPUT);
    pin_mode(GPIOB_BASE, PIN_AIR_POWER, GPIO_MODE_OUTPUT);
    GPIO_OTYPER(GPIOB_BASE) |= (1u << 6) | (1u << 7);
    GPIO_AFRL(GPIOB_BASE) |= NORIA_AF_I2C1 << 24 | NORIA_AF_I2C1 << 28;
    pin_mode(GPIOB_BASE, 6, GPIO_MODE_ALTERNATE);
    pin_mode(GPIOB_BASE, 7, GPIO_MODE_ALTERNATE);
    GPIO_AFRL(GPIOA_BASE) |= NORIA_AF_LPUART1 << 8 | NORIA_AF_LPUART1 << 12;
    pin_mode(GPIOA_BASE, 2, GPIO_MODE_ALTERNATE);
    pin_mode(GPIOA_BASE, 3, GPIO_MODE_ALTERNATE);
    GPIO_BSRR(GPIOB_BASE) = 1u << PIN_MODEM_RESET; // released before it is an output
    GPIO_OTYPER(GPIOB_BASE) |= 1u << PIN_MODEM_RESET;
    pin_mode(GPIOB_BASE, PIN_MODEM_RESET, GPIO_MODE_OUTPUT);
    // PB3, PB4 and PA15 carry the debug port's JTAG functions at reset.
    pin_mode(GPIOB_BASE, 3, GPIO_MODE_ANALOG);
    pin_mode(GPIOB_BASE, 4, GPIO_MODE_ANALOG);
    pin_mode(GPIOA_BASE, 10, GPIO_MODE_ANALOG);
    pin_mode(GPIOA_BASE, 15, GPIO_MODE_ANALOG);
    GPIO_PUPDR(GPIOB_BASE) &= ~(3u << 8);  // PB4 has a pull-up
    GPIO_PUPDR(GPIOA_BASE) &= ~(3u << 30); // PA15 too
    I2C1_TIMINGR = I2C_TIMINGR_100KHZ_AT_4MHZ;
}

void noria_sensor_power(bool on) {
    GPIO_BSRR(GPIOA_BASE) = 1u << (on ? PIN_SENSOR_POWER : 16u + PIN_SENSOR_POWER);
}

void noria_modem_hard_reset(void) {
    GPIO_BSRR(GPIOB_BASE) = 1u << (16u + PIN_MODEM_RESET);
    noria_wait_ms(MODEM_RESET_MS);
    GPIO_BSRR(GPIOB_BASE) = 1u << PIN_MODEM_RESET;
}

void noria_air_power(bool on) {
    GPIO_BSRR(GPIOB_BASE) = 1u << (on ? PIN_AIR_POWER : 16u + PIN_AIR_POWER);
}
