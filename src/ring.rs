//! The consistent-hash ring of the cluster proxy: which node a name belongs to (SPEC 8). Core: no I/O.
//!
//! Bit-compatible with hashring 3.2.0 as the original proxy uses it, so that a fleet can mix both:
//! every node has the same weight, `floor(weight / total · 40 · nodes)` points in floating point
//! in that order of operations, and point i of a node is where the md5 of `name-i` begins, read as a
//! little-endian number. A name belongs to the first point at or after its own md5, and round
//! the end to the first of all. `tests/vectors/ring.json` holds what the original answers.

use md5::{Digest, Md5};

/// The weight that the original gives every node.
const WEIGHT: f64 = 100.0;

/// Points of a node, before the rounding of hashring, which can only make it fewer.
const POINTS: usize = 40;

/// The live nodes and their points.
#[derive(Clone, Debug, Default)]
pub struct Ring {
    /// In the order in which they came: of two equal points the earlier node's counts.
    nodes: Vec<Node>,
    /// Sorted by value: where a node's stretch ends, and whose it is.
    points: Vec<(u32, u32)>,
}

#[derive(Clone, Debug)]
struct Node {
    id: u32,
    name: String,
    points: [u32; POINTS],
}

impl Node {
    fn new(id: u32, name: String) -> Node {
        let points = std::array::from_fn(|index| hash(format!("{name}-{index}").as_bytes()));
        Node { id, name, points }
    }
}

impl Ring {
    /// A ring of these nodes, each with the number that [`Ring::owner`] answers and its name
    /// (`host:port`). A name that comes twice counts once, with the first number.
    pub fn new(nodes: impl IntoIterator<Item = (u32, String)>) -> Ring {
        let mut ring = Ring::default();
        for (id, name) in nodes {
            if !ring.has_name(&name) {
                ring.nodes.push(Node::new(id, name));
            }
        }
        ring.place_points();
        ring
    }

    /// Adds a node, behind all others; nothing happens if the name is there.
    pub fn add(&mut self, id: u32, name: &str) {
        if !self.has_name(name) {
            self.nodes.push(Node::new(id, name.to_string()));
            self.place_points();
        }
    }

    /// Takes a node out; nothing happens if it is not there.
    pub fn remove(&mut self, id: u32) {
        self.nodes.retain(|node| node.id != id);
        self.place_points();
    }

    /// The names of the nodes, in the order in which they came.
    pub fn nodes(&self) -> impl Iterator<Item = &str> {
        self.nodes.iter().map(|node| node.name.as_str())
    }

    /// True without a node.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// How many points there are.
    pub fn points(&self) -> usize {
        self.points.len()
    }

    /// The node that a name belongs to; `None` on an empty ring.
    pub fn owner(&self, name: &[u8]) -> Option<u32> {
        // The original hashes text: what is not UTF-8 has become U+FFFD by then.
        let value = hash(String::from_utf8_lossy(name).as_bytes());
        let at = self.points.partition_point(|(point, _)| *point < value);
        let (_, owner) = self.points.get(at).or(self.points.first())?;
        Some(*owner)
    }

    fn has_name(&self, name: &str) -> bool {
        self.nodes().any(|node| node == name)
    }

    fn place_points(&mut self) {
        let count = self.nodes.len() as f64;
        let share = WEIGHT / (WEIGHT * count);
        let points = (share * POINTS as f64 * count).floor() as usize;
        self.points.clear();
        for node in &self.nodes {
            let points = node.points.iter().take(points);
            self.points.extend(points.map(|value| (*value, node.id)));
        }
        // Stable, so that equal points keep the order of their nodes.
        self.points.sort_by_key(|(value, _)| *value);
    }
}

