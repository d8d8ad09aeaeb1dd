//! A fake Graphite: takes flushes as carbon does, or fails in the ways that carbon and networks
//! fail. A flush counts only when it came whole: every byte up to the sender's half-close.

use super::{DEADLINE, wait_until};
use socket2::{Domain, SockRef, Socket, Type};
use std::collections::BTreeMap;
use std::io::{ErrorKind, Read};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// What it does with a connection. It applies from the next one on.
#[derive(Clone, Copy, Debug)]
pub enum Mode {
    /// Reads to the end, then closes.
    Take,
    /// Resets the connection when it has read so many bytes, so many times; then takes.
    Reset { after: usize, times: usize },
    /// Accepts and never reads.
    Stall,
    /// Reads so many bytes, pauses, reads on, to the end.
    Trickle { bytes: usize, pause: Duration },
    /// Reads to the end and does not close.
    HoldOpen,
}

/// One value as Graphite would store it.
#[derive(Clone, Debug, PartialEq)]
pub struct Point {
    pub name: String,
    /// As sent; numbers are text in both protocols.
    pub value: String,
    /// Seconds.
    pub timestamp: u64,
}

/// The points of one connection, in their order.
pub type Flush = Vec<Point>;

#[derive(Default)]
struct State {
    mode: Option<Mode>,
    flushes: Vec<Flush>,
    /// Accepted so far.
    connections: usize,
    /// Accepted and not yet done with.
    open: usize,
    /// Never read, closed by drop.
    held: Vec<TcpStream>,
    /// Complaints about what was sent; any of them fails the test that asks for points.
    faults: Vec<String>,
}

/// The server.
pub struct Graphite {
    address: SocketAddr,
    pickle: bool,
    window: Option<usize>,
    state: Arc<Mutex<State>>,
    /// Bound, never listening: keeps the port ours while the server is down.
    _holder: Socket,
    running: Option<(Arc<Socket>, JoinHandle<()>)>,
}

impl Graphite {
    /// Listening for lines.
    pub fn text() -> Graphite {
        let mut graphite = Graphite::absent(false);
        graphite.up();
        graphite
    }

    /// Listening for pickles.
    pub fn pickle() -> Graphite {
        let mut graphite = Graphite::absent(true);
        graphite.up();
        graphite
    }

