// Why the part started, and who it is.
#include <string.h>

#include "board.h"
#include "noria_shared.h"
#include "registers.h"

static uint8_t reset_cause;

// The flags gather until they are cleared, and every cause also pulls the reset line low, which
// sets the pin's own flag: what says most comes first, the pin last.
void noria_reset_note(void) {
    const uint32_t flags = RCC_CSR;
    if ((flags & (RCC_CSR_IWDGRSTF | RCC_CSR_WWDGRSTF)) != 0u) {
        reset_cause = NORIA_RESET_CAUSE_WATCHDOG;
    } else if ((flags & NORIA_RCC_CSR_SUPPLY) != 0u) {
        reset_cause = noria_board_domain_survived() ? NORIA_RESET_CAUSE_BROWN_OUT
                                                    : NORIA_RESET_CAUSE_POWER_ON;
    } else if ((flags & RCC_CSR_SFTRSTF) != 0u) {
        reset_cause = NORIA_RESET_CAUSE_SOFTWARE;
    } else {
        reset_cause = NORIA_RESET_CAUSE_PIN;
    }
    RCC_CSR = flags | RCC_CSR_RMVF;
    RCC_CSR = flags & ~RCC_CSR_RMVF; // the next reset shall set its flag again
}

uint8_t noria_reset_cause(void) { return reset_cause; }

void noria_unique_id(uint8_t id[12]) {
    const uint32_t words[3] = {UID_WORD0, UID_WORD1, UID_WORD2};
    memcpy(id, words, sizeof words);
}
