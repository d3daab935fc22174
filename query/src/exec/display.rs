//! How scans and their predicates read in EXPLAIN.

use std::{
    fmt::{self, Write},
    sync::Arc,
};

use tidemill_storage::{
    ids::ColumnId,
    index::{IndexKind, IndexSpec},
    predicate::{CompareOp, Predicate},
    scalar::Scalar,
    scan::{IndexUse, ScanPlan, ScanRequest},
    schema::{DataType, TableSchema},
};

/// List values that are written out.
const VALUES_SHOWN: usize = 5;

/// Which segments are read.
pub(crate) fn segments(out: &mut impl Write, table: &str, plan: &ScanPlan) -> fmt::Result {
    write!(out, "table={table}, segments={}", plan.segments_total)?;
    // Only where there may be any.
    if plan.pruned_by_partition > 0 {
        write!(out, ", pruned_by_partition={}", plan.pruned_by_partition)?;
    }
    write!(out, ", pruned_by_time={}, pruned_by_min_max={}", plan.pruned_by_time, plan.pruned_by_min_max)?;
    if plan.indexes.iter().any(|index| matches!(index.kind, IndexKind::Bloom { .. })) {
        write!(out, ", pruned_by_bloom={}", plan.pruned_by_bloom)?;
    }
    write!(out, ", units={}", plan.units.len())
}

/// The predicate, and the indexes that may be asked about its parts.
pub(crate) fn condition(
    out: &mut impl Write,
    condition: &Predicate,
    schema: &TableSchema,
    plan: &ScanPlan,
    indexes: IndexUse,
) -> fmt::Result {
    out.write_str(", predicate=")?;
    predicate(out, condition, schema)?;
    if indexes == IndexUse::Off {
        return Ok(());
    }
    let asked: Vec<&IndexSpec> = plan.indexes.iter().filter(|index| may_ask(index, condition)).collect();
    if asked.is_empty() {
        return Ok(());
    }
    let names: Vec<&str> = asked.iter().map(|index| index.name.as_str()).collect();
    write!(out, ", indexes=[{}]", names.join(", "))?;
    match asked.iter().find(|index| index.kind == IndexKind::Sorted).and_then(|index| index.column()) {
        Some(column) => sorted(out, column, schema, plan),
        None => Ok(()),
    }
}

/// In how many of the segments that are read rows lie in the order of the column.
fn sorted(out: &mut impl Write, column: ColumnId, schema: &TableSchema, plan: &ScanPlan) -> fmt::Result {
    let (mut all, mut sorted, mut last) = (0, 0, None);
    for unit in &plan.units {
        // The units of a segment follow each other.
        let id = Arc::as_ptr(&unit.segment).cast::<()>();
        if last != Some(id) {
            last = Some(id);
            all += 1;
            sorted += usize::from(unit.segment.as_committed().is_some_and(|segment| segment.is_sorted_by(column)));
        }
    }
    let name = schema.column(column).map_or("?", |column| column.name.as_str());
    write!(out, ", sorted({name})={sorted} of {all}")
}

/// Whether the index may know something of a part of the predicate.
fn may_ask(index: &IndexSpec, condition: &Predicate) -> bool {
    let on = |column: &ColumnId| index.column() == Some(*column);
    match condition {
        Predicate::And(children) | Predicate::Or(children) => children.iter().any(|child| may_ask(index, child)),
        Predicate::Compare { column, op, .. } => {
            on(column)
                && match index.kind {
                    IndexKind::Bloom { .. } => *op == CompareOp::Eq,
                    IndexKind::Inverted | IndexKind::Range | IndexKind::Sorted => true,
                    IndexKind::StarTree(_)
                    | IndexKind::Json
                    | IndexKind::JsonPaths(_)
                    | IndexKind::Text
                    | IndexKind::Geo => false,
                }
        }
        Predicate::In { column, negated, .. } => {
            on(column)
                && !negated
                && !index.kind.is_json()
                && !matches!(index.kind, IndexKind::StarTree(_) | IndexKind::Text | IndexKind::Geo)
        }
        Predicate::Like { column, .. } => on(column) && matches!(index.kind, IndexKind::Inverted | IndexKind::Sorted),
        Predicate::Matches { column, .. } => on(column) && matches!(index.kind, IndexKind::Text | IndexKind::Inverted),
        Predicate::IsNull { column, .. } => on(column) && index.kind == IndexKind::Sorted,
        Predicate::Holds { column, condition } => {
            let knows = |test| index.kind.is_json() && index.kind.knows_of(test);
            let by_value = matches!(index.kind, IndexKind::Inverted | IndexKind::Sorted);
            on(column) && (by_value || condition.documents().is_some_and(|test| knows(test)))
        }
    }
}

pub(crate) fn scan(out: &mut impl Write, table: &str, plan: &ScanPlan, request: &ScanRequest) -> fmt::Result {
    segments(out, table, plan)?;
    let columns: Vec<&str> = request
        .projection
        .iter()
        .filter_map(|id| request.schema.column(*id))
        // The columns of addresses have names that nobody can write.
        .map(|column| column.name.trim_start_matches('\u{1}'))
        .collect();
    write!(out, ", columns=[{}]", columns.join(", "))?;
    if let Some(limit) = request.limit {
        write!(out, ", limit={limit}")?;
    }
    if let Some(found) = &request.predicate {
        condition(out, found, &request.schema, plan, request.hints.indexes)?;
    }
    places(out, plan, request)
}

