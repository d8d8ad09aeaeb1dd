//! A table for what is too large to stand beside a name: it stands on a shelf, by the name's slot. Core.

use super::table::{Pause, Place, Table};

/// Values in a block: so many are made room for at a time, and none is ever moved.
const BLOCK: usize = 1024;

/// See the module. A slot without a name has a default value on the shelf.
pub struct Shelf<T> {
    names: Table<0>,
    blocks: Vec<Vec<T>>,
}

impl<T> Default for Shelf<T> {
    fn default() -> Shelf<T> {
        Shelf {
            names: Table::default(),
            blocks: Vec::new(),
        }
    }
}

impl<T: Default> Shelf<T> {
    /// The names.
    pub fn names(&self) -> &Table<0> {
        &self.names
    }

    /// Where a name is.
    #[inline]
    pub fn find(&self, name: &[u8]) -> Option<Place> {
        self.names.find(name)
    }

    /// What is kept under a name.
    pub fn get(&self, place: Place) -> &T {
        let slot = self.names.slot(place) as usize;
        &self.blocks[slot / BLOCK][slot % BLOCK]
    }

    /// What is kept under a name, and its slot.
    #[inline]
    pub fn get_mut(&mut self, place: Place) -> (&mut T, u32) {
        let slot = self.names.slot(place);
        (self.value_mut(slot), slot)
    }

    /// Enters a name in a bank: what is kept under it, and its slot.
    #[inline]
    pub fn enter(&mut self, place: Place, bank: usize) -> (&mut T, u32) {
        let slot = self.names.enter(place, bank).0.slot();
        (self.value_mut(slot), slot)
    }

    #[inline]
    fn value_mut(&mut self, slot: u32) -> &mut T {
        &mut self.blocks[slot as usize / BLOCK][slot as usize % BLOCK]
    }

    /// Adds a name that is not there yet, in a bank.
    pub fn insert(&mut self, name: &[u8], bank: usize) -> Place {
        let place = self.names.insert(name, bank, []);
        let slot = self.names.slot(place) as usize;
        if slot / BLOCK == self.blocks.len() {
            // The first one is as large as it has to be.
            let capacity = if slot == 0 { 0 } else { BLOCK };
            self.blocks.push(Vec::with_capacity(capacity));
        }
        let block = &mut self.blocks[slot / BLOCK];
        if slot % BLOCK == block.len() {
            block.push(T::default());
        }
        place
    }

    /// Takes a name out, and gives what was kept under it.
    pub fn remove(&mut self, place: Place) -> T {
        let value = std::mem::take(self.get_mut(place).0);
        self.names.remove(place);
        value
    }

    /// See [`Table::compact`].
    pub fn compact(&mut self, limit: usize) -> bool {
        self.names.compact(limit)
    }

    /// See [`Table::drain_begin`].
    pub fn drain_begin(&mut self) {
        self.names.drain_begin();
    }

    /// See [`Table::drain_next`].
    pub fn drain_next(&mut self, limit: usize) -> Result<Place, Pause> {
        self.names.drain_next(limit)
    }
}
