//! What both programs do before their loop, in the order that [`crate::process`] prescribes: command line,
//! config, detaching, log, sockets, pidfile, user, the ready line. Then the loop, and the end.
//!
//! Every failure is one message on standard error, told once, and an exit code (SPEC 1).

use crate::cli::{self, Invocation, RunOptions};
use crate::config::{Common, ConfigError, Loaded, Open};
use crate::event_loop::{self, Role, Upkeep};
use crate::log;
use crate::net::resolve;
use crate::process::detach::{Detach, Ready};
use crate::process::notify::{Manager, Notifier};
use crate::process::pidfile::PidFile;
use crate::process::replace;
use crate::process::signals::Signals;
use crate::process::user::Identity;
use crate::process::{Failure, harden, title};
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// A program as this file sees it.
pub trait Program: Role + Sized {
    /// Its config.
    type Config;

    /// Which of the two it is.
    const PROGRAM: cli::Program;

    /// Reads the config, with paths in it as seen from `directory`; without a file, the built-in one.
    fn load(
        path: Option<&Path>,
        open: Open,
        directory: &Path,
    ) -> Result<Loaded<Self::Config>, ConfigError>;

    /// The part of the config that both programs have.
    fn common(config: &mut Self::Config) -> &mut Common;

    /// The changed keys that a reload cannot apply.
    fn needs_restart(old: &Self::Config, new: &Self::Config) -> Vec<&'static str>;

    /// Binds everything, and is ready but for the loop.
    fn start(config: Self::Config, surroundings: Surroundings) -> Result<Self, Failure>;

    /// The user is the one who stays, the loop not begun: time for what is done as that user.
    fn settle(&mut self) {}

    /// What it listens on, for the ready line.
    fn listens_on(&self) -> Vec<String>;
}

/// What a program is given at its start beside its config.
#[derive(Default)]
pub struct Surroundings {
    /// The config file, absolute; `None` is the built-in config.
    pub config: Option<PathBuf>,
    /// Where the program was started: what relative paths in the config refer to.
    pub directory: PathBuf,
    /// `--verbose`: as `debug` in the config, and stays when that is reloaded.
    pub verbose: bool,
    /// Sockets from the service manager; take those that fit.
    pub sockets: Vec<OwnedFd>,
    /// Where to tell the service manager of reloads and the end.
    pub notifier: Notifier,
}

/// A failure and the exit code for it.
struct Stop {
    code: u8,
    message: String,
}

impl Stop {
    fn start(failure: impl std::fmt::Display) -> Stop {
        Stop {
            code: cli::START,
            message: failure.to_string(),
        }
    }
}

/// Runs a program from its command line to its end.
pub fn main<P: Program>() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    if resolve::run_child(&arguments) || replace::run_child(&arguments) {
        return ExitCode::SUCCESS;
    }
    let name = P::PROGRAM.name();
    let code = match cli::parse(P::PROGRAM, arguments.into_iter()) {
        Err(error) => {
            // It names the program itself, as getopts users are used to.
            let _ = writeln!(io::stderr(), "{error}");
            cli::USAGE
        }
        Ok(Invocation::Help(text) | Invocation::Version(text)) => {
            // Nothing is lost if nobody reads it.
            let _ = io::stdout().write_all(text.as_bytes());
            cli::DONE
        }
        Ok(Invocation::Run(options)) if options.test_config => test_config::<P>(name, &options),
        Ok(Invocation::Run(options)) => run::<P>(name, options),
    };
    ExitCode::from(code)
}

fn complain(program: &str, message: &str) {
    for line in message.lines() {
        // Without a standard error there is nobody to tell.
        let _ = writeln!(io::stderr(), "{program}: {line}");
    }
}

fn test_config<P: Program>(name: &str, options: &RunOptions) -> u8 {
    match P::load(options.config.as_deref(), open, &working_directory()) {
        Ok(loaded) => {
            loaded
                .warnings
                .iter()
                .for_each(|warning| complain(name, &format!("warning: {warning}")));
            let _ = writeln!(io::stdout(), "{name}: the config is good");
            cli::DONE
        }
        Err(error) => {
            complain(name, &error.to_string());
            cli::CONFIG
        }
    }
}

/// At the start the config may come from anywhere, and be waited for: a pipe, standard input.
fn open(path: &Path) -> io::Result<File> {
    File::open(path)
}

/// Where we are; `/` if that cannot be told, which is where a daemon goes anyway.
fn working_directory() -> PathBuf {
    std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/"))
}

fn run<P: Program>(name: &str, mut options: RunOptions) -> u8 {
    let directory = working_directory();
    for path in [&mut options.config, &mut options.pidfile]
        .into_iter()
        .flatten()
    {
        *path = directory.join(&*path);
    }
    let manager = Manager::from_environment();
    harden::at_start(manager.handed_over);
    title::prepare();
    let mut ready = None;
    if options.daemon {
        match Detach::start() {
            Ok(Detach::Starter(code)) => return code,
            Ok(Detach::Daemon(daemon)) => ready = Some(daemon),
            Err(error) => {
                complain(name, &format!("cannot detach: {error}"));
                return cli::START;
            }
        }
    }
    let code = match launch::<P>(name, options, directory, manager, &mut ready) {
        Ok(()) => cli::DONE,
        Err(stop) => {
            complain(name, &stop.message);
            stop.code
        }
    };
    if let Some(ready) = ready {
        // The starter exits with it.
        ready.notify(code);
    }
    code
}

/// From the config to the end of the loop.
fn launch<P: Program>(
    name: &str,
    options: RunOptions,
    directory: PathBuf,
    manager: Manager,
    ready: &mut Option<Ready>,
) -> Result<(), Stop> {
    let loaded = P::load(options.config.as_deref(), open, &directory).map_err(|error| Stop {
        code: cli::CONFIG,
        message: error.to_string(),
    })?;
    let mut config = loaded.config;
    let common = P::common(&mut config);
    common.debug |= options.verbose;
    let common = common.clone();
    loaded
        .warnings
        .iter()
        .for_each(|warning| complain(name, &format!("warning: {warning}")));

    let identity =
        Identity::find(options.user.as_deref(), options.group.as_deref()).map_err(Stop::start)?;
    log::init(&common.log, common.debug);
    log::log_panics();
    let surroundings = Surroundings {
        config: options.config,
        directory,
        verbose: options.verbose,
        sockets: manager.sockets,
        notifier: manager.notifier.clone(),
    };
    let mut program = P::start(config, surroundings).map_err(Stop::start)?;
    let uid = identity.as_ref().and_then(|identity| identity.uid);
    let pidfile = options
        .pidfile
        .as_deref()
        .map(|path| PidFile::create(path, uid));
    let _pidfile = pidfile.transpose().map_err(Stop::start)?;
    if let Some(identity) = identity {
        identity.assume().map_err(Stop::start)?;
    }
    let signals =
        Signals::new().map_err(|error| Stop::start(format!("cannot handle signals: {error}")))?;
    title::set(&common.title, name);
    program.settle();

    let up = format!("server is up: {}", program.listens_on().join(", "));
    log::info!("{up}");
    if ready.is_some() && log::uses_stdout() {
        log::warning!(
            "detached, so the log on standard output is lost; set log.backend to \"syslog\""
        );
    }
    if let Some(ready) = ready.take() {
        ready.notify(cli::DONE);
    }
    let mut upkeep = Upkeep::new(signals, manager.notifier, manager.watchdog);
    upkeep.ready(&up);
    event_loop::run(&mut program, &mut upkeep);
    Ok(())
}
