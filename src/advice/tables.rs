//! Advice about a table.

use std::{collections::BTreeSet, sync::Arc};

use arrow::array::{Array, AsArray};
use chrono::{DateTime, NaiveDate};
use tidemill_query::SessionOptions;
use tidemill_storage::{
    index::IndexKind,
    scalar::Scalar,
    schema::{Compression, DataType},
};

use super::{
    Proposal, quoted,
    workload::{Uses, Workload},
};
use crate::{
    catalog::definition::TableDefinition,
    ddl,
    server::{instance::Instance, live::LiveTable},
    session::error::{Result, SqlError},
};

/// Rows of a table that is worth an index: fewer are read in no time.
const ROWS_MIN: u64 = 10_000;
/// Rows of a value, at least, for lists of rows by value.
const ROWS_PER_VALUE: u64 = 4;
/// Statements that group rows, for a star-tree.
const GROUPED_MIN: u64 = 3;
/// Texts that are looked at for what they are, and the fewest that prove something.
const TEXTS: usize = 1_000;
const TEXTS_MIN: usize = 20;
/// The part of a table's bytes from which on a column is worth being packed closer, in percent.
const LARGE_PERCENT: u64 = 20;

/// What is known of a column in sealed segments.
struct Facts {
    name: String,
    data_type: DataType,
    compression: Compression,
    rows: u64,
    /// In the segment that has the most, at most; `None`: so many that nobody counted.
    values: Option<u64>,
    /// Rows of the largest segment.
    segment_rows: u64,
    bytes: u64,
    encodings: BTreeSet<String>,
    /// Values ascend in every segment, so that the least and the greatest of a segment say where a value can be.
    ascends: bool,
    indexes: Vec<&'static str>,
    /// What all of its texts are.
    texts: Option<DataType>,
}

pub(crate) async fn of_table(
    instance: &Arc<Instance>,
    table: &TableDefinition,
    live: &LiveTable,
) -> Result<Vec<Proposal>> {
    let engine = instance.engine()?;
    let log = engine.queries().log();
    // What the server asks itself has no connection.
    let statements = log.iter().filter(|record| record.pid != 0).map(|record| &*record.sql);
    let workload = Workload::of(&table.name, statements);
    let mut facts = facts(table, live);
    for column in facts.iter_mut().filter(|column| column.data_type == DataType::Text) {
        column.texts = texts(instance, &table.name, &column.name).await?;
    }
    let has_tree = table.indexes.iter().any(|index| matches!(index.kind, IndexKind::StarTree(_)));
    let dimensions = if has_tree { None } else { ddl::suggested_dimensions(table, &live.table.snapshot()) };
    Ok(proposals(&table.name, &facts, &workload, dimensions.as_deref()))
}

fn facts(table: &TableDefinition, live: &LiveTable) -> Vec<Facts> {
    let snapshot = live.table.snapshot();
    let segments: Vec<_> = snapshot
        .views
        .iter()
        .flat_map(|view| view.segments())
        .filter(|segment| segment.as_committed().is_some() && segment.rows() > 0)
        .collect();
    let of_column = |column: &tidemill_storage::schema::Column| {
        let stats: Vec<_> = segments.iter().map(|segment| (segment.rows(), segment.stats(column.id))).collect();
        let values = stats.iter().map(|(_, stats)| {
            let stats = (*stats)?;
            let range = match (&stats.min, &stats.max) {
                (Some(Scalar::Int(min)), Some(Scalar::Int(max))) => Some(max.abs_diff(*min).saturating_add(1)),
                (Some(Scalar::Boolean(_)), _) => Some(2),
                _ => None,
            };
            [range, stats.distinct].into_iter().flatten().min()
        });
        let of_index = |index: &&crate::catalog::definition::IndexDefinition| index.columns.contains(&column.id);
        Facts {
            name: column.name.clone(),
            data_type: column.data_type.clone(),
            compression: column.compression,
            rows: stats.iter().map(|(rows, _)| u64::from(*rows)).sum(),
            values: values.collect::<Option<Vec<u64>>>().and_then(|values| values.into_iter().max()),
            segment_rows: stats.iter().map(|(rows, _)| u64::from(*rows)).max().unwrap_or(0),
            bytes: segments.iter().filter_map(|segment| segment.column_bytes(column.id)).sum(),
            encodings: segments.iter().filter_map(|segment| segment.encoding(column.id)).collect(),
            ascends: !stats.is_empty() && stats.iter().all(|(_, stats)| stats.is_some_and(|stats| stats.sorted)),
            indexes: table.indexes.iter().filter(of_index).map(|index| index.kind.name()).collect(),
            texts: None,
        }
    };
    table.schema.columns.iter().map(of_column).collect()
}

