//! Models of machine learning as functions: scores beside onnxruntime's in queries and pipelines, kept over a kill, and what is refused.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use crate::support::server::Server;

const BINARY: &str = env!("CARGO_BIN_EXE_tidemill");
const PATIENCE: Duration = Duration::from_secs(30);
const ARGUMENTS: &str = "distance REAL, hour INT, passengers INT, surge REAL";

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/models").join(name)
}

/// `CREATE FUNCTION what LANGUAGE model AS 'name.onnx'`
fn create(what: &str, name: &str) -> String {
    format!("CREATE FUNCTION {what} LANGUAGE model AS '{}'", file(&format!("{name}.onnx")).display())
}

/// A reference as `(1, 8.9, 11, …)` for INSERT; an empty cell is NULL.
fn rows(name: &str) -> Vec<Vec<String>> {
    let text = fs::read_to_string(file(&format!("{name}.csv"))).unwrap();
    let cell = |cell: &str| if cell.is_empty() { "NULL".to_owned() } else { cell.to_owned() };
    text.lines().skip(1).map(|line| line.split(',').map(cell).collect()).collect()
}

fn refused(server: &Server, sql: &str) -> (String, String, String) {
    let error = server.try_sql(sql).expect_err(sql);
    let error = error.as_db_error().expect("an error of the server").clone();
    (error.code().code().to_owned(), error.message().to_owned(), error.hint().unwrap_or_default().to_owned())
}

fn lines(server: &Server, sql: &str) -> Vec<String> {
    let text = |row: Vec<Option<String>>| {
        row.into_iter().map(|cell| cell.unwrap_or_else(|| "null".into())).collect::<Vec<_>>().join(" ")
    };
    server.sql(sql).into_iter().map(text).collect()
}

/// Rides with what onnxruntime says of them, in sealed rows and in others.
fn with_rides(server: &Server, name: &str) {
    server.sql(&format!("CREATE TABLE {name} (id BIGINT, distance REAL, hour INT, passengers INT, surge REAL, wanted TEXT, share DOUBLE PRECISION)"));
    for (at, row) in rows(name).iter().enumerate() {
        let share = row.get(6).map_or("NULL", String::as_str);
        let values = format!("{at}, {}, '{}', {share}", row[..4].join(", "), row[4]);
        server.sql(&format!("INSERT INTO {name} VALUES ({values})"));
        if at == 25 {
            server.sql(&format!("SELECT rt.seal('{name}')"));
        }
    }
}

