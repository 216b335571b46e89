#include "update.h"

#include <string.h>

#include "bytes.h"
#include "container.h"
#include "engine.h"
#include "hal.h"
#include "store.h"

static const noria_log_t boot_log = {
    {NORIA_FLASH_BOOT_A, NORIA_FLASH_BOOT_B}, NORIA_FLASH_BOOT_SIZE, sizeof(noria_boot_t), 2};

static const uint32_t slot_offset[2] = {NORIA_FLASH_MODEL_A, NORIA_FLASH_MODEL_B};

#define IMAGE_UNITS ((NORIA_MODEL_BYTES + NORIA_FLASH_UNIT - 1u) / NORIA_FLASH_UNIT)

/// Events ///

// The oldest gives way when nobody collects: the last word counts.
static void report(noria_update_t *update, uint8_t code, uint8_t refusal, uint32_t version) {
    if (update->event_count == NORIA_UPDATE_EVENTS) {
        noria_update_event_t dropped;
        noria_update_next_event(update, &dropped);
    }
    update->events[update->event_count++] = (noria_update_event_t){code, refusal, version};
}

bool noria_update_next_event(noria_update_t *update, noria_update_event_t *event) {
    if (update->event_count == 0) {
        return false;
    }
    *event = update->events[0];
    update->event_count--;
    memmove(update->events, update->events + 1, update->event_count * sizeof *event);
    return true;
}

/// Slots ///

static const uint8_t *slot(unsigned index) { return noria_flash_at(slot_offset[index]); }

static bool slot_holds(unsigned index, uint32_t model_id) {
    return noria_identity(slot(index), NORIA_MODEL_BYTES) == model_id &&
           noria_engine_verify(slot(index));
}

static bool write_slot(unsigned index, const uint8_t *image) {
    if (!noria_flash_erase(slot_offset[index], NORIA_FLASH_MODEL_SIZE)) {
        return false;
    }
    for (uint32_t i = 0; i < IMAGE_UNITS; i++) {
        uint32_t at = i * NORIA_FLASH_UNIT;
        uint32_t left = NORIA_MODEL_BYTES - at;
        uint8_t unit[NORIA_FLASH_UNIT] = {0};
        memcpy(unit, image + at, left < NORIA_FLASH_UNIT ? left : NORIA_FLASH_UNIT);
        if (!noria_flash_program(slot_offset[index] + at, unit, NORIA_FLASH_UNIT)) {
            return false;
        }
    }
    return true;
}

const uint8_t *noria_update_model(const noria_update_t *update) {
    return update->boot.active == NORIA_SLOT_NONE ? NULL : slot(update->boot.active);
}

uint32_t noria_update_version(const noria_update_t *update) {
    return update->boot.active == NORIA_SLOT_NONE ? 0 : update->boot.version[update->boot.active];
}

uint32_t noria_update_backbone(const noria_update_t *update) {
    const uint8_t *model = noria_update_model(update);
    return model == NULL ? 0 : noria_engine_backbone_id(model);
}

/// Boot record ///

// RAM follows flash: what could not be recorded did not happen.
static bool record(noria_update_t *update, const noria_boot_t *boot) {
    if (!noria_log_append(&boot_log, boot)) {
        return false;
    }
    update->boot = *boot;
    return true;
}

// What holds after leaving the active slot: the other one if it verifies, else no model.
static noria_boot_t without_active(const noria_boot_t *now) {
    noria_boot_t next = *now;
    unsigned other = now->active ^ 1u;
    next.probation = 0;
    next.boots = 0;
    next.active = now->version[other] != 0 && slot_holds(other, now->model_id[other])
                      ? (uint8_t)other
                      : NORIA_SLOT_NONE;
    return next;
}

static bool roll_back(noria_update_t *update, uint8_t refusal) {
    uint32_t given_up = noria_update_version(update);
    noria_boot_t next = without_active(&update->boot);
    if (!record(update, &next)) {
        return false;
    }
    report(update, NORIA_EVENT_CODE_MODEL_ROLLED_BACK, refusal, given_up);
    return true;
}