/// What all of some texts of a column are, if they are no texts.
async fn texts(instance: &Arc<Instance>, table: &str, column: &str) -> Result<Option<DataType>> {
    let engine = instance.engine()?;
    let session = engine.session(SessionOptions { user: "tidemill".into(), ..SessionOptions::default() });
    let (table, column) = (quoted(table), quoted(column));
    let sql = format!("SELECT {column} FROM {table} WHERE {column} IS NOT NULL LIMIT {TEXTS}");
    let statement = tidemill_query::parse::parse(&sql)?.pop();
    let statement = statement.ok_or_else(|| SqlError::internal("the look at texts is no statement"))?;
    let plan = session.plan(&statement, &sql).await?;
    let batches = session.execute(&plan)?.collect_all().await?;
    let arrays = batches.iter().filter_map(|batch| batch.column(0).as_string_view_opt());
    let texts: Vec<&str> = arrays.flat_map(|array| (0..array.len()).map(|row| array.value(row))).collect();
    Ok(fitting(&texts))
}

/// The type that all texts are written as, so that nothing is lost by it.
fn fitting(texts: &[&str]) -> Option<DataType> {
    if texts.len() < TEXTS_MIN {
        return None;
    }
    let all = |is: fn(&str) -> bool| texts.iter().all(|text| is(text));
    if all(|text| text.len() == 36 && uuid::Uuid::try_parse(text).is_ok()) {
        return Some(DataType::Uuid);
    }
    // As a number prints: no zeros before it.
    if all(|text| text.parse::<i64>().is_ok_and(|number| number.to_string() == text)) {
        return Some(DataType::BigInt);
    }
    if all(|text| text.len() == 10 && NaiveDate::parse_from_str(text, "%Y-%m-%d").is_ok()) {
        return Some(DataType::Date);
    }
    all(|text| DateTime::parse_from_rfc3339(text).is_ok()).then_some(DataType::TimestampTz)
}

/// Facts in, proposals out.
fn proposals(table: &str, facts: &[Facts], workload: &Workload, dimensions: Option<&str>) -> Vec<Proposal> {
    let mut all = Vec::new();
    let bytes: u64 = facts.iter().map(|column| column.bytes).sum();
    for column in facts {
        all.extend(better_type(column));
        all.extend(encoding(table, column, bytes));
        all.extend(index(table, column, workload));
    }
    let rows = facts.first().map_or(0, |column| column.rows);
    for ((latitude, longitude), statements) in &workload.places {
        let of = |name: &String| facts.iter().find(|column| column.name == *name);
        let Some((first, second)) = of(latitude).zip(of(longitude)) else { continue };
        let takes = IndexKind::Geo.takes(&first.data_type) && IndexKind::Geo.takes(&second.data_type);
        if takes && rows >= ROWS_MIN && !first.indexes.contains(&"geo") {
            all.push(Proposal {
                column: Some(format!("{latitude}, {longitude}")),
                kind: "index",
                proposal: "geo".into(),
                reason: format!("{} by distance or area", asked(*statements, workload)),
                statement: Some(format!(
                    "CREATE INDEX ON {} USING geo ({}, {})",
                    quoted(table),
                    quoted(latitude),
                    quoted(longitude)
                )),
            });
        }
    }
    if let Some(dimensions) = dimensions
        && workload.grouped >= GROUPED_MIN
        && rows >= ROWS_MIN
    {
        all.push(Proposal {
            column: None,
            kind: "star-tree",
            proposal: format!("({dimensions})"),
            reason: format!(
                "{} of the last {} statements on the table group its rows; these columns have few values and many rows of each",
                workload.grouped, workload.statements
            ),
            statement: Some(format!("CREATE INDEX ON {} USING star_tree ({dimensions})", quoted(table))),
        });
    }
    all
}

