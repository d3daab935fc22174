//! Views of sources, tables, their partitions and segments, dead letters and events.

use std::sync::Arc;

use tidemill_ingest::dead_letters::DeadLetter;
use tidemill_query::SqlError;
use tidemill_storage::{ids::TableId, schema::DataType, upsert::is_provenance};

use super::{
    Cell,
    Kind::{self, Boolean, Bytes, Float, Int, Text, Time},
    Pages, Rows, ingest_error,
    source_text::create_source,
};
use crate::{
    catalog::definition::{KeyDefinition, KeyMode, SEAL_ROWS_AUTO},
    server::instance::Instance,
};

/// Dead letters that are in memory at a time: rows, and about so many bytes.
const DLQ_PAGE_ROWS: usize = 1024;
const DLQ_PAGE_BYTES: usize = 4 << 20;

pub(super) const SOURCES: &[(&str, Kind)] = &[
    ("id", Int),
    ("name", Text),
    ("connector", Text),
    ("format", Text),
    ("columns", Int),
    ("tables", Text),
    ("options", Text),
    ("watermark", Text),
    ("definition", Text),
    ("created_at", Time),
];

pub(super) fn sources(instance: &Instance) -> Result<Rows, SqlError> {
    let definitions = instance.catalog.definitions();
    Ok(definitions
        .sources
        .values()
        .map(|source| {
            let tables =
                definitions.tables_of(source.id).map(|table| table.name.as_str()).collect::<Vec<_>>().join(", ");
            let options = source
                .options
                .iter()
                .map(|(key, value)| (key.clone(), hide_secret(key, value).into()))
                .collect::<serde_json::Map<_, _>>();
            vec![
                source.id.0.into(),
                source.name.as_str().into(),
                source.options.get("connector").cloned().into(),
                source.options.get("format").cloned().into(),
                (source.columns.len() as u64).into(),
                tables.into(),
                serde_json::Value::Object(options).to_string().into(),
                source
                    .watermark
                    .as_ref()
                    .map(|watermark| format!("{} AS {}", watermark.column, watermark.expression))
                    .into(),
                create_source(source).into(),
                Cell::Time(source.created_at_us),
            ]
        })
        .collect())
}

/// Passwords and keys of clients stay out of views.
pub(super) fn hide_secret(key: &str, value: &str) -> String {
    let key = key.to_lowercase();
    let secrets = ["password", "secret", "token", "key.pem", "sasl.jaas", "credential", "user_info", "user-info"];
    if secrets.iter().any(|word| key.contains(word)) {
        return "********".into();
    }
    // A registry's address may hold name and password.
    match value.split_once("://").map(|(scheme, rest)| (scheme, rest.split_at(rest.find('/').unwrap_or(rest.len())))) {
        Some((scheme, (authority, path))) if authority.contains('@') && !authority.contains(char::is_whitespace) => {
            let host = authority.rsplit('@').next().unwrap_or_default();
            format!("{scheme}://********@{host}{path}")
        }
        _ => value.into(),
    }
}

pub(super) const TABLES: &[(&str, Kind)] = &[
    ("id", Int),
    ("oid", Int),
    ("name", Text),
    ("mode", Text),
    ("state", Text),
    ("sources", Text),
    ("partitions", Int),
    ("rows", Int),
    ("bytes", Int),
    ("segments", Int),
    ("schema_version", Int),
    ("time_column", Text),
    ("retention", Text),
    ("seal_rows", Int),
    ("seal_bytes", Int),
    ("seal_after", Text),
    ("error", Text),
    ("created_at", Time),
    ("keys", Int),
    ("key_bytes", Int),
    ("key_bytes_in_files", Int),
    ("key_ttl", Text),
    ("tombstone_ttl", Text),
    ("late_rows", Int),
];

