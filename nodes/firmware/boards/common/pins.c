// Sensor supply, valve, and the I2C bus: identical IP and pins on both boards.
#include "board.h"
#include "registers.h"

static void pin_mode(uint32_t port, uint32_t pin, uint32_t mode) {
    GPIO_MODER(port) = (GPIO_MODER(port) & ~(3u << (2u * pin))) | (mode << (2u * pin));
}

void noria_peripherals_init(void) {
    GPIO_BSRR(GPIOB_BASE) =
        (1u << (16u + NORIA_PIN_SENSOR_POWER)) | (1u << (16u + NORIA_PIN_VALVE));
    pin_mode(GPIOB_BASE, NORIA_PIN_SENSOR_POWER, GPIO_MODE_OUTPUT);
    pin_mode(GPIOB_BASE, NORIA_PIN_VALVE, GPIO_MODE_OUTPUT);
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

void noria_valve_drive(bool open) {
    GPIO_BSRR(GPIOB_BASE) = 1u << (open ? NORIA_PIN_VALVE : 16u + NORIA_PIN_VALVE);
}

#define MODEM_RESET_MS 10u

void noria_modem_hard_reset(void) {
    GPIO_BSRR(GPIOA_BASE) = 1u << (16u + NORIA_PIN_MODEM_RESET);
    noria_wait_ms(MODEM_RESET_MS);
    GPIO_BSRR(GPIOA_BASE) = 1u << NORIA_PIN_MODEM_RESET;
}

// A byte takes 90 us at 100 kHz: 400 polls are more than ten byte times. A stuck bus ends here.
#define I2C_POLLS 400u

static bool i2c_wait(uint32_t flag) {
    for (uint32_t polls = 0; polls < I2C_POLLS; polls++) {
        const uint32_t status = I2C1_ISR;
        if ((status & flag) != 0u) {
            return true;
        }
        if ((status & (I2C_ISR_NACKF | I2C_ISR_STOPF)) != 0u) {
            return false;
        }
    }
    return false;
}

static void i2c_start(uint8_t address, uint32_t length, uint32_t direction) {
    I2C1_CR1 = I2C_CR1_PE;
    I2C1_CR2 = ((uint32_t)address << 1) | direction | (length << I2C_CR2_NBYTES_SHIFT) |
               I2C_CR2_AUTOEND | I2C_CR2_START;
}

// Waits for the STOP condition; switching the peripheral off also clears every flag.
static bool i2c_end(bool ok) {
    ok = ok && i2c_wait(I2C_ISR_STOPF);
    I2C1_CR1 = 0;
    return ok;
}

bool noria_i2c_write(uint8_t address, const uint8_t *data, uint32_t length) {
    i2c_start(address, length, 0);
    bool ok = true;
    for (uint32_t i = 0; ok && i < length; i++) {
        ok = i2c_wait(I2C_ISR_TXIS);
        if (ok) {
            I2C1_TXDR = data[i];
        }
    }
    return i2c_end(ok);
}

bool noria_i2c_read(uint8_t address, uint8_t *data, uint32_t length) {
    i2c_start(address, length, I2C_CR2_RD_WRN);
    bool ok = true;
    for (uint32_t i = 0; ok && i < length; i++) {
        ok = i2c_wait(I2C_ISR_RXNE);
        if (ok) {
            data[i] = (uint8_t)I2C1_RXDR;
        }
    }
    return i2c_end(ok);
}