fn better_type(column: &Facts) -> Option<Proposal> {
    let fitting = column.texts.as_ref()?;
    Some(Proposal {
        column: Some(column.name.clone()),
        kind: "type",
        proposal: fitting.to_string(),
        reason: format!(
            "all of up to {TEXTS} texts that were looked at are written so; it takes less room and compares as what it is. Rows that are stored are not rewritten: it takes a new column, or the table anew"
        ),
        statement: None,
    })
}

fn encoding(table: &str, column: &Facts, table_bytes: u64) -> Option<Proposal> {
    if column.rows == 0 {
        return None;
    }
    let name = Some(column.name.clone());
    let kept = column.encodings.iter().cloned().collect::<Vec<_>>().join(", ");
    let percent = (column.bytes * 100).checked_div(table_bytes).unwrap_or(0);
    let values = match column.values {
        Some(values) => format!("up to {} values in a segment", values.min(column.segment_rows)),
        None => "very many values".to_owned(),
    };
    let per_row = column.bytes as f64 / column.rows as f64;
    let size = format!("{values}, {per_row:.1} bytes a row, {percent} % of the table");
    let is_packed = column.encodings.iter().any(|encoding| encoding.contains("dict"));
    let is_bytes = matches!(column.data_type, DataType::Text | DataType::Bytea | DataType::Jsonb);
    if is_bytes && !is_packed && percent >= LARGE_PERCENT && column.compression == Compression::Default {
        return Some(Proposal {
            column: name,
            kind: "encoding",
            proposal: "COMPRESSION zstd".into(),
            reason: format!(
                "kept as {kept}: {size}; segments that are begun later are packed closer, and read more slowly"
            ),
            statement: Some(format!(
                "ALTER TABLE {} ALTER COLUMN {} SET COMPRESSION zstd",
                quoted(table),
                quoted(&column.name)
            )),
        });
    }
    let reason = format!("{size}; chosen for each segment when it is sealed, as what is smallest");
    Some(Proposal { column: name, kind: "encoding", proposal: kept, reason, statement: None })
}

fn asked(statements: u64, workload: &Workload) -> String {
    format!("{statements} of the last {} statements on the table ask for it", workload.statements)
}

/// The kind of index that answers most of what is asked of a column.
fn index(table: &str, column: &Facts, workload: &Workload) -> Option<Proposal> {
    let uses = workload.of_column(&column.name);
    if column.rows < ROWS_MIN {
        return None;
    }
    let (kind, name, statements, how) = wanted(column, uses)?;
    if !kind.takes(&column.data_type) || column.indexes.iter().any(|known| *known == name || *known == "sorted") {
        return None;
    }
    let values = match column.values {
        Some(values) => format!("up to {} values", values.min(column.segment_rows)),
        None => "very many values".to_owned(),
    };
    Some(Proposal {
        column: Some(column.name.clone()),
        kind: "index",
        proposal: name.to_owned(),
        reason: format!(
            "{} {how}; a segment of {} rows has {values}",
            asked(statements, workload),
            column.segment_rows
        ),
        statement: Some(format!("CREATE INDEX ON {} USING {name} ({})", quoted(table), quoted(&column.name))),
    })
}

