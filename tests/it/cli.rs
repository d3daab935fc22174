//! The command line: help, check, the lock, signals, segment files.

use std::process::{Command, Output};

use crate::support::server::Server;

fn tidemill(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tidemill")).args(arguments).output().unwrap()
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn help_has_examples_and_every_setting() {
    let help = text(&tidemill(&["--help"]));
    for command in ["quickstart", "server", "check", "segment", "Examples:"] {
        assert!(help.contains(command), "{help}");
    }
    let help = text(&tidemill(&["server", "--help"]));
    for setting in tidemill::config::SETTINGS {
        assert!(help.contains(&format!("--{} ", setting.flag())), "{} is not in\n{help}", setting.flag());
    }
    assert_eq!(text(&tidemill(&["--version"])).trim(), concat!("tidemill ", env!("CARGO_PKG_VERSION")));
    assert!(!tidemill(&["sevrer"]).status.success());
}

#[test]
fn check_names_the_key_and_the_line() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("t.toml");
    let path = path.to_str().unwrap();
    std::fs::write(path, "[server]\nnode_name = \"a\"\n\n[pg]\nlisten = \"127.0.0.1:1\"\n").unwrap();
    let output = tidemill(&["check", "--config", path]);
    assert!(output.status.success(), "{}", text(&output));
    std::fs::write(path, "[server]\nnode_nmae = \"a\"\n").unwrap();
    let output = tidemill(&["check", "--config", path]);
    assert_eq!(output.status.code(), Some(2));
    assert!(
        text(&output).contains("t.toml:2: unknown key \"node_nmae\" in [server] (perhaps you meant \"node_name\")"),
        "{}",
        text(&output)
    );
    // Any two files once passed for certificate and key.
    let certificate = directory.path().join("cert.pem");
    let key = directory.path().join("key.pem");
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let other = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(path, format!("[pg]\ntls_cert = '{}'\ntls_key = '{}'\n", certificate.display(), key.display()))
        .unwrap();
    for (written, key_written, wanted) in [
        ("hello".to_owned(), made.signing_key.serialize_pem(), Some("cert.pem")),
        (made.cert.pem(), "hello".to_owned(), Some("key.pem")),
        (made.cert.pem(), other.signing_key.serialize_pem(), Some("cert.pem")),
        (made.cert.pem(), made.signing_key.serialize_pem(), None),
    ] {
        std::fs::write(&certificate, written).unwrap();
        std::fs::write(&key, key_written).unwrap();
        let output = tidemill(&["check", "--config", path]);
        let said = text(&output);
        assert_eq!(output.status.code(), Some(if wanted.is_some() { 2 } else { 0 }), "{said}");
        assert!(wanted.is_none_or(|wanted| said.contains(wanted) && said.contains("pg.tls_cert")), "{said}");
    }
    let output = tidemill(&["server", "--log-level", "verbose"]);
    assert_eq!(output.status.code(), Some(2));
    let output = tidemill(&["server", "--pg-listen", "0.0.0.0:1"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output).contains("there are no users"), "{}", text(&output));
}

#[test]
fn a_directory_has_one_server_and_a_signal_ends_it() {
    let mut server = Server::start(env!("CARGO_BIN_EXE_tidemill"));
    let directory = server.data_dir.to_str().unwrap().to_owned();
    let second =
        tidemill(&["server", "--data-dir", &directory, "--pg-listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0"]);
    assert!(!second.status.success());
    let message = text(&second);
    assert!(message.contains(&format!("in use by process {}", server.pid())), "{message}");
    server.sql("CREATE TABLE t (a INT)");
    server.sql("INSERT INTO t VALUES (1)");
    server.stop();
    server.spawn();
    server.wait_ready();
    assert_eq!(server.value("SELECT a FROM t"), "1");
}

#[test]
fn segment_files_are_inspected_and_a_flipped_byte_is_found() {
    let mut server = Server::start(env!("CARGO_BIN_EXE_tidemill"));
    server.sql("CREATE TABLE t (a INT, b TEXT)");
    server.sql("INSERT INTO t SELECT value, 'text ' || value FROM generate_series(1, 5000) AS g(value)");
    server.sql("SELECT rt.seal('t')");
    server.stop();
    let directory = server.data_dir.to_str().unwrap().to_owned();
    let inspected = text(&tidemill(&["segment", "inspect", &directory]));
    assert!(inspected.contains("5000 rows") && inspected.contains("integer"), "{inspected}");
    let verified = tidemill(&["segment", "verify", &directory]);
    assert!(verified.status.success(), "{}", text(&verified));
    let file = inspected.lines().next().unwrap().to_owned();
    let mut bytes = std::fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    let verified = tidemill(&["segment", "verify", &file]);
    assert_eq!(verified.status.code(), Some(1));
    assert!(text(&verified).contains("expected") && text(&verified).contains(&file), "{}", text(&verified));
}

#[test]
fn the_statement_timeout_of_the_configuration_is_every_session_s() {
    let server = Server::start_with(env!("CARGO_BIN_EXE_tidemill"), &["--query-statement-timeout", "100ms"]);
    assert_eq!(server.value("SHOW statement_timeout"), "100ms");
    let endless = "SELECT count(*) FROM generate_series(1, 100000000) AS a(i), generate_series(1, 100000000) AS b(i) WHERE a.i + b.i = 3";
    let error = server.try_sql(endless).expect_err("the query ends at its deadline");
    assert_eq!(error.as_db_error().map(|error| error.code().code()), Some("57014"));
    assert_eq!(server.value("SET statement_timeout = 0; SHOW statement_timeout"), "0");
}
