// The supply detector. It compares by itself, also in STOP, and tells by an edge on its EXTI line.
//
// Below it the brown-out level of the option bytes resets the part. The programmer sets that level:
// the firmware never writes option bytes, because a supply that fails during such a write can leave
// a part that no longer starts.
#include "board.h"
#include "registers.h"

static bool watched;
static bool fell;

void noria_supply_watch(bool on) {
    watched = on;
    fell = false;
    if (on) {
        noria_board_detector(true);
        EXTI_PR1 = EXTI_LINE_PVD;
        noria_board_clear_pending(IRQ_PVD);
        EXTI_RTSR1 |= EXTI_LINE_PVD;
        EXTI_IMR1 |= EXTI_LINE_PVD;
        noria_board_enable_interrupt(IRQ_PVD);
    } else {
        EXTI_IMR1 &= ~EXTI_LINE_PVD;
        EXTI_RTSR1 &= ~EXTI_LINE_PVD;
        noria_board_detector(false);
        EXTI_PR1 = EXTI_LINE_PVD;
        noria_board_clear_pending(IRQ_PVD);
    }
}

// A fall is remembered until the watch is set again. The edge tells of one that is over already;
// the level tells of one that was there when the watch began.
bool noria_supply_fell(void) {
    if (watched && ((EXTI_PR1 & EXTI_LINE_PVD) != 0u || noria_board_supply_low())) {
        fell = true;
        EXTI_PR1 = EXTI_LINE_PVD;
        noria_board_clear_pending(IRQ_PVD); // or every WFI would end at once
    }
    return fell;
}
