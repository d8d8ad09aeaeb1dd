//! A table from names to slots, built for millions of names that mostly stay. Core: no I/O.
//!
//! Three parts, each growing in small steps so that no insertion ever stalls the daemon:
//!
//! ```text
//! shard (one of 256 by the hash's top byte)      slots                        names (one arena)
//! [tag | slot+1][      ][tag | slot+1] …   ->   [offset length flags data] -> …prod.web1.hits…
//! ```
//!
//! A look-up costs one cache miss in each, and allocates nothing. A slot is 8 bytes beside its data,
//! an index entry 8 bytes at a load of 3/8 to 3/4, a name its length rounded up to 8.
//!
//! A flush walks the slots with a cursor while metrics keep coming in ([`Table::drain_begin`]); a slot
//! that is filled in front of the cursor meanwhile is marked, and the walk passes over it.

use foldhash::fast::RandomState;
use std::hash::{BuildHasher, Hasher};

/// Names up to this length can be stored; the parser's limit on a line is below it.
pub const MAX_NAME: usize = u16::MAX as usize;

/// A table starts as one shard and is split into this many once it has [`SPLIT_AT`] names: a small
/// table stays small, and a large one grows a shard at a time, a few thousand entries each.
const SHARDS: usize = 256;
const SPLIT_AT: usize = 4096;

/// The slot has a name in it.
const LIVE: u8 = 1;
/// Filled after the walk under way began, in front of its cursor: not part of it.
const LATE: u8 = 2;
/// The bank (0 or 1) that the slot was last entered in.
const BANK: u8 = 4;

/// See the module.
pub struct Table<P> {
    shards: Vec<Shard>,
    slots: Vec<Slot<P>>,
    /// Slots without a name, to be filled again.
    vacant: Vec<u32>,
    names: Arena,
    hasher: RandomState,
    /// The walk under way: the next slot, and where it ends.
    cursor: u32,
    cursor_end: u32,
}

/// A name and what is kept under it.
struct Slot<P> {
    /// Where the name is in the arena.
    name: u32,
    name_length: u16,
    flags: u8,
    data: P,
}

impl<P: Default> Default for Table<P> {
    fn default() -> Table<P> {
        Table {
            shards: Vec::new(),
            slots: Vec::new(),
            vacant: Vec::new(),
            names: Arena::default(),
            hasher: RandomState::default(),
            cursor: 0,
            cursor_end: 0,
        }
    }
}

impl<P: Default> Table<P> {
    /// The number of names.
    pub fn len(&self) -> usize {
        self.slots.len() - self.vacant.len()
    }

    /// True without a name.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of memory that the table has asked for.
    pub fn allocated(&self) -> usize {
        self.slots.capacity() * size_of::<Slot<P>>()
            + self
                .shards
                .iter()
                .map(|shard| shard.entries.len() * 8)
                .sum::<usize>()
            + self.names.bytes.capacity()
    }

    /// Bytes that names take, the room that is free among them.
    pub fn name_bytes(&self) -> usize {
        self.names.bytes.len()
    }

    /// Bytes that one more name of this length would add to [`Table::name_bytes`].
    pub fn growth_for(&self, length: usize) -> usize {
        self.names.growth_for(length)
    }

    /// The slot of a name.
    #[inline]
    pub fn find(&self, name: &[u8]) -> Option<u32> {
        let hash = self.hash(name);
        let shard = self.shards.get(self.shard_of(hash))?;
        shard.find(hash as u32, |id| self.name(id) == name)
    }

    /// The data in a slot.
    #[inline]
    pub fn get_mut(&mut self, id: u32) -> &mut P {
        &mut self.slots[id as usize].data
    }

    /// The data in a slot.
    pub fn get(&self, id: u32) -> &P {
        &self.slots[id as usize].data
    }

    /// Enters a slot in a bank: its data, and whether it was in the other bank until now.
    #[inline]
    pub fn enter(&mut self, id: u32, bank: usize) -> (&mut P, bool) {
        let slot = &mut self.slots[id as usize];
        let before = slot.flags;
        slot.flags = before & !BANK | bank_flag(bank);
        (&mut slot.data, before != slot.flags)
    }

    /// Whether the slot was last entered in this bank.
    #[inline]
    pub fn is_in(&self, id: u32, bank: usize) -> bool {
        self.slots[id as usize].flags & BANK == bank_flag(bank)
    }

    /// The name in a slot; empty if it is vacant.
    #[inline]
    pub fn name(&self, id: u32) -> &[u8] {
        let slot = &self.slots[id as usize];
        self.names.get(slot.name, usize::from(slot.name_length))
    }

    /// The slots there are, vacant ones among them; see [`Table::live`].
    pub fn slot_count(&self) -> u32 {
        self.slots.len() as u32
    }

    /// Whether a slot has a name in it.
    pub fn live(&self, id: u32) -> bool {
        self.slots[id as usize].flags & LIVE != 0
    }