/// The first four bytes of the md5, little-endian.
fn hash(text: &[u8]) -> u32 {
    let digest = Md5::digest(text);
    u32::from_le_bytes([digest[0], digest[1], digest[2], digest[3]])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::reader::Reader;
    use crate::config::value::Value;

    fn get<'a>(value: &'a Value, key: &str) -> Option<&'a Value> {
        let Value::Object(members) = value else {
            unreachable!("no object: {value:?}");
        };
        members.iter().find(|(k, _)| k == key).map(|(_, v)| v)
    }

    fn list(value: Option<&Value>) -> &[Value] {
        match value {
            Some(Value::Array(values)) => values,
            other => unreachable!("no list: {other:?}"),
        }
    }

    /// What the original answered, for every step of every ring: as it begins, after a node left,
    /// and after it came back.
    #[test]
    fn vectors() {
        let text = include_str!("../tests/vectors/ring.json");
        let Value::Array(cases) = Reader::new(text).file().unwrap() else {
            unreachable!("no list");
        };
        let mut looked_up = 0;
        for case in &cases {
            let names: Vec<String> = list(get(case, "nodes"))
                .iter()
                .map(Value::to_text)
                .collect();
            let id_of = |name: &str| names.iter().position(|n| n == name).unwrap() as u32;
            let mut ring = Ring::new((0..).zip(names.iter().cloned()));
            for step in list(get(case, "steps")) {
                if let Some(node) = get(step, "remove") {
                    ring.remove(id_of(&node.to_text()));
                }
                if let Some(node) = get(step, "add") {
                    let name = node.to_text();
                    ring.add(id_of(&name), &name);
                }
                let points = get(step, "points").unwrap();
                assert_eq!(*points, Value::Number(ring.points() as f64), "{names:?}");
                let Some(Value::Object(keys)) = get(step, "keys") else {
                    unreachable!("no keys");
                };
                for (key, expected) in keys {
                    let owner = ring
                        .owner(key.as_bytes())
                        .map(|id| names[id as usize].as_str());
                    let expected = match expected {
                        Value::Null => None,
                        node => Some(node.to_text()),
                    };
                    assert_eq!(owner, expected.as_deref(), "{key:?} on {names:?}");
                    looked_up += 1;
                }
            }
        }
        assert_eq!((cases.len(), looked_up), (10, 1740));
    }

    #[test]
    fn a_name_that_is_no_text_is_hashed_as_the_original_decodes_it() {
        // crypto.createHash('md5').update(Buffer.from([…]).toString()) in Node.js.
        let cases: [(&[u8], u32); 9] = [
            (&[0x61, 0xff], 2606634991),
            (&[0xc3], 1083209115),
            (&[0xe2, 0x82, 0x61], 1539999193),
            (&[0xf0, 0x9f, 0x98, 0x2e], 1324553060),
            (&[0xed, 0xa0, 0x80], 3995056446),
            (&[0xc0, 0xaf], 1716192030),
            (&[0xf5, 0x80, 0x80, 0x80], 2348549705),
            (&[0xef, 0xbb, 0xbf, 0x61], 1046346293),
            (&[0xc3, 0xbc], 2769302720),
        ];
        for (bytes, expected) in cases {
            let text = String::from_utf8_lossy(bytes);
            assert_eq!(hash(text.as_bytes()), expected, "{bytes:x?}");
        }
    }

    #[test]
    fn a_node_counts_once() {
        let twice = ["a:1", "b:1", "a:1"].map(str::to_string);
        let mut ring = Ring::new((0..).zip(twice));
        assert_eq!(ring.nodes().collect::<Vec<_>>(), ["a:1", "b:1"]);
        ring.add(7, "b:1");
        ring.remove(9);
        assert_eq!((ring.nodes().count(), ring.points()), (2, 80));
    }

    /// A change moves only the names of the node that it is about.
    #[test]
    fn the_others_keep_their_names() {
        let names = |count: u32| (0..count).map(|id| (id, format!("10.0.0.{id}:8125")));
        let whole = Ring::new(names(7));
        let mut part = whole.clone();
        part.remove(3);
        // 7 nodes have 39 points each and 6 have 40, so that a few more names move.
        let (mut moved, mut total) = (0, 0);
        for index in 0..20_000 {
            let name = format!("prod.web{index}.requests");
            let before = whole.owner(name.as_bytes());
            total += usize::from(before != Some(3));
            moved += usize::from(before != Some(3) && before != part.owner(name.as_bytes()));
        }
        assert!(moved * 40 < total, "{moved} of {total}");
    }
}
