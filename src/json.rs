//! Strings and numbers as JSON. Core: no I/O.

use crate::number;

/// Appends a number; what JSON has no number for is `null`.
pub fn number(out: &mut Vec<u8>, value: f64) {
    if value.is_finite() {
        number::write(out, value);
    } else {
        out.extend_from_slice(b"null");
    }
}

/// Appends a quoted string. Control characters are escaped, also those that JSON allows (a terminal would obey
/// them), and what is not UTF-8 shows as U+FFFD.
pub fn string(out: &mut Vec<u8>, text: &[u8]) {
    out.push(b'"');
    for chunk in text.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '"' | '\\' => out.extend_from_slice(&[b'\\', c as u8]),
                c if c.is_control() => {
                    out.extend_from_slice(format!("\\u{:04x}", u32::from(c)).as_bytes());
                }
                c => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        if !chunk.invalid().is_empty() {
            out.extend_from_slice("\u{fffd}".as_bytes());
        }
    }
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings() {
        for (text, expected) in [
            (&b"a.b"[..], "\"a.b\""),
            (b"a\"b\\c", r#""a\"b\\c""#),
            (b"\x1b[2J\n\x7f", r#""\u001b[2J\u000a\u007f""#),
            ("\u{9b}2J".as_bytes(), r#""\u009b2J""#),
            ("caf\u{e9}".as_bytes(), "\"caf\u{e9}\""),
            (b"a\xffb\xc3", "\"a\u{fffd}b\u{fffd}\""),
        ] {
            let mut out = Vec::new();
            string(&mut out, text);
            assert_eq!(String::from_utf8(out).unwrap(), expected);
        }
    }
}