static void adopt_factory_model(noria_update_t *update) {
    noria_boot_t boot = {.active = NORIA_SLOT_NONE};
    if (noria_engine_verify(slot(0))) {
        boot.highest_version = boot.version[0] = 1;
        boot.model_id[0] = noria_identity(slot(0), NORIA_MODEL_BYTES);
        boot.active = 0;
        record(update, &boot);
    }
    update->boot = boot;
}

static void pick_model(noria_update_t *update) {
    if (!noria_log_load(&boot_log, &update->boot) || update->boot.active > NORIA_SLOT_NONE) {
        adopt_factory_model(update);
        return;
    }
    noria_boot_t *boot = &update->boot;
    if (boot->active == NORIA_SLOT_NONE) {
        return;
    }
    if (!slot_holds(boot->active, boot->model_id[boot->active])) {
        if (!roll_back(update, NORIA_REFUSAL_SELF_TEST)) {
            *boot = without_active(boot); // the flash is failing; decide anew at each boot
        }
        return;
    }
    if (!boot->probation) {
        return;
    }
    if (boot->boots >= NORIA_PROBATION_BOOTS) {
        roll_back(update, NORIA_REFUSAL_NONE);
        return;
    }
    noria_boot_t next = *boot;
    next.boots++;
    record(update, &next);
    // The event of the activation may have been lost with the power.
    report(update, NORIA_EVENT_CODE_MODEL_ACTIVATED, 0, noria_update_version(update));
}

// Goes on where the reset stopped it. A session that had done its work, or that would overwrite the
// slot a model on probation may return to, is over.
static void resume_session(noria_update_t *update) {
    if (!noria_staging_restore(&update->staging, &update->session)) {
        return;
    }
    if (update->boot.probation || update->session.descriptor <= update->boot.highest_version) {
        noria_staging_end(&update->staging);
        update->session.count = 0;
        return;
    }
    update->waiting = !noria_fragment_incomplete(&update->session);
    update->last_poll = update->waiting;
}

void noria_update_boot(noria_update_t *update, const noria_settings_t *settings) {
    memset(update, 0, sizeof *update);
    update->settings = settings;
    pick_model(update);
    resume_session(update);
}

/// Fragments ///

#define SETUP_SIZE_1 10u // after the command
#define SETUP_SIZE_2 16u
#define NO_SESSION 4u // status bit of version 2

static uint8_t *put_status(const noria_fragment_t *session, uint8_t *out) {
    const bool first = session->form == NORIA_FRAGMENT_FORM_1;
    out = noria_put_u8(out, NORIA_TS004_COMMAND_SESSION_STATUS);
    out = first ? out : noria_put_u8(out, 0);
    out = noria_put_u16(out, session->received);
    out = noria_put_u8(out, session->missing);
    return first ? noria_put_u8(out, 0) : out;
}

// Of version 2 the session count and the MIC are not looked at: the descriptor only grows, and the
// block is signed.
static uint8_t setup(noria_update_t *update, const uint8_t *request, size_t length) {
    uint16_t count = noria_get_u16(request + 1);
    uint8_t size = request[3], control = request[4], padding = request[5];
    uint32_t descriptor = noria_get_u32(request + 6);
    uint8_t form = length == SETUP_SIZE_2 ? NORIA_FRAGMENT_FORM_2 : NORIA_FRAGMENT_FORM_1;
    const noria_fragment_t *session = &update->session;
    uint8_t refusal = NORIA_SETUP_REFUSAL_NONE;
    if ((request[0] >> 4 & 3) != 0) {
        refusal |= NORIA_SETUP_REFUSAL_SESSION_INDEX;
    }
    if ((control >> 3 & 7) != 0) {
        refusal |= NORIA_SETUP_REFUSAL_ENCODING;
    }
    if (descriptor <= update->boot.highest_version) {
        refusal |= NORIA_SETUP_REFUSAL_DESCRIPTOR;
    }
    // The other slot holds what the node returns to if the model on probation fails.
    if (update->boot.probation || update->waiting) {
        refusal |= NORIA_SETUP_REFUSAL_MEMORY;
    }
    if (refusal != NORIA_SETUP_REFUSAL_NONE) {
        return refusal;
    }
    update->silent_polls = 0;
    bool resumed = noria_fragment_incomplete(session) && session->count == count &&
                   session->size == size && session->padding == padding &&
                   session->descriptor == descriptor && session->form == form;
    if (resumed) {
        return NORIA_SETUP_REFUSAL_NONE;
    }
    refusal = noria_fragment_setup(&update->session, count, size, padding, descriptor, form);
    if (refusal == NORIA_SETUP_REFUSAL_NONE) {
        noria_staging_begin(&update->staging, session);
    }
    return refusal;
}