    /// Adds a name that is not there yet, in a bank, and gives its slot.
    pub fn insert(&mut self, name: &[u8], bank: usize, data: P) -> u32 {
        debug_assert!(name.len() <= MAX_NAME && self.find(name).is_none());
        let slot = Slot {
            name: self.names.add(name),
            name_length: name.len() as u16,
            flags: LIVE | bank_flag(bank),
            data,
        };
        let id = match self.vacant.pop() {
            Some(id) => {
                self.slots[id as usize] = slot;
                id
            }
            None => {
                self.slots.push(slot);
                (self.slots.len() - 1) as u32
            }
        };
        if (self.cursor..self.cursor_end).contains(&id) {
            self.slots[id as usize].flags |= LATE;
        }
        if self.shards.is_empty() {
            self.shards.push(Shard::default());
        }
        if self.shards.len() == 1 && self.len() > SPLIT_AT {
            self.split();
        } else {
            let hash = self.hash(name);
            self.shard_mut(hash).insert(hash as u32, id);
        }
        id
    }

    /// Takes a name out; its slot is filled again later.
    pub fn remove(&mut self, id: u32) {
        if !self.live(id) {
            return;
        }
        let hash = self.hash(self.name(id));
        self.shard_mut(hash).remove(hash as u32, id);
        let slot = &mut self.slots[id as usize];
        slot.flags = 0;
        slot.data = P::default();
        self.names.remove(slot.name, usize::from(slot.name_length));
        slot.name_length = 0;
        self.vacant.push(id);
    }

    /// Takes all names out and gives most of the memory back if `keep` is not set.
    pub fn clear(&mut self, keep: bool) {
        if !keep {
            *self = Table::default();
            return;
        }
        self.shards.iter_mut().for_each(|shard| {
            shard.entries.fill(0);
            shard.used = 0;
        });
        self.slots.clear();
        self.vacant.clear();
        self.names.clear();
        (self.cursor, self.cursor_end) = (0, 0);
    }

    /// Begins a walk over the names that are there now.
    pub fn drain_begin(&mut self) {
        (self.cursor, self.cursor_end) = (0, self.slots.len() as u32);
    }

    /// The next slot of the walk; `None` at its end. At most `limit` vacant slots are passed over,
    /// then the walk is given back as [`Step::More`], so that one call is short.
    pub fn drain_next(&mut self, limit: usize) -> Step {
        for _ in 0..limit {
            if self.cursor >= self.cursor_end {
                (self.cursor, self.cursor_end) = (0, 0);
                return Step::End;
            }
            let id = self.cursor;
            self.cursor += 1;
            let slot = &mut self.slots[id as usize];
            if slot.flags & (LIVE | LATE) == LIVE {
                return Step::Slot(id);
            }
            slot.flags &= !LATE;
        }
        Step::More
    }

    #[inline]
    fn hash(&self, name: &[u8]) -> u64 {
        let mut hasher = self.hasher.build_hasher();
        hasher.write(name);
        hasher.finish()
    }

    #[inline]
    fn shard_of(&self, hash: u64) -> usize {
        (hash >> 56) as usize & self.shards.len().wrapping_sub(1)
    }

    fn shard_mut(&mut self, hash: u64) -> &mut Shard {
        let shard = self.shard_of(hash);
        &mut self.shards[shard]
    }

    /// Once in a table's life: from one shard to [`SHARDS`].
    fn split(&mut self) {
        self.shards = (0..SHARDS).map(|_| Shard::default()).collect();
        for id in 0..self.slots.len() as u32 {
            if self.live(id) {
                let hash = self.hash(self.name(id));
                self.shard_mut(hash).insert(hash as u32, id);
            }
        }
    }
}

#[inline]
fn bank_flag(bank: usize) -> u8 {
    (bank as u8 & 1) * BANK
}

/// What [`Table::drain_next`] gives.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// A slot with a name.
    Slot(u32),
    /// Nothing yet; call again.
    More,
    /// The walk is over.
    End,
}

/// Open addressing with linear probing. An entry is 0, or a tag (32 bits of the hash, which also say
/// where it wants to be) over a slot number plus one.
#[derive(Default)]
struct Shard {
    entries: Box<[u64]>,
    used: usize,
}

impl Shard {
    #[inline]
    fn find(&self, tag: u32, is_it: impl Fn(u32) -> bool) -> Option<u32> {
        let mask = self.entries.len().wrapping_sub(1);
        let mut at = tag as usize;
        loop {
            // Out of range only without any entry at all.
            let entry = *self.entries.get(at & mask)?;
            if entry == 0 {
                return None;
            }
            if (entry >> 32) as u32 == tag {
                let id = (entry as u32) - 1;
                if is_it(id) {
                    return Some(id);
                }
            }
            at += 1;
        }
    }

