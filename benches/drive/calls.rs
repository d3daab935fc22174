//! How many calls a second of functions a query makes: of functions in WebAssembly, beside the same expression in SQL, and of models.
//!
//! The models are what STR-14 asks for, a linear one of four features and 100 boosted trees of depth 5 (`tests/tools/models.py` makes them); better is more rows a second, and 100,000 scores
//! a second are the least.

use std::{path::Path, time::Instant};

use crate::{BINARY, Options, support::server::Server};

const MODULE: &str = r#"(module
    (memory (export "memory") 1)
    (func (export "alloc") (param i32) (result i32) i32.const 1024)
    (func (export "fee") (param i64 i64) (result i64) (i64.add (i64.mul (local.get 0) (local.get 1)) (i64.const 7)))
    (func (export "half") (param f64) (result f64) (f64.mul (local.get 0) (f64.const 0.5)))
    (func (export "tail") (param i32 i32) (result i64)
        (i64.or (i64.shl (i64.extend_i32_u (local.get 0)) (i64.const 32)) (i64.extend_i32_u (local.get 1)))))"#;

/// One lane, so that what is told is of one core.
pub(crate) fn run(options: &Options) {
    let rows = options.number("rows", 5_000_000);
    let server = Server::start_with(&*BINARY, &["--query-lanes", "1"]);
    let path = std::env::temp_dir().join(format!("tidemill-calls-{}.wasm", std::process::id()));
    std::fs::write(&path, wat::parse_str(MODULE).unwrap()).unwrap();
    let file = path.display();
    server.sql(&format!("CREATE FUNCTION fee(BIGINT, BIGINT) RETURNS BIGINT LANGUAGE wasm AS '{file}'"));
    server.sql(&format!("CREATE FUNCTION half(DOUBLE PRECISION) RETURNS DOUBLE PRECISION LANGUAGE wasm AS '{file}'"));
    server.sql(&format!("CREATE FUNCTION tail(TEXT) RETURNS TEXT LANGUAGE wasm AS '{file}'"));
    std::fs::remove_file(&path).unwrap();
    for (name, model) in [("linear", "linear"), ("trees", "hundred_trees")] {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/models/{model}.onnx"));
        server.sql(&format!(
            "CREATE FUNCTION {name}(DOUBLE PRECISION, BIGINT, BIGINT, DOUBLE PRECISION) RETURNS REAL LANGUAGE model AS '{}'",
            file.display()
        ));
    }
    server.sql("CREATE TABLE t (a BIGINT, b BIGINT, x DOUBLE PRECISION, name TEXT)");
    server.sql(&format!("INSERT INTO t SELECT i, i % 100, i, 'name ' || i FROM generate_series(1, {rows}) AS s(i)"));
    server.sql("SELECT rt.seal('t')");
    for (what, sql) in [
        ("no call", "SELECT sum(a + b) FROM t"),
        ("a * b + 7", "SELECT sum(a * b + 7) FROM t"),
        ("fee(a, b)", "SELECT sum(fee(a, b)) FROM t"),
        ("half(x)", "SELECT sum(half(x)) FROM t"),
        ("WHERE fee(a, b) % 2 = 0", "SELECT count(*) FROM t WHERE fee(a, b) % 2 = 0"),
        ("length(name)", "SELECT sum(length(name)) FROM t"),
        ("length(tail(name))", "SELECT sum(length(tail(name))) FROM t"),
        ("linear(4 features)", "SELECT sum(linear(x / 300000, b % 24, b % 5, 1.5)) FROM t"),
        ("trees(4 features)", "SELECT sum(trees(x / 300000, b % 24, b % 5, 1.5)) FROM t"),
    ] {
        let best = (0..5).map(|_| {
            let begun = Instant::now();
            server.sql(sql);
            begun.elapsed().as_secs_f64()
        });
        let best = best.fold(f64::INFINITY, f64::min);
        println!("{what:24} {:8.1} ms {:8.1} M rows/s", best * 1e3, rows as f64 / best / 1e6);
    }
}
