#include "timekeeper.h"

#include "fixed.h"

#define STATE_LOST 1u
#define STATE_MEASURED 2u

#define HOUR_S 3600u
#define YEAR_S 31557600u
#define BEFORE_PLANTING_S YEAR_S
#define AFTER_PLANTING_S (20u * YEAR_S)

// A little less than the days meant, so that a question that rides on daily telemetry is not put
// off by another day.
#define ASK_AGAIN_S (20u * HOUR_S)
#define ASK_ANEW_S (6u * 24u * HOUR_S + 12u * HOUR_S)

#define SECOND_OPINION_S (12u * HOUR_S)
#define SAME_OPINION_S 120 // two doubted answers agree: drift of a month without trim

#define LEAST_SPAN_S (2u * 24u * HOUR_S) // resolves 6 ppm; shorter ones say nothing about drift
#define LARGEST_DRIFT_PPM 250            // no crystal is worse; -0.035 ppm/K^2 at -40 C is -150
#define LARGEST_TRIM_Q4 (300 * 16)
#define LEFT_STANDING_S 1 // within the resolution of both clocks

int32_t noria_timekeeper_boot(noria_timekeeper_t *keeper, bool clock_ran) {
    if (!clock_ran) {
        keeper->state |= STATE_LOST;
        keeper->asked_s = 0;
        keeper->believed_s = 0;
        keeper->suspected_s = 0;
    }
    return (keeper->trim_q4 + 8) >> 4;
}

bool noria_timekeeper_trusts(const noria_timekeeper_t *keeper) {
    return (keeper->state & STATE_LOST) == 0u;
}

bool noria_timekeeper_due(const noria_timekeeper_t *keeper, uint32_t rtc_s) {
    // A clock that was set back counts as due: the differences wrap.
    if (keeper->asked_s != 0 && rtc_s - keeper->asked_s < ASK_AGAIN_S) {
        return false;
    }
    return !noria_timekeeper_trusts(keeper) || keeper->believed_s == 0 ||
           keeper->suspected_s != 0 || rtc_s - keeper->believed_s >= ASK_ANEW_S;
}

static bool is_plausible(const noria_settings_t *settings, uint32_t time_s) {
    const uint32_t planting_s = settings->planting_time_s;
    const uint32_t first_s = planting_s > BEFORE_PLANTING_S ? planting_s - BEFORE_PLANTING_S : 1u;
    return time_s >= first_s && time_s - first_s < BEFORE_PLANTING_S + AFTER_PLANTING_S;
}

// What `difference_s` since the last believed answer says about the crystal.
static void learn_drift(noria_timekeeper_t *keeper, uint32_t rtc_s, int32_t difference_s) {
    if (keeper->believed_s == 0 || rtc_s <= keeper->believed_s) {
        return;
    }
    const uint32_t span_s = rtc_s - keeper->believed_s;
    const int32_t gained_s = difference_s - keeper->left_s;
    const int32_t bound_s = (int32_t)(span_s / (1000000 / LARGEST_DRIFT_PPM));
    if (span_s < LEAST_SPAN_S || gained_s > bound_s || gained_s < -bound_s) {
        return;
    }
    // At most an hour and a second: 32 bits hold it.
    int32_t drift_q4 = gained_s * 500000 / (int32_t)(span_s / 32u);
    if ((keeper->state & STATE_MEASURED) != 0u) {
        drift_q4 /= 2;
    }
    keeper->state |= STATE_MEASURED;
    keeper->trim_q4 =
        (int16_t)noria_clamp(keeper->trim_q4 + drift_q4, -LARGEST_TRIM_Q4, LARGEST_TRIM_Q4);
}

// A trusted clock against a network that says something else: true once it has said so twice.
static bool is_confirmed(noria_timekeeper_t *keeper, uint32_t rtc_s, int32_t difference_s) {
    const int32_t change_s = (int32_t)((uint32_t)difference_s - (uint32_t)keeper->suspicion_s);
    if (keeper->suspected_s != 0 && change_s <= SAME_OPINION_S && change_s >= -SAME_OPINION_S) {
        return rtc_s - keeper->suspected_s >= SECOND_OPINION_S;
    }
    keeper->suspected_s = rtc_s;
    keeper->suspicion_s = difference_s;
    return false;
}

noria_clock_correction_t noria_timekeeper_sync(noria_timekeeper_t *keeper,
                                               const noria_settings_t *settings, uint32_t rtc_s,
                                               uint32_t network_s) {
    noria_clock_correction_t correction = {.trim_ppm = (keeper->trim_q4 + 8) >> 4};
    keeper->asked_s = rtc_s;
    if (!is_plausible(settings, network_s)) {
        return correction;
    }
    const int32_t difference_s = (int32_t)(network_s - rtc_s);
    const bool near = difference_s <= (int32_t)HOUR_S && difference_s >= -(int32_t)HOUR_S;
    if (!near && noria_timekeeper_trusts(keeper) && !is_confirmed(keeper, rtc_s, difference_s)) {
        return correction;
    }
    if (near) {
        learn_drift(keeper, rtc_s, difference_s);
    }
    const bool stands = difference_s <= LEFT_STANDING_S && difference_s >= -LEFT_STANDING_S;
    keeper->left_s = (int8_t)(stands ? difference_s : 0);
    keeper->believed_s = stands ? rtc_s : network_s;
    keeper->asked_s = keeper->believed_s;
    keeper->suspected_s = 0;
    keeper->state &= (uint8_t)~STATE_LOST;
    correction.step_s = stands ? 0 : difference_s;
    correction.trim_ppm = (keeper->trim_q4 + 8) >> 4;
    correction.believed = true;
    return correction;
}