    fn insert(&mut self, tag: u32, id: u32) {
        if (self.used + 1) * 4 > self.entries.len() * 3 {
            let doubled = vec![0; (self.entries.len() * 2).max(8)].into_boxed_slice();
            let old = std::mem::replace(&mut self.entries, doubled);
            old.iter()
                .filter(|entry| **entry != 0)
                .for_each(|entry| self.place(*entry));
        }
        self.place(u64::from(tag) << 32 | u64::from(id + 1));
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

    /// Takes an entry out and moves up those behind it that had to give way, so that no gap stands
    /// between an entry and the place it wants.
    fn remove(&mut self, tag: u32, id: u32) {
        let mask = self.entries.len() - 1;
        let entry = u64::from(tag) << 32 | u64::from(id + 1);
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
}

/// Names one behind the other, addressed by 32 bits in units of 8 bytes (so 32 GiB of them). The room
/// of a name that was taken out goes to the next one of its size: nothing is ever moved.
#[derive(Default)]
struct Arena {
    bytes: Vec<u8>,
    /// For each size in units: the first free room plus one, which holds the next, and so on.
    free: Vec<u32>,
}

const UNIT: usize = 8;

impl Arena {
    #[inline]
    fn get(&self, at: u32, length: usize) -> &[u8] {
        let from = at as usize * UNIT;
        &self.bytes[from..from + length]
    }

    fn add(&mut self, name: &[u8]) -> u32 {
        let units = name.len().div_ceil(UNIT);
        let room = self.free.get(units).copied().unwrap_or(0);
        if room == 0 || units == 0 {
            let at = self.bytes.len() / UNIT;
            self.bytes.extend_from_slice(name);
            self.bytes.resize((at + units) * UNIT, 0);
            return at as u32;
        }
        let from = (room - 1) as usize * UNIT;
        let mut next = [0; 4];
        next.copy_from_slice(&self.bytes[from..from + 4]);
        self.free[units] = u32::from_le_bytes(next);
        self.bytes[from..from + name.len()].copy_from_slice(name);
        room - 1
    }

    fn growth_for(&self, length: usize) -> usize {
        let units = length.div_ceil(UNIT);
        match self.free.get(units) {
            Some(room) if *room != 0 => 0,
            _ => units * UNIT,
        }
    }

    fn remove(&mut self, at: u32, length: usize) {
        let units = length.div_ceil(UNIT);
        if units == 0 {
            return;
        }
        if self.free.len() <= units {
            self.free.resize(units + 1, 0);
        }
        let from = at as usize * UNIT;
        self.bytes[from..from + 4].copy_from_slice(&self.free[units].to_le_bytes());
        self.free[units] = at + 1;
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.free.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    /// Random insertions and removals against the standard library's map.
    #[test]
    fn agrees_with_a_map() {
        let mut table: Table<u64> = Table::default();
        let mut map: HashMap<String, u64> = HashMap::new();
        let mut state = 1u64;
        for round in 0..200_000u64 {
            state = state
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            let key = format!(
                "{}{}",
                "n".repeat((state >> 40) as usize % 30),
                (state >> 33) % 9000
            );
            match (table.find(key.as_bytes()), state >> 60 < 10) {
                (Some(id), true) => *table.get_mut(id) = round,
                (None, true) => {
                    table.insert(key.as_bytes(), 0, round);
                }
                (Some(id), false) => table.remove(id),
                (None, false) => continue,
            }
            if state >> 60 < 10 {
                map.insert(key, round)
            } else {
                map.remove(&key)
            };
        }
        assert!(
            map.len() > SPLIT_AT,
            "the test is to reach the split: {}",
            map.len()
        );
        assert_eq!(table.len(), map.len());
        for (key, value) in &map {
            let id = table.find(key.as_bytes()).unwrap();
            assert_eq!(table.get(id), value);
            assert_eq!(table.name(id), key.as_bytes());
        }
        let live = (0..table.slot_count()).filter(|id| table.live(*id)).count();
        assert_eq!(live, map.len());
    }

    #[test]
    fn churn_does_not_grow() {
        let mut table: Table<u64> = Table::default();
        for round in 0..100_000u64 {
            let id = table.insert(format!("name.{round:09}").as_bytes(), 0, 0);
            if round >= 100 {
                let old = table
                    .find(format!("name.{:09}", round - 100).as_bytes())
                    .unwrap();
                table.remove(old);
            }
            assert!(id <= 100);
        }
        assert!(table.allocated() < 16_000, "{}", table.allocated());
    }

    #[test]
    fn a_walk_sees_what_was_there_when_it_began() {
        let mut table: Table<u64> = Table::default();
        for name in ["a", "b", "c", "d"] {
            table.insert(name.as_bytes(), 0, 0);
        }
        let b = table.find(b"b").unwrap();
        table.remove(b);
        table.drain_begin();
        assert_eq!(table.drain_next(9), Step::Slot(0));
        // In front of the cursor, at the end, and behind the cursor.
        assert_eq!(table.insert(b"late", 0, 0), b);
        table.insert(b"later", 0, 0);
        table.remove(0);
        assert_eq!(table.insert(b"again", 0, 0), 0);
        assert_eq!(table.drain_next(9), Step::Slot(2));
        assert_eq!(table.drain_next(9), Step::Slot(3));
        assert_eq!(table.drain_next(9), Step::End);
        table.drain_begin();
        let mut seen = Vec::new();
        while let Step::Slot(id) = table.drain_next(9) {
            seen.push(String::from_utf8_lossy(table.name(id)).into_owned());
        }
        assert_eq!(seen, ["again", "late", "c", "d", "later"]);
    }
}
