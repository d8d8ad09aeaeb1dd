//! A reader of JSON5, by recursive descent.
//!
//! Our own, because what counts here is the answer to a file that is *not* JSON5 ([`super::syntax`]
//! words it), and because nesting must be bounded: a reload must not be able to overflow the stack.
//! Pure. Places are byte offsets.

use super::syntax::{code_message, excerpt, is_line_end};
use super::value::Value;

/// Deeper than any config; far below what the stack holds.
const MAX_DEPTH: usize = 32;

/// The byte at which reading stopped, and why.
pub type Fault = (usize, String);

/// The text, and how far it is read.
pub struct Reader<'a> {
    text: &'a str,
    /// The next byte to read.
    at: usize,
    /// Where the lists and objects around it open.
    open: Vec<usize>,
}

impl<'a> Reader<'a> {
    /// At the start of `text`.
    #[must_use]
    pub fn new(text: &'a str) -> Reader<'a> {
        Reader {
            text,
            at: 0,
            open: Vec::new(),
        }
    }

    /// The value that the whole text is, but for a `;` behind it.
    ///
    /// # Errors
    /// The first fault in the text.
    pub fn file(&mut self) -> Result<Value, Fault> {
        self.space()?;
        if self.peek().is_none() {
            return self.fault("the file is empty; it must hold { key: value, … }");
        }
        let value = self.value()?;
        self.space()?;
        self.take(';');
        self.space()?;
        match self.peek() {
            None => Ok(value),
            Some(_) => {
                self.fault("the file must end with the } of its one object; code is not run")
            }
        }
    }

    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or("")
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.at += c.len_utf8();
        Some(c)
    }

    /// Takes `c` if it comes next.
    fn take(&mut self, c: char) -> bool {
        let there = self.peek() == Some(c);
        self.at += if there { c.len_utf8() } else { 0 };
        there
    }

    fn fault<T>(&self, message: &str) -> Result<T, Fault> {
        Err((self.at, message.to_owned()))
    }

    /// At something that is neither JSON5 nor the end.
    fn code<T>(&self) -> Result<T, Fault> {
        let found = excerpt(self.rest());
        Err((self.at, code_message(self.text, self.at, found)))
    }

    /// The text ends inside a list or an object.
    fn unclosed<T>(&self) -> Result<T, Fault> {
        let open = self.open.last().copied().unwrap_or(self.at);
        Err((
            open,
            "the file ends before what opens here is closed".to_owned(),
        ))
    }

    /// Skips white space and comments.
    fn space(&mut self) -> Result<(), Fault> {
        loop {
            let blank = |c: char| c.is_whitespace() || c == '\u{feff}';
            self.at = self.text.len() - self.rest().trim_start_matches(blank).len();
            if self.rest().starts_with("//") {
                self.at += self.rest().find(is_line_end).unwrap_or(self.rest().len());
            } else if let Some(comment) = self.rest().strip_prefix("/*") {
                match comment.find("*/") {
                    Some(end) => self.at += end + 4,
                    None => return self.fault("a /* comment is not closed"),
                }
            } else {
                return Ok(());
            }
        }
    }

    fn value(&mut self) -> Result<Value, Fault> {
        match self.peek() {
            None => self.unclosed(),
            Some('{' | '[') if self.open.len() == MAX_DEPTH => {
                self.fault("lists and objects are nested too deep here")
            }
            Some('{') => self.object(),
            Some('[') => self.array(),
            Some('"' | '\'') => Ok(Value::String(self.string()?)),
            Some(',' | ';' | ')' | ']' | '}') => self.fault("expected a value"),
            Some(_) => self.word(),
        }
    }

    fn object(&mut self) -> Result<Value, Fault> {
        self.open.push(self.at);
        self.next();
        let mut members: Vec<(String, Value)> = Vec::new();
        loop {
            self.space()?;
            if self.take('}') {
                self.open.pop();
                return Ok(Value::Object(members));
            }
            let key = self.key()?;
            self.space()?;
            if !self.take(':') {
                return self.fault("expected a colon between key and value");
            }
            self.space()?;
            let value = self.value()?;
            match members.iter_mut().find(|(known, _)| *known == key) {
                Some((_, earlier)) => *earlier = value,
                None => members.push((key, value)),
            }
            self.separator('}')?;
        }
    }

