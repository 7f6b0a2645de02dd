"""The tables that only a device has; beside those of `node.schema` in its encrypted database."""

DEVICE_SCHEMA = """
CREATE TABLE profile (           -- one row: who we are
    only INTEGER PRIMARY KEY CHECK (only = 0),
    charter BLOB NOT NULL,
    certificate BLOB NOT NULL,
    device BLOB NOT NULL,
    tls BLOB NOT NULL,           -- TLS certificate, PEM
    card BLOB NOT NULL,          -- card of our agency
    archive BLOB NOT NULL);      -- archive certificate of our ML-DSA key

CREATE TABLE changed_identities (  -- what names mean now that meant others here
    name TEXT PRIMARY KEY,
    user BLOB NOT NULL) WITHOUT ROWID;

CREATE TABLE prekeys (
    id BLOB PRIMARY KEY,
    private BLOB NOT NULL,
    record BLOB NOT NULL,
    issued INTEGER NOT NULL,
    published INTEGER NOT NULL DEFAULT 0) WITHOUT ROWID;

CREATE TABLE erased_prekeys (    -- ids of those that we had: what they open is no fault of others
    id BLOB PRIMARY KEY) WITHOUT ROWID;
CREATE TRIGGER prekey_erased AFTER DELETE ON prekeys BEGIN
    INSERT INTO erased_prekeys VALUES (OLD.id) ON CONFLICT DO NOTHING;
END;

CREATE TABLE senders (           -- where each sender's key chain of an epoch stands
    epoch BLOB NOT NULL,
    device BLOB NOT NULL,
    generation INTEGER NOT NULL, -- of the next message
    chain BLOB NOT NULL,
    granter BLOB,                -- the publisher's device that granted it; NULL: the epoch's own
    PRIMARY KEY (epoch, device)) WITHOUT ROWID;

CREATE TABLE openings (          -- the chains of channels as they stood when readers came in
    epoch BLOB NOT NULL,
    mark INTEGER NOT NULL,       -- number of the newest control entry then
    device BLOB NOT NULL,
    generation INTEGER NOT NULL,
    chain BLOB NOT NULL,
    began INTEGER NOT NULL,
    PRIMARY KEY (epoch, mark, device)) WITHOUT ROWID;

CREATE TABLE owed (              -- key grants to make: readers' devices of our channels
    chat BLOB NOT NULL,
    epoch BLOB NOT NULL,
    device BLOB NOT NULL,
    prekey BLOB,                 -- the record that it asked with
    refused INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (epoch, device)) WITHOUT ROWID;

CREATE TABLE asked (             -- epochs whose keys we have asked publishers for
    epoch BLOB PRIMARY KEY,
    chat BLOB NOT NULL,
    tries INTEGER NOT NULL,
    time INTEGER NOT NULL) WITHOUT ROWID;

CREATE TABLE bad_grants (        -- keys that did not open what they were granted for
    epoch BLOB NOT NULL,
    granter BLOB NOT NULL,
    sender BLOB NOT NULL,
    chat BLOB NOT NULL,
    PRIMARY KEY (epoch, granter, sender)) WITHOUT ROWID;

CREATE TABLE late_grants (       -- whose keys of an epoch begin behind messages that are for us
    epoch BLOB NOT NULL,
    granter BLOB NOT NULL,
    PRIMARY KEY (epoch, granter)) WITHOUT ROWID;

CREATE TABLE sought (            -- users of our chats whose keys the directory was asked for
    user BLOB PRIMARY KEY,
    at INTEGER NOT NULL) WITHOUT ROWID;

CREATE TABLE passed (            -- up to where messages were read before their keys came
    epoch BLOB NOT NULL,
    device BLOB NOT NULL,
    chat BLOB NOT NULL,
    generation INTEGER NOT NULL,  -- of the next
    PRIMARY KEY (epoch, device)) WITHOUT ROWID;

CREATE TABLE bad_seals (         -- epochs whose seal for us is wrong
    epoch BLOB PRIMARY KEY,
    chat BLOB NOT NULL,
    reason INTEGER NOT NULL,     -- epoch.NackReason
    told INTEGER NOT NULL) WITHOUT ROWID;

CREATE TABLE mailbox (           -- one row a content entry, in the order of arrival
    no INTEGER PRIMARY KEY,
    chat BLOB NOT NULL,
    device BLOB NOT NULL,
    seq INTEGER NOT NULL,
    id BLOB NOT NULL UNIQUE,
    depth INTEGER NOT NULL,      -- longest path from the chat's first message
    time INTEGER NOT NULL,
    state INTEGER NOT NULL,      -- mailbox.State
    plaintext BLOB,
    frank BLOB,                  -- opens the commitment in the header; if LACKING, the payload
    void INTEGER NOT NULL DEFAULT 0,
    shared BLOB);                -- the device of another user that has shared it with us
CREATE INDEX mailbox_order ON mailbox (chat, depth, time, id);
CREATE INDEX mailbox_waiting ON mailbox (state, chat, device, seq) WHERE state IN (0, 5);

CREATE TABLE linked (            -- the newest entry of others that our own entries link to
    chat BLOB NOT NULL,
    device BLOB NOT NULL,
    seq INTEGER NOT NULL,
    PRIMARY KEY (chat, device)) WITHOUT ROWID;

CREATE TABLE disclosed (         -- what another device of ours handed over, until its entry is here
    no INTEGER PRIMARY KEY,
    id BLOB NOT NULL,            -- of several only one fits it; a stolen device may make up others
    plaintext BLOB NOT NULL,
    frank BLOB NOT NULL);
CREATE INDEX disclosed_id ON disclosed (id);

CREATE TABLE late_shares (       -- what a share has and its links do not reach: its entry comes yet
    id BLOB NOT NULL,
    share BLOB NOT NULL,
    PRIMARY KEY (id, share)) WITHOUT ROWID;

CREATE TABLE debts (             -- what opened here, and does not on another device of ours
    device BLOB NOT NULL,
    id BLOB NOT NULL,
    PRIMARY KEY (device, id)) WITHOUT ROWID;

CREATE TABLE proposed (          -- our proposals to the owners that are open
    id BLOB PRIMARY KEY,
    chat BLOB NOT NULL) WITHOUT ROWID;

CREATE TABLE signing (           -- keys for signing documents
    public BLOB PRIMARY KEY,     -- PEM
    private BLOB,                -- PEM; NULL for a key on a token
    certificate BLOB,            -- DER; NULL until the node has certified it
    ends INTEGER NOT NULL) WITHOUT ROWID;

-- What was dropped is dropped from the mailbox in the same transaction (State.GONE), and so are the
-- shares that hold it, known by their bytes (`protocol.disclosure`). What is still sealed first has
-- its key chain moved on, and then goes.
CREATE INDEX mailbox_shares ON mailbox (chat) WHERE substr(plaintext, 1, 2) = x'920a';
CREATE TRIGGER dropped_here AFTER INSERT ON dropped WHEN NEW.wanted = 0 BEGIN
    UPDATE mailbox SET state = 4, plaintext = NULL, frank = NULL WHERE id = NEW.id AND state != 0;
    UPDATE mailbox SET state = 4, plaintext = NULL, frank = NULL
        WHERE chat = (SELECT id FROM chats WHERE no = NEW.chat)
        AND substr(plaintext, 1, 2) = x'920a'
        AND instr(plaintext, CAST(x'93c420' || NEW.id AS BLOB));
    DELETE FROM disclosed WHERE id = NEW.id;
END;
CREATE TRIGGER dropped_after_all AFTER UPDATE ON dropped WHEN NEW.wanted = 0 BEGIN
    UPDATE mailbox SET state = 4, plaintext = NULL, frank = NULL WHERE id = NEW.id AND state != 0;
    UPDATE mailbox SET state = 4, plaintext = NULL, frank = NULL
        WHERE chat = (SELECT id FROM chats WHERE no = NEW.chat)
        AND substr(plaintext, 1, 2) = x'920a'
        AND instr(plaintext, CAST(x'93c420' || NEW.id AS BLOB));
    DELETE FROM disclosed WHERE id = NEW.id;
END;

CREATE TABLE fetched (           -- attachments that were written where their owner wanted them
    id BLOB PRIMARY KEY) WITHOUT ROWID;

CREATE TABLE once (              -- idempotency keys
    key TEXT PRIMARY KEY,
    chat BLOB NOT NULL,
    seq INTEGER NOT NULL,
    id BLOB NOT NULL) WITHOUT ROWID;
"""
