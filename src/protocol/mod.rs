//! The line protocol: bytes of a packet in, metrics and bad lines out. Core: no I/O.
//!
//! ```text
//! name:value|type[|@rate][|#tag:value,tag2:value2]      name:1|c:2|c:5|ms  is three values of one name
//! ```
//!
//! [`parse_packet`] has two ways through. What nearly every line looks like (`name:12|c`, perhaps with
//! a sample rate) and is for a name that is known takes [`short_line`], one pass without a look for
//! the line's end; all else takes [`full_line`], which knows the whole grammar. Names are handed on as
//! received: whether one is clean is asked only when the store does not know it ([`name`]).

pub mod name;

use crate::number::{self, next_byte, short_decimal};
use memchr::{memchr, memmem};

/// What a line's type says is to be done with its value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'a> {
    /// Add to a counter; the sample rate is already applied.
    Counter(f64),
    /// A timer value that stands for `count` events (1 over the sample rate).
    Timer {
        /// In the unit that the client measures in, milliseconds by custom.
        value: f64,
        /// 1 over the sample rate.
        count: f64,
    },
    /// Set a gauge.
    Gauge(f64),
    /// Add to what a gauge is at present.
    GaugeDelta(f64),
    /// A member of a set.
    Set(&'a [u8]),
}

/// Lines that are looked at in advance.
pub const AHEAD: usize = 32;

/// Less text than this has too few lines in it for that to pay.
const LITTLE: usize = 256;

/// Takes what is found in a packet.
pub trait Sink {
    /// A value for a bucket that is stored under exactly this name, with the line that has nothing
    /// else in it: takes it, or says `false` and does nothing. The line is not told again.
    fn known(&mut self, name: &[u8], value: Value<'_>, line: &[u8]) -> bool;
    /// Whether to call [`Sink::ahead`].
    fn looks_ahead(&self) -> bool {
        false
    }
    /// The names of the lines to come next, as far as a quick look tells: to prepare for them.
    fn ahead(&mut self, _names: &[&[u8]; AHEAD]) {}
    /// A line that is not empty; `false` passes over it.
    fn line(&mut self, line: &[u8]) -> bool;
    /// A value for the bucket `name`, which is as received (with tags put behind it) and may need
    /// sanitizing. `false` says that it is no name, and so a bad line.
    fn metric(&mut self, name: &[u8], value: Value<'_>) -> bool;
    /// A value that does not fit.
    fn bad_line(&mut self, bad: BadLine<'_>);
}

/// Where something went wrong: one value with the fields that belong to it, and its whole line.
#[derive(Clone, Copy, Debug)]
pub struct BadLine<'a> {
    /// The value's text.
    pub value: &'a [u8],
    /// Type, sample rate, …, with their bars.
    pub fields: &'a [u8],
    /// The line it came in.
    pub line: &'a [u8],
}

impl std::fmt::Display for BadLine<'_> {
    /// As the original logs it: `Bad line: 1,c, in msg "a:1|c|"`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let fields = String::from_utf8_lossy(self.fields).replace('|', ",");
        let value = String::from_utf8_lossy(self.value);
        let line = String::from_utf8_lossy(self.line);
        write!(f, "Bad line: {value}{fields} in msg \"{line}\"")
    }
}

/// Buffers that parsing reuses, so that no line allocates.
#[derive(Default)]
pub struct Scratch {
    /// A name with its tags behind it.
    name: Vec<u8>,
}

/// Splits a packet into lines and parses each. Empty lines are nothing.
///
/// A short line for a known name never has its end looked for: its name ends at a colon and its type
/// at the line end or the packet's. What stands in front of the colon may have a line end in it, or
/// anything else that a name must not have; but then it is no known name.
#[inline]
pub fn parse_packet<S: Sink>(packet: &[u8], scratch: &mut Scratch, sink: &mut S) {
    let mut rest = packet;
    let mut ahead = 0;
    while !rest.is_empty() {
        if ahead == 0 {
            ahead = AHEAD;
            if rest.len() > LITTLE && sink.looks_ahead() {
                sink.ahead(&names(rest));
            }
        }
        ahead -= 1;
        let length = match short_line(rest) {
            Some(short) if sink.known(short.name, short.value, &rest[..short.length]) => {
                short.length
            }
            _ => next_line(rest, scratch, sink),
        };
        rest = rest.get(length + 1..).unwrap_or(&[]);
    }
}

/// What stands in front of the first colon of each of the next lines; nothing where there is none.
fn names(text: &[u8]) -> [&[u8]; AHEAD] {
    let mut rest = text;
    [(); AHEAD].map(|()| {
        let line = &rest[..memchr(b'\n', rest).unwrap_or(rest.len())];
        rest = rest.get(line.len() + 1..).unwrap_or(&[]);
        let short = &line[..line.len().min(SHORT_NAME)];
        &line[..memchr(b':', short).unwrap_or(0)]
    })
}

