//! Every bound of the program, with its unit and its reason, and what happens when it is reached.
//!
//! One budget per purpose: what clients use can never take what servers need.

use std::time::Duration;

/// Inputs that a runtime hands over in one turn before it lets the worker speak. Larger batches
/// make larger writes and longer waits; 256 is a full turn of a busy ring.
pub const BATCH_MAX: usize = 256;

/// `Received` inputs that may still come after `PauseRead`: what the runtime had taken from the
/// kernel already.
pub const READS_IN_FLIGHT: usize = 64;

/// Largest slice of one `Received`, bytes: one buffer of the runtime.
pub const RECEIVE_BYTES_MAX: usize = 64 * 1024;

/// Files to write and programs to run that one worker may have asked for at once. A master that
/// fails over runs a handful of scripts; more than this wait in the machine that wants them.
pub const ERRANDS_MAX: usize = 64;

/// Mail that waits for a worker. An operator sends a few commands in a lifetime, workers some
/// notices a second, and a turn takes microseconds: whoever gets here is broken, and what it sends
/// is dropped. Answers to errands are not.
pub const MAIL_MAX: usize = 1024;

const _: () = assert!(ERRANDS_MAX < MAIL_MAX);

/// Largest buffer that the pool keeps, bytes. Larger ones go back to the allocator, so that a
/// burst of big values does not stay resident.
pub const POOLED_BUFFER_BYTES_MAX: usize = 64 * 1024;

/// Bytes that the pool of a worker keeps: enough for the buffers of some hundred busy connections,
/// and little enough to stay resident.
pub const POOLED_BYTES_MAX: usize = 4 * 1024 * 1024;

const _: () = assert!(POOLED_BUFFER_BYTES_MAX <= POOLED_BYTES_MAX);

/// Arguments whose places are kept from request to request; after a larger request the memory
/// goes back.
pub const SCRATCH_ITEMS_KEPT: usize = 4096;

/// Bytes of reply text that are kept from request to request; after a larger one the memory goes
/// back.
pub const SCRATCH_TEXT_KEPT: usize = 64 * 1024;

/// Requests of one client that may be under way before it has shown that it reads replies.
pub const PIPELINE_START: u16 = 16;

/// Requests of one client that may be under way at once; then it is no longer read. A slot is 12
/// bytes, so a client costs at most 12 KiB of them.
pub const PIPELINE_MAX: u16 = 1024;

/// Bytes of replies that one client's requests under way should produce at most, judged by its
/// recent large replies. A client that asks for 1 MiB values and never reads costs this much.
pub const WINDOW_BYTES: usize = 16 * 1024 * 1024;

/// Unsent bytes from which on nothing more is asked for on a client's behalf.
pub const CLIENT_UNSENT_PAUSE_BYTES: usize = 1024 * 1024;

/// Waiting input from which on a client that may not be served is not read, bytes.
pub const CLIENT_INPUT_PAUSE_BYTES: usize = 64 * 1024;

/// Waiting input below which such a client is read again, bytes.
pub const CLIENT_INPUT_RESUME_BYTES: usize = 16 * 1024;

/// Bytes of unfinished and waiting requests of all clients of a worker together. When the sum
/// passes it, the client that holds most is closed.
pub const CLIENTS_INPUT_BYTES_MAX: usize = 1024 * 1024 * 1024;

/// Bytes of unsent replies of all clients of a worker together. When the sum passes it, the
/// client that holds most is closed.
pub const CLIENTS_OUTPUT_BYTES_MAX: usize = 1024 * 1024 * 1024;

/// Owed replies whose memory a client keeps while it is idle: an idle client has to cost less
/// than 512 bytes.
pub const REPLY_SLOTS_KEPT: usize = 16;

/// Size of a client's stash of early replies from which on its holes are closed, bytes.
pub const STASH_COMPACT_BYTES: usize = 64 * 1024;

/// Replies that one server connection may owe; then clients wait. 32 bytes each, so at most 4 MiB.
pub const SERVER_REPLIES_MAX: usize = 128 * 1024;

/// Bytes that may wait to be written to one server connection; then clients wait. One request of
/// any size may still be added, so it is a threshold, not a size.
pub const SERVER_OUTPUT_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Server connections of one worker.
pub const SERVER_CONNECTIONS_MAX: usize = 65_536;

