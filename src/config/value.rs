//! A value of the config file, as JavaScript would hold it: members keep their order, and of a
//! repeated key the last value wins in the place of the first.
//!
//! Deserialised by hand from any self-describing format; [`super::syntax`] feeds it JSON5. Nesting
//! is bounded because json5 recurses and a reload must not be able to overflow the stack.

use std::fmt;

use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

/// Deeper than any config; far below what the stack holds.
const MAX_DEPTH: usize = 32;

/// One value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// Any number; JSON5 has `NaN` and `Infinity` too.
    Number(f64),
    /// A string.
    String(String),
    /// A list.
    Array(Vec<Value>),
    /// Members in the order of the file.
    Object(Vec<(String, Value)>),
}

impl Value {
    /// As `String(value)` in JavaScript, but for objects, which become compact JSON.
    #[must_use]
    pub fn to_text(&self) -> String {
        match self {
            Value::Null => "null".to_owned(),
            Value::Bool(flag) => flag.to_string(),
            Value::Number(number) => ryu_js::Buffer::new().format(*number).to_owned(),
            Value::String(text) => text.clone(),
            Value::Array(values) => values
                .iter()
                .map(|value| match value {
                    Value::Null => String::new(),
                    value => value.to_text(),
                })
                .collect::<Vec<_>>()
                .join(","),
            Value::Object(_) => self.to_json(),
        }
    }

    /// Compact JSON. Numbers that JSON cannot write become `null`, as in JavaScript.
    #[must_use]
    pub fn to_json(&self) -> String {
        match self {
            Value::Number(number) if !number.is_finite() => "null".to_owned(),
            Value::Null | Value::Bool(_) | Value::Number(_) => self.to_text(),
            Value::String(text) => quoted(text),
            Value::Array(values) => {
                let values: Vec<_> = values.iter().map(Value::to_json).collect();
                format!("[{}]", values.join(","))
            }
            Value::Object(members) => {
                let members: Vec<_> = members
                    .iter()
                    .map(|(key, value)| format!("{}:{}", quoted(key), value.to_json()))
                    .collect();
                format!("{{{}}}", members.join(","))
            }
        }
    }
}

/// A JSON string.
fn quoted(text: &str) -> String {
    let mut json = String::with_capacity(text.len() + 2);
    json.push('"');
    for c in text.chars() {
        match c {
            '"' => json.push_str("\\\""),
            '\\' => json.push_str("\\\\"),
            '\n' => json.push_str("\\n"),
            '\r' => json.push_str("\\r"),
            '\t' => json.push_str("\\t"),
            c if c < ' ' => json.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => json.push(c),
        }
    }
    json.push('"');
    json
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Value, D::Error> {
        Nested(MAX_DEPTH).deserialize(deserializer)
    }
}

/// How many levels more may open.
#[derive(Clone, Copy)]
struct Nested(usize);

impl Nested {
    fn inner(self) -> Nested {
        Nested(self.0.saturating_sub(1))
    }
}

impl<'de> DeserializeSeed<'de> for Nested {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        if self.0 == 0 {
            return Err(D::Error::custom("lists and objects are nested too deep"));
        }
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Nested {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, flag: bool) -> Result<Value, E> {
        Ok(Value::Bool(flag))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Value, E> {
        Ok(Value::Number(number as f64))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Value, E> {
        Ok(Value::Number(number as f64))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Value, E> {
        Ok(Value::Number(number))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::String(text.to_owned()))
    }

    fn visit_string<E>(self, text: String) -> Result<Value, E> {
        Ok(Value::String(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = access.next_element_seed(self.inner())? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut members: Vec<(String, Value)> = Vec::new();
        while let Some(key) = access.next_key::<String>()? {
            let value = access.next_value_seed(self.inner())?;
            match members.iter_mut().find(|(known, _)| *known == key) {
                Some((_, earlier)) => *earlier = value,
                None => members.push((key, value)),
            }
        }
        Ok(Value::Object(members))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn text_and_json() {
        for (source, text, json) in [
            ("null", "null", "null"),
            ("true", "true", "true"),
            ("0.1", "0.1", "0.1"),
            ("1e21", "1e+21", "1e+21"),
            ("8125", "8125", "8125"),
            ("-0x10", "-16", "-16"),
            ("Infinity", "Infinity", "null"),
            ("'a\"b'", "a\"b", r#""a\"b""#),
            ("'a\\n\\u0001'", "a\n\u{1}", r#""a\n\u0001""#),
            ("[1,[2,null,'x'],]", "1,2,,x", r#"[1,[2,null,"x"]]"#),
            (
                "{b:1,a:{c:[]}}",
                r#"{"b":1,"a":{"c":[]}}"#,
                r#"{"b":1,"a":{"c":[]}}"#,
            ),
            ("[{a:1},{}]", r#"{"a":1},{}"#, r#"[{"a":1},{}]"#),
            ("{a:1,b:2,a:3}", r#"{"a":3,"b":2}"#, r#"{"a":3,"b":2}"#),
        ] {
            let value: Value = json5::from_str(source).unwrap();
            assert_eq!(value.to_text(), text, "{source}");
            assert_eq!(value.to_json(), json, "{source}");
        }
    }

    #[test]
    fn nesting_is_bounded() {
        let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        assert!(json5::from_str::<Value>(&nested(MAX_DEPTH)).is_ok());
        assert!(json5::from_str::<Value>(&nested(MAX_DEPTH + 1)).is_err());
        assert!(json5::from_str::<Value>(&nested(1_000_000)).is_err());
    }
}
