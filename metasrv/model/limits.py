"""What anybody outside a node can make it hold or do: every limit in one place (invariant 10).

Outside are clients, peers, users of the admin API and the entries of the log. Each limit is used by the product and has
a test at it and one past it; `tests/unit/house/test_limits.py` checks that both exist. Units stand at the end of names.

Two kinds of constants stand elsewhere. The HTTP/2 server below the gRPC port is a library of its own, with its limits in
`grpc_api/http2/`; only those that it is given are here. Constants that tune (page and batch sizes, how often something is
looked at, how long a node waits for its own disk, threads and processes) stand beside the code that they tune.
"""

from __future__ import annotations

MIB = 1024 * 1024

# Requests ---------------------------------------------------------------------------------------
KEY_SIZE_BYTES_MAX = 4096
"""A key, in UTF-8 bytes."""
VALUE_SIZE_BYTES_MAX = 16 * MIB
"""One value."""
TRANSACTION_OPERATIONS_MAX = 10_000
"""Operations and conditions of one transaction, all branches together."""
CLIENT_WATCH_BUFFER_MESSAGES_MAX = 64
"""Messages of a watch that the client library holds for its reader; further ones stay with the server, which counts."""
SESSION_DELETE_KEYS_MAX = 1_000
"""Keys that the end of a session deletes in one transaction; it takes several for more."""
TRANSACTION_DEPTH_MAX = 16
"""Nesting of a transaction's boolean tree."""
EXPRESSION_DEPTH_MAX = 64
"""Nesting that is evaluated when a command is applied; requests are refused far below it (`TRANSACTION_DEPTH_MAX`)."""
ENTRY_REPLIES_SIZE_BYTES_MAX = 256 * MIB
"""Values that the replies of one entry hold in memory; a command past it is refused, the same on every node."""
GRPC_MESSAGE_SIZE_BYTES_DEFAULT = 32 * MIB
"""`grpc_api_max_message_size` when it is not configured."""

MIGRATED_RECORDS_MAX = 128
"""Records of one step of a migration; so many small ones are applied within `STEP_TIME_MS_MAX`."""

# Log --------------------------------------------------------------------------------------------
COMMAND_SIZE_BYTES_MAX = 32 * MIB
"""One encoded command; larger ones are refused before they are proposed (D17)."""
ENTRY_SIZE_BYTES_TARGET = 1 * MIB
"""A batch of commands stops growing here, unless its first command alone is larger."""
ENTRY_COMMANDS_MAX = 256
"""Commands of one log entry; so many small ones are applied well within `STEP_TIME_MS_MAX`."""
PROPOSALS_WAITING_MAX = 16_384
"""Proposals that wait for a batch; past it a proposal is refused with `OverloadedError`."""
PROPOSALS_WAITING_BYTES_MAX = 256 * MIB
"""Encoded size of the proposals that wait for a batch."""
READ_WAITERS_MAX = 65_536
"""Reads that wait for one confirmation of leadership."""
LOG_MEMORY_BYTES_MAX = 64 * MIB
"""Applied entries are purged early, whatever the configured count, when the log is larger."""
LOG_MEMORY_BYTES_HELD_MAX = 4 * LOG_MEMORY_BYTES_MAX
"""As large as the log may become while a peer gets a snapshot and needs the entries after it."""

# State ------------------------------------------------------------------------------------------
STATE_LOG_SIZE_BYTES_TARGET = 16 * MIB
"""The state's write-ahead log is moved into the state file, and begins anew, when this much was written to it."""
STATE_UNCOMMITTED_SIZE_BYTES_MAX = 256 * 1024
"""Written by applied entries, about, before they are committed to the state file."""
STATE_LOG_UNSYNCED_SIZE_BYTES_MAX = 2 * MIB
"""It is synced each time this much was written: one large sync would delay the raft log's, which clients wait for."""
STATE_LOG_SIZE_BYTES_KEPT = 2 * STATE_LOG_SIZE_BYTES_TARGET
"""It is overwritten in place, which syncs faster than a growing file; a longer one is cut, piece by piece."""
STATE_LOG_PINNED_SIZE_BYTES_MAX = 256 * MIB
"""Size of that log, beside that of the state file, at which the views that keep it from beginning anew are lost."""
STATE_FREE_SIZE_BYTES_KEPT = 1 * MIB
"""Free space that the state file keeps for what is written next; more, and a quarter of the file, is given back."""
STATE_LOG_COPY_FACTOR = 4
"""While a snapshot of a large state is written, that log may grow further, by this many times the state file."""
INSTANTS_SIZE_BYTES_MAX = 32 * MIB
"""Records that were replaced while a KvGetMany call still shows them; the oldest calls end where it would be more."""

