//! The daemon under test: started in a directory, its ports learnt from the ready line, its output
//! kept, ended by drop.

use super::console::Console;
use super::json::Json;
use super::{DEADLINE, Dir, signal, wait_until};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// The program.
pub const STATSD: &str = env!("CARGO_BIN_EXE_statsd");

/// Which of the two a line was written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    Stdout,
    Stderr,
}

/// Lines as they come, and how many of the streams have ended.
#[derive(Default)]
struct Collected {
    lines: Vec<(Stream, String)>,
    ended: usize,
}

/// What a process has written, kept by two threads of the test.
#[derive(Clone)]
struct Output(Arc<Mutex<Collected>>);

impl Output {
    fn of(child: &mut Child) -> Output {
        let output = Output(Arc::default());
        output.collect(Stream::Stdout, child.stdout.take().unwrap());
        output.collect(Stream::Stderr, child.stderr.take().unwrap());
        output
    }

    fn collect(&self, stream: Stream, pipe: impl Read + Send + 'static) {
        let shared = self.0.clone();
        thread::spawn(move || {
            for line in BufReader::new(pipe).split(b'\n').map_while(Result::ok) {
                let line = String::from_utf8_lossy(&line).into_owned();
                shared.lock().unwrap().lines.push((stream, line));
            }
            shared.lock().unwrap().ended += 1;
        });
    }

    fn lines(&self) -> Vec<(Stream, String)> {
        self.0.lock().unwrap().lines.clone()
    }

    fn ended(&self) -> bool {
        self.0.lock().unwrap().ended == 2
    }

    fn text(&self) -> String {
        self.lines()
            .iter()
            .map(|(_, line)| format!("{line}\n"))
            .collect()
    }
}

/// A run that ended by itself.
pub struct Finished {
    /// Exit status; `None` where a signal ended it.
    pub code: Option<i32>,
    /// What it wrote to stdout.
    pub stdout: String,
    /// What it wrote to stderr.
    pub stderr: String,
}

impl Finished {
    /// Both outputs, for a message that may be on either.
    pub fn text(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }

    /// Fails, with all it wrote, unless it ended with `code`.
    #[track_caller]
    pub fn expect(&self, code: i32) -> &Finished {
        assert_eq!(self.code, Some(code), "it wrote:\n{}", self.text());
        self
    }
}

/// The program with these arguments, nothing on stdin.
pub fn command(args: &[&str]) -> Command {
    let mut command = Command::new(STATSD);
    command.args(args);
    command
}

/// Runs something that ends by itself, and waits until nobody holds its output any more: a daemon
/// that detaches must let go of it.
#[track_caller]
pub fn finish(mut command: Command) -> Finished {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let output = Output::of(&mut child);
    let end = Instant::now() + DEADLINE;
    let code = loop {
        match child.try_wait().unwrap() {
            Some(status) if output.ended() => break status.code(),
            _ if Instant::now() > end => {
                let _ = child.kill();
                let _ = child.wait();
                panic!(
                    "still running, or its output still held; it wrote:\n{}",
                    output.text()
                );
            }
            _ => thread::sleep(Duration::from_millis(5)),
        }
    };
    let of = |wanted| {
        let lines = output.lines();
        lines
            .iter()
            .filter(|(s, _)| *s == wanted)
            .map(|(_, line)| format!("{line}\n"))
            .collect()
    };
    Finished {
        code,
        stdout: of(Stream::Stdout),
        stderr: of(Stream::Stderr),
    }
}

/// A running daemon.
pub struct Daemon {
    child: Child,
    output: Output,
    /// What the ready line names, in its order: `("udp", "127.0.0.1:8125")`.
    pub addresses: Vec<(String, String)>,
}

impl Daemon {
    /// Writes the config to `statsd.js` in the directory and starts on it.
    #[track_caller]
    pub fn start(dir: &Dir, config: &str) -> Daemon {
        Daemon::start_with(dir, &[], config)
    }

    /// The same with options.
    #[track_caller]
    pub fn start_with(dir: &Dir, options: &[&str], config: &str) -> Daemon {
        let path = dir.write("statsd.js", config);
        let mut command = command(options);
        command.arg(path).current_dir(dir.root());
        Daemon::launch(command)
    }