    fn array(&mut self) -> Result<Value, Fault> {
        self.open.push(self.at);
        self.next();
        let mut values = Vec::new();
        loop {
            self.space()?;
            if self.take(']') {
                self.open.pop();
                return Ok(Value::Array(values));
            }
            values.push(self.value()?);
            self.separator(']')?;
        }
    }

    /// A comma, unless the list or object ends here.
    fn separator(&mut self, close: char) -> Result<(), Fault> {
        self.space()?;
        match self.peek() {
            None => self.unclosed(),
            Some(',') => {
                self.next();
                Ok(())
            }
            Some(c) if c == close => Ok(()),
            Some(c) if is_name(c) || "\"'{".contains(c) => {
                let found = excerpt(self.rest());
                Err((self.at, format!("a comma is missing before `{found}`")))
            }
            Some(';' | ')' | ']' | '}') => {
                Err((self.at, format!("expected a comma, or the closing {close}")))
            }
            Some(_) => self.code(),
        }
    }

    fn key(&mut self) -> Result<String, Fault> {
        match self.peek() {
            None => self.unclosed(),
            Some('"' | '\'') => self.string(),
            Some('#') => self.fault("comments start with //, not with #"),
            Some(c) if is_name(c) && !c.is_numeric() => {
                let name = self.rest();
                let name = &name[..name.find(|c| !is_name(c)).unwrap_or(name.len())];
                self.at += name.len();
                Ok(name.to_owned())
            }
            Some(_) => self.fault("expected a key: a plain name, or any string in quotes"),
        }
    }

    /// `null`, `true`, `false`, a number, or code.
    fn word(&mut self) -> Result<Value, Fault> {
        let rest = self.rest();
        let end = rest.find(|c| !is_name(c) && !"+-.".contains(c));
        let word = &rest[..end.unwrap_or(rest.len())];
        let value = match word {
            "null" => Some(Value::Null),
            "true" => Some(Value::Bool(true)),
            "false" => Some(Value::Bool(false)),
            _ => number(word).map(Value::Number),
        };
        match value {
            Some(value) => {
                self.at += word.len();
                Ok(value)
            }
            None if has_leading_zero(word) => self
                .fault("a number must not start with 0; an octal mode is a string, as in \"0660\""),
            None => self.code(),
        }
    }

    fn string(&mut self) -> Result<String, Fault> {
        let start = self.at;
        let quote = self.next();
        let mut text = String::new();
        loop {
            let from = self.at;
            match self.next() {
                None => return Err((start, "the string is not closed".to_owned())),
                c if c == quote => return Ok(text),
                Some('\n' | '\r') => {
                    return Err((from, "the string is not closed on its line".to_owned()));
                }
                Some('\\') => match self.escape() {
                    Some(escaped) => text.extend(escaped),
                    None => return Err((from, "no such escape sequence in a string".to_owned())),
                },
                Some(c) => text.push(c),
            }
        }
    }

    /// What stands behind a backslash: outer `None` is an error, inner one a line that goes on.
    fn escape(&mut self) -> Option<Option<char>> {
        let c = match self.next()? {
            'b' => '\u{8}',
            't' => '\t',
            'n' => '\n',
            'v' => '\u{b}',
            'f' => '\u{c}',
            'r' => '\r',
            '0' if !self.peek().is_some_and(|c| c.is_ascii_digit()) => '\0',
            '0'..='9' => return None,
            'x' => char::from_u32(self.hex(2)?)?,
            'u' => {
                let first = self.hex(4)?;
                let mut units = vec![first as u16];
                if (0xd800..0xdc00).contains(&first) && self.take('\\') && self.take('u') {
                    units.push(self.hex(4)? as u16);
                }
                String::from_utf16(&units).ok()?.chars().next()?
            }
            '\r' => {
                self.take('\n');
                return Some(None);
            }
            c if is_line_end(c) => return Some(None),
            c => c,
        };
        Some(Some(c))
    }

