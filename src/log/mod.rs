//! The log of the whole program: `log::warning!("…")` and its like, one line for each call.
//!
//! Lines go to standard error until [`init`] has seen the config, then to standard output or
//! syslog. Nothing here blocks once that is done: what cannot go out waits in a bounded queue, what
//! does not fit is counted, and the loss is told once it is over. The event loop polls
//! [`wants_write`] and calls [`flush`] each turn. Imports [`crate::stdout`], `sys` and the types
//! of the config.

mod limit;
mod panics;
mod syslog;

pub use limit::{Latch, RateLimit};
pub use panics::log_panics;

use std::fmt;
use std::io::Write as _;
use std::os::fd::RawFd;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use self::syslog::Syslog;
use crate::config::{LogConfig, Severity};
use crate::{stdout, sys};

/// Bytes of one message; the rest is cut off. Any syslogd takes this.
const MAX_MESSAGE: usize = 4096;

const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];

const DAYS: [&str; 7] = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];

/// A local time as JavaScript's `Date` prints it: `Sat Nov 22 2026 09:31:05 GMT+0000`.
pub fn date(seconds: u64) -> String {
    let t = sys::local_time(i64::try_from(seconds).unwrap_or(0));
    let (sign, offset) = (
        if t.offset < 0 { '-' } else { '+' },
        t.offset.unsigned_abs() / 60,
    );
    format!(
        "{} {} {:02} {} {:02}:{:02}:{:02} GMT{sign}{:02}{:02}",
        DAYS[t.weekday],
        MONTHS[t.month],
        t.day,
        t.year,
        t.hour,
        t.minute,
        t.second,
        offset / 60,
        offset % 60
    )
}

static LOGGER: Mutex<Logger> = Mutex::new(Logger {
    target: Target::Stderr,
    level: Severity::Info,
});

static DEBUG: AtomicBool = AtomicBool::new(false);

struct Logger {
    target: Target,
    level: Severity,
}

enum Target {
    Stderr,
    Stdout,
    Syslog(Syslog),
}

/// Logs something that went wrong.
#[doc(hidden)]
#[macro_export]
macro_rules! log_error {
    ($($text:tt)*) => {
        $crate::log::record(Some($crate::config::Severity::Err), format_args!($($text)*))
    };
}

/// Logs something that may be wrong, or that the administrator should look at.
#[doc(hidden)]
#[macro_export]
macro_rules! log_warning {
    ($($text:tt)*) => {
        $crate::log::record(Some($crate::config::Severity::Warning), format_args!($($text)*))
    };
}

/// Logs something normal that matters.
#[doc(hidden)]
#[macro_export]
macro_rules! log_notice {
    ($($text:tt)*) => {
        $crate::log::record(Some($crate::config::Severity::Notice), format_args!($($text)*))
    };
}

/// Logs something good to know.
#[doc(hidden)]
#[macro_export]
macro_rules! log_info {
    ($($text:tt)*) => {
        $crate::log::record(Some($crate::config::Severity::Info), format_args!($($text)*))
    };
}

/// Logs a detail; nothing is formatted unless `debug` is on.
#[doc(hidden)]
#[macro_export]
macro_rules! log_debug {
    ($($text:tt)*) => {
        if $crate::log::debug_enabled() {
            $crate::log::record(Some($crate::config::Severity::Debug), format_args!($($text)*))
        }
    };
}

/// Logs what the original logs without a severity: DEBUG on standard output, `log.level` in syslog.
#[doc(hidden)]
#[macro_export]
macro_rules! log_plain {
    ($($text:tt)*) => { $crate::log::record(None, format_args!($($text)*)) };
}

pub use crate::{
    log_debug as debug, log_error as error, log_info as info, log_notice as notice,
    log_plain as plain, log_warning as warning,
};

/// Turns from standard error to what the config asks for.
pub fn init(config: &LogConfig, debug: bool) {
    init_at(config, debug, Path::new("/dev/log"));
}

