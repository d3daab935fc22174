//! How soon a server with many segments answers after kill -9.

use std::time::Duration;

use crate::{BINARY, Options, support::server::Server};

pub(crate) fn run(options: &Options) {
    let rows = options.number("rows", 20_000_000);
    let segments = options.number("segments", 200);
    let mut server = Server::start(BINARY.as_str());
    server.sql(&format!(
        "CREATE SOURCE gen WITH (connector = 'generator', rate = '0', rows = '{rows}', partitions = '4')"
    ));
    server.sql(&format!(
        "CREATE TABLE orders WITH (time_column = 'ts', partitions = 4, seal_rows = {}) FROM SOURCE gen",
        rows / segments
    ));
    server.wait_for("SELECT count(*) FROM orders", &rows.to_string(), Duration::from_secs(900));
    server.sql("SELECT rt.seal('orders')");
    let segments = server.value("SELECT count(*) FROM rt.segments WHERE state = 'committed'");
    let mut times: Vec<f64> = (0..5).map(|_| server.kill_and_restart().as_secs_f64() * 1000.0).collect();
    assert_eq!(server.value("SELECT count(*) FROM orders"), rows.to_string());
    times.sort_by(f64::total_cmp);
    println!("start to first answer, {rows} rows in {segments} segments: median {:.0} ms (of {times:.0?})", times[2]);
}