#[test]
fn rides_are_scored_as_elsewhere_and_a_model_outlives_a_kill() {
    let mut server = Server::start(BINARY);
    for name in ["boosted", "lightgbm", "forest_binary", "logistic_kinds"] {
        with_rides(&server, name);
    }
    // The file may go: it was copied.
    let copy = std::env::temp_dir().join(format!("tidemill-boosted-{}.onnx", std::process::id()));
    fs::copy(file("boosted.onnx"), &copy).unwrap();
    server.sql(&format!(
        "CREATE FUNCTION fare({ARGUMENTS}) RETURNS DOUBLE PRECISION LANGUAGE model AS '{}'",
        copy.display()
    ));
    fs::remove_file(copy).unwrap();
    let digits: String = fs::read(file("lightgbm.onnx")).unwrap().iter().map(|byte| format!("{byte:02x}")).collect();
    server.sql(&format!("CREATE FUNCTION guess(REAL, REAL, REAL, REAL) RETURNS REAL CALLED ON NULL INPUT IMMUTABLE LANGUAGE 'model' AS '\\x{digits}'"));
    server.sql(&create(&format!("strict({ARGUMENTS}) RETURNS REAL"), "lightgbm"));
    server.sql(&create(&format!("is_dear({ARGUMENTS}) RETURNS BOOLEAN STRICT"), "forest_binary"));
    server.sql(&create(&format!("kind({ARGUMENTS}) RETURNS TEXT"), "logistic_kinds"));
    server.sql(&format!(
        "{}, 'probabilities'",
        create(&format!("shares({ARGUMENTS}) RETURNS DOUBLE PRECISION[]"), "forest_binary")
    ));
    let close = |call: &str, table: &str| {
        format!(
            "SELECT count(*), sum(({call} IS NULL)::int) FROM {table} WHERE {call} IS NULL OR abs({call} - wanted::float8) <= 1e-5 * abs(wanted::float8)"
        )
    };
    for round in 0..2 {
        let four = "(distance, hour, passengers, surge)";
        assert_eq!(lines(&server, &close(&format!("fare{four}"), "boosted")), ["40 0"]);
        // Where a value is missing the trees know a way; a strict function has no answer.
        assert_eq!(lines(&server, &close(&format!("guess{four}"), "lightgbm")), ["40 0"]);
        let missing = server.value("SELECT count(*) FROM lightgbm WHERE distance + hour + passengers + surge IS NULL");
        assert!(missing.parse::<u32>().unwrap() > 5, "{missing}");
        assert_eq!(lines(&server, &close(&format!("strict{four}"), "lightgbm")), [format!("40 {missing}")]);
        assert_eq!(
            lines(&server, "SELECT count(*), count(DISTINCT shares(distance, hour, passengers, surge)) > 5 FROM forest_binary
                WHERE is_dear(distance, hour, passengers, surge) = (wanted = '1') AND abs((shares(distance, hour, passengers, surge))[2] - share) < 1e-5"),
            ["40 t"]
        );
        assert_eq!(
            lines(
                &server,
                "SELECT kind(distance, hour, passengers, surge) AS kind, count(*) > 3, sum((wanted <> kind(distance, hour, passengers, surge))::int) FROM logistic_kinds GROUP BY kind ORDER BY kind"
            ),
            ["long t 0", "middle t 0", "short t 0"]
        );
        assert_eq!(
            lines(
                &server,
                "SELECT round(fare(8.901408, 11, 4, 1.6312226)::numeric, 3), fare(NULL, 11, 4, 1), guess(NULL, NULL, NULL, NULL) IS NULL, cardinality(shares(1, 2, 3, 1))"
            ),
            ["26.031 null f 2"]
        );
        assert_eq!(
            lines(
                &server,
                "SELECT id FROM boosted WHERE fare(distance, hour, passengers, surge) > 20 EXCEPT SELECT id FROM boosted WHERE wanted::float8 > 20"
            ),
            [""; 0]
        );
        assert_eq!(
            lines(
                &server,
                "SELECT is_dear(distance, hour, passengers, surge) AS d, count(*) FROM forest_binary GROUP BY 1 ORDER BY 1"
            ),
            lines(&server, "SELECT wanted = '1' AS d, count(*) FROM forest_binary GROUP BY 1 ORDER BY 1"),
        );
        assert_eq!(
            lines(
                &server,
                "SELECT name, returns, language, symbol, path IS NULL, error FROM rt.functions ORDER BY name"
            ),
            [
                "fare double precision model variable f null",
                "guess real model variable t null",
                "is_dear boolean model label f null",
                "kind text model output_label f null",
                "shares double precision[] model probabilities f null",
                "strict real model variable f null",
            ]
        );
        if round == 0 {
            server.kill_and_restart();
        }
    }
    assert_eq!(
        lines(
            &server,
            "SELECT p.proname, l.lanname, p.proisstrict, pg_get_function_result(p.oid) FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang WHERE proname IN ('guess', 'strict') ORDER BY 1"
        ),
        ["guess model f real", "strict model t real"]
    );
    // Another body, of the other language; what the old one was is not kept.
    let replace =
        create(&format!("fare({ARGUMENTS}) RETURNS DOUBLE PRECISION"), "linear").replace("CREATE", "CREATE OR REPLACE");
    server.sql(&replace);
    assert_eq!(
        lines(
            &server,
            "SELECT count(*) FROM boosted WHERE abs(fare(distance, hour, passengers, surge) - wanted::float8) <= 1e-5"
        ),
        ["0"]
    );
    server.sql("DROP FUNCTION guess, strict, is_dear, kind, shares");
    assert_eq!(refused(&server, "SELECT guess(1, 2, 3, 4)").0, "42883");
    let kept: Vec<String> = fs::read_dir(server.data_dir.join("functions"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert!(kept.len() == 1 && kept[0].ends_with(".onnx"), "{kept:?}");
    server.kill_and_restart();
    assert_eq!(server.value("SELECT fare(1, 2, 3, 1) > 0"), "t");
}

/// What is refused, and that the message says what the model has.
#[test]
fn what_is_no_model_is_refused_with_what_to_do() {
    let server = Server::start(BINARY);
    let damaged = std::env::temp_dir().join(format!("tidemill-damaged-{}.onnx", std::process::id()));
    let bytes = fs::read(file("boosted.onnx")).unwrap();
    fs::write(&damaged, &bytes[..bytes.len() / 2]).unwrap();
    let huge = std::env::temp_dir().join(format!("tidemill-huge-{}.onnx", std::process::id()));
    fs::File::create(&huge).unwrap().set_len(17 << 20).unwrap();
    for (what, path, state, message, hint) in [
        (
            "f(REAL, REAL) RETURNS REAL",
            file("linear.onnx"),
            "42P13",
            "the model takes features float [N, 4], and the function has 2 arguments",
            "in the model's order",
        ),
        (
            "f(REAL, REAL, REAL, TEXT) RETURNS REAL",
            file("linear.onnx"),
            "42P13",
            "argument 4 is text",
            "double precision",
        ),
        (
            "f(REAL, REAL, REAL, REAL) RETURNS BIGINT",
            file("linear.onnx"),
            "42P13",
            "gives variable float [N, 1], and the function returns bigint",
            "\"variable\" is double precision",
        ),
        (
            "f(REAL, REAL, REAL, REAL) RETURNS REAL",
            file("forest_classes.onnx"),
            "42P13",
            "output_probability float [N, 3]",
            "\"output_label\" is text",
        ),
        (
            "f(REAL, INT, TEXT) RETURNS REAL CALLED ON NULL INPUT",
            file("columns.onnx"),
            "42P13",
            "\"hour\" of the model is of int64, which has no NaN",
            "CALLED ON NULL INPUT",
        ),
        ("f(REAL, REAL, REAL, REAL) RETURNS REAL", file("vectors.onnx"), "42P13", "\"SVMRegressor\"", "docs/sql.md"),
        ("f(REAL, REAL, REAL, REAL) RETURNS REAL", damaged.clone(), "42P13", "no ONNX model", "skl2onnx"),
        ("f(REAL, REAL, REAL, REAL) RETURNS REAL", huge.clone(), "54000", "16777216 are the most", ""),
        ("f(REAL) RETURNS REAL", "/etc/passwd".into(), "42P13", "no ONNX model", "ONNX format"),
        ("f(REAL) RETURNS REAL", "/nowhere/x.onnx".into(), "58P01", "/nowhere/x.onnx", ""),
    ] {
        let sql = format!("CREATE FUNCTION {what} LANGUAGE model AS '{}'", path.display());
        let (code, found, found_hint) = refused(&server, &sql);
        assert!(
            code == state && found.contains(message) && found_hint.contains(hint),
            "{sql}: {code} {found}; {found_hint}"
        );
    }
    let (code, message, hint) = refused(&server, "CREATE FUNCTION f(REAL) RETURNS REAL LANGUAGE onnx AS 'x'");
    assert!(
        code == "42704"
            && message.contains("\"onnx\"")
            && hint.contains("LANGUAGE wasm")
            && hint.contains("LANGUAGE model"),
        "{hint}"
    );
    let (code, message, hint) =
        refused(&server, &format!("{}, 'fare'", create("f(REAL, REAL, REAL, REAL) RETURNS REAL", "linear")));
    assert!(
        code == "42P13" && message.contains("no output \"fare\"") && hint.contains("variable float [N, 1]"),
        "{message} {hint}"
    );
    assert_eq!(server.value("SELECT count(*) FROM rt.functions"), "0");
    assert_eq!(fs::read_dir(server.data_dir.join("functions")).unwrap().count(), 0);
    fs::remove_file(damaged).unwrap();
    fs::remove_file(huge).unwrap();
}

/// A pipeline scores what comes in; a row that the model fails for is a dead letter, as one that SQL cannot compute. After a kill no row is there twice.
#[test]
fn a_pipeline_scores_rows_and_sets_aside_those_that_fail() {
    let mut server = Server::start(BINARY);
    let folder = server.data_dir.with_extension("rides");
    fs::create_dir_all(&folder).unwrap();
    let references = rows("lightgbm");
    let ride = |(at, row): (usize, &Vec<String>)| {
        let cells = row.iter().map(|cell| if cell == "NULL" { "null" } else { cell }).collect::<Vec<_>>();
        format!(
            r#"{{"id":{at},"distance":{},"hour":{},"passengers":{},"surge":{},"wanted":{},"place":{}}}"#,
            cells[0],
            cells[1],
            cells[2],
            cells[3],
            cells[4],
            at % 8
        )
    };
    let text: Vec<String> = references.iter().enumerate().map(ride).collect();
    fs::write(folder.join("rides.ndjson"), text.join("\n") + "\n").unwrap();
    server.sql(&create(&format!("guess({ARGUMENTS}) RETURNS DOUBLE PRECISION CALLED ON NULL INPUT"), "lightgbm"));
    server.sql(&create("lookup(place BIGINT) RETURNS REAL", "lookup"));
    assert_eq!(server.value("SELECT lookup(4)"), "4.5");
    let (code, message, _) = refused(&server, "SELECT lookup(7)");
    assert!(code == "38000" && message.contains("lookup()"), "{code} {message}");
    server.sql(&format!(
        "CREATE SOURCE rides (id BIGINT, distance REAL, hour INT, passengers INT, surge REAL, wanted DOUBLE PRECISION, place BIGINT) WITH (connector = 'file', path = '{}', format = 'ndjson')",
        folder.join("rides.ndjson").display()
    ));
    server.sql("CREATE TABLE scored (id BIGINT, wanted DOUBLE PRECISION, fare DOUBLE PRECISION)");
    server.sql("CREATE TABLE placed (id BIGINT, value REAL)");
    server.sql("CREATE PIPELINE scored INTO scored AS SELECT id, wanted, guess(distance, hour, passengers, surge) FROM rides WHERE guess(distance, hour, passengers, surge) > 0");
    server.sql("CREATE PIPELINE placed INTO placed AS SELECT id, lookup(place) FROM rides");
    server.wait_for("SELECT count(*) FROM scored", "40", PATIENCE);
    let close =
        "SELECT count(DISTINCT id) || ' ' || count(*) FROM scored WHERE abs(fare - wanted) <= 1e-5 * abs(wanted)";
    assert_eq!(server.value(close), "40 40");
    // Places 5, 6 and 7 of the eight are not there.
    server.wait_for("SELECT count(*) FROM placed", "25", PATIENCE);
    server.wait_for("SELECT count(*) FROM rt.dlq WHERE reason LIKE 'function lookup() failed%'", "15", PATIENCE);
    assert_eq!(refused(&server, "DROP FUNCTION guess").0, "2BP01");
    let replace = create(&format!("guess({ARGUMENTS}) RETURNS DOUBLE PRECISION"), "linear")
        .replace("CREATE", "CREATE OR REPLACE");
    assert_eq!(refused(&server, &replace).0, "2BP01");
    server.kill_and_restart();
    // What no checkpoint has is computed again.
    server.wait_for(close, "40 40", PATIENCE);
    server.wait_for("SELECT count(DISTINCT id) || ' ' || count(*) FROM placed", "25 25", PATIENCE);
    server.sql("DROP FUNCTION guess CASCADE");
    assert_eq!(lines(&server, "SELECT name FROM rt.pipelines"), ["placed"]);
    fs::remove_dir_all(folder).unwrap();
}
