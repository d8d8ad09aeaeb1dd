//! A table from names to what is kept under them, built for millions of names that mostly stay. Core: no
//! I/O.
//!
//! Three parts, each growing in small steps so that no insertion ever stalls the daemon:
//!
//! ```text
//! shard (one of 256 by the hash's top byte)        records (an arena of chunks)
//! [tag | place+1][      ][tag | place+1] …   ->   [length flags slot][words][…prod.web1.hits] …
//!                                     slots                ^
//!                                     [place+1] …  --------'
//! ```
//!
//! A look-up costs two cache misses, one in the index and one in the record, which has the words beside
//! the name, and allocates nothing. A name takes 8 bytes beside its words and itself (rounded up to 8),
//! 4 for its slot, and an index entry of 8 at a load of 3/8 to 3/4.
//!
//! A slot is a name's number for as long as it stays: walks go by it. A flush walks the slots with a cursor
//! while metrics keep coming in ([`Table::drain_begin`]); a slot that is filled in front of the cursor
//! meanwhile is marked, and the walk passes over it. Where a record is may change ([`Table::compact`]).

pub use crate::store::arena::Place;
use crate::store::arena::{Arena, HEADER, Head, Header, Slide};
use crate::store::index::{Shard, place_in};
use foldhash::fast::RandomState;
use std::hash::{BuildHasher, Hasher};

/// Names up to this length can be stored; the parser's limit on a line is below it.
pub const MAX_NAME: usize = u16::MAX as usize;

/// A table starts as one shard and is split into this many once it has [`SPLIT_AT`] names: a small
/// table stays small, and a large one grows a shard at a time, a few thousand entries each.
const SHARDS: usize = 256;
const SPLIT_AT: usize = 4096;

/// From so many names on, of some 90 bytes each, a table is larger than the cache next to the processor.
const LARGE: usize = 32 * 1024;

/// The record has a name in it.
const LIVE: u8 = 1;
/// Filled after the walk under way began, in front of its cursor: not part of it.
const LATE: u8 = 2;
/// The bank (0 or 1) that the record was last entered in.
const BANK: u8 = 4;

/// See the module. Beside each name so many words of 8 bytes are kept.
pub struct Table<const WORDS: usize> {
    shards: Vec<Shard>,
    /// The place plus one; 0 is vacant.
    slots: Vec<u32>,
    /// Slots without a name, to be filled again.
    vacant: Vec<u32>,
    records: Arena<WORDS>,
    hasher: RandomState,
    /// The walk under way: the next slot, and where it ends.
    cursor: u32,
    cursor_end: u32,
}

impl<const WORDS: usize> Default for Table<WORDS> {
    fn default() -> Self {
        Table {
            shards: Vec::new(),
            slots: Vec::new(),
            vacant: Vec::new(),
            records: Arena::new(),
            hasher: RandomState::default(),
            cursor: 0,
            cursor_end: 0,
        }
    }
}

