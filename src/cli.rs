//! The command line.

use std::{
    io::{IsTerminal, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Arg, ArgMatches, Command, value_parser};

use crate::{
    Transforms,
    config::{Config, Problem, SETTINGS},
    server,
};

const EXAMPLES: &str = "Examples:
  tidemill quickstart                            live demo data in ./tidemill-data; prints the psql line and the console's URL
  tidemill server --config tidemill.toml         a server as the file says
  tidemill server --data-dir /var/lib/tidemill --pg-listen 127.0.0.1:5433
  tidemill check --config tidemill.toml          what is wrong with the file, and where
  tidemill segment verify ./tidemill-data        all checksums of all segment files

Every setting can stand in the file ([section] key = …), in the environment (TIDEMILL_<SECTION>_<KEY>) or be a flag; the flag wins.";

/// What a run ended with, as the process tells it.
const WRONG_USAGE: u8 = 2;

/// Runs the command that the process was called with.
pub fn main() -> ExitCode {
    main_with(Transforms::default())
}

/// The same, by a server that has transforms of its own beside what SQL has; see [`crate::plugin`].
pub fn main_with(transforms: Transforms) -> ExitCode {
    let matches = command().get_matches();
    match matches.subcommand() {
        Some(("quickstart", matches)) => run(matches, true, transforms),
        Some(("server", matches)) => run(matches, false, transforms),
        Some(("check", matches)) => check(matches),
        Some(("segment", matches)) => match matches.subcommand() {
            Some((action, matches)) => {
                let path = matches.get_one::<PathBuf>("path").expect("invariant: clap requires the path");
                crate::segment_files::run(action == "verify", path, &mut std::io::stdout().lock())
            }
            None => ExitCode::from(WRONG_USAGE),
        },
        _ => ExitCode::from(WRONG_USAGE),
    }
}

/// The whole command line; made from the settings, so that none can be missing.
pub fn command() -> Command {
    let config = Arg::new("config")
        .long("config")
        .value_name("FILE")
        .help("configuration file, TOML")
        .value_parser(value_parser!(PathBuf));
    let settings = || {
        SETTINGS.iter().map(|setting| {
            Arg::new(setting.flag())
                .long(setting.flag())
                .value_name(setting.value)
                .help(setting.help)
                .help_heading(format!("[{}]", setting.section))
        })
    };
    let path = || {
        Arg::new("path")
            .value_name("PATH")
            .required(true)
            .help("a segment file, or a directory of them")
            .value_parser(value_parser!(PathBuf))
    };
    Command::new("tidemill")
        .version(env!("CARGO_PKG_VERSION"))
        .about("A real-time OLAP database: streams go in, SQL comes out")
        .after_help(EXAMPLES)
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(
            Command::new("quickstart")
                .about("A server in ./tidemill-data fed by a live demo stream")
                .after_help("Example:\n  tidemill quickstart\n  psql -h 127.0.0.1 -p 5433 -U tidemill -c 'SELECT status, count(*) FROM orders GROUP BY 1'")
                .arg(config.clone())
                .args(settings()),
        )
        .subcommand(
            Command::new("server")
                .about("Runs the server until SIGTERM or Ctrl-C")
                .after_help("Examples:\n  tidemill server --config tidemill.toml\n  tidemill server --data-dir /var/lib/tidemill --pg-listen 127.0.0.1:5433 --http-listen 127.0.0.1:8433")
                .arg(config.clone())
                .args(settings()),
        )
        .subcommand(
            Command::new("check")
                .about("Validates a configuration; names the key and the line that is wrong")
                .after_help("Example:\n  tidemill check --config tidemill.toml")
                .arg(config.required(true)),
        )
        .subcommand(
            Command::new("segment")
                .about("Looks into segment files")
                .subcommand_required(true)
                .arg_required_else_help(true)
                .after_help("Examples:\n  tidemill segment inspect ./tidemill-data/tables/1/0/s0.seg\n  tidemill segment verify ./tidemill-data")
                .subcommand(Command::new("inspect").about("Columns, encodings, sizes, statistics").arg(path()))
                .subcommand(Command::new("verify").about("Reads every byte and checks every checksum; exits 1 when one is wrong").arg(path())),
        )
}

fn load(matches: &ArgMatches) -> Result<Config, Vec<Problem>> {
    let file = matches.get_one::<PathBuf>("config").map(PathBuf::as_path);
    let flags = SETTINGS.iter().filter_map(|setting| {
        let flag = setting.flag();
        let value = matches.try_get_one::<String>(&flag).ok().flatten()?.clone();
        Some((flag, value))
    });
    Config::load(file, std::env::vars(), flags)
}

fn run(matches: &ArgMatches, quickstart: bool, transforms: Transforms) -> ExitCode {
    let config = match load(matches) {
        Ok(config) => config,
        Err(problems) => return refuse(&problems),
    };
    start_logging(&config);
    match server::run(config, quickstart, transforms) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("tidemill: {error}\n"));
            ExitCode::FAILURE
        }
    }
}

fn check(matches: &ArgMatches) -> ExitCode {
    let file = matches.get_one::<PathBuf>("config").expect("invariant: clap requires the file");
    match Config::load(Some(Path::new(file)), std::env::vars(), []) {
        Ok(config) => {
            if let Err(error) = server::check(&config) {
                say(&format!("tidemill: {}: {error}\n", file.display()));
                return ExitCode::from(WRONG_USAGE);
            }
            let _ = writeln!(std::io::stdout().lock(), "{}: ok", file.display());
            ExitCode::SUCCESS
        }
        Err(problems) => refuse(&problems),
    }
}

fn refuse(problems: &[Problem]) -> ExitCode {
    for problem in problems {
        say(&format!("tidemill: {problem}\n"));
    }
    ExitCode::from(WRONG_USAGE)
}

/// To the person at the terminal; one who has closed it does not want to know.
fn say(text: &str) {
    let _ = std::io::stderr().lock().write_all(text.as_bytes());
}

fn start_logging(config: &Config) {
    let filter = || tracing_subscriber::EnvFilter::new(&config.log_level);
    let builder = tracing_subscriber::fmt().with_env_filter(filter()).with_writer(std::io::stderr).with_target(false);
    // A second subscriber (in tests) is not an error.
    let _ = if config.log_json {
        builder.json().with_target(true).try_init()
    } else {
        builder.compact().with_ansi(std::io::stderr().is_terminal()).try_init()
    };
}
