// Time: the RTC calendar, its wake-up timer for long sleeps, the low-power timer for short ones,
// and the watchdog that both must satisfy.
#include "board.h"
#include "registers.h"

#define LSE_TICKS_PER_S 1024u // LPTIM1 on LSE / 32

void noria_board_stop(void) { __asm volatile("dsb\n\twfi\n\tisb" ::: "memory"); }

void noria_board_clear_pending(uint32_t irq) { NVIC_ICPR(irq / 32u) = 1u << (irq % 32u); }

void noria_board_enable_interrupt(uint32_t irq) { NVIC_ISER(irq / 32u) = 1u << (irq % 32u); }

void noria_watchdog_kick(void) { IWDG_KR = IWDG_KEY_RELOAD; }

static void rtc_unlock(void) {
    RTC_WPR = 0xCAu;
    RTC_WPR = 0x53u;
}

static void rtc_lock(void) { RTC_WPR = 0xFFu; }

void noria_rtc_init(void) {
    IWDG_KR = IWDG_KEY_START;
    IWDG_KR = IWDG_KEY_ACCESS;
    while (IWDG_SR != 0u) {
    }
    IWDG_PR = IWDG_PR_DIV256;
    IWDG_RLR = 0xFFFu;
    while (IWDG_SR != 0u) {
    }
    IWDG_KR = IWDG_KEY_RELOAD;

    rtc_wakeup_line_enable();
    noria_board_enable_interrupt(IRQ_RTC);
    noria_board_enable_interrupt(IRQ_LPTIM1);
    noria_board_enable_interrupt(IRQ_LPUART1);

    rtc_unlock();
    RTC_CR = RTC_CR_BYPSHAD;
    rtc_lock();
    LPTIM1_CFGR = LPTIM_CFGR_PRESC_32;
}

bool noria_clock_is_set(void) { return (RTC_ISR & RTC_ISR_INITS) != 0u; }

// Days from 1970-01-01 to the first of March of `year`, shifted so that leap days come last.
static uint32_t days_to_march(uint32_t year) {
    return year * 365u + year / 4u - year / 100u + year / 400u - 719468u;
}

static uint32_t from_bcd(uint32_t bcd) { return (bcd >> 4) * 10u + (bcd & 15u); }

static uint32_t to_bcd(uint32_t value) { return ((value / 10u) << 4) | (value % 10u); }

uint32_t noria_clock_now_s(void) {
    uint32_t date = RTC_DR;
    uint32_t time;
    uint32_t before;
    do { // without shadow registers a roll-over between two reads must be caught
        before = date;
        time = RTC_TR;
        date = RTC_DR;
    } while (date != before);
    uint32_t year = 2000u + from_bcd((date >> 16) & 0xFFu);
    uint32_t month = from_bcd((date >> 8) & 0x1Fu);
    const uint32_t day = from_bcd(date & 0x3Fu);
    if (month <= 2u) {
        year -= 1u;
        month += 12u;
    }
    const uint32_t days = days_to_march(year) + (153u * (month - 3u) + 2u) / 5u + day - 1u;
    return days * 86400u + from_bcd((time >> 16) & 0x3Fu) * 3600u +
           from_bcd((time >> 8) & 0x7Fu) * 60u + from_bcd(time & 0x7Fu);
}

void noria_clock_set(uint32_t time_s) {
    const uint32_t days = time_s / 86400u;
    const uint32_t seconds = time_s % 86400u;
    uint32_t year = 1969u + days / 366u; // never too late
    while (days_to_march(year + 1u) <= days) {
        year++;
    }
    const uint32_t day_of_year = days - days_to_march(year); // from the first of March
    const uint32_t month_index = (5u * day_of_year + 2u) / 153u;
    const uint32_t day = day_of_year - (153u * month_index + 2u) / 5u + 1u;
    const uint32_t month = month_index < 10u ? month_index + 3u : month_index - 9u;
    if (month <= 2u) {
        year++;
    }
    const uint32_t weekday = (days + 3u) % 7u + 1u; // 1970-01-01 was a Thursday
    rtc_unlock();
    RTC_ISR |= RTC_ISR_INIT;
    while ((RTC_ISR & RTC_ISR_INITF) == 0u) {
    }
    RTC_PRER = 0x007F00FFu; // LSE / 128 / 256 = 1 Hz
    RTC_TR = (to_bcd(seconds / 3600u) << 16) | (to_bcd(seconds / 60u % 60u) << 8) |
             to_bcd(seconds % 60u);
    RTC_DR = (to_bcd(year % 100u) << 16) | (weekday << 13) | (to_bcd(month) << 8) | to_bcd(day);
    RTC_ISR &= ~RTC_ISR_INIT;
    rtc_lock();
}

// Pulses added to or taken from 2^20, 32 s: steps of 0.9537 ppm ("RTC smooth digital
// calibration" in RM0376 section 26.4 and RM0394 section 38.3).
void noria_clock_trim(int32_t ppm) {
    const int32_t rounding = ppm < 0 ? -2048 : 2048;
    const int32_t pulses = (ppm * 4295 + rounding) / 4096; // 2^20 / 10^6
    const uint32_t setting =
        pulses > 0 ? RTC_CALR_CALP | (512u - (uint32_t)pulses) : (uint32_t)-pulses;
    if (RTC_CALR == setting) {
        return;
    }
    while ((RTC_ISR & RTC_ISR_RECALPF) != 0u) { // the last setting is being taken over, 12 ms
    }
    rtc_unlock();
    RTC_CALR = setting;
    rtc_lock();
}

