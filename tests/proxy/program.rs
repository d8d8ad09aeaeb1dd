//! The real program: started on free ports in a directory of its own, and stopped when it is dropped.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::inject::Faults;
use crate::node::Node;
use crate::wait_for;

static STARTED: AtomicUsize = AtomicUsize::new(0);

pub struct Program {
    child: Child,
    pub directory: PathBuf,
    log: Arc<Mutex<Vec<String>>>,
    /// `udp`, `tcp`, `unix`, `admin` and where.
    pub listens_on: Vec<(String, String)>,
}

/// A temporary directory for one test.
pub fn directory() -> PathBuf {
    let number = STARTED.fetch_add(1, Ordering::SeqCst);
    let name = format!("statsd-proxy-{}-{number}", std::process::id());
    let directory = std::env::temp_dir().join(name);
    std::fs::create_dir(&directory).unwrap();
    directory
}

pub fn command() -> Command {
    Command::new(env!("CARGO_BIN_EXE_statsd-proxy"))
}

impl Program {
    /// Starts it with these nodes, and these keys beside them.
    pub fn start(nodes: &[&Node], keys: &str) -> Program {
        let directory = directory();
        write_config(&directory, nodes, keys);
        Program::launch(directory, command())
    }

    /// The same, its clocks and calls in the test's hand.
    pub fn start_with_faults(nodes: &[&Node], keys: &str) -> (Program, Faults) {
        let directory = directory();
        write_config(&directory, nodes, keys);
        let faults = Faults::new(&directory);
        let command = faults.with(command());
        (Program::launch(directory, command), faults)
    }

    fn launch(directory: PathBuf, mut command: Command) -> Program {
        let mut child = command
            .arg("config.js")
            .current_dir(&directory)
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        let log = Arc::new(Mutex::new(Vec::new()));
        let output = BufReader::new(child.stdout.take().unwrap());
        let lines = Arc::clone(&log);
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                lines.lock().unwrap().push(line);
            }
        });
        let mut program = Program {
            child,
            directory,
            log,
            listens_on: Vec::new(),
        };
        let ready = program.logged("server is up: ");
        let (_, names) = ready.split_once("server is up: ").unwrap();
        let pair = |name: &str| {
            let (kind, place) = name.split_once(' ').unwrap();
            (kind.to_string(), place.to_string())
        };
        program.listens_on = names.split(", ").map(pair).collect();
        program
    }

    pub fn place(&self, kind: &str) -> &str {
        let found = self.listens_on.iter().find(|(name, _)| name == kind);
        &found.unwrap().1
    }

    fn address(&self, kind: &str) -> SocketAddr {
        self.place(kind).parse().unwrap()
    }

    /// The first log line with this text in it, once it is there.
    pub fn logged(&self, text: &str) -> String {
        wait_for(text, || self.log().into_iter().find(|l| l.contains(text)))
    }

    pub fn log(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }

    pub fn udp(&self) -> UdpSocket {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.connect(self.address("udp")).unwrap();
        socket
    }

    pub fn tcp(&self) -> TcpStream {
        TcpStream::connect(self.address("tcp")).unwrap()
    }

    pub fn unix(&self) -> UnixStream {
        UnixStream::connect(self.place("unix")).unwrap()
    }

    /// A connection to the console.
    pub fn console(&self) -> TcpStream {
        let console = TcpStream::connect(self.address("admin")).unwrap();
        let deadline = Some(Duration::from_secs(20));
        console.set_read_timeout(deadline).unwrap();
        console
    }

    /// Gives a command on a connection of its own; the whole reply.
    pub fn admin(&self, command: &str) -> String {
        let mut console = self.console();
        console
            .write_all(format!("{command}\nquit\n").as_bytes())
            .unwrap();
        let mut reply = String::new();
        console.read_to_string(&mut reply).unwrap();
        reply
    }

    /// A figure of `status`.
    pub fn figure(&self, name: &str) -> u64 {
        let status = self.admin("status");
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix(&format!("{name}: ")));
        line.unwrap_or_else(|| panic!("no {name} in {status}"))
            .parse()
            .unwrap()
    }

    /// A figure of a node in `status`.
    pub fn node_figure(&self, node: &Node, name: &str) -> u64 {
        let status = self.admin("status");
        let start = format!("node {}: ", node.name());
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix(&start))
            .unwrap();
        let mut figures = line.split(", ").filter_map(|part| part.split_once(' '));
        figures
            .find_map(|(key, value)| (key == name).then(|| value.parse().unwrap()))
            .unwrap_or_else(|| panic!("no {name} in {line}"))
    }

    /// Live nodes, in the order of the ring.
    pub fn live(&self) -> Vec<String> {
        let status = self.admin("status");
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("nodes: "))
            .unwrap();
        line.split_whitespace().map(str::to_string).collect()
    }

    pub fn wait_until_live(&self, count: usize) {
        wait_for(&format!("{count} live nodes"), || {
            (self.live().len() == count).then_some(())
        });
    }

    pub fn rewrite_config(&self, nodes: &[&Node], keys: &str) {
        write_config(&self.directory, nodes, keys);
    }

    pub fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    /// The pids of its children.
    pub fn children(&self) -> Vec<i32> {
        let path = format!("/proc/{0}/task/{0}/children", self.child.id());
        let text = std::fs::read_to_string(path).unwrap();
        text.split_whitespace()
            .map(|pid| pid.parse().unwrap())
            .collect()
    }

    pub fn signal(&self, signal: i32) {
        statsd::sys::send_signal(self.pid(), signal).unwrap();
    }

    /// Waits for its end; the exit code.
    pub fn wait(&mut self) -> Option<i32> {
        wait_for("the end of the program", || {
            self.child.try_wait().unwrap().map(|status| status.code())
        })
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // Orderly, so that with forkCount the children end too; a program that hangs is killed.
        if self.child.try_wait().unwrap().is_none() {
            let _ = statsd::sys::send_signal(self.pid(), libc::SIGTERM);
            let deadline = std::time::Instant::now() + Duration::from_secs(10);
            while self.child.try_wait().unwrap().is_none() && std::time::Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("the log of the proxy:\n{}", self.log().join("\n"));
        }
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

fn write_config(directory: &std::path::Path, nodes: &[&Node], keys: &str) {
    let nodes: Vec<String> = nodes.iter().map(|node| node.entry()).collect();
    let nodes = nodes.join(", ");
    let common = "host: '127.0.0.1', port: 0, mgmt_address: '127.0.0.1', mgmt_port: 0";
    let common = if keys.contains("servers:") {
        "mgmt_address: '127.0.0.1', mgmt_port: 0"
    } else {
        common
    };
    let text = format!("{{ nodes: [{nodes}], {common}, {keys} }}");
    // Replaced at once, as an administrator's editor does.
    std::fs::write(directory.join("config.new"), text).unwrap();
    std::fs::rename(directory.join("config.new"), directory.join("config.js")).unwrap();
}
