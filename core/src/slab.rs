//! A table whose slots are used again, with a generation per slot so that an old name finds
//! nobody.

/// A value's place: index and generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlabKey {
    /// The slot.
    pub index: u32,
    /// How often the slot had been used before.
    pub generation: u32,
}

#[derive(Debug)]
struct Slot<T> {
    generation: u32,
    value: Option<T>,
}

/// A bounded table with stable keys. Freed slots are used again, last freed first, so a table
/// stays as dense as its busiest moment.
#[derive(Debug)]
pub struct Slab<T> {
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
    len: usize,
    len_max: usize,
}

impl<T> Slab<T> {
    /// Makes an empty table for at most `len_max` values.
    pub const fn new(len_max: usize) -> Self {
        Self { slots: Vec::new(), free: Vec::new(), len: 0, len_max }
    }

    /// Changes the bound; values beyond a smaller one stay until they are removed.
    pub const fn set_len_max(&mut self, len_max: usize) {
        self.len_max = len_max;
    }

    /// Returns how many values are in the table.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Tells whether the table holds nothing.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Tells whether the table takes nothing more.
    pub const fn is_full(&self) -> bool {
        self.len >= self.len_max
    }

    /// Stores the value that `make` builds from its key; `None` when the table is full.
    pub fn insert_with(&mut self, make: impl FnOnce(SlabKey) -> T) -> Option<SlabKey> {
        if self.len >= self.len_max {
            return None;
        }
        let index = match self.free.pop() {
            Some(index) => index,
            None => {
                let index = u32::try_from(self.slots.len()).ok()?;
                self.slots.push(Slot { generation: 0, value: None });
                index
            }
        };
        let slot = self.slots.get_mut(index as usize)?;
        let key = SlabKey { index, generation: slot.generation };
        slot.value = Some(make(key));
        self.len += 1;
        Some(key)
    }

    /// Returns the value under `key`, if it is still the one that the key was made for.
    pub fn get(&self, key: SlabKey) -> Option<&T> {
        let slot = self.slots.get(key.index as usize)?;
        if slot.generation == key.generation { slot.value.as_ref() } else { None }
    }

    /// Like [`Slab::get`], for changing the value.
    pub fn get_mut(&mut self, key: SlabKey) -> Option<&mut T> {
        let slot = self.slots.get_mut(key.index as usize)?;
        if slot.generation == key.generation { slot.value.as_mut() } else { None }
    }

    /// Takes the value out and makes every copy of its key stale.
    pub fn remove(&mut self, key: SlabKey) -> Option<T> {
        let slot = self.slots.get_mut(key.index as usize)?;
        if slot.generation != key.generation {
            return None;
        }
        let value = slot.value.take()?;
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(key.index);
        self.len -= 1;
        Some(value)
    }

    /// Visits every value in the order of the slots.
    pub fn iter(&self) -> impl Iterator<Item = (SlabKey, &T)> {
        self.slots.iter().enumerate().filter_map(|(index, slot)| {
            let value = slot.value.as_ref()?;
            let index = u32::try_from(index).ok()?;
            Some((SlabKey { index, generation: slot.generation }, value))
        })
    }

    /// Returns what is in it, to be changed.
    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.slots.iter_mut().filter_map(|slot| slot.value.as_mut())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_key_finds_nobody_after_the_slot_is_used_again() {
        let mut slab = Slab::new(2);
        let first = slab.insert_with(|_| 'a').unwrap();
        assert_eq!(slab.remove(first), Some('a'));
        let second = slab.insert_with(|_| 'b').unwrap();
        assert_eq!(second.index, first.index);
        assert_eq!(slab.get(first), None);
        assert_eq!(slab.remove(first), None);
        assert_eq!(slab.get(second), Some(&'b'));
    }

    #[test]
    fn a_full_table_refuses() {
        let mut slab = Slab::new(1);
        assert!(slab.insert_with(|_| ()).is_some());
        assert!(slab.insert_with(|_| ()).is_none());
        assert_eq!(slab.len(), 1);
    }
}
