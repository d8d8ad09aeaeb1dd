//! Packets that wait for a target: in blocks, so that what is done with gives its memory back and an
//! empty queue needs none. Pure.

use std::collections::VecDeque;

/// Bytes of a block; a larger packet gets one of its own.
const BLOCK: usize = 64 * 1024;

/// What a packet costs beside its bytes.
const COST: usize = size_of::<u32>();

/// See the module.
#[derive(Default)]
pub struct Queue {
    blocks: VecDeque<Block>,
    bytes: usize,
    packets: usize,
}

#[derive(Default)]
struct Block {
    bytes: Vec<u8>,
    /// Where each packet ends.
    ends: Vec<u32>,
    /// Packets that are done with, and their bytes.
    done: usize,
    start: usize,
}

impl Queue {
    /// Bytes that wait.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Packets that wait.
    pub fn packets(&self) -> usize {
        self.packets
    }

    /// Appends a packet that consists of these parts; `false` if that would take more than `limit`
    /// bytes in all.
    pub fn push(&mut self, parts: [&[u8]; 2], limit: usize) -> bool {
        let length = parts[0].len() + parts[1].len();
        if self.bytes + length + (self.packets + 1) * COST > limit {
            return false;
        }
        match self.blocks.back() {
            Some(last) if last.bytes.len() + length <= BLOCK => {}
            _ => self.blocks.push_back(Block::default()),
        }
        if let Some(last) = self.blocks.back_mut() {
            parts
                .iter()
                .for_each(|part| last.bytes.extend_from_slice(part));
            // A limit of 4 GiB and more in one packet is beyond any that can come in.
            last.ends.push(last.bytes.len() as u32);
            self.bytes += length;
            self.packets += 1;
        }
        true
    }

    /// The bytes behind the first `skip` of those that wait, as far as they are in one piece; nothing
    /// when there are no more.
    pub fn behind(&self, mut skip: usize) -> &[u8] {
        for block in &self.blocks {
            let bytes = &block.bytes[block.start..];
            if skip < bytes.len() {
                return &bytes[skip..];
            }
            skip -= bytes.len();
        }
        &[]
    }

    /// The first packets, as far as they are in one block.
    pub fn front(&self) -> impl Iterator<Item = &[u8]> {
        self.blocks.iter().take(1).flat_map(|block| {
            let ends = &block.ends[block.done..];
            ends.iter().scan(block.start, |start, end| {
                let packet = &block.bytes[*start..*end as usize];
                *start = *end as usize;
                Some(packet)
            })
        })
    }

    /// Drops the first packets.
    pub fn drop_packets(&mut self, count: usize) {
        for _ in 0..count {
            self.drop_first();
        }
    }

    /// Drops the packets that lie whole in the first `bytes` bytes; gives how many, and their bytes.
    pub fn drop_within(&mut self, bytes: usize) -> (usize, usize) {
        let (mut packets, mut dropped) = (0, 0);
        loop {
            let Some(first) = self.front().next().map(<[u8]>::len) else {
                break;
            };
            if dropped + first > bytes {
                break;
            }
            self.drop_first();
            (packets, dropped) = (packets + 1, dropped + first);
        }
        (packets, dropped)
    }

    fn drop_first(&mut self) {
        let Some(block) = self.blocks.front_mut() else {
            return;
        };
        let end = block.ends[block.done] as usize;
        self.bytes -= end - block.start;
        self.packets -= 1;
        block.start = end;
        block.done += 1;
        if block.done == block.ends.len() {
            self.blocks.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push(queue: &mut Queue, packet: &[u8]) -> bool {
        queue.push([packet, b"\n"], 1 << 20)
    }

    #[test]
    fn bytes_come_in_order_over_the_ends_of_blocks() {
        let mut queue = Queue::default();
        let mut expected = Vec::new();
        for n in 0..30_000 {
            let packet = format!("packet {n}");
            assert!(push(&mut queue, packet.as_bytes()));
            expected.extend_from_slice(packet.as_bytes());
            expected.push(b'\n');
        }
        assert!(push(&mut queue, &[b'x'; BLOCK * 2]));
        expected.extend_from_slice(&[b'x'; BLOCK * 2]);
        expected.push(b'\n');
        assert_eq!((queue.bytes(), queue.packets()), (expected.len(), 30_001));
        // Read in odd pieces, and drop what is read of whole packets: nothing is lost or doubled.
        let (mut read, mut found, mut packets) = (0, Vec::new(), 0);
        loop {
            let piece = queue.behind(read);
            if piece.is_empty() {
                break;
            }
            let piece = &piece[..piece.len().min(1013)];
            found.extend_from_slice(piece);
            read += piece.len();
            let (count, bytes) = queue.drop_within(read);
            packets += count;
            read -= bytes;
        }
        assert!(found == expected);
        assert_eq!((queue.bytes(), queue.packets(), read), (0, 0, 0));
        assert_eq!(packets, 30_001);
        assert!(queue.blocks.is_empty(), "memory is kept");
    }

    #[test]
    fn packets_come_one_by_one() {
        let mut queue = Queue::default();
        for packet in ["one", "", "three"] {
            assert!(queue.push([packet.as_bytes(), b""], 100));
        }
        assert!(queue.front().eq([&b"one"[..], b"", b"three"]));
        queue.drop_packets(2);
        assert!(queue.front().eq([&b"three"[..]]));
        queue.drop_packets(1);
        assert_eq!(queue.front().count(), 0);
    }

    #[test]
    fn the_limit_counts_small_packets_too() {
        let mut queue = Queue::default();
        let taken = (0..1000)
            .take_while(|_| queue.push([b"", b"\n"], 1000))
            .count();
        assert_eq!(taken, 1000 / (1 + COST));
        queue.drop_packets(1);
        assert!(queue.push([b"", b"\n"], 1000));
    }
}