impl<const WORDS: usize> Table<WORDS> {
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
        let index = self.shards.iter().map(Shard::allocated);
        index.sum::<usize>() + self.slots.capacity() * 4 + self.records.allocated()
    }

    /// Bytes that names take, the room that is free among them.
    pub fn name_bytes(&self) -> usize {
        self.records.used() - self.len() * (HEADER + WORDS * 8)
    }

    /// Bytes that one more name of this length would add to [`Table::name_bytes`].
    pub fn growth_for(&self, length: usize) -> usize {
        self.records.growth_for(length)
    }

    /// Where a name is.
    #[inline]
    pub fn find(&self, name: &[u8]) -> Option<Place> {
        let hash = self.hash(name);
        let shard = self.shards.get(self.shard_of(hash))?;
        shard.find(hash as u32, |place| self.records.name(place) == name)
    }

    /// Whether the table is too large for the processor's cache, so that [`Table::look_ahead`] pays.
    #[inline]
    pub fn is_large(&self) -> bool {
        self.slots.len() >= LARGE
    }

    /// Has what the look-ups of these names will need brought into the processor's cache.
    ///
    /// A look-up waits for its index entry and then for its record. Here all entries are read before the
    /// first record, and nothing is decided by what they hold, so that the memory works on all of them
    /// at once. What is found is no answer: it may be another name's.
    pub fn look_ahead<const N: usize>(&self, names: &[&[u8]; N]) {
        if !self.is_large() {
            return;
        }
        let hashes = names.map(|name| self.hash(name));
        let entries = hashes.map(|hash| {
            let shard = self.shards.get(self.shard_of(hash));
            shard.map_or(0, |shard| shard.likely(hash as u32))
        });
        let seen = entries.map(|entry| self.records.touch(place_in(entry)));
        std::hint::black_box(seen);
    }

    /// Where the name in a slot is; `None` if it is vacant.
    pub fn place(&self, slot: u32) -> Option<Place> {
        self.slots.get(slot as usize)?.checked_sub(1).map(Place)
    }

    /// The slot of a name.
    #[inline]
    pub fn slot(&self, place: Place) -> u32 {
        self.records.header(place).slot
    }

    /// The number of slots, vacant ones among them.
    pub fn slot_count(&self) -> u32 {
        self.slots.len() as u32
    }

    /// All names.
    pub fn names(&self) -> impl Iterator<Item = &[u8]> {
        let places = (0..self.slot_count()).filter_map(|slot| self.place(slot));
        places.map(|place| self.name(place))
    }

    /// A name.
    #[inline]
    pub fn name(&self, place: Place) -> &[u8] {
        self.records.name(place)
    }

    /// One word of what is kept under a name.
    #[inline]
    pub fn word(&self, place: Place, index: usize) -> u64 {
        self.records.word(place, index)
    }

    /// The same as a floating-point number.
    #[inline]
    pub fn number(&self, place: Place, index: usize) -> f64 {
        f64::from_bits(self.word(place, index))
    }

    /// What is kept under a name, to be changed.
    #[inline]
    pub fn change(&mut self, place: Place) -> Head<'_> {
        self.records.head_mut(place)
    }

    /// Enters a name in a bank: what is kept under it, and whether it was in the other one until now.
    #[inline]
    pub fn enter(&mut self, place: Place, bank: usize) -> (Head<'_>, bool) {
        let mut head = self.records.head_mut(place);
        let flags = head.flags_mut();
        let before = *flags;
        *flags = before & !BANK | bank_flag(bank);
        let moved = before != *flags;
        (head, moved)
    }

    /// Whether a name was last entered in this bank.
    #[inline]
    pub fn is_in(&self, place: Place, bank: usize) -> bool {
        self.records.header(place).flags & BANK == bank_flag(bank)
    }

    /// Adds a name that is not there yet, in a bank.
    pub fn insert(&mut self, name: &[u8], bank: usize, data: [u64; WORDS]) -> Place {
        debug_assert!(name.len() <= MAX_NAME && self.find(name).is_none());
        let slot = match self.vacant.pop() {
            Some(slot) => slot,
            None => {
                self.slots.push(0);
                self.slots.len() as u32 - 1
            }
        };
        let late = if (self.cursor..self.cursor_end).contains(&slot) {
            LATE
        } else {
            0
        };
        let header = Header {
            length: name.len() as u16,
            flags: LIVE | bank_flag(bank) | late,
            slot,
        };
        let place = self.records.add(header, name);
        self.slots[slot as usize] = place.0 + 1;
        let mut head = self.change(place);
        for (index, word) in data.into_iter().enumerate() {
            head.set_word(index, word);
        }
        if self.shards.is_empty() {
            self.shards.push(Shard::default());
        }
        if self.shards.len() == 1 && self.len() > SPLIT_AT {
            self.split();
        } else {
            let hash = self.hash(name);
            self.shard_mut(hash).insert(hash as u32, place);
        }
        place
    }

    /// Takes a name out; its slot is filled again later.
    pub fn remove(&mut self, place: Place) {
        let hash = self.hash(self.name(place));
        self.shard_mut(hash).remove(hash as u32, place);
        let slot = self.slot(place);
        self.slots[slot as usize] = 0;
        self.vacant.push(slot);
        self.records.remove(place);
    }

    /// Takes all names out and gives most of the memory back if `keep` is not set.
    pub fn clear(&mut self, keep: bool) {
        if !keep {
            *self = Table::default();
            return;
        }
        self.shards.iter_mut().for_each(Shard::clear);
        self.slots.clear();
        self.vacant.clear();
        self.records.clear();
        (self.cursor, self.cursor_end) = (0, 0);
    }

    /// Gives some memory back, of a table that nobody uses any more; `true` when it has none left.
    pub fn release(&mut self) -> bool {
        if self.records.pop_chunk() {
            return false;
        }
        if !self.shards.is_empty() {
            self.shards
                .truncate(self.shards.len() - self.shards.len().min(16));
            return false;
        }
        *self = Table::default();
        true
    }

    /// Begins a walk over the names that are there now.
    pub fn drain_begin(&mut self) {
        (self.cursor, self.cursor_end) = (0, self.slots.len() as u32);
    }

    /// The next name of the walk. At most `limit` slots are passed over, then the walk is given back
    /// as [`Pause::More`], so that one call is short.
    pub fn drain_next(&mut self, limit: usize) -> Result<Place, Pause> {
        for _ in 0..limit {
            if self.cursor >= self.cursor_end {
                (self.cursor, self.cursor_end) = (0, 0);
                return Err(Pause::End);
            }
            let place = self.place(self.cursor);
            self.cursor += 1;
            let Some(place) = place else { continue };
            let mut head = self.change(place);
            let flags = head.flags_mut();
            if *flags & LATE == 0 {
                return Ok(place);
            }
            *flags &= !LATE;
        }
        Err(Pause::More)
    }

    /// Closes gaps that names which went have left, and gives memory back, where that is worth it: a
    /// slice of work, in about as many records. `true` when there is nothing left to do.
    pub fn compact(&mut self, limit: usize) -> bool {
        let mut done = 0;
        while done < limit {
            match self.records.slide() {
                Slide::Moved {
                    slot,
                    from,
                    to,
                    cost,
                } => {
                    self.slots[slot as usize] = to.0 + 1;
                    let hash = self.hash(self.name(to));
                    self.shard_mut(hash).replace(hash as u32, from, to);
                    done += cost;
                }
                Slide::Stayed => done += 1,
                Slide::Over => return true,
            }
        }
        false
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
        for slot in 0..self.slot_count() {
            if let Some(place) = self.place(slot) {
                let hash = self.hash(self.name(place));
                self.shard_mut(hash).insert(hash as u32, place);
            }
        }
    }
}

