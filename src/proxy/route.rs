//! From a packet to the queues of the nodes: each line goes to the one that owns its name. Pure.
//!
//! The name is what stands before the first `:`, as received; a line without one is all name, as in
//! the original. The ring's answers are remembered, so that md5 is off the hot path.

use super::queue::Queue;
use crate::ring::Ring;
use crate::store::table::Table;
use memchr::{memchr, memchr2};

/// Longer names are looked up on the ring each time, so that the cache's memory is bounded too.
const MAX_CACHED: usize = 1024;

/// See the module.
pub struct Router {
    ring: Ring,
    cache: Cache,
    /// One for each node, live or not, by its number on the ring.
    queues: Vec<Queue>,
    /// Packets taken in.
    pub packets: u64,
    /// Lines taken in.
    pub lines: u64,
    /// Of these, lines that no node was there for.
    pub lost: u64,
}

impl Router {
    /// Without nodes. At least the last `cache_size` names are remembered, and at most twice as many.
    pub fn new(cache_size: usize) -> Router {
        Router {
            ring: Ring::default(),
            cache: Cache::new(cache_size),
            queues: Vec::new(),
            packets: 0,
            lines: 0,
            lost: 0,
        }
    }

    /// Routes the lines of a packet. True when a batch is full for some node, so that the queues had
    /// better be sent before the next packet.
    #[inline]
    pub fn packet(&mut self, packet: &[u8]) -> bool {
        self.packets += 1;
        let (lines, lost, full) = self.route(packet);
        self.lines += lines;
        self.lost += lost;
        full
    }

    /// Routes lines that did not come from outside, or came before: not counted as taken in.
    pub fn again(&mut self, packet: &[u8]) {
        let (_, lost, _) = self.route(packet);
        self.lost += lost;
    }

    /// Lines, those that no node was there for, and whether a batch is full.
    #[inline]
    fn route(&mut self, mut rest: &[u8]) -> (u64, u64, bool) {
        let (mut lines, mut lost, mut full) = (0, 0, false);
        while !rest.is_empty() {
            // Where the name ends is looked for first, and the line's end behind it: no byte is
            // looked at twice.
            let name = memchr2(b':', b'\n', rest).unwrap_or(rest.len());
            let end = match rest.get(name) {
                Some(b':') => memchr(b'\n', &rest[name..]).map_or(rest.len(), |end| name + end),
                _ => name,
            };
            if end > 0 {
                lines += 1;
                match self.owner(&rest[..name]) {
                    Some(node) => full |= self.queues[node as usize].push(&rest[..end]),
                    None => lost += 1,
                }
            }
            rest = rest.get(end + 1..).unwrap_or_default();
        }
        (lines, lost, full)
    }

    #[inline]
    fn owner(&mut self, name: &[u8]) -> Option<u32> {
        if let Some(node) = self.cache.get(name) {
            return Some(node);
        }
        let node = self.ring.owner(name)?;
        if name.len() <= MAX_CACHED {
            self.cache.insert(name, node);
        }
        Some(node)
    }

    /// Puts a node on the ring.
    pub fn join(&mut self, node: u32, name: &str) {
        self.ring.add(node, name);
        self.cache.clear();
    }

    /// Takes a node off the ring; what waits for it goes to those that own the names now.
    pub fn leave(&mut self, node: u32) {
        self.ring.remove(node);
        self.cache.clear();
        for lines in self.queues[node as usize].take() {
            self.again(&lines);
        }
    }

    /// Takes other nodes: their queues, and those of them that are on the ring. The counters stay.
    pub fn set_nodes(&mut self, queues: Vec<Queue>, ring: Ring, cache_size: usize) {
        (self.queues, self.ring) = (queues, ring);
        self.cache = Cache::new(cache_size);
    }

    /// Gives the queues away; [`Router::set_nodes`] must follow.
    pub fn take_queues(&mut self) -> Vec<Queue> {
        self.ring = Ring::default();
        self.cache.clear();
        std::mem::take(&mut self.queues)
    }

    /// The ring.
    pub fn ring(&self) -> &Ring {
        &self.ring
    }

    /// The queues, by the numbers of their nodes.
    pub fn queues_mut(&mut self) -> &mut [Queue] {
        &mut self.queues
    }

    /// The queues, by the numbers of their nodes.
    pub fn queues(&self) -> &[Queue] {
        &self.queues
    }
}

/// The last names and their nodes, in two generations: when the young one is full it becomes the old
/// one, and what was not asked for since the last time is forgotten.
struct Cache {
    young: Table<1>,
    old: Table<1>,
    size: usize,
}

impl Cache {
    fn new(size: usize) -> Cache {
        Cache {
            young: Table::default(),
            old: Table::default(),
            size: size.max(1),
        }
    }

    #[inline]
    fn get(&mut self, name: &[u8]) -> Option<u32> {
        if let Some(place) = self.young.find(name) {
            return Some(self.young.word(place, 0) as u32);
        }
        let node = self.old.word(self.old.find(name)?, 0) as u32;
        self.insert(name, node);
        Some(node)
    }

    fn insert(&mut self, name: &[u8], node: u32) {
        if self.young.len() >= self.size {
            std::mem::swap(&mut self.young, &mut self.old);
            self.young.clear(true);
        }
        self.young.insert(name, 0, [u64::from(node)]);
    }

