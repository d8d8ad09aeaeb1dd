//! Typed access to the members of an object that has passed [`super::check`]: the value given, else
//! the default in the table of keys.
//!
//! It also serves the rules that look at a file with errors, so nothing here can fail: a value of
//! the wrong type counts as not given, and a name that no table has (a slip that every test of
//! [`super::load`] would show) as empty.

use std::time::Duration;

use super::keys::{self, Key, Kind, Preset};
use super::value::Value;

/// The members of an object, and the table that says what they may be.
#[derive(Clone, Copy)]
pub struct Fields<'a> {
    members: &'a [(String, Value)],
    keys: &'static [Key],
}

impl<'a> Fields<'a> {
    /// Over `members`.
    #[must_use]
    pub fn new(members: &'a [(String, Value)], keys: &'static [Key]) -> Fields<'a> {
        Fields { members, keys }
    }

    /// The value in the file, unless it is `null`.
    #[must_use]
    pub fn given(&self, name: &str) -> Option<&'a Value> {
        let member = self.members.iter().find(|(key, _)| key == name);
        member
            .map(|(_, value)| value)
            .filter(|value| **value != Value::Null)
    }

    fn preset(&self, name: &str) -> &'static str {
        let key = keys::find(self.keys, name);
        debug_assert!(key.is_some(), "{name} is in no table of keys");
        match key.map(|key| key.preset) {
            Some(Preset::Is(text)) => text,
            _ => "",
        }
    }

    /// Of a [`Kind::Flag`].
    #[must_use]
    pub fn flag(&self, name: &str) -> bool {
        match self.given(name) {
            Some(Value::Bool(flag)) => *flag,
            _ => self.preset(name) == "true",
        }
    }

    /// Of any kind that is a number.
    #[must_use]
    pub fn number(&self, name: &str) -> f64 {
        match self.given(name) {
            Some(Value::Number(number)) => *number,
            _ => self.preset(name).parse().unwrap_or(0.0),
        }
    }

    /// As [`Fields::number`], where the original takes 0 for "not given".
    #[must_use]
    pub fn number_above_zero(&self, name: &str) -> f64 {
        match self.number(name) {
            0.0 => self.preset(name).parse().unwrap_or(0.0),
            number => number,
        }
    }

    /// Of a [`Kind::Whole`] that counts bytes or things.
    #[must_use]
    pub fn size(&self, name: &str) -> usize {
        self.number(name) as usize
    }

    /// Of a [`Kind::Whole`] that is a port.
    #[must_use]
    pub fn port(&self, name: &str) -> u16 {
        self.number(name) as u16
    }

    /// Of a [`Kind::Whole`] in milliseconds.
    #[must_use]
    pub fn millis(&self, name: &str) -> Duration {
        Duration::from_millis(self.number(name) as u64)
    }

    /// Of a [`Kind::Text`] where the empty string says something.
    #[must_use]
    pub fn text(&self, name: &str) -> String {
        match self.given(name) {
            Some(Value::String(text)) => text.clone(),
            _ => self.preset(name).to_owned(),
        }
    }

    /// Of a [`Kind::Text`] where the empty string is none.
    #[must_use]
    pub fn some_text(&self, name: &str) -> Option<String> {
        Some(self.text(name)).filter(|text| !text.is_empty())
    }

    /// Of a [`Kind::Choice`]: the name without its prefix.
    #[must_use]
    pub fn choice(&self, name: &str) -> String {
        let text = self.text(name);
        match keys::find(self.keys, name).map(|key| key.kind) {
            Some(Kind::Choice { prefix, .. }) => strip(&text, prefix),
            _ => text,
        }
    }

    /// Of a [`Kind::List`] of names with a prefix, whose default is one of them.
    #[must_use]
    pub fn choices(&self, name: &str) -> Vec<String> {
        let prefix = match keys::find(self.keys, name).map(|key| key.kind) {
            Some(Kind::List {
                of: Kind::Choice { prefix, .. },
                ..
            }) => prefix,
            _ => "",
        };
        match self.given(name) {
            None => vec![strip(self.preset(name), prefix)],
            Some(_) => self
                .texts(name)
                .iter()
                .map(|text| strip(text, prefix))
                .collect(),
        }
    }

    /// Of a [`Kind::List`] of strings; what is no string is left out.
    #[must_use]
    pub fn texts(&self, name: &str) -> Vec<String> {
        let texts = self.list(name).iter().filter_map(|value| match value {
            Value::String(text) => Some(text.clone()),
            _ => None,
        });
        texts.collect()
    }

    /// Of a [`Kind::List`].
    #[must_use]
    pub fn list(&self, name: &str) -> &'a [Value] {
        match self.given(name) {
            Some(Value::Array(values)) => values,
            _ => &[],
        }
    }

    /// Of a [`Kind::Object`]; empty when it is not given.
    #[must_use]
    pub fn object(&self, name: &str) -> Fields<'a> {
        let keys = match keys::find(self.keys, name).map(|key| key.kind) {
            Some(Kind::Object(keys)) => keys,
            _ => &[],
        };
        match self.given(name) {
            Some(Value::Object(members)) => Fields::new(members, keys),
            _ => Fields::new(&[], keys),
        }
    }

    /// Of a [`Kind::List`] of objects; what is no object counts as an empty one.
    #[must_use]
    pub fn objects(&self, name: &str) -> Vec<Fields<'a>> {
        let keys: &'static [Key] = match keys::find(self.keys, name).map(|key| key.kind) {
            Some(Kind::List {
                of: Kind::Object(keys),
                ..
            }) => keys,
            _ => &[],
        };
        let fields = |value: &'a Value| match value {
            Value::Object(members) => Fields::new(members, keys),
            _ => Fields::new(&[], keys),
        };
        self.list(name).iter().map(fields).collect()
    }
}

fn strip(text: &str, prefix: &str) -> String {
    text.strip_prefix(prefix).unwrap_or(text).to_owned()
}
