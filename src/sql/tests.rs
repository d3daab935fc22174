use proptest::prelude::*;
use tidemill_storage::schema::{Compression, DataType};

use super::{
    ast::{AlterAction, CreateSource, CreateTable, ObjectKind, TableQuery},
    *,
};
use crate::session::error::state;

fn one(sql: &str) -> Ddl {
    let mut statements = parse(sql).unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    assert_eq!(statements.len(), 1, "{sql}");
    match statements.remove(0).kind {
        StatementKind::Ddl(ddl) => *ddl,
        other => panic!("{sql} is not ours: {other:?}"),
    }
}

fn source(sql: &str) -> CreateSource {
    match one(sql) {
        Ddl::CreateSource(source) => source,
        other => panic!("{other:?}"),
    }
}

fn table(sql: &str) -> CreateTable {
    match one(sql) {
        Ddl::CreateTable(table) => table,
        other => panic!("{other:?}"),
    }
}

fn refused(sql: &str) -> SqlError {
    match parse(sql) {
        Err(error) => error,
        Ok(statements) => panic!("{sql} was accepted: {statements:?}"),
    }
}

#[test]
fn a_source_has_columns_watermark_checks_and_options() {
    let source = source(
        "CREATE SOURCE IF NOT EXISTS public.Orders_Raw (\n  order_id BIGINT NOT NULL, \"City\" TEXT PATH '$.place.city', price DOUBLE PRECISION DEFAULT 0.5 NOT NULL,
           ts TIMESTAMPTZ EPOCH 'ms', tags TEXT[], amount NUMERIC(12,2),
           WATERMARK FOR ts AS ts - INTERVAL '2 seconds',
           CONSTRAINT price_ok CHECK (price >= 0 AND (price < 10)), CHECK (order_id > 0))
         WITH (connector = 'kafka', 'brokers' = '127.0.0.1:9092', \"topic\" = 't', properties.bootstrap.servers = 'x', partitions = 4, on_error = dlq)",
    );
    assert!(source.if_not_exists);
    assert_eq!(source.name.value, "orders_raw");
    let columns = source.columns.iter().map(|c| (c.name.value.as_str(), c.data_type.to_string())).collect::<Vec<_>>();
    assert_eq!(
        columns,
        [
            ("order_id", "bigint".into()),
            ("City", "text".into()),
            ("price", "double precision".into()),
            ("ts", "timestamp with time zone".into()),
            ("tags", "text[]".into()),
            ("amount", "numeric(12,2)".to_owned()),
        ]
    );
    assert_eq!(source.columns[1].path.as_deref(), Some("$.place.city"));
    assert!(source.columns[2].not_null && source.columns[2].default.is_some());
    assert_eq!(source.columns[3].epoch.as_deref(), Some("ms"));
    assert_eq!(source.watermark.unwrap().expression, "ts - INTERVAL '2 seconds'");
    let checks = source.checks.iter().map(|c| (c.name.as_deref(), c.expression.as_str())).collect::<Vec<_>>();
    assert_eq!(checks, [(Some("price_ok"), "price >= 0 AND (price < 10)"), (None, "order_id > 0")]);
    let options = source.options.iter().map(|o| (o.key.value.as_str(), o.value.as_str())).collect::<Vec<_>>();
    assert_eq!(
        options,
        [
            ("connector", "kafka"),
            ("brokers", "127.0.0.1:9092"),
            ("topic", "t"),
            ("properties.bootstrap.servers", "x"),
            ("partitions", "4"),
            ("on_error", "dlq")
        ]
    );
}

#[test]
fn flink_s_spelling_makes_a_source() {
    let source = source(
        "CREATE TABLE orders (id BIGINT, name STRING, price DOUBLE, ts TIMESTAMP(3), at TIMESTAMP_LTZ(3), list ARRAY<STRING>,
           WATERMARK FOR ts AS ts - INTERVAL '5' SECOND)
         WITH ('connector' = 'kafka', 'topic' = 'orders', 'properties.bootstrap.servers' = 'localhost:9092', 'format' = 'json')",
    );
    let types = source.columns.iter().map(|c| c.data_type.clone()).collect::<Vec<_>>();
    assert_eq!(
        types,
        [
            DataType::BigInt,
            DataType::Text,
            DataType::Double,
            DataType::Timestamp,
            DataType::TimestampTz,
            DataType::Array(Box::new(DataType::Text))
        ]
    );
    assert!(source.watermark.is_some());
}