# Peers ------------------------------------------------------------------------------------------
PEER_FRAME_SIZE_BYTES_MAX = COMMAND_SIZE_BYTES_MAX + 4 * MIB
"""One frame on a peer connection."""
HELLO_SIZE_BYTES_MAX = 4096
"""A frame before the peer has proved who it is."""
RAFT_SECRETS_MAX = 16
"""Shared secrets of the raft port that a node holds at once; it proves each of them in one frame of the handshake."""
HANDSHAKE_TIMEOUT_MS = 5_000
"""A connection that has not finished its handshake by then is closed."""
PEER_CONNECTIONS_MAX = 256
"""Accepted peer connections; a further one takes the place of one whose handshake is not over, or is closed."""
PEER_CONNECTIONS_RESERVED = 64
"""The part of them that callers who are no peers do not get: those that ask once, and those that join."""
PEER_BUFFER_HIGH_BYTES = 8 * MIB
"""Unsent bytes for a peer at which replication to it pauses."""
PEER_BUFFER_SIZE_BYTES_MAX = 2 * PEER_BUFFER_HIGH_BYTES
"""Unsent bytes at which messages are refused; leaves room for messages already produced by the current step."""
PEER_BUFFER_LOW_BYTES = 2 * MIB
"""Unsent bytes at which replication resumes."""
APPEND_MESSAGE_SIZE_BYTES_TARGET = 1 * MIB
"""Entries of one append message, unless a single entry is larger."""
INBOX_MESSAGES_MAX = 16_384
"""Raft messages that wait while a sync runs; further ones are dropped, as a network may, and a warning says so."""
INBOX_SIZE_BYTES_MAX = 128 * MIB
"""Size of these messages."""
IDENTITY_TEXT_CHARACTERS_MAX = 256
"""Cluster id, incarnation or host name in a handshake."""
REFUSAL_CHARACTERS_MAX = 600
"""The sentence of a refused handshake: with four bytes a character it still fits in a frame of a handshake."""
ERROR_TEXT_CHARACTERS_MAX = 4096
"""The sentence of an error that answers a peer's request; a longer one is cut."""
LOGGED_SUBJECTS_MAX = 256
"""Peers and addresses whose last logged fault is remembered; past it the oldest is forgotten."""
REQUESTS_IN_FLIGHT_PER_PEER_MAX = 16_384
"""Forwarded requests that wait for one peer's answer."""
PEER_REQUESTS_ASIDE_MAX = 8
"""Large requests of one node to its peers at once, each on a connection of its own; others wait."""
SNAPSHOT_BURST_SIZE_BYTES_MAX = 4 * MIB
"""Pieces of a snapshot that one step sends to a peer; less than its buffer takes beyond the pause."""
SNAPSHOT_CHUNK_SIZE_BYTES_MAX = 1 * MIB
"""One chunk of a snapshot on its way to a peer, whatever `snapshot_chunk_size` says."""

# gRPC -------------------------------------------------------------------------------------------
GRPC_CALLS_MAX = 40_000
"""Calls that one node serves at the same time, watch streams among them."""
GRPC_STREAMS_PER_CONNECTION_MAX = 4_096
"""Streaming calls under way on one connection, so that one client cannot use up what all clients share."""
GRPC_CONNECTIONS_MAX = 20_000
"""Connections of clients; fewer where the process may open fewer files (`open_files.client_connections_max`)."""
GRPC_CALLS_PER_CONNECTION_MAX = 8_192
"""Calls of any kind under way on one connection; announced to clients, which let further ones wait."""
GRPC_HELD_SIZE_BYTES_MAX = 512 * MIB
"""Requests of all clients that have not arrived whole, and answers that wait until a client takes them."""
GRPC_READERS_MAX = 16
"""Large reads (long lists, exports) that one node serves at the same time; each pins the state of its instant."""
KEPT_LISTS_SIZE_BYTES_MAX = 8 * MIB
"""Encoded long lists that one process keeps for who asks for the same one, those that are being sent included."""
GRPC_READ_STALLED_SECONDS_MAX = 10
"""A large read whose client takes nothing for this time gives its place back when another one needs it."""
GRPC_PAGE_SECONDS_MAX = 60
"""A client of a large read that takes longer for one page is cut off."""
GRPC_GET_MANY_SECONDS_MAX = 60
"""A KvGetMany call that is still open after this time ends: the instant that it shows is given up."""
EXPORT_CHUNK_LINES_MAX = 4096
"""Lines of one export message, whatever the request says."""
TOKEN_SIZE_BYTES_MAX = 4096
"""A token that a client shows."""
VERIFIED_TOKENS_MAX = 4096
"""Good tokens that are remembered, so that their signature is not computed again."""
TOKEN_KEY_SIZE_BYTES = 32
"""The replicated key that signs tokens."""
PASSWORD_SIZE_BYTES_MAX = 1024
"""A password that is set or given."""
PASSWORDS_REMEMBERED_MAX = 1024
"""Good passwords that are remembered, so that their hash is not computed again."""
PASSWORD_CHECKS_WAITING_MAX = 64
"""Handshakes that wait until their password is compared: about three seconds."""
READ_ONLY_REASON_CHARACTERS_MAX = 200
"""Why the cluster is read-only; it stands in every refusal."""
USERS_MAX = 256
"""Users beyond root; each is in the memory of every node."""
USER_NAME_CHARACTERS_MAX = 64
"""A user's name."""
USER_RIGHTS_MAX = 256
"""Rights of one user, each on a prefix; all are looked through for each key."""
GUESSERS_REMEMBERED_MAX = 4096
"""Addresses and users whose wrong passwords are counted; past it the oldest is forgotten."""
TOKEN_LIFETIME_SECONDS_MAX = 3650 * 24 * 3600
"""The longest `grpc_token_lifetime_seconds`, and the lifetime where no password is asked for."""