    fn hex(&mut self, digits: usize) -> Option<u32> {
        let mut value = 0;
        for _ in 0..digits {
            value = value * 16 + self.next()?.to_digit(16)?;
        }
        Some(value)
    }
}

/// Whether `c` may be part of a plain key, or of a word.
fn is_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_' || c == '$'
}

fn has_leading_zero(word: &str) -> bool {
    let digits = word.trim_start_matches(['+', '-']);
    digits.starts_with('0') && digits[1..].starts_with(|c: char| c.is_ascii_digit())
}

fn number(word: &str) -> Option<f64> {
    let (sign, digits) = match word.strip_prefix('-') {
        Some(digits) => (-1.0, digits),
        None => (1.0, word.strip_prefix('+').unwrap_or(word)),
    };
    let decimal = |c: char| c.is_ascii_digit() || "+-.eE".contains(c);
    let number = if let Some(hex) = digits.strip_prefix("0x").or(digits.strip_prefix("0X")) {
        let plain = hex.chars().all(|c| c.is_ascii_hexdigit());
        u64::from_str_radix(hex, 16).ok().filter(|_| plain)? as f64
    } else if digits.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        let plain = digits.chars().all(decimal) && !has_leading_zero(digits);
        digits.parse().ok().filter(|_| plain)?
    } else {
        match digits {
            "Infinity" => f64::INFINITY,
            "NaN" => f64::NAN,
            _ => return None,
        }
    };
    Some(sign * number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Option<Value> {
        Reader::new(text).file().ok()
    }

    #[test]
    fn numbers() {
        for (text, expected) in [
            ("0", 0.0),
            ("-0.5", -0.5),
            (".5", 0.5),
            ("5.", 5.0),
            ("+1e3", 1000.0),
            ("1E-2", 0.01),
            ("0x1F", 31.0),
            ("-0Xa", -10.0),
            ("-Infinity", f64::NEG_INFINITY),
            ("1e400", f64::INFINITY),
            ("9007199254740993", 9_007_199_254_740_992.0),
        ] {
            assert_eq!(read(text), Some(Value::Number(expected)), "{text}");
        }
        for text in [
            "", ".", "-", "+-1", "--1", "1e", "1.2.3", "0x", "0xg", "0x+1", "00", "-01", "1_000",
            "inf", "infinity", "nan", "1n", "0b1", "0o7", "1 2",
        ] {
            assert_eq!(read(text), None, "{text}");
        }
    }

    #[test]
    fn strings() {
        for (text, expected) in [
            (r#"'a\'\"\\\/b'"#, "a'\"\\/b"),
            (r"'\b\t\n\v\f\r\0'", "\u{8}\t\n\u{b}\u{c}\r\0"),
            (r"'\x41\u00e9\ud83d\ude00\q'", "Aé😀q"),
            ("'a\\\r\nb\\\nc\\\u{2028}d'", "abcd"),
            ("\"it's\"", "it's"),
        ] {
            assert_eq!(
                read(text),
                Some(Value::String(expected.to_owned())),
                "{text}"
            );
        }
        for text in [
            r"'\x4'",
            r"'\u12'",
            r"'\ud83d'",
            r"'\ud83dx'",
            r"'\ude00'",
            r"'\ud83d\u0041'",
            r"'\1'",
            r"'\01'",
            "'a\n'",
            "'a",
            "'a\\",
        ] {
            assert_eq!(read(text), None, "{text}");
        }
    }

    #[test]
    fn nesting_is_bounded() {
        let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        assert!(read(&nested(MAX_DEPTH)).is_some());
        assert!(read(&nested(MAX_DEPTH + 1)).is_none());
        assert!(read(&nested(1_000_000)).is_none());
        let wide = format!("[{}]", "[],".repeat(10 * MAX_DEPTH));
        assert!(read(&wide).is_some());
    }
}