#[test]
fn a_sink_of_pinot_is_a_plain_table() {
    let table = table(
        "CREATE TABLE sink (city STRING, total DOUBLE) WITH ('connector' = 'pinot', 'table-name' = 'sales', \
         'controller.url' = 'http://pinot:9000', 'seal_rows' = '1000')",
    );
    assert_eq!(table.ignored, ["table-name", "controller.url"]);
    assert_eq!(table.options.iter().map(|pair| pair.key.value.as_str()).collect::<Vec<_>>(), ["seal_rows"]);
    assert!(table.sources.is_empty());
}

#[test]
fn a_table_takes_rows_from_sources_and_changes_them() {
    let table = table(
        "CREATE TABLE t (a INT, b TEXT) WITH (mode = 'append') FROM SOURCES (x, y)
         AS SELECT *, lower(city) AS city, extract(epoch FROM ts) AS e, a IS DISTINCT FROM b AS d WHERE price > 0 -- ok",
    );
    assert_eq!(table.sources.iter().map(|s| s.value.as_str()).collect::<Vec<_>>(), ["x", "y"]);
    let TableQuery::Transform(transform) = table.query else { panic!("{:?}", table.query) };
    assert_eq!(transform.select, "*, lower(city) AS city, extract(epoch FROM ts) AS e, a IS DISTINCT FROM b AS d");
    assert_eq!(transform.filter.as_deref(), Some("price > 0"));
    assert!(matches!(self::table("CREATE TABLE t AS SELECT 1 AS a").query, TableQuery::Contents(_)));
    assert!(self::table("CREATE TABLE t FROM SOURCE s").columns.is_empty());
    assert_eq!(self::table("CREATE TABLE t (a INT PRIMARY KEY, b INT)").primary_key[0].value, "a");
    let refused = refused("CREATE TABLE t FROM SOURCE s AS SELECT a FROM s");
    assert_eq!((refused.state, refused.position), (state::FEATURE_NOT_SUPPORTED, Some(42)));
}

#[test]
fn tables_are_altered_and_dropped() {
    let Ddl::AlterTable(alter) = one(
        "ALTER TABLE IF EXISTS t ADD COLUMN IF NOT EXISTS c INT DEFAULT 0, DROP d, RENAME COLUMN a TO b, ALTER COLUMN c TYPE BIGINT,
         ALTER e SET DATA TYPE NUMERIC, SET (retention = '7 days'), PAUSE INGESTION, RESUME INGESTION, RENAME TO u",
    ) else {
        panic!()
    };
    assert!(alter.if_exists);
    assert_eq!(alter.actions.len(), 9);
    assert!(matches!(
        &alter.actions[4],
        AlterAction::SetType { data_type: DataType::Numeric { precision: 38, scale: 9 }, .. }
    ));
    let Ddl::Drop(drop) = one("DROP SOURCE IF EXISTS a, b CASCADE") else { panic!() };
    assert_eq!((drop.kind, drop.names.len(), drop.if_exists, drop.cascade), (ObjectKind::Source, 2, true, true));
}

#[test]
fn everything_else_is_left_to_sqlparser() {
    let sql = "SELECT 1; ;  insert into t values (1); COPY t FROM STDIN WITH (FORMAT csv);copy (select 1) to stdout;";
    let statements = parse(sql).unwrap();
    assert_eq!(statements.len(), 4);
    assert!(statements.iter().all(|statement| matches!(statement.kind, StatementKind::Other(_))));
    assert_eq!(&sql[statements[1].span.clone()], "insert into t values (1)");
    assert_eq!(&sql[statements[2].span.clone()], "COPY t FROM STDIN WITH (FORMAT csv)");
    assert!(parse(" ; -- nothing\n /* at all */ ").unwrap().is_empty());
}