/// As [`init`], with syslogd's socket somewhere else.
pub fn init_at(config: &LogConfig, debug: bool, dev_log: &Path) {
    set_debug(debug);
    // Now, while we may still open what it refers to, and not once the user has changed.
    stdout::reopen();
    let target = if config.syslog {
        let mut syslog = Syslog::new(dev_log.to_path_buf(), tag(&config.application));
        if let Err(error) = syslog.connect() {
            warning!(
                "no syslogd at {} yet ({error}); log lines wait for it",
                dev_log.display()
            );
        }
        Target::Syslog(syslog)
    } else {
        Target::Stdout
    };
    *logger() = Logger {
        target,
        level: config.level,
    };
}

/// Turns debug lines on or off.
pub fn set_debug(on: bool) {
    DEBUG.store(on, Ordering::Relaxed);
}

/// Whether debug lines are logged.
pub fn debug_enabled() -> bool {
    DEBUG.load(Ordering::Relaxed)
}

/// Whether the log goes to standard output, and so is lost by a daemon that detaches.
pub fn uses_stdout() -> bool {
    matches!(logger().target, Target::Stdout)
}

/// Logs one line. `None` is the severity `log.level`. The macros are nicer.
pub fn record(severity: Option<Severity>, message: fmt::Arguments<'_>) {
    // Formatted before the lock is taken: formatting may log.
    let message = one_line(&message.to_string());
    let now = Instant::now();
    let mut logger = logger();
    let Logger { target, level } = &mut *logger;
    match target {
        Target::Stderr => {
            let severity = label(severity.unwrap_or(Severity::Info)).to_ascii_lowercase();
            let _ = writeln!(std::io::stderr(), "{severity}: {message}");
        }
        Target::Stdout => stdout::write(stdout_line(severity, &message).as_bytes()),
        Target::Syslog(syslog) => syslog.log(severity.unwrap_or(*level), &message, now),
    }
}

/// Sends what waits, and tells of losses that are over. For each turn of the event loop, and the
/// end of the program.
pub fn flush(now: Instant) {
    stdout::flush();
    if let Some(lost) = stdout::take_lost() {
        warning!("standard output did not take messages for a while; lost: {lost}");
    }
    if let Target::Syslog(syslog) = &mut logger().target {
        syslog.flush(now);
    }
}

/// The descriptor to poll for POLLOUT when log lines wait for syslogd. (Those that wait for
/// standard output are [`stdout::wants_write`]'s.)
pub fn wants_write() -> Option<RawFd> {
    match &logger().target {
        Target::Syslog(syslog) => syslog.wants_write(),
        Target::Stderr | Target::Stdout => None,
    }
}

/// Bytes from outside, on one line: what is not UTF-8 shows as `\xNN`, and so do control characters.
pub struct Bytes<'a>(pub &'a [u8]);

impl fmt::Display for Bytes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.0.utf8_chunks() {
            chunk.valid().chars().try_for_each(|c| write_char(f, c))?;
            for byte in chunk.invalid() {
                write!(f, "\\x{byte:02x}")?;
            }
        }
        Ok(())
    }
}

/// Whether nobody is at work in the log at this moment, nor on standard output.
fn is_free() -> bool {
    stdout::is_free() && !matches!(LOGGER.try_lock(), Err(TryLockError::WouldBlock))
}

fn logger() -> MutexGuard<'static, Logger> {
    LOGGER.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One line of at most `MAX_MESSAGE` bytes: whoever sends us names could otherwise write lines of
/// their own into the log, or commands to the terminal that shows it.
fn one_line(message: &str) -> String {
    let mut line = String::with_capacity(message.len());
    for character in message.trim_end_matches('\n').chars() {
        if line.len() >= MAX_MESSAGE {
            line.push('…');
            break;
        }
        // Writing to a String cannot fail.
        let _ = write_char(&mut line, character);
    }
    line
}

