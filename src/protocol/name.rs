//! Names of buckets: what is allowed in them, and how tags are put behind them. Core: no I/O.
//!
//! A name is sanitized as the original does it, as text: runs of white space become `_`, `/`
//! becomes `-`, and all but `A-Z a-z 0-9 _ - . ; =` is dropped (SPEC 3).

use crate::number::is_js_space;
use memchr::{memchr, memmem};

/// The bytes that a name may have.
static ALLOWED: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = (byte as u8).is_ascii_alphanumeric()
            || matches!(byte as u8, b'_' | b'-' | b'.' | b';' | b'=');
        byte += 1;
    }
    table
};

/// Writes the sanitized form of `name` into `out`. It may come out empty.
pub fn sanitize(name: &[u8], out: &mut Vec<u8>) {
    out.clear();
    append_sanitized(name, out);
}

/// Appends the sanitized form of `name`.
pub fn append_sanitized(name: &[u8], out: &mut Vec<u8>) {
    let mut in_space = false;
    for chunk in name.utf8_chunks() {
        for c in chunk.valid().chars() {
            let space = is_js_space(c);
            if space && !in_space {
                out.push(b'_');
            } else if c == '/' {
                out.push(b'-');
            } else if c.is_ascii() && ALLOWED[c as usize] {
                out.push(c as u8);
            }
            in_space = space;
        }
        if !chunk.invalid().is_empty() {
            in_space = false;
        }
    }
}

/// True for a name that only a line without a colon in front of its tags can have: such a line is
/// bad, and the parser's short way, which does not look for tags, may offer it.
pub fn holds_tag_mark(name: &[u8]) -> bool {
    memmem::find(name, b"|#").is_some()
}

/// Puts DogStatsD tags (`k:v,solo`) behind a name in Graphite's way (`;k=v;solo`), in their order.
///
/// As in the original the first `;` of a tag becomes `_` and its first `:` becomes `=`.
pub fn append_tags(name: &mut Vec<u8>, tags: &[u8]) {
    for tag in tags.split(|b| *b == b',') {
        name.push(b';');
        let from = name.len();
        name.extend_from_slice(tag);
        if let Some(at) = memchr(b';', &name[from..]) {
            name[from + at] = b'_';
        }
        if let Some(at) = memchr(b':', &name[from..]) {
            name[from + at] = b'=';
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sanitizes() {
        for (raw, clean) in [
            ("gorets", "gorets"),
            ("fo/o", "fo-o"),
            ("b ar", "b_ar"),
            ("a  \t b", "a_b"),
            ("a\u{a0}\u{2003}b", "a_b"),
            ("foo+bar", "foobar"),
            ("a / b", "a_-_b"),
            ("a $ b", "a__b"),
            ("x;k=v", "x;k=v"),
            ("größe", "gre"),
            ("$%&", ""),
            (" ", "_"),
            ("", ""),
        ] {
            let mut out = Vec::new();
            sanitize(raw.as_bytes(), &mut out);
            assert_eq!(String::from_utf8_lossy(&out), clean, "{raw:?}");
        }
        let mut out = Vec::new();
        sanitize(b"a\xff \xfe b", &mut out);
        assert_eq!(out, b"a__b");
    }

    #[test]
    fn tags() {
        for (tags, name) in [
            ("a:b", "x;a=b"),
            ("b:2,a:1", "x;b=2;a=1"),
            ("solo", "x;solo"),
            ("a,,b", "x;a;;b"),
            ("a:b:c", "x;a=b:c"),
            ("a;b;c", "x;a_b;c"),
        ] {
            let mut out = b"x".to_vec();
            append_tags(&mut out, tags.as_bytes());
            assert_eq!(String::from_utf8_lossy(&out), name);
        }
    }
}
