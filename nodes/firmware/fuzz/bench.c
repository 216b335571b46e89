#include "bench.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "flash.h"
#include "node.h"
#include "noria_shared.h"
#include "provisioned.h"

/// RAM: the build moves the firmware's .data and .bss into sections of these names ///

// Weak, because a firmware without one kind of them has no such section.
extern uint8_t __start_noria_data[] __attribute__((weak));
extern uint8_t __stop_noria_data[] __attribute__((weak));
extern uint8_t __start_noria_bss[] __attribute__((weak));
extern uint8_t __stop_noria_bss[] __attribute__((weak));

#define RAM_LIMIT 65536u

typedef struct {
    uint8_t data[RAM_LIMIT], bss[RAM_LIMIT];
} ram_t;

static ram_t at_reset, kept;
static uint8_t kept_flash[NORIA_FLASH_SIZE];
static uint64_t kept_calendar_us;

// Between the variables lie the address sanitizer's red zones, which no checked copy may touch. The
// barrier keeps the compiler from making it a memcpy again.
__attribute__((no_sanitize("address"))) static void copy(uint8_t *to, const uint8_t *from,
                                                         size_t length) {
    uint64_t *to_words = (uint64_t *)(void *)to;
    const uint64_t *from_words = (const uint64_t *)(const void *)from;
    size_t i = 0;
    for (; i < length / sizeof *to_words; i++) {
        to_words[i] = from_words[i];
        __asm__ volatile("" ::: "memory");
    }
    for (i *= sizeof *to_words; i < length; i++) {
        to[i] = from[i];
        __asm__ volatile("" ::: "memory");
    }
}

static size_t data_size(void) {
    return (uintptr_t)__stop_noria_data - (uintptr_t)__start_noria_data;
}

static size_t bss_size(void) { return (uintptr_t)__stop_noria_bss - (uintptr_t)__start_noria_bss; }

static void keep_ram(ram_t *ram) {
    copy(ram->data, __start_noria_data, data_size());
    copy(ram->bss, __start_noria_bss, bss_size());
}

static void return_ram(const ram_t *ram) {
    copy(__start_noria_data, ram->data, data_size());
    copy(__start_noria_bss, ram->bss, bss_size());
}

static void start_board(uint64_t calendar_us) {
    static const uint8_t id[12] = "fuzz bench";
    noria_host_board_start(NORIA_RESET_CAUSE_POWER_ON, id, calendar_us, true);
}

void noria_fuzz_reset(void) {
    static bool is_known;
    if (!is_known) {
        is_known = true;
        if (data_size() > RAM_LIMIT || bss_size() > RAM_LIMIT) {
            (void)fputs("bench.c: RAM_LIMIT is too small for the firmware's variables\n", stderr);
            abort();
        }
        keep_ram(&at_reset);
    }
    return_ram(&at_reset);
    noria_host_flash_reset(0xFF);
    noria_host_flash_load(0, noria_fuzz_region, sizeof noria_fuzz_region);
    start_board((uint64_t)NORIA_FUZZ_START_S * 1000000u);
}

void noria_fuzz_keep(void) {
    keep_ram(&kept);
    memcpy(kept_flash, noria_host_flash_memory(), sizeof kept_flash);
    kept_calendar_us = noria_host_board_calendar_us();
}

void noria_fuzz_return(void) {
    return_ram(&kept);
    memcpy(noria_host_flash_memory(), kept_flash, sizeof kept_flash);
    start_board(kept_calendar_us);
}

void noria_fuzz_running_node(void) {
    static bool is_running;
    if (!is_running) {
        is_running = true;
        noria_fuzz_reset();
        noria_node_boot();
        noria_fuzz_keep();
    }
    noria_fuzz_return();
}

/// Sensors: a field in spring ///

static void sweep(noria_adc_sweep_t *result, bool powered) {
    (void)powered;
    *result = (noria_adc_sweep_t){.input_mv = {1300, 1380, 700, 900}, .supply_mv = 2950};
}

static bool i2c_write(uint8_t address, const uint8_t *data, uint32_t length) {
    (void)data;
    return address == 0x44u && length > 0u;
}

static bool i2c_read(uint8_t address, uint8_t *data, uint32_t length) {
    static const uint8_t answer[6] = {0x66, 0x66, 0x93, 0x72, 0xB0, 0xDC};
    memcpy(data, answer, length < sizeof answer ? length : sizeof answer);
    return address == 0x44u;
}

/// Modem ///

static noria_fuzz_downlink_t next_downlink;
static void (*line_ended)(void);
static char command[16]; // what a line began with
static uint32_t command_length;

static void say(const char *text) {
    noria_host_board_modem_says((const uint8_t *)text, (uint32_t)strlen(text),
                                noria_host_board_now_us() + 10000u);
}

static void answer_send(void) {
    uint8_t f_port = 0;
    uint8_t payload[NORIA_FUZZ_PAYLOAD_LIMIT];
    say("\r\nOK\r\n\r\n+EVT:TX_DONE\r\n");
    const int length = next_downlink(&f_port, payload);
    if (length < 0) {
        return;
    }
    char text[64 + 2 * NORIA_FUZZ_PAYLOAD_LIMIT];
    int at = snprintf(text, sizeof text, "\r\n+EVT:RX_1:-71:8:UNICAST:%u:", (unsigned)f_port);
    for (int i = 0; i < length; i++) {
        static const char digits[] = "0123456789ABCDEF";
        text[at++] = digits[payload[i] >> 4];
        text[at++] = digits[payload[i] & 15u];
    }
    memcpy(text + at, "\r\n", 3);
    say(text);
}

static void answer(void) {
    if (strncmp(command, "AT+SEND=", 8) == 0) {
        answer_send();
    } else if (strncmp(command, "AT+NJS=?", 8) == 0) {
        say("\r\nAT+NJS=1\r\n\r\nOK\r\n");
    } else if (strncmp(command, "AT+DR=?", 7) == 0) {
        say("\r\nAT+DR=3\r\n\r\nOK\r\n");
    } else {
        say("\r\nOK\r\n");
    }
}

static void modem_hears(const uint8_t *data, uint32_t length) {
    for (uint32_t i = 0; i < length; i++) {
        if (data[i] != '\n' && data[i] != '\r') {
            if (command_length < sizeof command - 1u) {
                command[command_length++] = (char)data[i];
            }
        } else if (command_length > 0u) {
            command[command_length] = '\0';
            command_length = 0;
            line_ended();
        }
    }
}

static void connect(void (*hears_line)(void)) {
    const noria_host_world_t world = {
        .sweep = sweep,
        .i2c_write = i2c_write,
        .i2c_read = i2c_read,
        .modem_hears = modem_hears,
    };
    line_ended = hears_line;
    command_length = 0;
    noria_host_board_connect(&world);
}

void noria_fuzz_modem(noria_fuzz_downlink_t downlink) {
    next_downlink = downlink;
    connect(answer);
}

void noria_fuzz_line(void (*hears_line)(void)) { connect(hears_line); }

/// Inputs ///

size_t noria_fuzz_take(noria_fuzz_input_t *input, uint8_t *out) {
    if (input->size == 0u) {
        return 0;
    }
    const size_t wanted = input->data[0], left = input->size - 1u;
    const size_t length = wanted < left ? wanted : left;
    memcpy(out, input->data + 1, length);
    input->data += 1u + length;
    input->size -= 1u + length;
    return length;
}
