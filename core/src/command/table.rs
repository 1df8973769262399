//! The table, and how a name is found in it.

use super::Treatment::{AnyServer, Forward};
use super::{Command, Flags, Keys, Local, Refusal, Special, Split, Treatment};

/// Returns every command, sorted by name.
pub fn all() -> &'static [Command] {
    &COMMANDS
}

/// Finds a command by its name, in any case.
#[inline]
pub fn lookup(name: &[u8]) -> Option<&'static Command> {
    lookup_at(name).map(|(_, command)| command)
}

/// Like [`lookup`], with the command's place in [`all`].
#[inline]
pub fn lookup_at(name: &[u8]) -> Option<(u8, &'static Command)> {
    let folded = Folded::of(name);
    let mut slot = folded.slot();
    // Ends at the first empty slot: the table is at most half full.
    loop {
        let place = *SLOTS.get(slot % SLOT_COUNT)?;
        let index = usize::from(place);
        let candidate = FOLDED.get(index)?;
        if candidate.low == folded.low
            && candidate.high == folded.high
            && candidate.len == folded.len
        {
            let command = COMMANDS.get(index)?;
            if candidate.is_whole || command.name.as_bytes().eq_ignore_ascii_case(name) {
                return Some((place, command));
            }
        }
        slot += 1;
    }
}

/// Power of two, so that the remainder is a mask.
const SLOT_COUNT: usize = 1024;
const SLOT_BITS: u32 = SLOT_COUNT.trailing_zeros();

/// No command has this index.
const EMPTY: u8 = u8::MAX;

const _: () = assert!(COMMANDS.len() < EMPTY as usize);
const _: () = assert!(COMMANDS.len() * 2 <= SLOT_COUNT);

/// Indices into `COMMANDS` by hash; the next free slot takes a collision.
static SLOTS: [u8; SLOT_COUNT] = slots();

#[expect(
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "evaluated by the compiler; the assertions above say that all fits"
)]
const fn slots() -> [u8; SLOT_COUNT] {
    let mut slots = [EMPTY; SLOT_COUNT];
    let mut index = 0;
    while index < COMMANDS.len() {
        let mut slot = FOLDED[index].slot();
        while slots[slot % SLOT_COUNT] != EMPTY {
            slot += 1;
        }
        slots[slot % SLOT_COUNT] = index as u8;
        index += 1;
    }
    slots
}

/// The names of `COMMANDS`, folded, in the same order.
static FOLDED: [Folded; COMMANDS.len()] = folded();

#[expect(clippy::indexing_slicing, reason = "evaluated by the compiler")]
const fn folded() -> [Folded; COMMANDS.len()] {
    let mut folded = [Folded { low: 0, high: 0, len: 0, is_whole: false }; COMMANDS.len()];
    let mut index = 0;
    while index < COMMANDS.len() {
        let name = COMMANDS[index].name.as_bytes();
        folded[index] = Folded::of(name);
        let mut is_whole = name.len() <= 16;
        let mut at = 0;
        while at < name.len() {
            is_whole &= name[at].is_ascii_lowercase();
            at += 1;
        }
        folded[index].is_whole = is_whole;
        index += 1;
    }
    folded
}

/// A name as two words that overlap, blind to case, so that most names are compared without a
/// loop.
#[derive(Clone, Copy)]
struct Folded {
    /// The first bytes, at most eight.
    low: u64,
    /// The last bytes, at most eight.
    high: u64,
    len: usize,
    /// Whether the words say all about a name: it has no more bytes than they hold, and letters
    /// only, which nothing but the same letters folds to. Of the table's names only.
    is_whole: bool,
}

impl Folded {
    #[inline]
    const fn of(name: &[u8]) -> Self {
        let (low, high) = if let (Some(first), Some(last)) =
            (name.first_chunk::<8>(), name.last_chunk::<8>())
        {
            (u64::from_le_bytes(*first), u64::from_le_bytes(*last))
        } else if let (Some(first), Some(last)) = (name.first_chunk::<4>(), name.last_chunk::<4>())
        {
            (u32::from_le_bytes(*first) as u64, u32::from_le_bytes(*last) as u64)
        } else if let ([first, ..], [.., last]) = (name, name) {
            let middle = if let [_, middle, _] = name { *middle } else { 0 };
            (u16::from_le_bytes([*first, middle]) as u64, *last as u64)
        } else {
            (0, 0)
        };
        // Sets the bit that makes ASCII letters small.
        let small = 0x2020_2020_2020_2020;
        Self { low: low | small, high: high | small, len: name.len(), is_whole: false }
    }

