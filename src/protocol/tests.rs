//! What must parse, and into what; what must not, and how often it counts.

use super::*;

/// Writes down what a packet brings.
#[derive(Default)]
struct Found(Vec<String>);

impl Sink for Found {
    /// Knows every name without a line end or a bar in it.
    fn known(&mut self, name: &[u8], value: Value<'_>, _: &[u8]) -> bool {
        !name.iter().any(|b| matches!(b, b'\n' | b'|')) && self.metric(name, value)
    }

    fn metric(&mut self, name: &[u8], value: Value<'_>) -> bool {
        if name::holds_tag_mark(name) {
            return false;
        }
        let name = String::from_utf8_lossy(name);
        self.0.push(match value {
            Value::Counter(v) => format!("{name} c {v}"),
            Value::Timer { value, count } => format!("{name} ms {value} x{count}"),
            Value::Gauge(v) => format!("{name} g {v}"),
            Value::GaugeDelta(v) => format!("{name} g {v:+}"),
            Value::Set(member) => format!("{name} s {}", String::from_utf8_lossy(member)),
        });
        true
    }

    fn bad_line(&mut self, bad: BadLine<'_>) {
        self.0.push(bad.to_string());
    }

    fn line(&mut self, _: &[u8]) -> bool {
        true
    }
}

fn found(packet: &str) -> Vec<String> {
    let mut found = Found::default();
    parse_packet(packet.as_bytes(), &mut Scratch::default(), &mut found);
    found.0
}

#[test]
fn must_parse() {
    for (packet, expected) in [
        ("a:1|c", &["a c 1"][..]),
        ("a:1|m", &["a c 1"]),
        (
            "a:1|ms\nb:2|h\nc:3|d",
            &["a ms 1 x1", "b ms 2 x1", "c ms 3 x1"],
        ),
        (
            "a:1|g\na:+1|g\na:-1|g\na: -1|g",
            &["a g 1", "a g +1", "a g -1", "a g -1"],
        ),
        ("a:x y|s\na:|s", &["a s x y", "a s 0"]),
        ("a:1|c|@0.1", &["a c 10"]),
        ("a:1|ms|@.25", &["a ms 1 x4"]),
        ("a:5|g|@0.1", &["a g 5"]),
        ("a:u|s|@0.1", &["a s u"]),
        ("a:1|c|@2e-1", &["a c 5"]),
        ("a:1|c|@0.5|x", &["a c 2"]),
        ("a:1|c|@0.5|", &["a c 2"]),
        ("a:1|c|@0.5|@0.1", &["a c 2"]),
        ("a:1|c|@0.5\r\nb:1|c\r\n", &["a c 2", "b c 1"]),
        ("\n\na:1|c\n\n", &["a c 1"]),
        ("a: 1 | c ", &["a c 1"]),
        ("a:1|c:2|c:3|ms|@0.5", &["a c 1", "a c 2", "a ms 3 x2"]),
        ("a:1|c|@0.5:2|c", &["a c 2", "a c 2"]),
        ("a:1:2|ms", &["a ms 1 x1", "a ms 2 x1"]),
        (
            "a:1:2:3|ms|@0.5|#k:v",
            &["a;k=v ms 1 x2", "a;k=v ms 2 x2", "a;k=v ms 3 x2"],
        ),
        ("x:1|c|#a:b", &["x;a=b c 1"]),
        ("x:1|c|#", &["x c 1"]),
        ("x:1|c|@0.5|#a:b", &["x;a=b c 2"]),
        ("x:1|c|#a:b|@0.5", &["x;a=b c 2"]),
        ("x:1|c|#a:b|@0.5|c:cid", &["x;a=b c 2"]),
        ("x:1|c|#a:b|", &["x;a=b c 1"]),
        ("x:1|c|#a:b|#c:d", &["x;a=b c 1"]),
        ("x:1|c|c:83c0a99c:in|@0.5", &["x c 2"]),
        ("x:1|c|T1656581400", &["x c 1"]),
        ("x:1|ms|e:it-false,cn-x:y|#k:v", &["x;k=v ms 1 x1"]),
        ("x:1|c|card:low", &["x c 1"]),
        ("a|b:1|c", &["a|b c 1"]),
        (":1|c", &[" c 1"]),
        ("u:5|s\r", &["u s 5"]),
        ("t:-0|ms", &["t ms -0 x1"]),
        ("t:-1|ms\r\n", &["t ms -1 x1"]),
        ("a:0.1|c|@0.3", &["a c 0.33333333333333337"]),
    ] {
        assert_eq!(found(packet), expected, "{packet:?}");
    }
}