/// First wait after a failed attempt to connect to a server.
pub const RECONNECT_DELAY_MIN: Duration = Duration::from_millis(10);

/// Longest wait between attempts: a server that comes back is used again within this.
pub const RECONNECT_DELAY_MAX: Duration = Duration::from_millis(500);

/// Bytes of an unfinished reply from which on it leaves in pieces instead of being kept whole. A
/// reply that has begun to leave can no longer be turned into an error, so small ones are kept.
pub const STREAM_REPLY_BYTES: usize = 32 * 1024;

/// Default of `hold`: how long requests wait for a shard's master. A failover takes the Sentinels'
/// down-after, five seconds in many set-ups, and one or two more.
pub const HOLD_DEFAULT: Duration = Duration::from_secs(10);

/// Default of `hold_bytes`: requests of one pool and worker that wait for a master, and as much
/// again for those under way that may have to be sent again. Ten seconds of a busy worker's small
/// requests, of which clients that wait send few.
pub const HOLD_BYTES_DEFAULT: usize = 64 * 1024 * 1024;

/// Smallest `hold_bytes`: every connection may take one step.
pub const HOLD_BYTES_MIN: u64 = 1024 * 1024;

/// By how much the requests that wait for one connection may grow before the pool's sum is looked
/// at again, bytes. So the sum is passed by at most this much, and a request, per connection.
pub const HOLD_STEP_BYTES: usize = 16 * 1024;

/// How long the replies to requests that were under way when a planned failover ended are waited
/// for: what the former master refuses because it is a replica can be sent again. Far longer than
/// it takes a server to answer what it has been sent.
pub const SWITCH_GRACE: Duration = Duration::from_millis(500);

/// Between two notices about one server that say the same, at least.
pub const SIGHTING_PAUSE: Duration = Duration::from_millis(100);

/// Shards of which news are kept; those of more are dropped. As many as a Sentinel watches.
pub const SHARDS_MAX: usize = MASTERS_MAX;

/// Largest `replicated`. More than a master usually has replicas.
pub const REPLICATED_MAX: u32 = 32;

/// Default of `replicated_timeout`. A replica confirms within a round trip, or it is in trouble.
pub const REPLICATED_TIMEOUT_DEFAULT: Duration = Duration::from_secs(1);

/// Withheld replies of one connection, bytes, from which on those are dropped whose clients are gone.
/// The others count among what their clients have not read, and are bounded with it.
pub const WITHHELD_PACK_BYTES: usize = 256 * 1024;

/// Length of the name that `CLIENT SETNAME` keeps, bytes.
pub const CLIENT_NAME_BYTES_MAX: usize = 64;

/// Requests that one worker may have split over servers at once; then clients wait.
pub const SPLITS_MAX: usize = 65_536;

/// Largest configuration file that is read, bytes: tens of thousands of pools. A larger file is an
/// error.
pub const CONFIG_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Keys, values and list items in one configuration file, about 100 bytes of memory each. More are
/// an error.
pub const CONFIG_NODES_MAX: usize = 1_000_000;

/// Errors and warnings of one file that are told; the rest is counted.
pub const CONFIG_DIAGNOSTICS_MAX: usize = 200;

/// Largest number in the configuration, as in twemproxy, whose numbers have 31 bits. As a time in
/// milliseconds it is 24 days.
pub const CONFIG_NUMBER_MAX: u32 = i32::MAX as u32;

/// Bytes of a Unix socket's path, which the kernel keeps in 108 bytes with a zero at the end.
pub const UNIX_PATH_BYTES_MAX: usize = 107;

/// Largest request that a pool can be configured to take, bytes: Redis' own limit for a string.
pub const REQUEST_BYTES_MAX: u32 = 512 * 1024 * 1024;

/// Default of `request_bytes_max`, bytes. A request is stored whole before it leaves, so this is
/// what one client can make us hold.
pub const REQUEST_BYTES_DEFAULT: u32 = 64 * 1024 * 1024;

/// Smallest `request_bytes_max` and `client_output_bytes_max`, bytes; less could not carry what
/// ordinary clients send when they connect.
pub const CONFIG_BYTES_LIMIT_MIN: u32 = 1024;

