//! Flushes that Graphite has not taken yet, oldest first, within a bound.
//!
//! ```text
//! flush 1                      flush 2 (being written)
//! [part: block block …][part]  [part: block block …][open part: block … open block]
//! ```
//!
//! A part is what one connection delivers. It leaves when Graphite has taken it, or when the spool is
//! over its limit: then the oldest flush goes as a whole, except for a part under delivery.

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
    dropped_flushes: u64,
    dropping: log::Latch,
}

/// Bytes for one connection.
#[derive(Default)]
pub struct Part {
    pub blocks: Vec<Vec<u8>>,
    pub bytes: usize,
    flush: u64,
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
            dropped_flushes: 0,
            dropping: log::Latch::new(),
        }
    }

    pub fn set_limit(&mut self, limit: usize) {
        self.limit = limit;
    }

    /// A flush begins.
    pub fn begin(&mut self) {
        self.flush += 1;
        self.open = Part {
            flush: self.flush,
            ..Part::default()
        };
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
            let next = Part {
                flush: self.flush,
                ..Part::default()
            };
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
            self.dropped_flushes += 1;
            if self.dropping.set(true) {
                log::error!(
                    "graphite: more than {} bytes undelivered (graphiteSpoolBytes), dropping the oldest flushes; \
                     the first had {dropped} bytes",
                    self.limit
                );
            }
        }
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

    /// Forgets everything.
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

    /// Flushes of which something is undelivered, the one being written among them.
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
        spool.begin();
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
    fn a_small_flush_is_one_part() {
        let mut spool = Spool::new(1024 * 1024);
        spool.begin();
        spool.block().extend_from_slice(b"a 1 2\n");
        spool.close_block();
        spool.end();
        let part = spool.delivered().unwrap();
        assert_eq!(
            (part.blocks.concat(), part.last),
            (b"a 1 2\n".to_vec(), true)
        );
    }
}