/// Kind, its name, statements, and what they say.
fn wanted(column: &Facts, uses: Uses) -> Option<(IndexKind, &'static str, u64, &'static str)> {
    let has_lists = column.values.is_some_and(|values| values.saturating_mul(ROWS_PER_VALUE) <= column.segment_rows);
    let is_packed = column.encodings.iter().any(|encoding| encoding.contains("dict"));
    if uses.words > 0 {
        return Some((IndexKind::Text, "text", uses.words, "by words"));
    }
    if uses.document > 0 {
        return Some((IndexKind::Json, "json", uses.document, "by what is in documents"));
    }
    // Where values ascend, the least and the greatest of each segment say it.
    if column.ascends {
        return None;
    }
    match (uses.equal, uses.range, uses.pattern) {
        (equal, ..) if equal > 0 && has_lists => Some((IndexKind::Inverted, "inverted", equal, "by `=` or IN")),
        (equal, ..) if equal > 0 => Some((IndexKind::Bloom { fpp: 0.01 }, "bloom", equal, "by `=` or IN")),
        (_, range, _) if range > 0 => Some((IndexKind::Range, "range", range, "by a range")),
        (_, _, pattern) if pattern > 0 && is_packed => Some((IndexKind::Inverted, "inverted", pattern, "by LIKE")),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(name: &str, data_type: DataType, values: Option<u64>) -> Facts {
        Facts {
            name: name.to_owned(),
            data_type,
            compression: Compression::Default,
            rows: 2_000_000,
            values,
            segment_rows: 1_000_000,
            bytes: 1_000_000,
            encodings: BTreeSet::from([if values.is_some() { "dict".to_owned() } else { "raw".to_owned() }]),
            ascends: false,
            indexes: Vec::new(),
            texts: None,
        }
    }

    #[test]
    fn what_is_asked_gets_an_index_that_answers_it() {
        let statements = [
            "SELECT count(*) FROM t WHERE city = 'a' GROUP BY kind",
            "SELECT city, count(*) FROM t WHERE id = 7 GROUP BY city",
            "SELECT count(*) FROM t WHERE price BETWEEN 1 AND 2 AND ts > $1 GROUP BY kind",
            "SELECT * FROM t WHERE note @@ 'a' AND doc->>'a' = 'b' AND done = true",
            "SELECT * FROM t WHERE geo_within(lat, lng, $1)",
        ];
        let workload = Workload::of("t", statements.into_iter());
        let price = DataType::Numeric { precision: 10, scale: 2 };
        let facts = [
            column("city", DataType::Text, Some(400)),
            column("id", DataType::BigInt, None),
            column("price", price, None),
            Facts { ascends: true, ..column("ts", DataType::TimestampTz, None) },
            Facts { bytes: 90_000_000, ..column("note", DataType::Text, None) },
            column("doc", DataType::Jsonb, None),
            column("done", DataType::Boolean, Some(2)),
            Facts { indexes: vec!["inverted"], ..column("kind", DataType::Text, Some(3)) },
            column("lat", DataType::Double, None),
            column("lng", DataType::Double, None),
            Facts { texts: Some(DataType::Uuid), ..column("token", DataType::Text, None) },
        ];
        let found = proposals("t", &facts, &workload, Some("city, date_trunc('hour', ts)"));
        let statements: Vec<&str> = found.iter().filter_map(|one| one.statement.as_deref()).collect();
        assert_eq!(
            statements,
            [
                "CREATE INDEX ON t USING inverted (city)",
                "CREATE INDEX ON t USING bloom (id)",
                "CREATE INDEX ON t USING range (price)",
                "ALTER TABLE t ALTER COLUMN note SET COMPRESSION zstd",
                "CREATE INDEX ON t USING text (note)",
                "CREATE INDEX ON t USING json (doc)",
                "CREATE INDEX ON t USING geo (lat, lng)",
                "CREATE INDEX ON t USING star_tree (city, date_trunc('hour', ts))",
            ]
        );
        assert!(found.iter().all(|one| !one.reason.is_empty()));
        let types: Vec<_> = found.iter().filter(|one| one.kind == "type").map(|one| one.proposal.as_str()).collect();
        assert_eq!(types, ["uuid"]);
        // Every statement can be run.
        for statement in statements {
            crate::sql::parse(statement).unwrap();
        }
        // Of a small table only what its columns are is told.
        let small: Vec<Facts> = facts.into_iter().map(|facts| Facts { rows: 9_999, ..facts }).collect();
        let found = proposals("t", &small, &workload, Some("city"));
        assert!(found.iter().all(|one| matches!(one.kind, "encoding" | "type")), "{found:?}");
    }

    #[test]
    fn texts_are_what_all_of_them_are() {
        let of = |text: &str, count: usize| fitting(&vec![text; count]);
        assert_eq!(of("7f1d2c50-8b0e-4f43-9b3c-0d2b7a1f9e11", 20), Some(DataType::Uuid));
        assert_eq!(of("-17", 20), Some(DataType::BigInt));
        assert_eq!(of("2026-11-23", 20), Some(DataType::Date));
        assert_eq!(of("2026-11-23T10:00:00.5+01:00", 20), Some(DataType::TimestampTz));
        assert_eq!(of("-17", 19), None);
        assert_eq!(of("007", 20), None);
        assert_eq!(of("a", 20), None);
        assert_eq!(fitting(&[["1"; 20].as_slice(), ["x"; 1].as_slice()].concat()), None);
    }
}
