/// Little-endian numbers in byte strings, at any alignment.
#ifndef NORIA_BYTES_H
#define NORIA_BYTES_H

#include <stdint.h>

static inline uint16_t noria_get_u16(const uint8_t *data) {
    return (uint16_t)(data[0] | data[1] << 8);
}

static inline uint32_t noria_get_u32(const uint8_t *data) {
    return noria_get_u16(data) | (uint32_t)noria_get_u16(data + 2) << 16;
}

/// Each writes and returns where the next goes.
static inline uint8_t *noria_put_u8(uint8_t *out, uint8_t value) {
    *out = value;
    return out + 1;
}

static inline uint8_t *noria_put_u16(uint8_t *out, uint16_t value) {
    return noria_put_u8(noria_put_u8(out, (uint8_t)value), (uint8_t)(value >> 8));
}

static inline uint8_t *noria_put_i16(uint8_t *out, int16_t value) {
    return noria_put_u16(out, (uint16_t)value);
}

static inline uint8_t *noria_put_u32(uint8_t *out, uint32_t value) {
    return noria_put_u16(noria_put_u16(out, (uint16_t)value), (uint16_t)(value >> 16));
}

#endif
