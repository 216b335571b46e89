/// The RTC's wake-up flag and its way to the core, on parts whose EXTI latches it.
#ifndef NORIA_WAKEUP_H
#define NORIA_WAKEUP_H

#include <stdbool.h>

#include "peripherals.h"

static inline void rtc_wakeup_line_enable(void) {
    EXTI_RTSR1 |= EXTI_LINE_RTC_WAKEUP;
    EXTI_IMR1 |= EXTI_LINE_RTC_WAKEUP;
}

static inline bool rtc_wakeup_flag_set(void) { return (RTC_ISR & RTC_ISR_WUTF) != 0u; }

static inline void rtc_wakeup_flag_clear(void) {
    RTC_ISR = ~(RTC_ISR_WUTF | RTC_ISR_INIT);
    EXTI_PR1 = EXTI_LINE_RTC_WAKEUP;
}

#endif
