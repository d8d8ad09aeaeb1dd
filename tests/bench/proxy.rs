//! The case about the proxy: three nodes that discard, against the program that only receives.
//!
//! The nodes share the second processor with the sender. What they fail to read in time is lost to
//! them, not to the measure: only the proxy's CPU and what the kernel dropped before it count.

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::load::{Datagrams, Pace};
use crate::receive::{Window, alternate, pairs};
use crate::report::Row;
use crate::{Bench, Running, os};

/// Three nodes that take lines and answer `health: up`, served by threads that end with the bench.
struct Nodes {
    /// Port and admin port of each.
    ports: Vec<(u16, u16)>,
    datagrams: Arc<AtomicU64>,
    bytes: Arc<AtomicU64>,
}

impl Nodes {
    fn start() -> std::io::Result<Nodes> {
        let (mut ports, mut sockets) = (vec![], vec![]);
        for _ in 0..3 {
            let data = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
            os::set_receive_buffer(&data, 8 << 20);
            let admin = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
            ports.push((data.local_addr()?.port(), admin.local_addr()?.port()));
            sockets.push(data);
            std::thread::spawn(move || {
                for connection in admin.incoming().map_while(Result::ok) {
                    std::thread::spawn(move || {
                        let Ok(mut answers) = connection.try_clone() else {
                            return;
                        };
                        for _ in BufReader::new(connection).lines().map_while(Result::ok) {
                            if answers.write_all(b"health: up\n").is_err() {
                                return;
                            }
                        }
                    });
                }
            });
        }
        let nodes = Nodes {
            ports,
            datagrams: Arc::default(),
            bytes: Arc::default(),
        };
        let (datagrams, bytes) = (Arc::clone(&nodes.datagrams), Arc::clone(&nodes.bytes));
        std::thread::spawn(move || {
            let mut receiver = os::Receiver::new();
            let descriptors: Vec<_> = sockets.iter().map(AsRawFd::as_raw_fd).collect();
            loop {
                os::wait_readable(&descriptors, 1_000);
                for &socket in &descriptors {
                    let (got, size) = receiver.receive(socket).unwrap_or_default();
                    datagrams.fetch_add(got as u64, Ordering::Relaxed);
                    bytes.fetch_add(size as u64, Ordering::Relaxed);
                }
            }
        });
        Ok(nodes)
    }
}

/// The case, with so many lines a datagram.
pub fn case(bench: &Bench, what: &str, lines: u64, aim: &'static str) -> Result<Vec<Row>, String> {
    let load = Datagrams::mixed(lines, if lines == 1 { 60_000 } else { 4_000 });
    let count = bench.scaled(if lines == 1 { 500_000 } else { 100_000 });
    let nodes = Nodes::start().map_err(|e| e.to_string())?;
    let (mut floor, mut proxy) = (vec![], vec![]);
    for _ in 0..bench.runs {
        let (least, least_port) = bench.start_floor("udp")?;
        let Running { subject, port, .. } = bench.start_proxy(&nodes.ports)?;
        let mut least = Window::new(&least, least_port)?;
        let mut window = Window::new(&subject, port)?;
        least.introduce(&load)?;
        window.introduce(&load)?;
        let flat_out = |w: &mut Window, n| w.measure(&load, n, Pace::Free);
        let both = alternate(&mut least, &mut window, flat_out, count)?;
        floor.push(both.0);
        proxy.push(both.1);
    }
    let mut row = pairs(what, aim, &floor, &proxy);
    let datagrams = nodes.datagrams.load(Ordering::Relaxed);
    let size = nodes.bytes.load(Ordering::Relaxed) / datagrams.max(1);
    row.note += &format!("; the nodes read {datagrams} datagrams of {size} bytes");
    Ok(vec![row])
}
