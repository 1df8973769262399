//! A map from small numbers, which are its places.

use std::ops::Index;

/// As a map with ordered keys, and reached without a search.
#[derive(Debug)]
pub(crate) struct Slots<T> {
    places: Vec<Option<T>>,
    len: usize,
}

impl<T> Default for Slots<T> {
    fn default() -> Self {
        Self { places: Vec::new(), len: 0 }
    }
}

impl<T> Slots<T> {
    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn get(&self, key: usize) -> Option<&T> {
        self.places.get(key)?.as_ref()
    }

    pub(crate) fn get_mut(&mut self, key: usize) -> Option<&mut T> {
        self.places.get_mut(key)?.as_mut()
    }

    fn place(&mut self, key: usize) -> &mut Option<T> {
        if key >= self.places.len() {
            self.places.resize_with(key + 1, || None);
        }
        &mut self.places[key]
    }

    /// Returns what was there before.
    pub(crate) fn insert(&mut self, key: usize, value: T) -> Option<T> {
        let before = self.place(key).replace(value);
        self.len += usize::from(before.is_none());
        before
    }

    pub(crate) fn get_or_default(&mut self, key: usize) -> &mut T
    where
        T: Default,
    {
        if self.get(key).is_none() {
            self.insert(key, T::default());
        }
        self.place(key).get_or_insert_default()
    }

    pub(crate) fn clear(&mut self) {
        self.places.clear();
        self.len = 0;
    }

    /// All values, in the order of their keys.
    pub(crate) fn values(&self) -> impl Iterator<Item = &T> {
        self.places.iter().flatten()
    }

    /// All values, in the order of their keys.
    pub(crate) fn values_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.places.iter_mut().flatten()
    }
}

impl<T> Index<usize> for Slots<T> {
    type Output = T;

    fn index(&self, key: usize) -> &T {
        match self.get(key) {
            Some(value) => value,
            None => panic!("nothing at {key}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_come_in_the_order_of_their_keys() {
        let mut slots = Slots::default();
        assert_eq!((slots.insert(7, 'b'), slots.insert(2, 'a')), (None, None));
        assert_eq!(slots.insert(7, 'c'), Some('b'));
        assert_eq!((slots.len(), slots[7], slots.get(3)), (2, 'c', None));
        assert_eq!(slots.values().collect::<String>(), "ac");
        assert_eq!(*slots.get_or_default(9), '\0');
        slots.clear();
        assert_eq!((slots.len(), slots.get_mut(7)), (0, None));
    }
}
