//! From the text of a config file to its members, or to a sentence about why not, with its place.
//!
//! Files written for the original may hold code, so this says what to write instead. Lines and
//! columns count from 1, columns in characters.

use super::reader::Reader;
use super::value::Value;

/// Why a text is no config, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyntaxError {
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    /// What is wrong and what to do about it.
    pub message: String,
}

/// Reads `text`, which must hold one object. The original ran it as the right side of an
/// assignment, so a `;` behind the object is no error.
///
/// # Errors
/// The first fault in the text.
pub fn parse(text: &str) -> Result<Vec<(String, Value)>, SyntaxError> {
    let value = Reader::new(text)
        .file()
        .map_err(|(offset, message)| at(text, offset, message))?;
    match value {
        Value::Object(members) => Ok(members),
        _ => Err(at(
            text,
            0,
            "the file must hold one object: { key: value, … }",
        )),
    }
}

/// An error at a byte of the text.
pub(super) fn at(text: &str, offset: usize, message: impl Into<String>) -> SyntaxError {
    let before = text.get(..offset).unwrap_or(text).replace("\r\n", "\n");
    let lines: Vec<&str> = before.split(is_line_end).collect();
    SyntaxError {
        line: lines.len(),
        column: lines.last().map_or(0, |line| line.chars().count()) + 1,
        message: message.into(),
    }
}

pub(super) fn is_line_end(c: char) -> bool {
    matches!(c, '\n' | '\r' | '\u{2028}' | '\u{2029}')
}

/// From the start of `rest` to the end of the value, as far as it is on one line.
pub(super) fn excerpt(rest: &str) -> &str {
    let mut depth = 0;
    let mut end = rest.len();
    for (offset, c) in rest.char_indices() {
        match c {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' if depth > 0 => depth -= 1,
            '\n' | '\r' => end = offset,
            ',' | ';' | ')' | ']' | '}' if depth == 0 => end = offset,
            _ if offset >= 60 => end = offset,
            _ => continue,
        }
        if end == offset {
            break;
        }
    }
    rest[..end].trim_end()
}

