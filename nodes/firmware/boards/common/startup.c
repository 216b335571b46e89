// Reset: close the gate on interrupts, lay out RAM, call main. No handler but reset exists: the
// firmware runs with interrupts masked (hal.h), and a fault waits for the watchdog, valve closed by
// its pull-down once the watchdog has reset the pins.
#include <stdint.h>

extern uint32_t _stack_top, _data_load, _data_start, _data_end, _bss_start, _bss_end;

int main(void);
void noria_reset(void);

static void noria_fault(void) {
    for (;;) {
    }
}

typedef void (*noria_vector_t)(void);

__attribute__((section(".vectors"), used)) static const noria_vector_t noria_vectors[16] = {
    (noria_vector_t)(uintptr_t)&_stack_top,
    noria_reset,
    noria_fault, // NMI
    noria_fault, // HardFault
    noria_fault, // MemManage
    noria_fault, // BusFault
    noria_fault, // UsageFault
    noria_fault,
    noria_fault,
    noria_fault,
    noria_fault,
    noria_fault, // SVCall
    noria_fault,
    noria_fault,
    noria_fault, // PendSV
    noria_fault, // SysTick
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
    for (;;) {
    }
}
