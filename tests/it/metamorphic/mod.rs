//! Random queries over random rows have one answer: whether rows are consuming, sealed or sealed under older schemas, with any use of indexes and star-trees, with
//! aggregation in the segment or above it, and in PostgreSQL.
//!
//! `TIDEMILL_TEST_METAMORPHIC_SEED` chooses other rows and queries, `TIDEMILL_TEST_METAMORPHIC_QUERIES` how many. Queries of two kinds check themselves: one
//! counts the rows for which a condition is true, false and unknown, the other compares WHERE with CASE.

mod data;
mod queries;

use std::{env, thread, time::Duration};

use rand::{SeedableRng, rngs::StdRng};
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

use crate::support::server::{Server, connect, runtime};

const ROWS: usize = 1500;
/// Each is asked of six forms of the table: over 20,000 queries.
const QUERIES: usize = 3_400;

/// A table, and how it is asked.
struct Side {
    name: &'static str,
    table: &'static str,
    settings: &'static str,
}

const SIDES: [Side; 6] = [
    Side {
        name: "consuming, plain",
        table: "m_consuming",
        settings: "SET rt.use_indexes = off; SET rt.aggregate_in_segment = off",
    },
    Side { name: "consuming", table: "m_consuming", settings: "SET rt.use_indexes = always" },
    Side {
        name: "sealed, plain scans",
        table: "m_sealed",
        settings: "SET rt.use_indexes = off; SET rt.use_star_tree = off",
    },
    Side { name: "sealed, all indexes and star-trees", table: "m_sealed", settings: "SET rt.use_indexes = always" },
    Side { name: "sealed, aggregation above", table: "m_sealed", settings: "SET rt.aggregate_in_segment = off" },
    Side {
        name: "mixed schemas, all indexes and star-trees",
        table: "m_mixed",
        settings: "SET rt.use_indexes = always",
    },
];

/// Rows as text, sorted; or the SQLSTATE.
type Answer = Result<Vec<String>, String>;

fn number(name: &str, otherwise: usize) -> usize {
    env::var(name).map_or(otherwise, |text| text.parse().expect("a number"))
}

/// Asks all queries on one connection.
fn answers(connect: impl AsyncFnOnce() -> Client, settings: &str, table: &str, queries: &[String]) -> Vec<Answer> {
    runtime().block_on(async {
        let client = connect().await;
        client.batch_execute(&format!("SET TimeZone = 'UTC'; {settings}")).await.expect("settings");
        let mut all = Vec::with_capacity(queries.len());
        for query in queries {
            let query = query.replace("{t}", table);
            let answer = tokio::time::timeout(Duration::from_secs(60), client.simple_query(&query))
                .await
                .expect("an answer within 60 s");
            all.push(match answer {
                Ok(messages) => {
                    let mut rows: Vec<String> = messages
                        .iter()
                        .filter_map(|message| match message {
                            SimpleQueryMessage::Row(row) => Some(
                                (0..row.len()).map(|at| row.get(at).unwrap_or("NULL")).collect::<Vec<_>>().join(" | "),
                            ),
                            _ => None,
                        })
                        .collect();
                    rows.sort_unstable();
                    Ok(rows)
                }
                Err(error) => Err(error.as_db_error().map_or_else(
                    || error.to_string(),
                    |error| format!("{}: {}", error.code().code(), error.message()),
                )),
            });
        }
        all
    })
}

