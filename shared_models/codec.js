// Payload codec for ChirpStack v4 device profiles and The Things Stack payload formatters. ES5.
// Bytes as in docs/formats.md. Decodes telemetry (fPort 10) and events (fPort 12); encodes a farmer's
// override or a change of settings (fPort 13). Statistics (11) and fragmentation (201) are for the gateway and pass as they are.

var BOARDS = { 1: "stm32l072", 2: "stm32l432" };
var MODES = ["model", "physics", "balance_only", "commissioning"];
var REASONS = [
  "not_needed", "depleted", "commissioning", "outside_window", "minimum_interval", "daily_cap", "seasonal_cap",
  "season_ending", "sensor_fault", "override_stop", "override_water", "valve_fault", "season_over", "low_battery"
];
var EVENTS = [
  null, "booted", "watered", "sensor_fault", "sensor_recovered", "valve_fault", "anchored", "model_activated",
  "model_confirmed", "model_rolled_back", "update_refused", "settings_applied", "low_battery", "battery_recovered",
  "clock_corrected", "modem_restarted", "storage_fault", "sensors_disagree", "sensors_agree",
  "keys_changed"
];
var RESETS = ["power_on", "pin", "software", "watchdog", "brown_out"];
var REFUSED = [9, 10]; // the events whose detail is a refusal
var REFUSALS = [
  "none", "format", "length", "signature", "target", "version", "base", "decode", "model_id", "self_test", "flash",
  "busy"
];
var FAULTS = [[2, "soil_moisture_shallow"], [4, "soil_moisture_deep"], [8, "soil_temperature"], [16, "air"], [32, "light"]];
var OVERRIDES = { stop: 1, water: 2, resume: 3 };
var SETTINGS_ACTION = 4;
// name: [number, lowest, highest]; units are in the names.
var SETTINGS = {
  planting_time_s: [1, 0, 4294967295], season_days: [2, 1, 400], season: [3, 2000, 2200], crop: [4, 1, 8],
  application_rate_e2_mm_h: [5, 1, 65535], dose_e1_mm: [6, 1, 1000], threshold_permille: [7, 1, 1000],
  awc_prior_permille: [8, 0, 400], min_interval_h: [9, 0, 255], daily_cap_mm: [10, 0, 255],
  seasonal_cap_mm: [11, 0, 65535], window_start_h: [12, 0, 23], window_end_h: [13, 1, 24],
  telemetry_period_h: [14, 1, 255], statistics_period_h: [15, 1, 65535], root_depth_max_cm: [16, 10, 300],
  utc_offset_min: [17, -840, 840]
};

function u16(bytes, at) { return bytes[at] | (bytes[at + 1] << 8); }
function i16(bytes, at) { return (u16(bytes, at) << 16) >> 16; }
function u32(bytes, at) { return u16(bytes, at) + u16(bytes, at + 2) * 65536; }

// A broken or absent sensor is null, never a number.
function sensor(bytes, at, scale) { var raw = i16(bytes, at); return raw === -32768 ? null : raw / scale; }

function decodeTelemetry(bytes) {
  if (bytes.length !== 38 || bytes[0] !== 1) { return { errors: ["telemetry: wrong length or version"] }; }
  if (MODES[bytes[2]] === undefined || BOARDS[bytes[3]] === undefined || REASONS[bytes[36]] === undefined) {
    return { errors: ["telemetry: unknown mode, board or reason"] };
  }
  var flags = bytes[1], warnings = [], i;
  for (i = 0; i < FAULTS.length; i++) {
    if (flags & FAULTS[i][0]) { warnings.push("sensor fault: " + FAULTS[i][1]); }
  }
  return {
    data: {
      time: u32(bytes, 4),
      valve_open: (flags & 1) !== 0,
      update_active: (flags & 64) !== 0,
      anchored: (flags & 128) !== 0,
      mode: MODES[bytes[2]],
      board: BOARDS[bytes[3]],
      battery_v: u16(bytes, 8) / 1000,
      soil_moisture_shallow: sensor(bytes, 10, 10000),
      soil_moisture_deep: sensor(bytes, 12, 10000),
      soil_temperature_c: sensor(bytes, 14, 100),
      air_temperature_c: sensor(bytes, 16, 100),
      depletion_mm: i16(bytes, 18) / 10,
      total_available_water_mm: u16(bytes, 20) / 10,
      threshold: u16(bytes, 22) / 1000,
      forecast_24h: i16(bytes, 24) / 10000,
      water_season_mm: u16(bytes, 26) / 10,
      model_version: u32(bytes, 28),
      backbone_id: u32(bytes, 32),
      last_reason: REASONS[bytes[36]],
      probation: bytes[37] !== 0
    },
    warnings: warnings
  };
}