/// Default of `client_output_bytes_max`, bytes: replies that a client has not read yet; then it is
/// closed. Room for several of the largest replies that are usual.
pub const CLIENT_OUTPUT_BYTES_DEFAULT: u32 = 256 * 1024 * 1024;

/// Default of `server_connect_timeout`, milliseconds.
pub const SERVER_CONNECT_TIMEOUT_MS_DEFAULT: u32 = 1000;

/// Smallest budget for all clients together, bytes: some of the largest requests that
/// are usual must fit beside each other.
pub const CONFIG_BUDGET_BYTES_MIN: u64 = 16 * 1024 * 1024;

/// Largest budget for all clients together, bytes: more than any machine has.
pub const CONFIG_BUDGET_BYTES_MAX: u64 = 1 << 40;

/// Threads that serve clients: more than any machine has use for, and few enough that each may ask
/// all others.
pub const THREADS_MAX: u16 = 256;

const _: () = assert!(CONFIG_BUDGET_BYTES_MIN <= CLIENTS_INPUT_BYTES_MAX as u64);
const _: () = assert!(REQUEST_BYTES_DEFAULT <= REQUEST_BYTES_MAX);
const _: () = assert!(REQUEST_BYTES_MAX <= CONFIG_NUMBER_MAX);

/// Servers in one pool, so that [`ServerId`](crate::id::ServerId) fits 16 bits and a point of a
/// ring eight bytes. The configuration refuses more.
pub const SERVERS_PER_POOL_MAX: usize = 65_535;

/// Slots of a modula pool that are laid out one by one (two bytes each, 128 KiB at most); a larger
/// total weight is searched instead, so that a weight of a billion costs no memory.
pub const MODULA_SLOTS_MAX: u64 = 65_536;

/// Bits of a hash that index the points of a ketama ring: at most 4 MiB of index, in the largest
/// pools only.
pub const KETAMA_INDEX_BITS_MAX: u32 = 20;

const _: () = assert!(SERVERS_PER_POOL_MAX <= u16::MAX as usize);
const _: () = assert!(KETAMA_INDEX_BITS_MAX < 32);

/// Arguments of one request. Redis' documented bound for a multibulk; above it
/// `invalid multibulk length` and the connection ends.
pub const REQUEST_ARGS_MAX: u32 = 1024 * 1024;

/// Largest single argument, bytes: Redis' default `proto-max-bulk-len`. A server that takes more
/// is not asked to.
pub const BULK_BYTES_MAX: usize = 512 * 1024 * 1024;

/// Longest inline request, bytes, without its line end: what Redis buffers before it gives up.
pub const INLINE_BYTES_MAX: usize = 64 * 1024;

/// Arguments of one request before a required AUTH. As Redis: enough for HELLO with AUTH and
/// SETNAME.
pub const UNAUTHENTICATED_ARGS_MAX: u32 = 10;

/// Largest single argument before a required AUTH, bytes. As Redis.
pub const UNAUTHENTICATED_BULK_BYTES_MAX: usize = 16 * 1024;

/// Largest request before a required AUTH, bytes: every argument at its largest, and the headers.
pub const UNAUTHENTICATED_REQUEST_BYTES_MAX: usize = 192 * 1024;

/// Largest bulk, and longest line, in a reply, bytes. Far above what Redis takes in a request,
/// because a DUMP of a large value or a script's status line can be longer, and refusing a reply
/// ends a connection that other clients share. What a reply may hold in memory is bounded by the
/// budget of whom it is for.
pub const REPLY_BULK_BYTES_MAX: u64 = u32::MAX as u64;

/// Elements of one reply that may be announced and not yet received, nested ones included. Only a
/// broken server announces more.
pub const REPLY_ELEMENTS_MAX: u64 = u32::MAX as u64;

/// Aggregates of one reply that may be open in one another; 8 bytes each. A deeper reply ends the
/// server's connection, which clients share, so no genuine server may get here, whatever a client
/// has it run. Only scripts choose their depth, and every table of theirs that is open takes a slot
/// of Lua's stack, which Redis builds with 8,000 for a function in C (LUAI_MAXCSTACK): Redis 7.0.15
/// opens 7,995 arrays and puts `-ERR reached lua stack limit` into the last. Versions from before
/// that error (6.2.6) overran the stack there.
pub const REPLY_DEPTH_MAX: usize = 8192;

