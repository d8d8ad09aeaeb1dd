//! The command line of both programs (SPEC 1): one table of options, from which come the parser,
//! the usage text and the test of the man pages. Also the exit codes.
//!
//! May import the standard library and getopts only.

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;

use getopts::{Fail, Options};

/// Exit code: all went well.
pub const DONE: u8 = 0;
/// Exit code: the command line is wrong.
pub const USAGE: u8 = 1;
/// Exit code: the config file is wrong.
pub const CONFIG: u8 = 2;
/// Exit code: cannot bind or start.
pub const START: u8 = 3;

/// One of the two programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// The aggregator; its CONFIG may be left out.
    Statsd,
    /// The relay; it needs a CONFIG for its nodes.
    Proxy,
}

impl Program {
    /// As on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Program::Statsd => "statsd",
            Program::Proxy => "statsd-proxy",
        }
    }
}

/// An option of both programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OptionSpec {
    /// The letter.
    pub short: &'static str,
    /// The word.
    pub long: &'static str,
    /// What its argument is called; empty for a flag.
    pub argument: &'static str,
    /// One line of help.
    pub help: &'static str,
}

const fn option(
    short: &'static str,
    long: &'static str,
    argument: &'static str,
    help: &'static str,
) -> OptionSpec {
    OptionSpec {
        short,
        long,
        argument,
        help,
    }
}

/// Every option, in the order of the usage text.
pub const OPTIONS: &[OptionSpec] = &[
    option(
        "t",
        "test-config",
        "",
        "say what is wrong or doubtful in CONFIG, and exit",
    ),
    option("d", "daemon", "", "detach once everything is up"),
    option(
        "p",
        "pidfile",
        "FILE",
        "write the process id there, and lock it while alive",
    ),
    option(
        "u",
        "user",
        "NAME",
        "become this user once the sockets are bound",
    ),
    option(
        "g",
        "group",
        "NAME",
        "become this group once the sockets are bound",
    ),
    option(
        "v",
        "verbose",
        "",
        "log more, as `debug: true` in the config",
    ),
    option("V", "version", "", "print the version, and exit"),
    option("h", "help", "", "print this text, and exit"),
];

/// What the command line asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Invocation {
    /// Start, or test the config.
    Run(RunOptions),
    /// Print this text.
    Help(String),
    /// Print this line.
    Version(String),
}

/// How to run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunOptions {
    /// The config file; always there for the proxy.
    pub config: Option<PathBuf>,
    /// `--test-config`.
    pub test_config: bool,
    /// `--daemon`.
    pub daemon: bool,
    /// `--pidfile`.
    pub pidfile: Option<PathBuf>,
    /// `--user`.
    pub user: Option<String>,
    /// `--group`.
    pub group: Option<String>,
    /// `--verbose`.
    pub verbose: bool,
}

/// The command line is wrong; its text is one message, with what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageError(String);

impl fmt::Display for UsageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for UsageError {}

/// Reads the arguments, which come without the program's own name.
///
/// # Errors
/// An unknown option, one that lacks its argument or has one too many, more than one CONFIG, none
/// for the proxy, or text that is not UTF-8.
pub fn parse(
    program: Program,
    args: impl Iterator<Item = OsString>,
) -> Result<Invocation, UsageError> {
    let mut options = Options::new();
    for spec in OPTIONS {
        if spec.argument.is_empty() {
            options.optflagmulti(spec.short, spec.long, spec.help);
        } else {
            options.optopt(spec.short, spec.long, spec.help, spec.argument);
        }
    }
    let name = program.name();
    let wrong = |reason: String| UsageError(format!("{name}: {reason}; see {name} --help"));
    let found = options.parse(args).map_err(|fail| wrong(reason(fail)))?;
    if found.opt_present("help") {
        return Ok(Invocation::Help(usage(program)));
    }
    if found.opt_present("version") {
        return Ok(Invocation::Version(version(program)));
    }
    let text = |option: &str| match found.opt_str(option) {
        Some(text) if text.is_empty() => Err(wrong(format!("--{option} is empty"))),
        text => Ok(text),
    };
    let config = match found.free.as_slice() {
        [] if program == Program::Proxy => return Err(wrong("CONFIG is missing".to_owned())),
        [] => None,
        [config] if config.is_empty() => return Err(wrong("CONFIG is empty".to_owned())),
        [config] => Some(PathBuf::from(config)),
        [_, second, ..] => {
            return Err(wrong(format!("one CONFIG only, but there is {second} too")));
        }
    };
    Ok(Invocation::Run(RunOptions {
        config,
        test_config: found.opt_present("test-config"),
        daemon: found.opt_present("daemon"),
        pidfile: text("pidfile")?.map(PathBuf::from),
        user: text("user")?,
        group: text("group")?,
        verbose: found.opt_present("verbose"),
    }))
}

