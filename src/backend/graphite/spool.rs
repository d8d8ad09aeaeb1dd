//! Flushes that Graphite has not taken yet, oldest first, within a bound.
//!
//! ```text
//! flush 1                      flush 2 (being written)
//! [part: block block …][part]  [part: block block …][open part: block … open block]
//! ```
//!
//! A part is what one connection delivers. It leaves when Graphite has taken it, or when the spool is
//! over its limit: then the oldest flush goes as a whole, except for a part under delivery.

use crate::backend::{Piece, Place};
use crate::log;
use std::collections::VecDeque;

/// A part is closed when it has this many bytes, and a small flush is one part.
const PART: usize = 4 * 1024 * 1024;

/// See the module.
pub struct Spool {
    /// Parts that are complete.
    parts: VecDeque<Part>,
    /// The one being written.
    open: Part,
    block: Vec<u8>,
    /// In `parts` and `open`.
    bytes: usize,
    limit: usize,
    /// Counts flushes, to tell which parts belong together.
    flush: u64,
    /// Counts parts.
    part: u64,
    /// What the flush that was restored last was called in the state file.
    restored: Option<u64>,
    dropped_flushes: u64,
    /// The flush that went last.
    dropped: u64,
    dropping: log::Latch,
}

/// Bytes for one connection.
#[derive(Default)]
pub struct Part {
    pub blocks: Vec<Vec<u8>>,
    pub bytes: usize,
    /// Rises from part to part.
    id: u64,
    flush: u64,
    pickle: bool,
    /// The last of its flush.
    pub last: bool,
    /// Under delivery, and so not to be dropped.
    busy: bool,
}

impl Spool {
    pub fn new(limit: usize) -> Spool {
        Spool {
            parts: VecDeque::new(),
            open: Part::default(),
            block: Vec::new(),
            bytes: 0,
            limit,
            flush: 0,
            part: 0,
            restored: None,
            dropped_flushes: 0,
            dropped: 0,
            dropping: log::Latch::new(),
        }
    }

    pub fn set_limit(&mut self, limit: usize) {
        self.limit = limit;
    }

    /// A flush begins, in lines or in pickles.
    pub fn begin(&mut self, pickle: bool) {
        self.flush += 1;
        self.open = self.next_part(pickle);
    }

    fn next_part(&mut self, pickle: bool) -> Part {
        self.part += 1;
        Part {
            id: self.part,
            flush: self.flush,
            pickle,
            ..Part::default()
        }
    }

    /// Where to write.
    #[inline]
    pub fn block(&mut self) -> &mut Vec<u8> {
        &mut self.block
    }

    /// The block is full.
    pub fn close_block(&mut self) {
        // The next one is likely to fill up as this did.
        let next = if self.block.is_empty() {
            Vec::new()
        } else {
            Vec::with_capacity(self.block.len() + 1024)
        };
        let block = std::mem::replace(&mut self.block, next);
        self.bytes += block.len();
        self.open.bytes += block.len();
        self.open.blocks.push(block);
        if self.open.bytes >= PART {
            let next = self.next_part(self.open.pickle);
            self.parts
                .push_back(std::mem::replace(&mut self.open, next));
            self.keep_limit();
        }
    }

    /// The flush is complete.
    pub fn end(&mut self) {
        self.block = Vec::new();
        let mut part = std::mem::take(&mut self.open);
        part.last = true;
        self.parts.push_back(part);
        self.keep_limit();
    }

    /// Over the limit the oldest flush goes.
    fn keep_limit(&mut self) {
        while self.bytes > self.limit {
            let Some(oldest) = self
                .parts
                .iter()
                .find(|part| !part.busy)
                .map(|part| part.flush)
            else {
                return;
            };
            let dropped: usize = self
                .parts
                .iter()
                .filter(|p| !p.busy && p.flush == oldest)
                .map(|p| p.bytes)
                .sum();
            self.parts.retain(|part| part.busy || part.flush != oldest);
            self.bytes -= dropped;
            self.count_dropped(oldest);
            if self.dropping.set(true) {
                log::error!(
                    "graphite: more than {} bytes undelivered (graphiteSpoolBytes), dropping the oldest flushes; \
                     the first had {dropped} bytes",
                    self.limit
                );
            }
        }
    }

    /// Counts a flush as dropped, once in however many pieces it goes.
    fn count_dropped(&mut self, flush: u64) {
        self.dropped_flushes += u64::from(self.dropped != flush);
        self.dropped = flush;
    }

    /// The next part to deliver.
    pub fn front(&self) -> Option<&Part> {
        self.parts.front()
    }

