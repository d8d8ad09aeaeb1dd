//! Where a table keeps its names, and what is kept beside them. Core: no I/O.

const UNIT: usize = 8;
pub(super) const HEADER: usize = 8;

/// Memory is asked for, and given back, in chunks of so many bytes: nothing is ever moved for it to grow.
/// (In tests there are more of them.)
const CHUNK: usize = if cfg!(test) { 128 } else { 1024 } * 1024;
const CHUNK_UNITS: u32 = (CHUNK / UNIT) as u32;

/// Less free room than this is not worth moving records.
const SMALL: usize = 64 * 1024;

/// Where a name is at present: holds until the table is changed. In units from the beginning of the first
/// chunk, each chunk counting whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place(pub(super) u32);

impl Place {
    fn at(chunk: usize, offset: usize) -> Place {
        Place(chunk as u32 * CHUNK_UNITS + (offset / UNIT) as u32)
    }

    #[inline]
    fn chunk(self) -> usize {
        (self.0 / CHUNK_UNITS) as usize
    }

    #[inline]
    fn offset(self) -> usize {
        (self.0 % CHUNK_UNITS) as usize * UNIT
    }
}

/// Records one behind the other, none over the end of a chunk, addressed by 32 bits in units of 8 bytes (so
/// 32 GiB of them): a header, the data, the name. The room of one that was taken out goes to the next of
/// its size, until there is so much of it that the records are moved together ([`Arena::slide`]).
pub(super) struct Arena<const WORDS: usize> {
    /// The first one is only as large as it has to be, for the sake of small tables.
    chunks: Vec<Vec<u8>>,
    /// Bytes in all of them.
    used: usize,
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
    to: Place,
    /// From here on nothing has been moved. Rooms that become free here are on no list.
    from: Place,
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

/// The beginning of a record.
pub(super) struct Header {
    /// Of the name; in a free room, of the one that was there.
    pub(super) length: u16,
    /// 0 is a free room.
    pub(super) flags: u8,
    /// In a free room: the next one of its size plus one.
    pub(super) slot: u32,
}

impl From<u64> for Header {
    #[inline]
    fn from(word: u64) -> Header {
        Header {
            length: word as u16,
            flags: (word >> 16) as u8,
            slot: (word >> 32) as u32,
        }
    }
}

impl From<Header> for u64 {
    fn from(header: Header) -> u64 {
        u64::from(header.slot) << 32 | u64::from(header.flags) << 16 | u64::from(header.length)
    }
}

/// See [`Arena::head_mut`].
pub struct Head<'a>(&'a mut [u8]);