    /// Starts this and waits for the ready line.
    #[track_caller]
    pub fn launch(mut command: Command) -> Daemon {
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let output = Output::of(&mut child);
        let mut daemon = Daemon {
            child,
            output,
            addresses: Vec::new(),
        };
        let ready = wait_until("the ready line", || {
            let line = daemon.line_with("server is up");
            if line.is_none() && daemon.output.ended() {
                let status = daemon.child.wait().unwrap();
                panic!(
                    "ended before it was up, {status}; it wrote:\n{}",
                    daemon.output.text()
                );
            }
            line
        });
        let (_, list) = ready.split_once("server is up: ").unwrap_or_else(|| {
            panic!("no addresses in the ready line: {ready}");
        });
        let pair = |item: &str| {
            item.split_once(' ')
                .map(|(a, b)| (a.to_owned(), b.to_owned()))
        };
        daemon.addresses = list.split(", ").filter_map(pair).collect();
        daemon
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Where to reach the first server of that kind. Every address becomes loopback.
    #[track_caller]
    pub fn address(&self, kind: &str) -> SocketAddr {
        let found = self.addresses.iter().find(|(name, _)| name == kind);
        let (_, text) = found.unwrap_or_else(|| panic!("no {kind} in {:?}", self.addresses));
        let mut address: SocketAddr = text.parse().unwrap();
        assert_ne!(
            address.port(),
            0,
            "the ready line must name the real port: {text}"
        );
        if address.ip().is_unspecified() {
            address.set_ip(match address.ip() {
                IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
                IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
            });
        }
        address
    }

    /// The path of the first unix server.
    #[track_caller]
    pub fn socket_path(&self) -> PathBuf {
        let found = self.addresses.iter().find(|(name, _)| name == "unix");
        found
            .unwrap_or_else(|| panic!("no unix in {:?}", self.addresses))
            .1
            .clone()
            .into()
    }

    /// One datagram to the first udp server.
    #[track_caller]
    pub fn send(&self, packet: &str) {
        let address = self.address("udp");
        let any: IpAddr = match address.ip() {
            IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let socket = UdpSocket::bind(SocketAddr::new(any, 0)).unwrap();
        socket.send_to(packet.as_bytes(), address).unwrap();
    }

    /// A connection to the first tcp server.
    #[track_caller]
    pub fn tcp(&self) -> TcpStream {
        let stream = TcpStream::connect_timeout(&self.address("tcp"), DEADLINE).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_write_timeout(Some(DEADLINE)).unwrap();
        stream
    }

    /// Text to the first tcp server over a connection of its own.
    #[track_caller]
    pub fn send_tcp(&self, text: &str) {
        self.tcp().write_all(text.as_bytes()).unwrap();
    }

    /// A new connection to the console.
    #[track_caller]
    pub fn console(&self) -> Console {
        Console::connect(self.address("admin"))
    }

    /// Waits until one of the daemon's own counters, such as `metrics_received`, is at `count`.
    /// Only with an interval long enough that it cannot be reset meanwhile.
    #[track_caller]
    pub fn wait_own(&self, counter: &str, count: u64) {
        let mut console = self.console();
        let end = format!(".{counter}");
        wait_until(&format!("{counter} at {count}"), || {
            let counters = console.json("counters");
            let own = counters
                .members()
                .iter()
                .find(|(name, _)| name.ends_with(&end));
            let seen = own.and_then(|(_, value)| value.number()).unwrap();
            assert!(
                seen <= count as f64,
                "{counter} is {seen}, more than {count}"
            );
            (seen == count as f64).then_some(())
        });
    }

    /// Waits until the daemon has seen so many lines since the last flush.
    #[track_caller]
    pub fn wait_received(&self, lines: u64) {
        self.wait_own("metrics_received", lines);
    }

    /// All lines so far, of both streams.
    pub fn lines(&self) -> Vec<String> {
        self.output
            .lines()
            .into_iter()
            .map(|(_, line)| line)
            .collect()
    }

    /// The lines of stdout so far.
    pub fn stdout(&self) -> Vec<String> {
        let lines = self.output.lines().into_iter();
        lines
            .filter(|(stream, _)| *stream == Stream::Stdout)
            .map(|(_, line)| line)
            .collect()
    }

    /// The first line so far that contains the text.
    pub fn line_with(&self, text: &str) -> Option<String> {
        self.lines().into_iter().find(|line| line.contains(text))
    }

    /// Waits for a line that contains the text.
    #[track_caller]
    pub fn wait_line(&self, text: &str) -> String {
        self.wait_line_after(0, text)
    }

    /// Waits for a line that contains the text and is not among the first `count`.
    #[track_caller]
    pub fn wait_line_after(&self, count: usize, text: &str) -> String {
        let end = Instant::now() + DEADLINE;
        loop {
            let lines = self.lines();
            if let Some(line) = lines.iter().skip(count).find(|line| line.contains(text)) {
                return line.clone();
            }
            let so_far = lines.join("\n");
            assert!(
                Instant::now() < end,
                "no line with {text:?} came; it wrote:\n{so_far}"
            );
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Sends it a signal.
    pub fn signal(&self, name: &str) {
        signal(self.pid(), name);
    }

    /// Fails if it has ended.
    #[track_caller]
    pub fn assert_running(&mut self) {
        if let Some(status) = self.child.try_wait().unwrap() {
            panic!("it ended, {status}; it wrote:\n{}", self.output.text());
        }
    }

    /// Waits for its end, then for the end of its output.
    #[track_caller]
    pub fn wait_end(&mut self) -> Option<i32> {
        let status = wait_until("the daemon's end", || self.child.try_wait().unwrap());
        wait_until("the end of its output", || {
            self.output.ended().then_some(())
        });
        status.code()
    }

    /// Asks it to stop, which must flush and end with 0. What it wrote stays readable.
    #[track_caller]
    pub fn stop(&mut self) {
        self.signal("TERM");
        let code = self.wait_end();
        assert_eq!(
            code,
            Some(0),
            "SIGTERM must end it with 0; it wrote:\n{}",
            self.output.text()
        );
    }

    /// What the console backend printed: the objects after each `Flushing stats at`, those that are
    /// complete.
    #[track_caller]
    pub fn console_flushes(&self) -> Vec<Json> {
        let text = self.stdout().join("\n") + "\n";
        let parts = text.split("Flushing stats at").skip(1);
        let bodies = parts.filter_map(|part| part.split_once('\n').map(|(_, body)| body));
        let mut flushes = Vec::new();
        for body in bodies {
            match Json::parse_first(body) {
                Ok((value, _)) => flushes.push(value),
                // Only the last may still be on its way; `wait_flushes` looks again.
                Err(_) if text.ends_with(body) => {}
                Err(error) => panic!("not JSON after 'Flushing stats at': {error}\n{body}"),
            }
        }
        flushes
    }

    /// Waits until the console backend has printed so many flushes.
    #[track_caller]
    pub fn wait_flushes(&self, count: usize) -> Vec<Json> {
        wait_until(&format!("{count} flushes on stdout"), || {
            let flushes = self.console_flushes();
            (flushes.len() >= count).then_some(flushes)
        })
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("the daemon wrote:\n{}", self.output.text());
        }
    }
}
