//! Lines on their way to one node: packed into datagrams, sent in batches, held within a bound while
//! the socket does not take them. Pure: the sending itself is passed in.
//!
//! ```text
//! bytes      a:1|c\na:2|c b:1|g\nc:3|ms d:1|c      one behind the other, without gaps
//! datagrams  [      2    ][      2      ][  1 open ]    length and lines of each
//! ```

use crate::sys::SEND_BATCH;
use std::collections::VecDeque;
use std::io;

/// Refusals in a row, without a datagram taken in between, after which to try again later.
const REFUSALS: u32 = 3;

/// See the module.
#[derive(Debug)]
pub struct Queue {
    bytes: Vec<u8>,
    datagrams: VecDeque<Datagram>,
    /// Bytes in a datagram, unless a single line is longer.
    max_datagram: usize,
    /// Bytes that may wait while the socket does not take them.
    limit: usize,
    stuck: bool,
    /// Lines in what was sent last, a datagram or a block: a refusal is most likely about that one.
    last_lines: u32,
    counts: Counts,
}

#[derive(Clone, Copy, Debug)]
struct Datagram {
    length: usize,
    lines: u32,
}

/// How the socket takes datagrams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Batch {
    /// A list of them, some of which it may take.
    List,
    /// Some of about the same size as one block, all or none (UDP_SEGMENT).
    Block,
}

/// Bytes in a block: the most that UDP takes at once.
const MAX_BLOCK: usize = 65_000;

/// What became of the lines, since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Datagrams that the kernel took.
    pub datagrams: u64,
    /// Lines in them.
    pub lines: u64,
    /// Lines dropped, because the queue was full or the kernel would not take them ever.
    pub drops: u64,
    /// Of the lines sent, those that came back: nobody listens there. At least so many, as not
    /// every refusal finds its way to us.
    pub refused: u64,
}

/// How sending went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// A refusal has come back.
    pub refused: bool,
    /// The kernel has no room for now.
    pub stuck: Option<Stuck>,
}

/// Why there is no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stuck {
    /// The socket's buffer is full: poll tells when it is not.
    Buffer,
    /// The system or the interface has no room: poll does not tell.
    Elsewhere,
    /// The node refuses again and again.
    Refused,
}

impl Queue {
    /// An empty queue. It is stuck, and so bounded, until the first [`Queue::send`].
    pub fn new(max_datagram: usize, limit: usize) -> Queue {
        Queue {
            bytes: Vec::new(),
            datagrams: VecDeque::new(),
            max_datagram,
            limit,
            stuck: true,
            last_lines: 0,
            counts: Counts::default(),
        }
    }

    /// Takes new bounds, for lines that come from now on.
    pub fn set_bounds(&mut self, max_datagram: usize, limit: usize) {
        (self.max_datagram, self.limit) = (max_datagram, limit);
    }

    /// Adds a line. True when a batch is full, so that it had better be sent before the turn ends.
    #[inline]
    pub fn push(&mut self, line: &[u8]) -> bool {
        if self.stuck && self.bytes.len() + line.len() >= self.limit {
            self.counts.drops += 1;
            return false;
        }
        if let Some(open) = self.datagrams.back_mut() {
            if open.length + 1 + line.len() <= self.max_datagram {
                open.length += 1 + line.len();
                open.lines += 1;
                self.bytes.push(b'\n');
                self.bytes.extend_from_slice(line);
                return false;
            }
        }
        self.datagrams.push_back(Datagram {
            length: line.len(),
            lines: 1,
        });
        self.bytes.extend_from_slice(line);
        !self.stuck && self.is_full()
    }

