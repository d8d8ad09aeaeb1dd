//! Where a table keeps its names, and what is kept beside them. Core: no I/O.

/// Where a name is at present: holds until the table is changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place(pub(super) u32);

/// Records one behind the other, addressed by 32 bits in units of 8 bytes (so 32 GiB of them): a header,
/// the data, the name. The room of one that was taken out goes to the next of its size, until
/// there is so much of it that the records are moved together ([`Arena::slide`]).
pub(super) struct Arena<const WORDS: usize> {
    pub(super) bytes: Vec<u8>,
    /// For each size in units: the first free room plus one, which holds the next, and so on.
    free: Vec<u32>,
    /// Bytes in free rooms.
    gaps: usize,
    sliding: Option<Sliding>,
}

/// Records are being moved together. Between the two is nothing that anyone knows of.
#[derive(Clone, Copy)]
struct Sliding {
    /// What is in front is closed up.
    to: usize,
    /// From here on nothing has been moved. Rooms that become free here are on no list.
    from: usize,
}

/// What [`Arena::slide`] did with a record.
pub(super) enum Slide {
    /// Its place is another now.
    Moved {
        slot: u32,
        from: Place,
        to: Place,
        /// In records of usual size.
        cost: usize,
    },
    /// It is where it was, or was free room.
    Stayed,
    /// Nothing is to be moved.
    Over,
}

const UNIT: usize = 8;
pub(super) const HEADER: usize = 8;

/// Less free room than this is not worth moving records.
const SMALL: usize = 64 * 1024;

/// Memory given back at a time: a millisecond of work.
const GIVEN_BACK: usize = 32 * 1024 * 1024;

/// The beginning of a record.
pub(super) struct Header {
    /// Of the name; in a free room, of the one that was there.
    pub(super) length: u16,
    /// 0 is a free room.
    pub(super) flags: u8,
    /// In a free room: the next one of its size plus one.
    pub(super) slot: u32,
}

#[inline]
fn load(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}

#[inline]
fn store(bytes: &mut [u8], at: usize, word: u64) {
    bytes[at..at + 8].copy_from_slice(&word.to_le_bytes());
}

impl<const WORDS: usize> Arena<WORDS> {
    /// Where the name begins in a record.
    const NAME: usize = HEADER + WORDS * 8;

    pub(super) fn new() -> Self {
        Arena {
            bytes: Vec::new(),
            free: Vec::new(),
            gaps: 0,
            sliding: None,
        }
    }

    #[inline]
    pub(super) fn header(&self, place: Place) -> Header {
        let word = load(&self.bytes, place.0 as usize * UNIT);
        Header {
            length: word as u16,
            flags: (word >> 16) as u8,
            slot: (word >> 32) as u32,
        }
    }

    fn set_header(&mut self, place: Place, header: Header) {
        let word =
            u64::from(header.slot) << 32 | u64::from(header.flags) << 16 | u64::from(header.length);
        store(&mut self.bytes, place.0 as usize * UNIT, word);
    }

    #[inline]
    pub(super) fn flags_mut(&mut self, place: Place) -> &mut u8 {
        &mut self.bytes[place.0 as usize * UNIT + 2]
    }

    /// One word of the data.
    #[inline]
    pub(super) fn word(&self, place: Place, index: usize) -> u64 {
        load(&self.bytes, Self::word_at(place, index))
    }

    #[inline]
    pub(super) fn set_word(&mut self, place: Place, index: usize, word: u64) {
        store(&mut self.bytes, Self::word_at(place, index), word);
    }

    #[inline]
    fn word_at(place: Place, index: usize) -> usize {
        debug_assert!(index < WORDS);
        place.0 as usize * UNIT + HEADER + index * 8
    }

    #[inline]
    pub(super) fn name(&self, place: Place) -> &[u8] {
        let from = place.0 as usize * UNIT + Self::NAME;
        let length = usize::from(self.header(place).length);
        &self.bytes[from..from + length]
    }