# Gateways ---------------------------------------------------------------------------------------
GATEWAYS_MAX = 16
"""Processes that serve the clients of one node."""
GATEWAY_FRAME_SIZE_BYTES_MAX = ENTRY_REPLIES_SIZE_BYTES_MAX + 64 * MIB
"""One frame between a node and a gateway: the replies of one entry, and what else its commands hold."""
GATEWAY_UNSENT_SIZE_BYTES_MAX = 2 * GATEWAY_FRAME_SIZE_BYTES_MAX
"""What a node or a gateway has sent and the other one has not taken; past it the gateway is started anew."""
GATEWAY_LOG_LINES_MAX = 1_024
"""Log lines of a gateway for which its node has shown no sign of life since; past it they are dropped and counted."""
GATEWAY_LOG_FIELDS_MAX = 32
"""Fields of one of these lines beside its text."""
GATEWAY_INSTANTS_MAX = 256
"""KvGetMany calls that a gateway serves at once: each pins the state of its instant."""
REMOTE_GATEWAYS_MAX = 32
"""Gateways on other machines that one node serves; they count among the callers of the raft port that are no peers."""
REMOTE_REQUESTS_MAX = 16_384
"""What one of them may have under way at its node: barriers, batches of reads, writes that are forwarded."""
REMOTE_FORWARDED_SIZE_BYTES_MAX = 64 * MIB
"""Commands of one of them that its node, which does not lead, has forwarded and not answered."""
REMOTE_TIMEOUT_MS_MAX = 60_000
"""How long one of them may let its node wait."""
REMOTE_READS_PER_BATCH_MAX = 1_024
"""Keys that one of them asks for in one message."""
REMOTE_VIEWS_MAX = 32
"""Views of the state that all of them together have pinned at one node."""
REMOTE_VIEW_IDLE_SECONDS_MAX = 90
"""A view of which nothing was read for this time is given up; longer than a client may take for a page."""

# Watch ------------------------------------------------------------------------------------------
WATCHERS_MAX = 20_000
"""Watch streams of one node."""
WATCH_QUEUE_EVENTS_MAX = 10_000
"""Events that wait for one watcher; past it the stream ends and the client resyncs."""
WATCH_QUEUE_SIZE_BYTES_MAX = 64 * MIB
"""Keys and values of those events; a single larger event is still delivered."""

