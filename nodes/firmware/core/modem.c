#include "modem.h"

#include <string.h>

#include "hal.h"

// The longest line worth reading is a received frame: its prefix and two digits a byte.
#define LINE_LIMIT 512u
// More lines than any command is answered with; a modem that babbles on is given up.
#define LINES_LIMIT 24u
#define ANSWER_MS 2000u
#define JOIN_MS 10000u
// SF12: 2.8 s on air, the second window two seconds later, 2.8 s of downlink.
#define SEND_MS 12000u
#define AFTER_SENT_MS 1000u

static char line[LINE_LIMIT];
static uint16_t payload_limit = 51;

static const uint8_t limit_by_rate[] = {51, 51, 51, 115, 222, 222};

/// Lines ///

// Reads one non-empty line of printable characters; false after `timeout_ms` of silence. A line too
// long for the buffer is dropped whole.
static bool read_line(uint32_t timeout_ms) {
    uint32_t length = 0;
    bool too_long = false;
    for (uint32_t bytes = 0; bytes < 4u * LINE_LIMIT; bytes++) {
        const int byte = noria_uart_read(timeout_ms);
        if (byte < 0) {
            return false;
        }
        if (byte == '\r' || byte == '\n') {
            if (length > 0u && !too_long) {
                line[length] = '\0';
                return true;
            }
            length = 0;
            too_long = false;
        } else if (length >= LINE_LIMIT - 1u) {
            too_long = true;
        } else if (byte >= ' ' && byte <= '~') {
            line[length++] = (char)byte;
        } else {
            too_long = true; // noise: nothing on this line can be trusted
            length = 1;
        }
    }
    return false;
}

static bool starts_with(const char *prefix) { return strncmp(line, prefix, strlen(prefix)) == 0; }

static void write_text(const char *text) {
    noria_uart_write((const uint8_t *)text, (uint32_t)strlen(text));
}

/// Numbers ///

static int hex_digit(char digit) {
    if (digit >= '0' && digit <= '9') {
        return digit - '0';
    }
    if (digit >= 'A' && digit <= 'F') {
        return digit - 'A' + 10;
    }
    if (digit >= 'a' && digit <= 'f') {
        return digit - 'a' + 10;
    }
    return -1;
}

static void write_hex(const uint8_t *data, uint16_t length) {
    static const char digits[] = "0123456789ABCDEF";
    for (uint16_t i = 0; i < length; i++) {
        const uint8_t pair[2] = {(uint8_t)digits[data[i] >> 4], (uint8_t)digits[data[i] & 15u]};
        noria_uart_write(pair, sizeof pair);
    }
}

static void write_number(uint8_t number) {
    uint8_t digits[3];
    uint32_t count = 0;
    if (number >= 100u) {
        digits[count++] = (uint8_t)('0' + number / 100u);
    }
    if (number >= 10u) {
        digits[count++] = (uint8_t)('0' + number / 10u % 10u);
    }
    digits[count++] = (uint8_t)('0' + number % 10u);
    noria_uart_write(digits, count);
}

/// Answers ///

// `+EVT:RX_1:<rssi>:<snr>:UNICAST:<port>:<hex>`; false leaves `downlink` alone.
static bool parse_downlink(noria_downlink_t *downlink) {
    const char *at = strstr(line, ":UNICAST:");
    if ((!starts_with("+EVT:RX_1:") && !starts_with("+EVT:RX_2:")) || at == NULL) {
        return false;
    }
    at += strlen(":UNICAST:");
    uint32_t port = 0;
    uint32_t digits = 0;
    while (*at >= '0' && *at <= '9' && digits < 3u) {
        port = port * 10u + (uint32_t)(*at++ - '0');
        digits++;
    }
    if (digits == 0u || *at++ != ':' || port == 0u || port > 223u) {
        return false;
    }
    const uint32_t length = (uint32_t)strlen(at);
    if (length % 2u != 0u || length / 2u > NORIA_MODEM_PAYLOAD_LIMIT) {
        return false;
    }
    for (uint32_t i = 0; i < length; i++) {
        if (hex_digit(at[i]) < 0) {
            return false;
        }
    }
    downlink->present = true;
    downlink->f_port = (uint8_t)port;
    downlink->length = (uint8_t)(length / 2u);
    for (uint32_t i = 0; i < length / 2u; i++) {
        const int value = hex_digit(at[2u * i]) * 16 + hex_digit(at[2u * i + 1u]);
        downlink->payload[i] = (uint8_t)value;
    }
    return true;
}

static noria_modem_result_t await_status(void) {
    for (uint32_t lines = 0; lines < LINES_LIMIT && read_line(ANSWER_MS); lines++) {
        if (starts_with("OK")) {
            return NORIA_MODEM_SENT;
        }
        if (starts_with("AT_BUSY_ERROR")) {
            return NORIA_MODEM_BUSY;
        }
        if (starts_with("AT_")) {
            return NORIA_MODEM_REFUSED;
        }
    }
    return NORIA_MODEM_SILENT;
}

// Waits for a line that starts with `prefix`, then for OK.
static bool query(const char *command, const char *prefix, char *value) {
    write_text(command);
    for (uint32_t lines = 0; lines < LINES_LIMIT && read_line(ANSWER_MS); lines++) {
        if (starts_with("AT_")) {
            return false;
        }
        if (starts_with(prefix)) {
            *value = line[strlen(prefix)];
            return await_status() == NORIA_MODEM_SENT;
        }
    }
    return false;
}

/// Interface ///

static bool join(void) {
    write_text("AT+JOIN\r\n");
    for (uint32_t lines = 0; lines < LINES_LIMIT && read_line(JOIN_MS); lines++) {
        if (starts_with("+EVT:JOINED")) {
            return true;
        }
        if (starts_with("AT_") || starts_with("+EVT:JOIN_FAILED")) {
            return false;
        }
    }
    return false;
}

bool noria_modem_start(void) {
    char value = '0';
    noria_uart_open();
    bool ready = query("AT+NJS=?\r\n", "AT+NJS=", &value) && (value == '1' || join());
    if (ready && query("AT+DR=?\r\n", "AT+DR=", &value) && value >= '0' && value <= '5') {
        payload_limit = limit_by_rate[value - '0'];
    } else {
        payload_limit = limit_by_rate[0];
    }
    noria_uart_close();
    return ready;
}

uint16_t noria_modem_payload_limit(void) { return payload_limit; }

// After OK: the end of the send, and what came down, in either order.
static void await_windows(noria_downlink_t *downlink) {
    uint32_t timeout_ms = SEND_MS;
    for (uint32_t lines = 0; lines < LINES_LIMIT && read_line(timeout_ms); lines++) {
        if (starts_with("+EVT:TX_DONE")) {
            timeout_ms = AFTER_SENT_MS;
        } else if (!downlink->present && parse_downlink(downlink) && timeout_ms == AFTER_SENT_MS) {
            return; // class A: one frame a window, nothing more will come
        }
    }
}

noria_modem_result_t noria_modem_send(uint8_t f_port, const uint8_t *payload, uint16_t length,
                                      noria_downlink_t *downlink) {
    downlink->present = false;
    if (length > payload_limit) {
        return NORIA_MODEM_REFUSED;
    }
    noria_uart_open();
    write_text("AT+SEND=");
    write_number(f_port);
    write_text(":");
    write_hex(payload, length);
    write_text("\r\n");
    const noria_modem_result_t result = await_status();
    if (result == NORIA_MODEM_SENT) {
        await_windows(downlink);
    }
    noria_uart_close();
    return result;
}
