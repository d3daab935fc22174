use std::collections::BTreeSet;

use super::*;

fn load(file: &str, environment: &[(&str, &str)], flags: &[(&str, &str)]) -> Result<Config, Vec<String>> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("t.toml");
    std::fs::write(&path, file).unwrap();
    let own = |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect::<Vec<_>>();
    Config::load(Some(&path), own(environment), own(flags)).map_err(|problems| {
        let prefix = format!("{}/", directory.path().display());
        problems.iter().map(|problem| problem.to_string().replace(&prefix, "")).collect()
    })
}

#[test]
fn the_flag_wins_over_the_environment_over_the_file() {
    let file = "[server]\ndata_dir = \"/a\"\nnode_name = \"file\"\nshutdown_grace = \"3s\"\n[memory]\nquery_bytes = \"64MB\"\n[query]\nlanes = 3\n";
    let config = load(
        file,
        &[("TIDEMILL_SERVER_NODE_NAME", "environment"), ("TIDEMILL_SERVER_DATA_DIR", "/b"), ("TIDEMILL_CACHE", "x")],
        &[("data-dir", "/c"), ("pg-listen", "localhost:1")],
    )
    .unwrap();
    assert_eq!(config.data_dir, PathBuf::from("/c"));
    assert_eq!(config.node_name, "environment");
    assert_eq!(config.shutdown_grace, Duration::from_secs(3));
    assert_eq!((config.query_bytes, config.lanes), (64 << 20, 3));
    assert_eq!(config.pg_listen.to_string(), "127.0.0.1:1");
}

#[test]
fn every_problem_is_named_with_its_place() {
    let problems = load(
        "[server]\ndata_dri = \"/a\"\nlisten = 3\n[pgg]\n[query]\nlanes = \"many\"\n[http]\nlisten = \"0.0.0.0:1\"\n",
        &[
            ("TIDEMILL_PG_LISTN", "x"),
            ("TIDEMILL_LOGGING_LEVEL", "x"),
            ("TIDEMILL_SEVER_NODE_NAME", "x"),
            ("TIDEMILL_PORT_5433_TCP", "tcp://10.0.0.1:5433"),
        ],
        &[("log-format", "xml")],
    )
    .unwrap_err();
    let expected = [
        "t.toml:2: unknown key \"data_dri\" in [server] (perhaps you meant \"data_dir\")",
        "t.toml:3: unknown key \"listen\" in [server] (\"listen\" belongs to [pg])",
        "t.toml:4: unknown section [pgg] (perhaps you meant \"pg\")",
        "t.toml:6: query.lanes: 'many' is not a number from 1 to 1024",
        "environment variable TIDEMILL_PG_LISTN: unknown setting (perhaps you meant \"TIDEMILL_PG_LISTEN\")",
        "environment variable TIDEMILL_LOGGING_LEVEL: unknown setting",
        "environment variable TIDEMILL_SEVER_NODE_NAME: unknown setting (perhaps you meant \"TIDEMILL_SERVER_NODE_NAME\")",
        "--log-format: log.format: 'xml' is neither compact nor json",
    ];
    for problem in expected {
        assert!(problems.iter().any(|found| found == problem), "{problem}\nis not in\n{}", problems.join("\n"));
    }
    assert!(problems.iter().any(|found| found.starts_with("http.listen: 0.0.0.0:1 is open to the network")));
    assert_eq!(problems.len(), expected.len() + 1);
    assert!(load("[server\n", &[], &[]).unwrap_err()[0].starts_with("t.toml:1: "));
}

#[test]
fn urls_of_stores_are_looked_at() {
    let config = load(
        "[storage]\nsegments_url = \"s3://bucket/prefix\"\ncheckpoints_url = \"file:///mnt/deep\"\n",
        &[],
        &[("storage-checkpoints-url", "")],
    );
    let config = config.unwrap();
    assert_eq!((config.segments_url.as_deref(), config.checkpoints_url), (Some("s3://bucket/prefix"), None));
    let problems = load("", &[("TIDEMILL_STORAGE_SEGMENTS_URL", "/mnt/deep")], &[]).unwrap_err();
    let expected = "environment variable TIDEMILL_STORAGE_SEGMENTS_URL: storage.segments_url: '/mnt/deep' is neither a directory nor a bucket: \
                    write file:///mnt/deep or s3://bucket/prefix";
    assert_eq!(problems, [expected]);
}

/// A misspelt level once was taken for the name of a module, and a server said nothing at all.
#[test]
fn log_levels_are_levels() {
    for good in [
        "info",
        "DEBUG",
        "off",
        "info,tidemill=debug",
        "warn,tidemill_ingest::source=trace",
        "info,[scan{rows=1}]=debug",
    ] {
        assert_eq!(log_level(good), Ok(()), "{good}");
    }
    for (bad, message) in [
        ("verbose", "'verbose' is not a log level; these are off, error, warn, info, debug, trace"),
        ("inof", "'inof' is not a log level (perhaps you meant \"info\")"),
        ("info,tidemill=loud", "'loud' is not a log level"),
        ("info,,warn", "'' is not a log level"),
        ("", "'' is not a log level"),
    ] {
        let error = log_level(bad).unwrap_err();
        assert!(error.starts_with(message), "{bad}: {error}");
    }
}

#[test]
fn the_network_needs_users_and_tls() {
    let open = "[pg]\nlisten = \"0.0.0.0:5433\"\n";
    assert_eq!(load(open, &[], &[]).unwrap_err().len(), 2);
    let users = "tls_cert = \"c\"\ntls_key = \"k\"\n[[pg.users]]\nname = \"a\"\npassword = \"b\"\n";
    let config = load(&format!("{open}{users}"), &[], &[]).unwrap();
    assert_eq!(config.users.len(), 1);
    assert!(!format!("{config:?}").contains("\"b\""), "secrets stay out of logs");
    assert!(load("[pg]\ntls_cert = \"c\"\n", &[], &[]).is_err());
    assert_eq!(load("", &[("TIDEMILL_PG_USERS", "a:b,c:d:e")], &[]).unwrap().users[1].secret, "d:e");
}

#[test]
fn settings_have_different_names_everywhere() {
    for names in [
        SETTINGS.iter().map(Setting::flag).collect::<Vec<_>>(),
        SETTINGS.iter().map(Setting::environment).collect(),
        SETTINGS.iter().map(Setting::path).collect(),
    ] {
        assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), SETTINGS.len());
    }
    // Each one can be set: the catch-all of `set` would panic.
    for setting in SETTINGS {
        let _ = Config::default().set(setting, "1");
    }
}
