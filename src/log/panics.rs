//! A panic is a fault of the program's own, and ends it. Standard error, where the standard library tells
//! of it, is gone once the daemon is detached; so the log has it too.

use super::{flush, is_free};
use std::panic::{self, PanicHookInfo};
use std::time::Instant;

/// From now on the log has the place and the message of a panic, before the program ends.
pub fn log_panics() {
    let standard_error = panic::take_hook();
    panic::set_hook(Box::new(move |panic| {
        // One in the log itself would wait for itself.
        if is_free() {
            super::error!("{}", message(panic));
            flush(Instant::now());
        }
        standard_error(panic);
    }));
}

fn message(panic: &PanicHookInfo<'_>) -> String {
    let what = panic.to_string().replace('\n', " ");
    format!("{what}; this is a fault of the program, please report it")
}