/// Levels for which the scanner of a connection keeps memory between replies: commands' own
/// replies have no more than five or so.
pub const REPLY_DEPTH_KEPT: usize = 16;

const _: () = assert!(
    UNAUTHENTICATED_ARGS_MAX as usize * (UNAUTHENTICATED_BULK_BYTES_MAX + 16)
        <= UNAUTHENTICATED_REQUEST_BYTES_MAX
);
// Offsets into a request are 32 bits wide.
const _: () = assert!(BULK_BYTES_MAX < u32::MAX as usize);

/// Longest key of memcached, bytes. As in memcached; longer ones are refused.
pub const MEMCACHE_KEY_BYTES_MAX: usize = 250;

/// Longest line of a memcached client, bytes, with its line end; `get` and `gets` may fill a whole
/// request, `gat` and `gats` [`MEMCACHE_GAT_BYTES_MAX`]. A memcached that has read more than this
/// without a line end closes the connection, which other clients share; here the client is told
/// and closed.
pub const MEMCACHE_LINE_BYTES_MAX: usize = 2048;

/// Longest line of `gat` and `gats`, bytes. They go to a server in lines of at most
/// [`MEMCACHE_LINE_BYTES_MAX`], so this bounds the parts of one request.
pub const MEMCACHE_GAT_BYTES_MAX: usize = 64 * 1024;

/// Words of a meta command, the name included. memcached refuses one more, and does not pass over
/// the value of an `ms` that it refuses for that.
pub const MEMCACHE_META_WORDS_MAX: usize = 19;

/// Longest line in a memcached server's reply, bytes: the head of a value with the longest key, or
/// an error. A server that sends a longer one is given up.
pub const MEMCACHE_REPLY_LINE_BYTES_MAX: usize = 4096;

/// Requests with `noreply` that one client may have under way; then it is not read. Nothing tells
/// it to wait for them, so they have a bound of their own.
pub const SILENT_REQUESTS_MAX: u32 = 1024;

/// Largest step by which a peer may move our epoch. Each election adds one, so a larger step is an
/// attempt to use the numbers up; it is refused and reported.
pub const EPOCH_JUMP_MAX: u64 = 1 << 32;

/// Length of a master's name, bytes; it is repeated in every hello and event.
pub const MASTER_NAME_BYTES_MAX: usize = 255;

/// Length of a host name, bytes. DNS allows 253.
pub const HOST_BYTES_MAX: usize = 255;

/// Masters that one Sentinel watches. More are refused.
pub const MASTERS_MAX: usize = 4096;

/// Replicas kept of one master; more are not followed.
pub const REPLICAS_PER_MASTER_MAX: usize = 1024;

/// Peers kept of one master. More are not taken in: each costs a connection, and whoever reaches
/// our port can announce them.
pub const PEERS_PER_MASTER_MAX: usize = 256;

/// Longest hello message, bytes: two hosts, a name and numbers.
pub const HELLO_BYTES_MAX: usize = 1024;

const _: () = assert!(2 * HOST_BYTES_MAX + MASTER_NAME_BYTES_MAX + 160 <= HELLO_BYTES_MAX);

/// Largest reply to INFO that is looked at, bytes. A server without odd modules sends about 6 KiB.
pub const INFO_BYTES_MAX: usize = 1024 * 1024;

/// Bytes of one connection to a server or peer that may wait for the end of a reply; then it is cut.
pub const SENTINEL_REPLY_BYTES_MAX: usize = INFO_BYTES_MAX + RECEIVE_BYTES_MAX;

/// Replies that a connection of a Sentinel may owe; then nothing but questions and orders is sent
/// on it. As in Redis.
pub const SENTINEL_PENDING_MAX: usize = 100;

/// Clients of a Sentinel, peers among them. As Redis' `maxclients`.
pub const SENTINEL_CLIENTS_MAX: usize = 10_000;

