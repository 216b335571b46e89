#include "settings.h"

#include <string.h>

#include "bytes.h"
#include "crc.h"
#include "hal.h"
#include "store.h"

/// Fields ///

typedef struct {
    uint8_t number; // by which a change names it, 0 = never changed
    uint8_t offset;
    uint8_t size; // bytes
    uint8_t is_signed;
    int32_t low;
    uint32_t span; // highest value minus lowest
} field_t;

static const field_t fields[] = {NORIA_SETTINGS_FIELDS};

#define FIELD_COUNT (sizeof fields / sizeof fields[0])

// Two's complement, whatever the field's size.
static uint32_t get(const noria_settings_t *settings, const field_t *field) {
    const uint8_t *at = (const uint8_t *)settings + field->offset;
    if (field->size == 1) {
        return at[0];
    }
    if (field->size == 2) {
        const uint16_t value = noria_get_u16(at);
        return field->is_signed ? (uint32_t)(int32_t)(int16_t)value : value;
    }
    return noria_get_u32(at);
}

static void put(noria_settings_t *settings, const field_t *field, uint32_t value) {
    uint8_t *at = (uint8_t *)settings + field->offset;
    for (uint8_t i = 0; i < field->size; i++) {
        at[i] = (uint8_t)(value >> 8 * i);
    }
}

static bool is_within(const field_t *field, uint32_t value) {
    return value - (uint32_t)field->low <= field->span;
}

static const field_t *find(uint8_t number) {
    for (size_t i = 0; number != 0 && i < FIELD_COUNT; i++) {
        if (fields[i].number == number) {
            return &fields[i];
        }
    }
    return NULL;
}

static bool makes_sense(const noria_settings_t *settings) {
    for (size_t i = 0; i < FIELD_COUNT; i++) {
        if (!is_within(&fields[i], get(settings, &fields[i]))) {
            return false;
        }
    }
    return settings->window_start_h < settings->window_end_h;
}

/// Changes ///

/// The payload of a record: every field changed since provisioning.
typedef struct {
    uint32_t set; // bit (number - 1) per changed field
    uint32_t value[NORIA_SETTING_COUNT];
} changes_t;

_Static_assert(NORIA_SETTING_COUNT <= 32, "a bit per setting");

static noria_settings_t in_force;
static changes_t changes;

static noria_log_t changes_log(void) {
    return (noria_log_t){{NORIA_FLASH_CHANGES_A, NORIA_FLASH_CHANGES_B},
                         NORIA_FLASH_CHANGES_SIZE,
                         sizeof(changes_t),
                         in_force.crc32};
}

static void overlay(noria_settings_t *settings, const changes_t *with) {
    for (size_t i = 0; i < FIELD_COUNT; i++) {
        const uint8_t number = fields[i].number;
        if (number != 0 && (with->set >> (number - 1) & 1) != 0 &&
            is_within(&fields[i], with->value[number - 1])) {
            put(settings, &fields[i], with->value[number - 1]);
        }
    }
}

const noria_settings_t *noria_settings_load(void) {
    noria_flash_read(NORIA_FLASH_SETTINGS, &in_force, sizeof in_force);
    memset(&changes, 0, sizeof changes);
    if (in_force.crc32 != noria_crc32(0, &in_force, NORIA_SETTINGS_SIZE - 4) ||
        !makes_sense(&in_force)) {
        return NULL;
    }
    const noria_log_t log = changes_log();
    noria_settings_t changed = in_force;
    changes_t kept;
    if (noria_log_load(&log, &kept)) {
        overlay(&changed, &kept);
        if (makes_sense(&changed)) {
            in_force = changed;
            changes = kept;
        }
    }
    return &in_force;
}

static bool read_change(const uint8_t *payload, size_t length, changes_t *change) {
    const size_t count = length == 0 ? 0 : (length - 1) / NORIA_SETTINGS_ENTRY_SIZE;
    if (count == 0 || count > NORIA_SETTINGS_ENTRY_LIMIT ||
        length != 1 + count * NORIA_SETTINGS_ENTRY_SIZE || payload[0] != NORIA_SETTINGS_ACTION) {
        return false;
    }
    memset(change, 0, sizeof *change);
    for (size_t i = 0; i < count; i++) {
        const uint8_t *entry = payload + 1 + i * NORIA_SETTINGS_ENTRY_SIZE;
        const field_t *field = find(entry[0]);
        const uint32_t value = noria_get_u32(entry + 1);
        if (field == NULL || !is_within(field, value) ||
            (change->set >> (field->number - 1) & 1) != 0) {
            return false;
        }
        change->set |= (uint32_t)1 << (field->number - 1);
        change->value[field->number - 1] = value;
    }
    return true;
}

bool noria_settings_change(const uint8_t *payload, size_t length) {
    changes_t change;
    if (!read_change(payload, length, &change)) {
        return false;
    }
    noria_settings_t changed = in_force;
    overlay(&changed, &change);
    if (!makes_sense(&changed)) {
        return false;
    }
    // A repetition costs no flash.
    if (memcmp(&changed, &in_force, sizeof changed) == 0) {
        return true;
    }
    changes_t all = changes;
    all.set |= change.set;
    for (uint8_t i = 0; i < NORIA_SETTING_COUNT; i++) {
        all.value[i] = (change.set >> i & 1) != 0 ? change.value[i] : all.value[i];
    }
    const noria_log_t log = changes_log();
    if (!noria_log_append(&log, &all)) {
        return false;
    }
    changes = all;
    in_force = changed;
    return true;
}
