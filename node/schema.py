"""The tables of a replica's database (SPEC 10). `PRAGMA user_version` holds SCHEMA_VERSION."""

SCHEMA_VERSION = 1
APPLICATION_ID = 0x49766F72  # "Ivor"

# An entry's place is its chain's number and its seq in one integer: the key of the row, so that
# a run is a range of the table and appending to a chain needs no second index.
SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;

CREATE TABLE chats (
    no INTEGER PRIMARY KEY,
    id BLOB NOT NULL UNIQUE);

CREATE TABLE chains (
    no INTEGER PRIMARY KEY,
    chat INTEGER NOT NULL REFERENCES chats,
    device BLOB NOT NULL,
    lane INTEGER NOT NULL,
    branch INTEGER NOT NULL,
    parent INTEGER,             -- the branch that this one forks from, NULL for the first
    base INTEGER NOT NULL,      -- seq of its first entry
    length INTEGER NOT NULL,    -- seq of its newest entry, plus one
    head BLOB NOT NULL,
    changed INTEGER NOT NULL,   -- the replica's change counter when the head moved
    UNIQUE (chat, device, lane, branch));
CREATE INDEX chains_changed ON chains (changed);
CREATE INDEX chains_device ON chains (device);

CREATE TABLE entries (
    place INTEGER PRIMARY KEY,  -- chain << 32 | seq
    id BLOB NOT NULL,
    record BLOB NOT NULL,
    signature BLOB,
    since INTEGER);             -- of a payload: milliseconds, the later of its time and arrival

CREATE TABLE controls (         -- control entries in the order of their admission
    no INTEGER PRIMARY KEY,
    chat INTEGER NOT NULL,
    place INTEGER NOT NULL);
CREATE INDEX controls_chat ON controls (chat, no);

CREATE TABLE dropped (          -- content whose payload is not here, and why
    place INTEGER PRIMARY KEY,
    chat INTEGER NOT NULL,
    id BLOB NOT NULL,
    ground BLOB NOT NULL,       -- the redaction, or the setting of retention
    at INTEGER NOT NULL,        -- milliseconds: when it went, or came without
    wanted INTEGER NOT NULL);   -- 1: nothing we know asks us to drop it, so others are asked for it
CREATE INDEX dropped_id ON dropped (id);
CREATE INDEX dropped_wanted ON dropped (chat) WHERE wanted = 1;

CREATE TABLE blobs (            -- each that goes with a content entry whose payload is here
    place INTEGER PRIMARY KEY,
    chat INTEGER NOT NULL,
    id BLOB NOT NULL,           -- of the entry
    agency BLOB NOT NULL,       -- of its author
    root BLOB NOT NULL,
    size INTEGER NOT NULL,      -- of its chunks, sealed
    state INTEGER NOT NULL,     -- blobs.State
    file TEXT,                  -- its name in the folder of blobs, once there is one
    held INTEGER NOT NULL);     -- bytes of it that are here
CREATE INDEX blobs_id ON blobs (id);
CREATE INDEX blobs_state ON blobs (state);
CREATE TRIGGER blob_dropped AFTER INSERT ON dropped BEGIN
    UPDATE blobs SET state = 4 WHERE place = NEW.place;
END;

CREATE TABLE chunks (           -- of blobs: those that are in the file, durably; of 256 KiB each
    blob INTEGER NOT NULL,
    position INTEGER NOT NULL,
    path BLOB NOT NULL,         -- up to the root of the blob
    PRIMARY KEY (blob, position)) WITHOUT ROWID;

CREATE TABLE blob_bytes (       -- of blobs that are here, by whom they count for
    scope INTEGER NOT NULL,     -- blobs.Scope
    whose BLOB NOT NULL,
    held INTEGER NOT NULL,
    PRIMARY KEY (scope, whose)) WITHOUT ROWID;
CREATE VIEW blob_scopes (place, scope, whose) AS
    SELECT place, 0, chat FROM blobs UNION ALL
    SELECT place, 1, device FROM blobs JOIN chains ON no = place >> 32 UNION ALL
    SELECT place, 2, agency FROM blobs UNION ALL
    SELECT place, 3, x'' FROM blobs;
CREATE TRIGGER blob_grew AFTER UPDATE OF held ON blobs BEGIN
    INSERT INTO blob_bytes SELECT scope, whose, NEW.held - OLD.held
        FROM blob_scopes WHERE place = NEW.place
        ON CONFLICT DO UPDATE SET held = held + excluded.held;
END;
CREATE TRIGGER chunk_came AFTER INSERT ON chunks BEGIN
    UPDATE blobs SET held = held + min(262144, size - NEW.position * 262144)
        WHERE place = NEW.blob;
END;
CREATE TRIGGER chunk_went AFTER DELETE ON chunks BEGIN
    UPDATE blobs SET held = held - min(262144, size - OLD.position * 262144)
        WHERE place = OLD.blob;
END;

CREATE TABLE receipts (         -- what other agencies' nodes say that they dropped, as it came
    chat BLOB NOT NULL,
    entry BLOB NOT NULL,
    agency BLOB NOT NULL,
    node BLOB NOT NULL,
    receipt BLOB NOT NULL,
    PRIMARY KEY (chat, entry, agency, node)) WITHOUT ROWID;

CREATE TABLE readers (          -- derived: agencies, and our own devices, that may see a chat
    peer BLOB NOT NULL,
    chat INTEGER NOT NULL,
    PRIMARY KEY (peer, chat)) WITHOUT ROWID;