/// Bytes that a client of a Sentinel may leave unread; then it is closed. As Redis' limit for
/// subscribers.
pub const SENTINEL_CLIENT_OUTPUT_BYTES_MAX: usize = 32 * 1024 * 1024;

/// Bytes of a request to a Sentinel; the largest that is of use is a few hundred.
pub const SENTINEL_REQUEST_BYTES_MAX: usize = 1024 * 1024;

/// Channels and patterns of one subscriber of a Sentinel; there are some thirty events.
pub const SENTINEL_SUBSCRIPTIONS_MAX: usize = 1024;

/// Scripts that wait to run; then the oldest that waits is dropped. As in Redis.
pub const SENTINEL_SCRIPTS_MAX: usize = 256;

/// Scripts that run at once. As in Redis.
pub const SENTINEL_SCRIPTS_RUNNING_MAX: usize = 16;

/// How often a script is run that asks for it. As in Redis.
pub const SENTINEL_SCRIPT_RUNS_MAX: u32 = 10;

const _: () = assert!(SENTINEL_SCRIPTS_RUNNING_MAX < ERRANDS_MAX);

/// Largest file that a worker has read, bytes; one that is larger is not read. A thousand users take
/// a hundred kilobytes.
pub const FILE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Users of a Sentinel; more are refused.
pub const SENTINEL_USERS_MAX: usize = 1024;

/// Passwords and selectors of one user, and patterns of one selector; more are refused.
pub const SENTINEL_USER_RULES_MAX: usize = 1024;

/// Refused requests that ACL LOG tells; then the oldest is forgotten. As in Redis.
pub const SENTINEL_REFUSED_MAX: usize = 128;

/// Bytes of changes behind the text of a Sentinel's state; with more it is written anew. Reading
/// them at the start takes a millisecond.
pub const SENTINEL_JOURNAL_BYTES_MAX: usize = 64 * 1024;

/// Largest time in a Sentinel's configuration, milliseconds: 24 days, as in Redis' 31 bits.
pub const SENTINEL_TIME_MS_MAX: u64 = i32::MAX as u64;

/// Records of a Sentinel that may be on their way to the disk; then it takes no epoch over and
/// gives no vote. Each is some hundred bytes.
pub const PERSISTS_IN_FLIGHT_MAX: usize = 1024;

/// How long a VRRP router that was not run for longer than its peers wait goes on reading before
/// it speaks: it takes what has queued up meanwhile, and no peer notices the delay.
pub const VRRP_LATE_READ: Duration = Duration::from_millis(1);

/// From when on a worker counts as one that was not run for a while, so that its channels are read
/// before its timers run whatever they are for. A wake-up takes some tens of microseconds.
pub const LATE: Duration = Duration::from_millis(1);

/// Times that an Active router puts back virtual addresses that somebody removed, within
/// [`VRRP_REINSTATE_WINDOW`]; then it lets another router have them. Two programs must not fight
/// over an address forever.
pub const VRRP_REINSTATEMENTS_MAX: u32 = 5;

/// The time in which [`VRRP_REINSTATEMENTS_MAX`] counts.
pub const VRRP_REINSTATE_WINDOW: Duration = Duration::from_secs(60);

/// How long virtual addresses may stay behind the goodbye of a router whose successor is not heard.
/// Routers take over within an interval; a longer one must not keep a process from ending.
pub const VRRP_LINGER_MAX: Duration = Duration::from_secs(1);

/// How long the reset of an address's connections is waited for before the address goes: another
/// router may answer for it by then.
pub const VRRP_RESETS_TIME: Duration = Duration::from_millis(15);

/// How often workers are asked whether their pools can serve, for virtual routers. What is told
/// without being asked does not wait for it.
pub const HEALTH_PERIOD: Duration = Duration::from_secs(1);

/// How long something that was ill must be well before virtual routers believe it. Each relapse
/// within [`VRRP_HEALTH_CALM`] doubles that, up to [`VRRP_HEALTH_HOLD_MAX`]: addresses must not
/// wander to and fro with it.
pub const VRRP_HEALTH_HOLD: Duration = Duration::from_secs(1);

/// The longest that something must be well before virtual routers believe it.
pub const VRRP_HEALTH_HOLD_MAX: Duration = Duration::from_secs(60);