pub(super) fn tables(instance: &Instance) -> Result<Rows, SqlError> {
    let definitions = instance.catalog.definitions();
    let mut rows = Vec::new();
    for table in definitions.tables.values() {
        let live = instance.live(table.id);
        let (mut count, mut bytes, mut segments) = (0, 0, 0_u64);
        if let Some(live) = &live {
            for view in &live.table.snapshot().views {
                count += view.rows();
                for segment in view.segments() {
                    bytes += segment.bytes();
                    segments += 1;
                }
            }
        }
        let keys = live.as_ref().filter(|_| table.key.is_some()).map(|live| live.ingest.keys());
        let ages = table.key.as_ref().and_then(|key| key.ages);
        let error = instance.broken(table.id);
        let state = match (&live, table.paused) {
            (None, _) => "broken",
            (Some(_), true) => "paused",
            (Some(_), false) => "running",
        };
        let sources =
            table.sources.iter().filter_map(|id| definitions.sources.get(id)).map(|source| source.name.as_str());
        rows.push(vec![
            table.id.0.into(),
            table.oid.into(),
            table.name.as_str().into(),
            match table.key.as_ref().map(|key| key.mode) {
                None => "append".into(),
                Some(KeyMode::Upsert) => "upsert".into(),
                Some(KeyMode::Dedup) => "dedup".into(),
                Some(KeyMode::PartialUpsert) => "partial_upsert".into(),
            },
            state.into(),
            sources.collect::<Vec<_>>().join(", ").into(),
            table.options.partitions.into(),
            count.into(),
            bytes.into(),
            segments.into(),
            table.schema.version.0.into(),
            table.schema.time_column.and_then(|id| table.schema.column(id)).map(|column| column.name.clone()).into(),
            table.options.retention_us.map(duration).into(),
            match table.options.seal_rows {
                SEAL_ROWS_AUTO => Cell::Null,
                rows => rows.into(),
            },
            table.options.seal_bytes.into(),
            duration(table.options.seal_after_us).into(),
            error.into(),
            Cell::Time(table.created_at_us),
            keys.map(|keys| keys.keys).into(),
            keys.map(|keys| keys.bytes).into(),
            keys.map(|keys| keys.bytes_in_files).into(),
            ages.and_then(|ages| ages.key_us).map(duration).into(),
            ages.and_then(|ages| ages.tombstone_us).map(duration).into(),
            live.as_ref().and_then(|live| live.ingest.late_rows()).into(),
        ]);
    }
    Ok(rows)
}

/// "7 days", "10 minutes", "1500 ms": the largest unit that leaves nothing over.
fn duration(us: i64) -> String {
    let units = [
        (86_400_000_000, "day"),
        (3_600_000_000, "hour"),
        (60_000_000, "minute"),
        (1_000_000, "second"),
        (1_000, "millisecond"),
    ];
    let (unit, name) = units.into_iter().find(|(unit, _)| us % unit == 0).unwrap_or((1, "microsecond"));
    let amount = us / unit;
    format!("{amount} {name}{}", if amount == 1 { "" } else { "s" })
}

pub(super) const COLUMNS: &[(&str, Kind)] = &[
    ("table", Text),
    ("position", Int),
    ("name", Text),
    ("type", Text),
    ("nullable", Boolean),
    ("compression", Text),
    ("bytes", Int),
    ("nulls", Int),
    ("merge", Text),
];

/// What the columns of tables take in committed segments.
pub(super) fn columns(instance: &Instance) -> Result<Rows, SqlError> {
    let mut rows = Vec::new();
    for (table, live) in instance.all_live() {
        let snapshot = live.table.snapshot();
        for (index, column) in snapshot.schema.columns.iter().enumerate() {
            let key = table.key.as_ref().map(KeyDefinition::spec).filter(|key| key.merges && !key.needs(column.id));
            let (mut bytes, mut nulls) = (0_u64, 0_u64);
            for segment in snapshot.views.iter().flat_map(|view| view.segments()) {
                bytes += segment.column_bytes(column.id).unwrap_or(0);
                nulls += segment.stats(column.id).map_or(0, |stats| stats.nulls);
            }
            rows.push(vec![
                table.name.as_str().into(),
                (index as u64 + 1).into(),
                column.name.as_str().into(),
                column.data_type.to_string().into(),
                Cell::Boolean(column.nullable),
                column.compression.name().into(),
                bytes.into(),
                nulls.into(),
                key.map(|_| column.merge.name()).into(),
            ]);
        }
    }
    Ok(rows)
}

pub(super) const PARTITIONS: &[(&str, Kind)] = &[
    ("table", Text),
    ("source", Text),
    ("source_partition", Int),
    ("table_partition", Int),
    ("position", Int),
    ("committed_offset", Int),
    ("high_watermark", Int),
    ("lag", Int),
    ("watermark", Time),
    ("freshness_ms", Int),
    ("rows", Int),
    ("dead_letters", Int),
    ("skipped", Int),
    ("tombstones", Int),
    ("readers", Int),
    ("state", Text),
    ("error", Text),
];

