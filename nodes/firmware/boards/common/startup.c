// Reset: close the gate on interrupts, lay out RAM, call main. The firmware runs with interrupts
// masked (hal.h); only NMI and faults are ever taken.
#include "board.h"
#include "registers.h"

extern uint32_t _stack_top, _data_load, _data_start, _data_end, _bss_start, _bss_end;

int main(void);
void noria_reset(void);

// The watchdog's reset, not one at once: a fault that comes back early in every start would else
// restart the node thousands of times a second, and wear out the flash that each start writes.
// SLEEP rather than STOP, in which an option bit can freeze the watchdog. A latching valve is
// closed by the next start. Nothing ends WFI here: no interrupt outranks a fault.
void noria_board_fault(void) {
    GPIO_BSRR(GPIOB_BASE) = 1u << (16u + NORIA_PIN_VALVE);
    IWDG_KR = IWDG_KEY_START; // in case it was not running yet
    for (uint32_t word = 0; word < NORIA_NVIC_WORDS; word++) {
        NVIC_ICER(word) = UINT32_MAX; // so that nothing ends WFI
    }
    SCB_SCR = 0;
    for (;;) {
        noria_board_stop();
    }
}

typedef void (*noria_vector_t)(void);

__attribute__((section(".vectors"), used)) static const noria_vector_t noria_vectors[16] = {
    (noria_vector_t)(uintptr_t)&_stack_top,
    noria_reset,
    noria_board_nmi,
    noria_board_fault, // HardFault
    noria_board_fault, // MemManage
    noria_board_fault, // BusFault
    noria_board_fault, // UsageFault
    noria_board_fault,
    noria_board_fault,
    noria_board_fault,
    noria_board_fault,
    noria_board_fault, // SVCall
    noria_board_fault,
    noria_board_fault,
    noria_board_fault, // PendSV
    noria_board_fault, // SysTick
};

__attribute__((noreturn)) void noria_reset(void) {
    __asm volatile("cpsid i" ::: "memory");
    const uint32_t *from = &_data_load;
    // Bounds of one section each, from the linker script.
    // cppcheck-suppress comparePointers
    for (uint32_t *to = &_data_start; to < &_data_end; to++) {
        *to = *from++;
    }
    // cppcheck-suppress comparePointers
    for (uint32_t *to = &_bss_start; to < &_bss_end; to++) {
        *to = 0;
    }
    (void)main();
    noria_board_fault();
    for (;;) {
    }
}