# Admin ------------------------------------------------------------------------------------------
ADMIN_BODY_SIZE_BYTES_MAX = 1 * MIB
"""Body of an admin request."""
ADMIN_CONNECTIONS_MAX = 512
"""Concurrent admin connections; a further one takes the place of one that is idle."""
ADMIN_CONNECTIONS_BUSY_MAX = 64
"""Connections past that limit while none is idle; requests on them are refused, probes are answered."""
ADMIN_ADDRESSES_MIN = 4
"""Addresses that it takes to have all admin connections; each may have that part of them."""
HEALTH_CONNECTIONS_MAX = 64
"""Concurrent connections of the listener that has only probes."""
ADMIN_HEAD_SIZE_BYTES_MAX = 64 * 1024
"""The head of an admin request, its path and headers."""
ADMIN_PIPELINED_MAX = 16
"""Requests of one connection that wait for the answer to an earlier one."""
ADMIN_UNREAD_SECONDS_MAX = 30.0
"""A client that takes nothing of an answer for this time is cut off."""
ADMIN_REQUEST_SECONDS_MAX = 20.0
"""From the connection, or the first byte of a further request, to the end of the request's head."""
ADMIN_KEEP_ALIVE_SECONDS_MAX = 20
"""A connection without a request is closed after this time."""
ADMIN_QUERY_FIELDS_MAX = 100
"""Fields of a query string; one with more counts as empty."""
ADMIN_QUERY_AUDITED_CHARACTERS_MAX = 1024
"""Characters of a query string in the audit log."""
ADMIN_REFUSALS_AUDITED_MAX = 10
"""Refused requests of one client within ten seconds that have a line each in the audit log; the others are counted."""
ADMIN_REFUSED_CLIENTS_AUDITED_MAX = 16
"""Clients of these; the refusals of further ones are counted together."""
ADMIN_TOKENS_MAX = 64
"""Tokens of the admin API that are valid at once; each request with a token is compared with all of them."""
ADMIN_TOKENS_FILE_SIZE_BYTES_MAX = 64 * 1024
"""The file that has them."""
ADMIN_TOKEN_CHARACTERS_MIN = 16
"""A token of a file; shorter ones can be found by trying."""
PROFILE_SECONDS_MAX = 300
"""Longest profile."""
PROFILE_FREQUENCY_HERTZ_MAX = 1000
"""Fastest sampling."""
CONTINUOUS_PROFILE_HERTZ_MAX = 20
"""Looks a second of the continuous profile."""
CONTINUOUS_MINUTES_MAX = 11
"""Minutes of it that are kept: ten, and the one under way."""
CONTINUOUS_STACKS_MAX = 500
"""Distinct stacks of one of its minutes; further ones are counted together."""
CONTINUOUS_STACK_FRAMES_MAX = 100
"""Frames of one of them, the innermost."""
CONTINUOUS_FRAMES_KNOWN_MAX = 8_192
"""Frames that are made once and shared by its stacks."""
CAPTURES_KEPT_MAX = 8
"""Memory profiles that a later one can be compared with."""
CAPTURE_STACKS_MAX = 5_000
"""Stacks of one of them, the largest; the others are added up."""
CAPTURE_SIZE_BYTES_MAX = 512 * 1024
"""One of them, compressed."""
METRICS_WINDOW_OBSERVATIONS_MAX = 1024
"""Observations kept for the quantiles of one summary."""
METRICS_LABELS_MAX = 256
"""Label sets of one metric; peers reconnect from ever new ports, and each would stay for good."""
METRICS_LABELS_REMEMBERED_MAX = 8192
"""Label sets whose text is kept for the next page; a page has about a thousand."""

# Console ----------------------------------------------------------------------------------------
EVENTS_KEPT_MAX = 512
"""Events of one node that are kept, on the node itself and on each node that asks it for them."""
EVENT_TEXT_CHARACTERS_MAX = 400
"""The sentence of an event; a longer one is cut."""
SUMMARY_EVENTS_MAX = 128
"""Events that one answer to another node brings along; the newest ones when there are more."""
CONSOLE_STREAMS_MAX = 64
"""Open streams of the console; a further one is refused with a sentence."""
CONSOLE_LINES_WAITING_MAX = 32
"""Lines that wait for one stream's reader; past it the stream ends and the page connects anew."""
EVENTS_ANSWERED_MAX = 1_000
"""Events of one answer of `/v1/events`, whatever `limit` says."""
CONSOLE_ENTRIES_MAX = 200
"""Prefixes and records of one answer of the key browser."""
CONSOLE_KEYS_SECONDS_MAX = 2.0
"""One answer of the key browser counts keys for this time at most; what it did not count it says."""
CONSOLE_KEY_READS_MAX = 2
"""Reads of the key browser at once; a further one is refused with a sentence."""
CONSOLE_VALUE_SIZE_BYTES_MAX = 128 * 1024
"""The part of a value that the key browser shows."""
SLOW_WRITES_KEPT_MAX = 20
"""Slowest writes, and as many largest ones, that are kept of each minute."""
SLOW_WRITES_MINUTES_MAX = 10
"""Minutes of which they are kept."""
SLOW_WRITE_KEYS_MAX = 3
"""Keys that are kept of one write."""
SLOW_WRITE_KEY_CHARACTERS_MAX = 128
"""Characters that are kept of one key."""

