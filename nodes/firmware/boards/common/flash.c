// Flash as both families have it: memory that is read in place.
#include <string.h>

#include "board.h"

const uint8_t *noria_flash_at(uint32_t offset) { return noria_flash_data + offset; }

void noria_flash_read(uint32_t offset, void *data, uint32_t length) {
    memcpy(data, noria_flash_data + offset, length);
}

bool noria_board_flash_fits(uint32_t offset, uint32_t length, uint32_t unit) {
    return offset % unit == 0u && length % unit == 0u && length <= NORIA_FLASH_SIZE &&
           offset <= NORIA_FLASH_SIZE - length;
}
