// Who the part is: "unique device ID" in RM0376 and RM0394.
#include "board.h"
#include "registers.h"

#ifdef STM32L072xx
static const uint32_t words[3] = {0x1FF80050u, 0x1FF80054u, 0x1FF80064u};
#else
static const uint32_t words[3] = {0x1FFF7590u, 0x1FFF7594u, 0x1FFF7598u};
#endif

void noria_unique_id(uint8_t id[12]) {
    for (uint32_t i = 0; i < 12u; i++) {
        id[i] = (uint8_t)(NORIA_REGISTER(words[i / 4u]) >> (8u * (i % 4u)));
    }
}