#[inline]
fn bank_flag(bank: usize) -> u8 {
    (bank as u8 & 1) * BANK
}

/// Why a walk gives nothing.
#[derive(Debug, PartialEq, Eq)]
pub enum Pause {
    /// Nothing yet; call again.
    More,
    /// The walk is over.
    End,
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    /// The next of a row of pseudo-random numbers, whose upper bits are the good ones.
    fn draw(state: &mut u64) -> u64 {
        *state = state
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        *state
    }

    /// Random insertions and removals against the standard library's map, while records are moved.
    #[test]
    fn agrees_with_a_map() {
        let mut table: Table<1> = Table::default();
        let mut map: HashMap<String, u64> = HashMap::new();
        let (mut state, mut moves) = (1u64, 0);
        for round in 0..200_000u64 {
            draw(&mut state);
            let number = (state >> 33) as usize % 9000;
            // A few are so long that they do not fit the end of a chunk.
            let times = if number % 97 == 0 { 700 } else { 1 };
            let key = format!("{}{number}", "n".repeat(number % 30 * times));
            // It grows, shrinks, and grows again.
            let adds = state >> 60 < if round / 40_000 % 2 == 0 { 13 } else { 2 };
            match (table.find(key.as_bytes()), adds) {
                (Some(place), true) => table.change(place).set_word(0, round),
                (None, true) => {
                    table.insert(key.as_bytes(), 0, [round]);
                }
                (Some(place), false) => table.remove(place),
                (None, false) => continue,
            }
            if round % 100 == 0 {
                moves += usize::from(!table.compact(7));
            }
            if adds {
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
        assert!(moves > 100, "the test is to move records: {moves}");
        assert_eq!(table.len(), map.len());
        for (key, value) in &map {
            let place = table.find(key.as_bytes()).unwrap();
            assert_eq!(table.word(place, 0), *value);
            assert_eq!(table.name(place), key.as_bytes());
            assert_eq!(table.place(table.slot(place)), Some(place));
        }
        assert_eq!(table.names().count(), map.len());
    }

    #[test]
    fn churn_does_not_grow() {
        let mut table: Table<1> = Table::default();
        for round in 0..100_000u64 {
            let place = table.insert(format!("name.{round:09}").as_bytes(), 0, [0]);
            assert!(table.slot(place) <= 100);
            if round >= 100 {
                let old = table
                    .find(format!("name.{:09}", round - 100).as_bytes())
                    .unwrap();
                table.remove(old);
            }
        }
        assert!(table.allocated() < 16_000, "{}", table.allocated());
    }

    /// Names of any length come and go in many chunks, before, while and after they are moved.
    #[test]
    fn names_stay_what_they_are_over_the_ends_of_chunks() {
        let mut table: Table<1> = Table::default();
        let mut map: HashMap<Vec<u8>, u64> = HashMap::new();
        let mut state = 1u64;
        let mut random = move |below: usize| (draw(&mut state) >> 33) as usize % below;
        for round in 0..60_000 {
            // Twice as many go as come at times, until few are left.
            let goes = random(3) < if round / 6000 % 2 == 0 { 1 } else { 2 };
            let place = (table.slot_count() > 0)
                .then(|| table.place(random(table.slot_count() as usize) as u32));
            if let (true, Some(Some(place))) = (goes, place) {
                let name = table.name(place).to_vec();
                assert_eq!(map.remove(&name), Some(table.word(place, 0)));
                table.remove(place);
            } else if !goes {
                let length = if random(50) == 0 { 20_000 } else { 300 };
                let name = format!("{round}.{}", "n".repeat(random(length)));
                table.insert(name.as_bytes(), 0, [round]);
                map.insert(name.into_bytes(), round);
            }
            if round % 50 == 0 {
                table.compact(random(400));
            }
        }
        assert_eq!(table.len(), map.len());
        for (name, word) in &map {
            let place = table.find(name).unwrap();
            assert_eq!(table.word(place, 0), *word);
            assert_eq!(table.place(table.slot(place)), Some(place));
        }
    }

    /// Names that went leave room of a size that nobody wants: it is closed up, and given back.
    #[test]
    fn gaps_are_closed() {
        let mut table: Table<1> = Table::default();
        let mut largest = 0;
        for round in 0..50 {
            for n in 0..1000u64 {
                let name = format!("{}.{n}", "n".repeat(100 + 8 * round));
                table.insert(name.as_bytes(), 0, [n]);
            }
            let names: Vec<Vec<u8>> = table.names().map(<[u8]>::to_vec).collect();
            for name in names.iter().filter(|name| !name.ends_with(b"7")) {
                table.remove(table.find(name).unwrap());
            }
            let mut steps = 0;
            while !table.compact(10) {
                steps += 1;
            }
            assert!(steps >= 10, "in slices: {steps}");
            largest = largest.max(table.allocated());
            for name in table.names().map(<[u8]>::to_vec).collect::<Vec<_>>() {
                let n = name.rsplit(|b| *b == b'.').next().unwrap();
                let n: u64 = std::str::from_utf8(n).unwrap().parse().unwrap();
                let place = table.find(&name).unwrap();
                assert_eq!((table.word(place, 0), table.name(place)), (n, &name[..]));
                if round % 10 == 9 {
                    table.remove(place);
                }
            }
        }
        assert!(largest < 4 << 20, "{largest}");
        while !table.compact(10) {}
        assert_eq!((table.len(), table.name_bytes()), (0, 0));
        assert!(table.records.allocated() <= 64 * 1024);
    }

    #[test]
    fn a_walk_sees_what_was_there_when_it_began() {
        let mut table: Table<1> = Table::default();
        for name in ["a", "b", "c", "d"] {
            table.insert(name.as_bytes(), 0, [0]);
        }
        let [a, b, c, d] = [b"a", b"b", b"c", b"d"].map(|name| table.find(name).unwrap());
        let slot = table.slot(b);
        table.remove(b);
        table.drain_begin();
        assert_eq!(table.drain_next(9), Ok(a));
        // In front of the cursor, at the end, and behind the cursor.
        let late = table.insert(b"late", 0, [0]);
        assert_eq!(table.slot(late), slot);
        table.insert(b"later", 0, [0]);
        table.remove(a);
        let again = table.insert(b"again", 0, [0]);
        assert_eq!(table.slot(again), 0);
        assert_eq!(table.drain_next(9), Ok(c));
        assert_eq!(table.drain_next(9), Ok(d));
        assert_eq!(table.drain_next(9), Err(Pause::End));
        table.drain_begin();
        let mut seen = Vec::new();
        while let Ok(place) = table.drain_next(9) {
            seen.push(String::from_utf8_lossy(table.name(place)).into_owned());
        }
        assert_eq!(seen, ["again", "late", "c", "d", "later"]);
    }
}