CREATE INDEX readers_chat ON readers (chat);

CREATE TABLE former (           -- removed readers, who may still see how it came to that
    peer BLOB NOT NULL,
    chat INTEGER NOT NULL,
    departure INTEGER NOT NULL,
    PRIMARY KEY (peer, chat)) WITHOUT ROWID;

CREATE TABLE departures (       -- how long the control chains were where readers were removed
    no INTEGER NOT NULL,
    chain INTEGER NOT NULL,
    length INTEGER NOT NULL,
    changed INTEGER NOT NULL,
    PRIMARY KEY (no, chain)) WITHOUT ROWID;
CREATE INDEX departures_changed ON departures (changed);

CREATE TABLE forks (
    chat INTEGER NOT NULL,
    device BLOB NOT NULL,
    lane INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    proof BLOB NOT NULL,
    PRIMARY KEY (chat, device, lane, seq)) WITHOUT ROWID;

CREATE TABLE seals (
    epoch BLOB NOT NULL,
    position INTEGER NOT NULL,
    seal BLOB NOT NULL,
    path BLOB NOT NULL,
    PRIMARY KEY (epoch, position));

CREATE TABLE sealless (         -- epochs whose seals have yet to come
    epoch BLOB NOT NULL UNIQUE,
    chat INTEGER NOT NULL);

CREATE TABLE holdings (         -- which agency stores how much of which chain
    chat INTEGER NOT NULL,
    device BLOB NOT NULL,
    lane INTEGER NOT NULL,
    agency BLOB NOT NULL,
    length INTEGER NOT NULL,
    PRIMARY KEY (device, chat, lane, agency)) WITHOUT ROWID;

CREATE TABLE cursors (          -- how far we have seen each peer's changes
    peer BLOB PRIMARY KEY,
    incarnation BLOB NOT NULL,
    cursor INTEGER NOT NULL) WITHOUT ROWID;

CREATE TABLE unheard (          -- what a peer listed of a chat that it is not known to be in
    peer BLOB NOT NULL,
    chat INTEGER NOT NULL,
    device BLOB NOT NULL,
    lane INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    prefix BLOB NOT NULL,
    UNIQUE (peer, chat, device, lane, seq, prefix));

CREATE TABLE cards (            -- of agencies that are trusted, or were once
    id BLOB PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    card BLOB NOT NULL,
    taken INTEGER NOT NULL UNIQUE,  -- in this order; or when trust was withdrawn
    trusted INTEGER NOT NULL DEFAULT 1) WITHOUT ROWID;
CREATE VIEW agencies AS SELECT id, name, card FROM cards WHERE trusted = 1;

CREATE TABLE users (
    id BLOB PRIMARY KEY,
    agency BLOB NOT NULL,
    name TEXT NOT NULL UNIQUE,  -- anna@minzdrav
    charter BLOB NOT NULL,
    certificate BLOB NOT NULL,
    listing BLOB,               -- of another agency's: where it stands in the directory there
    verified INTEGER NOT NULL DEFAULT 0) WITHOUT ROWID;

CREATE TABLE devices (
    id BLOB PRIMARY KEY,
    user BLOB NOT NULL,
    certificate BLOB NOT NULL,
    prekey BLOB,
    revoked INTEGER NOT NULL DEFAULT 0,
    enters INTEGER NOT NULL DEFAULT 0) WITHOUT ROWID;  -- may bring itself into its user's chats
CREATE INDEX devices_user ON devices (user);
CREATE INDEX devices_enters ON devices (id) WHERE enters = 1;

CREATE TABLE unmet (            -- agencies that may know a later directory of ours than this one
    agency BLOB PRIMARY KEY) WITHOUT ROWID;

CREATE TABLE directories (      -- directory heads that agencies, or witnesses, showed us
    agency BLOB NOT NULL,
    serial INTEGER NOT NULL,
    id BLOB NOT NULL,
    head BLOB NOT NULL,
    PRIMARY KEY (agency, serial)) WITHOUT ROWID;

CREATE TABLE splits (           -- proofs that an agency showed different directories
    agency BLOB NOT NULL,
    registrar BLOB NOT NULL,
    proof BLOB NOT NULL,
    PRIMARY KEY (agency, registrar)) WITHOUT ROWID;

CREATE TABLE tickets (          -- one-time invitations that this node gave out
    id BLOB PRIMARY KEY,
    purpose INTEGER NOT NULL,
    name TEXT NOT NULL,
    expires INTEGER NOT NULL,
    request BLOB,
    used INTEGER NOT NULL DEFAULT 0) WITHOUT ROWID;

CREATE TABLE signatories (      -- certificates for signing documents that this node issued
    serial BLOB PRIMARY KEY,
    user BLOB NOT NULL,
    device BLOB NOT NULL,
    key BLOB NOT NULL,          -- public, PEM
    certificate BLOB NOT NULL,  -- PEM
    ends INTEGER NOT NULL) WITHOUT ROWID;
CREATE INDEX signatories_user ON signatories (user);

CREATE TABLE parcels (          -- sealed bundles that wait for a device
    no INTEGER PRIMARY KEY,
    device BLOB NOT NULL,
    source BLOB NOT NULL,       -- the agency of a member of a chat, or empty: the same user
    body BLOB NOT NULL);
CREATE INDEX parcels_device ON parcels (device, no);
"""

NEWEST_CHANGE = """
SELECT max(ifnull((SELECT max(changed) FROM chains), 0),
           ifnull((SELECT max(changed) FROM departures), 0))
"""
