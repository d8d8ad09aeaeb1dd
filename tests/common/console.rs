//! A client of the admin console (SPEC 7).

use super::DEADLINE;
use super::json::Json;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};

/// One connection.
pub struct Console {
    stream: TcpStream,
    /// Read from the socket, not yet handed out.
    buffer: Vec<u8>,
}

impl Console {
    /// Connects.
    pub fn connect(address: SocketAddr) -> Console {
        let stream = TcpStream::connect_timeout(&address, DEADLINE).unwrap();
        Console::over(stream)
    }

    /// Over a connection made elsewhere.
    pub fn over(stream: TcpStream) -> Console {
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.set_write_timeout(Some(DEADLINE)).unwrap();
        Console {
            stream,
            buffer: Vec::new(),
        }
    }

    /// Sends these bytes as they are.
    pub fn send(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).unwrap();
    }

    /// The reply up to and with `end`.
    #[track_caller]
    pub fn read_until(&mut self, end: &str) -> String {
        loop {
            let found = self
                .buffer
                .windows(end.len())
                .position(|window| window == end.as_bytes());
            if let Some(at) = found {
                let reply: Vec<u8> = self.buffer.drain(..at + end.len()).collect();
                return String::from_utf8_lossy(&reply).into_owned();
            }
            assert!(
                self.fill(),
                "closed before {end:?}: {}",
                String::from_utf8_lossy(&self.buffer)
            );
        }
    }

    /// So many bytes of reply, or fewer where the daemon closes before.
    #[track_caller]
    pub fn read_bytes(&mut self, count: usize) -> String {
        while self.buffer.len() < count && self.fill() {}
        let reply: Vec<u8> = self.buffer.drain(..count.min(self.buffer.len())).collect();
        String::from_utf8_lossy(&reply).into_owned()
    }

    /// All that is left until the daemon closes.
    #[track_caller]
    pub fn read_to_close(&mut self) -> String {
        while self.fill() {}
        String::from_utf8_lossy(&std::mem::take(&mut self.buffer)).into_owned()
    }

    #[track_caller]
    fn fill(&mut self) -> bool {
        let mut block = [0; 65536];
        match self.stream.read(&mut block) {
            Ok(0) => false,
            Ok(count) => {
                self.buffer.extend_from_slice(&block[..count]);
                true
            }
            Err(error) if error.kind() == ErrorKind::ConnectionReset => false,
            // A read with a time-out is not taken up again by itself.
            Err(error) if error.kind() == ErrorKind::Interrupted => true,
            Err(error) => {
                panic!(
                    "no reply ({error}); so far {:?}",
                    String::from_utf8_lossy(&self.buffer)
                )
            }
        }
    }

    /// One command, and its reply up to and with `end`.
    #[track_caller]
    pub fn ask(&mut self, command: &str, end: &str) -> String {
        self.send(&format!("{command}\n"));
        self.read_until(end)
    }

    /// `counters`, `timers` or `gauges`, checked for its shape: JSON, `END`, an empty line.
    #[track_caller]
    pub fn json(&mut self, command: &str) -> Json {
        let reply = self.ask(command, "END\n\n");
        let body = reply.strip_suffix("END\n\n").unwrap();
        match Json::parse(body) {
            Ok(value @ Json::Map(_)) => value,
            other => panic!("{command}: not a JSON object: {other:?}\n{reply}"),
        }
    }

    /// A counter's value in the present interval.
    #[track_caller]
    pub fn counter(&mut self, name: &str) -> Option<f64> {
        self.json("counters").get(name).and_then(Json::number)
    }
}
