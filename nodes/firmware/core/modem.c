// RUI3 AT command manual, sections by command. Where its editions differ, the forms that modules
// are known to give are all read: `+EVT:TIMEREQ OK` and `_OK`, `+EVT:JOIN FAILED` and `_FAILED_…`,
// LINKCHECK's fields behind colons or commas.
#include "modem.h"

#include <string.h>

#include "hal.h"

// The longest line worth reading is a received frame: its prefix and two digits a byte.
#define LINE_LIMIT 512u
// More lines than any command is answered with; a modem that babbles on is given up.
#define LINES_LIMIT 24u
// And so is one that never ends its lines.
#define PATIENCE_S 40u
#define BYTES_BETWEEN_LOOKS 16u
#define VALUE_SIZE 33u // holds an application key

#define ANSWER_MS 2000u
// A sleeping modem may lose the command that wakes it.
#define CALLS 3u
// SF12: 1.5 s on air, the second window six seconds later, 1.8 s of acceptance.
#define JOIN_MS 12000u
// SF12: 2.8 s on air, the second window two seconds later, 2.8 s of downlink.
#define SEND_MS 12000u
#define AFTER_SENT_MS 1000u
// An empty frame of its own at SF12, and what that brings down.
#define FETCH_MS 8000u
#define RESTART_MS 3000u

static char line[LINE_LIMIT];
static char value[VALUE_SIZE];
static uint16_t payload_limit = 51;
static uint32_t patience_ends_s;

// What the modem has said by itself since the line was opened.
static struct {
    bool sent;
    bool joined;
    bool join_failed;
    bool time_known;
    bool checked;
    bool heard;
    noria_downlink_t *downlink; // where a frame goes
} news;

static const uint8_t limit_by_rate[] = {51, 51, 51, 115, 222, 222};

/// Lines ///

static void open_line(noria_downlink_t *downlink) {
    memset(&news, 0, sizeof news);
    news.downlink = downlink;
    patience_ends_s = noria_clock_now_s() + PATIENCE_S;
    noria_uart_open();
}

// Reads one non-empty line of printable characters; false after `timeout_ms` of silence. A line too
// long for the buffer is dropped whole.
static bool read_line(uint32_t timeout_ms) {
    uint32_t length = 0;
    bool dropped = false;
    for (uint32_t bytes = 0; bytes < 4u * LINE_LIMIT; bytes++) {
        if (bytes % BYTES_BETWEEN_LOOKS == 0u && noria_clock_now_s() > patience_ends_s) {
            return false;
        }
        const int byte = noria_uart_read(timeout_ms);
        if (byte < 0) {
            return false;
        }
        if (byte == '\r' || byte == '\n') {
            if (length > 0u && !dropped) {
                line[length] = '\0';
                return true;
            }
            length = 0;
            dropped = false;
        } else if (length >= LINE_LIMIT - 1u || byte < ' ' || byte > '~') {
            dropped = true; // too long, or noise: nothing on this line can be trusted
        } else {
            line[length++] = (char)byte;
        }
    }
    return false;
}

static bool begins(const char *text, const char *prefix) {
    return strncmp(text, prefix, strlen(prefix)) == 0;
}

static void write_text(const char *text) {
    noria_uart_write((const uint8_t *)text, (uint32_t)strlen(text));
}

/// Numbers ///

static bool is_digit(char character) { return character >= '0' && character <= '9'; }