/// The indexes that leave out places.
fn places(out: &mut impl Write, plan: &ScanPlan, request: &ScanRequest) -> fmt::Result {
    if request.hints.indexes == IndexUse::Off {
        return Ok(());
    }
    let asks = |index: &&IndexSpec| {
        let tests = &request.hints.places;
        index.kind == IndexKind::Geo && tests.iter().any(|test| index.columns == [test.lat, test.lng])
    };
    let names: Vec<&str> = plan.indexes.iter().filter(asks).map(|index| index.name.as_str()).collect();
    if names.is_empty() { Ok(()) } else { write!(out, ", places_by=[{}]", names.join(", ")) }
}

pub(crate) fn predicate(out: &mut impl Write, condition: &Predicate, schema: &TableSchema) -> fmt::Result {
    let column = |id: &ColumnId| schema.column(*id);
    let name = |id: &ColumnId| column(id).map_or("?", |column| column.name.as_str());
    match condition {
        Predicate::And(children) => joined(out, children, " AND ", schema),
        Predicate::Or(children) => {
            out.write_char('(')?;
            joined(out, children, " OR ", schema)?;
            out.write_char(')')
        }
        Predicate::Compare { column: id, op, value } => {
            let op = match op {
                CompareOp::Eq => "=",
                CompareOp::NotEq => "<>",
                CompareOp::Less => "<",
                CompareOp::LessEq => "<=",
                CompareOp::Greater => ">",
                CompareOp::GreaterEq => ">=",
            };
            write!(out, "{} {op} ", name(id))?;
            scalar(out, value, column(id).map(|column| &column.data_type))
        }
        Predicate::In { column: id, values, negated } => {
            write!(out, "{}{} IN (", name(id), if *negated { " NOT" } else { "" })?;
            for (index, value) in values.iter().take(VALUES_SHOWN).enumerate() {
                if index > 0 {
                    out.write_str(", ")?;
                }
                scalar(out, value, column(id).map(|column| &column.data_type))?;
            }
            match values.len().checked_sub(VALUES_SHOWN) {
                Some(more) if more > 0 => write!(out, ", … {more} more)"),
                _ => out.write_char(')'),
            }
        }
        Predicate::Like { column: id, pattern, negated, case_insensitive } => {
            let not = if *negated { "NOT " } else { "" };
            let like = if *case_insensitive { "ILIKE" } else { "LIKE" };
            write!(out, "{} {not}{like} '{pattern}'", name(id))
        }
        Predicate::Matches { column: id, query, negated } => {
            let not = if *negated { "NOT " } else { "" };
            write!(out, "{not}{} @@ {query}", name(id))
        }
        Predicate::Holds { condition, .. } => write!(out, "{condition}"),
        Predicate::IsNull { column: id, negated } => {
            write!(out, "{} IS {}NULL", name(id), if *negated { "NOT " } else { "" })
        }
    }
}

fn joined(out: &mut impl Write, children: &[Predicate], by: &str, schema: &TableSchema) -> fmt::Result {
    for (index, child) in children.iter().enumerate() {
        if index > 0 {
            out.write_str(by)?;
        }
        predicate(out, child, schema)?;
    }
    Ok(())
}

fn scalar(out: &mut impl Write, value: &Scalar, data_type: Option<&DataType>) -> fmt::Result {
    match (value, data_type) {
        (Scalar::Boolean(value), _) => write!(out, "{value}"),
        (Scalar::Int(us), Some(DataType::Timestamp | DataType::TimestampTz)) => {
            match chrono::DateTime::from_timestamp_micros(*us) {
                Some(time) => write!(out, "'{}'", time.format("%Y-%m-%d %H:%M:%S%.f")),
                None => write!(out, "{us}"),
            }
        }
        (Scalar::Int(days), Some(DataType::Date)) => {
            match days.checked_mul(86_400_000_000).and_then(chrono::DateTime::from_timestamp_micros) {
                Some(time) => write!(out, "'{}'", time.format("%Y-%m-%d")),
                None => write!(out, "{days}"),
            }
        }
        (Scalar::Int(value), _) => write!(out, "{value}"),
        (Scalar::Float(value), _) => write!(out, "{value}"),
        (Scalar::Decimal(value), Some(DataType::Numeric { scale, .. })) => {
            let scale = (*scale).max(0) as usize;
            let digits = format!("{:0>width$}", value.unsigned_abs(), width = scale + 1);
            let (whole, fraction) = digits.split_at(digits.len() - scale);
            let sign = if *value < 0 { "-" } else { "" };
            if scale == 0 { write!(out, "{sign}{whole}") } else { write!(out, "{sign}{whole}.{fraction}") }
        }
        (Scalar::Decimal(value), _) => write!(out, "{value}"),
        (Scalar::Text(value), _) => write!(out, "'{value}'"),
        (Scalar::Bytes(value), _) => {
            out.write_str("'\\x")?;
            for byte in value.iter().take(16) {
                write!(out, "{byte:02x}")?;
            }
            out.write_char('\'')
        }
    }
}
