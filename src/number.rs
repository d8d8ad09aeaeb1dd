//! Numbers as the protocol reads them and as JavaScript prints them. Core: no I/O.
//!
//! Reading follows JavaScript's `Number()` on decimal text, without its hexadecimal, octal, binary,
//! blank and infinite forms (SPEC 9, points 2 and 4). Printing is ECMAScript's Number-to-String, so
//! that a value looks on the wire as the original daemon would have printed it. Both have a fast
//! path for what metrics mostly are, short decimals, and both paths agree to the last bit.

use std::slice::Iter;

/// The powers of ten that a double holds exactly.
const POW10: [f64; 23] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16,
    1e17, 1e18, 1e19, 1e20, 1e21, 1e22,
];

/// The next byte of a line; a line end where there is none.
#[inline]
pub fn next_byte(rest: &mut Iter<'_, u8>) -> u8 {
    rest.next().copied().unwrap_or(b'\n')
}

/// Reads a short decimal (`-12.5`) that begins with `first` and goes on in `rest`: the value, and the
/// byte behind it.
///
/// `None` means "not a short decimal", not "bad": [`parse`] decides that. The result is exact: an
/// integer mantissa of up to 15 digits over a power of ten is rounded once, by the division.
#[inline]
pub fn short_decimal(first: u8, rest: &mut Iter<'_, u8>) -> Option<(f64, u8)> {
    let mut byte = first;
    if byte == b'-' || byte == b'+' {
        byte = next_byte(rest);
    }
    let mut mantissa: i64 = 0;
    let whole = digits(&mut byte, rest, &mut mantissa);
    let mut decimals = 0;
    if byte == b'.' {
        byte = next_byte(rest);
        decimals = digits(&mut byte, rest, &mut mantissa);
    }
    let count = whole + decimals;
    if count == 0 || count > 15 {
        return None;
    }
    let mut value = mantissa as f64;
    if decimals != 0 {
        value /= POW10[decimals];
    }
    Some((if first == b'-' { -value } else { value }, byte))
}

/// Adds digits from `byte` on to the mantissa; how many. Beyond 15 of them it is of no use.
#[inline]
fn digits(byte: &mut u8, rest: &mut Iter<'_, u8>, mantissa: &mut i64) -> usize {
    let mut count = 0;
    loop {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return count;
        }
        *mantissa = mantissa.wrapping_mul(10).wrapping_add(i64::from(digit));
        count += 1;
        *byte = next_byte(rest);
    }
}

/// Reads a whole text as a number: an optional sign, decimals, an exponent, white space around it.
///
/// `None` where JavaScript would say NaN, and for what SPEC 9 (points 2 and 4) calls bad: blank
/// text, other bases, infinity, and a finite text too large for a double.
pub fn parse(text: &[u8]) -> Option<f64> {
    let mut rest = text.iter();
    let first = next_byte(&mut rest);
    match short_decimal(first, &mut rest) {
        Some((value, b'\n')) if rest.as_slice().is_empty() => return Some(value),
        _ => {}
    }
    let text = std::str::from_utf8(text).ok()?.trim_matches(is_js_space);
    if !is_decimal(text.as_bytes()) {
        return None;
    }
    text.parse().ok().filter(|value: &f64| value.is_finite())
}

/// `[sign] digits [. digits] [e [sign] digits]` with a digit somewhere in front of the exponent.
fn is_decimal(text: &[u8]) -> bool {
    let skip_digits = |from: usize| {
        from + text[from..]
            .iter()
            .take_while(|b| b.is_ascii_digit())
            .count()
    };
    let skip_sign = |from: usize| from + usize::from(matches!(text.get(from), Some(b'+' | b'-')));
    let start = skip_sign(0);
    let mut at = skip_digits(start);
    let mut digits = at - start;
    if text.get(at) == Some(&b'.') {
        let from = at + 1;
        at = skip_digits(from);
        digits += at - from;
    }
    if digits == 0 {
        return false;
    }
    if matches!(text.get(at), Some(b'e' | b'E')) {
        let from = skip_sign(at + 1);
        at = skip_digits(from);
        if at == from {
            return false;
        }
    }
    at == text.len()
}

/// White space as JavaScript's `\s` and `trim` see it.
pub fn is_js_space(c: char) -> bool {
    c == '\u{feff}' || (c.is_whitespace() && c != '\u{85}')
}

/// Appends `value` as JavaScript prints it (`0.30000000000000004`, `1e+21`, `0` for minus zero).
#[inline]
pub fn write(out: &mut Vec<u8>, value: f64) {
    // A decimal of at most 15 digits that reads back as the value is the shortest one that does,
    // since no two such decimals share a double. First the integers, which most values are.
    let whole = value as i64;
    if whole as f64 == value && whole.unsigned_abs() < 1_000_000_000_000_000 {
        if whole < 0 {
            out.push(b'-');
        }
        return write_integer(out, whole.unsigned_abs());
    }
    // Three decimals cover rates over a round interval and most measured values.
    let scaled = value * 1000.0;
    if scaled.abs() < 1e15 {
        let thousandths = (scaled + 0.5_f64.copysign(scaled)) as i64;
        if thousandths as f64 / 1000.0 == value && (thousandths != 0 || value == 0.0) {
            return write_thousandths(out, thousandths);
        }
    }
    out.extend_from_slice(ryu_js::Buffer::new().format(value).as_bytes());
}