    /// Reads a record's first bytes, and where the next cache line begins.
    #[inline]
    pub(super) fn touch(&self, place: Option<Place>) -> u8 {
        let from = place.map_or(0, |place| place.0 as usize * UNIT);
        let read = |at: usize| self.bytes.get(at).copied().unwrap_or(0);
        read(from) ^ read(from + 64)
    }

    /// The size of a record with a name of this length.
    fn units(&self, length: usize) -> usize {
        (Self::NAME + length).div_ceil(UNIT)
    }

    pub(super) fn add(&mut self, header: Header, name: &[u8]) -> Place {
        let units = self.units(name.len());
        let place = match self.free.get(units).copied() {
            None | Some(0) => {
                let end = self.bytes.len();
                self.bytes.resize(end + units * UNIT, 0);
                Place((end / UNIT) as u32)
            }
            Some(room) => {
                let place = Place(room - 1);
                self.free[units] = self.header(place).slot;
                self.gaps -= units * UNIT;
                place
            }
        };
        self.set_header(place, header);
        let from = place.0 as usize * UNIT + Self::NAME;
        self.bytes[from..from + name.len()].copy_from_slice(name);
        place
    }

    pub(super) fn growth_for(&self, length: usize) -> usize {
        let units = self.units(length);
        match self.free.get(units) {
            Some(room) if *room != 0 => 0,
            _ => units * UNIT - Self::NAME,
        }
    }

    pub(super) fn remove(&mut self, place: Place) {
        let length = self.header(place).length;
        let units = self.units(usize::from(length));
        self.gaps += units * UNIT;
        let mut room = Header {
            length,
            flags: 0,
            slot: 0,
        };
        let sliding = self.sliding.as_ref();
        if sliding.is_none_or(|sliding| (place.0 as usize) < sliding.to) {
            if self.free.len() <= units {
                self.free.resize(units + 1, 0);
            }
            room.slot = std::mem::replace(&mut self.free[units], place.0 + 1);
        }
        self.set_header(place, room);
    }

    /// Moves the next record up to the one in front of it, if a quarter of the room is free (or this is
    /// under way).
    pub(super) fn slide(&mut self) -> Slide {
        let Some(Sliding { to, from }) = self.sliding else {
            if self.gaps > SMALL && self.gaps * 4 > self.bytes.len() {
                self.free.clear();
                self.sliding = Some(Sliding { to: 0, from: 0 });
                return Slide::Stayed;
            }
            self.give_back();
            return Slide::Over;
        };
        if from * UNIT >= self.bytes.len() {
            self.bytes.truncate(to * UNIT);
            self.sliding = None;
            return Slide::Stayed;
        }
        let place = Place(from as u32);
        let header = self.header(place);
        let units = self.units(usize::from(header.length));
        let next = from + units;
        if header.flags == 0 {
            self.gaps -= units * UNIT;
            self.sliding = Some(Sliding { to, from: next });
            return Slide::Stayed;
        }
        let behind = to + units;
        self.sliding = Some(Sliding {
            to: behind,
            from: next,
        });
        if to == from {
            return Slide::Stayed;
        }
        self.bytes.copy_within(from * UNIT..next * UNIT, to * UNIT);
        Slide::Moved {
            slot: header.slot,
            from: place,
            to: Place(to as u32),
            cost: 1 + units / 64,
        }
    }

    /// Gives memory back where three quarters of it are not in use.
    fn give_back(&mut self) {
        let (length, capacity) = (self.bytes.len(), self.bytes.capacity());
        if capacity > SMALL.max(length * 4) {
            let least = capacity.saturating_sub(GIVEN_BACK);
            self.bytes.shrink_to(least.max(length * 2));
        }
    }

    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.free.clear();
        (self.gaps, self.sliding) = (0, None);
    }
}