/// The slow way: finds the line, whatever it is, and parses it. Gives its length.
#[cold]
fn next_line<S: Sink>(text: &[u8], scratch: &mut Scratch, sink: &mut S) -> usize {
    let length = memchr(b'\n', text).unwrap_or(text.len());
    let line = &text[..length];
    if !line.is_empty() && sink.line(line) {
        full_line(line, scratch, sink);
    }
    length
}

/// Longer names take the long way: or a packet of lines without a colon would be searched, and hashed, to
/// its end for each of them.
const SHORT_NAME: usize = 256;

/// A line that [`short_line`] made sense of.
struct Short<'a> {
    name: &'a [u8],
    value: Value<'static>,
    length: usize,
}

/// The common line at the start of `text`: `name:decimal|type`, perhaps with a plain sample rate.
///
/// `None` is "look closer", not "bad". The name is not looked at.
#[inline]
fn short_line(text: &[u8]) -> Option<Short<'_>> {
    let colon = memchr(b':', &text[..text.len().min(SHORT_NAME)])?;
    let mut rest = text[colon + 1..].iter();
    let first = next_byte(&mut rest);
    let (number, bar) = short_decimal(first, &mut rest)?;
    if bar != b'|' {
        return None;
    }
    let kind = next_byte(&mut rest);
    if kind == b'm' && next_byte(&mut rest) != b's' {
        return None;
    }
    let mut end = next_byte(&mut rest);
    let mut count = 1.0;
    if end == b'|' {
        if next_byte(&mut rest) != b'@' {
            return None;
        }
        let first = next_byte(&mut rest);
        let rate;
        (rate, end) = short_decimal(first, &mut rest)?;
        count = sample_count(first, rate)?;
    }
    if end != b'\n' {
        return None;
    }
    let value = match kind {
        b'c' => Value::Counter(number * count),
        b'm' if number >= 0.0 => Value::Timer {
            value: number,
            count,
        },
        b'g' if first == b'-' || first == b'+' => Value::GaugeDelta(number),
        b'g' => Value::Gauge(number),
        _ => return None,
    };
    // Up to a line end that is there, or to the end of the text.
    let read = text.len() - rest.len();
    let length = read - usize::from(text[read - 1] == b'\n');
    Some(Short {
        name: &text[..colon],
        value,
        length,
    })
}

/// How many events one stands for at this sample rate: 1 over it. `None` where that is no number.
#[inline]
fn sample_count(first: u8, rate: f64) -> Option<f64> {
    // The original refuses a sign and white space in front; the rest is a number like any other.
    let starts_well = first.is_ascii_digit() || first == b'.';
    let count = 1.0 / rate;
    (starts_well && count.is_finite() && count > 0.0).then_some(count)
}

/// A line with its tags taken out, wherever they stood.
struct Parts<'a> {
    /// What is in front of the tags.
    head: &'a [u8],
    /// From `|#` up to the next bar.
    tags: &'a [u8],
    /// What follows them: it can still hold the sample rate.
    tail: &'a [u8],
}

impl<'a> Parts<'a> {
    fn of(line: &'a [u8]) -> Parts<'a> {
        let Some(at) = memmem::find(line, b"|#") else {
            return Parts {
                head: line,
                tags: b"",
                tail: b"",
            };
        };
        let behind = &line[at + 2..];
        let (tags, tail) = behind.split_at(memchr(b'|', behind).unwrap_or(behind.len()));
        Parts {
            head: &line[..at],
            tags,
            tail,
        }
    }

    /// The name with its tags behind it, and what follows its colon (nothing without one).
    fn name<'n>(&self, with_tags: &'n mut Vec<u8>) -> (&'n [u8], Option<&'a [u8]>)
    where
        'a: 'n,
    {
        let colon = memchr(b':', self.head);
        let name = &self.head[..colon.unwrap_or(self.head.len())];
        let rest = colon.map(|colon| &self.head[colon + 1..]);
        if self.tags.is_empty() {
            return (name, rest);
        }
        with_tags.clear();
        with_tags.extend_from_slice(name);
        name::append_tags(with_tags, self.tags);
        (with_tags, rest)
    }
}

/// The name of the bucket that a line is for, good or bad, as it is stored.
pub fn bucket(line: &[u8], sanitize: bool, out: &mut Vec<u8>) {
    let mut with_tags = Vec::new();
    let (name, _) = Parts::of(line).name(&mut with_tags);
    out.clear();
    if sanitize {
        name::append_sanitized(name, out);
    } else {
        out.extend_from_slice(name);
    }
}