    #[inline]
    const fn slot(&self) -> usize {
        let mixed = self.low.wrapping_mul(0x9e37_79b9_7f4a_7c15)
            ^ self
                .high
                .rotate_left(29)
                .wrapping_add(self.len as u64)
                .wrapping_mul(0xc2b2_ae3d_27d4_eb4f);
        // As many bits as the table has slots for.
        (mixed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - SLOT_BITS)) as usize
    }
}

const fn row(
    name: &'static str,
    arity: i16,
    flags: Flags,
    keys: Keys,
    treatment: Treatment,
) -> Command {
    Command { name, arity, flags, keys, treatment }
}

const fn range(first: u8, last: i8, step: u8) -> Keys {
    Keys::Range { first, last, step }
}

const fn counted(count_at: u8, first: u8, destination: u8) -> Keys {
    Keys::Counted { count_at, first, destination }
}

const fn special(special: Special) -> Keys {
    Keys::Special(special)
}

const fn local(local: Local) -> Treatment {
    Treatment::Local(local)
}

const fn split(split: Split) -> Treatment {
    Treatment::Split(split)
}

const fn refuse(refusal: Refusal) -> Treatment {
    Treatment::Refuse(refusal)
}

const NONE: Keys = Keys::None;
const ONE: Keys = range(1, 1, 1);
const TWO: Keys = range(1, 2, 1);
const ALL: Keys = range(1, -1, 1);
const Z: Flags = Flags::NONE;
const W: Flags = Flags::WRITE;
const R: Flags = Flags::READONLY;
const B: Flags = Flags::BLOCKING;
const A: Flags = Flags::ADMIN;
const N: Flags = Flags::KEYS_OPTIONAL;
const S: Flags = Flags::SCRIPT;

