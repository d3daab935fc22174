//! `rt.upsert_capacity('table')`: what the key map of a table takes, how it grows, and for how long there is room.

use tidemill_ingest::consumer::KeyMapStatus;
use tidemill_query::SqlError;

use super::{
    Cell,
    Kind::{self, Float, Int, Text},
    Rows, engine_error,
};
use crate::{server::instance::Instance, session};

const DAY_US: f64 = 86_400_000_000.0;
/// Of less nothing is said about a day: ten minutes.
const SPAN_US_MIN: f64 = 600_000_000.0;

pub(super) const CAPACITY: &[(&str, Kind)] = &[
    ("table", Text),
    ("partition", Int),
    ("keys", Int),
    ("bytes", Int),
    ("bytes_in_files", Int),
    ("bytes_per_key", Float),
    ("keys_per_day", Float),
    ("bytes_per_day", Float),
    ("limit_bytes", Int),
    ("free_bytes", Int),
    ("days_left", Float),
    ("late_rows", Int),
    ("segments_left", Int),
];

/// One row for the table, whose partition is NULL, then one for each partition.
pub(super) fn capacity(instance: &Instance, name: &str) -> Result<Rows, SqlError> {
    let (table, live) = instance.table(name).map_err(engine_error)?;
    let Some(key) = &table.key else {
        let message = format!("table \"{}\" keeps no key map", table.name);
        let error = session::SqlError::new(session::error::state::WRONG_OBJECT_TYPE, message);
        return Err(engine_error(error.with_hint("tables with a PRIMARY KEY have one, unless their mode is 'append'")));
    };
    let memory = instance.ingest.key_memory();
    let limit = memory.bytes_max();
    let room = Room {
        limit,
        free: limit.saturating_sub(memory.in_memory() + memory.in_files()),
        ttl_us: key.ages.and_then(|ages| ages.key_us),
    };
    let maps = live.ingest.key_maps();
    let mut rows = vec![row(&table.name, None, &total(&maps), &room)];
    rows.extend(maps.iter().map(|map| row(&table.name, Some(map.partition.0), map, &room)));
    Ok(rows)
}

/// What all tables share, and what bounds this one.
struct Room {
    limit: u64,
    free: u64,
    ttl_us: Option<i64>,
}

/// All partitions as one. Keys of all of them came in the time from the first to the last.
fn total(maps: &[KeyMapStatus]) -> KeyMapStatus {
    let spans = maps.iter().filter_map(|map| map.span_us);
    KeyMapStatus {
        partition: Default::default(),
        keys: maps.iter().map(|map| map.keys).sum(),
        bytes: maps.iter().map(|map| map.bytes).sum(),
        bytes_in_files: maps.iter().map(|map| map.bytes_in_files).sum(),
        span_us: spans.reduce(|a, b| (a.0.min(b.0), a.1.max(b.1))),
        late_rows: maps.iter().map(|map| map.late_rows).sum(),
        segments_left: maps.iter().map(|map| map.segments_left).sum(),
    }
}

fn row(table: &str, partition: Option<u32>, map: &KeyMapStatus, room: &Room) -> Vec<Cell> {
    let per_key = (map.keys > 0).then(|| map.bytes as f64 / map.keys as f64);
    let span = map.span_us.filter(|(from, to)| *to as f64 - *from as f64 >= SPAN_US_MIN);
    let per_day = span.map(|(from, to)| map.keys as f64 / (to as f64 - from as f64) * DAY_US);
    let bytes_per_day = per_key.zip(per_day).map(|(bytes, keys)| bytes * keys);
    let float = |value: Option<f64>| value.map_or(Cell::Null, Cell::Float);
    vec![
        table.into(),
        partition.into(),
        map.keys.into(),
        map.bytes.into(),
        map.bytes_in_files.into(),
        float(per_key),
        float(per_day),
        float(bytes_per_day),
        room.limit.into(),
        room.free.into(),
        float(bytes_per_day.map(|grows| days_left(map.bytes, grows, room))),
        map.late_rows.into(),
        map.segments_left.into(),
    ]
}

/// Days until there is no room in memory, at this growth; infinite where old keys leave before.
fn days_left(bytes: u64, bytes_per_day: f64, room: &Room) -> f64 {
    let days = room.free as f64 / bytes_per_day;
    // A key stays for twice its ttl, until no row that comes on time may be near to it.
    let most = room.ttl_us.map(|ttl_us| 2.0 * ttl_us as f64 / DAY_US * bytes_per_day);
    match most {
        Some(most) if most <= bytes as f64 + room.free as f64 => f64::INFINITY,
        _ => days,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_room_until_the_limit_or_for_ever() {
        let room = |free, ttl_days: Option<i64>| Room {
            limit: 1000,
            free,
            ttl_us: ttl_days.map(|days| days * 86_400_000_000),
        };
        assert_eq!(days_left(100, 50.0, &room(500, None)), 10.0);
        assert_eq!(days_left(100, 50.0, &room(0, None)), 0.0);
        assert_eq!(days_left(100, 50.0, &room(500, Some(6))), f64::INFINITY);
        assert_eq!(days_left(100, 50.0, &room(500, Some(7))), 10.0);
    }
}