    /// The first part is under delivery from here on.
    pub fn start(&mut self) {
        if let Some(part) = self.parts.front_mut() {
            part.busy = true;
        }
    }

    /// Delivery failed: the first part waits again.
    pub fn rewind(&mut self) {
        if let Some(part) = self.parts.front_mut() {
            part.busy = false;
        }
        self.keep_limit();
    }

    /// The first part has arrived.
    pub fn delivered(&mut self) -> Option<Part> {
        let part = self.parts.pop_front()?;
        self.bytes -= part.bytes;
        if self.parts.is_empty() && self.dropping.set(false) {
            log::notice!(
                "graphite: nothing undelivered any more; {} flushes were dropped since the start",
                self.dropped_flushes
            );
        }
        Some(part)
    }

    /// Drops what comes next as long as it is of the other protocol than is spoken now, after a reload
    /// or a restart with another `graphiteProtocol`.
    pub fn drop_foreign(&mut self, pickle: bool) {
        let foreign = |part: &Part| part.pickle != pickle && !part.busy;
        self.drop_while(foreign, "graphiteProtocol has changed since");
    }

    /// Drops all that is complete: there is nobody any more to deliver it to.
    pub fn drop_all(&mut self) {
        self.drop_while(|_| true, "there is no graphiteHost any more");
    }

    /// Drops what comes next as long as it is `lost`; counts it, and says why.
    fn drop_while(&mut self, lost: impl Fn(&Part) -> bool, why: &str) {
        let (before, mut bytes) = (self.dropped_flushes, 0);
        while self.parts.front().is_some_and(&lost) {
            if let Some(part) = self.parts.pop_front() {
                bytes += part.bytes;
                self.count_dropped(part.flush);
            }
        }
        self.bytes -= bytes;
        let flushes = self.dropped_flushes - before;
        if flushes > 0 {
            log::error!("graphite: dropped {flushes} undelivered flushes, {bytes} bytes: {why}");
        }
    }

    /// The piece behind `after`, for the state file.
    pub fn piece(&self, after: Option<Place>) -> Option<(Place, Piece<'_>)> {
        let (id, next) = after.map_or((0, 0), |(id, block)| (id, block + 1));
        let from = self.parts.partition_point(|part| part.id < id);
        self.parts.range(from..).find_map(|part| {
            let block = if part.id == id { next } else { 0 };
            let piece = Piece {
                flush: part.flush,
                pickle: part.pickle,
                last: part.last && block + 1 == part.blocks.len(),
                bytes: part.blocks.get(block)?,
            };
            Some(((part.id, block), piece))
        })
    }

    /// Takes a piece from the state file, before the first flush.
    pub fn take_back(&mut self, piece: &Piece<'_>) {
        let known = self.restored.replace(piece.flush) == Some(piece.flush);
        self.flush += u64::from(!known);
        let full = |part: &Part| part.bytes >= PART || part.last;
        if !known || self.parts.back().is_none_or(full) {
            let part = self.next_part(piece.pickle);
            self.parts.push_back(part);
        }
        if let Some(part) = self.parts.back_mut() {
            part.blocks.push(piece.bytes.to_vec());
            part.bytes += piece.bytes.len();
            part.last |= piece.last;
            self.bytes += piece.bytes.len();
        }
        self.keep_limit();
    }

    /// Forgets everything: it was for nobody.
    pub fn clear(&mut self) {
        self.parts.clear();
        self.open = Part::default();
        self.bytes = 0;
    }

    /// Undelivered bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Flushes of which something is undelivered; the one being written once a part of it is complete.
    pub fn flushes(&self) -> usize {
        let mut flushes: Vec<u64> = self.parts.iter().map(|part| part.flush).collect();
        flushes.dedup();
        flushes.len()
    }

    pub fn dropped_flushes(&self) -> u64 {
        self.dropped_flushes
    }