impl Head<'_> {
    /// The name's slot.
    #[inline]
    pub fn slot(&self) -> u32 {
        Header::from(load(self.0, 0)).slot
    }

    /// One word of the data, as a floating-point number.
    #[inline]
    pub fn number(&self, index: usize) -> f64 {
        f64::from_bits(load(self.0, HEADER + index * 8))
    }

    /// Changes it.
    #[inline]
    pub fn set_number(&mut self, index: usize, number: f64) {
        self.set_word(index, number.to_bits());
    }

    /// Changes one word.
    #[inline]
    pub fn set_word(&mut self, index: usize, word: u64) {
        store(self.0, HEADER + index * 8, word);
    }

    #[inline]
    pub(super) fn flags_mut(&mut self) -> &mut u8 {
        &mut self.0[2]
    }
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
            chunks: Vec::new(),
            used: 0,
            free: Vec::new(),
            gaps: 0,
            sliding: None,
        }
    }

    /// Bytes that records take, the room that is free among them.
    pub(super) fn used(&self) -> usize {
        self.used
    }

    /// Bytes of memory asked for.
    pub(super) fn allocated(&self) -> usize {
        self.chunks.iter().map(Vec::capacity).sum()
    }

    /// A record, and what follows it in its chunk.
    #[inline]
    fn record(&self, place: Place) -> &[u8] {
        &self.chunks[place.chunk()][place.offset()..]
    }

    #[inline]
    fn record_mut(&mut self, place: Place) -> &mut [u8] {
        &mut self.chunks[place.chunk()][place.offset()..]
    }

    #[inline]
    pub(super) fn header(&self, place: Place) -> Header {
        Header::from(load(self.record(place), 0))
    }

    fn set_header(&mut self, place: Place, header: Header) {
        store(self.record_mut(place), 0, header.into());
    }

    /// A record's header and data, to be changed.
    #[inline]
    pub(super) fn head_mut(&mut self, place: Place) -> Head<'_> {
        Head(&mut self.record_mut(place)[..Self::NAME])
    }

    /// One word of the data.
    #[inline]
    pub(super) fn word(&self, place: Place, index: usize) -> u64 {
        load(self.record(place), HEADER + index * 8)
    }

    #[inline]
    pub(super) fn name(&self, place: Place) -> &[u8] {
        let record = self.record(place);
        let length = usize::from(Header::from(load(record, 0)).length);
        &record[Self::NAME..Self::NAME + length]
    }

    /// Reads a record's first bytes, and where the next cache line begins.
    #[inline]
    pub(super) fn touch(&self, place: Option<Place>) -> u8 {
        let place = place.unwrap_or(Place(0));
        let Some(chunk) = self.chunks.get(place.chunk()) else {
            return 0;
        };
        let read = |at: usize| chunk.get(at).copied().unwrap_or(0);
        read(place.offset()) ^ read(place.offset() + 64)
    }

    /// The size of a record with a name of this length.
    fn units(&self, length: usize) -> usize {
        (Self::NAME + length).div_ceil(UNIT)
    }

    pub(super) fn add(&mut self, header: Header, name: &[u8]) -> Place {
        let units = self.units(name.len());
        let place = match self.free.get(units).copied() {
            None | Some(0) => self.append(units * UNIT),
            Some(room) => {
                let place = Place(room - 1);
                self.free[units] = self.header(place).slot;
                self.gaps -= units * UNIT;
                place
            }
        };
        self.set_header(place, header);
        self.record_mut(place)[Self::NAME..][..name.len()].copy_from_slice(name);
        place
    }

    /// New room at the end.
    fn append(&mut self, size: usize) -> Place {
        let fits = |chunk: &Vec<u8>| chunk.len() + size <= CHUNK;
        if !self.chunks.last().is_some_and(fits) {
            let capacity = if self.chunks.is_empty() { size } else { CHUNK };
            self.chunks.push(Vec::with_capacity(capacity));
        }
        let index = self.chunks.len() - 1;
        let last = &mut self.chunks[index];
        let offset = last.len();
        last.resize(offset + size, 0);
        self.used += size;
        Place::at(index, offset)
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
        if sliding.is_none_or(|sliding| place.0 < sliding.to.0) {
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
        let Some(Sliding { mut to, from }) = self.sliding else {
            if self.gaps > SMALL && self.gaps * 4 > self.used {
                self.free.clear();
                self.slide_on(Place(0), Place(0));
                return Slide::Stayed;
            }
            return Slide::Over;
        };
        if from.offset() >= self.chunks.get(from.chunk()).map_or(0, Vec::len) {
            if from.chunk() + 1 < self.chunks.len() {
                self.slide_on(to, Place::at(from.chunk() + 1, 0));
            } else {
                self.end_slide(to);
            }
            return Slide::Stayed;
        }
        let header = self.header(from);
        let units = self.units(usize::from(header.length));
        let size = units * UNIT;
        let next = Place(from.0 + units as u32);
        if header.flags == 0 {
            self.gaps -= size;
            self.slide_on(to, next);
            return Slide::Stayed;
        }
        if to.offset() + size > CHUNK {
            self.cut(to);
            to = Place::at(to.chunk() + 1, 0);
        }
        self.slide_on(Place(to.0 + units as u32), next);
        if to == from {
            return Slide::Stayed;
        }
        self.move_record(from, to, size);
        Slide::Moved {
            slot: header.slot,
            from,
            to,
            cost: 1 + units / 64,
        }
    }

    fn slide_on(&mut self, to: Place, from: Place) {
        self.sliding = Some(Sliding { to, from });
    }

    /// Ends a chunk here.
    fn cut(&mut self, place: Place) {
        let chunk = &mut self.chunks[place.chunk()];
        self.used -= chunk.len() - place.offset();
        chunk.truncate(place.offset());
    }

    fn move_record(&mut self, from: Place, to: Place, size: usize) {
        let (start, end) = (to.offset(), to.offset() + size);
        let (front, back) = self.chunks.split_at_mut(from.chunk());
        match (front.get_mut(to.chunk()), back) {
            (None, [chunk, ..]) => chunk.copy_within(from.offset()..from.offset() + size, start),
            (Some(chunk), [other, ..]) => {
                if chunk.len() < end {
                    self.used += end - chunk.len();
                    chunk.resize(end, 0);
                }
                chunk[start..end].copy_from_slice(&other[from.offset()..][..size]);
            }
            (_, []) => {}
        }
    }

    /// All records are in front of `to`: gives back what is behind it, a chunk at a time.
    fn end_slide(&mut self, to: Place) {
        let kept = to.chunk() + usize::from(to.offset() > 0);
        if self.chunks.len() > kept {
            self.pop_chunk();
            let length = self.chunks.last().map_or(0, Vec::len);
            let last = self.chunks.len().saturating_sub(1);
            self.slide_on(to, Place::at(last, length));
            return;
        }
        if to.offset() > 0 {
            self.cut(to);
        }
        self.sliding = None;
    }

    /// Gives one chunk back; `false` if there is none.
    pub(super) fn pop_chunk(&mut self) -> bool {
        let chunk = self.chunks.pop();
        self.used -= chunk.as_ref().map_or(0, Vec::len);
        chunk.is_some()
    }

    /// Takes everything out and keeps some memory.
    pub(super) fn clear(&mut self) {
        self.chunks.truncate(1);
        self.chunks.iter_mut().for_each(Vec::clear);
        self.free.clear();
        (self.used, self.gaps, self.sliding) = (0, 0, None);
    }
}