pub(super) fn partitions(instance: &Instance) -> Result<Rows, SqlError> {
    let mut rows = Vec::new();
    for (table, live) in instance.all_live() {
        for status in live.ingest.status() {
            rows.push(vec![
                table.name.as_str().into(),
                status.source_name.clone().into(),
                status.source_partition.into(),
                status.table_partition.0.into(),
                status.position.into(),
                status.committed.into(),
                status.high.into(),
                status.lag().into(),
                status.watermark_us.map_or(Cell::Null, Cell::Time),
                status.freshness_ms.into(),
                status.rows.into(),
                status.dead_letters.into(),
                status.skipped.into(),
                status.tombstones.into(),
                status.sharing.into(),
                status.state.into(),
                status.error.into(),
            ]);
        }
        // A source that never answered has no partitions yet, and is not to be missed.
        for (source, error) in live.ingest.feed_errors() {
            let definitions = instance.catalog.definitions();
            let name = definitions.sources.get(&source).map(|source| source.name.clone());
            if !rows.iter().any(|row| row[0] == Cell::from(table.name.as_str()) && row[1] == Cell::from(name.clone())) {
                let mut row = vec![Cell::Null; PARTITIONS.len()];
                row[0] = table.name.as_str().into();
                row[1] = name.into();
                row[PARTITIONS.len() - 2] = "unavailable".into();
                row[PARTITIONS.len() - 1] = error.into();
                rows.push(row);
            }
        }
    }
    Ok(rows)
}

pub(super) const SEGMENTS: &[(&str, Kind)] = &[
    ("table", Text),
    ("partition", Int),
    ("id", Int),
    ("state", Text),
    ("rows", Int),
    ("bytes", Int),
    ("schema_version", Int),
    ("encodings", Text),
    ("min_time", Time),
    ("max_time", Time),
    ("offsets", Text),
    ("file", Text),
    ("stale_pct", Float),
    ("in_key_map", Boolean),
    ("keys_left", Boolean),
    ("stored", Boolean),
];

pub(super) fn segments(instance: &Instance) -> Result<Rows, SqlError> {
    let definitions = instance.catalog.definitions();
    let has_copies = instance.deep_stores.segments.is_some();
    let mut rows = Vec::new();
    for (table, live) in instance.all_live() {
        for partition in live.table.partitions().iter() {
            let committed = instance.log.partition(table.id, partition.id()).map_err(ingest_error)?;
            let view = partition.view();
            let in_key_map = live.ingest.key_map_segments(partition.id());
            for segment in view.segments() {
                let schema = segment.schema();
                let stale = view.validities().of(segment.id()).map_or(0, |validity| validity.invalid());
                let encodings = schema
                    .columns
                    .iter()
                    .filter(|column| !is_provenance(column.id))
                    .filter_map(|column| Some((column.name.clone(), segment.encoding(column.id)?.into())))
                    .collect::<serde_json::Map<String, serde_json::Value>>();
                let time = schema.time_column.and_then(|id| Some((schema.column(id)?, segment.stats(id)?)));
                let bound =
                    |pick: fn(&tidemill_storage::segment::ColumnStats) -> Option<&tidemill_storage::scalar::Scalar>| {
                        match time {
                            Some((column, stats)) => match (pick(stats), &column.data_type) {
                                (Some(tidemill_storage::scalar::Scalar::Int(days)), DataType::Date) => {
                                    Cell::Time(days.saturating_mul(86_400_000_000))
                                }
                                (Some(tidemill_storage::scalar::Scalar::Int(us)), _) => Cell::Time(*us),
                                _ => Cell::Null,
                            },
                            None => Cell::Null,
                        }
                    };
                let offsets = segment
                    .offsets()
                    .iter()
                    .map(|range| {
                        let source =
                            definitions.sources.get(&range.stream.source).map_or("log", |source| source.name.as_str());
                        format!("{source}:{}:[{},{})", range.stream.partition, range.from, range.to)
                    })
                    .collect::<Vec<_>>()
                    .join(" ");
                let record = committed.segments.iter().find(|record| record.id == segment.id());
                let file = record.map(|record| record.file.clone());
                rows.push(vec![
                    table.name.as_str().into(),
                    partition.id().0.into(),
                    segment.id().0.into(),
                    segment.state().name().into(),
                    segment.rows().into(),
                    segment.bytes().into(),
                    schema.version.0.into(),
                    serde_json::Value::Object(encodings).to_string().into(),
                    bound(|stats| stats.min.as_ref()),
                    bound(|stats| stats.max.as_ref()),
                    offsets.into(),
                    file.into(),
                    Cell::Float(100.0 * f64::from(stale) / f64::from(segment.rows().max(1))),
                    in_key_map.as_ref().map(|known| known.contains(&segment.id())).into(),
                    in_key_map.as_ref().map(|_| record.is_some_and(|record| record.keys_left_us.is_some())).into(),
                    has_copies
                        .then(|| {
                            record.is_some_and(|record| instance.ingest.has_copy(table.id, partition.id(), record))
                        })
                        .into(),
                ]);
            }
        }
    }
    Ok(rows)
}

pub(super) const DLQ: &[(&str, Kind)] = &[
    ("table", Text),
    ("source", Text),
    ("partition", Int),
    ("offset", Int),
    ("timestamp", Time),
    ("at", Time),
    ("column", Text),
    ("reason", Text),
    ("raw", Bytes),
    ("raw_text", Text),
    ("raw_length", Int),
];