#[test]
fn errors_have_states_and_positions() {
    for (sql, state, position) in [
        ("SELEC 1", state::SYNTAX_ERROR, Some(1)),
        ("SELECT 1 +", state::SYNTAX_ERROR, Some(11)),
        ("SELECT 1;\n\nSELECT é FROM t WHERE )", state::SYNTAX_ERROR, Some(34)),
        ("CREATE TABLE t (a INTT)", state::UNDEFINED_OBJECT, Some(19)),
        ("CREATE TABLE t (a INT, )", state::SYNTAX_ERROR, Some(24)),
        ("CREATE TABLE t", state::SYNTAX_ERROR, Some(15)),
        ("CREATE TABLE s.t (a INT)", state::INVALID_SCHEMA_NAME, Some(14)),
        ("CREATE TABLE t (a NUMERIC(40))", state::INVALID_PARAMETER_VALUE, Some(19)),
        ("CREATE TABLE t (a INT[][])", state::FEATURE_NOT_SUPPORTED, Some(19)),
        ("CREATE TABLE t (a INT DEFAULT 1 +)", state::SYNTAX_ERROR, None),
        ("CREATE TEMP TABLE t (a INT)", state::FEATURE_NOT_SUPPORTED, Some(8)),
        ("CREATE SINK p AS SELECT 1", state::SYNTAX_ERROR, Some(15)),
        ("CREATE SINK p (a INT, PRIMARY KEY (a)) WITH (x = 1)", state::SYNTAX_ERROR, Some(15)),
        ("CREATE OR REPLACE SINK p WITH (x = 1)", state::FEATURE_NOT_SUPPORTED, Some(8)),
        ("CREATE PIPELINE p AS SELECT 1", state::SYNTAX_ERROR, Some(19)),
        ("CREATE PIPELINE p INTO SINK AS", state::SYNTAX_ERROR, None),
        ("CREATE SOURCE s (a INT)", state::SYNTAX_ERROR, Some(24)),
        ("CREATE SOURCE s (a INT) WITH (x = 1, x = 2)", state::SYNTAX_ERROR, Some(38)),
        ("DROP TABLE", state::SYNTAX_ERROR, Some(11)),
        ("ALTER TABLE t FROB", state::SYNTAX_ERROR, Some(15)),
        ("SELECT 'abc", state::SYNTAX_ERROR, Some(8)),
    ] {
        let error = refused(sql);
        assert_eq!(error.state, state, "{sql}: {error:?}");
        if position.is_some() {
            assert_eq!(error.position, position, "{sql}: {error:?}");
        }
    }
    assert_eq!(refused("CREATE TABLE t (a INTT)").hint.as_deref(), Some("perhaps you meant \"int\""));
}

#[test]
fn depth_and_length_are_bounded() {
    let nested = format!("SELECT {}1{}", "(".repeat(100_000), ")".repeat(100_000));
    assert_eq!(refused(&nested).state, state::STATEMENT_TOO_COMPLEX);
    for chain in ["+1", " OR 1", " UNION ALL SELECT 1", "::int", "->'a'"] {
        assert_eq!(
            refused(&format!("SELECT 1{}", chain.repeat(100_000))).state,
            state::STATEMENT_TOO_COMPLEX,
            "{chain}"
        );
    }
    let check = format!("CREATE SOURCE s (a INT CHECK ({}a)) WITH (connector = log)", "- ".repeat(100_000));
    assert_eq!(refused(&check).state, state::STATEMENT_TOO_COMPLEX);
    refused(&format!("SELECT {}", "CASE WHEN ".repeat(50_000)));
    assert_eq!(parse(&format!("INSERT INTO t VALUES (1){}", ",(1+2*3)".repeat(50_000))).unwrap().len(), 1);
}

#[test]
fn the_page_about_sql_is_true() {
    let page = include_str!("../../docs/sql.md");
    let mut statements = 0;
    for block in page.split("```sql").skip(1) {
        let sql = block.split("```").next().unwrap();
        let parsed = parse(sql).unwrap_or_else(|error| panic!("{sql}: {error:?}"));
        statements += parsed.len();
        for statement in parsed {
            let text = &sql[statement.span.clone()];
            let ours = ["CREATE", "ALTER", "DROP", "TRUNCATE"].iter().any(|word| text.starts_with(word));
            assert_eq!(matches!(statement.kind, StatementKind::Ddl(_)), ours, "{text}");
        }
    }
    assert!(statements > 25, "{statements}");
    for option in options::TABLE_OPTIONS {
        assert!(page.contains(&format!("`{option}`")), "option {option} is not described");
    }
    // What the page says of a table's options is what they are.
    let Ddl::CreateTable(table) = one(
        "CREATE TABLE t (a INT) WITH (seal_rows = 1000000, seal_bytes = '256MB', seal_after = '10 minutes', retention = 'forever', mode = 'append', replicas = 1)",
    ) else {
        panic!()
    };
    let mut applied = crate::catalog::definition::TableOptions::default();
    options::apply(&mut applied, &table.options, true).unwrap();
    assert_eq!(applied, crate::catalog::definition::TableOptions::default());
}

