//! What the checks see of a Rust file: its code without comments, strings and unit tests, the
//! modules it names, its let chains, its `unsafe`. Pure functions over text.

/// `source` with comments and the insides of strings as blanks; lines stay where they are.
pub fn bare(source: &str) -> String {
    let mut code = String::new();
    let mut rest = source;
    while let Some(c) = rest.chars().next() {
        let code_before = !code.ends_with(|c: char| c.is_alphanumeric() || c == '_');
        let length = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            block_comment(rest)
        } else if c == '"' {
            string(rest)
        } else if c == 'r' && code_before && raw_string(rest).is_some() {
            raw_string(rest).unwrap_or(1)
        } else if c == 'b' && code_before && rest[1..].starts_with('r') {
            raw_string(&rest[1..]).map_or(1, |length| length + 1)
        } else if c == '\'' {
            character(rest)
        } else {
            0
        };
        let (part, after) = rest.split_at(length.max(c.len_utf8()));
        match length {
            0 => code.push_str(part),
            _ => code.extend(part.chars().map(|c| if c == '\n' { c } else { ' ' })),
        }
        rest = after;
    }
    code
}

/// Comments nest.
fn block_comment(text: &str) -> usize {
    let mut depth = 0;
    for (at, _) in text.char_indices() {
        let before = &text.as_bytes()[..at];
        if text[at..].starts_with("/*") {
            depth += 1;
        } else if before.ends_with(b"*/") {
            depth -= 1;
            if depth == 0 {
                return at;
            }
        }
    }
    text.len()
}

fn string(text: &str) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// From the `r`; none where it begins something else.
fn raw_string(text: &str) -> Option<usize> {
    let hashes = text[1..].len() - text[1..].trim_start_matches('#').len();
    let inside = text[1 + hashes..].strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    let found = inside.find(&end)?;
    Some(1 + hashes + 1 + found + end.len())
}

/// 0 for a lifetime.
fn character(text: &str) -> usize {
    let mut chars = text.char_indices().skip(1);
    match (chars.next(), chars.next()) {
        (Some((_, '\\')), Some((at, escaped))) => {
            let from = at + escaped.len_utf8();
            text[from..].find('\'').map_or(0, |end| from + end + 1)
        }
        (Some(_), Some((at, '\''))) => at + 1,
        _ => 0,
    }
}

/// Bare code without what stands under `#[cfg(test)]`.
pub fn without_tests(code: &str) -> String {
    let mut kept = String::new();
    let mut rest = code;
    while let Some((before, test)) = rest.split_once("#[cfg(test)]") {
        kept.push_str(before);
        let start = test.find(['{', ';']).unwrap_or(test.len());
        let length = match test[start..].starts_with('{') {
            true => closing(&test[start..]),
            false => 1.min(test.len() - start),
        };
        rest = &test[start + length..];
    }
    kept + rest
}

/// The length of a text that begins with a brace, up to the brace that closes it.
fn closing(text: &str) -> usize {
    let mut depth = 0;
    for (at, c) in text.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return at + 1;
        }
    }
    text.len()
}

/// Each place of `word` as a whole word.
fn words<'a>(code: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(word)
        .map(|(at, _)| at)
        .filter(move |at| !code[..*at].ends_with(part))
        .filter(move |at| !code[at + word.len()..].starts_with(part))
}

/// The line of a byte, from 1.
pub fn line(text: &str, at: usize) -> usize {
    text[..at].matches('\n').count() + 1
}

/// The modules that bare code names behind `root::` (`crate`, or the crate's name in a program),
/// groups taken apart: `(line, module)`.
pub fn named(code: &str, root: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for at in words(code, root) {
        if code[..at].ends_with("::") || code[..at].ends_with('$') {
            continue;
        }
        if let Some(path) = code[at + root.len()..].strip_prefix("::") {
            let line = line(code, at);
            found.extend(heads(path).into_iter().map(|head| (line, head)));
        }
    }
    found
}

