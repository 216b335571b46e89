/// CRC-32 as in zlib.
#ifndef NORIA_CRC_H
#define NORIA_CRC_H

#include <stddef.h>
#include <stdint.h>

/// Continues `crc` (0 at the start) over `length` bytes.
uint32_t noria_crc32(uint32_t crc, const void *data, size_t length);

#endif