    /// Whether another part fits.
    pub fn has_room(&self) -> bool {
        self.bytes + PART <= self.limit || self.parts.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flush(spool: &mut Spool, blocks: usize) {
        spool.begin(false);
        for _ in 0..blocks {
            spool.block().extend_from_slice(&[b'x'; 1024 * 1024]);
            spool.close_block();
        }
        spool.end();
    }

    #[test]
    fn the_oldest_flush_goes_when_the_limit_is_passed() {
        let mut spool = Spool::new(10 * 1024 * 1024);
        flush(&mut spool, 4);
        flush(&mut spool, 3);
        flush(&mut spool, 2);
        assert_eq!((spool.flushes(), spool.dropped_flushes()), (3, 0));
        flush(&mut spool, 3);
        assert_eq!((spool.flushes(), spool.dropped_flushes()), (3, 1));
        assert_eq!(spool.bytes(), 8 * 1024 * 1024);
        assert!(!spool.has_room());
    }

    #[test]
    fn a_part_under_delivery_stays() {
        let mut spool = Spool::new(1024);
        spool.set_limit(5 * 1024 * 1024);
        flush(&mut spool, 5);
        spool.start();
        flush(&mut spool, 2);
        assert_eq!(spool.front().unwrap().bytes, 4 * 1024 * 1024);
        assert_eq!(
            spool.dropped_flushes(),
            2,
            "the rest of the first, then the second: both in part or whole"
        );
        assert_eq!(spool.delivered().unwrap().bytes, 4 * 1024 * 1024);
        assert_eq!(spool.bytes(), 0);
    }

    #[test]
    fn a_flush_that_goes_in_pieces_is_one() {
        let mut spool = Spool::new(1024);
        flush(&mut spool, 20);
        assert_eq!((spool.bytes(), spool.dropped_flushes()), (0, 1));
    }

    #[test]
    fn a_small_flush_is_one_part() {
        let mut spool = Spool::new(1024 * 1024);
        spool.begin(false);
        spool.block().extend_from_slice(b"a 1 2\n");
        spool.close_block();
        spool.end();
        let part = spool.delivered().unwrap();
        assert_eq!(
            (part.blocks.concat(), part.last),
            (b"a 1 2\n".to_vec(), true)
        );
    }

    /// Every piece as (flush, last, bytes).
    fn pieces(spool: &Spool) -> Vec<(u64, bool, usize)> {
        let mut place = None;
        let mut found = Vec::new();
        while let Some((at, piece)) = spool.piece(place) {
            found.push((piece.flush, piece.last, piece.bytes.len()));
            place = Some(at);
        }
        found
    }

    #[test]
    fn what_a_state_file_gives_back_is_what_it_was_given() {
        let mut old = Spool::new(64 * 1024 * 1024);
        flush(&mut old, 5);
        flush(&mut old, 1);
        flush(&mut old, 0);
        let mut new = Spool::new(64 * 1024 * 1024);
        let mut place = None;
        while let Some((at, piece)) = old.piece(place) {
            new.take_back(&piece);
            place = Some(at);
        }
        assert_eq!(pieces(&new), pieces(&old));
        assert_eq!((new.bytes(), new.flushes()), (6 * 1024 * 1024, 2));
        let first = new.delivered().unwrap();
        assert_eq!((first.bytes, first.last), (4 * 1024 * 1024, false));
        assert!(new.delivered().unwrap().last);
        flush(&mut new, 1);
        assert_eq!(new.flushes(), 2, "not one with those of before");
    }

    #[test]
    fn a_walk_goes_on_where_it_was_when_parts_come_and_go() {
        let mut spool = Spool::new(64 * 1024 * 1024);
        (0..4).for_each(|_| flush(&mut spool, 2));
        let (place, _) = spool.piece(None).unwrap();
        let (place, piece) = spool.piece(Some(place)).unwrap();
        assert_eq!((piece.flush, piece.last), (1, true));
        spool.delivered();
        spool.delivered();
        flush(&mut spool, 1);
        let (_, piece) = spool.piece(Some(place)).unwrap();
        assert_eq!(piece.flush, 3);
    }

    #[test]
    fn no_more_is_taken_back_than_the_limit_allows() {
        let mut spool = Spool::new(3 * 1024 * 1024);
        let bytes = vec![b'x'; 1024 * 1024];
        for flush in 0..5 {
            let (pickle, last) = (false, true);
            spool.take_back(&Piece {
                flush,
                pickle,
                last,
                bytes: &bytes,
            });
        }
        assert_eq!((spool.flushes(), spool.dropped_flushes()), (3, 2));
    }

    #[test]
    fn the_other_protocol_goes_nowhere() {
        let mut spool = Spool::new(64 * 1024 * 1024);
        flush(&mut spool, 6);
        flush(&mut spool, 1);
        spool.begin(true);
        spool.block().extend_from_slice(b"pickle");
        spool.close_block();
        spool.end();
        spool.drop_foreign(false);
        assert_eq!(spool.flushes(), 3);
        spool.start();
        spool.drop_foreign(true);
        assert_eq!((spool.flushes(), spool.dropped_flushes()), (3, 0));
        spool.rewind();
        spool.drop_foreign(true);
        assert_eq!((spool.flushes(), spool.bytes()), (1, 6));
        assert_eq!(spool.dropped_flushes(), 2, "the first had two parts");
    }
}