/// The tables of the server; `rows` are in each.
fn fill(server: &Server, rows: &[String], rng: &mut StdRng) {
    server.sql(&data::create("m_consuming", ""));
    server.sql(&data::insert("m_consuming", rows));

    server.sql(&data::create("m_sealed", "WITH (seal_rows = 300)"));
    server.sql("CREATE INDEX ON m_sealed USING sorted (city, n)");
    for some in rows.chunks(300) {
        server.sql(&data::insert("m_sealed", some));
    }
    server.sql("SELECT rt.seal('m_sealed')");

    // One column narrower and one missing in the older segments, some rows consuming, indexes made in between.
    let narrow = data::create("m_mixed", "").replace("s INT,", "s SMALLINT,").replace(", late TEXT", "");
    server.sql(&narrow);
    server.sql("CREATE INDEX ON m_mixed USING sorted (s)");
    let (old, new) = rows.split_at(rows.len() / 2);
    let shorter: Vec<String> = old.iter().map(|row| row.replace(",'old')", ")")).collect();
    for some in shorter.chunks(250) {
        server.sql(&data::insert("m_mixed", some));
        server.sql("SELECT rt.seal('m_mixed')");
    }
    index(server, "m_mixed", &["s", "city", "word", "l"]);
    server.sql("ALTER TABLE m_mixed ALTER COLUMN s TYPE INT");
    server.sql("ALTER TABLE m_mixed ADD COLUMN late TEXT DEFAULT 'old'");
    server.sql(&data::insert("m_mixed", &new[..new.len() / 2]));
    server.sql("SELECT rt.seal('m_mixed')");
    server.sql(&data::insert("m_mixed", &new[new.len() / 2..]));
    index(server, "m_mixed", &["i", "n", "at", "d", "u", "r", "late"]);

    index(server, "m_sealed", &["s", "i", "l", "n", "r", "city", "word", "d", "at", "u", "late"]);
    server.sql("CREATE INDEX ON m_sealed USING json (doc)");
    // Of parts of the documents, as drawn: other seeds draw others.
    for _ in 0..2 {
        let options = data::json_options(rng);
        server.sql(&format!("CREATE INDEX ON m_mixed USING json (doc) {options}"));
    }
    for table in ["m_sealed", "m_mixed"] {
        server.sql(&format!("CREATE INDEX ON {table} USING text (city)"));
        server.sql(&format!("CREATE INDEX ON {table} USING text (late)"));
    }
    star_trees(server, "m_sealed");
    star_trees(server, "m_mixed");
    server.wait_for("SELECT bool_and(state = 'ready') FROM rt.indexes", "t", Duration::from_secs(120));
    let plan = server.sql("EXPLAIN SELECT city, count(*), avg(r) FROM m_sealed WHERE b GROUP BY city");
    assert!(
        plan.iter().flatten().flatten().any(|line| line.contains("star_tree=m_sealed_star_tree (5 of")),
        "{plan:?}"
    );
}

/// Trees for what random queries group by and ask for.
fn star_trees(server: &Server, table: &str) {
    for tree in [
        "(city, b) AGGREGATE (count(*), avg(s), sum(i), avg(n), min(n), max(l), avg(r), min(word), max(at), bool_or(b)) WITH (max_leaf_records = 5)",
        "(s, date_trunc('day', at)) AGGREGATE (count(*), sum(l), avg(n), max(city), min(d), count(u), max(r), avg(i)) WITH (max_leaf_records = 1)",
        "(b, late, s) AGGREGATE (count(*), sum(s), avg(l), avg(i), avg(n), avg(r), min(i), max(n), count(word), count(city))",
    ] {
        server.sql(&format!("CREATE INDEX ON {table} USING star_tree {tree}"));
    }
}

fn index(server: &Server, table: &str, columns: &[&str]) {
    for column in columns {
        server.sql(&format!("CREATE INDEX ON {table} USING inverted ({column})"));
        server.sql(&format!("CREATE INDEX ON {table} USING bloom ({column})"));
        if !["city", "word", "late", "u"].contains(column) {
            server.sql(&format!("CREATE INDEX ON {table} USING range ({column})"));
        }
    }
}