/// Being ill again so soon after a recovery counts as a relapse.
pub const VRRP_HEALTH_CALM: Duration = Duration::from_secs(60);

/// Things whose health virtual routers follow; more are not followed. One for each pool and
/// listener, and each at most 100 bytes.
pub const VRRP_HEALTH_SOURCES_MAX: usize = 4096;

/// Unicast peers of one virtual router. Each advert is sent once to each.
pub const VRRP_PEERS_MAX: usize = 255;

/// Blocks inside blocks in a keepalived.conf; genuine files need four.
pub const KEEPALIVED_DEPTH_MAX: usize = 16;

/// Lines of a keepalived.conf after variables and repetitions are expanded, and how often one line
/// may be expanded. More are an error: a few characters can ask for billions.
pub const KEEPALIVED_LINES_MAX: usize = 100_000;

/// Longest line of a keepalived.conf after expansion, bytes.
pub const KEEPALIVED_LINE_BYTES_MAX: usize = 64 * 1024;

/// Variables inside variables in a keepalived.conf.
pub const KEEPALIVED_EXPANSIONS_MAX: usize = 100;

/// Files that include files in a keepalived.conf, one inside the other.
pub const KEEPALIVED_INCLUDES_MAX: usize = 64;

/// Files that a keepalived.conf may include together.
pub const KEEPALIVED_FILES_MAX: usize = 4096;

/// How long a program that is told of a transition may run; then it is ended, because news after
/// it wait.
pub const VRRP_NOTIFY_TIME: Duration = Duration::from_secs(60);

/// How long a program may take after SIGTERM before it is killed. As keepalived.
pub const SCRIPT_KILL_DELAY: Duration = Duration::from_secs(2);

/// Asks a program to end.
pub const SIGTERM: i32 = 15;

/// Ends a program.
pub const SIGKILL: i32 = 9;

/// How long a channel that failed is left alone before it is opened again.
pub const CHANNEL_RETRY: Duration = Duration::from_secs(1);

/// Announcements of one interface that may wait for their turn; more are dropped. Room for two
/// bursts of every address of a full router.
pub const ANNOUNCEMENTS_WAITING_MAX: usize = 4096;

/// Bytes of a tracked file that are looked at: a number and blanks.
pub const TRACKED_FILE_BYTES_MAX: u32 = 64;

/// Slow requests that a worker remembers, as Redis' default; some 150 bytes each.
pub const SLOW_ENTRIES_MAX: usize = 128;

/// Examples of requests that a worker remembers, for whoever watches the traffic; some 150 bytes
/// each. Older ones are overwritten.
pub const SAMPLES_MAX: usize = 256;

/// Shortest time between two examples of a worker: at most 100 of them a second.
pub const SAMPLE_INTERVAL: Duration = Duration::from_millis(10);

/// Rows of the sketch that counts keys: the chance that a count is much too high is below two in a
/// hundred.
pub const SKETCH_ROWS: usize = 4;

/// Counters in each row, four bytes each; with [`SKETCH_ROWS`] 64 KiB. A count is too high by about
/// a two-thousandth of all requests.
pub const SKETCH_COLUMNS: usize = 4096;

/// Keys that are listed as most asked for, and as largest.
pub const HOT_KEYS_MAX: usize = 32;

/// How long a question to the other workers waits for their answers; then whoever asked gets what
/// came. Workers answer within a turn, which takes microseconds.
pub const ANSWER_DEADLINE: Duration = Duration::from_millis(500);

/// Questions of clients to the other workers that may be under way at one worker; then clients are
/// told to try again.
pub const QUESTIONS_MAX: usize = 256;

/// Things told about masters that are kept for whoever asks why. A fail-over tells some thirty; an
/// entry is 200 bytes or so.
pub const CHRONICLE_LEN_MAX: usize = 1024;

/// Connections of the admin listener and of the statistics port together; more are closed at once.
/// Few programs ask, and each asks seldom.
pub const ADMIN_CONNECTIONS_MAX: usize = 64;

/// How long an admin connection may be idle, or take for a request.
pub const ADMIN_IDLE: Duration = Duration::from_secs(60);

/// Longest head of an HTTP request, bytes; above it 431 and the connection ends.
pub const HTTP_HEAD_BYTES_MAX: usize = 8 * 1024;