fn dead_letter(table: String, letter: DeadLetter) -> Vec<Cell> {
    let reject = letter.reject;
    let timestamp = match reject.timestamp_ms {
        ..0 => Cell::Null,
        ms => Cell::Time(ms.saturating_mul(1_000)),
    };
    vec![
        table.into(),
        letter.source.into(),
        letter.stream.partition.into(),
        reject.offset.into(),
        timestamp,
        Cell::Time(letter.at_us),
        reject.column.into(),
        reject.reason.into(),
        Cell::Bytes(reject.raw.clone()),
        std::str::from_utf8(&reject.raw).ok().into(),
        letter.raw_length.into(),
    ]
}

/// Read from the files as the query goes on: there may be more of them than memory.
pub(super) fn dlq(instance: &Instance) -> Pages {
    type Letters = Box<dyn Iterator<Item = tidemill_ingest::Result<DeadLetter>> + Send>;
    let mut all: Vec<(String, Letters)> = Vec::new();
    for (table, live) in instance.all_live() {
        all.push((table.name.clone(), Box::new(live.ingest.dead_letters())));
    }
    // Of pipelines, which have not come to a table.
    let definitions = instance.catalog.definitions();
    for pipeline in definitions.pipelines.values() {
        let running = instance.pipelines.live(pipeline.id).and_then(|live| live.running());
        let letters: Letters = match running.map(|running| running.dead_letters()) {
            None => continue,
            Some(Ok(letters)) => Box::new(letters),
            Some(Err(error)) => Box::new(std::iter::once(Err(error))),
        };
        let (definitions, log) = (Arc::clone(&definitions), pipeline.log);
        // The log behind it has one partition; in letters of sinks the number of the sink stands there.
        let letters = letters.map(move |letter| {
            let mut letter = letter?;
            if letter.stream.source == log {
                let sink = definitions.sinks.get(&TableId(letter.stream.partition.into()));
                if let Some(sink) = sink {
                    letter.source.clone_from(&sink.name);
                }
                letter.stream.partition = 0;
            }
            Ok(letter)
        });
        all.push((pipeline.name.clone(), Box::new(letters)));
    }
    let mut letters = all.into_iter().flat_map(|(name, letters)| letters.map(move |letter| (name.clone(), letter)));
    let mut failed = false;
    Box::new(std::iter::from_fn(move || {
        let (mut rows, mut bytes) = (Vec::new(), 0);
        while !failed && rows.len() < DLQ_PAGE_ROWS && bytes < DLQ_PAGE_BYTES {
            match letters.next() {
                None => break,
                Some((table, Ok(letter))) => {
                    bytes += letter.reject.raw.len() + letter.reject.reason.len();
                    rows.push(dead_letter(table, letter));
                }
                Some((_, Err(error))) => {
                    failed = true;
                    return Some(Err(ingest_error(error)));
                }
            }
        }
        (!rows.is_empty()).then_some(Ok(rows))
    }))
}

pub(super) const EVENTS: &[(&str, Kind)] = &[
    ("at", Time),
    ("severity", Text),
    ("kind", Text),
    ("object", Text),
    ("message", Text),
    ("needs_attention", Boolean),
];

pub(super) fn events(instance: &Instance) -> Result<Rows, SqlError> {
    let definitions = instance.catalog.definitions();
    Ok(instance
        .events
        .recent()
        .into_iter()
        .map(|event| {
            let table = event.table.and_then(|id| definitions.tables.get(&id)).map(|table| table.name.clone());
            let source = event
                .stream
                .and_then(|stream| definitions.sources.get(&stream.source))
                .map(|source| source.name.clone());
            vec![
                Cell::Time(event.at_us),
                event.severity.name().into(),
                event.kind.into(),
                table.or(source).into(),
                event.message.into(),
                (event.severity == tidemill_ingest::events::Severity::Page).into(),
            ]
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_well_and_secrets_are_hidden() {
        assert_eq!(duration(7 * 86_400_000_000), "7 days");
        assert_eq!(duration(60_000_000), "1 minute");
        assert_eq!(duration(1_500_000), "1500 milliseconds");
        assert_eq!(duration(1), "1 microsecond");
        assert_eq!(hide_secret("properties.sasl.password", "x"), "********");
        assert_eq!(hide_secret("topic", "x"), "x");
        assert_eq!(hide_secret("schema_registry.basic_auth.user_info", "u:p"), "********");
        assert_eq!(hide_secret("schema_registry", "http://u:p@registry:1/x"), "http://********@registry:1/x");
        assert_eq!(hide_secret("schema_registry", "http://registry:1/a@b"), "http://registry:1/a@b");
    }
}