static void take_fragment(noria_update_t *update, uint16_t index_and_number, const uint8_t *data) {
    if (index_and_number >> 14 != 0) {
        return;
    }
    update->silent_polls = 0;
    noria_fragment_t *session = &update->session;
    const uint16_t number = index_and_number & NORIA_FRAGMENT_INDEX_LIMIT;
    const uint8_t missing = session->missing;
    const bool complete = noria_fragment_add(session, number, data);
    if (session->missing < missing) {
        noria_staging_add(&update->staging, session, number, data);
    }
    if (complete) {
        update->waiting = true;
        update->last_poll = true;
    }
}

// Bytes of a request after its command, of which `left` are there; 0xFFFF for an unknown one. A
// setup of version 2 is known by its length, as the last command of its downlink.
static size_t request_size(const noria_update_t *update, uint8_t command, size_t left) {
    switch (command) {
    case NORIA_TS004_COMMAND_PACKAGE_VERSION:
        return 0;
    case NORIA_TS004_COMMAND_SESSION_STATUS:
    case NORIA_TS004_COMMAND_SESSION_DELETE:
    case NORIA_TS004_COMMAND_BLOCK_RECEIVED:
        return 1;
    case NORIA_TS004_COMMAND_SESSION_SETUP:
        return left == SETUP_SIZE_2 ? SETUP_SIZE_2 : SETUP_SIZE_1;
    case NORIA_TS004_COMMAND_DATA_FRAGMENT:
        return update->session.count == 0 ? 0xFFFF : 2u + update->session.size;
    default:
        return 0xFFFF;
    }
}

static uint8_t *carry_out(noria_update_t *update, uint8_t command, const uint8_t *request,
                          size_t length, uint8_t *out) {
    noria_fragment_t *session = &update->session;
    switch (command) {
    case NORIA_TS004_COMMAND_PACKAGE_VERSION:
        out = noria_put_u8(noria_put_u8(out, command), NORIA_TS004_PACKAGE_IDENTIFIER);
        return noria_put_u8(out, NORIA_TS004_PACKAGE_VERSION);
    case NORIA_TS004_COMMAND_SESSION_STATUS:
        return (request[0] >> 1 & 3) == 0 && session->count != 0
                   ? put_status(session, out)
                   : noria_put_u8(noria_put_u8(out, command), NO_SESSION);
    case NORIA_TS004_COMMAND_SESSION_SETUP:
        out = noria_put_u8(out, command);
        return noria_put_u8(out,
                            (uint8_t)((request[0] >> 4 & 3) << 6 | setup(update, request, length)));
    case NORIA_TS004_COMMAND_SESSION_DELETE: {
        uint8_t index = request[0] & 3;
        bool existed = index == 0 && session->count != 0;
        if (existed && !update->waiting) {
            session->count = 0;
            noria_staging_end(&update->staging);
        }
        return noria_put_u8(noria_put_u8(out, command), (uint8_t)(index | (existed ? 0 : 4)));
    }
    case NORIA_TS004_COMMAND_BLOCK_RECEIVED: // of no account: a node does not ask
        return out;
    default:
        take_fragment(update, noria_get_u16(request), request + 2);
        return out;
    }
}