# Diagnostics ------------------------------------------------------------------------------------
DIAGNOSTICS_PROFILE_SECONDS_MAX = 60
"""The longest profile in a bundle; the profile's own route takes longer ones."""
DIAGNOSTICS_FILES_MAX = 2_000
"""Files of the data directory that a bundle lists."""
DIAGNOSTICS_TASKS_MAX = 1_000
"""Tasks of the event loop that a bundle names."""
DIAGNOSTICS_STACK_FRAMES_MAX = 128
"""Frames of one stack in a bundle."""
DIAGNOSTICS_FILES_OF_BUNDLE_MAX = 64
"""Files of one node's bundle, as metactl takes it."""
DIAGNOSTICS_FILE_SIZE_BYTES_MAX = 64 * MIB
"""One file of a bundle, as metactl takes it from a node; a longer one is cut."""
DIAGNOSTICS_BUNDLE_SIZE_BYTES_MAX = 256 * MIB
"""A whole bundle of one node, as metactl takes it."""

TOP_LINE_SIZE_BYTES_MAX = 4 * 1024 * 1024
"""A line of the console's stream that `metactl top` reads; a node's longest, of 1,000 events, is a tenth of it."""
TOP_POINTS_MAX = 450
"""Points of a series that it keeps: 15 minutes."""
TOP_EVENTS_MAX = 200
TOP_ROWS_MAX = 100
"""Nodes, problems and checks of one answer that it reads."""
TOP_ADDRESSES_MAX = 20
"""Addresses of other nodes that it learns."""

# Backups ----------------------------------------------------------------------------------------
BACKUP_LINE_SIZE_BYTES_MAX = 5 * COMMAND_SIZE_BYTES_MAX
"""One line of a backup: up to four bytes of text for each byte of a value."""

BACKUP_KEY_FILE_SIZE_BYTES_MAX = 4096
"""A file that holds the key of encrypted archives; a larger one is probably another file."""
BACKUP_SECRETS_MAX = 100_000
"""Secrets in one archive: the key of tokens, and a user each."""

# Descriptors ------------------------------------------------------------------------------------
OPEN_FILES_WANTED = 65_536
"""Files and connections that this process asks the system for; it also runs with fewer."""
OPEN_FILES_RESERVED = 1_024
"""The part of them that gRPC clients do not get: for peers, the admin API, the log, the state and snapshots."""

SPARE_DESCRIPTORS = 16
"""Kept open by each listening socket, and given up for callers when the process has no others."""
TLS_HANDSHAKES_MAX = 128
"""Unfinished TLS handshakes of the raft port, and of the admin API; a further one takes the place of the oldest."""
GRPC_TLS_HANDSHAKES_MAX = 1_024
"""The same for the gRPC port, where all clients come at once after a restart."""
TLS_HANDSHAKES_AT_ONCE_MAX = 32
"""Those of one listening socket that are under way, each of which may cost the loop a millisecond at any time."""
TLS_HANDSHAKE_SECONDS_MAX = 5.0
"""A connection that has not finished its TLS handshake by then is closed."""

# Logging ----------------------------------------------------------------------------------------
LOG_QUEUE_RECORDS_MAX = 16_384
"""Log records that wait for the helper thread; past it they are dropped and counted."""
SLOW_REQUEST_LINES_PER_SECOND_MAX = 10
"""Lines of slow requests; the others of a second are counted in one line."""
SLOW_REQUEST_KEY_CHARACTERS_MAX = 80
"""A longer key is cut in such a line."""
TRACE_SPANS_WAITING_MAX = 4_096
"""Spans that wait for the collector; past it new ones are dropped."""
LOG_FOLDED_LINES_MAX = 128
"""Different lines whose repetitions are counted at once; past it the count of the oldest is written early."""
LOG_FOLDED_CHARACTERS_MAX = 2_000
"""A longer line is written each time: remembering it takes memory."""
LOG_RECENT_LINES_MAX = 4_000
"""The newest lines of the log that are kept in memory for diagnostics."""
LOG_RECENT_SIZE_CHARACTERS_MAX = 512 * 1024
"""Characters of all of them; the oldest go first."""
LOG_RECENT_LINE_CHARACTERS_MAX = 8 * 1024
"""Characters that are kept of one line."""
LOG_LEVEL_CHANGES_MAX = 32
"""Loggers whose level is changed for a time, at once."""
LOG_LEVEL_SECONDS_MAX = 24 * 3600
"""The longest time for which a level may be changed while the node runs."""

# Loop -------------------------------------------------------------------------------------------
DISK_SLOW_SECONDS = 1.0
"""A sync of the raft log or a commit of the state that takes longer is a line in the log."""
STEP_TIME_MS_MAX = 5
"""A step of the event loop that takes longer is counted, with its kind of work (`process/loop_steps.py`)."""
