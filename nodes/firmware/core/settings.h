/// The settings in force: the provisioned page, and above it the changes that came down.
///
/// Changes are a log of their own in flash; its records belong to one page (to its CRC-32), so a
/// node that is provisioned anew forgets them. Page and changes are held to the same ranges, and
/// what fails them is not used, whoever wrote it.
#ifndef NORIA_SETTINGS_H
#define NORIA_SETTINGS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "noria_shared.h"

/// Reads page and changes; NULL: there is no page that a node may live by. The address is the same
/// every time, and what stands there follows each change.
const noria_settings_t *noria_settings_load(void);

/// Carries out a change from fPort 13, all or nothing, after noria_settings_load gave settings.
/// False: not a change, out of range, no sense as a whole, or the flash refused to keep it; then
/// nothing has changed.
bool noria_settings_change(const uint8_t *payload, size_t length);

#endif
