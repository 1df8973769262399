//! Which keys are asked for most, and which values are largest, in fixed memory.
//!
//! Counts come from a count-min sketch (Cormode and Muthukrishnan, 2005): each key has one counter
//! in each of a few rows, shared with others by chance, and the smallest of them bounds its count
//! from above. Beside it the keys with the largest counts are kept by name.

use xxhash_rust::xxh3::xxh3_64;

use super::{KeyHead, Name};
use crate::id::PoolId;
use crate::limits::{HOT_KEYS_MAX, SKETCH_COLUMNS, SKETCH_ROWS};

const _: () = assert!(SKETCH_COLUMNS.is_power_of_two());

/// A key and how often it was asked for; the count may be too high, never too low.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HotKey<P> {
    /// The pool.
    pub pool: P,
    /// Its beginning.
    pub key: KeyHead,
    /// Requests since watching began.
    pub count: u64,
    hash: u64,
}

/// A key with a large request or reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BigValue<P> {
    /// The pool.
    pub pool: P,
    /// Its beginning.
    pub key: KeyHead,
    /// Length of the longer of request and reply, bytes.
    pub bytes: u64,
}

/// What watching keys has found. Made when watching begins, dropped when it ends.
#[derive(Debug)]
pub struct KeyWatch {
    rows: Box<[[u32; SKETCH_COLUMNS]; SKETCH_ROWS]>,
    hot: Vec<HotKey<PoolId>>,
    big: Vec<BigValue<PoolId>>,
    /// What a value must exceed to be listed.
    big_floor: u64,
    requests: u64,
}

impl Default for KeyWatch {
    fn default() -> Self {
        Self {
            rows: Box::new([[0; SKETCH_COLUMNS]; SKETCH_ROWS]),
            hot: Vec::with_capacity(HOT_KEYS_MAX),
            big: Vec::with_capacity(HOT_KEYS_MAX),
            big_floor: 0,
            requests: 0,
        }
    }
}

impl KeyWatch {
    /// Counts a request for `key`.
    pub fn note_key(&mut self, pool: PoolId, key: &[u8]) {
        let hash = xxh3_64(key) ^ u64::from(pool.0).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.requests += 1;
        let mut least = u32::MAX;
        let mut places = hash;
        for row in self.rows.iter_mut() {
            #[expect(clippy::cast_possible_truncation, reason = "the mask is small")]
            let column = (places & (SKETCH_COLUMNS as u64 - 1)) as usize;
            places = places.rotate_right(SKETCH_COLUMNS.trailing_zeros());
            if let Some(counter) = row.get_mut(column) {
                *counter = counter.saturating_add(1);
                least = least.min(*counter);
            }
        }
        self.rank(pool, key, hash, u64::from(least));
    }

    /// Lists the key if it is among the most asked for. The list is sorted, the hottest first.
    fn rank(&mut self, pool: PoolId, key: &[u8], hash: u64, count: u64) {
        let is_full = self.hot.len() >= HOT_KEYS_MAX;
        if is_full && self.hot.last().is_some_and(|last| count <= last.count && last.hash != hash) {
            return;
        }
        let at = match self.hot.iter().position(|listed| listed.hash == hash) {
            Some(at) => at,
            None if is_full => self.hot.len() - 1,
            None => {
                let key = KeyHead::EMPTY;
                self.hot.push(HotKey { pool, key, count: 0, hash: !hash });
                self.hot.len() - 1
            }
        };
        if let Some(place) = self.hot.get_mut(at) {
            if place.hash != hash {
                *place = HotKey { pool, key: KeyHead::of(key), count, hash };
            }
            place.count = count;
        }
        let mut at = at;
        while at > 0 && self.hot.get(at - 1).is_some_and(|above| above.count < count) {
            self.hot.swap(at - 1, at);
            at -= 1;
        }
    }

    /// Looks at the size of a request or reply.
    #[inline]
    pub fn note_size(&mut self, pool: PoolId, key: KeyHead, bytes: u64) {
        if bytes > self.big_floor && !key.bytes().is_empty() {
            self.list_big(BigValue { pool, key, bytes });
        }
    }

    fn list_big(&mut self, value: BigValue<PoolId>) {
        if let Some(listed) =
            self.big.iter_mut().find(|listed| listed.pool == value.pool && listed.key == value.key)
        {
            if value.bytes > listed.bytes {
                *listed = value;
            }
        } else if self.big.len() < HOT_KEYS_MAX {
            self.big.push(value);
        } else if let Some(last) = self.big.last_mut() {
            *last = value;
        }
        self.big.sort_by_key(|listed| std::cmp::Reverse(listed.bytes));
        if self.big.len() >= HOT_KEYS_MAX {
            self.big_floor = self.big.last().map_or(0, |last| last.bytes);
        }
    }