size_t noria_update_downlink(noria_update_t *update, const uint8_t *payload, size_t length,
                             uint8_t reply[NORIA_UPDATE_REPLY_SIZE]) {
    const size_t longest_answer = 5;
    uint8_t *out = reply;
    while (length > 0 && (size_t)(out - reply) + longest_answer <= NORIA_UPDATE_REPLY_SIZE) {
        size_t size = request_size(update, payload[0], length - 1);
        if (length < 1 + size) {
            break; // unknown or truncated: where the next command begins cannot be known
        }
        out = carry_out(update, payload[0], payload + 1, size, out);
        payload += 1 + size;
        length -= 1 + size;
    }
    return (size_t)(out - reply);
}

void noria_update_container(noria_update_t *update, const uint8_t *payload, size_t length) {
    noria_fragment_t *session = &update->session;
    const uint8_t kind = length > 0 ? payload[0] & 15u : 0;
    if (length < NORIA_PERSONAL_HEADER_SIZE || length > NORIA_FRAGMENT_SIZE_LIMIT ||
        update->waiting) {
        return;
    }
    const uint32_t version = kind == NORIA_CONTAINER_KIND_PERSONAL
                                 ? noria_get_u16(payload + NORIA_PERSONAL_VERSION_OFFSET)
                                 : noria_get_u32(payload + NORIA_CONTAINER_VERSION_OFFSET);
    // A change of keys leaves the slots as they are.
    if (update->boot.probation && kind != NORIA_CONTAINER_KIND_KEYS) {
        report(update, NORIA_EVENT_CODE_UPDATE_REFUSED, NORIA_REFUSAL_BUSY, version);
        return;
    }
    (void)noria_fragment_setup(session, 1, (uint8_t)length, 0, version, NORIA_FRAGMENT_FORM_1);
    noria_staging_begin(&update->staging, session);
    update->waiting = noria_fragment_add(session, 1, payload);
    noria_staging_add(&update->staging, session, 1, payload);
    update->last_poll = false;
}

bool noria_update_active(const noria_update_t *update) {
    return noria_fragment_incomplete(&update->session);
}

size_t noria_update_status(noria_update_t *update, uint8_t reply[NORIA_UPDATE_REPLY_SIZE]) {
    bool asking = noria_update_active(update) && update->silent_polls < NORIA_POLL_LIMIT;
    if (!asking && !update->last_poll) {
        return 0;
    }
    if (asking) {
        update->silent_polls++;
    }
    update->last_poll = false;
    return (size_t)(put_status(&update->session, reply) - reply);
}

/// Installing ///

static noria_refusal_t install(noria_update_t *update, const noria_release_t *release,
                               uint32_t now_s) {
    noria_boot_t next = update->boot;
    uint8_t target = next.active == 0 ? 1 : 0;
    // What the slot held is gone from the first erase on; no record may promise it any longer.
    if (next.version[target] != 0) {
        next.version[target] = 0;
        if (!record(update, &next)) {
            return NORIA_REFUSAL_FLASH;
        }
    }
    if (!write_slot(target, update->image) || !slot_holds(target, release->model_id)) {
        return NORIA_REFUSAL_FLASH;
    }
    next.version[target] = release->version;
    next.model_id[target] = release->model_id;
    next.highest_version = release->version;
    next.active = target;
    next.probation = 1;
    next.boots = 0;
    next.activated_s = now_s;
    return record(update, &next) ? NORIA_REFUSAL_NONE : NORIA_REFUSAL_FLASH;
}

static const uint8_t *trusted_keys(const noria_update_t *update) {
    return update->boot.keys_version == 0 ? update->settings->public_key : update->boot.keys;
}

static noria_refusal_t change_keys(noria_update_t *update, const noria_release_t *release) {
    noria_boot_t next = update->boot;
    memcpy(next.keys, trusted_keys(update), sizeof next.keys);
    memcpy(next.keys + release->key_place * NORIA_PUBLIC_KEY_SIZE, release->key,
           NORIA_PUBLIC_KEY_SIZE);
    next.keys_version = release->version;
    if (release->key_place == NORIA_RELEASE_KEY) {
        // What the old key signed opens no longer, so its last version need not bind the new one:
        // a thief could have used up all versions.
        next.highest_version = noria_update_version(update);
    }
    return record(update, &next) ? NORIA_REFUSAL_NONE : NORIA_REFUSAL_FLASH;
}

