//! Packets that nobody should send, from a seed.

use crate::common::json::Json;
use std::fs;

/// A small generator of random numbers (splitmix64): the same everywhere for the same seed.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `limit`, which is above 0.
    pub fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    pub fn pick<'a, T: ?Sized>(&mut self, from: &[&'a T]) -> &'a T {
        from[self.below(from.len())]
    }
}

/// Bytes that mean something in a line.
const SIGNS: &[u8] = b":::|||@#;,.,+-eE0123456789cgmshd \t\n\r/_=\0\xff\xc3\xa9";

const NAMES: &[&str] = &[
    "a",
    "web.hits",
    "a/b c",
    "..",
    ";",
    "x;k=v",
    "__proto__",
    "constructor",
    "hasOwnProperty",
    "statsd.timestamp_lag",
    "",
    " ",
    "\u{e9}\u{2003}\u{1f600}",
    "name with spaces",
    "_e{5,4}",
    "_sc",
    "*",
    "a.*",
];

const VALUES: &[&str] = &[
    "1",
    "0",
    "-1",
    "+5",
    "0.1",
    "1e308",
    "-1e308",
    "1.7976931348623157e308",
    "1e309",
    "1e-320",
    "5e-324",
    "9007199254740993",
    "99999999999999999999999999999999999999",
    "NaN",
    "Infinity",
    "-Infinity",
    "0x10",
    "0b1",
    "1_000",
    "",
    " ",
    " 7 ",
    "1.2.3",
    "--1",
    "1e",
    ".5",
    "5.",
    "title|text",
    "\u{661}",
];

const TYPES: &[&str] = &[
    "c", "ms", "g", "s", "h", "d", "m", "", "C", "x", "cc", "c ", "#a:b", "@0.1", "ms|ms",
];

const FIELDS: &[&str] = &[
    "",
    "|@0.1",
    "|@1",
    "|@0",
    "|@+1",
    "|@1e-300",
    "|@Infinity",
    "|@-1",
    "|@",
    "|@0.5|@0.5",
    "|#env:prod,solo,a:b:c",
    "|#",
    "|#,,;=",
    "|c:container-1",
    "|T1656581400",
    "|#k:v|@0.1",
    "|@0.1|#k:v|T1",
    "|",
    "||",
    ":2|ms:3|c",
];

/// Makes packets.
pub struct Generator {
    pub random: Random,
    recorded: Vec<Vec<u8>>,
}

impl Generator {
    pub fn new(seed: u64) -> Generator {
        Generator {
            random: Random(seed),
            recorded: recorded(),
        }
    }

    /// One packet of some ten lines, at random in one of the ways below.
    pub fn packet(&mut self) -> Vec<u8> {
        match self.random.below(16) {
            0 => self.noise(400),
            1 | 2 => self.signs(300),
            3..=7 => self.mutated(),
            _ => self.lines(),
        }
    }

    fn noise(&mut self, most: usize) -> Vec<u8> {
        let length = self.random.below(most);
        (0..length).map(|_| self.random.next() as u8).collect()
    }

    fn signs(&mut self, most: usize) -> Vec<u8> {
        let length = self.random.below(most);
        let mut sign = || SIGNS[self.random.below(SIGNS.len())];
        (0..length).map(|_| sign()).collect()
    }

    /// A recorded packet, harmed a few times.
    fn mutated(&mut self) -> Vec<u8> {
        let mut packet = self.some_recorded();
        for _ in 0..=self.random.below(6) {
            let at = self.random.below(packet.len() + 1);
            let rest = packet.len() - at;
            match self.random.below(7) {
                0 if rest > 0 => packet[at] ^= 1 << self.random.below(8),
                1 if rest > 0 => {
                    packet.remove(at);
                }
                2 => packet.insert(at, SIGNS[self.random.below(SIGNS.len())]),
                3 => packet.truncate(at),
                4 if rest > 0 => {
                    let length = 1 + self.random.below(rest.min(20));
                    let again = packet[at..at + length].to_vec();
                    packet.splice(at..at, again);
                }
                5 => {
                    let value = self.random.pick(VALUES);
                    packet.splice(at..at, value.bytes());
                }
                _ => {
                    let other = self.some_recorded();
                    let from = self.random.below(other.len() + 1);
                    packet.splice(at.., other[from..].iter().copied());
                }
            }
        }
        packet.truncate(4000);
        packet
    }

    fn some_recorded(&mut self) -> Vec<u8> {
        let mut packet = Vec::new();
        for _ in 0..4 {
            let index = self.random.below(self.recorded.len());
            packet.extend_from_slice(&self.recorded[index]);
            packet.push(b'\n');
        }
        packet
    }

    /// Lines put together of good and bad parts; now and then a name never seen before.
    fn lines(&mut self) -> Vec<u8> {
        let mut packet = Vec::new();
        for _ in 0..8 + self.random.below(8) {
            match self.random.below(8) {
                0 => packet.extend(format!("n.{:x}", self.random.next()).bytes()),
                1 => {
                    let length = self.random.below(60);
                    packet.extend(self.signs(length + 1));
                }
                _ => packet.extend(self.random.pick(NAMES).bytes()),
            }
            packet.push(b':');
            packet.extend(self.random.pick(VALUES).bytes());
            packet.push(b'|');
            packet.extend(self.random.pick(TYPES).bytes());
            packet.extend(self.random.pick(FIELDS).bytes());
            packet.push(b'\n');
        }
        if self.random.below(50) == 0 {
            // Longer than a line may be, and otherwise good, of a name that is known.
            packet.extend(b"a:1|c|@0.5");
            packet.extend(vec![b'0'; 8000 + self.random.below(1000)]);
            packet.push(b'\n');
        }
        if self.random.below(50) == 0 {
            let length = 8000 + self.random.below(60_000 - packet.len());
            packet.extend(vec![b'x'; length]);
            packet.extend(b":1|c\n");
        }
        packet
    }
}

/// Every packet of the recordings.
fn recorded() -> Vec<Vec<u8>> {
    let directory = format!("{}/tests/vectors", env!("CARGO_MANIFEST_DIR"));
    let mut packets = Vec::new();
    for file in ["protocol", "timers", "flush", "graphite", "tcp", "admin"] {
        let text = fs::read_to_string(format!("{directory}/{file}.json")).unwrap();
        for scenario in Json::parse(&text).unwrap().items() {
            for step in scenario.at("steps").items() {
                let packet = step.get("udp").or(step.get("tcp"));
                if let Some(Json::Text(packet)) = packet {
                    packets.push(packet.clone().into_bytes());
                }
            }
        }
    }
    assert!(packets.len() > 250, "{} recorded packets", packets.len());
    packets
}
