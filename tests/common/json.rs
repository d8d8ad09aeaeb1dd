//! A strict JSON reader (RFC 8259), so that "valid JSON" in a test means just that, and the reader
//! of the recorded vectors. Members keep their order.

use std::fmt;

/// A JSON value.
#[derive(Clone, Debug, PartialEq)]
pub enum Json {
    Null,
    Bool(bool),
    Number(f64),
    Text(String),
    List(Vec<Json>),
    Map(Vec<(String, Json)>),
}

impl Json {
    /// Reads exactly one value.
    pub fn parse(text: &str) -> Result<Json, String> {
        let (value, used) = Json::parse_first(text)?;
        match text[used..].trim_matches([' ', '\t', '\r', '\n']) {
            "" => Ok(value),
            rest => Err(format!("after the value: {rest:.60}")),
        }
    }

    /// Reads the first value and says how many bytes it took.
    pub fn parse_first(text: &str) -> Result<(Json, usize), String> {
        let mut reader = Reader { text, at: 0 };
        let value = reader.value()?;
        Ok((value, reader.at))
    }

    /// A member of a map.
    pub fn get(&self, key: &str) -> Option<&Json> {
        self.members()
            .iter()
            .find(|(name, _)| name == key)
            .map(|(_, value)| value)
    }

    /// A member that must be there.
    #[track_caller]
    pub fn at(&self, key: &str) -> &Json {
        self.get(key)
            .unwrap_or_else(|| panic!("no {key:?} in {self}"))
    }

    /// All members of a map; none for anything else.
    pub fn members(&self) -> &[(String, Json)] {
        if let Json::Map(members) = self {
            members
        } else {
            &[]
        }
    }

    /// All items of a list; none for anything else.
    pub fn items(&self) -> &[Json] {
        if let Json::List(items) = self {
            items
        } else {
            &[]
        }
    }

    /// The number it is.
    pub fn number(&self) -> Option<f64> {
        if let Json::Number(number) = self {
            Some(*number)
        } else {
            None
        }
    }

    /// The text it is.
    pub fn text(&self) -> Option<&str> {
        if let Json::Text(text) = self {
            Some(text)
        } else {
            None
        }
    }
}

impl fmt::Display for Json {
    fn fmt(&self, out: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Json::Null => out.write_str("null"),
            Json::Bool(value) => write!(out, "{value}"),
            Json::Number(value) => write!(out, "{value}"),
            Json::Text(text) => quote(text, out),
            Json::List(items) => {
                out.write_str("[")?;
                for (index, item) in items.iter().enumerate() {
                    write!(out, "{}{item}", if index > 0 { ", " } else { "" })?;
                }
                out.write_str("]")
            }
            Json::Map(members) => {
                out.write_str("{")?;
                for (index, (name, value)) in members.iter().enumerate() {
                    out.write_str(if index > 0 { ", " } else { "" })?;
                    quote(name, out)?;
                    write!(out, ": {value}")?;
                }
                out.write_str("}")
            }
        }
    }
}

