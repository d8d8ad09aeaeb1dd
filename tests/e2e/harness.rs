//! The tools tested by themselves: a fake that cannot fail would make every other test worthless.

use crate::common::console::Console;
use crate::common::graphite::{Graphite, Mode, by_name, decode_frames, decode_lines};
use crate::common::json::Json;
use crate::common::wait_until;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

fn connect(graphite: &Graphite) -> std::io::Result<TcpStream> {
    TcpStream::connect((Ipv4Addr::LOCALHOST, graphite.port()))
}

/// Sends, half-closes, and says whether the other side then closed in order.
fn deliver(graphite: &Graphite, bytes: &[u8]) -> std::io::Result<()> {
    let mut stream = connect(graphite)?;
    stream.write_all(bytes)?;
    stream.shutdown(Shutdown::Write)?;
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).map(|_| ())
}

#[test]
fn graphite_takes_whole_flushes_of_lines() {
    let graphite = Graphite::text();
    deliver(&graphite, b"a 1 1700000000\nb.c;d=e 0.5 1700000000\n").unwrap();
    deliver(&graphite, b"a 2 1700000010\n").unwrap();
    let flushes = graphite.wait_flushes(2);
    assert_eq!(by_name(&flushes[0])["b.c;d=e"], "0.5");
    assert_eq!(flushes[1][0].timestamp, 1_700_000_010);
    graphite.wait_sum("a", 3.0);
    assert_eq!(graphite.connections(), 2);
}

#[test]
fn graphite_takes_pickles() {
    let graphite = Graphite::pickle();
    let body = "(l(S'a'\n(L1700000000L\nS'1.5'\ntta(S'b;c=d'\n(L1700000000L\nS'2'\ntta.";
    let mut frame = u32::try_from(body.len()).unwrap().to_be_bytes().to_vec();
    frame.extend_from_slice(body.as_bytes());
    deliver(&graphite, &frame).unwrap();
    let flush = &graphite.wait_flushes(1)[0];
    assert_eq!(by_name(flush)["b;c=d"], "2");
    assert_eq!(flush[0].timestamp, 1_700_000_000);
}

#[test]
fn what_graphite_could_not_use_is_refused() {
    for wrong in [
        "a 1\n",
        "a 1 2",
        "a x 2\n",
        "a NaN 2\n",
        "a Infinity 2\n",
        "a 1 2.5\n",
        "\n",
    ] {
        assert!(decode_lines(wrong.as_bytes()).is_err(), "{wrong:?}");
    }
    let good = b"(l(S'a'\n(L1L\nS'1'\ntta.";
    let framed = |length: u32, body: &[u8]| [&length.to_be_bytes()[..], body].concat();
    assert_eq!(decode_frames(&framed(22, good)).unwrap().len(), 1);
    assert!(decode_frames(&framed(23, good)).is_err(), "short frame");
    assert!(decode_frames(&framed(21, good)).is_err(), "no end");
    assert!(
        decode_frames(&framed(22, b"(l(S'a'\n(L1L\nS'x'\ntta.")).is_err(),
        "no number"
    );
    assert!(
        decode_frames(&framed(21, b"(l(S'a\n(L1L\nS'1'\ntta.")).is_err(),
        "no quote"
    );
    assert!(
        decode_frames(&framed(16, b"(l(S'a'\nS'1'\nta.")).is_err(),
        "no timestamp"
    );
}

#[test]
fn graphite_fails_as_told() {
    let mut graphite = Graphite::absent(false);
    assert_eq!(
        connect(&graphite).unwrap_err().kind(),
        ErrorKind::ConnectionRefused
    );
    graphite.up();
    deliver(&graphite, b"a 1 1\n").unwrap();

    graphite.set_mode(Mode::Reset { after: 3, times: 1 });
    assert!(
        deliver(&graphite, b"a 2 1\n").is_err(),
        "a reset must be felt"
    );
    deliver(&graphite, b"a 4 1\n").unwrap();

    graphite.set_mode(Mode::Trickle {
        bytes: 2,
        pause: Duration::from_millis(1),
    });
    deliver(&graphite, b"a 8 1\n").unwrap();
    graphite.wait_sum("a", 13.0);

    graphite.set_mode(Mode::HoldOpen);
    let mut stream = connect(&graphite).unwrap();
    stream.write_all(b"a 16 1\n").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    graphite.wait_sum("a", 29.0);
    stream
        .set_read_timeout(Some(Duration::from_millis(50)))
        .unwrap();
    assert_eq!(
        stream.read(&mut [0]).unwrap_err().kind(),
        ErrorKind::WouldBlock,
        "held open"
    );
    graphite.release();
    stream.set_read_timeout(None).unwrap();
    assert_eq!(stream.read(&mut [0]).unwrap(), 0);

    graphite.down();
    assert_eq!(
        connect(&graphite).unwrap_err().kind(),
        ErrorKind::ConnectionRefused
    );
    graphite.set_window(4096);
    graphite.up();
    graphite.set_mode(Mode::Stall);
    let mut stream = connect(&graphite).unwrap();
    stream.set_nonblocking(true).unwrap();
    let full = wait_until("a full window", || {
        let error = stream.write(&[b'x'; 65536]).err()?;
        Some(error.kind())
    });
    assert_eq!(full, ErrorKind::WouldBlock);
    assert_eq!(graphite.open(), 1);
    assert_eq!(graphite.sum("a"), 29.0, "only whole flushes count");
}

#[test]
fn json_is_read_strictly() {
    let text = r#" {"a": [1, -2.5e3, true, null], "b\n\u00e9\ud83d\ude00": {"c": ""}} "#;
    let value = Json::parse(text).unwrap();
    assert_eq!(value.at("a").items()[1], Json::Number(-2500.0));
    assert_eq!(value.at("b\né😀").at("c").text(), Some(""));
    assert_eq!(Json::parse(&value.to_string()).unwrap(), value);
    assert_eq!(Json::parse_first("{} and more").unwrap().1, 2);
    let wrong = [
        "",
        "{",
        "{a: 1}",
        "{'a': 1}",
        r#"{"a": 1,}"#,
        "[1,]",
        "[1 2]",
        "01",
        "1.",
        ".5",
        "+1",
        "NaN",
        "Infinity",
        "-",
        "{} {}",
        "\"a\nb\"",
        r#""\x""#,
        r#""\ud800""#,
        "[ 1, , 2 ]",
    ];
    for text in wrong {
        assert!(Json::parse(text).is_err(), "{text:?}");
    }
}

#[test]
fn console_client_cuts_replies() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut command = [0; 9];
        stream.read_exact(&mut command).unwrap();
        assert_eq!(&command, b"counters\n");
        stream
            .write_all(b"{\"a\": 1}\nEND\n\nhealth: up\n12345")
            .unwrap();
    });
    let mut console = Console::connect(address);
    assert_eq!(console.counter("a"), Some(1.0));
    assert_eq!(console.read_until("\n"), "health: up\n");
    assert_eq!(console.read_bytes(3), "123");
    assert_eq!(console.read_to_close(), "45");
    server.join().unwrap();
}