    fn clear(&mut self) {
        self.young.clear(true);
        self.old.clear(true);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn router(nodes: u32, cache_size: usize) -> Router {
        let mut router = Router::new(cache_size);
        let queues = (0..nodes).map(|_| Queue::new(1432, 1 << 20)).collect();
        let ring = Ring::new((0..nodes).map(|id| (id, format!("10.1.0.{id}:8125"))));
        router.set_nodes(queues, ring, cache_size);
        router
    }

    /// The lines that wait for each node.
    fn waiting(router: &mut Router) -> Vec<Vec<String>> {
        let lines = |queue: &mut Queue| {
            let joined = queue.take().join(&b'\n');
            let text = String::from_utf8(joined).unwrap();
            text.lines().map(str::to_string).collect()
        };
        router.queues.iter_mut().map(lines).collect()
    }

    #[test]
    fn each_line_goes_to_the_owner_of_its_name() {
        let mut router = router(5, 100);
        let ring = router.ring.clone();
        let lines: Vec<String> = (0..500)
            .map(|n| format!("web{}.hits:{n}|c", n % 80))
            .collect();
        for packet in lines.chunks(7) {
            router.packet(packet.join("\n").as_bytes());
        }
        let found = waiting(&mut router);
        for (node, found) in (0..).zip(&found) {
            let owned = |line: &&String| {
                let name = line.split(':').next().unwrap();
                ring.owner(name.as_bytes()) == Some(node)
            };
            let expected: Vec<&String> = lines.iter().filter(owned).collect();
            assert!(!expected.is_empty());
            assert_eq!(found.iter().collect::<Vec<_>>(), expected, "order is kept");
        }
        assert_eq!((router.packets, router.lines, router.lost), (72, 500, 0));
    }

    #[test]
    fn what_is_a_line_and_what_is_its_name() {
        // (packet, its lines, the name of each)
        let cases: [(&str, &[&str], &[&str]); 6] = [
            ("", &[], &[]),
            ("\n\n", &[], &[]),
            ("a:1|c", &["a:1|c"], &["a"]),
            ("\na:1|c\n\nb:1:2|c\n", &["a:1|c", "b:1:2|c"], &["a", "b"]),
            ("noise\n:x", &["noise", ":x"], &["noise", ""]),
            ("a b/c:1|c\r\n", &["a b/c:1|c\r"], &["a b/c"]),
        ];
        for (packet, lines, names) in cases {
            let mut router = router(4, 100);
            let mut expected = vec![Vec::new(); 4];
            for (line, name) in lines.iter().zip(names) {
                let owner = router.ring.owner(name.as_bytes()).unwrap();
                expected[owner as usize].push(line.to_string());
            }
            router.packet(packet.as_bytes());
            let mut found = waiting(&mut router);
            // `str::lines` takes the carriage return for part of the line end.
            expected
                .iter_mut()
                .flatten()
                .for_each(|l| *l = l.trim_end().to_string());
            found
                .iter_mut()
                .flatten()
                .for_each(|l| *l = l.trim_end().to_string());
            assert_eq!(found, expected, "{packet:?}");
            assert_eq!(router.lines, lines.len() as u64);
        }
    }

    #[test]
    fn a_change_of_the_ring_is_seen_at_once() {
        let mut router = router(3, 100);
        let name = (0..)
            .map(|n| format!("n{n}"))
            .find(|n| router.ring.owner(n.as_bytes()) == Some(1));
        let line = format!("{}:1|c", name.unwrap());
        router.packet(line.as_bytes());
        assert!(!router.queues[1].is_empty());
        // What waits moves with its name.
        router.leave(1);
        assert!(router.queues[1].is_empty());
        router.packet(line.as_bytes());
        let others = waiting(&mut router);
        assert_eq!(others.concat(), [line.clone(), line.clone()]);
        router.join(1, "10.1.0.1:8125");
        router.packet(line.as_bytes());
        assert_eq!(waiting(&mut router)[1], [line]);
    }

    #[test]
    fn without_a_node_lines_are_lost_and_counted() {
        let mut router = router(1, 100);
        router.packet(b"a:1|c\nb:1|c");
        router.leave(0);
        assert_eq!(router.lost, 2, "what waited is lost too");
        router.packet(b"a:1|c\nb:1|c\nc:1|c");
        assert_eq!((router.lines, router.lost), (5, 5));
        router.join(0, "10.1.0.0:8125");
        router.packet(b"a:1|c");
        assert_eq!((router.lines, router.lost), (6, 5));
    }

    #[test]
    fn the_cache_is_bounded_and_keeps_what_is_asked_for() {
        let mut cache = Cache::new(100);
        for n in 0..100_000u32 {
            let name = format!("name{n}");
            assert_eq!(cache.get(name.as_bytes()), None);
            cache.insert(name.as_bytes(), n);
            assert!(n == 0 || cache.get(b"name0") == Some(0), "{n}");
            assert!(cache.young.len() <= 100 && cache.old.len() <= 100);
        }
        // All of the last hundred.
        assert!((99_901..100_000u32).all(|n| cache.get(format!("name{n}").as_bytes()) == Some(n)));
        let mut router = router(2, 100);
        router.packet(&[b'x'; 5000]);
        assert!(router.cache.young.is_empty(), "too long to be kept");
    }
}
