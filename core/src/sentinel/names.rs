//! Names for connections, questions, tickets and jobs, told apart from those of other machines
//! that share the worker.

use crate::id::ConnId;
use crate::slab::{Slab, SlabKey};

/// Where a machine's names begin, so that several can share one worker: whose a name is follows
/// from its number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NameBase {
    /// First index of its connections, of clients and of servers alike.
    pub conn: u32,
    /// Its questions to the resolver have higher numbers.
    pub query: u32,
    /// Its tickets have higher numbers.
    pub ticket: u64,
    /// Its jobs have higher numbers.
    pub job: u64,
}

impl NameBase {
    /// Tells whether a connection belongs to a machine that begins here, or to one behind it.
    pub const fn has_conn(&self, conn: ConnId) -> bool {
        conn.index() >= self.conn
    }
}

/// A table whose keys begin at a base.
#[derive(Debug)]
pub(crate) struct Table<T> {
    slab: Slab<T>,
    base: u32,
}

impl<T> Table<T> {
    pub(crate) const fn new(len_max: usize, base: u32) -> Self {
        Self { slab: Slab::new(len_max), base }
    }

    pub(crate) const fn len(&self) -> usize {
        self.slab.len()
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.slab.is_empty()
    }

    pub(crate) fn insert(&mut self, value: T) -> Option<SlabKey> {
        let base = self.base;
        self.slab.insert_with(|_| value).map(|key| SlabKey { index: key.index + base, ..key })
    }

    pub(crate) fn get(&self, key: SlabKey) -> Option<&T> {
        self.slab.get(self.inner(key)?)
    }

    pub(crate) fn get_mut(&mut self, key: SlabKey) -> Option<&mut T> {
        self.slab.get_mut(self.inner(key)?)
    }

    pub(crate) fn remove(&mut self, key: SlabKey) -> Option<T> {
        self.slab.remove(self.inner(key)?)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (SlabKey, &T)> {
        let base = self.base;
        self.slab.iter().map(move |(key, value)| {
            (SlabKey { index: key.index.saturating_add(base), ..key }, value)
        })
    }

    fn inner(&self, key: SlabKey) -> Option<SlabKey> {
        Some(SlabKey { index: key.index.checked_sub(self.base)?, ..key })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_knows_its_own_keys_only() {
        let mut table = Table::new(2, 64);
        let key = table.insert('a').unwrap();
        assert_eq!(key.index, 64);
        assert_eq!(table.get(key), Some(&'a'));
        assert_eq!(table.get(SlabKey { index: 0, generation: 0 }), None);
        assert_eq!(table.iter().map(|(key, _)| key.index).collect::<Vec<_>>(), [64]);
        assert_eq!(table.remove(key), Some('a'));
        let base = NameBase { conn: 64, ..NameBase::default() };
        assert!(base.has_conn(ConnId::server(64, 0)) && !base.has_conn(ConnId::client(63, 9)));
    }
}
