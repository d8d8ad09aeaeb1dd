//! A fake node: a UDP socket that notes the lines it gets, and an admin port that can misbehave.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

/// What the node does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Up,
    /// Says `health: down`.
    Down,
    /// Takes connections and says nothing.
    Hangs,
    /// Resets connections.
    Resets,
    /// Not there: neither port is open.
    Gone,
}

pub struct Node {
    pub port: u16,
    pub admin_port: u16,
    host: String,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    mode: Mutex<Mode>,
    lines: Mutex<Vec<String>>,
    datagrams: Mutex<Vec<usize>>,
    /// Connections that the other end has not closed.
    open: AtomicUsize,
    /// What was asked, since the start.
    asked: AtomicUsize,
    /// The mode is in force.
    settled: AtomicBool,
    stop: AtomicBool,
}

impl Node {
    pub fn start() -> Node {
        Node::at("127.0.0.1", "127.0.0.1")
    }

    /// Listens on an address, and is called something in the config.
    pub fn at(address: &str, host: &str) -> Node {
        let address: IpAddr = address.parse().unwrap();
        let data = UdpSocket::bind((address, 0)).unwrap();
        let admin = TcpListener::bind((address, 0)).unwrap();
        let shared = Arc::new(Shared {
            mode: Mutex::new(Mode::Up),
            lines: Mutex::default(),
            datagrams: Mutex::default(),
            open: AtomicUsize::new(0),
            asked: AtomicUsize::new(0),
            settled: AtomicBool::new(true),
            stop: AtomicBool::new(false),
        });
        let (port, admin_port) = (
            data.local_addr().unwrap().port(),
            admin.local_addr().unwrap().port(),
        );
        let for_thread = Arc::clone(&shared);
        let thread = std::thread::spawn(move || serve(data, admin, &for_thread));
        Node {
            port,
            admin_port,
            host: host.to_string(),
            shared,
            thread: Some(thread),
        }
    }

    /// As the ring knows it.
    pub fn name(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    /// As the config has it.
    pub fn entry(&self) -> String {
        let Node {
            host,
            port,
            admin_port,
            ..
        } = self;
        format!("{{ host: '{host}', port: {port}, adminport: {admin_port} }}")
    }

    /// Changes what it does, and waits until it does.
    pub fn set(&self, mode: Mode) {
        *self.shared.mode.lock().unwrap() = mode;
        self.shared.settled.store(false, Ordering::SeqCst);
        crate::wait_for("the node to change", || {
            self.shared.settled.load(Ordering::SeqCst).then_some(())
        });
    }

    /// The lines so far.
    pub fn lines(&self) -> Vec<String> {
        self.shared.lines.lock().unwrap().clone()
    }

    /// The sizes of the datagrams so far.
    pub fn datagrams(&self) -> Vec<usize> {
        self.shared.datagrams.lock().unwrap().clone()
    }

    pub fn forget(&self) {
        self.shared.lines.lock().unwrap().clear();
        self.shared.datagrams.lock().unwrap().clear();
    }

    pub fn open_connections(&self) -> usize {
        self.shared.open.load(Ordering::SeqCst)
    }

    pub fn asked(&self) -> usize {
        self.shared.asked.load(Ordering::SeqCst)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

fn serve(data: UdpSocket, admin: TcpListener, shared: &Shared) {
    let addresses = (data.local_addr().unwrap(), admin.local_addr().unwrap());
    let mut sockets = Some((data, admin));
    let mut clients: Vec<TcpStream> = Vec::new();
    while !shared.stop.load(Ordering::SeqCst) {
        // Looked at first: a change made from here on settles in the next turn.
        let settling = !shared.settled.load(Ordering::SeqCst);
        let mode = *shared.mode.lock().unwrap();
        if mode == Mode::Gone {
            sockets = None;
            clients.clear();
        } else if sockets.is_none() {
            sockets = bind(addresses);
        }
        if settling && sockets.is_none() == (mode == Mode::Gone) {
            shared.settled.store(true, Ordering::SeqCst);
        }
        let Some((data, admin)) = &sockets else {
            std::thread::sleep(Duration::from_millis(2));
            continue;
        };
        receive(data, shared);
        admin.set_nonblocking(true).unwrap();
        while let Ok((client, _)) = admin.accept() {
            if mode == Mode::Resets {
                let linger = socket2::SockRef::from(&client);
                linger.set_linger(Some(Duration::ZERO)).unwrap();
                continue;
            }
            client.set_nonblocking(true).unwrap();
            clients.push(client);
        }
        clients.retain_mut(|client| talk(client, mode, shared));
        shared.open.store(clients.len(), Ordering::SeqCst);
    }
}

fn bind(addresses: (SocketAddr, SocketAddr)) -> Option<(UdpSocket, TcpListener)> {
    Some((
        UdpSocket::bind(addresses.0).ok()?,
        TcpListener::bind(addresses.1).ok()?,
    ))
}

fn receive(data: &UdpSocket, shared: &Shared) {
    let mut buffer = vec![0; 65_536];
    data.set_read_timeout(Some(Duration::from_millis(2)))
        .unwrap();
    while let Ok(length) = data.recv(&mut buffer) {
        let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
        shared.datagrams.lock().unwrap().push(length);
        let mut lines = shared.lines.lock().unwrap();
        // As every StatsD does: the proxy may fill datagrams up with line ends.
        let found = text.split('\n').filter(|line| !line.is_empty());
        lines.extend(found.map(str::to_string));
    }
}

/// Whether the connection stays.
fn talk(client: &mut TcpStream, mode: Mode, shared: &Shared) -> bool {
    let mut buffer = [0; 100];
    match client.read(&mut buffer) {
        Ok(0) => false,
        Ok(_) => {
            shared.asked.fetch_add(1, Ordering::SeqCst);
            let answer: &[u8] = match mode {
                Mode::Up => b"health: up\n",
                Mode::Down => b"health: down\n",
                _ => b"",
            };
            client.write_all(answer).is_ok()
        }
        Err(error) => error.kind() == ErrorKind::WouldBlock,
    }
}