/// Appends an integer number of thousandths as a decimal without trailing zeros.
fn write_thousandths(out: &mut Vec<u8>, thousandths: i64) {
    if thousandths < 0 {
        out.push(b'-');
    }
    let magnitude = thousandths.unsigned_abs();
    write_integer(out, magnitude / 1000);
    let fraction = (magnitude % 1000) as u16;
    if fraction != 0 {
        let digits = [
            b'.',
            b'0' + (fraction / 100) as u8,
            b'0' + (fraction / 10 % 10) as u8,
            b'0' + (fraction % 10) as u8,
        ];
        let kept = 4 - digits.iter().rev().take_while(|d| **d == b'0').count();
        out.extend_from_slice(&digits[..kept]);
    }
}

/// Appends an unsigned integer.
#[inline]
pub fn write_integer(out: &mut Vec<u8>, mut value: u64) {
    let mut digits = [0u8; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

/// A number as JavaScript's `String(value)`.
pub fn to_string(value: f64) -> String {
    let mut out = Vec::new();
    write(&mut out, value);
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads() {
        for (text, value) in [
            ("1", 1.0),
            ("-5", -5.0),
            ("+5", 5.0),
            ("0.25", 0.25),
            (".5", 0.5),
            ("5.", 5.0),
            ("1e3", 1000.0),
            ("1E+3", 1000.0),
            ("2e-1", 0.2),
            (" 1", 1.0),
            ("1\t ", 1.0),
            ("\u{a0}7\u{feff}", 7.0),
            ("-0", -0.0),
            ("9007199254740993", 9007199254740992.0),
            ("0.1234567890123456789", 0.123_456_789_012_345_68),
            ("123456789012345678901234567890", 1.2345678901234568e29),
            ("1e-400", 0.0),
            ("1.7976931348623157e308", f64::MAX),
            ("000000000000000000001", 1.0),
        ] {
            let read = parse(text.as_bytes());
            assert_eq!(
                read.map(f64::to_bits),
                Some(value.to_bits()),
                "{text:?} gave {read:?}"
            );
        }
    }

    #[test]
    fn refuses() {
        for text in [
            "",
            " ",
            "\t",
            "-",
            "+",
            ".",
            "e5",
            "1e",
            "1e+",
            "--5",
            "+-5",
            "0x10",
            "0b1",
            "0o7",
            "Infinity",
            "-Infinity",
            "inf",
            "nan",
            "NaN",
            "1e400",
            "1,5",
            "1 2",
            "1_000",
            "abc",
            "1a",
            "٣",
        ] {
            assert_eq!(parse(text.as_bytes()), None, "{text:?}");
        }
        assert_eq!(parse(b"1\xff"), None);
    }

    /// The fast path must give what the library's correctly rounded parser gives.
    #[test]
    fn short_decimals_are_exact() {
        let mut state = 7u64;
        for _ in 0..200_000 {
            state = state
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            let mantissa = (state >> 11) % 1_000_000_000_000_000;
            let places = (state % 16) as usize;
            let text = if places == 0 {
                mantissa.to_string()
            } else {
                let digits = format!("{mantissa:0width$}", width = places + 1);
                let (whole, part) = digits.split_at(digits.len() - places);
                format!("{whole}.{part}")
            };
            let mut rest = text.as_bytes().iter();
            let first = next_byte(&mut rest);
            if let Some((value, _)) = short_decimal(first, &mut rest) {
                assert!(rest.as_slice().is_empty());
                assert_eq!(
                    value.to_bits(),
                    text.parse::<f64>().unwrap().to_bits(),
                    "{text}"
                );
            }
        }
    }

    #[test]
    fn prints() {
        for (value, text) in [
            (0.0, "0"),
            (-0.0, "0"),
            (1.0, "1"),
            (-5.0, "-5"),
            (0.1, "0.1"),
            (0.1 + 0.2, "0.30000000000000004"),
            (1e21, "1e+21"),
            (1e20, "100000000000000000000"),
            (1e-7, "1e-7"),
            (0.001, "0.001"),
            (-0.025, "-0.025"),
            (12.34, "12.34"),
            (1.0 / 3.0, "0.3333333333333333"),
            (999999999999.999, "999999999999.999"),
            (123456789012345.6, "123456789012345.6"),
            (5e-324, "5e-324"),
            (0.0004, "0.0004"),
        ] {
            assert_eq!(to_string(value), text);
        }
    }

    /// The fast path must print what the library prints.
    #[test]
    fn prints_as_the_library_does() {
        let mut state = 3u64;
        for _ in 0..300_000 {
            state = state
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            let value = match state % 4 {
                0 => (state >> 20) as f64 / 1000.0,
                1 => (state >> 34) as f64 / 10.0,
                2 => ((state >> 8) as f64 / 7.0) * 1e-9,
                _ => f64::from_bits(state),
            };
            if value.is_finite() {
                assert_eq!(to_string(value), ryu_js::Buffer::new().format(value));
            }
        }
    }
}