    /// Returns what was found so far; `name` knows the pools.
    pub fn found(&self, name: impl Fn(PoolId) -> Name) -> FoundKeys {
        let hot = self.hot.iter().map(|hot| HotKey {
            pool: name(hot.pool),
            key: hot.key,
            count: hot.count,
            hash: hot.hash,
        });
        let big = self.big.iter().map(|big| BigValue {
            pool: name(big.pool),
            key: big.key,
            bytes: big.bytes,
        });
        FoundKeys { requests: self.requests, hot: hot.collect(), big: big.collect() }
    }
}

/// What one worker, or several together, found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FoundKeys {
    /// Requests that were looked at.
    pub requests: u64,
    /// The keys most asked for, the hottest first.
    pub hot: Vec<HotKey<Name>>,
    /// The keys with the largest values, the largest first.
    pub big: Vec<BigValue<Name>>,
}

impl FoundKeys {
    /// Adds what another worker found. A key that only one of them lists keeps that one's count.
    pub fn merge(&mut self, other: Self) {
        self.requests += other.requests;
        for more in other.hot {
            match self.hot.iter_mut().find(|listed| listed.hash == more.hash) {
                Some(listed) => listed.count += more.count,
                None => self.hot.push(more),
            }
        }
        self.hot.sort_by_key(|listed| std::cmp::Reverse(listed.count));
        self.hot.truncate(HOT_KEYS_MAX);
        for more in other.big {
            match self
                .big
                .iter_mut()
                .find(|listed| listed.pool == more.pool && listed.key == more.key)
            {
                Some(listed) if listed.bytes >= more.bytes => {}
                Some(listed) => *listed = more,
                None => self.big.push(more),
            }
        }
        self.big.sort_by_key(|listed| std::cmp::Reverse(listed.bytes));
        self.big.truncate(HOT_KEYS_MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    const POOL: PoolId = PoolId(0);

    fn name(pool: PoolId) -> Name {
        format!("pool {}", pool.0).into()
    }

    #[test]
    fn the_most_asked_for_keys_are_found_among_many() {
        let mut watch = KeyWatch::default();
        let mut rng = Rng::new(7);
        for round in 0..200_000_u64 {
            // Every tenth request is for one of five keys, the first of them most often.
            let key = if round % 10 == 0 {
                format!("hot:{}", rng.below(5).min(rng.below(5)))
            } else {
                format!("cold:{}", rng.below(100_000))
            };
            watch.note_key(POOL, key.as_bytes());
        }
        let found = watch.found(name);
        assert_eq!(found.requests, 200_000);
        let top: Vec<String> = found.hot.iter().take(3).map(|hot| hot.key.to_string()).collect();
        assert_eq!(top, ["hot:0", "hot:1", "hot:2"]);
        // 9 of 25 requests for a hot key are for the first, 7,200 in all; chance adds a little.
        let first = found.hot.first().unwrap().count;
        assert!((7000..7700).contains(&first), "{first}");
        assert!(found.hot.is_sorted_by(|one, next| one.count >= next.count));
        assert_eq!(found.hot.len(), HOT_KEYS_MAX);
    }

    #[test]
    fn the_largest_values_are_listed_once_each() {
        let mut watch = KeyWatch::default();
        for bytes in 0..1000_u64 {
            let key = KeyHead::of(format!("key:{}", bytes % 100).as_bytes());
            watch.note_size(POOL, key, bytes);
        }
        let found = watch.found(name);
        assert_eq!(found.big.len(), HOT_KEYS_MAX);
        let sizes: Vec<u64> = found.big.iter().map(|big| big.bytes).collect();
        let expected: Vec<u64> = (0..HOT_KEYS_MAX as u64).map(|at| 999 - at).collect();
        assert_eq!(sizes, expected);
    }

    #[test]
    fn what_several_workers_found_adds_up() {
        let (mut one, mut other) = (KeyWatch::default(), KeyWatch::default());
        for _ in 0..3 {
            one.note_key(POOL, b"a");
            other.note_key(POOL, b"a");
            other.note_key(POOL, b"b");
        }
        one.note_size(POOL, KeyHead::of(b"a"), 10);
        other.note_size(POOL, KeyHead::of(b"a"), 20);
        let mut sum = one.found(name);
        sum.merge(other.found(name));
        assert_eq!(sum.requests, 9);
        let counts: Vec<_> = sum.hot.iter().map(|hot| (hot.key.to_string(), hot.count)).collect();
        assert_eq!(counts, [("a".to_owned(), 6), ("b".to_owned(), 3)]);
        assert_eq!(sum.big.iter().map(|big| big.bytes).collect::<Vec<_>>(), [20]);
    }

    #[test]
    fn equal_keys_of_two_pools_are_two_keys() {
        let mut watch = KeyWatch::default();
        watch.note_key(PoolId(0), b"a");
        watch.note_key(PoolId(1), b"a");
        assert_eq!(watch.found(name).hot.len(), 2);
    }
}