/// The whole grammar.
#[cold]
fn full_line<S: Sink>(line: &[u8], scratch: &mut Scratch, sink: &mut S) {
    let parts = Parts::of(line);
    let (name, values) = parts.name(&mut scratch.name);
    let Some(mut rest) = values else {
        // The original takes such a line for the value "1" without a type.
        return sink.bad_line(BadLine {
            value: b"1",
            fields: b"",
            line,
        });
    };
    let tail = parts.tail;
    let rate_behind_tags = tail
        .split(|b| *b == b'|')
        .find_map(|field| field.strip_prefix(b"@"));
    loop {
        let (group, next) = Group::split(rest);
        let kind = group.check(rate_behind_tags);
        for text in group.values.split(|b| *b == b':') {
            let value = kind.and_then(|(kind, count)| read_value(text, kind, count));
            if !value.is_some_and(|value| sink.metric(name, value)) {
                sink.bad_line(BadLine {
                    value: text,
                    fields: group.fields,
                    line,
                });
            }
        }
        match next {
            Some(next) => rest = next,
            None => break,
        }
    }
}

/// Values that share a type: `1:2|ms|@0.5`.
struct Group<'a> {
    /// One value, or several with colons between them (as DogStatsD clients pack them).
    values: &'a [u8],
    /// The type and what follows it, each with its bar in front.
    fields: &'a [u8],
}

/// A type as written, cleaned of white space around it.
#[derive(Clone, Copy)]
struct Kind<'a> {
    name: &'a [u8],
    /// Whether no white space was there. The original checks a value under the type as written and
    /// uses it under the cleaned one. So with a carriage return or the like behind the type a member
    /// of a set must be a number, and a timer may be below zero.
    exact: bool,
}

impl<'a> Group<'a> {
    /// Splits off the first group of `text`; what follows its colon is the next.
    fn split(text: &'a [u8]) -> (Group<'a>, Option<&'a [u8]>) {
        let Some(bar) = memchr(b'|', text) else {
            return (
                Group {
                    values: text,
                    fields: b"",
                },
                None,
            );
        };
        let mut at = bar + 1;
        let mut field = 0;
        loop {
            let skipped = if field > 0 {
                extension_length(&text[at..])
            } else {
                0
            };
            at += skipped;
            at += text[at..]
                .iter()
                .take_while(|b| **b != b'|' && **b != b':')
                .count();
            match text.get(at) {
                Some(b'|') => {
                    at += 1;
                    field += 1;
                }
                Some(_) => {
                    let group = Group {
                        values: &text[..bar],
                        fields: &text[bar..at],
                    };
                    return (group, Some(&text[at + 1..]));
                }
                None => {
                    return (
                        Group {
                            values: &text[..bar],
                            fields: &text[bar..],
                        },
                        None,
                    );
                }
            }
        }
    }

    /// The type and the count of events, if the fields are in order.
    fn check(&self, rate_behind_tags: Option<&[u8]>) -> Option<(Kind<'a>, f64)> {
        let mut fields = self.fields.split(|b| *b == b'|').skip(1);
        let written = fields.next()?;
        let name = written.trim_ascii();
        let mut rate = None;
        for (index, field) in fields.enumerate() {
            match field {
                [b'@', number @ ..] => rate = rate.or(Some(number)),
                // The original looks at the first field behind the type alone.
                _ if index > 0 || extension_length(field) > 0 => {}
                _ => return None,
            }
        }
        let count = match rate.or(rate_behind_tags) {
            Some(rate) => sample_count(*rate.first()?, number::parse(rate)?)?,
            None => 1.0,
        };
        Some((
            Kind {
                name,
                exact: name.len() == written.len(),
            },
            count,
        ))
    }
}

/// The length of a DogStatsD field that we pass over: container id, timestamp, external data,
/// cardinality. Unlike the others it may have colons in it. 0 if `text` does not start with one.
fn extension_length(text: &[u8]) -> usize {
    let known = text.starts_with(b"c:")
        || text.starts_with(b"e:")
        || text.starts_with(b"card:")
        || matches!(text, [b'T', digit, ..] if digit.is_ascii_digit());
    if known {
        memchr(b'|', text).unwrap_or(text.len())
    } else {
        0
    }
}

/// A value under its type; `None` if it does not fit.
fn read_value<'a>(text: &'a [u8], kind: Kind<'_>, count: f64) -> Option<Value<'a>> {
    if kind.name == b"s" && kind.exact {
        // The original stores an empty member as '0'.
        return Some(Value::Set(if text.is_empty() { b"0" } else { text }));
    }
    let number = number::parse(text)?;
    match kind.name {
        // One value alone must not spoil the whole interval's sum.
        b"c" | b"m" => Some(number * count)
            .filter(|value| value.is_finite())
            .map(Value::Counter),
        b"ms" | b"h" | b"d" if number >= 0.0 || !kind.exact => Some(Value::Timer {
            value: number,
            count,
        }),
        b"g" if text[0] == b'-' || text[0] == b'+' => Some(Value::GaugeDelta(number)),
        b"g" => Some(Value::Gauge(number)),
        b"s" => Some(Value::Set(text)),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
