/// What a wake brought, turned into frames that wait for the radio.
#ifndef NORIA_REPORT_H
#define NORIA_REPORT_H

#include <stdbool.h>
#include <stdint.h>

#include "core.h"
#include "frames.h"
#include "link.h"
#include "update.h"

/// An event about what the core thinks now; `outcome` NULL before the first wake.
noria_event_t noria_report_event(uint8_t code, const noria_update_t *update,
                                 const noria_outcome_t *outcome, uint32_t now_s);

/// Every event of a wake, and the reports that are due.
void noria_report_wake(noria_link_t *link, noria_update_t *update, const noria_core_t *core,
                       const noria_outcome_t *outcome, const noria_reading_t *reading,
                       bool valve_open);

#endif