static int hex_digit(char digit) {
    if (is_digit(digit)) {
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

// Two digits a byte; false leaves `data` in part.
static bool read_hex(const char *at, uint8_t *data, uint32_t length) {
    for (uint32_t i = 0; i < length; i++) {
        const int high = hex_digit(at[2u * i]);
        const int low = high < 0 ? -1 : hex_digit(at[2u * i + 1u]);
        if (low < 0) {
            return false;
        }
        data[i] = (uint8_t)(high * 16 + low);
    }
    return true;
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

// The next number of at most four digits in a text, whatever stands before it; 0 at its end.
static uint32_t next_number(const char **at) {
    while (**at != '\0' && !is_digit(**at)) {
        (*at)++;
    }
    uint32_t number = 0;
    for (uint32_t digits = 0; digits < 4u && is_digit(**at); digits++) {
        number = number * 10u + (uint32_t)(*(*at)++ - '0');
    }
    return number;
}

/// Events ///

// `RX_1:<rssi>:<snr>:UNICAST:<port>:<hex>`; false leaves `downlink` absent.
static bool parse_downlink(const char *event, noria_downlink_t *downlink) {
    const char *at = strstr(event, ":UNICAST:");
    if ((!begins(event, "RX_1:") && !begins(event, "RX_2:")) || at == NULL) {
        return false;
    }
    at += strlen(":UNICAST:");
    if (!is_digit(*at)) {
        return false;
    }
    const uint32_t port = next_number(&at);
    if (*at++ != ':' || port == 0u || port > 223u) {
        return false;
    }
    const uint32_t digits = (uint32_t)strlen(at);
    if (digits % 2u != 0u || digits / 2u > NORIA_MODEM_PAYLOAD_LIMIT ||
        !read_hex(at, downlink->payload, digits / 2u)) {
        return false;
    }
    downlink->present = true;
    downlink->f_port = (uint8_t)port;
    downlink->length = (uint8_t)(digits / 2u);
    return true;
}

static void take_event(void) {
    static const char prefix[] = "+EVT:";
    if (!begins(line, prefix)) {
        return;
    }
    const char *event = line + strlen(prefix);
    if (begins(event, "TX_DONE") || begins(event, "SEND_CONFIRMED")) {
        news.sent = true;
    } else if (begins(event, "JOINED")) {
        news.joined = true;
    } else if (begins(event, "JOIN")) {
        news.join_failed = true;
    } else if (begins(event, "TIMEREQ")) {
        news.time_known = strstr(event, "OK") != NULL;
        news.heard = news.heard || news.time_known;
    } else if (begins(event, "LINKCHECK:")) {
        news.checked = true;
        news.heard = news.heard || event[strlen("LINKCHECK:")] == '0';
    } else if (news.downlink != NULL && !news.downlink->present) {
        news.heard = parse_downlink(event, news.downlink) || news.heard;
    }
}

/// Commands ///

// What stands behind `AT+<name>=` on the line, or NULL; an echo of the question is no value.
static const char *value_of(const char *name) {
    if (name == NULL || !begins(line, "AT+") || !begins(line + 3, name)) {
        return NULL;
    }
    const char *at = line + 3 + strlen(name);
    return at[0] == '=' && at[1] != '?' ? at + 1 : NULL;
}

// Reads until the status; a value of `name` is kept, events are taken.
static noria_modem_result_t await_status(const char *name) {
    for (uint32_t lines = 0; lines < LINES_LIMIT && read_line(ANSWER_MS); lines++) {
        const char *found = value_of(name);
        if (found != NULL) {
            strncpy(value, found, VALUE_SIZE - 1u);
        } else if (begins(line, "OK")) {
            return NORIA_MODEM_DONE;
        } else if (begins(line, "AT_BUSY") || begins(line, "AT_DUTY")) {
            return NORIA_MODEM_BUSY;
        } else if (begins(line, "AT_NO_NETWORK")) {
            return NORIA_MODEM_NO_NETWORK;
        } else if (begins(line, "AT_")) {
            return NORIA_MODEM_REFUSED;
        } else {
            take_event();
        }
    }
    return NORIA_MODEM_SILENT;
}

static noria_modem_result_t command(const char *text) {
    write_text(text);
    return await_status(NULL);
}

// The answer is in `value`.
static noria_modem_result_t ask(const char *name) {
    memset(value, 0, sizeof value);
    write_text("AT+");
    write_text(name);
    write_text("=?\r\n");
    const noria_modem_result_t result = await_status(name);
    return result == NORIA_MODEM_DONE && value[0] == '\0' ? NORIA_MODEM_SILENT : result;
}

static noria_modem_result_t set_key(const char *text, const uint8_t *key, uint16_t length) {
    write_text(text);
    write_hex(key, length);
    return command("\r\n");
}

static void learn_data_rate(void) {
    payload_limit = limit_by_rate[0];
    if (ask("DR") == NORIA_MODEM_DONE && value[0] >= '0' && value[0] <= '5') {
        payload_limit = limit_by_rate[value[0] - '0'];
    }
}

/// Joining ///

noria_modem_result_t noria_modem_start(void) {
    open_line(NULL);
    noria_modem_result_t result = NORIA_MODEM_SILENT;
    for (uint32_t calls = 0; calls < CALLS && result != NORIA_MODEM_DONE; calls++) {
        result = ask("NJS");
    }
    if (result != NORIA_MODEM_DONE) {
        result = NORIA_MODEM_SILENT; // whatever it says instead, it is of no use
    } else if (value[0] != '1') {
        result = NORIA_MODEM_NO_NETWORK;
    } else {
        learn_data_rate();
    }
    noria_uart_close();
    return result;
}

// The identity comes last: when power fails before, it is all written again.
static noria_modem_result_t provision(const noria_settings_t *settings) {
    static const char *const manners[] = {
        "AT+NJM=1\r\n",   // over the air
        "AT+BAND=4\r\n",  // EU868
        "AT+CLASS=A\r\n", //
        "AT+ADR=1\r\n",   // the network chooses the data rate
        "AT+CFM=0\r\n",   //
        "AT+LPM=1\r\n",   // sleep between commands
    };
    noria_modem_result_t result = NORIA_MODEM_DONE;
    for (uint32_t i = 0; result == NORIA_MODEM_DONE && i < sizeof manners / sizeof manners[0];
         i++) {
        result = command(manners[i]);
    }
    if (result == NORIA_MODEM_DONE) {
        result = set_key("AT+APPEUI=", settings->join_eui, sizeof settings->join_eui);
    }
    if (result == NORIA_MODEM_DONE) {
        result = set_key("AT+APPKEY=", settings->app_key, sizeof settings->app_key);
    }
    if (result == NORIA_MODEM_DONE) {
        result = set_key("AT+DEVEUI=", settings->dev_eui, sizeof settings->dev_eui);
    }
    return result;
}

noria_modem_result_t noria_modem_join(const noria_settings_t *settings) {
    open_line(NULL);
    noria_modem_result_t result = ask("DEVEUI");
    uint8_t identity[sizeof settings->dev_eui];
    if (result == NORIA_MODEM_DONE && (!read_hex(value, identity, sizeof identity) ||
                                       memcmp(identity, settings->dev_eui, sizeof identity) != 0)) {
        result = provision(settings);
    }
    if (result == NORIA_MODEM_DONE) {
        // Once, now, and never by itself: when to try again is decided here.
        result = command("AT+JOIN=1:0:10:0\r\n");
    }
    if (result == NORIA_MODEM_DONE) {
        for (uint32_t lines = 0;
             lines < LINES_LIMIT && !news.joined && !news.join_failed && read_line(JOIN_MS);
             lines++) {
            take_event();
        }
        result = news.joined ? NORIA_MODEM_DONE : NORIA_MODEM_NO_NETWORK;
    }
    if (result == NORIA_MODEM_DONE) {
        learn_data_rate();
    }
    noria_uart_close();
    return result;
}

uint16_t noria_modem_payload_limit(void) { return payload_limit; }

/// Frames ///

// Until the end of the send and what came down with it, in either order.
static void await_windows(bool checking) {
    for (uint32_t lines = 0; lines < LINES_LIMIT && read_line(news.sent ? AFTER_SENT_MS : SEND_MS);
         lines++) {
        take_event();
        if (news.sent && news.downlink->present && (!checking || news.checked)) {
            return; // class A: one frame a window, nothing more will come
        }
    }
}

// `HHhMMmSSs on MM/DD/YYYY` in `value`, as Unix seconds; 0 when it is none. UTC.
static uint32_t parse_time(void) {
    const char *at = value;
    uint32_t number[6];
    for (uint32_t i = 0; i < 6u; i++) {
        number[i] = next_number(&at);
    }
    uint32_t month = number[3];
    const uint32_t day = number[4];
    uint32_t year = number[5];
    if (number[0] > 23u || number[1] > 59u || number[2] > 59u || month < 1u || month > 12u ||
        day < 1u || day > 31u || year < 2000u || year > 2100u) {
        return 0;
    }
    if (month <= 2u) { // leap days come last in a year from the first of March
        month += 12u;
        year--;
    }
    const uint32_t days = year * 365u + year / 4u - year / 100u + year / 400u +
                          (153u * (month - 3u) + 2u) / 5u + day - 1u - 719468u;
    return days * 86400u + number[0] * 3600u + number[1] * 60u + number[2];
}

static void put_questions(noria_modem_inquiry_t *inquiry) {
    if (inquiry->want_check) {
        (void)command("AT+LINKCHECK=1\r\n");
    }
    if (inquiry->want_time) {
        (void)command("AT+TIMEREQ=1\r\n");
    }
}

static void read_answers(noria_modem_inquiry_t *inquiry) {
    inquiry->heard = news.heard;
    if (inquiry->want_time) {
        const bool told = news.time_known && ask("LTIME") == NORIA_MODEM_DONE;
        inquiry->network_time_s = told ? parse_time() : 0;
        inquiry->asked_s = noria_clock_now_s();
    }
}

noria_modem_result_t noria_modem_send(uint8_t f_port, const uint8_t *payload, uint16_t length,
                                      noria_modem_inquiry_t *inquiry, noria_downlink_t *downlink) {
    downlink->present = false;
    if (length > payload_limit) {
        return NORIA_MODEM_REFUSED;
    }
    open_line(downlink);
    put_questions(inquiry);
    noria_modem_result_t result = NORIA_MODEM_BUSY;
    for (uint32_t tries = 0; tries < 2u && result == NORIA_MODEM_BUSY && !downlink->present;
         tries++) {
        news.sent = false;
        write_text("AT+SEND=");
        write_number(f_port);
        write_text(":");
        write_hex(payload, length);
        result = command("\r\n");
        if (result == NORIA_MODEM_DONE) {
            await_windows(inquiry->want_check);
        } else if (result == NORIA_MODEM_BUSY) {
            await_windows(false); // with a frame of its own, which may bring something down
        }
    }
    if (result == NORIA_MODEM_DONE && !news.sent && !news.heard) {
        result = NORIA_MODEM_SILENT; // it may have reset itself in mid-air
    }
    if (result == NORIA_MODEM_DONE) {
        read_answers(inquiry);
    }
    noria_uart_close();
    return result;
}

bool noria_modem_listen(noria_downlink_t *downlink) {
    downlink->present = false;
    open_line(downlink);
    for (uint32_t lines = 0; lines < LINES_LIMIT && !downlink->present && read_line(FETCH_MS);
         lines++) {
        take_event();
    }
    noria_uart_close();
    return downlink->present;
}

/// Restart ///

void noria_modem_restart(bool by_line) {
    if (by_line) {
        noria_modem_hard_reset();
    }
    open_line(NULL);
    if (!by_line) {
        write_text("ATZ\r\n");
    }
    for (uint32_t lines = 0; lines < LINES_LIMIT && read_line(RESTART_MS); lines++) {
        // its banner
    }
    noria_uart_close();
}
