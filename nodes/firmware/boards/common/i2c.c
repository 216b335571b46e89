// The I2C bus: the same IP on every board.
#include "hal.h"
#include "registers.h"

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
