//! The floor: a program that receives and does nothing else.
//!
//! The bench starts itself again with `--floor udp PORT` or `--floor tcp PORT`. UDP: poll, then
//! recvmmsg of 64 into buffers allocated once, until a call comes back short. TCP: poll, then one
//! read of 64 KiB. What arrives is never looked at. No server that uses these calls can spend
//! less CPU, so a server's time over the floor's says what its own work costs.

use std::io::{self, Read};
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::os::fd::AsRawFd;

use crate::os;

/// Runs until SIGTERM, then prints how many calls took how many datagrams and bytes.
pub fn run(kind: &str, port: u16) -> io::Result<()> {
    os::catch_terminate();
    let (calls, datagrams, bytes) = if kind == "tcp" {
        tcp(port)?
    } else {
        udp(port)?
    };
    println!("{calls} calls {datagrams} datagrams {bytes} bytes");
    Ok(())
}

fn udp(port: u16) -> io::Result<(u64, u64, u64)> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, port))?;
    os::set_receive_buffer(&socket, 8 << 20);
    let mut receiver = os::Receiver::new();
    println!("server is up: udp 127.0.0.1:{port}");
    let (mut calls, mut datagrams, mut bytes) = (0, 0, 0);
    while !os::terminated() {
        os::wait_readable(&[socket.as_raw_fd()], 1_000);
        loop {
            let (got, size) = receiver.receive(socket.as_raw_fd())?;
            calls += 1;
            datagrams += got as u64;
            bytes += size as u64;
            if got < os::BATCH {
                break;
            }
        }
    }
    Ok((calls, datagrams, bytes))
}

fn tcp(port: u16) -> io::Result<(u64, u64, u64)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
    listener.set_nonblocking(true)?;
    let mut buffer = vec![0; 64 << 10];
    let (mut calls, mut bytes) = (0, 0);
    println!("server is up: tcp 127.0.0.1:{port}");
    while !os::terminated() {
        os::wait_readable(&[listener.as_raw_fd()], 1_000);
        let Ok((mut connection, _)) = listener.accept() else {
            continue;
        };
        connection.set_nonblocking(true)?;
        while !os::terminated() {
            os::wait_readable(&[connection.as_raw_fd()], 1_000);
            calls += 1;
            match connection.read(&mut buffer) {
                Ok(0) => break,
                Ok(got) => bytes += got as u64,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) => return Err(e),
            }
        }
    }
    Ok((calls, 0, bytes))
}
