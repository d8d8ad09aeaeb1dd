//! A part of a table's index: from the hash of a name to where the name is. Core: no I/O.

use super::arena::Place;

/// Open addressing with linear probing. An entry is 0, or a tag (32 bits of the hash, which also say
/// where it wants to be) over a place plus one.
#[derive(Default)]
pub(super) struct Shard {
    entries: Box<[u64]>,
    used: usize,
}

/// The place that an entry holds.
#[inline]
pub(super) fn place_in(entry: u64) -> Option<Place> {
    (entry as u32).checked_sub(1).map(Place)
}

#[inline]
fn tag_in(entry: u64) -> u32 {
    (entry >> 32) as u32
}

impl Shard {
    #[inline]
    pub(super) fn find(&self, tag: u32, is_it: impl Fn(Place) -> bool) -> Option<Place> {
        let entry = self.likely(tag);
        match place_in(entry) {
            Some(place) if tag_in(entry) == tag && is_it(place) => Some(place),
            _ => self.search(tag, is_it),
        }
    }

    /// The first entry where a tag wants to be, or the second. It is chosen without a branch, which the
    /// processor could not predict.
    #[inline]
    pub(super) fn likely(&self, tag: u32) -> u64 {
        let mask = self.entries.len().wrapping_sub(1);
        let entry = |at: usize| self.entries.get(at & mask).copied().unwrap_or(0);
        let (first, second) = (entry(tag as usize), entry(tag as usize + 1));
        if tag_in(first) == tag { first } else { second }
    }

    fn search(&self, tag: u32, is_it: impl Fn(Place) -> bool) -> Option<Place> {
        let mask = self.entries.len().wrapping_sub(1);
        let mut at = tag as usize;
        loop {
            // Out of range only without any entry at all.
            let entry = *self.entries.get(at & mask)?;
            let place = place_in(entry)?;
            if tag_in(entry) == tag && is_it(place) {
                return Some(place);
            }
            at += 1;
        }
    }

    pub(super) fn insert(&mut self, tag: u32, place: Place) {
        if (self.used + 1) * 4 > self.entries.len() * 3 {
            let doubled = vec![0; (self.entries.len() * 2).max(8)].into_boxed_slice();
            let old = std::mem::replace(&mut self.entries, doubled);
            old.iter()
                .filter(|entry| **entry != 0)
                .for_each(|entry| self.place(*entry));
        }
        self.place(u64::from(tag) << 32 | u64::from(place.0 + 1));
        self.used += 1;
    }

    fn place(&mut self, entry: u64) {
        let mask = self.entries.len() - 1;
        let mut at = (entry >> 32) as usize & mask;
        while self.entries[at] != 0 {
            at = (at + 1) & mask;
        }
        self.entries[at] = entry;
    }

    /// The name has moved.
    pub(super) fn replace(&mut self, tag: u32, from: Place, to: Place) {
        let mask = self.entries.len() - 1;
        let entry = |place: Place| u64::from(tag) << 32 | u64::from(place.0 + 1);
        let mut at = tag as usize & mask;
        while self.entries[at] != entry(from) {
            at = (at + 1) & mask;
        }
        self.entries[at] = entry(to);
    }

    /// Takes an entry out and moves up those behind it that had to give way, so that no gap stands
    /// between an entry and the place it wants.
    pub(super) fn remove(&mut self, tag: u32, place: Place) {
        let mask = self.entries.len() - 1;
        let entry = u64::from(tag) << 32 | u64::from(place.0 + 1);
        let mut gap = tag as usize & mask;
        while self.entries[gap] != entry {
            gap = (gap + 1) & mask;
        }
        let mut at = gap;
        loop {
            self.entries[gap] = 0;
            loop {
                at = (at + 1) & mask;
                if self.entries[at] == 0 {
                    self.used -= 1;
                    return;
                }
                let wanted = (self.entries[at] >> 32) as usize & mask;
                // May it move into the gap? Only if that is not in front of where it wants to be.
                if at.wrapping_sub(wanted) & mask >= at.wrapping_sub(gap) & mask {
                    break;
                }
            }
            self.entries[gap] = self.entries[at];
            gap = at;
        }
    }

    /// Takes all entries out and keeps the memory.
    pub(super) fn clear(&mut self) {
        self.entries.fill(0);
        self.used = 0;
    }

    /// Bytes of memory asked for.
    pub(super) fn allocated(&self) -> usize {
        self.entries.len() * size_of::<u64>()
    }
}
