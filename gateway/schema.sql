-- The gateway's store: SQLite, WAL, synchronous=FULL. Others (dashboard, Flower ClientApp) open it
-- read-only; the tables they may insert into are `commands` and, for the ClientApp, `disclosures`.
--
-- Times are Unix seconds UTC (`_s`). Units are in the names: `_e1` is 0.1, `_e4` is 0.0001 and so on;
-- a NULL measurement means the sensor is broken or absent. `dev_eui` is 16 lower-case hex digits.
-- A "day" runs dawn to dawn, 06:00 to 06:00 local time, and is named by the second it starts.
-- Everything one message causes is written in one transaction, its outgoing messages (`outbox`) included.

-- One row per fact about the store itself: schema, site, clock_s, utc_offset_min, minimum_contributors,
-- minimum_windows, privacy (JSON of the configuration's table), busy, answered, status; supernode (JSON: standing, words, since_s, see gateway/membership.py) and
-- supernode_key (fingerprint of the key the server last let in).
CREATE TABLE IF NOT EXISTS meta (
    key   TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- The allow-list, copied from the configuration at each start, and what each node last reported of itself.
CREATE TABLE IF NOT EXISTS devices (
    dev_eui       TEXT PRIMARY KEY,
    name          TEXT NOT NULL,              -- the field's name
    crop          TEXT NOT NULL,              -- codes.Crop in lower case: 'maize'
    board         TEXT NOT NULL,              -- codes.Board in lower case: 'stm32l072'
    area_ha       REAL NOT NULL,
    listed        INTEGER NOT NULL DEFAULT 1, -- 0: no longer in the configuration; its data stay
    network_id    TEXT,                       -- the network server's own device id where it is not the devEUI
    first_seen_s  INTEGER,
    last_seen_s   INTEGER,                    -- reception of the newest uplink
    data_rate     INTEGER,                    -- EU868 DR of the newest uplink, 0..5
    rssi_dbm      REAL,
    snr_db        REAL,
    frames        INTEGER NOT NULL DEFAULT 0, -- uplinks committed, duplicates not counted
    frames_missed INTEGER NOT NULL DEFAULT 0, -- gaps in the frame counter
    f_cnt         INTEGER,                    -- newest frame counter
    battery_mv    INTEGER,
    mode          INTEGER,                    -- codes.Mode
    faults        INTEGER,                    -- frames: sensor fault bits, 0 = healthy
    model_version INTEGER,
    backbone_id   INTEGER,
    probation     INTEGER NOT NULL DEFAULT 0, -- 1: its running model may still be rolled back; no update until then
    reported_s    INTEGER,                    -- time of the newest telemetry
    package       INTEGER,                    -- TS004 version the node said it speaks; NULL: it never said
    package_asked INTEGER NOT NULL DEFAULT 0  -- 1: it has been asked since it started
) STRICT, WITHOUT ROWID;

-- Uplinks already committed, by the network server's deduplication id (or a digest where it gives none).
-- The frame counter is not the key: it starts again after a rejoin. Pruned after `retention_days`.
CREATE TABLE IF NOT EXISTS uplinks (
    uplink_id   TEXT PRIMARY KEY,
    dev_eui     TEXT NOT NULL,
    received_s  INTEGER NOT NULL,
    f_port      INTEGER NOT NULL,
    f_cnt       INTEGER NOT NULL,
    data_rate   INTEGER,
    size_bytes  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS uplinks_by_time ON uplinks (received_s);

-- fPort 10, one row per report.
CREATE TABLE IF NOT EXISTS telemetry (
    dev_eui            TEXT NOT NULL,
    time_s             INTEGER NOT NULL,      -- the node's clock
    received_s         INTEGER NOT NULL,
    mode               INTEGER NOT NULL,      -- codes.Mode
    valve_open         INTEGER NOT NULL,
    faults             INTEGER NOT NULL,
    updating           INTEGER NOT NULL,      -- an update session is open on the node
    anchored           INTEGER NOT NULL,      -- the drained upper limit is known
    battery_mv         INTEGER NOT NULL,
    vwc_shallow_e4     INTEGER,               -- 1e-4 m3/m3 at 0.15 m
    vwc_deep_e4        INTEGER,               -- 1e-4 m3/m3 at 0.35 m
    soil_temp_c100     INTEGER,
    air_temp_c100      INTEGER,
    depletion_e1_mm    INTEGER NOT NULL,      -- FAO-56 Dr
    taw_e1_mm          INTEGER NOT NULL,      -- FAO-56 TAW
    threshold_permille INTEGER NOT NULL,      -- of TAW: waters when depletion passes it
    forecast_24h_e4    INTEGER NOT NULL,      -- expected change of root-zone water content
    water_season_e1_mm INTEGER NOT NULL,      -- given since planting
    last_reason        INTEGER NOT NULL,      -- codes.Reason
    model_version      INTEGER NOT NULL,
    backbone_id        INTEGER NOT NULL,
    board              INTEGER NOT NULL,      -- codes.Board
    PRIMARY KEY (dev_eui, time_s)
) STRICT, WITHOUT ROWID;

-- fPort 12, one row per event.
CREATE TABLE IF NOT EXISTS events (
    dev_eui            TEXT NOT NULL,
    time_s             INTEGER NOT NULL,      -- the node's clock
    code               INTEGER NOT NULL,      -- codes.EventCode
    reason             INTEGER NOT NULL,      -- codes.Reason, or codes.Refusal for UPDATE_REFUSED
    received_s         INTEGER NOT NULL,
    dose_e1_mm         INTEGER NOT NULL,
    depletion_e1_mm    INTEGER NOT NULL,
    taw_e1_mm          INTEGER NOT NULL,
    threshold_permille INTEGER NOT NULL,
    model_version      INTEGER NOT NULL,
    PRIMARY KEY (dev_eui, time_s, code, reason)
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS events_by_time ON events (time_s);

-- Daily roll-up per node, kept in step with telemetry and events.
CREATE TABLE IF NOT EXISTS daily (
    dev_eui             TEXT NOT NULL,
    day_s               INTEGER NOT NULL,     -- 06:00 local, when the day begins
    reports             INTEGER NOT NULL,     -- telemetry rows
    depletion_min_e1_mm INTEGER,
    depletion_max_e1_mm INTEGER,
    taw_e1_mm           INTEGER,              -- of the newest report
    threshold_permille  INTEGER,
    vwc_shallow_e4      INTEGER,
    vwc_deep_e4         INTEGER,
    soil_temp_c100      INTEGER,
    battery_min_mv      INTEGER,
    water_e1_mm         INTEGER NOT NULL,     -- sum of WATERED doses
    doses               INTEGER NOT NULL,
    PRIMARY KEY (dev_eui, day_s)
) STRICT, WITHOUT ROWID;

-- fPort 11: fragments of snapshots not yet complete.
CREATE TABLE IF NOT EXISTS fragments (
    dev_eui     TEXT NOT NULL,
    backbone_id INTEGER NOT NULL,
    season      INTEGER NOT NULL,
    session     INTEGER NOT NULL,
    count       INTEGER NOT NULL,
    position    INTEGER NOT NULL,
    received_s  INTEGER NOT NULL,
    data        BLOB NOT NULL,
    PRIMARY KEY (dev_eui, backbone_id, season, session, count, position)
) STRICT, WITHOUT ROWID;

-- The newest complete cumulative snapshot of each node, backbone and season: what sums are made of.
CREATE TABLE IF NOT EXISTS snapshots (
    dev_eui     TEXT NOT NULL,
    backbone_id INTEGER NOT NULL,
    season      INTEGER NOT NULL,
    session     INTEGER NOT NULL,
    windows     INTEGER NOT NULL,             -- dry-down windows in it, all classes
    received_s  INTEGER NOT NULL,
    payload     BLOB NOT NULL,                -- shared_models.moments.Snapshot.encode()
    PRIMARY KEY (dev_eui, backbone_id, season)
) STRICT, WITHOUT ROWID;

-- What left this farm under masks or with noise, written before it leaves (exact sums in the clear leave no row).
-- Rows are never deleted: a spent budget stays spent, and who was in which total decides who may be in the next.
CREATE TABLE IF NOT EXISTS disclosures (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    time_s      INTEGER NOT NULL,
    backbone_id INTEGER NOT NULL,
    cohort      TEXT,                         -- JSON: sorted names of the sites added up with; NULL without masks
    rho         REAL NOT NULL                 -- zCDP cost; 0 without noise
) STRICT;

-- Campaigns as the server last assigned them to this site.
CREATE TABLE IF NOT EXISTS assignments (
    campaign   INTEGER PRIMARY KEY,
    sequence   INTEGER NOT NULL,
    action     TEXT NOT NULL CHECK (action IN ('run', 'pause', 'abort')),
    version    INTEGER NOT NULL,
    model_id   INTEGER NOT NULL,
    received_s INTEGER NOT NULL,
    keys       INTEGER NOT NULL DEFAULT 0,    -- 1: a change of keys, not a model
    not_before_s INTEGER,                     -- nothing is sent before; NULL = at once
    not_after_s  INTEGER,                     -- nor from then on
    from_hour    INTEGER,                     -- nor outside these hours of the day, UTC; NULL = at all hours
    until_hour   INTEGER                      -- less than from_hour where they span midnight
) STRICT;

CREATE TABLE IF NOT EXISTS artefacts (
    campaign  INTEGER NOT NULL REFERENCES assignments (campaign),
    position  INTEGER NOT NULL,
    kind      TEXT NOT NULL CHECK (kind IN ('full', 'head', 'delta', 'personal', 'keys')),
    base      INTEGER NOT NULL,               -- see shared_models.messages.Artefact
    device    TEXT,                           -- the only node it is for; NULL = any
    container BLOB NOT NULL,
    PRIMARY KEY (campaign, position)
) STRICT, WITHOUT ROWID;

-- One node's update in one campaign: its state, and where its TS004 session stands.
CREATE TABLE IF NOT EXISTS updates (
    campaign       INTEGER NOT NULL REFERENCES assignments (campaign),
    dev_eui        TEXT NOT NULL,
    state          TEXT NOT NULL,             -- codes.UpdateState
    detail         TEXT NOT NULL DEFAULT '',
    downlinks      INTEGER NOT NULL DEFAULT 0,-- downlinks handed to the network server
    changed_s      INTEGER NOT NULL,
    artefact       INTEGER,                   -- artefacts.position; NULL until chosen
    fragment_bytes INTEGER,
    fragments      INTEGER,                   -- uncoded fragments of the container; 0: it goes whole, in one frame
    package        INTEGER,                   -- TS004 version of the session
    arrivals       TEXT,                      -- JSON, see gateway/arrivals.py
    attempts       INTEGER NOT NULL DEFAULT 0,-- setups and whole containers handed over
    opened_s       INTEGER NOT NULL DEFAULT 0,-- since when the node shall have it
    sent_s         INTEGER,                   -- when the newest of its downlinks went out; NULL while it has not
    asked_f_cnt    INTEGER,                   -- frame counter of the uplink that one answered
    held_s         INTEGER,                   -- when it last had to wait for airtime; NULL once it was served
    activated_s    INTEGER,
    missing        INTEGER,                   -- the node's last FragSessionStatusAns
    session        TEXT NOT NULL DEFAULT 'closed'
        CHECK (session IN ('closed', 'setup', 'open', 'complete', 'delete')),
    PRIMARY KEY (campaign, dev_eui)
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS updates_by_device ON updates (dev_eui);

-- The one downlink per node that may be in the network server's queue.
CREATE TABLE IF NOT EXISTS in_flight (
    dev_eui     TEXT PRIMARY KEY,
    downlink_id TEXT NOT NULL,
    queued_s    INTEGER NOT NULL,
    uplinks     INTEGER NOT NULL DEFAULT 0,   -- heard since without word of its transmission
    command     INTEGER,                      -- commands.id where it carries one
    campaign    INTEGER,                      -- updates.campaign where it carries a step of an update
    airtime_s   REAL NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;

-- Downlinks of the last hour.
CREATE TABLE IF NOT EXISTS airtime (
    sent_s    INTEGER NOT NULL,
    airtime_s REAL NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS airtime_by_time ON airtime (sent_s);

-- What a farmer asked for. Others insert (created_s, actor, action, arguments); the gateway does the rest.
--   override.stop   {"dev_eui": "…", "until_s": 1750000000}
--   override.water  {"dev_eui": "…", "dose_mm": 12.0}
--   override.resume {"dev_eui": "…"}
--   settings.change {"dev_eui": "…", "settings": {"dose_e1_mm": 150, …}}   names: settings.Setting in lower case
-- state: new → waiting (for the node's next uplink) → queued (at the network server) → sent (transmitted) → done (the node said it applied it),
-- or refused (result says why), or failed (sent several times, never confirmed).
CREATE TABLE IF NOT EXISTS commands (
    id        INTEGER PRIMARY KEY AUTOINCREMENT,
    created_s INTEGER NOT NULL,
    actor     TEXT NOT NULL,
    action    TEXT NOT NULL,
    arguments TEXT NOT NULL DEFAULT '{}',
    state     TEXT NOT NULL DEFAULT 'new',
    result    TEXT NOT NULL DEFAULT '',
    dev_eui   TEXT,
    attempts  INTEGER NOT NULL DEFAULT 0,
    changed_s INTEGER
) STRICT;
CREATE INDEX IF NOT EXISTS commands_by_state ON commands (state);

-- Messages to publish after commit, until the broker has acknowledged them. Publishing one twice
-- is harmless: downlinks carry ids the network server knows, the others state facts.
CREATE TABLE IF NOT EXISTS outbox (
    id       INTEGER PRIMARY KEY AUTOINCREMENT,
    broker   TEXT NOT NULL CHECK (broker IN ('network', 'server')),
    topic    TEXT NOT NULL,
    payload  BLOB NOT NULL,
    retain   INTEGER NOT NULL DEFAULT 0
) STRICT;

-- Messages acknowledged so lately that the broker may not have saved them: it acknowledges first. When the
-- connection breaks they go back into the outbox under their old ids, so that their order stays.
CREATE TABLE IF NOT EXISTS published (
    id          INTEGER PRIMARY KEY,
    broker      TEXT NOT NULL,
    topic       TEXT NOT NULL,
    payload     BLOB NOT NULL,
    retain      INTEGER NOT NULL,
    published_s REAL NOT NULL                 -- real time, whatever the gateway's clock
) STRICT;

-- What was taken, refused and sent, by name: 'uplinks', 'duplicates', 'downlinks', 'refused.<reason>' …
CREATE TABLE IF NOT EXISTS counters (
    name  TEXT PRIMARY KEY,
    value INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
