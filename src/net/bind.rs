//! From the config to bound sockets. Blocking is allowed here: it runs once, before the loop.
//!
//! A socket that the service manager handed over takes the place of a server of its kind and address,
//! so that no datagram is lost while the daemon restarts.

use crate::config::{MgmtConfig, ServerConfig, ServerKind};
use crate::{log, sys};
use socket2::{Domain, SockAddr, Socket, Type};
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// Connections that wait to be accepted.
const BACKLOG: i32 = 511;

/// What holds for all sockets of a program.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Several processes share each port.
    pub reuse_port: bool,
}

/// A server's socket.
pub enum Bound {
    /// For datagrams.
    Udp(Socket),
    /// For connections.
    Stream(Listener),
}

/// A listening socket.
pub struct Listener {
    /// Listening, non-blocking.
    pub socket: Socket,
    /// The file of a unix socket that we made, removed when it is dropped.
    file: Option<SocketFile>,
    kind: &'static str,
}

/// What could not be bound, where, and why.
#[derive(Debug)]
pub struct BindError {
    what: String,
    error: io::Error,
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hint = match self.error.kind() {
            io::ErrorKind::AddrInUse => " (is another statsd running there?)",
            io::ErrorKind::PermissionDenied => " (start as root, or choose a port above 1023)",
            io::ErrorKind::AddrNotAvailable => " (no interface of this machine has the address)",
            _ => "",
        };
        write!(f, "cannot listen on {}: {}{hint}", self.what, self.error)
    }
}

/// Binds one server of the config.
pub fn server(
    server: &ServerConfig,
    options: Options,
    handed_over: &mut Vec<OwnedFd>,
) -> Result<Bound, BindError> {
    let at = |kind: &str, address: SocketAddr| format!("{kind} {address}");
    match (server.kind, &server.socket) {
        (ServerKind::Tcp, Some(path)) => {
            let what = format!("unix {}", path.display());
            if let Some(socket) = take(handed_over, Type::STREAM, |a| a.as_pathname() == Some(path))
            {
                return listener(socket, "unix", None)
                    .map(Bound::Stream)
                    .map_err(because(what));
            }
            unix(path, server.socket_mode)
                .map(Bound::Stream)
                .map_err(because(what))
        }
        (kind, _) => {
            let name = if kind == ServerKind::Udp {
                "udp"
            } else {
                "tcp"
            };
            let address = resolve(
                server.address.as_deref(),
                server.port,
                server.ipv6,
                kind == ServerKind::Tcp,
            )
            .map_err(because(format!(
                "{name} {}",
                server.address.as_deref().unwrap_or("*")
            )))?;
            let wanted = |bound: &SockAddr| bound.as_socket() == Some(address);
            let kind_of = if kind == ServerKind::Udp {
                Type::DGRAM
            } else {
                Type::STREAM
            };
            let socket = match take(handed_over, kind_of, wanted) {
                Some(socket) => Ok(socket),
                None => open(address, kind_of, options),
            };
            let what = at(name, address);
            let socket = socket.map_err(because(what.clone()))?;
            match kind {
                ServerKind::Udp => socket.set_nonblocking(true).map(|()| Bound::Udp(socket)),
                ServerKind::Tcp => listener(socket, "tcp", None).map(Bound::Stream),
            }
            .map_err(because(what))
        }
    }
}

/// Binds the admin console.
pub fn console(
    mgmt: &MgmtConfig,
    options: Options,
    handed_over: &mut Vec<OwnedFd>,
) -> Result<Listener, BindError> {
    let address = resolve(mgmt.address.as_deref(), mgmt.port, false, true).map_err(because(
        format!("admin {}", mgmt.address.as_deref().unwrap_or("*")),
    ))?;
    let what = format!("admin {address}");
    let wanted = |bound: &SockAddr| bound.as_socket() == Some(address);
    match take(handed_over, Type::STREAM, wanted) {
        Some(socket) => Ok(socket),
        None => open(address, Type::STREAM, options),
    }
    .and_then(|socket| listener(socket, "admin", None))
    .map_err(because(what))
}

/// The same server once more, for another process: a socket of its own where the ports are shared,
/// else (a unix socket, or one that was handed over) the same one.
pub fn again(socket: &Socket) -> io::Result<Socket> {
    let address = socket.local_addr()?;
    match address.as_socket() {
        Some(address) if socket.reuse_port()? => {
            let socket = open(address, socket.r#type()?, Options { reuse_port: true })?;
            socket.set_nonblocking(true)?;
            Ok(socket)
        }
        _ => socket.try_clone(),
    }
}

impl Listener {
    /// See [`again`]. The file of a unix socket stays with the first one.
    pub fn again(&self) -> io::Result<Listener> {
        let socket = again(&self.socket)?;
        listener(socket, self.kind, None)
    }
}

/// When all is bound: closes the sockets of the service manager that fit nothing, and says so.
pub fn close_unused(handed_over: Vec<OwnedFd>) {
    if !handed_over.is_empty() {
        log::warning!(
            "{} sockets of the service manager fit none of our servers; closed them",
            handed_over.len()
        );
    }
}

fn because(what: String) -> impl FnOnce(io::Error) -> BindError {
    move |error| BindError { what, error }
}

/// The address to bind. Without one: all of them. Streams then take IPv4 and IPv6 alike where there is
/// IPv6, as the original's do; datagrams only if `address_ipv6` asks for it.
fn resolve(address: Option<&str>, port: u16, ipv6: bool, stream: bool) -> io::Result<SocketAddr> {
    match address {
        Some(name) => {
            let found: Vec<SocketAddr> = (name, port).to_socket_addrs()?.collect();
            let preferred = found.iter().find(|a| a.is_ipv6() == ipv6).or(found.first());
            preferred
                .copied()
                .ok_or_else(|| io::Error::other("no address of that name"))
        }
        None if ipv6 || (stream && has_ipv6()) => {
            Ok((IpAddr::V6(Ipv6Addr::UNSPECIFIED), port).into())
        }
        None => Ok((IpAddr::V4(Ipv4Addr::UNSPECIFIED), port).into()),
    }
}

fn has_ipv6() -> bool {
    Socket::new(Domain::IPV6, Type::STREAM, None)
        .and_then(|socket| socket.bind(&SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)).into()))
        .is_ok()
}

