//! The state file's content, to and from bytes. Pure: any `Read` or `Vec` will do.
//!
//! ```text
//! "statsd state 1\n" | saved: seconds since the epoch, u64
//! 'g' | name length u16 | name | flushes without an update u32 | value, bits of a double     any number
//! 'f' | flush u64 | flags u8 | length u32 | bytes as they go to Graphite                     any number
//! 'e' | number of records u64 | checksum u64 (FNV-1a over all in front of it)
//! ```
//!
//! Numbers are little-endian. A file counts only as a whole: [`read`] gives its records as they come, so
//! a first pass that does nothing with them decides whether there is to be a second.

use crate::backend::Piece;
use std::fmt;
use std::io::{self, ErrorKind, Read};

/// The first line; its number is the version of all that follows.
const MAGIC: &[u8] = b"statsd state 1\n";

/// A piece of a flush is cut at some 128 KiB; more than this was not written by us.
const MAX_PIECE: usize = 1 << 20;

const PICKLE: u8 = 1;
const LAST: u8 = 2;

/// One thing to remember.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Record<'a> {
    /// A gauge.
    Gauge {
        /// Its name.
        name: &'a [u8],
        /// Its value; finite.
        value: f64,
        /// Flushes since its last update, for the idle policy.
        idle: u32,
    },
    /// A piece of a flush that is not delivered yet.
    Piece(Piece<'a>),
}

/// Writes a file piece by piece: the caller takes what is in `out` whenever it likes.
#[derive(Debug)]
pub struct Writer {
    /// What was written since the caller last emptied it.
    pub out: Vec<u8>,
    checksum: Checksum,
    records: u64,
    /// Of `out`, what the checksum covers already.
    summed: usize,
}

impl Writer {
    /// Begins a file; `saved` is in seconds since the epoch.
    pub fn new(saved: u64) -> Writer {
        let mut out = MAGIC.to_vec();
        out.extend_from_slice(&saved.to_le_bytes());
        Writer {
            out,
            checksum: Checksum::default(),
            records: 0,
            summed: 0,
        }
    }

    /// Appends a record. What cannot be written (a name or a piece too long, a value that is not
    /// finite) could not be used either, and is left out.
    pub fn record(&mut self, record: Record<'_>) {
        match record {
            Record::Gauge { name, value, idle } => {
                let (Ok(length), true) = (u16::try_from(name.len()), value.is_finite()) else {
                    return;
                };
                self.out.push(b'g');
                self.out.extend_from_slice(&length.to_le_bytes());
                self.out.extend_from_slice(name);
                self.out.extend_from_slice(&idle.to_le_bytes());
                self.out.extend_from_slice(&value.to_bits().to_le_bytes());
            }
            Record::Piece(piece) => {
                let (Ok(length), true) = (
                    u32::try_from(piece.bytes.len()),
                    piece.bytes.len() <= MAX_PIECE,
                ) else {
                    return;
                };
                let pickle = if piece.pickle { PICKLE } else { 0 };
                let last = if piece.last { LAST } else { 0 };
                self.out.push(b'f');
                self.out.extend_from_slice(&piece.flush.to_le_bytes());
                self.out.push(pickle | last);
                self.out.extend_from_slice(&length.to_le_bytes());
                self.out.extend_from_slice(piece.bytes);
            }
        }
        self.records += 1;
    }

    /// Ends the file.
    pub fn end(&mut self) {
        self.out.push(b'e');
        self.out.extend_from_slice(&self.records.to_le_bytes());
        self.sum();
        let checksum = self.checksum.0;
        self.out.extend_from_slice(&checksum.to_le_bytes());
        self.summed = self.out.len();
    }

    /// Gives what was written since the last time.
    pub fn take(&mut self) -> Vec<u8> {
        self.sum();
        self.summed = 0;
        std::mem::take(&mut self.out)
    }

    fn sum(&mut self) {
        self.checksum.add(&self.out[self.summed..]);
        self.summed = self.out.len();
    }
}

