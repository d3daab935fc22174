//! `tidemill quickstart`: a demo stream, and the lines that lead a newcomer to it.

use std::sync::Arc;

use super::{Error, instance::Instance};

/// Rows a second.
const RATE: u32 = 1_000;

/// Creates the demo's source and table unless they are there.
pub(super) async fn begin(instance: &Arc<Instance>) -> Result<(), Error> {
    let statements = [
        format!("CREATE SOURCE IF NOT EXISTS demo WITH (connector = 'generator', rate = {RATE})"),
        "CREATE TABLE IF NOT EXISTS orders WITH (time_column = 'ts', retention = '7 days') FROM SOURCE demo".into(),
    ];
    for statement in &statements {
        crate::ddl::execute(instance, statement)
            .await
            .map_err(|error| Error(format!("cannot set the demo up: {error} in {statement}")))?;
    }
    Ok(())
}

/// What a newcomer reads.
pub(super) fn welcome(instance: &Instance) -> String {
    let config = &instance.config;
    let (host, port) = (config.pg_listen.ip(), config.pg_listen.port());
    format!(
        "
  Tidemill {version} is running. {RATE} orders a second arrive in the table \"orders\".

    psql      psql -h {host} -p {port} -U tidemill
    console   http://{http}/
    data      {data}

  A first query:

    SELECT status, count(*), round(avg(total_price)::numeric, 2) AS average
    FROM orders GROUP BY status ORDER BY 2 DESC;

  Ctrl-C stops the server; the data stays.

",
        version = env!("CARGO_PKG_VERSION"),
        http = config.http_listen,
        data = instance.directory.path().display(),
    )
}
