//! JSON in the making: members, lists and figures appended to a buffer, in one line a bucket or spread
//! out, plain or coloured. Imports the pure core alone.

use crate::json;
use crate::snapshot::Timer;

/// Bytes of a list; a longer one ends with how many items are left out, so that no entry takes long.
const LIST: usize = 64 * 1024;

const KEY: &str = "\x1b[36m";
const TEXT: &str = "\x1b[32m";
const NUMBER: &str = "\x1b[33m";
const PLAIN: &str = "\x1b[39m";

/// How it is to look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pen {
    /// Each figure of a timer on a line of its own.
    pub spread: bool,
    /// With the escape sequences of a terminal.
    pub colour: bool,
}

impl Pen {
    /// Begins a bucket's member of a section.
    pub fn bucket(self, out: &mut Vec<u8>, name: &[u8]) {
        out.extend_from_slice(if out.is_empty() { b"\n" } else { b",\n" });
        out.extend_from_slice(b"    ");
        self.key(out, name);
    }

    /// A key and what stands behind it.
    pub fn key(self, out: &mut Vec<u8>, name: &[u8]) {
        self.colour(out, KEY);
        json::string(out, name);
        self.colour(out, PLAIN);
        out.extend_from_slice(b": ");
    }

    /// A number; what JSON has no number for is `null`.
    pub fn number(self, out: &mut Vec<u8>, value: f64) {
        self.colour(out, NUMBER);
        json::number(out, value);
        self.colour(out, PLAIN);
    }

    /// A text.
    pub fn text(self, out: &mut Vec<u8>, text: &[u8]) {
        self.colour(out, TEXT);
        json::string(out, text);
        self.colour(out, PLAIN);
    }

    /// A list of so many items, in one line.
    pub fn list<T>(
        self,
        out: &mut Vec<u8>,
        length: usize,
        items: impl Iterator<Item = T>,
        write: impl Fn(Pen, &mut Vec<u8>, T),
    ) {
        let start = out.len();
        out.push(b'[');
        for (index, item) in items.enumerate() {
            if index > 0 {
                out.extend_from_slice(b", ");
            }
            if out.len() - start >= LIST {
                self.text(out, format!("... {} more", length - index).as_bytes());
                break;
            }
            write(self, out, item);
        }
        out.push(b']');
    }

    /// A timer's figures; those of a histogram in an object of their own.
    pub fn figures(self, out: &mut Vec<u8>, name: &[u8], timer: &Timer<'_>, seconds: f64) {
        out.push(b'{');
        let mut depth = 0;
        let mut first = true;
        timer.figures(name, seconds, |figure, value| {
            let bin = figure.strip_prefix("histogram.");
            if bin.is_some() && depth == 0 {
                self.next(out, first, depth);
                self.key(out, b"histogram");
                out.push(b'{');
                (first, depth) = (true, 1);
            }
            self.next(out, first, depth);
            first = false;
            self.key(out, bin.unwrap_or(figure).as_bytes());
            self.number(out, value);
        });
        if depth == 1 {
            self.close(out, b"\n      ");
        }
        self.close(out, b"\n    ");
    }

    fn next(self, out: &mut Vec<u8>, first: bool, depth: usize) {
        if !first {
            out.push(b',');
        }
        if self.spread {
            out.extend_from_slice([&b"\n      "[..], b"\n        "][depth]);
        } else if !first {
            out.push(b' ');
        }
    }

    fn close(self, out: &mut Vec<u8>, line: &[u8]) {
        if self.spread && !out.ends_with(b"{") {
            out.extend_from_slice(line);
        }
        out.push(b'}');
    }

    fn colour(self, out: &mut Vec<u8>, sequence: &str) {
        if self.colour {
            out.extend_from_slice(sequence.as_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        for (value, expected) in [
            (0.1 + 0.2, "0.30000000000000004"),
            (1e21, "1e+21"),
            (-0.0, "0"),
            (f64::INFINITY, "null"),
            (f64::NAN, "null"),
        ] {
            let mut out = Vec::new();
            Pen::default().number(&mut out, value);
            assert_eq!(String::from_utf8(out).unwrap(), expected);
        }
    }

    #[test]
    fn a_long_list_says_what_it_leaves_out() {
        let values = vec![1.0; 100_000];
        let mut out = Vec::new();
        Pen::default().list(
            &mut out,
            values.len(),
            values.iter().copied(),
            |pen, out, v| pen.number(out, v),
        );
        let text = String::from_utf8(out).unwrap();
        assert!(text.len() < LIST + 100);
        let shown = text.matches("1, ").count();
        let end = format!(", \"... {} more\"]", 100_000 - shown);
        assert!(text.ends_with(&end), "{}", &text[text.len() - 60..]);
    }
}