/// Source: COMMAND of Redis 7.0; the test `command_table` compares. A container of subcommands has
/// the flags of those of its subcommands that have a key.
#[rustfmt::skip]
static COMMANDS: [Command; 240] = [
    row("acl", -2, Z, NONE, refuse(Refusal::Admin)),
    row("append", 3, W, ONE, Forward),
    row("asking", 1, Z, NONE, refuse(Refusal::Cluster)),
    row("auth", -2, Z, NONE, local(Local::Auth)),
    row("bgrewriteaof", 1, A, NONE, refuse(Refusal::Admin)),
    row("bgsave", -1, A, NONE, refuse(Refusal::Admin)),
    row("bitcount", -2, R, ONE, Forward),
    row("bitfield", -2, W, ONE, Forward),
    row("bitfield_ro", -2, R, ONE, Forward),
    row("bitop", -4, W, range(2, -1, 1), Forward),
    row("bitpos", -3, R, ONE, Forward),
    row("blmove", 6, W.and(B), TWO, refuse(Refusal::Blocking)),
    row("blmpop", -5, W.and(B), counted(2, 3, 0), refuse(Refusal::Blocking)),
    row("blpop", -3, W.and(B), range(1, -2, 1), refuse(Refusal::Blocking)),
    row("brpop", -3, W.and(B), range(1, -2, 1), refuse(Refusal::Blocking)),
    row("brpoplpush", 4, W.and(B), TWO, refuse(Refusal::Blocking)),
    row("bzmpop", -5, W.and(B), counted(2, 3, 0), refuse(Refusal::Blocking)),
    row("bzpopmax", -3, W.and(B), range(1, -2, 1), refuse(Refusal::Blocking)),
    row("bzpopmin", -3, W.and(B), range(1, -2, 1), refuse(Refusal::Blocking)),
    row("client", -2, Z, NONE, local(Local::Client)),
    row("cluster", -2, Z, NONE, refuse(Refusal::Cluster)),
    row("command", -1, Z, NONE, local(Local::Command)),
    row("config", -2, Z, NONE, refuse(Refusal::Admin)),
    row("copy", -3, W, TWO, Forward),
    row("dbsize", 1, R, NONE, refuse(Refusal::NotSharded)),
    row("debug", -2, A, NONE, refuse(Refusal::Admin)),
    row("decr", 2, W, ONE, Forward),
    row("decrby", 3, W, ONE, Forward),
    row("del", -2, W, ALL, split(Split::Del)),
    row("discard", 1, Z, NONE, refuse(Refusal::Transaction)),
    row("dump", 2, R, ONE, Forward),
    row("echo", 2, Z, NONE, local(Local::Echo)),
    row("eval", -3, N.and(S), counted(2, 3, 0), Forward),
    row("eval_ro", -3, R.and(N), counted(2, 3, 0), Forward),
    row("evalsha", -3, N.and(S), counted(2, 3, 0), Forward),
    row("evalsha_ro", -3, R.and(N), counted(2, 3, 0), Forward),
    row("exec", 1, Z, NONE, refuse(Refusal::Transaction)),
    row("exists", -2, R, ALL, split(Split::Exists)),
    row("expire", -3, W, ONE, Forward),
    row("expireat", -3, W, ONE, Forward),
    row("expiretime", 2, R, ONE, Forward),
    row("failover", -1, A, NONE, refuse(Refusal::Admin)),
    row("fcall", -3, N.and(S), counted(2, 3, 0), Forward),
    row("fcall_ro", -3, R.and(N), counted(2, 3, 0), Forward),
    row("flushall", -1, W, NONE, refuse(Refusal::NotSharded)),
    row("flushdb", -1, W, NONE, refuse(Refusal::NotSharded)),
    row("function", -2, Z, NONE, refuse(Refusal::NotSharded)),
    row("geoadd", -5, W, ONE, Forward),
    row("geodist", -4, R, ONE, Forward),
    row("geohash", -2, R, ONE, Forward),
    row("geopos", -2, R, ONE, Forward),
    row("georadius", -6, W, special(Special::GeoStore), Forward),
    row("georadius_ro", -6, R, ONE, Forward),
    row("georadiusbymember", -5, W, special(Special::GeoStore), Forward),
    row("georadiusbymember_ro", -5, R, ONE, Forward),
    row("geosearch", -7, R, ONE, Forward),
    row("geosearchstore", -8, W, TWO, Forward),
    row("get", 2, R, ONE, Forward),
    row("getbit", 3, R, ONE, Forward),
    row("getdel", 2, W, ONE, Forward),
    row("getex", -2, W, ONE, Forward),
    row("getrange", 4, R, ONE, Forward),
    row("getset", 3, W, ONE, Forward),
    row("hdel", -3, W, ONE, Forward),
    row("hello", -1, Z, NONE, local(Local::Hello)),
    row("hexists", 3, R, ONE, Forward),
    row("hget", 3, R, ONE, Forward),
    row("hgetall", 2, R, ONE, Forward),
    row("hincrby", 4, W, ONE, Forward),
    row("hincrbyfloat", 4, W, ONE, Forward),
    row("hkeys", 2, R, ONE, Forward),
    row("hlen", 2, R, ONE, Forward),
    row("hmget", -3, R, ONE, Forward),
    row("hmset", -4, W, ONE, Forward),
    row("hrandfield", -2, R, ONE, Forward),
    row("hscan", -3, R, ONE, Forward),
    row("hset", -4, W, ONE, Forward),
    row("hsetnx", 4, W, ONE, Forward),
    row("hstrlen", 3, R, ONE, Forward),
    row("hvals", 2, R, ONE, Forward),
    row("incr", 2, W, ONE, Forward),
    row("incrby", 3, W, ONE, Forward),
    row("incrbyfloat", 3, W, ONE, Forward),
    row("info", -1, Z, NONE, local(Local::Info)),
    row("keys", 2, R, NONE, refuse(Refusal::NotSharded)),
    row("lastsave", 1, Z, NONE, refuse(Refusal::Admin)),
    row("latency", -2, Z, NONE, local(Local::Latency)),
    row("lcs", -3, R, TWO, Forward),
    row("lindex", 3, R, ONE, Forward),
    row("linsert", 5, W, ONE, Forward),
    row("llen", 2, R, ONE, Forward),
    row("lmove", 5, W, TWO, Forward),
    row("lmpop", -4, W, counted(1, 2, 0), Forward),
    row("lolwut", -1, R, NONE, AnyServer),
    row("lpop", -2, W, ONE, Forward),
    row("lpos", -3, R, ONE, Forward),
    row("lpush", -3, W, ONE, Forward),
    row("lpushx", -3, W, ONE, Forward),
    row("lrange", 4, R, ONE, Forward),
    row("lrem", 4, W, ONE, Forward),
    row("lset", 4, W, ONE, Forward),
    row("ltrim", 4, W, ONE, Forward),
    row("memory", -2, R, special(Special::Memory), Forward),
    row("mget", -2, R, ALL, split(Split::Mget)),
    row("migrate", -6, W, range(3, 3, 1), refuse(Refusal::Admin)),
    row("module", -2, Z, NONE, refuse(Refusal::Admin)),
    row("monitor", 1, A, NONE, refuse(Refusal::Monitor)),
    row("move", 3, W, ONE, Forward),
    row("mset", -3, W, range(1, -1, 2), split(Split::Mset)),
    row("msetnx", -3, W, range(1, -1, 2), Forward),
    row("multi", 1, Z, NONE, refuse(Refusal::Transaction)),
    row("object", -2, R, special(Special::Object), Forward),
    row("persist", 2, W, ONE, Forward),
    row("pexpire", -3, W, ONE, Forward),
    row("pexpireat", -3, W, ONE, Forward),
    row("pexpiretime", 2, R, ONE, Forward),
    row("pfadd", -2, W, ONE, Forward),
    row("pfcount", -2, R, ALL, Forward),
    row("pfdebug", 3, W.and(A), range(2, 2, 1), refuse(Refusal::Admin)),
    row("pfmerge", -2, W, ALL, Forward),
    row("pfselftest", 1, A, NONE, refuse(Refusal::Admin)),
    row("ping", -1, Z, NONE, local(Local::Ping)),
    row("psetex", 4, W, ONE, Forward),
    row("psubscribe", -2, Z, NONE, refuse(Refusal::Subscribe)),
    row("psync", -3, A, NONE, refuse(Refusal::Admin)),
    row("pttl", 2, R, ONE, Forward),
    row("publish", 3, Z, NONE, refuse(Refusal::Subscribe)),
    row("pubsub", -2, Z, NONE, refuse(Refusal::Subscribe)),
    row("punsubscribe", -1, Z, NONE, refuse(Refusal::Subscribe)),
    row("quit", -1, Z, NONE, local(Local::Quit)),
    row("randomkey", 1, R, NONE, refuse(Refusal::NotSharded)),
    row("readonly", 1, Z, NONE, refuse(Refusal::Cluster)),
    row("readwrite", 1, Z, NONE, refuse(Refusal::Cluster)),
    row("rename", 3, W, TWO, Forward),
    row("renamenx", 3, W, TWO, Forward),
    row("replconf", -1, A, NONE, refuse(Refusal::Admin)),
    row("replicaof", 3, A, NONE, refuse(Refusal::Admin)),
    row("reset", 1, Z, NONE, local(Local::Reset)),
    row("restore", -4, W, ONE, Forward),
    row("restore-asking", -4, W, ONE, refuse(Refusal::Cluster)),
    row("role", 1, Z, NONE, refuse(Refusal::Admin)),
    row("rpop", -2, W, ONE, Forward),
    row("rpoplpush", 3, W, TWO, Forward),
    row("rpush", -3, W, ONE, Forward),
    row("rpushx", -3, W, ONE, Forward),
    row("sadd", -3, W, ONE, Forward),
    row("save", 1, A, NONE, refuse(Refusal::Admin)),
    row("scan", -2, R, NONE, refuse(Refusal::NotSharded)),
    row("scard", 2, R, ONE, Forward),
    row("script", -2, Z, NONE, refuse(Refusal::NotSharded)),
    row("sdiff", -2, R, ALL, Forward),
    row("sdiffstore", -3, W, ALL, Forward),
    row("select", 2, Z, NONE, local(Local::Select)),
    row("set", -3, W, ONE, Forward),
    row("setbit", 4, W, ONE, Forward),
    row("setex", 4, W, ONE, Forward),
    row("setnx", 3, W, ONE, Forward),
    row("setrange", 4, W, ONE, Forward),
    row("shutdown", -1, A, NONE, refuse(Refusal::Admin)),
    row("sinter", -2, R, ALL, Forward),
    row("sintercard", -3, R, counted(1, 2, 0), Forward),
    row("sinterstore", -3, W, ALL, Forward),
    row("sismember", 3, R, ONE, Forward),
    row("slaveof", 3, A, NONE, refuse(Refusal::Admin)),
    row("slowlog", -2, Z, NONE, local(Local::Slowlog)),
    row("smembers", 2, R, ONE, Forward),
    row("smismember", -3, R, ONE, Forward),
    row("smove", 4, W, TWO, Forward),
    row("sort", -2, W, special(Special::Sort), Forward),
    row("sort_ro", -2, R, special(Special::Sort), Forward),
    row("spop", -2, W, ONE, Forward),
    row("spublish", 3, Z, ONE, refuse(Refusal::Subscribe)),
    row("srandmember", -2, R, ONE, Forward),
    row("srem", -3, W, ONE, Forward),
    row("sscan", -3, R, ONE, Forward),
    row("ssubscribe", -2, Z, ALL, refuse(Refusal::Subscribe)),
    row("strlen", 2, R, ONE, Forward),
    row("subscribe", -2, Z, NONE, refuse(Refusal::Subscribe)),
    row("substr", 4, R, ONE, Forward),
    row("sunion", -2, R, ALL, Forward),
    row("sunionstore", -3, W, ALL, Forward),
    row("sunsubscribe", -1, Z, ALL, refuse(Refusal::Subscribe)),
    row("swapdb", 3, W, NONE, refuse(Refusal::Admin)),
    row("sync", 1, A, NONE, refuse(Refusal::Admin)),
    row("time", 1, Z, NONE, local(Local::Time)),
    row("touch", -2, R, ALL, split(Split::Touch)),
    row("ttl", 2, R, ONE, Forward),
    row("type", 2, R, ONE, Forward),
    row("unlink", -2, W, ALL, split(Split::Unlink)),
    row("unsubscribe", -1, Z, NONE, refuse(Refusal::Subscribe)),
    row("unwatch", 1, Z, NONE, refuse(Refusal::Transaction)),
    row("wait", 3, Z, NONE, refuse(Refusal::Wait)),
    row("watch", -2, Z, ALL, refuse(Refusal::Transaction)),
    row("xack", -4, W, ONE, Forward),
    row("xadd", -5, W, ONE, Forward),
    row("xautoclaim", -6, W, ONE, Forward),
    row("xclaim", -6, W, ONE, Forward),
    row("xdel", -3, W, ONE, Forward),
    row("xgroup", -2, W, special(Special::Xgroup), Forward),
    row("xinfo", -2, R, special(Special::Xinfo), Forward),
    row("xlen", 2, R, ONE, Forward),
    row("xpending", -3, R, ONE, Forward),
    row("xrange", -4, R, ONE, Forward),
    row("xread", -4, R.and(B), special(Special::Streams), Forward),
    row("xreadgroup", -7, W.and(B), special(Special::Streams), Forward),
    row("xrevrange", -4, R, ONE, Forward),
    row("xsetid", -3, W, ONE, Forward),
    row("xtrim", -4, W, ONE, Forward),
    row("zadd", -4, W, ONE, Forward),
    row("zcard", 2, R, ONE, Forward),
    row("zcount", 4, R, ONE, Forward),
    row("zdiff", -3, R, counted(1, 2, 0), Forward),
    row("zdiffstore", -4, W, counted(2, 3, 1), Forward),
    row("zincrby", 4, W, ONE, Forward),
    row("zinter", -3, R, counted(1, 2, 0), Forward),
    row("zintercard", -3, R, counted(1, 2, 0), Forward),
    row("zinterstore", -4, W, counted(2, 3, 1), Forward),
    row("zlexcount", 4, R, ONE, Forward),
    row("zmpop", -4, W, counted(1, 2, 0), Forward),
    row("zmscore", -3, R, ONE, Forward),
    row("zpopmax", -2, W, ONE, Forward),
    row("zpopmin", -2, W, ONE, Forward),
    row("zrandmember", -2, R, ONE, Forward),
    row("zrange", -4, R, ONE, Forward),
    row("zrangebylex", -4, R, ONE, Forward),
    row("zrangebyscore", -4, R, ONE, Forward),
    row("zrangestore", -5, W, TWO, Forward),
    row("zrank", 3, R, ONE, Forward),
    row("zrem", -3, W, ONE, Forward),
    row("zremrangebylex", 4, W, ONE, Forward),
    row("zremrangebyrank", 4, W, ONE, Forward),
    row("zremrangebyscore", 4, W, ONE, Forward),
    row("zrevrange", -4, R, ONE, Forward),
    row("zrevrangebylex", -4, R, ONE, Forward),
    row("zrevrangebyscore", -4, R, ONE, Forward),
    row("zrevrank", 3, R, ONE, Forward),
    row("zscan", -3, R, ONE, Forward),
    row("zscore", 3, R, ONE, Forward),
    row("zunion", -3, R, counted(1, 2, 0), Forward),
    row("zunionstore", -4, W, counted(2, 3, 1), Forward),
];
