//! The process title, as `ps -o args=` shows it: `title` in the config.
//!
//! Linux shows the memory where it put our arguments, so the title is written there. That memory
//! is found by [`prepare`], once, before it has changed.

use std::ffi::{CString, OsString};
use std::os::unix::ffi::OsStrExt;
use std::sync::{Mutex, PoisonError};

use crate::config::Title;
use crate::sys;

static AREA: Mutex<Option<Area>> = Mutex::new(None);

struct Area {
    memory: sys::ArgumentArea,
    /// What the arguments were, without the program.
    arguments: Vec<OsString>,
}

/// Finds the memory and remembers the arguments. Without it [`set`] does nothing.
pub fn prepare() {
    let arguments = std::env::args_os().skip(1).collect();
    let area = sys::ArgumentArea::find().map(|memory| Area { memory, arguments });
    *AREA.lock().unwrap_or_else(PoisonError::into_inner) = area;
}

/// Sets the title. From then on `std::env::args` gives nonsense. `program` (statsd, statsd-proxy)
/// is what the arguments follow.
pub fn set(title: &Title, program: &str) {
    let mut area = AREA.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(Area { memory, arguments }) = &mut *area else {
        return;
    };
    let text = match title {
        Title::Leave => return,
        Title::CommandLine => command_line(program, arguments),
        Title::Text(text) => text.as_bytes().to_vec(),
    };
    // A zero would end it, a line end would spoil the lists that `ps` prints.
    let text: Vec<u8> = text
        .into_iter()
        .filter(|byte| !byte.is_ascii_control())
        .collect();
    if text.is_empty() {
        return;
    }
    memory.write(&text);
    // The short name is what `pgrep` and init scripts look for: it stays the program's own, unless
    // the administrator wants another.
    if let (Title::Text(_), Ok(name)) = (title, CString::new(text)) {
        sys::set_short_name(&name);
    }
}

/// The program's name and its arguments, as the original.
fn command_line(program: &str, arguments: &[OsString]) -> Vec<u8> {
    let mut line = program.as_bytes().to_vec();
    for argument in arguments {
        line.push(b' ');
        line.extend_from_slice(argument.as_bytes());
    }
    line
}