static noria_refusal_t open_block(noria_update_t *update, noria_release_t *release,
                                  uint32_t now_s) {
    if (!noria_staging_open(&update->staging)) {
        return NORIA_REFUSAL_FLASH;
    }
    const noria_trust_t trust = {
        .public_keys = trusted_keys(update),
        .update_key = update->settings->update_key,
        .dev_eui = update->settings->dev_eui,
        .running = noria_update_model(update),
        .highest_version = update->boot.highest_version,
        .keys_version = update->boot.keys_version,
        .board = update->settings->board,
    };
    const noria_refusal_t refusal =
        noria_container_open(update->session.block, noria_fragment_length(&update->session), &trust,
                             update->image, release);
    if (refusal != NORIA_REFUSAL_NONE) {
        return refusal;
    }
    return release->key != NULL ? change_keys(update, release) : install(update, release, now_s);
}

bool noria_update_poll(noria_update_t *update, uint32_t now_s) {
    if (!update->waiting) {
        return false;
    }
    update->waiting = false;
    noria_release_t release = {0};
    const noria_refusal_t refusal = open_block(update, &release, now_s);
    noria_staging_end(&update->staging);
    if (refusal != NORIA_REFUSAL_NONE) {
        report(update, NORIA_EVENT_CODE_UPDATE_REFUSED, (uint8_t)refusal,
               update->session.descriptor);
        return false;
    }
    if (release.key != NULL) {
        report(update, NORIA_EVENT_CODE_KEYS_CHANGED, 0, release.version);
        return false;
    }
    report(update, NORIA_EVENT_CODE_MODEL_ACTIVATED, 0, release.version);
    return true;
}

bool noria_update_on_probation(const noria_update_t *update) { return update->boot.probation != 0; }

const uint8_t *noria_update_predecessor(const noria_update_t *update) {
    const noria_boot_t *boot = &update->boot;
    const unsigned other = boot->active ^ 1u;
    const bool is_there = boot->probation != 0 && boot->active != NORIA_SLOT_NONE &&
                          boot->version[other] != 0 && slot_holds(other, boot->model_id[other]);
    return is_there ? slot(other) : NULL;
}

// By more than chance makes of so many windows.
static bool is_worse(uint32_t energy, uint32_t than, uint16_t windows) {
    if (windows < NORIA_PROBATION_ALARM) {
        return false;
    }
    return energy > than + (windows < NORIA_PROBATION_WINDOWS ? than / 4 : than / 8);
}

bool noria_update_probation(noria_update_t *update, uint32_t model_energy, uint32_t baseline_energy,
                            uint32_t rival_energy, uint16_t windows, uint32_t now_s) {
    if (!update->boot.probation) {
        return false;
    }
    const int32_t longest_s = NORIA_PROBATION_DAYS * 86400;
    const int32_t elapsed_s = (int32_t)(now_s - update->boot.activated_s);
    if (is_worse(model_energy, baseline_energy, windows) ||
        is_worse(model_energy, rival_energy, windows)) {
        return roll_back(update, NORIA_REFUSAL_NONE);
    }
    bool decided = windows >= NORIA_PROBATION_WINDOWS;
    if (!decided && elapsed_s < 0) { // the clock was set back: its days begin anew
        noria_boot_t again = update->boot;
        again.activated_s = now_s;
        record(update, &again);
    }
    if (!decided && elapsed_s < longest_s) {
        return false;
    }
    noria_boot_t next = update->boot;
    next.probation = 0;
    next.boots = 0;
    if (record(update, &next)) {
        report(update, NORIA_EVENT_CODE_MODEL_CONFIRMED, 0, noria_update_version(update));
    }
    return false;
}