    /// Has a port of its own, but refuses connections until [`Graphite::up`].
    pub fn absent(pickle: bool) -> Graphite {
        let holder = bound(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
        let address = holder.local_addr().unwrap().as_socket().unwrap();
        let state = Arc::default();
        Graphite {
            address,
            pickle,
            window: None,
            state,
            _holder: holder,
            running: None,
        }
    }

    /// Bytes the kernel takes before anyone reads, from the next [`Graphite::up`] on: a small
    /// window makes a peer feel at once that nobody reads.
    pub fn set_window(&mut self, bytes: usize) {
        self.window = Some(bytes);
    }

    /// Starts listening.
    pub fn up(&mut self) {
        assert!(self.running.is_none(), "it is up");
        let listener = bound(self.address);
        if let Some(bytes) = self.window {
            listener.set_recv_buffer_size(bytes).unwrap();
        }
        listener.listen(128).unwrap();
        let listener = Arc::new(listener);
        let thread = {
            let (listener, state, pickle) = (listener.clone(), self.state.clone(), self.pickle);
            thread::spawn(move || serve(&listener, &state, pickle))
        };
        self.running = Some((listener, thread));
    }

    /// Stops listening; further connections are refused.
    pub fn down(&mut self) {
        if let Some((listener, thread)) = self.running.take() {
            listener.shutdown(std::net::Shutdown::Both).unwrap();
            thread.join().unwrap();
        }
    }

    /// What to do with the connections to come.
    pub fn set_mode(&self, mode: Mode) {
        self.state().mode = Some(mode);
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// The keys that send a daemon's flushes here.
    pub fn config(&self) -> String {
        let port = self.port();
        let protocol = if self.pickle {
            format!("graphiteProtocol: 'pickle', graphitePicklePort: {port}")
        } else {
            format!("graphitePort: {port}")
        };
        format!("backends: ['./backends/graphite'], graphiteHost: '127.0.0.1', {protocol}")
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Connections accepted so far.
    pub fn connections(&self) -> usize {
        self.state().connections
    }

    /// Connections not done with.
    pub fn open(&self) -> usize {
        let state = self.state();
        state.open + state.held.len()
    }

    /// Lets go of the connections it holds without reading.
    pub fn release(&self) {
        self.state().held.clear();
    }

    /// The flushes that came whole.
    #[track_caller]
    pub fn flushes(&self) -> Vec<Flush> {
        let state = self.state();
        assert!(state.faults.is_empty(), "{:#?}", state.faults);
        state.flushes.clone()
    }

    /// Hands over the flushes that came whole, for a test that runs long enough to mind the room.
    #[track_caller]
    pub fn take_flushes(&self) -> Vec<Flush> {
        let mut state = self.state();
        assert!(state.faults.is_empty(), "{:#?}", state.faults);
        std::mem::take(&mut state.flushes)
    }

    /// Waits until so many flushes came whole.
    #[track_caller]
    pub fn wait_flushes(&self, count: usize) -> Vec<Flush> {
        wait_until(&format!("{count} flushes"), || {
            let flushes = self.flushes();
            (flushes.len() >= count).then_some(flushes)
        })
    }

    /// All values a name had, in the order they came.
    #[track_caller]
    pub fn values(&self, name: &str) -> Vec<f64> {
        let flushes = self.flushes();
        let points = flushes.iter().flatten().filter(|point| point.name == name);
        points.map(|point| point.value.parse().unwrap()).collect()
    }

    /// The sum over all flushes, which no flush boundary changes.
    #[track_caller]
    pub fn sum(&self, name: &str) -> f64 {
        self.values(name).iter().sum()
    }

    /// Waits until the sum has come to `expected`; going beyond it fails.
    #[track_caller]
    pub fn wait_sum(&self, name: &str, expected: f64) {
        let end = Instant::now() + DEADLINE;
        loop {
            let sum = self.sum(name);
            assert!(
                sum <= expected,
                "{name} came to {sum}, more than {expected}"
            );
            if sum == expected {
                return;
            }
            assert!(
                Instant::now() < end,
                "{name} came to {sum} only, {expected} were sent"
            );
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits until a name has had some value.
    #[track_caller]
    pub fn wait_name(&self, name: &str) -> f64 {
        wait_until(name, || self.values(name).first().copied())
    }
}

impl Drop for Graphite {
    fn drop(&mut self) {
        if let Some((listener, _)) = &self.running {
            let _ = listener.shutdown(std::net::Shutdown::Both);
        }
        if let Ok(mut state) = self.state.lock() {
            state.held.clear();
        }
    }
}

/// The points of one flush by name. A name twice in a flush is a fault of the sender.
#[track_caller]
pub fn by_name(flush: &[Point]) -> BTreeMap<String, String> {
    let mut map = BTreeMap::new();
    for point in flush {
        let before = map.insert(point.name.clone(), point.value.clone());
        assert_eq!(before, None, "{} is twice in the flush", point.name);
    }
    map
}

/// Two such sockets may share a port as long as one of them does not listen.
fn bound(address: SocketAddr) -> Socket {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
    socket.set_reuse_address(true).unwrap();
    socket.bind(&address.into()).unwrap();
    socket
}

fn serve(listener: &Socket, state: &Arc<Mutex<State>>, pickle: bool) {
    loop {
        let socket = match listener.accept() {
            Ok((socket, _)) => socket,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            // `down` or drop has shut the listener.
            Err(_) => return,
        };
        let stream = TcpStream::from(socket);
        let mut guard = state.lock().unwrap();
        guard.connections += 1;
        let mode = guard.mode.unwrap_or(Mode::Take);
        match mode {
            Mode::Stall => {
                guard.held.push(stream);
                continue;
            }
            Mode::Reset { after, times } => {
                let left = Mode::Reset {
                    after,
                    times: times.saturating_sub(1),
                };
                guard.mode = Some(if times > 1 { left } else { Mode::Take });
            }
            _ => {}
        }
        guard.open += 1;
        drop(guard);
        let state = state.clone();
        thread::spawn(move || {
            let bytes = read_all(&stream, mode);
            let points = bytes.and_then(|bytes| decode(&bytes, pickle));
            let mut guard = state.lock().unwrap();
            guard.open -= 1;
            match points {
                Ok(points) => guard.flushes.push(points),
                Err(Fault::Cut) => {}
                Err(Fault::Wrong(what)) => guard.faults.push(what),
            }
            if matches!(mode, Mode::HoldOpen) {
                guard.held.push(stream);
            }
        });
    }
}

enum Fault {
    /// The connection ended before the flush did; not the content's fault.
    Cut,
    /// The content is wrong.
    Wrong(String),
}

fn read_all(mut stream: &TcpStream, mode: Mode) -> Result<Vec<u8>, Fault> {
    let mut bytes = Vec::new();
    let mut block = vec![0; 65536];
    loop {
        let room = match mode {
            Mode::Reset { after, .. } if bytes.len() >= after => {
                // Closing with linger 0 sends a reset and not a FIN.
                let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
                return Err(Fault::Cut);
            }
            Mode::Reset { after, .. } => (after - bytes.len()).min(block.len()),
            Mode::Trickle { bytes, pause } => {
                thread::sleep(pause);
                bytes.min(block.len())
            }
            _ => block.len(),
        };
        match stream.read(&mut block[..room]) {
            Ok(0) => return Ok(bytes),
            Ok(count) => bytes.extend_from_slice(&block[..count]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return Err(Fault::Cut),
        }
    }
}

fn decode(bytes: &[u8], pickle: bool) -> Result<Flush, Fault> {
    let decoded = if pickle {
        decode_frames(bytes)
    } else {
        decode_lines(bytes)
    };
    decoded.map_err(Fault::Wrong)
}

/// `name value timestamp\n`, and nothing else.
pub fn decode_lines(bytes: &[u8]) -> Result<Flush, String> {
    let text = std::str::from_utf8(bytes).map_err(|error| error.to_string())?;
    if !text.is_empty() && !text.ends_with('\n') {
        return Err(format!(
            "the last line has no end: {:?}",
            text.lines().last()
        ));
    }
    let point = |line: &str| {
        let mut words = line.rsplitn(3, ' ');
        let timestamp = words.next().and_then(|word| word.parse().ok());
        let (value, name) = (words.next(), words.next());
        match (name, value, timestamp) {
            (Some(name), Some(value), Some(timestamp)) if is_number(value) => Ok(Point {
                name: name.to_owned(),
                value: value.to_owned(),
                timestamp,
            }),
            _ => Err(format!("not 'name value timestamp': {line:?}")),
        }
    };
    text.lines().map(point).collect()
}

/// Graphite has no use for the infinite.
fn is_number(value: &str) -> bool {
    value.parse().is_ok_and(f64::is_finite)
}

/// Frames of four bytes of length, big-endian, and a pickle each.
pub fn decode_frames(mut bytes: &[u8]) -> Result<Flush, String> {
    let mut points = Vec::new();
    while !bytes.is_empty() {
        let (head, rest) = bytes
            .split_first_chunk::<4>()
            .ok_or("a frame is cut in its length")?;
        let length = u32::from_be_bytes(*head) as usize;
        if rest.len() < length {
            return Err(format!("a frame of {length} bytes has only {}", rest.len()));
        }
        points.extend(unpickle(&rest[..length])?);
        bytes = &rest[length..];
    }
    Ok(points)
}

/// What the stack of the pickle machine holds.
enum Item {
    Mark,
    Text(String),
    Number(u64),
    Tuple(Vec<Item>),
    List(Vec<Item>),
}

/// As much of pickle's protocol 0 as a list of (name, (timestamp, value)) needs. No memo.
fn unpickle(bytes: &[u8]) -> Result<Flush, String> {
    let text = std::str::from_utf8(bytes).map_err(|error| error.to_string())?;
    let mut rest = text;
    let mut stack: Vec<Item> = Vec::new();
    loop {
        let op = rest.chars().next().ok_or("the pickle has no end")?;
        rest = &rest[op.len_utf8()..];
        let mut line = || {
            let (line, after) = rest.split_once('\n').ok_or("an argument has no end")?;
            rest = after;
            Ok::<&str, String>(line)
        };
        match op {
            '(' => stack.push(Item::Mark),
            'S' => stack.push(Item::Text(unquote(line()?)?)),
            'I' | 'L' => {
                let digits = line()?.trim_end_matches('L');
                stack.push(Item::Number(
                    digits.parse().map_err(|_| format!("{digits:?}"))?,
                ));
            }
            't' | 'l' => {
                let mark = stack.iter().rposition(|item| matches!(item, Item::Mark));
                let mut items = stack.split_off(mark.ok_or("no mark")?);
                items.remove(0);
                stack.push(if op == 't' {
                    Item::Tuple(items)
                } else {
                    Item::List(items)
                });
            }
            'a' => match (stack.pop(), stack.last_mut()) {
                (Some(item), Some(Item::List(list))) => list.push(item),
                _ => return Err("append to what is no list".into()),
            },
            '.' if !rest.is_empty() => return Err(format!("after the pickle: {rest:.60?}")),
            '.' => break,
            _ => return Err(format!("opcode {op:?}")),
        }
    }
    let (Some(Item::List(list)), true) = (stack.pop(), stack.is_empty()) else {
        return Err("the pickle is not one list".into());
    };
    list.into_iter().map(pickled_point).collect()
}

fn pickled_point(item: Item) -> Result<Point, String> {
    let wrong = || "not (name, (timestamp, value))".to_owned();
    let Item::Tuple(outer) = item else {
        return Err(wrong());
    };
    let Ok([Item::Text(name), Item::Tuple(inner)]) = <[Item; 2]>::try_from(outer) else {
        return Err(wrong());
    };
    match <[Item; 2]>::try_from(inner) {
        Ok([Item::Number(timestamp), Item::Text(value)]) if is_number(&value) => Ok(Point {
            name,
            value,
            timestamp,
        }),
        _ => Err(wrong()),
    }
}

/// A Python string literal in single quotes.
fn unquote(literal: &str) -> Result<String, String> {
    let inner = literal
        .strip_prefix('\'')
        .and_then(|rest| rest.strip_suffix('\''));
    let mut letters = inner
        .ok_or_else(|| format!("not quoted: {literal}"))?
        .chars();
    let mut text = String::new();
    while let Some(letter) = letters.next() {
        match letter {
            '\\' => text.push(letters.next().ok_or("a backslash at the end")?),
            '\'' => return Err(format!("a quote inside: {literal}")),
            _ => text.push(letter),
        }
    }
    Ok(text)
}
