"""Every limit of the protocol, in one place (SPEC 8). Unit and qualifier stand last in a name.

A limit marked *guess* was chosen, not measured.
"""

HASH_BYTES = 32
KEY_BYTES = 32
SIGNATURE_BYTES = 64
PREFIX_BYTES = 8  # of an id, where a head or a want names it

SEQ_MAX = 2**32 - 1  # a position in a chain fits one SQLite rowid together with the chain's number
TIME_MS_MAX = 2**53 - 1
HEADER_BYTES_MAX = 2048
PAYLOAD_BYTES_MAX = 64 * 1024  # of a content entry
OPERATION_BYTES_MAX = 192 * 1024  # two covers of the longest headers prove a fork
LINKS_MAX = 8
COVER_ENTRIES_MAX = 64  # a path of 64 entries: j <= 63

DEPTH_MAX = 16
ELEMENTS_MAX = 16 * 1024  # array elements in one structure; 3,000 letters of an archive have 12,000

FRAME_BYTES_MAX = 1024 * 1024
FRAME_BYTES_MAX_BEFORE_HELLO = 256 * 1024
RUN_ENTRIES_MAX = 4096
RUN_BYTES_MAX = 256 * 1024  # of records; a longer run would keep live messages waiting
KEYFRAME_ENTRIES = 64  # a record at a multiple of this leaves nothing out
HEADS_CHAINS_MAX = 4096
INCARNATION_BYTES = 16
WANTS_EARLY_MAX = 8192  # of content of chats that we are not known to be in; guess
UNHEARD_MAX = 4096  # heads kept that a peer listed of chats that it is not known to be in; guess
WANTS_OUTSTANDING_MAX = 32  # guess
PAGES_OPEN_MAX = 2  # pages of heads sent and not yet seen: one is worked on, one is on its way
HELD_ENTRIES_MAX = 32 * 1024  # entries that wait for an ancestor, a peer
HELD_RUNS_MAX = 1024
HELD_TRIES_MAX = 16  # then the rest of a run is asked for again; guess
HELD_BYTES_MAX = 8 * 1024 * 1024
PREVIEW_BACKLOG_MIN = 1024  # entries of a chat; with fewer to come the sync is as quick
PREVIEW_ENTRIES_MAX = 256  # of a chat, shared among its branches
PREVIEW_CHAIN_ENTRIES_MIN = 4  # of each branch all the same
PREVIEW_BYTES_MAX = 1024 * 1024  # then no more of it is asked for
BACKTRACKS_MAX = 26  # doublings of 64 until any seq is reached
REFUSALS_MAX = 16  # runs that no rule allows, before a peer is shown the door; guess
WANTS_SERVED_MAX = 4 * WANTS_OUTSTANDING_MAX
RECON_ITEM_BYTES = 16  # nobody but the two sides knows the key, so nobody can look for two alike
RECON_SPLIT_MAX = 16  # parts that a range in question is split into
RECON_ROLL_MAX = 16  # items of a range that are listed rather than split; guess
RECON_PARTS_MAX = 512  # ranges in one frame
RECON_ITEMS_MAX = 4096  # that one frame says are lacking
RECON_PENDING_MAX = 32 * 1024  # ranges and items that wait for the next frame, a peer
RECON_TURNS_MAX = 64  # and one more for each RECON_ROLL_MAX items of our own
RECON_AUDIT_SECONDS = 24 * 3600.0  # between two audits of one session; guess
SPREAD_ALL_MAX = 16  # agencies in a chat up to which the author's node pushes to all
EAGER_FEW = 4  # neighbours that a node pushes to in a chat of up to SPREAD_FEW_MAX agencies
SPREAD_FEW_MAX = 100  # agencies; above, the neighbours grow with the logarithm
LAZY_SHARE = 1.5  # neighbours that a node only announces to, by those it pushes to
RINGS_MAX = 16
TREES_MAX = 1024  # chats whose neighbours are at hand
IHAVE_HEADS_MAX = 100  # in a frame
IHAVE_DELAY_SECONDS = 0.05  # in which announcements are gathered
LAZY_QUEUE_MAX = 1000  # announcements that wait for one peer
GRAFT_FIRST_SECONDS = 0.5  # after an announcement, until what did not come is asked for
GRAFT_AGAIN_SECONDS = 0.25  # then of the next who announced it
GRAFTS_MAX = 32  # of one peer at once; guess
DUPLICATES_MAX = 2  # of one peer running, then it is pruned
MISSING_MAX = 10_000  # announced and not here
MISSING_PEER_MAX = 1000  # of these first announced by one peer; guess
ANNOUNCERS_MAX = 8  # remembered of what is missing; guess
BRANCHES_MAX = 4  # evidence kept of one forked chain; more proves nothing more
SEALS_FRAME_MAX = 512
SEALS_SERVED_MAX = 64 * 1024  # recipients asked for and not yet served; guess
SEALS_SPREAD_MAX = 64  # recipients up to which every node of a chat keeps all seals
SEALLESS_ASKED_MAX = 256  # epochs of a page, of those whose seals are asked for