fn quote(text: &str, out: &mut fmt::Formatter) -> fmt::Result {
    out.write_str("\"")?;
    for letter in text.chars() {
        match letter {
            '"' | '\\' => write!(out, "\\{letter}")?,
            '\0'..='\x1f' => write!(out, "\\u{:04x}", u32::from(letter))?,
            _ => write!(out, "{letter}")?,
        }
    }
    out.write_str("\"")
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl Reader<'_> {
    fn rest(&self) -> &str {
        &self.text[self.at..]
    }

    fn skip_white(&mut self) {
        self.at += self.rest().len()
            - self
                .rest()
                .trim_start_matches([' ', '\t', '\r', '\n'])
                .len();
    }

    fn take(&mut self, word: &str) -> bool {
        let found = self.rest().starts_with(word);
        if found {
            self.at += word.len();
        }
        found
    }

    fn fail<T>(&self, wanted: &str) -> Result<T, String> {
        Err(format!(
            "{wanted} wanted at byte {}: {:.60}",
            self.at,
            self.rest()
        ))
    }

    fn value(&mut self) -> Result<Json, String> {
        self.skip_white();
        match self.rest().as_bytes().first().copied() {
            Some(b'{') => self.map(),
            Some(b'[') => self.list(),
            Some(b'"') => Ok(Json::Text(self.string()?)),
            Some(b'-' | b'0'..=b'9') => self.number(),
            _ if self.take("null") => Ok(Json::Null),
            _ if self.take("true") => Ok(Json::Bool(true)),
            _ if self.take("false") => Ok(Json::Bool(false)),
            _ => self.fail("a value"),
        }
    }

    fn map(&mut self) -> Result<Json, String> {
        let mut members = Vec::new();
        self.take("{");
        self.skip_white();
        while !self.take("}") {
            if !members.is_empty() && !self.take(",") {
                return self.fail("',' or '}'");
            }
            self.skip_white();
            let name = self.string()?;
            self.skip_white();
            if !self.take(":") {
                return self.fail("':'");
            }
            members.push((name, self.value()?));
            self.skip_white();
        }
        Ok(Json::Map(members))
    }

    fn list(&mut self) -> Result<Json, String> {
        let mut items = Vec::new();
        self.take("[");
        self.skip_white();
        while !self.take("]") {
            if !items.is_empty() && !self.take(",") {
                return self.fail("',' or ']'");
            }
            items.push(self.value()?);
            self.skip_white();
        }
        Ok(Json::List(items))
    }

    fn number(&mut self) -> Result<Json, String> {
        let rest = self.rest();
        let length = rest.find(|c: char| !matches!(c, '0'..='9' | '+' | '-' | '.' | 'e' | 'E'));
        let word = &rest[..length.unwrap_or(rest.len())];
        let whole = word.strip_prefix('-').unwrap_or(word);
        let digits = whole.bytes().take_while(u8::is_ascii_digit).count();
        let padded = digits > 1 && whole.starts_with('0');
        let open_end = whole[digits..].starts_with('.')
            && !whole[digits + 1..].starts_with(|c: char| c.is_ascii_digit());
        match word.parse() {
            Ok(number) if digits > 0 && !padded && !open_end => {
                self.at += word.len();
                Ok(Json::Number(number))
            }
            _ => self.fail("a number"),
        }
    }

    fn string(&mut self) -> Result<String, String> {
        if !self.take("\"") {
            return self.fail("a string");
        }
        let mut text = String::new();
        loop {
            let Some(letter) = self.rest().chars().next() else {
                return self.fail("'\"'");
            };
            match letter {
                '\0'..='\x1f' => return self.fail("no control character in a string"),
                '"' => {
                    self.at += 1;
                    return Ok(text);
                }
                '\\' => {
                    self.at += 1;
                    text.push(self.escape()?);
                }
                _ => {
                    self.at += letter.len_utf8();
                    text.push(letter);
                }
            }
        }
    }

    fn escape(&mut self) -> Result<char, String> {
        for (word, letter) in [
            ("\"", '"'),
            ("\\", '\\'),
            ("/", '/'),
            ("b", '\x08'),
            ("f", '\x0c'),
            ("n", '\n'),
            ("r", '\r'),
            ("t", '\t'),
        ] {
            if self.take(word) {
                return Ok(letter);
            }
        }
        let high = self.hex()?;
        if !(0xd800..0xdc00).contains(&high) {
            return char::from_u32(high).ok_or_else(|| format!("lone surrogate {high:x}"));
        }
        if !self.take("\\") {
            return self.fail("the other half of a surrogate pair");
        }
        let low = self.hex()?.wrapping_sub(0xdc00);
        char::from_u32(0x10000 + ((high - 0xd800) << 10) + low).ok_or("bad surrogate pair".into())
    }

    fn hex(&mut self) -> Result<u32, String> {
        match self
            .rest()
            .get(1..5)
            .map(|digits| u32::from_str_radix(digits, 16))
        {
            Some(Ok(code)) if self.take("u") => {
                self.at += 4;
                Ok(code)
            }
            _ => self.fail("an escape"),
        }
    }
}