const WORDS: &[&str] = &[
    "CREATE",
    "SOURCE",
    "TABLE",
    "IF",
    "NOT",
    "EXISTS",
    "t",
    "\"T\"",
    "(",
    ")",
    ",",
    "a",
    "INT",
    "NUMERIC",
    "(3,2)",
    "TEXT[]",
    "DEFAULT",
    "1",
    "'x'",
    "WITH",
    "=",
    "connector",
    ".",
    "FROM",
    "SOURCES",
    "AS",
    "SELECT",
    "*",
    "WHERE",
    "WATERMARK",
    "FOR",
    "CHECK",
    "PRIMARY KEY",
    "ALTER",
    "ADD",
    "COLUMN",
    "DROP",
    "RENAME",
    "TO",
    "SET",
    "TYPE",
    ";",
    "-",
    "'",
    "$$",
    "--",
    "/*",
    "é",
    "\n",
    "CASCADE",
    "::",
    "[",
    "]",
    "ARRAY",
    "<",
    ">",
    "INTERVAL",
    "COPY",
    "STDIN",
    "E'\\",
    "U&'",
];

proptest! {
    #[test]
    fn no_input_panics(words in prop::collection::vec(prop::sample::select(WORDS), 0..40)) {
        let sql = words.join(" ");
        match parse(&sql) {
            Ok(statements) => for statement in statements {
                prop_assert!(sql.get(statement.span).is_some());
            },
            Err(error) => prop_assert!(error.position.unwrap_or(1) as usize <= sql.chars().count() + 1),
        }
    }

    #[test]
    fn no_characters_panic(sql in "\\PC{0,60}") {
        let _ = parse(&sql);
    }
}

/// What the fuzz target `ddl` once found or started from.
#[test]
fn the_fuzz_targets_corpus_is_read_again() {
    let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fuzz/corpus/ddl");
    for entry in std::fs::read_dir(corpus).expect("a corpus") {
        super::fuzz::ddl(&std::fs::read(entry.expect("a file").path()).expect("reads"));
    }
}

#[test]
fn compression_is_a_word_of_columns() {
    let table = table(
        "CREATE TABLE t (a TEXT COMPRESSION zstd NOT NULL, b TEXT DEFAULT 'x' COMPRESSION LZ4, c BIGINT COMPRESSION none, d TEXT COMPRESSION default, e TEXT)",
    );
    let found: Vec<_> = table.columns.iter().map(|column| column.compression).collect();
    let expected = [Compression::Zstd, Compression::Lz4, Compression::None, Compression::Default];
    assert_eq!(found[..4], expected.map(Some));
    assert_eq!(found[4], None);
    assert!(table.columns[0].not_null);
    assert!(table.columns[1].default.is_some());
    let Ddl::AlterTable(alter) =
        one("ALTER TABLE t ALTER COLUMN a SET COMPRESSION lz4, ALTER b SET COMPRESSION DEFAULT")
    else {
        panic!("not ALTER TABLE")
    };
    let found: Vec<_> = alter
        .actions
        .iter()
        .map(|action| match action {
            AlterAction::SetCompression { column, compression } => (column.value.as_str(), *compression),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(found, [("a", Compression::Lz4), ("b", Compression::Default)]);
    let error = refused("CREATE TABLE t (a TEXT COMPRESSION pglz)");
    assert_eq!((error.state, error.position), (state::INVALID_PARAMETER_VALUE, Some(36)));
    assert_eq!(error.message, "invalid compression method \"pglz\"");
    let error = refused("CREATE SOURCE s (a TEXT COMPRESSION lz4) WITH (connector = 'generator')");
    assert_eq!(error.state, state::FEATURE_NOT_SUPPORTED);
}