DEVICES_CHAT_MAX = 1000  # in a channel: of those who may write
DEVICES_CHANNEL_MAX = 32 * 1024
GRANTS_MAX = 32  # users admitted by one entry
CARD_BYTES_MAX = 16 * 1024
NAME_CHARS_MAX = 32
ZONE_CHARS_MAX = 32
TEXT_BYTES_MAX = 60 * 1024  # of one message, before padding

BLOB_BYTES_MAX = 16 * 1024 * 1024 * 1024  # sealed
BLOB_CHUNKS_MAX = 64 * 1024
BLOB_PATH_MAX = 16  # steps from a chunk up to the root
BLOB_WINDOW_CHUNKS_MAX = 32  # of one blob that were asked for and are not yet kept
BLOB_RANGE_CHUNKS_MAX = 8  # asked for in one frame
BLOBS_FETCHED_MAX = 4  # at a time
BLOB_CHUNKS_SERVED_MAX = 2 * BLOBS_FETCHED_MAX * BLOB_WINDOW_CHUNKS_MAX  # asked for at once
BLOB_REST_SECONDS = 0.5  # until one that lacked chunks is asked again; doubles each time
BLOB_REST_SECONDS_MAX = 4.0  # guess

PREKEY_RENEW_SECONDS = 7 * 24 * 3600
PREKEY_ERASE_SECONDS = 14 * 24 * 3600
EPOCH_RENEW_SECONDS = 7 * 24 * 3600
EPOCH_MESSAGES_MAX = 1000

WANT_TIMEOUT_SECONDS = 20.0  # of a preview or a chunk, which others may have; guess
ANSWER_SECONDS_MAX = 60.0  # without an answer to any want, then the session ends; guess
HELLO_TIMEOUT_SECONDS = 10.0
FRAME_SECONDS_MAX = 30.0  # from a frame's first byte to its last; guess
HEADS_DELAY_SECONDS = 2.0  # after pushes, until the peer is told how far they reach; guess
HEADS_FAR_SECONDS = 300.0  # the same, of a peer that is no neighbour in a large chat; guess
QUEUE_FRAMES_MAX = 1024  # that wait to be sent to one peer
QUEUE_BYTES_MAX = 4 * 1024 * 1024
IDLE_PING_SECONDS = 30.0
IDLE_CLOSE_SECONDS = 90.0
LEAF_PING_SECONDS = 600.0  # of a device and its node: thousands of devices rest at one node
LEAF_CLOSE_SECONDS = 1800.0

assert HEADER_BYTES_MAX + OPERATION_BYTES_MAX <= RUN_BYTES_MAX
assert RUN_BYTES_MAX + RUN_ENTRIES_MAX * (SIGNATURE_BYTES + 8) // KEYFRAME_ENTRIES < FRAME_BYTES_MAX
assert WANTS_OUTSTANDING_MAX * RUN_BYTES_MAX <= HELD_BYTES_MAX
assert RUN_ENTRIES_MAX <= HELD_ENTRIES_MAX
assert RECON_PARTS_MAX * max(RECON_ROLL_MAX, RECON_SPLIT_MAX) <= RECON_PENDING_MAX // 4
assert MISSING_PEER_MAX * 2 <= MISSING_MAX
assert 2 * GRAFTS_MAX <= WANTS_SERVED_MAX
assert TEXT_BYTES_MAX < PAYLOAD_BYTES_MAX
assert 2**BLOB_PATH_MAX == BLOB_CHUNKS_MAX