static void wakeup_acknowledge(void) {
    rtc_wakeup_flag_clear();
    noria_board_clear_pending(IRQ_RTC);
}

static void wakeup_start(uint32_t period_s) {
    rtc_unlock();
    RTC_CR = RTC_CR_BYPSHAD;
    while ((RTC_ISR & RTC_ISR_WUTWF) == 0u) {
    }
    wakeup_acknowledge(); // a flag that outlived a reset would make no edge, and the sleep no end
    RTC_WUTR = period_s - 1u;
    RTC_CR = RTC_CR_BYPSHAD | RTC_CR_WUCKSEL_1HZ | RTC_CR_WUTE | RTC_CR_WUTIE;
    rtc_lock();
}

// False: the supply fell first.
static bool wakeup_wait(void) {
    do { // an event before this point is pending and ends the sleep at once
        if (noria_supply_fell()) {
            return false;
        }
        noria_board_stop();
    } while (!rtc_wakeup_flag_set());
    wakeup_acknowledge();
    noria_watchdog_kick();
    return true;
}

static void wakeup_end(void) {
    rtc_unlock();
    RTC_CR = RTC_CR_BYPSHAD;
    rtc_lock();
}

bool noria_sleep_until(uint32_t time_s) {
    noria_watchdog_kick();
    for (;;) {
        const uint32_t now_s = noria_clock_now_s();
        if (now_s >= time_s) {
            return true;
        }
        if (noria_supply_fell()) {
            return false;
        }
        const uint32_t remaining_s = time_s - now_s;
        const uint32_t pieces = remaining_s / noria_board_sleep_piece_s;
        wakeup_start(pieces > 0u ? noria_board_sleep_piece_s : remaining_s);
        bool whole = true;
        for (uint32_t i = 0; whole && i < (pieces > 0u ? pieces : 1u); i++) {
            whole = wakeup_wait();
        }
        wakeup_end();
    }
}

// Arms the one-shot timer; its match bit ends the wait.
static void timeout_start(uint32_t duration_ms) {
    LPTIM1_CR = 0;
    LPTIM1_IER = LPTIM_ARRM; // writable only while disabled
    LPTIM1_CR = LPTIM_CR_ENABLE;
    LPTIM1_ICR = LPTIM_ARRM | LPTIM_ARROK;
    LPTIM1_ARR = duration_ms * LSE_TICKS_PER_S / 1000u + 1u;
    while ((LPTIM1_ISR & LPTIM_ARROK) == 0u) {
    }
    LPTIM1_CR = LPTIM_CR_ENABLE | LPTIM_CR_SNGSTRT;
}

static bool timeout_over(void) { return (LPTIM1_ISR & LPTIM_ARRM) != 0u; }

static void timeout_end(void) {
    LPTIM1_CR = 0;
    noria_board_clear_pending(IRQ_LPTIM1);
}

void noria_wait_ms(uint32_t duration_ms) {
    timeout_start(duration_ms);
    while (!timeout_over()) {
        noria_board_stop();
    }
    timeout_end();
}

/// Modem line: the wait for a byte needs the timer above ///

void noria_uart_open(void) {
    LPUART1_BRR = LPUART_BRR_9600_LSE;
    LPUART1_CR3 = LPUART_CR3_WUS_RXNE | LPUART_CR3_WUFIE;
    LPUART1_CR1 =
        LPUART_CR1_UE | LPUART_CR1_UESM | LPUART_CR1_RE | LPUART_CR1_TE | LPUART_CR1_RXNEIE;
    LPUART1_ICR = LPUART_ICR_ALL;
}

void noria_uart_close(void) {
    LPUART1_CR1 = 0;
    noria_board_clear_pending(IRQ_LPUART1);
}

void noria_uart_write(const uint8_t *data, uint32_t length) {
    const uint32_t receiving = LPUART1_CR1;
    SCB_SCR = 0; // SLEEP, not STOP: the end of a transmission does not lead out of STOP
    LPUART1_CR1 = receiving | LPUART_CR1_TCIE;
    for (uint32_t i = 0; i < length; i++) {
        LPUART1_TDR = data[i];
        while ((LPUART1_ISR & LPUART_ISR_TC) == 0u) {
            noria_board_stop();
            noria_board_clear_pending(IRQ_LPUART1);
        }
        LPUART1_ICR = LPUART_ISR_TC;
    }
    LPUART1_CR1 = receiving;
    SCB_SCR = SCB_SCR_SLEEPDEEP;
    noria_board_clear_pending(IRQ_LPUART1);
}

int noria_uart_read(uint32_t timeout_ms) {
    int received = -1;
    noria_watchdog_kick();
    timeout_start(timeout_ms);
    for (;;) {
        if ((LPUART1_ISR & LPUART_ISR_RXNE) != 0u) {
            received = (int)(LPUART1_RDR & 0xFFu);
            LPUART1_ICR = LPUART_ICR_ALL;
            break;
        }
        if (timeout_over()) {
            break;
        }
        noria_board_stop();
        noria_board_clear_pending(IRQ_LPUART1);
    }
    timeout_end();
    return received;
}
