-- The server's store (SQLite, WAL). The dashboard reads it read-only; the only table others write to is
-- `commands`, and only by INSERT. Times are Unix seconds UTC by the server's clock (system or simulated).
-- JSON columns hold objects with sorted keys. Enumerated texts are those of shared_models.codes.

PRAGMA user_version = 3;

-- Small facts about the store itself: clock_s (the simulated clock's last tick), heartbeat_s (system time of
-- the running server's last sign of life, 0 after a clean stop), started_s, superlink ("up" or "down"), broker
-- (the same), and what server/scheduler.py writes down: rounds_due_s (when the next round is due), rounds_failures
-- (scheduled rounds that failed in a row), rounds_command (the `commands` row of the one in progress, or empty),
-- rounds_wait_for (why a round that is due has not begun, in words), audit_head (id and hash of the newest audit row).
CREATE TABLE meta (
    key   TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- Messages refused, replies rejected, reconnections …: one row per kind, only ever growing.
CREATE TABLE counters (
    name  TEXT PRIMARY KEY,
    value INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

---- The fleet, as its gateways report it ----

CREATE TABLE sites (
    site          TEXT PRIMARY KEY,
    last_status_s INTEGER NOT NULL,
    counters      TEXT NOT NULL           -- JSON: the gateway's own counters, e.g. {"refused_frames": 3}
) STRICT, WITHOUT ROWID;

CREATE TABLE nodes (
    dev_eui       TEXT PRIMARY KEY,
    site          TEXT NOT NULL REFERENCES sites (site),
    board         INTEGER NOT NULL,        -- codes.Board
    model_version INTEGER NOT NULL,        -- as the node itself last said
    backbone_id   INTEGER NOT NULL,
    battery_mv    INTEGER NOT NULL,
    last_seen_s   INTEGER NOT NULL,
    healthy       INTEGER NOT NULL,        -- 0 or 1
    data_rate     INTEGER                  -- EU868, of its newest uplink; NULL where no network server said
) STRICT, WITHOUT ROWID;
CREATE INDEX nodes_by_site ON nodes (site);

-- How much each site could bring to a round, by its newest heartbeat; its word, until a round has its sums.
CREATE TABLE knowledge (
    site         TEXT NOT NULL REFERENCES sites (site),
    backbone_id  INTEGER NOT NULL,
    contributors INTEGER NOT NULL,         -- nodes with at least one dry-down window
    windows      INTEGER NOT NULL,         -- of all classes
    PRIMARY KEY (site, backbone_id)
) STRICT, WITHOUT ROWID;

---- Releases: immutable, content-addressed ----

CREATE TABLE releases (
    version      INTEGER PRIMARY KEY,      -- 1 is the factory model
    created_s    INTEGER NOT NULL,
    -- 'farms' and 'keys' are no models for the fleet: their model is the base's, and "latest" passes them over.
    origin       TEXT NOT NULL CHECK (origin IN ('factory', 'federation', 'refresh', 'farms', 'keys')),
    base_version INTEGER REFERENCES releases (version),  -- NULL for the factory model
    round        INTEGER REFERENCES rounds (id),         -- whose sums it came from; NULL for the factory model
    model_id     INTEGER NOT NULL,
    backbone_id  INTEGER NOT NULL,
    content_hash TEXT NOT NULL,            -- BLAKE2b-256 of `image`, hex
    image        BLOB NOT NULL,            -- ModelImage.pack()
    key_id       INTEGER NOT NULL,         -- the key that signed the artefacts
    provenance   TEXT NOT NULL,            -- JSON: the factory model's card; of a round its base; of both the code that
                                           -- made it; and per site the figures and a hash of the sums
    evidence     TEXT NOT NULL             -- JSON: what the gate saw, see server/gate.py (Evidence); {} for the factory model
) STRICT;

CREATE UNIQUE INDEX releases_each_model_once ON releases (content_hash) WHERE origin NOT IN ('farms', 'keys');

-- Models for the fleet, and of these the ones that may still be brought to nodes.
CREATE VIEW models AS SELECT * FROM releases WHERE origin NOT IN ('farms', 'keys');
CREATE VIEW models_on_offer AS SELECT * FROM models WHERE version NOT IN (SELECT version FROM withdrawals);

-- Farms' own heads: what a site's nodes run who run this version (server/farm_heads.py).
CREATE TABLE farm_heads (
    version      INTEGER NOT NULL REFERENCES releases (version),
    site         TEXT NOT NULL,
    content_hash TEXT NOT NULL,
    image        BLOB NOT NULL,            -- ModelImage.pack()
    PRIMARY KEY (version, site)
) STRICT, WITHOUT ROWID;

-- The signed containers of a release, as shared_models.messages.Artefact.
CREATE TABLE artefacts (
    version      INTEGER NOT NULL REFERENCES releases (version),
    kind         TEXT NOT NULL CHECK (kind IN ('full', 'head', 'delta', 'personal', 'keys')),
    base         INTEGER NOT NULL,         -- what a node must run: a backbone id (head), a version (delta, personal), 0
    device       TEXT NOT NULL DEFAULT '', -- the only node it is for; '' where any can take it
    content_hash TEXT NOT NULL,            -- BLAKE2b-256 of `container`, hex
    size_bytes   INTEGER NOT NULL,
    container    BLOB NOT NULL,
    PRIMARY KEY (version, kind, base, device)
) STRICT;

-- A release that must not be brought to any more nodes. The release stays as it is; this is a fact about it.
CREATE TABLE withdrawals (
    version     INTEGER PRIMARY KEY REFERENCES releases (version),
    withdrawn_s INTEGER NOT NULL,
    actor       TEXT NOT NULL,
    reason      TEXT NOT NULL CHECK (reason <> '')
) STRICT;

CREATE TRIGGER releases_stay_as_they_are BEFORE UPDATE ON releases
BEGIN SELECT RAISE(ABORT, 'a release is immutable'); END;
CREATE TRIGGER releases_are_kept BEFORE DELETE ON releases
BEGIN SELECT RAISE(ABORT, 'a release is immutable'); END;
CREATE TRIGGER artefacts_stay_as_they_are BEFORE UPDATE ON artefacts
BEGIN SELECT RAISE(ABORT, 'a release is immutable'); END;
CREATE TRIGGER artefacts_are_kept BEFORE DELETE ON artefacts
BEGIN SELECT RAISE(ABORT, 'a release is immutable'); END;
CREATE TRIGGER farm_heads_stay_as_they_are BEFORE UPDATE ON farm_heads
BEGIN SELECT RAISE(ABORT, 'a release is immutable'); END;
CREATE TRIGGER farm_heads_are_kept BEFORE DELETE ON farm_heads
BEGIN SELECT RAISE(ABORT, 'a release is immutable'); END;
CREATE TRIGGER withdrawals_stay_as_they_are BEFORE UPDATE ON withdrawals
BEGIN SELECT RAISE(ABORT, 'a withdrawal is for good'); END;
CREATE TRIGGER withdrawals_are_kept BEFORE DELETE ON withdrawals
BEGIN SELECT RAISE(ABORT, 'a withdrawal is for good'); END;

---- Federated rounds ----

CREATE TABLE rounds (
    id           INTEGER PRIMARY KEY,
    started_s    INTEGER NOT NULL,
    finished_s   INTEGER,                  -- NULL while it runs
    state        TEXT NOT NULL CHECK (state IN ('asking', 'collected', 'released', 'refused', 'failed')),
    backbone_id  INTEGER NOT NULL,
    base_version INTEGER NOT NULL REFERENCES releases (version),  -- the running release it tried to improve
    asked        INTEGER NOT NULL DEFAULT 0,   -- SuperNodes asked
    accepted     INTEGER NOT NULL DEFAULT 0,   -- SuperNodes whose sums were added
    rejected     INTEGER NOT NULL DEFAULT 0,   -- replies refused (see `replies`)
    silent       INTEGER NOT NULL DEFAULT 0,   -- asked, never answered
    contributors INTEGER NOT NULL DEFAULT 0,   -- nodes behind the sums
    windows      INTEGER NOT NULL DEFAULT 0,   -- dry-down windows behind the sums
    duration_ms  INTEGER,                      -- real time from asking to the decision; NULL where a stop came between
    version      INTEGER,                  -- the release it became, if any
    reason       TEXT NOT NULL DEFAULT '',     -- why nothing was released, in words
    evidence     TEXT NOT NULL DEFAULT '{}'    -- JSON: see server/gate.py (Evidence)
) STRICT;

-- What each SuperNode answered.
CREATE TABLE replies (
    round    INTEGER NOT NULL REFERENCES rounds (id),
    node_id  TEXT NOT NULL,                -- Flower's node id
    site     TEXT,                         -- NULL where the reply did not say
    verdict  TEXT NOT NULL CHECK (verdict IN ('accepted', 'rejected', 'silent')),
    reason   TEXT NOT NULL DEFAULT '',
    PRIMARY KEY (round, node_id)
) STRICT, WITHOUT ROWID;

-- Sites that add up under masks, as they last did. A cohort keeps its members: two totals that differ in one site
-- would tell that site's sums.
CREATE TABLE cohorts (
    backbone_id INTEGER NOT NULL,
    cohort      TEXT NOT NULL,
    site        TEXT NOT NULL,
    PRIMARY KEY (backbone_id, cohort, site)
) STRICT, WITHOUT ROWID;

-- The sums of each accepted site: little-endian int64, C order.
CREATE TABLE site_sums (
    round        INTEGER NOT NULL REFERENCES rounds (id),
    site         TEXT NOT NULL,            -- or the name of a cohort, which has a space in it
    contributors INTEGER NOT NULL,
    windows      INTEGER NOT NULL,
    gram         BLOB NOT NULL,            -- (3, 9, 9)
    moment       BLOB NOT NULL,            -- (4, 9)
    energy       BLOB NOT NULL,            -- (4,)
    count        BLOB NOT NULL,            -- (3,)
    members      INTEGER NOT NULL DEFAULT 1,   -- sites behind it
    noise        INTEGER NOT NULL DEFAULT 0,   -- variance of its noise in weighted units; 0 = exact
    PRIMARY KEY (round, site)
) STRICT, WITHOUT ROWID;

---- SuperNodes: which keys may join, where the fleet API is published ----

-- The truth; the running server brings the SuperLink in line with it. A key is never used twice, not even by its site.
CREATE TABLE supernodes (
    fingerprint TEXT PRIMARY KEY,          -- of the public key: SHA256:..., as `ssh-keygen -l` prints it
    site        TEXT NOT NULL,
    public_key  TEXT NOT NULL,             -- EC P-384, OpenSSH, without a comment
    added_s     INTEGER NOT NULL,
    added_by    TEXT NOT NULL,
    revoked_s   INTEGER,                   -- NULL while it may join
    revoked_by  TEXT,
    node_id     TEXT,                      -- Flower's node id; NULL until the SuperLink knows it
    state       TEXT,                      -- Flower's: registered (never seen), online, offline, unregistered; or NULL
    problem     TEXT NOT NULL DEFAULT '',  -- why the SuperLink does not take the key, in words
    checked_s   INTEGER                    -- when node_id, state and problem were true
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX supernodes_one_key_per_site ON supernodes (site) WHERE revoked_s IS NULL;

---- Campaigns ----

CREATE TABLE campaigns (
    id                INTEGER PRIMARY KEY,
    created_s         INTEGER NOT NULL,
    created_by        TEXT NOT NULL,
    approved_s        INTEGER,             -- NULL until somebody approved it
    approved_by       TEXT,
    version           INTEGER NOT NULL REFERENCES releases (version),
    plan              TEXT NOT NULL,       -- JSON: server.campaigns.plan.Plan, with the release's number
    held_back         TEXT NOT NULL,       -- JSON: sites left out because the release would hurt them
    retry_of          INTEGER REFERENCES campaigns (id),
    state             TEXT NOT NULL,       -- codes.CampaignState
    sequence          INTEGER NOT NULL DEFAULT 0,  -- of the newest assignment published
    open_group        INTEGER NOT NULL DEFAULT -1, -- groups 0 … open_group are open; 0 is the canary
    groups            INTEGER NOT NULL,            -- how many there are
    started_s         INTEGER,
    finished_s        INTEGER,
    reason            TEXT NOT NULL DEFAULT ''     -- why it halted, or did not start by itself, in words
) STRICT;

CREATE TABLE campaign_nodes (
    campaign      INTEGER NOT NULL REFERENCES campaigns (id),
    dev_eui       TEXT NOT NULL,
    site          TEXT NOT NULL,
    group_index   INTEGER NOT NULL,
    base_version  INTEGER NOT NULL,        -- what the node ran when the campaign was created
    backbone_id   INTEGER NOT NULL,        -- the same
    was_healthy   INTEGER NOT NULL,        -- the same: only a node that was can become unhealthy by the update
    state         TEXT NOT NULL DEFAULT 'pending',  -- codes.UpdateState
    detail        TEXT NOT NULL DEFAULT '',
    downlinks     INTEGER NOT NULL DEFAULT 0,
    opened_s      INTEGER,                 -- when its group opened
    activated_s   INTEGER,                 -- when it began to run the release
    updated_s     INTEGER,                 -- of the newest progress message
    complaints    INTEGER NOT NULL DEFAULT 0,  -- reports of ill health in a row since it runs the release
    complained_s  INTEGER,                 -- when the node was heard for the newest of them
    ailment       TEXT NOT NULL DEFAULT '',    -- why it counts against the campaign although it did not fail
    PRIMARY KEY (campaign, dev_eui)
) STRICT, WITHOUT ROWID;
CREATE INDEX campaign_nodes_by_site ON campaign_nodes (site, campaign);

-- The newest assignment per campaign and site, until the broker has it (an outbox: published = 1).
CREATE TABLE assignments (
    campaign  INTEGER NOT NULL REFERENCES campaigns (id),
    site      TEXT NOT NULL,
    sequence  INTEGER NOT NULL,
    message   TEXT NOT NULL,               -- shared_models.messages.Assignment as JSON
    published INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (campaign, site)
) STRICT, WITHOUT ROWID;

---- Operators ----

-- Append-only. Each row's hash is BLAKE2b-256 over the hash of the row before and its own content (store.chained), so
-- that a row changed, removed or put in between is found: noria server audit --verify.
CREATE TABLE audit (
    id      INTEGER PRIMARY KEY,           -- 1, 2, 3 … without a gap
    time_s  INTEGER NOT NULL,
    actor   TEXT NOT NULL,                 -- who asked; "server" where the server acted by itself
    action  TEXT NOT NULL,                 -- e.g. campaign.start, campaign.group_opened, release.created
    subject TEXT NOT NULL,                 -- e.g. "campaign 3", "release 2"
    outcome TEXT NOT NULL CHECK (outcome IN ('done', 'refused', 'failed')),
    detail  TEXT NOT NULL DEFAULT '',
    hash    TEXT NOT NULL
) STRICT;
CREATE TRIGGER audit_stays_as_it_is BEFORE UPDATE ON audit
BEGIN SELECT RAISE(ABORT, 'the audit log is only ever added to'); END;
CREATE TRIGGER audit_is_kept BEFORE DELETE ON audit
BEGIN SELECT RAISE(ABORT, 'the audit log is only ever added to'); END;

-- What people ask of the server. INSERT (created_s, actor, action, arguments); the running server carries the
-- rows out in order of id (rounds, refreshes and the making of releases run beside the others) and fills in state,
-- finished_s and result.
--   improve           {}
--   refresh           {}
--   campaign.create   server.campaigns.plan.Plan, e.g. {"release": "latest", "sites": ["champion"], "groups": ["1",
--                     "10%", "100%"]} (all but "release" optional); result {"campaign": 1, ...}
--   campaign.plan     the same; changes nothing, result {"plan": what campaign.create would do, ...}
--   campaign.approve, campaign.start, campaign.pause, campaign.resume, campaign.abort   {"campaign": 1};
--                     result {"campaign": 1, "campaign_state": "running", ...}
--   campaign.retry    {"campaign": 1} or {"campaign": 1, "release": 3}; result as of campaign.create
--   release.withdraw  {"release": 2, "reason": "..."}; result {"version": 2, ...}
--   release.farm_heads {}
--   release.keys       {"place": "release" or "recovery", "new_key": "<64 hex digits>"}, or signed elsewhere
--                      {"container": "<hex>", "signed_by": "<64 hex digits>"}; result of both {"version": 4, ...}
--   supernode.add     {"site": "champion", "public_key": "ecdsa-sha2-nistp384 AAAA..."}
--   supernode.revoke  {"site": "champion"}; result of both {"site": "champion", "fingerprint": "SHA256:...", ...}
-- result is a JSON object with at least "message" (one line for people); improve and refresh add "round" and, where
-- the gate passed, "version".
CREATE TABLE commands (
    id         INTEGER PRIMARY KEY,
    created_s  INTEGER NOT NULL,
    actor      TEXT NOT NULL,
    action     TEXT NOT NULL,
    arguments  TEXT NOT NULL DEFAULT '{}',
    state      TEXT NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'running', 'done', 'refused', 'failed')),
    finished_s INTEGER,
    result     TEXT NOT NULL DEFAULT '{}'
) STRICT;
CREATE INDEX commands_by_state ON commands (state, id);

---- Views for people ----

CREATE VIEW campaign_overview AS
SELECT c.id, c.version, c.state, c.approved_s IS NOT NULL AS approved, c.groups, c.open_group,
       count(n.dev_eui)                                                  AS nodes,
       count(n.dev_eui) FILTER (WHERE n.group_index <= c.open_group)     AS opened,
       count(n.dev_eui) FILTER (WHERE n.state = 'pending')               AS pending,
       count(n.dev_eui) FILTER (WHERE n.state = 'sending')               AS sending,
       count(n.dev_eui) FILTER (WHERE n.state = 'activated')             AS activated,
       count(n.dev_eui) FILTER (WHERE n.state = 'confirmed')             AS confirmed,
       count(n.dev_eui) FILTER (WHERE n.state IN ('rolled_back', 'refused', 'failed')) AS failed,
       count(n.dev_eui) FILTER (WHERE n.ailment <> '')                   AS ailing,
       coalesce(sum(n.downlinks), 0)                                     AS downlinks,
       c.created_by, c.approved_by, c.retry_of, c.created_s, c.started_s, c.finished_s, c.reason,
       -- If every group still to come takes as long as the slowest node so far; NULL until one has confirmed.
       CASE WHEN c.state = 'running' THEN max(n.opened_s) + (c.groups - c.open_group)
            * max(n.updated_s - n.opened_s) FILTER (WHERE n.state = 'confirmed') END AS expected_end_s
FROM campaigns AS c LEFT JOIN campaign_nodes AS n ON n.campaign = c.id
GROUP BY c.id;

CREATE VIEW campaign_groups AS
SELECT campaign, group_index, count(*) AS nodes,
       count(*) FILTER (WHERE state = 'pending')   AS pending,
       count(*) FILTER (WHERE state = 'sending')   AS sending,
       count(*) FILTER (WHERE state = 'activated') AS activated,
       count(*) FILTER (WHERE state = 'confirmed') AS confirmed,
       count(*) FILTER (WHERE state IN ('rolled_back', 'refused', 'failed')) AS failed,
       count(*) FILTER (WHERE ailment <> '')       AS ailing,
       max(opened_s) AS opened_s
FROM campaign_nodes
GROUP BY campaign, group_index;