function decodeEvent(bytes) {
  if (bytes.length !== 20 || bytes[0] !== 1) { return { errors: ["event: wrong length or version"] }; }
  if (!EVENTS[bytes[1]] || REASONS[bytes[2]] === undefined || (REFUSED.indexOf(bytes[1]) >= 0 && REFUSALS[bytes[3]] === undefined) ||
      (bytes[1] === 1 && RESETS[bytes[3]] === undefined)) {
    return { errors: ["event: unknown code, reason or detail"] };
  }
  return {
    data: {
      event: EVENTS[bytes[1]],
      reason: REASONS[bytes[2]],
      refusal: REFUSED.indexOf(bytes[1]) >= 0 ? REFUSALS[bytes[3]] : "none",
      reset: bytes[1] === 1 ? RESETS[bytes[3]] : null,
      time: u32(bytes, 4),
      dose_mm: u16(bytes, 8) / 10,
      depletion_mm: i16(bytes, 10) / 10,
      total_available_water_mm: u16(bytes, 12) / 10,
      threshold: u16(bytes, 14) / 1000,
      model_version: u32(bytes, 16)
    }
  };
}

function decodeUplink(input) {
  if (input.fPort === 10) { return decodeTelemetry(input.bytes); }
  if (input.fPort === 12) { return decodeEvent(input.bytes); }
  if (input.fPort === 11 || input.fPort === 201) { return { data: {} }; }
  return { errors: ["fPort " + input.fPort + ": not one of ours"] };
}

// The Things Stack's common vocabulary.
function normalizeUplink(input) {
  var data = input.data, result = {};
  if (data.battery_v === undefined) { return { data: [] }; }
  result.battery = data.battery_v;
  result.soil = {};
  if (data.soil_moisture_shallow !== null) { result.soil.moisture = data.soil_moisture_shallow * 100; }
  if (data.soil_temperature_c !== null) { result.soil.temperature = data.soil_temperature_c; }
  if (data.air_temperature_c !== null) { result.air = { temperature: data.air_temperature_c }; }
  return { data: [result] };
}

function word(value) { return [value & 255, (value >>> 8) & 255, (value >>> 16) & 255, (value >>> 24) & 255]; }

function encodeSettings(settings) {
  var bytes = [SETTINGS_ACTION], name, limits, value;
  for (name in settings) {
    limits = SETTINGS[name];
    value = settings[name];
    if (limits === undefined) { return { errors: ["settings: no such setting: " + name] }; }
    if (typeof value !== "number" || Math.floor(value) !== value || !(value >= limits[1] && value <= limits[2])) {
      return { errors: ["settings: " + name + " is a whole number within " + limits[1] + ".." + limits[2]] };
    }
    bytes = bytes.concat([limits[0]], word(value));
  }
  if (bytes.length === 1 || bytes.length > 41) { return { errors: ["settings: one downlink carries 1 to 8 changes"] }; }
  return { fPort: 13, bytes: bytes };
}

function decodeSettings(bytes) {
  var settings = {}, at, name, found, value;
  if (bytes.length < 6 || bytes.length > 41 || bytes.length % 5 !== 1) { return { errors: ["settings: wrong length"] }; }
  for (at = 1; at < bytes.length; at += 5) {
    found = null;
    for (name in SETTINGS) { if (SETTINGS[name][0] === bytes[at]) { found = name; } }
    if (found === null || settings[found] !== undefined) { return { errors: ["settings: unknown or named twice"] }; }
    value = SETTINGS[found][1] < 0 ? u32(bytes, at + 1) | 0 : u32(bytes, at + 1);
    if (value < SETTINGS[found][1] || value > SETTINGS[found][2]) { return { errors: ["settings: " + found + " out of range"] }; }
    settings[found] = value;
  }
  return { data: { action: "settings", settings: settings } };
}

// {"action": "stop", "until": Unix seconds} | {"action": "water", "dose_mm": 0.1 to 100} | {"action": "resume"} |
// {"action": "settings", "settings": {name: whole number, ...}}
function encodeDownlink(input) {
  var data = input.data, code = OVERRIDES[data.action], argument = 0;
  if (data.action === "settings") { return encodeSettings(data.settings); }
  if (data.action === "stop") { argument = data.until; }
  if (data.action === "water") { argument = Math.round(data.dose_mm * 10); }
  if (code === undefined || typeof argument !== "number" || !(argument >= 0 && argument <= 4294967295) ||
      Math.floor(argument) !== argument || (data.action === "water" && (argument < 1 || argument > 1000))) {
    return { errors: ["an override is stop until a time, water 0.1 to 100 mm, or resume"] };
  }
  return {
    fPort: 13,
    bytes: [code].concat(word(argument))
  };
}

function decodeDownlink(input) {
  var bytes = input.bytes, argument, action;
  if (input.fPort === 13 && bytes[0] === SETTINGS_ACTION) { return decodeSettings(bytes); }
  if (input.fPort !== 13 || bytes.length !== 5) { return { errors: ["not an override"] }; }
  argument = u32(bytes, 1);
  for (action in OVERRIDES) {
    if (OVERRIDES[action] === bytes[0]) {
      if (action === "stop") { return { data: { action: action, until: argument } }; }
      if (action === "water") { return { data: { action: action, dose_mm: argument / 10 } }; }
      return { data: { action: action } };
    }
  }
  return { errors: ["unknown override"] };
}