/// The first names of a path or of a group of paths.
fn heads(path: &str) -> Vec<String> {
    let Some(group) = path.strip_prefix('{') else {
        let end = path.find(|c: char| !c.is_alphanumeric() && c != '_');
        let head = &path[..end.unwrap_or(path.len())];
        return Some(head.to_owned())
            .filter(|head| !head.is_empty())
            .into_iter()
            .collect();
    };
    let mut depth = 1;
    let mut members = String::new();
    for c in group.chars() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ if depth == 1 => members.push(c),
            _ => {}
        }
        if depth == 0 {
            break;
        }
    }
    let member = |member: &str| heads(member.trim()).into_iter().next();
    members.split(',').filter_map(member).collect()
}

/// The modules at the top that a file `depth` levels down reaches through `super::super::…`.
pub fn named_from_below(code: &str, depth: usize) -> Vec<(usize, String)> {
    let root = vec!["super"; depth].join("::");
    named(code, &root)
        .into_iter()
        .filter(|(_, module)| module != "super")
        .collect()
}

/// The lines of bare code that hold a let chain, which Rust 1.85 does not know.
pub fn let_chains(code: &str) -> Vec<usize> {
    let mut found = Vec::new();
    for at in words(code, "let") {
        let before = code[..at].trim_end();
        let after_and = before.ends_with("&&");
        let head = ["if", "while"].iter().any(|word| {
            before
                .strip_suffix(word)
                .is_some_and(|b| !b.ends_with(|c: char| c.is_alphanumeric() || c == '_'))
        });
        if after_and || head && goes_on(&code[at..]) {
            found.push(line(code, at));
        }
    }
    found.dedup();
    found
}

/// Whether what stands behind the `=` of a condition that begins with `let` holds an `&&` of its
/// own, outside any brackets.
fn goes_on(condition: &str) -> bool {
    let bytes = condition.as_bytes();
    let mut depth = 0;
    let mut matched = false;
    for (at, byte) in bytes.iter().enumerate() {
        let behind = bytes.get(at + 1).copied().unwrap_or(0);
        let before = bytes.get(at.wrapping_sub(1)).copied().unwrap_or(0);
        match byte {
            b'{' if matched && depth == 0 => return false,
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth -= 1,
            b'=' if depth == 0 && !b".=!<>".contains(&before) && !b"=>".contains(&behind) => {
                matched = true;
            }
            b'&' if matched && depth == 0 && behind == b'&' => return true,
            _ => {}
        }
    }
    false
}

/// The lines that hold `unsafe`, or that allow it.
pub fn unsafes(code: &str) -> Vec<usize> {
    let blocks = words(code, "unsafe");
    let allowed = words(code, "unsafe_code");
    blocks.chain(allowed).map(|at| line(code, at)).collect()
}

/// The lines with an `unsafe` block that no SAFETY comment stands right above, attributes and the
/// first lines of the same statement apart.
pub fn without_safety(source: &str, code: &str) -> Vec<usize> {
    let lines: Vec<&str> = source.lines().map(str::trim).collect();
    let bare: Vec<&str> = code.lines().map(str::trim).collect();
    let explained = |number: usize| {
        let above = (0..number - 1)
            .rev()
            .skip_while(|index| continues(bare[*index]) || lines[*index].starts_with("#["));
        let mut comment = above.take_while(|index| lines[*index].starts_with("//"));
        comment.any(|index| lines[index].starts_with("// SAFETY:"))
    };
    let mut found: Vec<usize> = words(code, "unsafe").map(|at| line(code, at)).collect();
    found.retain(|number| !explained(*number));
    found.dedup();
    found
}

/// Whether a line of code leaves its statement to the next one.
fn continues(line: &str) -> bool {
    !line.is_empty() && !line.ends_with([';', '{', '}', ','])
}