    /// Gives the datagrams to `send` (which answers how many it took, as `sendmmsg` does) until there
    /// are none, or there is no room for more.
    pub fn send(
        &mut self,
        batch: Batch,
        mut send: impl FnMut(&[&[u8]]) -> io::Result<usize>,
    ) -> Sent {
        let mut outcome = Sent::default();
        let mut start = 0;
        let mut refusals = 0;
        // The last call stopped short: the next one tells why.
        let mut short = false;
        while !self.datagrams.is_empty() {
            let count = match batch {
                Batch::List => self.datagrams.len().min(SEND_BATCH),
                Batch::Block => self.block(),
            };
            let mut slices: [&[u8]; SEND_BATCH] = [&[]; SEND_BATCH];
            let mut end = start;
            for (slice, datagram) in slices[..count].iter_mut().zip(&self.datagrams) {
                *slice = &self.bytes[end..end + datagram.length];
                end += datagram.length;
            }
            match send(&slices[..count]) {
                Ok(taken) if taken > 0 => {
                    if short {
                        // The kernel keeps an error to itself when it comes behind a datagram that
                        // it took. Now that there is room, it was a refusal.
                        self.refused(&mut outcome);
                    }
                    short = batch == Batch::List && taken < count;
                    refusals = 0;
                    start += self.took(taken, batch);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // It is about an earlier datagram; this one has not been tried.
                Err(error) if is_refusal(&error) && refusals < REFUSALS => {
                    self.refused(&mut outcome);
                    (refusals, short) = (refusals + 1, false);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    outcome.stuck = Some(Stuck::Buffer);
                    break;
                }
                Err(error) if !is_refusal(&error) && !is_full(&error) => {
                    if let Some(datagram) = self.datagrams.pop_front() {
                        start += datagram.length;
                        self.counts.drops += u64::from(datagram.lines);
                    }
                    short = false;
                }
                Err(error) if is_refusal(&error) => {
                    outcome.stuck = Some(Stuck::Refused);
                    break;
                }
                Ok(_) | Err(_) => {
                    outcome.stuck = Some(Stuck::Elsewhere);
                    break;
                }
            }
        }
        self.bytes.drain(..start);
        self.stuck = outcome.stuck.is_some();
        outcome
    }

    /// How many datagrams to send as one block. All of a block are padded to the longest (but for the
    /// last), so one that is much longer or shorter begins or ends another block.
    fn block(&self) -> usize {
        let (mut count, mut longest, mut shortest) = (0, 0, usize::MAX);
        for Datagram { length, .. } in self.datagrams.iter().take(SEND_BATCH) {
            let bytes = (count + 1) * longest.max(*length);
            let too_long = *length > self.max_datagram || *length / 4 > shortest / 3;
            if count > 0 && (too_long || bytes > MAX_BLOCK) {
                break;
            }
            count += 1;
            (longest, shortest) = (longest.max(*length), shortest.min(*length));
            if too_long || *length / 3 < longest / 4 {
                break;
            }
        }
        count
    }

    /// Counts a refusal that was not told by [`Queue::send`].
    pub fn note_refusal(&mut self) {
        self.refused(&mut Sent::default());
    }

    /// Takes out all that waits: the lines of each datagram, with line ends in between. Until the next
    /// [`Queue::send`] the queue is bounded.
    pub fn take(&mut self) -> Vec<Vec<u8>> {
        let bytes = std::mem::take(&mut self.bytes);
        let mut start = 0;
        let datagrams = std::mem::take(&mut self.datagrams).into_iter();
        self.stuck = true;
        datagrams
            .map(|datagram| {
                start += datagram.length;
                bytes[start - datagram.length..start].to_vec()
            })
            .collect()
    }

    /// A batch is full. (One more than that: the last datagram is still open.)
    pub fn is_full(&self) -> bool {
        self.datagrams.len() > SEND_BATCH
    }

    /// Nothing waits.
    pub fn is_empty(&self) -> bool {
        self.datagrams.is_empty()
    }

    /// Bytes that wait.
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// What became of the lines.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Takes the first datagrams for sent; their bytes.
    fn took(&mut self, count: usize, batch: Batch) -> usize {
        let mut bytes = 0;
        let mut block = 0;
        for datagram in self.datagrams.drain(..count.min(self.datagrams.len())) {
            bytes += datagram.length;
            self.counts.datagrams += 1;
            self.counts.lines += u64::from(datagram.lines);
            block += datagram.lines;
            self.last_lines = datagram.lines;
        }
        if batch == Batch::Block {
            self.last_lines = block;
        }
        bytes
    }

    fn refused(&mut self, outcome: &mut Sent) {
        outcome.refused = true;
        self.counts.refused += u64::from(std::mem::take(&mut self.last_lines));
    }
}

/// Nobody listens at the other end.
pub fn is_refusal(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::ConnectionRefused
}

/// There is no room, for whatever datagram.
fn is_full(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOBUFS | libc::ENOMEM))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(lines: &[&str], max_datagram: usize) -> Queue {
        let mut queue = Queue::new(max_datagram, 1000);
        lines.iter().for_each(|line| {
            queue.push(line.as_bytes());
        });
        queue
    }

    /// Sends with these answers, one for each call, then takes everything; what was taken.
    fn send(queue: &mut Queue, answers: Vec<io::Result<usize>>) -> (Vec<String>, Sent) {
        let mut answers = answers.into_iter();
        let mut taken = Vec::new();
        let outcome = queue.send(Batch::List, |datagrams| {
            let count = answers.next().unwrap_or(Ok(datagrams.len()))?;
            let text = |d: &&[u8]| String::from_utf8_lossy(d).into_owned();
            taken.extend(datagrams[..count].iter().map(text));
            Ok(count)
        });
        (taken, outcome)
    }

    fn failed(code: i32) -> io::Result<usize> {
        Err(io::Error::from_raw_os_error(code))
    }

    #[test]
    fn packing() {
        let cases: [(&[&str], usize, &[&str]); 7] = [
            (&[], 10, &[]),
            (&["a:1|c"], 10, &["a:1|c"]),
            (&["a:1|c", "b:1|c"], 11, &["a:1|c\nb:1|c"]),
            (&["a:1|c", "b:1|c"], 10, &["a:1|c", "b:1|c"]),
            (&["a:1|c", "b:1|c", "c"], 11, &["a:1|c\nb:1|c", "c"]),
            // Too long for any: alone, and what follows begins anew.
            (&["a", "bbbbbbbbbbbb", "c"], 10, &["a", "bbbbbbbbbbbb", "c"]),
            (&["bbbbbbbbbb", "c"], 10, &["bbbbbbbbbb", "c"]),
        ];
        for (lines, max, expected) in cases {
            let mut queue = queue(lines, max);
            let (taken, outcome) = send(&mut queue, vec![]);
            assert_eq!(taken, expected, "{lines:?}");
            assert_eq!(outcome, Sent::default());
            let counts = Counts {
                datagrams: expected.len() as u64,
                lines: lines.len() as u64,
                ..Counts::default()
            };
            assert_eq!(queue.counts(), counts);
            assert!(queue.is_empty() && queue.bytes() == 0);
        }
    }

    #[test]
    fn a_batch_at_a_time() {
        let lines: Vec<String> = (0..150).map(|n| format!("line{n:06}")).collect();
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        let mut queue = queue(&lines[..1], 10);
        send(&mut queue, vec![]);
        let mut full = lines[1..].iter().map(|line| queue.push(line.as_bytes()));
        assert_eq!(full.position(|full| full), Some(SEND_BATCH));
        full.for_each(drop);
        let mut calls = Vec::new();
        queue.send(Batch::List, |datagrams| {
            calls.push(datagrams.len());
            Ok(datagrams.len())
        });
        assert_eq!(calls, [64, 64, 21]);
    }

    #[test]
    fn what_is_not_taken_waits_in_order_and_within_the_bound() {
        for (code, why) in [
            (libc::EAGAIN, Stuck::Buffer),
            (libc::ENOBUFS, Stuck::Elsewhere),
            (libc::ENOMEM, Stuck::Elsewhere),
        ] {
            let mut queue = queue(&["a:1", "b:2", "c:3"], 3);
            queue.set_bounds(3, 12);
            let (taken, outcome) = send(&mut queue, vec![Ok(1), failed(code)]);
            assert_eq!(taken, ["a:1"]);
            assert_eq!((outcome.stuck, outcome.refused), (Some(why), false));
            // 6 bytes wait; one more line fits.
            for line in ["d:4", "e:5", "f:6"] {
                assert!(!queue.push(line.as_bytes()));
            }
            assert_eq!((queue.bytes(), queue.counts().drops), (9, 2));
            let (taken, outcome) = send(&mut queue, vec![]);
            assert_eq!(
                (taken, outcome.stuck),
                (vec!["b:2".into(), "c:3".into(), "d:4".into()], None)
            );
            // With the socket taking datagrams again there is no bound within a turn.
            (0..10).for_each(|_| {
                queue.push(b"g:7");
            });
            assert_eq!((queue.bytes(), queue.counts().drops), (30, 2));
        }
    }

    #[test]
    fn a_refusal_is_about_the_datagram_before() {
        let refused = || failed(libc::ECONNREFUSED);
        // (answers, taken, refused lines)
        let cases = [
            (vec![Ok(3)], 3, 0),
            // One from an earlier turn: of that one nothing is known here.
            (vec![refused(), Ok(3)], 3, 0),
            // Told openly, and told by stopping short.
            (vec![Ok(1), refused(), Ok(2)], 3, 2),
            (vec![Ok(1), Ok(2)], 3, 2),
            (vec![Ok(1), Ok(1), Ok(1)], 3, 3),
            (vec![Ok(2), failed(libc::EAGAIN)], 2, 0),
            (vec![failed(libc::EINTR), Ok(3)], 3, 0),
            (
                vec![refused(), refused(), refused(), refused(), Ok(3)],
                0,
                0,
            ),
        ];
        for (answers, datagrams, lines) in cases {
            let shown = format!("{answers:?}");
            let mut queue = queue(&["a", "b", "cc", "ddd"], 3);
            let (taken, outcome) = send(&mut queue, answers);
            assert_eq!(taken, ["a\nb", "cc", "ddd"][..datagrams], "{shown}");
            assert_eq!(queue.counts().refused, lines, "{shown}");
            assert_eq!(outcome.stuck.is_some(), datagrams < 3, "{shown}");
        }
        let mut queue = queue(&["a", "b", "c"], 100);
        send(&mut queue, vec![]);
        queue.note_refusal();
        queue.note_refusal();
        assert_eq!(queue.counts().refused, 3, "counted once");
    }

    #[test]
    fn what_can_never_be_sent_is_dropped_alone() {
        let mut queue = queue(&["a", "bbbbbb", "c"], 3);
        let (taken, outcome) = send(&mut queue, vec![Ok(1), failed(libc::EMSGSIZE)]);
        assert_eq!(taken, ["a", "c"]);
        assert_eq!(outcome, Sent::default());
        assert_eq!((queue.counts().drops, queue.counts().refused), (1, 0));
    }

    #[test]
    fn blocks() {
        let datagrams = |lengths: &[usize]| {
            let mut queue = Queue::new(1400, 1 << 20);
            lengths.iter().for_each(|length| {
                queue.push(&vec![b'x'; *length]);
            });
            queue
        };
        let cases: [(&[usize], &[usize]); 7] = [
            (&[1400], &[1]),
            (&[1390, 1400, 1380, 1399], &[4]),
            // The last of a block may be short.
            (&[1390, 1400, 200], &[3]),
            (&[700, 1400, 1400], &[1, 2]),
            (&[1400, 700, 1400], &[2, 1]),
            // Longer than a datagram: alone.
            (&[1400, 1400, 5000, 1400], &[2, 1, 1]),
            (&[1400; 100], &[46, 46, 8]),
        ];
        for (lengths, expected) in cases {
            let mut queue = datagrams(lengths);
            let mut calls = Vec::new();
            queue.send(Batch::Block, |datagrams| {
                calls.push(datagrams.len());
                Ok(datagrams.len())
            });
            assert_eq!(calls, expected, "{lengths:?}");
            assert_eq!(queue.counts().datagrams, lengths.len() as u64);
        }
        // A block is refused as a whole.
        let mut queue = datagrams(&[1400, 1400, 1400]);
        queue.send(Batch::Block, |datagrams| Ok(datagrams.len()));
        queue.note_refusal();
        assert_eq!(queue.counts().refused, 3);
    }

    #[test]
    fn taken_back() {
        let mut queue = queue(&["a:1", "b:2", "c:3"], 7);
        assert_eq!(queue.take(), [b"a:1\nb:2".to_vec(), b"c:3".to_vec()]);
        assert!(queue.is_empty() && queue.bytes() == 0);
    }
}