/// Why a file is of no use.
#[derive(Debug)]
pub enum Damage {
    /// It cannot be read at all.
    Unreadable(io::Error),
    /// Not a state file, or one of another version.
    Foreign,
    /// It ends too early.
    Short,
    /// Its content is not what was written.
    Wrong(&'static str),
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Damage::Unreadable(error) => write!(f, "{error}"),
            Damage::Foreign => write!(f, "it is no state file, or one of another version"),
            Damage::Short => write!(f, "it is cut short"),
            Damage::Wrong(what) => write!(f, "{what}"),
        }
    }
}

impl From<io::Error> for Damage {
    fn from(error: io::Error) -> Damage {
        match error.kind() {
            ErrorKind::UnexpectedEof => Damage::Short,
            _ => Damage::Unreadable(error),
        }
    }
}

/// Reads a file to its end, giving each record to `visit`; when it was saved. An error can come after
/// records were given.
pub fn read(source: impl Read, visit: &mut impl FnMut(Record<'_>)) -> Result<u64, Damage> {
    let mut source = Source {
        source,
        checksum: Checksum::default(),
        buffer: Vec::new(),
    };
    if source.bytes(MAGIC.len())? != MAGIC {
        return Err(Damage::Foreign);
    }
    let saved = u64::from_le_bytes(source.array()?);
    let mut records = 0u64;
    loop {
        match source.array::<1>()? {
            [b'g'] => {
                let length = u16::from_le_bytes(source.array()?);
                let name = source.bytes(usize::from(length))?.to_vec();
                let idle = u32::from_le_bytes(source.array()?);
                let value = f64::from_bits(u64::from_le_bytes(source.array()?));
                if name.is_empty() || !value.is_finite() {
                    return Err(Damage::Wrong("a gauge in it is none"));
                }
                visit(Record::Gauge {
                    name: &name,
                    value,
                    idle,
                });
            }
            [b'f'] => {
                let flush = u64::from_le_bytes(source.array()?);
                let [flags] = source.array()?;
                let length = u32::from_le_bytes(source.array()?) as usize;
                if length > MAX_PIECE || flags & !(PICKLE | LAST) != 0 {
                    return Err(Damage::Wrong("a flush in it is none"));
                }
                visit(Record::Piece(Piece {
                    flush,
                    pickle: flags & PICKLE != 0,
                    last: flags & LAST != 0,
                    bytes: source.bytes(length)?,
                }));
            }
            [b'e'] => break,
            _ => return Err(Damage::Wrong("it holds something unknown")),
        }
        records += 1;
    }
    let expected = u64::from_le_bytes(source.array()?);
    let checksum = source.checksum.0;
    if expected != records || u64::from_le_bytes(source.array()?) != checksum {
        return Err(Damage::Wrong("its checksum is wrong"));
    }
    match source.bytes(1) {
        Err(Damage::Short) => Ok(saved),
        Err(damage) => Err(damage),
        Ok(_) => Err(Damage::Wrong("something follows its end")),
    }
}

/// What is read, with its checksum.
struct Source<R> {
    source: R,
    checksum: Checksum,
    buffer: Vec<u8>,
}

impl<R: Read> Source<R> {
    fn bytes(&mut self, count: usize) -> Result<&[u8], Damage> {
        self.buffer.resize(count, 0);
        self.source.read_exact(&mut self.buffer)?;
        self.checksum.add(&self.buffer);
        Ok(&self.buffer)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Damage> {
        let mut array = [0; N];
        self.source.read_exact(&mut array)?;
        self.checksum.add(&array);
        Ok(array)
    }
}

/// FNV-1a: against accidents, not against forgers, who could as well write the sum.
#[derive(Debug)]
struct Checksum(u64);

impl Default for Checksum {
    fn default() -> Checksum {
        Checksum(0xcbf2_9ce4_8422_2325)
    }
}

impl Checksum {
    fn add(&mut self, bytes: &[u8]) {
        self.0 = bytes.iter().fold(self.0, |sum, byte| {
            (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gauge(name: &[u8], value: f64, idle: u32) -> Record<'_> {
        Record::Gauge { name, value, idle }
    }

    fn piece(flush: u64, pickle: bool, last: bool, bytes: &[u8]) -> Record<'_> {
        Record::Piece(Piece {
            flush,
            pickle,
            last,
            bytes,
        })
    }

    fn encode(records: &[Record<'_>], step: usize) -> Vec<u8> {
        let mut writer = Writer::new(1_700_000_000);
        let mut out = Vec::new();
        for (index, record) in records.iter().enumerate() {
            writer.record(*record);
            if index % step == 0 {
                out.extend(writer.take());
            }
        }
        writer.end();
        out.extend(writer.take());
        out
    }

    /// Each record as text, so that it outlives the pass.
    fn decode(bytes: &[u8]) -> Result<(u64, Vec<String>), Damage> {
        let mut found = Vec::new();
        let saved = read(bytes, &mut |record| found.push(format!("{record:?}")))?;
        Ok((saved, found))
    }

    fn some() -> Vec<Record<'static>> {
        vec![
            gauge(b"a", 1.5, 0),
            gauge(b"web.load;dc=eu", -0.0, 7),
            gauge(&[b'x'; 65535], 1e300, u32::MAX),
            piece(3, false, false, b"a 1 2\n"),
            piece(3, true, true, b""),
        ]
    }

    #[test]
    fn what_is_written_is_read_however_it_was_sliced() {
        for (records, step) in [(vec![], 1), (some(), 1), (some(), 2), (some(), 100)] {
            let (saved, found) = decode(&encode(&records, step)).unwrap();
            let expected: Vec<String> = records.iter().map(|r| format!("{r:?}")).collect();
            assert_eq!((saved, found), (1_700_000_000, expected));
        }
    }

    #[test]
    fn what_could_not_be_read_is_not_written() {
        let long = vec![b'x'; 65536];
        let huge = vec![b'x'; MAX_PIECE + 1];
        let records = [
            gauge(&long, 1.0, 0),
            gauge(b"inf", f64::INFINITY, 0),
            gauge(b"nan", f64::NAN, 0),
            piece(1, false, true, &huge),
        ];
        assert_eq!(
            decode(&encode(&records, 1)).unwrap().1,
            Vec::<String>::new()
        );
    }

    /// Every file that is cut, has one bit turned or something behind it is damaged.
    #[test]
    fn damage_is_noticed_wherever_it_is() {
        let records = [gauge(b"a", 1.5, 3), piece(1, false, true, b"a 1 2\n")];
        let good = encode(&records, 1);
        for length in 0..good.len() {
            assert!(decode(&good[..length]).is_err(), "cut at {length}");
        }
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&bad).is_err(), "bit {bit}");
        }
        let longer = [&good[..], b"x"].concat();
        assert!(matches!(decode(&longer), Err(Damage::Wrong(_))));
        let other = [b"statsd state 2\n", &good[15..]].concat();
        assert!(matches!(decode(&other), Err(Damage::Foreign)));
    }

    /// Bytes at random, behind a good beginning so that the reader gets somewhere: it ends, holds no
    /// more than a piece at a time, and gives finite gauges with names only.
    #[test]
    fn any_bytes_end_in_an_error_and_nothing_worse() {
        let mut seed = 0x9e37_79b9_7f4a_7c15u64;
        let mut random = move || {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            seed
        };
        let head = encode(&some(), 1);
        for _ in 0..3000 {
            let mut bytes = head[..24 + random() as usize % 100].to_vec();
            for _ in 0..random() % 60 {
                let kinds = [b'g', b'f', b'e', 0, 1, random() as u8];
                bytes.push(kinds[random() as usize % kinds.len()]);
            }
            let outcome = read(&bytes[..], &mut |record| match record {
                Record::Gauge { name, value, .. } => {
                    assert!(!name.is_empty() && value.is_finite());
                }
                Record::Piece(piece) => assert!(piece.bytes.len() <= MAX_PIECE),
            });
            assert!(outcome.is_err());
        }
    }
}