/// Header fields of an HTTP request; above it 431.
pub const HTTP_FIELDS_MAX: usize = 64;

/// Largest body of an HTTP request, bytes; above it 413. Commands need none.
pub const HTTP_BODY_BYTES_MAX: usize = 64 * 1024;

/// Default time from which on a request is slow, as Redis' `slowlog-log-slower-than`.
pub const SLOW_AFTER_DEFAULT: Duration = Duration::from_millis(10);

/// How often whoever watches examples of requests is sent new ones.
pub const TAIL_INTERVAL: Duration = Duration::from_millis(250);

/// How often whoever watches the status is sent a new one: what an eye can follow, and at most one
/// question a second for the workers however many watch.
pub const WATCH_INTERVAL: Duration = Duration::from_secs(1);

/// Unsent bytes of an admin connection above which it gets no more examples.
pub const ADMIN_UNSENT_BYTES_MAX: usize = 256 * 1024;

/// Handshakes that go on in one turn; the others wait for the next. One costs up to a millisecond,
/// so that many at once do not keep a worker from its timers.
pub const TLS_HANDSHAKES_PER_TURN: usize = 8;

/// How long a client may take for a handshake.
pub const TLS_HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);

/// Bytes of a client that waits for its turn to shake hands; who sends more is closed. A handshake
/// has a few thousand.
pub const TLS_WAITING_BYTES_MAX: usize = 32 * 1024;

/// Bytes that are encrypted at once, so that a large reply is not in memory twice.
pub const TLS_WRITE_BYTES_MAX: usize = 256 * 1024;

/// How long nothing is said of a host whose handshakes fail for the same reason again and again.
pub const TLS_SILENCE: Duration = Duration::from_secs(60);

/// Hosts whose failures are remembered for that; then all are forgotten.
pub const TLS_TOLD_MAX: usize = 1024;

/// Addresses of one virtual server; each is a listening socket.
pub const VIRTUAL_ADDRESSES_MAX: usize = 256;

/// Bytes of one direction of a relayed connection that may wait behind a write that is under way;
/// then its sender is not read. What the kernel holds comes on top.
pub const RELAY_WAITING_BYTES: usize = 64 * 1024;

/// Bytes of one direction that may collect within one turn, before anything can be written.
pub const RELAY_TURN_BYTES: usize = 4 * RELAY_WAITING_BYTES;

/// How long a server may take to accept a relayed connection; then the next one is tried.
pub const RELAY_CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// How long a relayed connection with one direction closed may be silent. As IPVS keeps them.
pub const RELAY_HALF_CLOSED_MAX: Duration = Duration::from_secs(120);

/// Relayed connections of one process. Each has two descriptors.
pub const RELAYS_MAX: usize = 1 << 20;

/// Clients of one virtual server whose server is remembered; then the one that was seen longest
/// ago is forgotten. About 100 bytes each.
pub const PERSISTENT_CLIENTS_MAX: usize = 65_536;

/// Bytes of a checked server's reply that are kept to be looked through; more fails the check.
pub const CHECK_REPLY_BYTES_MAX: usize = 256 * 1024;

/// Bytes of a checked server's reply that are read at all; more fails the check.
pub const CHECK_BODY_BYTES_MAX: usize = 16 * 1024 * 1024;

const _: () = assert!(HTTP_HEAD_BYTES_MAX < CHECK_REPLY_BYTES_MAX);

/// How long a program that is told of a server or a quorum may run; then it is ended, because news
/// after it wait.
pub const BALANCE_NOTIFY_TIME: Duration = Duration::from_secs(60);

/// How long the last programs may take when balancing ends.
pub const BALANCE_STOP_PATIENCE: Duration = Duration::from_secs(1);

/// Shortest time between two checks of a server that clients could not reach.
pub const CHECK_HURRY_INTERVAL: Duration = Duration::from_secs(1);

/// Places in the table of the scheduler `sh` and `dh`. As IPVS.
pub const HASH_TABLE_PLACES: usize = 256;

/// Places in the table of the scheduler `mh`, a prime. As IPVS' default.
pub const MAGLEV_PLACES: usize = 4093;