/// What is wrong, with the option as it was typed.
fn reason(fail: Fail) -> String {
    let dashed = |name: String| match name.chars().count() {
        1 => format!("-{name}"),
        _ => format!("--{name}"),
    };
    match fail {
        Fail::ArgumentMissing(name) => format!("{} needs an argument", dashed(name)),
        Fail::UnrecognizedOption(name) => format!("unknown option {}", dashed(name)),
        Fail::OptionDuplicated(name) => format!("{} is given twice", dashed(name)),
        Fail::UnexpectedArgument(name) => format!("{} takes no argument", dashed(name)),
        Fail::OptionMissing(name) => format!("{} is missing", dashed(name)),
    }
}

/// The text of `--help`.
fn usage(program: Program) -> String {
    let (config, meaning) = match program {
        Program::Statsd => (
            "[CONFIG]",
            "Without a CONFIG, built-in defaults and the console backend.",
        ),
        Program::Proxy => ("CONFIG", "CONFIG names the nodes."),
    };
    let name = program.name();
    let mut text = format!("usage: {name} [options] {config}\n{meaning}\n\n");
    for spec in OPTIONS {
        let words = format!("-{}, --{} {}", spec.short, spec.long, spec.argument);
        text.push_str(&format!("  {words:<22} {}\n", spec.help));
    }
    text.push_str(&format!(
        "\nExit codes: {DONE} done, {USAGE} usage, {CONFIG} config, {START} cannot bind or start.\n"
    ));
    text
}

/// The line of `--version`.
fn version(program: Program) -> String {
    format!("{} {}\n", program.name(), env!("CARGO_PKG_VERSION"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn parsed(program: Program, line: &str) -> Result<Invocation, UsageError> {
        parse(program, line.split_whitespace().map(OsString::from))
    }

    fn run(change: impl FnOnce(&mut RunOptions)) -> Invocation {
        let mut options = RunOptions::default();
        change(&mut options);
        Invocation::Run(options)
    }

    #[test]
    fn accepted() {
        for (line, expected) in [
            ("", run(|_| {})),
            ("a.js", run(|o| o.config = Some("a.js".into()))),
            (
                "-t a.js",
                run(|o| (o.test_config, o.config) = (true, Some("a.js".into()))),
            ),
            (
                "a.js --test-config",
                run(|o| (o.test_config, o.config) = (true, Some("a.js".into()))),
            ),
            ("-- -a.js", run(|o| o.config = Some("-a.js".into()))),
            ("-dvv", run(|o| (o.daemon, o.verbose) = (true, true))),
            (
                "--daemon --verbose",
                run(|o| (o.daemon, o.verbose) = (true, true)),
            ),
            (
                "-p/run/x.pid",
                run(|o| o.pidfile = Some("/run/x.pid".into())),
            ),
            (
                "--pidfile=/run/x.pid",
                run(|o| o.pidfile = Some("/run/x.pid".into())),
            ),
            (
                "--pidfile /run/x.pid",
                run(|o| o.pidfile = Some("/run/x.pid".into())),
            ),
            (
                "-u nobody -g nogroup",
                run(|o| (o.user, o.group) = (Some("nobody".into()), Some("nogroup".into()))),
            ),
        ] {
            assert_eq!(parsed(Program::Statsd, line), Ok(expected), "{line}");
        }
        assert_eq!(
            parsed(Program::Proxy, "p.js"),
            Ok(run(|o| o.config = Some("p.js".into())))
        );
    }

    #[test]
    fn refused() {
        use Program::{Proxy, Statsd};
        for (program, line, reason) in [
            (Statsd, "--foo", "unknown option --foo"),
            (Statsd, "-x", "unknown option -x"),
            (Statsd, "-p", "-p needs an argument"),
            (Statsd, "--pidfile", "--pidfile needs an argument"),
            (Statsd, "--pidfile=", "--pidfile is empty"),
            (Statsd, "-u a -u b", "--user is given twice"),
            (Statsd, "--daemon=yes", "--daemon takes no argument"),
            (
                Statsd,
                "a.js b.js",
                "one CONFIG only, but there is b.js too",
            ),
            (Proxy, "", "CONFIG is missing"),
            (Proxy, "-t", "CONFIG is missing"),
        ] {
            let name = program.name();
            let expected = format!("{name}: {reason}; see {name} --help");
            let error = parsed(program, line).unwrap_err();
            assert_eq!(error.to_string(), expected, "{line}");
        }
        let empty = [OsString::new()].into_iter();
        assert!(parse(Statsd, empty).is_err());
    }

    #[test]
    fn bytes_that_are_no_text_are_refused() {
        use std::os::unix::ffi::OsStringExt;
        let args = [OsString::from_vec(vec![b'a', 0xff])].into_iter();
        assert!(parse(Program::Statsd, args).is_err());
    }

    #[test]
    fn texts() {
        for program in [Program::Statsd, Program::Proxy] {
            let Ok(Invocation::Help(help)) = parsed(program, "a b -h") else {
                unreachable!("no help");
            };
            for spec in OPTIONS {
                let words = format!("-{}, --{}", spec.short, spec.long);
                assert!(help.contains(&words) && help.contains(spec.help), "{words}");
            }
            assert!(help.lines().all(|line| line.len() <= 80), "{help}");
            let version = format!("{} {}\n", program.name(), env!("CARGO_PKG_VERSION"));
            assert_eq!(parsed(program, "-V"), Ok(Invocation::Version(version)));
        }
    }
}