/// A character, or what stands for it if it is a control character.
fn write_char(out: &mut impl fmt::Write, character: char) -> fmt::Result {
    match character {
        '\n' => out.write_str("\\n"),
        '\r' => out.write_str("\\r"),
        '\t' => out.write_str("\\t"),
        c if c.is_control() => write!(out, "\\x{:02x}", u32::from(c)),
        c => out.write_char(c),
    }
}

/// A tag that syslogd reads as one: it ends at the first character that is none of these.
fn tag(application: &str) -> String {
    let fits = |c: &char| c.is_ascii_alphanumeric() || "-_./".contains(*c);
    let tag: String = application.chars().filter(fits).take(32).collect();
    if tag.is_empty() {
        "statsd".to_string()
    } else {
        tag
    }
}

/// The original's `util.log`: `22 Nov 09:31:05 - INFO: message`.
fn stdout_line(severity: Option<Severity>, message: &str) -> String {
    let seconds = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |age| age.as_secs());
    let t = sys::local_time(i64::try_from(seconds).unwrap_or(0));
    let label = label(severity.unwrap_or(Severity::Debug));
    let month = MONTHS[t.month];
    let (day, hour, minute, second) = (t.day, t.hour, t.minute, t.second);
    format!("{day} {month} {hour:02}:{minute:02}:{second:02} - {label}: {message}\n")
}

fn label(severity: Severity) -> &'static str {
    match severity {
        Severity::Emerg => "EMERG",
        Severity::Alert => "ALERT",
        Severity::Crit => "CRIT",
        Severity::Err => "ERROR",
        Severity::Warning => "WARNING",
        Severity::Notice => "NOTICE",
        Severity::Info => "INFO",
        Severity::Debug => "DEBUG",
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_message_is_one_line_without_control_characters() {
        let cases = [
            ("plain", "plain"),
            ("ends\n", "ends"),
            ("two\nlines\r\n\n", "two\\nlines\\r"),
            ("tab\there", "tab\\there"),
            ("\x1b[2Jclear\x07\x7f", "\\x1b[2Jclear\\x07\\x7f"),
            ("c1 \u{9b}2J", "c1 \\x9b2J"),
            ("grün", "grün"),
        ];
        for (message, line) in cases {
            assert_eq!(one_line(message), line);
        }
        let long = one_line(&"ü".repeat(MAX_MESSAGE));
        assert_eq!(long.len(), MAX_MESSAGE + '…'.len_utf8());
    }

    #[test]
    fn bytes_that_are_not_text_are_shown() {
        let shown = format!("{}", Bytes(b"a\xff\xc3\xbc\xe2\x82|c\x1b\r"));
        assert_eq!(shown, "a\\xffü\\xe2\\x82|c\\x1b\\r");
    }

    #[test]
    fn a_tag_is_one_word() {
        assert_eq!(tag("my app: [1]"), "myapp1");
        assert_eq!(tag("statsd-proxy"), "statsd-proxy");
        assert_eq!(tag("::"), "statsd");
    }

    #[test]
    fn standard_output_looks_as_the_original() {
        for (severity, end) in [
            (Some(Severity::Err), " - ERROR: text\n"),
            (Some(Severity::Info), " - INFO: text\n"),
            (None, " - DEBUG: text\n"),
        ] {
            let line = stdout_line(severity, "text");
            let head = line.strip_suffix(end).unwrap();
            let [day, month, time] = head.split(' ').collect::<Vec<_>>()[..] else {
                unreachable!("{line}")
            };
            assert!((1..=31).contains(&day.parse::<u32>().unwrap()));
            assert!(!day.starts_with('0'));
            assert!(MONTHS.contains(&month));
            let parts: Vec<u32> = time.split(':').map(|part| part.parse().unwrap()).collect();
            assert!(parts.len() == 3 && time.len() == 8 && parts[0] < 24);
        }
    }
}