#[test]
fn must_not_parse() {
    for (line, bad) in [
        ("a", &["1"][..]),
        ("a|c", &["1"]),
        ("a|#x:1|c", &["1"]),
        ("_sc|name|0", &["1"]),
        ("a:1", &["1"]),
        ("a:", &[""]),
        ("a:1:2", &["1", "2"]),
        ("a::|c", &[",c", ",c"]),
        ("a:|c", &[",c"]),
        ("a:abc|c", &["abc,c"]),
        ("a:--5|c", &["--5,c"]),
        ("a:0,5|c", &["0,5,c"]),
        ("a:1|", &["1,"]),
        ("a:1|x", &["1,x"]),
        ("a:1|C", &["1,C"]),
        ("a:1|c|", &["1,c,"]),
        ("a:1|c|0.1", &["1,c,0.1"]),
        ("a:1|c|@", &["1,c,@"]),
        ("a:1|c|@x", &["1,c,@x"]),
        ("a:1|c|@-1", &["1,c,@-1"]),
        ("a:1|c|@+1", &["1,c,@+1"]),
        ("a:1|c|@ 1", &["1,c,@ 1"]),
        ("a:1|c|@0", &["1,c,@0"]),
        ("a:1|c|@0x10", &["1,c,@0x10"]),
        ("a:1|c|@1e400", &["1,c,@1e400"]),
        ("a:1|c|@1e-400", &["1,c,@1e-400"]),
        ("a:1|c|@5e-324", &["1,c,@5e-324"]),
        ("a:1|c|@Infinity", &["1,c,@Infinity"]),
        ("a:Infinity|c", &["Infinity,c"]),
        ("a:1e400|c", &["1e400,c"]),
        ("a:1e308|c|@0.1", &["1e308,c,@0.1"]),
        ("a:0x10|c", &["0x10,c"]),
        ("a: |c", &[" ,c"]),
        ("a:-1|ms", &["-1,ms"]),
        ("a:-1|h", &["-1,h"]),
        ("a:word|s ", &["word,s "]),
        ("a:u|s|@abc", &["u,s,@abc"]),
        ("a:1|c|#k:v|@no", &["1,c"]),
    ] {
        let expected: Vec<_> = bad
            .iter()
            .map(|part| format!("Bad line: {part} in msg \"{line}\""))
            .collect();
        assert_eq!(found(line), expected, "{line:?}");
    }
}

#[test]
fn a_bad_value_harms_nothing_beside_it() {
    assert_eq!(
        found("a:1|c:bad|c:2|c\nnonsense\nb:x:3|ms"),
        [
            "a c 1",
            "Bad line: bad,c in msg \"a:1|c:bad|c:2|c\"",
            "a c 2",
            "Bad line: 1 in msg \"nonsense\"",
            "Bad line: x,ms in msg \"b:x:3|ms\"",
            "b ms 3 x1",
        ]
    );
}

/// Both ways through give the same, for lines that either may take.
#[test]
fn short_way_agrees_with_the_full_one() {
    for name in ["a", "prod.svc1.host2", "x;k=v"] {
        for value in ["1", "-1", "+2.5", ".5", "1.", "123456.789", "0"] {
            for kind in ["c", "g", "ms"] {
                for rate in ["", "|@0.1", "|@1", "|@.5"] {
                    let line = format!("{name}:{value}|{kind}{rate}");
                    let mut full = Found::default();
                    full_line(line.as_bytes(), &mut Scratch::default(), &mut full);
                    assert_eq!(found(&line), full.0, "{line}");
                }
            }
        }
    }
}

/// What is offered as a name is what is hashed.
#[test]
fn work_does_not_grow_with_the_square_of_a_packet() {
    struct Offered(usize);
    impl Sink for Offered {
        fn known(&mut self, name: &[u8], _: Value<'_>, _: &[u8]) -> bool {
            self.0 += name.len();
            false
        }
        fn line(&mut self, _: &[u8]) -> bool {
            false
        }
        fn metric(&mut self, _: &[u8], _: Value<'_>) -> bool {
            true
        }
        fn bad_line(&mut self, _: BadLine<'_>) {}
    }
    for line in ["\n", "a\n", "a:1|c\n"] {
        let packet = line.repeat(10_000) + "b:1|c";
        let mut offered = Offered(0);
        parse_packet(packet.as_bytes(), &mut Scratch::default(), &mut offered);
        assert!(offered.0 <= 8 * packet.len(), "{line:?}: {}", offered.0);
    }
}

/// A look ahead gives the names that lookups will be for, whatever else the text holds.
#[test]
fn names_ahead() {
    struct Ahead(Vec<String>, Found);
    impl Sink for Ahead {
        fn looks_ahead(&self) -> bool {
            true
        }
        fn ahead(&mut self, names: &[&[u8]; AHEAD]) {
            let text = |name: &&[u8]| String::from_utf8_lossy(name).into_owned();
            self.0.extend(names.iter().map(text));
        }
        fn known(&mut self, name: &[u8], value: Value<'_>, line: &[u8]) -> bool {
            self.1.known(name, value, line)
        }
        fn line(&mut self, line: &[u8]) -> bool {
            self.1.line(line)
        }
        fn metric(&mut self, name: &[u8], value: Value<'_>) -> bool {
            self.1.metric(name, value)
        }
        fn bad_line(&mut self, bad: BadLine<'_>) {
            self.1.bad_line(bad);
        }
    }
    let ahead = |packet: &str| {
        let mut sink = Ahead(Vec::new(), Found::default());
        parse_packet(packet.as_bytes(), &mut Scratch::default(), &mut sink);
        assert_eq!(sink.1.0, found(packet));
        sink.0
    };
    assert!(ahead("a:1|c\nb:1|c").is_empty(), "too little");
    let lines = |count: usize| -> Vec<String> {
        let line = |n: usize| format!("some.name.{n}:{n}|c");
        (0..count).map(line).collect()
    };
    let names = ahead(&lines(100).join("\n"));
    // Three times 32; the few lines that are left are too little again.
    let expected: Vec<String> = (0..96).map(|n| format!("some.name.{n}")).collect();
    assert_eq!(names, expected);
    let odd = [
        String::new(),
        "no colon".to_string(),
        "|:".to_string(),
        format!("{}:1|c", "n".repeat(257)),
        "x".repeat(300),
        "last:1|c".to_string(),
    ];
    let names = ahead(&odd.join("\n"));
    assert_eq!(names[..6], ["", "", "|", "", "", "last"]);
}