fn open(address: SocketAddr, kind: Type, options: Options) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), kind, None)?;
    if address.is_ipv6() {
        // `::` takes IPv4 too, whatever the system's default.
        socket.set_only_v6(false)?;
    }
    if options.reuse_port {
        socket.set_reuse_port(true)?;
    }
    if kind == Type::STREAM {
        // Old connections in TIME_WAIT are no obstacle; another listener still is.
        socket.set_reuse_address(true)?;
    }
    socket.bind(&address.into())?;
    Ok(socket)
}

fn listener(socket: Socket, kind: &'static str, file: Option<SocketFile>) -> io::Result<Listener> {
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(Listener { socket, file, kind })
}

/// Takes the socket of this type and address out of those that were handed over.
fn take(
    handed_over: &mut Vec<OwnedFd>,
    kind: Type,
    fits: impl Fn(&SockAddr) -> bool,
) -> Option<Socket> {
    let index = handed_over.iter().position(|fd| {
        let socket = socket2::SockRef::from(fd);
        socket.r#type().is_ok_and(|found| found == kind)
            && socket.local_addr().is_ok_and(|address| fits(&address))
    })?;
    Some(Socket::from(handed_over.remove(index)))
}

/// A unix stream socket. A stale file of a socket that nobody listens on any more is no obstacle.
fn unix(path: &Path, mode: Option<u32>) -> io::Result<Listener> {
    let address = SockAddr::unix(path)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // Made with its mode: changing it afterwards would follow whatever somebody has put there.
    let before = mode.map(|mode| sys::umask(0o777 & !mode));
    let bound = match socket.bind(&address) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && is_stale(path, &address) => {
            std::fs::remove_file(path).and_then(|()| socket.bind(&address))
        }
        other => other,
    };
    if let Some(before) = before {
        sys::umask(before);
    }
    bound?;
    let file = SocketFile::of(path)?;
    listener(socket, "unix", Some(file))
}

fn is_stale(path: &Path, address: &SockAddr) -> bool {
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket());
    is_socket
        && Socket::new(Domain::UNIX, Type::STREAM, None)
            .and_then(|probe| probe.connect(address))
            .is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}

/// A socket file of ours; it goes when we go, if it is still ours then.
struct SocketFile {
    path: PathBuf,
    inode: u64,
    /// A child that we fork must not remove it.
    pid: u32,
}

impl SocketFile {
    fn of(path: &Path) -> io::Result<SocketFile> {
        Ok(SocketFile {
            path: path.to_path_buf(),
            inode: inode(path)?,
            pid: std::process::id(),
        })
    }
}

fn inode(path: &Path) -> io::Result<u64> {
    std::fs::symlink_metadata(path).map(|file| file.ino())
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let is_ours = inode(&self.path).is_ok_and(|now| now == self.inode);
        if is_ours && std::process::id() == self.pid {
            // Best effort: the directory may be closed to us since we changed user.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

impl fmt::Display for Listener {
    /// For the ready line, with the port that was really taken.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.file, self.socket.local_addr().ok()) {
            (Some(file), _) => write!(f, "{} {}", self.kind, file.path.display()),
            (None, Some(address)) => write!(f, "{} {}", self.kind, show_address(&address)),
            (None, None) => write!(f, "{}", self.kind),
        }
    }
}

/// An address as text: `127.0.0.1:8125`, `[::1]:8125`, or a path.
pub fn show_address(address: &SockAddr) -> String {
    match (address.as_socket(), address.as_pathname()) {
        (Some(address), _) => address.to_string(),
        (_, Some(path)) => path.display().to_string(),
        _ => "?".to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;
    use std::time::{Duration, Instant};

    /// Our socket file goes with us; one that has taken its place stays.
    #[test]
    fn socket_files() {
        let path = std::env::temp_dir().join(format!("statsd-bind-{}", std::process::id()));
        let listener = unix(&path, Some(0o600)).unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert!(unix(&path, None).is_err(), "somebody listens there");
        drop(listener);
        assert!(!path.exists());

        let listener = unix(&path, None).unwrap();
        std::fs::rename(&path, path.with_extension("old")).unwrap();
        std::fs::write(&path, "another's").unwrap();
        drop(listener);
        assert!(path.exists());
        std::fs::remove_file(&path).unwrap();
        // A child that another test has just forked can hold the old socket open for a moment.
        let stale = path.with_extension("old");
        let deadline = Instant::now() + Duration::from_secs(10);
        while let Err(error) = unix(&stale, None) {
            assert!(
                Instant::now() < deadline,
                "a stale file is no obstacle: {error}"
            );
            std::thread::yield_now();
        }
        assert!(!stale.exists());
    }
}
