/// From fragments to a confirmed model, and back when it does not prove itself.
///
/// The boot record says which slot runs and what each slot holds; it is the only thing that
/// decides. An update is written to the other slot, verified there, and activated by one new boot
/// record. At boot a slot counts only if its bytes have the identity its record names and its
/// self-test agrees: whatever a power loss left, the node runs a complete verified model or none
/// (invariant I1).
#ifndef NORIA_UPDATE_H
#define NORIA_UPDATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "fragment.h"
#include "noria_shared.h"
#include "staging.h"

#define NORIA_UPDATE_EVENTS 4
#define NORIA_UPDATE_REPLY_SIZE 16 // holds every reply and poll
#define NORIA_PROBATION_BOOTS 8    // resets on probation after which a model is given up
#define NORIA_PROBATION_WINDOWS 8  // dry-downs that decide
#define NORIA_PROBATION_ALARM 3    // dry-downs that decide against a model far worse
#define NORIA_PROBATION_DAYS 28    // without so many by then, nothing speaks against it

#define NORIA_SLOT_NONE 2u

/// The payload of a boot record.
typedef struct {
    uint32_t highest_version; // that ever ran; only newer ones are taken
    uint32_t version[2];      // per slot
    uint32_t model_id[2];
    uint32_t activated_s;  // Unix seconds
    uint32_t keys_version; // of the last change of keys; 0 = the settings page's are trusted
    uint8_t keys[NORIA_PUBLIC_KEY_COUNT * NORIA_PUBLIC_KEY_SIZE];
    uint8_t active;    // slot, or NORIA_SLOT_NONE
    uint8_t probation; // 1: the active model has not proved itself
    uint8_t boots;     // resets since activation
    uint8_t reserved;  // zero
} noria_boot_t;

typedef struct {
    uint8_t code;    // MODEL_ACTIVATED, _CONFIRMED, _ROLLED_BACK, UPDATE_REFUSED or KEYS_CHANGED
    uint8_t refusal; // noria_refusal_t
    uint32_t model_version;
} noria_update_event_t;

typedef struct {
    const noria_settings_t *settings;
    noria_boot_t boot;
    noria_fragment_t session;
    noria_staging_t staging;                      // the session in flash
    _Alignas(4) uint8_t image[NORIA_MODEL_BYTES]; // workspace of an opening
    uint8_t silent_polls;                         // since the last fragment
    bool waiting;                                 // a complete block has not been opened yet
    bool last_poll;                               // say once more that nothing is missing
    noria_update_event_t events[NORIA_UPDATE_EVENTS];
    uint8_t event_count;
} noria_update_t;

/// Picks the model at reset and takes up the session that was under way. `settings` must outlive
/// `update`. An empty boot log takes a valid image in slot A as factory model 1.
void noria_update_boot(noria_update_t *update, const noria_settings_t *settings);

/// The running model, in place, or NULL: then the rule without ML decides.
const uint8_t *noria_update_model(const noria_update_t *update);

/// Its version and backbone, 0 without a model.
uint32_t noria_update_version(const noria_update_t *update);
uint32_t noria_update_backbone(const noria_update_t *update);

/// Carries out a payload of fPort 201; the answers' length, 0 for none.
size_t noria_update_downlink(noria_update_t *update, const uint8_t *payload, size_t length,
                             uint8_t reply[NORIA_UPDATE_REPLY_SIZE]);

/// Takes a payload of fPort 14: a whole container, in place of the session that may be under way.
void noria_update_container(noria_update_t *update, const uint8_t *payload, size_t length);

/// Whether a session waits for fragments, for telemetry.
bool noria_update_active(const noria_update_t *update);

/// The unsolicited status for this wake; 0 when there is nothing to ask for.
size_t noria_update_status(noria_update_t *update, uint8_t reply[NORIA_UPDATE_REPLY_SIZE]);

/// Opens and installs a complete block; call after the radio is done. True: the model changed.
bool noria_update_poll(noria_update_t *update, uint32_t now_s);

/// Whether the running model is on probation.
bool noria_update_on_probation(const noria_update_t *update);

/// The model that the one on probation took the place of; NULL when there is none, or no probation.
const uint8_t *noria_update_predecessor(const noria_update_t *update);

/// Judges the running model by its own finished dry-downs: the sums of squared errors of model,
/// baseline and the model before over `windows`. Confirms a model that is no more than an eighth
/// worse than either, returns to the one before otherwise, and sooner from one that is a quarter
/// worse. Call once a day. True: the model
/// changed.
bool noria_update_probation(noria_update_t *update, uint32_t model_energy, uint32_t baseline_energy,
                            uint32_t rival_energy, uint16_t windows, uint32_t now_s);

/// Takes the oldest event; false when there is none.
bool noria_update_next_event(noria_update_t *update, noria_update_event_t *event);

#endif
