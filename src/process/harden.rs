//! A daemon may be started from anywhere: an init script, a shell, cron. What it inherits without
//! anyone having meant it, is dealt with here, before anything is opened.
//!
//! Standard streams that are closed need no care: Rust opens /dev/null in their place before main.

use std::ffi::OsStr;
use std::os::fd::RawFd;
use std::os::unix::ffi::OsStrExt;

use crate::sys;

/// Variables that change what the C library loads, reads or resolves. For a set-uid program it
/// drops these itself (ld.so(8)); a daemon started by root deserves the same, as it starts
/// a program (its own, to look up names) and root's shell may have been someone else's first.
const DANGEROUS: [&str; 11] = [
    "GCONV_PATH",
    "GETCONF_DIR",
    "GLIBC_TUNABLES",
    "HOSTALIASES",
    "LOCALDOMAIN",
    "LOCPATH",
    "MALLOC_TRACE",
    "NIS_PATH",
    "NLSPATH",
    "RESOLV_HOST_CONF",
    "RES_OPTIONS",
];

/// To be called first of all. `sockets` is how many descriptors from 3 up were handed over on
/// purpose (`LISTEN_FDS`); the others are closed.
pub fn at_start(sockets: usize) {
    let first = RawFd::try_from(sockets).unwrap_or(0).saturating_add(3);
    sys::close_inherited(first);
    // Files that we make are ours to write and everyone's to read.
    sys::umask(0o022);
    // A blocked SIGTERM could not stop us.
    sys::unblock_signals();
    // A file that reaches a size limit, and a line to a terminal we do not own: errors or nothing,
    // where the default would kill or stop the daemon.
    sys::ignore_signal(libc::SIGXFSZ);
    sys::ignore_signal(libc::SIGTTOU);
    if sys::effective_uid() == 0 {
        // What root has read must not land in a file, nor in a debugger of the user we become.
        // An error would mean that it is forbidden already.
        let _ = sys::forbid_core_dumps();
        for (name, _) in std::env::vars_os().filter(|(name, _)| is_dangerous(name)) {
            sys::remove_env(&name);
        }
    }
}

/// Makes room for so many descriptors, as far as we are allowed to; says for how many there is.
pub fn raise_open_files(wanted: u64) -> u64 {
    sys::raise_open_files(wanted).unwrap_or(0)
}

fn is_dangerous(name: &OsStr) -> bool {
    name.as_bytes().starts_with(b"LD_") || DANGEROUS.iter().any(|dangerous| name == *dangerous)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_misleads_the_c_library_goes_and_the_rest_stays() {
        for name in ["LD_PRELOAD", "LD_LIBRARY_PATH", "GCONV_PATH", "RES_OPTIONS"] {
            assert!(is_dangerous(OsStr::new(name)), "{name}");
        }
        for name in [
            "PATH",
            "TZ",
            "LANG",
            "HOME",
            "NOTIFY_SOCKET",
            "OLD_LD_PRELOAD",
            "LDX",
        ] {
            assert!(!is_dangerous(OsStr::new(name)), "{name}");
        }
    }
}
