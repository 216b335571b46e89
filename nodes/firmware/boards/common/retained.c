// A number beside its complement: a write that a failing supply tore is no number.
#include "board.h"

void noria_retain(uint16_t number) {
    noria_board_word_store(number | (uint32_t)(uint16_t)~number << 16);
}

uint16_t noria_retained(void) {
    const uint32_t word = noria_board_word_load();
    const uint16_t number = (uint16_t)word;
    return word >> 16 == (uint16_t)~number ? number : 0;
}