/// What to write instead of the code `found` at `start`.
pub(super) fn code_message(text: &str, start: usize, found: &str) -> String {
    const READ: &str = "this file is read, not run";
    let line = text[..start].rfind('\n').map_or(0, |newline| newline + 1);
    let value = &text[line..start + found.len()];
    if value.contains("hostname") || value.contains("require('os')") {
        return format!(
            "`{found}` is code; {READ}: write a string with ${{hostname}} (the part before the \
             first dot) or ${{fqdn}} in it, as in \"${{hostname}}\""
        );
    }
    if let Some((_, variable)) = value.split_once("process.env") {
        let name: String = variable
            .trim_start_matches(['.', '[', '\'', '"'])
            .chars()
            .take_while(|c| c.is_alphanumeric() || *c == '_')
            .collect();
        return format!("`{found}` is code; {READ}: write \"${{env:{name}}}\"");
    }
    if found == "undefined" {
        return format!("`undefined` is code; {READ}: leave the key out");
    }
    if found.chars().all(|c| c.is_alphanumeric() || c == '_') {
        return format!("`{found}` is not a value; a string stands in quotes: \"{found}\"");
    }
    format!(
        "`{found}` is code; {READ}: write the value itself (strings expand ${{hostname}}, \
         ${{fqdn}} and ${{env:NAME}})"
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn loads() {
        for (text, keys) in [
            ("{}", ""),
            ("{};", ""),
            ("{a: 1}\n;\n// the end", "a"),
            ("\u{feff}{a: 1,}", "a"),
            (
                "/* a\n * b */ // c\n{\n  a: 1\n, b: [ 'x', ]\n, 'c-d': {e: .5}\n}\n",
                "a b c-d",
            ),
            (
                "{a: \"x\\\n y\", $b_1: +1e3, c: 0x1F, d: -.5, e: null}\r\n",
                "a $b_1 c d e",
            ),
            ("{a: 1, b: 2, a: 3}", "a b"),
        ] {
            let members = parse(text).unwrap();
            let found: Vec<_> = members.iter().map(|(key, _)| key.as_str()).collect();
            assert_eq!(found.join(" "), keys, "{text}");
        }
    }

    #[test]
    fn refused() {
        const INSTEAD: &str = "write the value itself (strings expand ${hostname}, ${fqdn} and \
                               ${env:NAME})";
        const HOSTNAME: &str = "write a string with ${hostname} (the part before the first dot) or \
                                ${fqdn} in it, as in \"${hostname}\"";
        let code = |found: &str, instead: &str| {
            format!("`{found}` is code; this file is read, not run: {instead}")
        };
        let table: &[(&str, usize, usize, String)] = &[
            (
                "{\n  graphite: {\n    globalSuffix: require('os').hostname().split('.')[0]\n  }\n}",
                3,
                19,
                code("require('os').hostname().split('.')[0]", HOSTNAME),
            ),
            (
                "{ a: process.env.GRAPHITE_HOST, b: 1 }",
                1,
                6,
                code(
                    "process.env.GRAPHITE_HOST",
                    "write \"${env:GRAPHITE_HOST}\"",
                ),
            ),
            (
                "{ a: 'stats.' + process.env['DC'] }",
                1,
                15,
                code("+ process.env['DC']", "write \"${env:DC}\""),
            ),
            ("{ a: \"a\" + b }", 1, 10, code("+ b", INSTEAD)),
            ("{ a: 10 * 1000, b: 1 }", 1, 9, code("* 1000", INSTEAD)),
            ("{ a: 60*1000 }", 1, 8, code("*1000", INSTEAD)),
            ("{ a: 10 / 2 }", 1, 9, code("/ 2", INSTEAD)),
            ("{ a: 1+2 }", 1, 6, code("1+2", INSTEAD)),
            ("{ a: f(1, 2), b: 1 }", 1, 6, code("f(1, 2)", INSTEAD)),
            ("{ a: new Date() }", 1, 6, code("new Date()", INSTEAD)),
            (
                "{ a: function () { return 1 } }",
                1,
                6,
                code("function () { return 1 }", INSTEAD),
            ),
            ("{ a: 'x'.repeat(3) }", 1, 9, code(".repeat(3)", INSTEAD)),
            ("{ a: `x` }", 1, 6, code("`x`", INSTEAD)),
            ("{ a: !0 }", 1, 6, code("!0", INSTEAD)),
            ("{ a: (1) }", 1, 6, code("(1)", INSTEAD)),
            (
                "{ a: undefined }",
                1,
                6,
                code("undefined", "leave the key out"),
            ),
            (
                "module.exports = {\n a: 1 }",
                1,
                1,
                code("module.exports = {", INSTEAD),
            ),
            (
                "{ server: tcp }",
                1,
                11,
                "`tcp` is not a value; a string stands in quotes: \"tcp\"".to_owned(),
            ),
            (
                "{ a: 10s }",
                1,
                6,
                "`10s` is not a value; a string stands in quotes: \"10s\"".to_owned(),
            ),
            (
                "{ a: none }",
                1,
                6,
                "`none` is not a value; a string stands in quotes: \"none\"".to_owned(),
            ),
            (
                "{\n  a: 1\n  b: 2\n}",
                3,
                3,
                "a comma is missing before `b: 2`".to_owned(),
            ),
            (
                "{ a: [1 2] }",
                1,
                9,
                "a comma is missing before `2`".to_owned(),
            ),
            ("{ a: , b: 1 }", 1, 6, "expected a value".to_owned()),
            ("{ a: [1,,2] }", 1, 9, "expected a value".to_owned()),
            ("{ a: ; }", 1, 6, "expected a value".to_owned()),
            (
                "{ a: 1; }",
                1,
                7,
                "expected a comma, or the closing }".to_owned(),
            ),
            (
                "{ a: [1} }",
                1,
                8,
                "expected a comma, or the closing ]".to_owned(),
            ),
            (
                "{ a 1 }",
                1,
                5,
                "expected a colon between key and value".to_owned(),
            ),
            (
                "{ f() { } }",
                1,
                4,
                "expected a colon between key and value".to_owned(),
            ),
            (
                "{ , a: 1 }",
                1,
                3,
                "expected a key: a plain name, or any string in quotes".to_owned(),
            ),
            (
                "{ ...base, a: 1 }",
                1,
                3,
                "expected a key: a plain name, or any string in quotes".to_owned(),
            ),
            (
                "{\n # a\n a: 1 }",
                2,
                2,
                "comments start with //, not with #".to_owned(),
            ),
            (
                "{ a: 'x\n' }",
                1,
                8,
                "the string is not closed on its line".to_owned(),
            ),
            (
                "{ a: '\\1' }",
                1,
                7,
                "no such escape sequence in a string".to_owned(),
            ),
            (
                "{ socket_mod: 0777 }",
                1,
                15,
                "a number must not start with 0; an octal mode is a string, as in \"0660\""
                    .to_owned(),
            ),
            (
                "{\n a: {\n  b: 1\n",
                2,
                5,
                "the file ends before what opens here is closed".to_owned(),
            ),
            ("{ a: 1 /* b", 1, 8, "a /* comment is not closed".to_owned()),
            (
                "",
                1,
                1,
                "the file is empty; it must hold { key: value, … }".to_owned(),
            ),
            (
                "// nothing\n",
                2,
                1,
                "the file is empty; it must hold { key: value, … }".to_owned(),
            ),
            (
                "[1]",
                1,
                1,
                "the file must hold one object: { key: value, … }".to_owned(),
            ),
            (
                "{ a: 1 }\nstart()",
                2,
                1,
                "the file must end with the } of its one object; code is not run".to_owned(),
            ),
            (
                "{ a: 1 };;",
                1,
                10,
                "the file must end with the } of its one object; code is not run".to_owned(),
            ),
            ("{\r\n a: 'ü' + 1 }", 2, 9, code("+ 1", INSTEAD)),
        ];
        for (text, line, column, message) in table {
            let error = parse(text).unwrap_err();
            let found = (error.line, error.column, error.message.as_str());
            assert_eq!(found, (*line, *column, message.as_str()), "{text}");
        }
    }

    #[test]
    fn any_text_is_refused_calmly() {
        let whole = "{ a: 'é', b: [1, {c: null}], d: require('x') + 2 / `3` } // é\n;";
        for (cut, _) in whole.char_indices() {
            let _ = parse(&whole[..cut]);
            let _ = parse(&whole[cut..]);
        }
        assert!(parse(&"[".repeat(100_000)).is_err());
        assert!(parse(&"{a:".repeat(100_000)).is_err());
    }
}