fn postgres(rows: &[String], queries: &[String]) -> Option<Vec<Answer>> {
    let Ok(address) = env::var("TIDEMILL_TEST_POSTGRES") else {
        println!("SKIPPED metamorphic, compared with PostgreSQL: set TIDEMILL_TEST_POSTGRES, or use tests/run");
        return None;
    };
    let (host, port) = address.split_once(':').expect("TIDEMILL_TEST_POSTGRES is host:port");
    let connect = async || {
        let (client, connection) = tokio_postgres::Config::new()
            .host(host)
            .port(port.parse().expect("a port"))
            .user("postgres")
            .dbname("postgres")
            .connect(NoTls)
            .await
            .expect("PostgreSQL answers");
        tokio::spawn(connection);
        let (create, insert) = (data::create("pg_temp.m", ""), data::insert("pg_temp.m", rows));
        client.batch_execute(&format!("{create}; {insert}")).await.expect("rows in PostgreSQL");
        client
    };
    Some(answers(connect, "", "pg_temp.m", queries))
}

#[test]
fn all_forms_of_a_table_give_one_answer() {
    let seed = number("TIDEMILL_TEST_METAMORPHIC_SEED", 20_261_121) as u64;
    let count = number("TIDEMILL_TEST_METAMORPHIC_QUERIES", QUERIES);
    println!("metamorphic: seed {seed}, {count} queries of {} forms", SIDES.len());
    let mut rng = StdRng::seed_from_u64(seed);
    let rows = data::rows(ROWS, &mut rng);
    let queries: Vec<String> = (0..count).map(|_| queries::query(&mut rng)).collect();

    let server = Server::start(env!("CARGO_BIN_EXE_tidemill"));
    fill(&server, &rows, &mut rng);
    let port = server.pg_port;
    let (all, postgres) = thread::scope(|scope| {
        let queries = &queries;
        let sides: Vec<_> = SIDES
            .iter()
            .map(|side| {
                let connect = async move || connect(port).await.expect("a connection");
                scope.spawn(move || answers(connect, side.settings, side.table, queries))
            })
            .collect();
        let postgres = scope.spawn(|| postgres(&rows, queries));
        let all: Vec<Vec<Answer>> = sides.into_iter().map(|side| side.join().expect("answers")).collect();
        (all, postgres.join().expect("answers of PostgreSQL"))
    });

    let reference = postgres.as_ref().unwrap_or(&all[0]);
    let mut differences = Vec::new();
    for (at, query) in queries.iter().enumerate() {
        let others: Vec<_> =
            SIDES.iter().zip(&all).filter(|(_, answers)| !same(&answers[at], &reference[at])).collect();
        let Some((side, answers)) = others.first() else { continue };
        let names: Vec<_> = others.iter().map(|(side, _)| side.name).collect();
        differences.push(format!(
            "{names:?}:\n{}; {};\n  is {}\n  not {}",
            side.settings,
            query.replace("{t}", side.table),
            shortened(&answers[at], &reference[at]),
            shortened(&reference[at], &answers[at])
        ));
    }
    let failed = reference.iter().filter(|answer| answer.is_err()).count();
    println!("metamorphic: {} answers; {failed} of {count} queries are errors", count * SIDES.len());
    assert!(failed * 50 < count, "{failed} of {count} queries are errors: {:?}", reference.iter().find(|a| a.is_err()));
    assert!(
        differences.is_empty(),
        "seed {seed}: the answers to {} of {count} queries differ\n\n{}",
        differences.len(),
        differences[..differences.len().min(30)].join("\n\n")
    );
}

fn same(answer: &Answer, wanted: &Answer) -> bool {
    match (answer, wanted) {
        (Ok(answer), Ok(wanted)) => answer == wanted,
        // The words of errors may differ.
        (Err(error), Err(wanted)) => error.get(..5) == wanted.get(..5),
        _ => false,
    }
}

/// The rows of one answer that the other has not, and how many there are.
fn shortened(answer: &Answer, other: &Answer) -> String {
    match (answer, other) {
        (Ok(rows), Ok(others)) => {
            let own: Vec<_> = rows.iter().filter(|row| !others.contains(row)).take(4).collect();
            format!("{} rows, among them {own:?}", rows.len())
        }
        (Ok(rows), Err(_)) => format!("{} rows: {:?}", rows.len(), rows.iter().take(4).collect::<Vec<_>>()),
        (Err(error), _) => error.clone(),
    }
}
