//! A program under measurement: started on processor 0, watched through `/proc` and its CPU
//! clock, ended with SIGTERM.
//!
//! The floor and the daemon are both a [`Subject`], so that they are measured by the same code.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Seek};
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use crate::os;

/// Until a program must say that it is up, and until it must have ended.
const PATIENCE: Duration = Duration::from_secs(20);

/// A free port of this machine for both UDP and TCP.
pub fn free_port() -> io::Result<u16> {
    for _ in 0..100 {
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?
            .local_addr()?
            .port();
        if UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return Ok(port);
        }
    }
    Err(io::Error::other("no port is free for both UDP and TCP"))
}

/// A running program.
pub struct Subject {
    child: Child,
    output: Receiver<String>,
}

impl Subject {
    /// Starts `command` on processor `cpu` and waits until it says `server is up`.
    pub fn start(command: &[String], cpu: usize, ours: usize) -> Result<Subject, String> {
        let (program, arguments) = command.split_first().ok_or("an empty command")?;
        // Affinity is inherited, so that the program is on its processor from the first moment.
        os::pin(cpu);
        let child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn();
        os::pin(ours);
        let mut child = child.map_err(|e| format!("cannot start {program}: {e}"))?;
        let (lines, output) = mpsc::channel();
        if let Some(stdout) = child.stdout.take() {
            std::thread::spawn(move || {
                for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                    // Nobody listens any more: keep reading, so that the program never blocks.
                    let _ = lines.send(line);
                }
            });
        }
        let subject = Subject { child, output };
        let deadline = Instant::now() + PATIENCE;
        loop {
            match subject
                .output
                .recv_timeout(deadline.saturating_duration_since(Instant::now()))
            {
                Ok(line) if line.contains("server is up") => return Ok(subject),
                Ok(_) => {}
                Err(_) => return Err(format!("{program} did not say that it is up")),
            }
        }
    }

    /// Its process number.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// CPU time so far.
    pub fn cpu(&self) -> Result<Duration, String> {
        os::cpu_time(self.child.id()).map_err(|e| format!("the program is gone: {e}"))
    }

    /// Waits until nothing is left in its receive buffer and it uses no more CPU; returns the CPU
    /// time so far.
    pub fn settle(&self, queue: &mut KernelQueue) -> Result<Duration, String> {
        let deadline = Instant::now() + 3 * PATIENCE;
        let mut before = self.cpu()?;
        while Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(10));
            let now = self.cpu()?;
            let empty = queue.read().map_err(|e| e.to_string())?.bytes == 0;
            if empty && now == before {
                return Ok(now);
            }
            before = now;
        }
        Err("the program did not come to rest".into())
    }

    /// Memory in use, and the most ever in use, in bytes.
    pub fn memory(&self) -> (u64, u64) {
        let path = format!("/proc/{}/status", self.child.id());
        let status = fs::read_to_string(path).unwrap_or_default();
        let field = |name: &str| -> u64 {
            let rest = status.lines().find_map(|line| line.strip_prefix(name));
            let number = rest.and_then(|rest| rest.trim().strip_suffix(" kB"));
            number.and_then(|n| n.parse::<u64>().ok()).unwrap_or(0) * 1024
        };
        (field("VmRSS:"), field("VmHWM:"))
    }

    /// Ends it; returns the last line it printed.
    pub fn stop(mut self) -> String {
        self.end();
        self.output.iter().last().unwrap_or_default()
    }

    fn end(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            os::terminate(self.child.id());
        }
        let deadline = Instant::now() + PATIENCE;
        while matches!(self.child.try_wait(), Ok(None)) {
            if Instant::now() > deadline {
                let _ = self.child.kill();
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Drop for Subject {
    fn drop(&mut self) {
        self.end();
    }
}

/// What the kernel says of the sockets on a port.
#[derive(Clone, Copy, Default)]
pub struct QueueState {
    /// Sockets bound to the port, a listener included.
    pub sockets: usize,
    /// Memory that datagrams or bytes not yet read take.
    pub bytes: u64,
    /// Datagrams dropped since the socket was made; UDP alone.
    pub drops: u64,
}

/// Reads the receive queue of a port from `/proc/net`, which costs the receiver nothing.
pub struct KernelQueue {
    files: Vec<File>,
    /// `:1FBD`, as a local address ends.
    port: String,
    text: String,
}

impl KernelQueue {
    /// The UDP sockets on `port`.
    pub fn udp(port: u16) -> io::Result<KernelQueue> {
        KernelQueue::open(port, &["/proc/net/udp", "/proc/net/udp6"])
    }

    /// The TCP connections accepted on `port`.
    pub fn tcp(port: u16) -> io::Result<KernelQueue> {
        KernelQueue::open(port, &["/proc/net/tcp", "/proc/net/tcp6"])
    }

    /// Waits until somebody has bound the port; the original says that it is up a moment before.
    pub fn wait_bound(&mut self) -> Result<(), String> {
        let deadline = Instant::now() + PATIENCE;
        while self.read().map_err(|e| e.to_string())?.sockets == 0 {
            if Instant::now() > deadline {
                return Err(format!("nobody listens on port {}", self.port));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    fn open(port: u16, paths: &[&str]) -> io::Result<KernelQueue> {
        // The second is missing where the kernel has no IPv6.
        let files = paths.iter().filter(|p| Path::new(p).exists());
        let files = files.map(File::open).collect::<io::Result<_>>()?;
        Ok(KernelQueue {
            files,
            port: format!(":{port:04X}"),
            text: String::new(),
        })
    }

    /// The state now: the sum over the sockets.
    pub fn read(&mut self) -> io::Result<QueueState> {
        let mut state = QueueState::default();
        for file in &mut self.files {
            self.text.clear();
            file.rewind()?;
            file.read_to_string(&mut self.text)?;
            for line in self.text.lines().skip(1) {
                let fields: Vec<&str> = line.split_ascii_whitespace().collect();
                // The columns: slot, local, remote, state, tx:rx, timer, retransmit, uid,
                // time-out, inode, references, pointer, drops. A listener (0A) queues clients.
                if fields.len() < 5 || !fields[1].ends_with(&self.port) {
                    continue;
                }
                state.sockets += 1;
                if fields[3] == "0A" {
                    continue;
                }
                let queued = fields[4].split(':').nth(1).unwrap_or_default();
                state.bytes += u64::from_str_radix(queued, 16).unwrap_or(0);
                state.drops += fields
                    .get(12)
                    .and_then(|d| d.parse::<u64>().ok())
                    .unwrap_or(0);
            }
        }
        Ok(state)
    }
}
