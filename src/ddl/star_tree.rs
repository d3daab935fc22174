//! The definition of a star-tree: its clauses checked against the table, or its dimensions chosen by what sealed segments say of the columns.

use tidemill_query::star_tree::{self, UNITS};
use tidemill_storage::{
    aggregate::{Function, GroupKey, state_type},
    index::{
        StarTree,
        star::{AGGREGATES_MAX, DIMENSIONS_MAX, LEAF_RECORDS},
    },
    scalar::Scalar,
    schema::{Column, DataType},
    table::TableSnapshot,
};

use super::undefined_column;
use crate::{
    catalog::definition::TableDefinition,
    session::error::{Result, SqlError, state},
    sql::{
        ast::{Name, OptionPair, StarAggregate, StarDimension, StarTreeClause},
        options,
    },
    suggest,
};

/// Values that a dimension may have for AUTO, in a segment.
const AUTO_VALUES_MAX: u64 = 10_000;
/// Rows of a value, at least: what nearly every row has one of its own of names the row.
const AUTO_ROWS_MIN: u64 = 10;
/// Dimensions that AUTO takes beside the time.
const AUTO_DIMENSIONS: usize = 5;
const AGGREGATES: [&str; 9] =
    ["count", "sum", "min", "max", "avg", "bool_and", "bool_or", "approx_distinct", "approx_percentile"];

/// Whether `word` is a unit of one length.
pub(super) fn is_unit(word: &str) -> bool {
    star_tree::bin(word).is_some()
}

/// The tree that the clauses describe. What is worth knowing goes to `notices`.
pub(super) fn definition(
    table: &TableDefinition,
    snapshot: Option<&TableSnapshot>,
    clause: &StarTreeClause,
    pairs: &[OptionPair],
    notices: &mut Vec<String>,
) -> Result<StarTree> {
    let dimensions = match &clause.dimensions {
        Some(dimensions) => given(table, dimensions)?,
        None => {
            let dimensions = automatic(table, snapshot, clause.position)?;
            let names: Vec<String> = dimensions.iter().map(|key| star_tree::dimension(key, &table.schema)).collect();
            notices.push(format!("the dimensions are {}", names.join(", ")));
            dimensions
        }
    };
    let aggregates = match &clause.aggregates {
        Some(aggregates) => held(table, aggregates, notices)?,
        None => all_sums(table, &dimensions),
    };
    let mut tree = StarTree { dimensions, aggregates, max_leaf_records: LEAF_RECORDS };
    for pair in pairs {
        option(&mut tree, pair)?;
    }
    Ok(tree)
}

fn option(tree: &mut StarTree, pair: &OptionPair) -> Result<()> {
    if pair.key.value.to_lowercase() != "max_leaf_records" {
        return Err(options::unknown("index", &pair.key.value, ["max_leaf_records"]).at(pair.key.position));
    }
    match pair.value.trim().parse::<u32>() {
        Ok(records) if records > 0 => tree.max_leaf_records = records,
        _ => {
            let message = format!("invalid value for option \"max_leaf_records\": '{}'", pair.value);
            return Err(SqlError::new(state::INVALID_PARAMETER_VALUE, message)
                .at(pair.value_position)
                .with_hint("it is a number of documents, 1 or more"));
        }
    }
    Ok(())
}

fn given(table: &TableDefinition, dimensions: &[StarDimension]) -> Result<Vec<GroupKey>> {
    let mut keys: Vec<GroupKey> = Vec::with_capacity(dimensions.len());
    for dimension in dimensions {
        let key = key(table, dimension)?;
        if keys.contains(&key) {
            let message = format!("dimension {} is given twice", star_tree::dimension(&key, &table.schema));
            return Err(SqlError::new(state::DUPLICATE_COLUMN, message).at(dimension.column.position));
        }
        if keys.len() == DIMENSIONS_MAX {
            let message = format!("a star-tree has at most {DIMENSIONS_MAX} dimensions");
            return Err(SqlError::new(state::PROGRAM_LIMIT_EXCEEDED, message)
                .at(dimension.column.position)
                .with_hint("create several: a query uses the one with the fewest documents"));
        }
        keys.push(key);
    }
    Ok(keys)
}

fn column<'t>(table: &'t TableDefinition, name: &Name) -> Result<&'t Column> {
    table.schema.column_named(&name.value).ok_or_else(|| undefined_column(table, name))
}

fn key(table: &TableDefinition, dimension: &StarDimension) -> Result<GroupKey> {
    let bin = match &dimension.function {
        None => None,
        Some((function, unit, position)) => {
            if function.value != "date_trunc" {
                let message = format!("{}() cannot be a dimension of a star-tree", function.value);
                return Err(SqlError::unsupported(message)
                    .at(function.position)
                    .with_hint("a dimension is a column, or date_trunc('unit', column)"));
            }
            let Some(bin) = star_tree::bin(unit) else {
                let message = format!("unit \"{unit}\" is none that a star-tree can have bins of");
                return Err(SqlError::new(state::INVALID_PARAMETER_VALUE, message)
                    .at(*position)
                    .with_hint(format!("units of one length are {}", UNITS.join(", "))));
            };
            Some(bin)
        }
    };
    let found = column(table, &dimension.column)?;
    let is_time = matches!(found.data_type, DataType::Timestamp | DataType::TimestampTz);
    if bin.is_some() && !is_time {
        let message = format!("date_trunc of column \"{}\" of type {} has no bins", found.name, found.data_type);
        return Err(SqlError::new(state::DATATYPE_MISMATCH, message)
            .at(dimension.column.position)
            .with_hint("it takes a timestamp"));
    }
    let key = GroupKey { column: found.id, bin };
    if !key.is_supported(&found.data_type) {
        let message =
            format!("column \"{}\" of type {} cannot be a dimension of a star-tree", found.name, found.data_type);
        return Err(SqlError::unsupported(message).at(dimension.column.position));
    }
    Ok(key)
}

fn held(table: &TableDefinition, aggregates: &[StarAggregate], notices: &mut Vec<String>) -> Result<Vec<Function>> {
    let mut functions: Vec<Function> = Vec::new();
    for aggregate in aggregates {
        let name = &aggregate.function;
        let functions_here = match &aggregate.column {
            None if name.value == "count" => vec![Function::Rows],
            None => {
                let message = format!("{}(*) is not an aggregate", name.value);
                return Err(SqlError::new(state::UNDEFINED_FUNCTION, message).at(name.position));
            }
            Some(of) => {
                let found = column(table, of)?;
                let functions = functions_of(name, found)?;
                let fits = |function: &Function| state_type(function, Some(&found.data_type)).is_some();
                if !functions.iter().all(fits) {
                    let message =
                        format!("a star-tree cannot hold {}({}) of type {}", name.value, found.name, found.data_type);
                    return Err(SqlError::unsupported(message).at(of.position));
                }
                if matches!(functions[0], Function::Sum(_))
                    && matches!(found.data_type, DataType::Real | DataType::Double)
                {
                    notices.push(format!(
                        "sums of \"{}\" are added in another order than rows are: their last digits may differ",
                        found.name
                    ));
                }
                functions
            }
        };
        for function in functions_here {
            if !functions.contains(&function) {
                functions.push(function);
            }
        }
        if functions.len() > AGGREGATES_MAX {
            let message = format!("a star-tree holds at most {AGGREGATES_MAX} aggregates");
            return Err(SqlError::new(state::PROGRAM_LIMIT_EXCEEDED, message).at(name.position));
        }
    }
    Ok(functions)
}

/// Aggregates that queries have and star-trees do not.
const OTHER_AGGREGATES: &[&str] = &[
    "any_value",
    "array_agg",
    "bit_and",
    "bit_or",
    "bit_xor",
    "corr",
    "covar_pop",
    "covar_samp",
    "every",
    "first",
    "first_value",
    "json_agg",
    "json_object_agg",
    "jsonb_agg",
    "jsonb_object_agg",
    "last",
    "last_value",
    "median",
    "mode",
    "percentile_cont",
    "percentile_disc",
    "regr_avgx",
    "regr_avgy",
    "regr_count",
    "regr_intercept",
    "regr_r2",
    "regr_slope",
    "regr_sxx",
    "regr_sxy",
    "regr_syy",
    "stddev",
    "stddev_pop",
    "stddev_samp",
    "string_agg",
    "var",
    "var_pop",
    "var_samp",
    "variance",
];

fn functions_of(name: &Name, column: &Column) -> Result<Vec<Function>> {
    let id = column.id;
    Ok(match name.value.as_str() {
        "count" => vec![Function::Count(id)],
        "sum" => vec![Function::Sum(id)],
        "avg" => vec![Function::Sum(id), Function::Count(id)],
        "min" => vec![Function::Min(id)],
        "max" => vec![Function::Max(id)],
        "bool_and" => vec![Function::And(id)],
        "bool_or" => vec![Function::Or(id)],
        "approx_distinct" => vec![Function::Distinct(id)],
        "approx_percentile" | "approx_percentile_cont" | "approx_median" => vec![Function::Quantiles(id)],
        other if OTHER_AGGREGATES.contains(&other) => {
            let held = AGGREGATES.join(", ");
            return Err(SqlError::unsupported(format!("aggregate \"{other}\" in a star-tree"))
                .at(name.position)
                .with_hint(format!("A star-tree holds {held}; what else is asked is answered from rows.")));
        }
        other => {
            let hint = suggest::hint(other, AGGREGATES);
            return Err(SqlError::new(state::UNDEFINED_FUNCTION, format!("aggregate \"{other}\" does not exist"))
                .at(name.position)
                .with_hint(hint.unwrap_or_else(|| format!("a star-tree holds {}", AGGREGATES.join(", ")))));
        }
    })
}

/// `count(*)`, and the sums of all exact numbers that are no dimension.
fn all_sums(table: &TableDefinition, dimensions: &[GroupKey]) -> Vec<Function> {
    let is_number = |column: &&Column| {
        use DataType::{BigInt, Int, Numeric, SmallInt};
        matches!(column.data_type, SmallInt | Int | BigInt | Numeric { .. })
            && !dimensions.iter().any(|key| key.column == column.id)
    };
    let sums = table.schema.columns.iter().filter(is_number).map(|column| Function::Sum(column.id));
    std::iter::once(Function::Rows).chain(sums).take(AGGREGATES_MAX).collect()
}

/// What is known of a column: values in the segment that has the most, nulls aside; more than can be where they name the rows.
struct Facts<'t> {
    column: &'t Column,
    values: Option<u64>,
}

/// The dimensions that AUTO would take, as they stand between parentheses; `None` where it finds none.
pub(crate) fn suggested_dimensions(table: &TableDefinition, snapshot: &TableSnapshot) -> Option<String> {
    let keys = automatic(table, Some(snapshot), 0).ok()?;
    let names: Vec<String> = keys.iter().map(|key| star_tree::dimension(key, &table.schema)).collect();
    Some(names.join(", "))
}

fn automatic(table: &TableDefinition, snapshot: Option<&TableSnapshot>, position: u32) -> Result<Vec<GroupKey>> {
    let segments: Vec<_> = snapshot
        .iter()
        .flat_map(|snapshot| snapshot.views.iter().flat_map(|view| view.segments()))
        .filter(|segment| segment.as_committed().is_some() && segment.rows() > 0)
        .collect();
    let prerequisite = |message: String, hint: &str| {
        SqlError::new(state::OBJECT_NOT_IN_PREREQUISITE_STATE, message).at(position).with_hint(hint)
    };
    if segments.is_empty() {
        let message = format!("table \"{}\" has no sealed segment to choose dimensions by", table.name);
        let hint = format!("seal what there is with SELECT rt.seal('{}'), or name the dimensions", table.name);
        return Err(prerequisite(message, &hint));
    }
    let facts = table.schema.columns.iter().map(|column| {
        let values = segments.iter().map(|segment| {
            let stats = segment.stats(column.id)?;
            let range = match (&stats.min, &stats.max) {
                (Some(Scalar::Int(min)), Some(Scalar::Int(max))) => Some(max.abs_diff(*min).saturating_add(1)),
                (Some(Scalar::Boolean(_)), _) => Some(2),
                (None, _) if stats.nulls == u64::from(segment.rows()) => Some(0),
                _ => None,
            };
            let values = [range, stats.distinct].into_iter().flatten().min()?;
            Some(if values.saturating_mul(AUTO_ROWS_MIN) > u64::from(segment.rows()) { u64::MAX } else { values })
        });
        Facts { column, values: values.collect::<Option<Vec<u64>>>().and_then(|values| values.into_iter().max()) }
    });
    let keys = chosen(facts.collect(), table.schema.time_column.and_then(|id| table.schema.column(id)));
    if keys.is_empty() {
        let message = format!("table \"{}\" has no column that is worth being a dimension", table.name);
        let hint = format!(
            "AUTO takes the time column, and columns of 2 to {AUTO_VALUES_MAX} values of at least {AUTO_ROWS_MIN} rows each in a segment"
        );
        return Err(prerequisite(message, &hint));
    }
    Ok(keys)
}

/// Facts in, dimensions out: the columns of few values, those of more values first, then the hours of the time column.
fn chosen(facts: Vec<Facts<'_>>, time: Option<&Column>) -> Vec<GroupKey> {
    let plain = |column: &Column| GroupKey { column: column.id, bin: None };
    let mut few: Vec<(u64, GroupKey)> = facts
        .into_iter()
        .filter(|facts| time.is_none_or(|time| time.id != facts.column.id))
        .filter(|facts| plain(facts.column).is_supported(&facts.column.data_type))
        // Numbers to be counted with are summed.
        .filter(|facts| !matches!(facts.column.data_type, DataType::Numeric { .. }))
        .filter_map(|facts| Some((facts.values?, plain(facts.column))))
        .filter(|(values, _)| (2..=AUTO_VALUES_MAX).contains(values))
        .collect();
    few.sort_by_key(|(values, _)| std::cmp::Reverse(*values));
    few.truncate(AUTO_DIMENSIONS);
    let bin = match time.map(|time| &time.data_type) {
        Some(DataType::Timestamp | DataType::TimestampTz) => star_tree::bin("hour"),
        _ => None,
    };
    let time = time.map(|time| GroupKey { column: time.id, bin });
    few.into_iter().map(|(_, key)| key).chain(time).collect()
}

#[cfg(test)]
mod tests {
    use tidemill_storage::ids::ColumnId;

    use super::*;

    #[test]
    fn columns_of_few_values_become_dimensions() {
        let numeric = DataType::Numeric { precision: 10, scale: 2 };
        let columns: Vec<Column> = [
            (DataType::BigInt, Some(1_000_000)),
            (DataType::BigInt, Some(8_000)),
            (DataType::Text, Some(5)),
            (DataType::Text, None),
            (DataType::Double, Some(7)),
            (numeric, Some(7)),
            (DataType::Int, Some(1)),
            (DataType::Uuid, Some(400)),
            (DataType::TimestampTz, Some(9_000)),
        ]
        .into_iter()
        .enumerate()
        .map(|(id, (data_type, _))| Column::new(ColumnId(id as u32), format!("c{id}"), data_type))
        .collect();
        let values = [Some(1_000_000), Some(8_000), Some(5), None, Some(7), Some(7), Some(1), Some(400), Some(9_000)];
        let facts = || columns.iter().zip(values).map(|(column, values)| Facts { column, values }).collect();
        let key = |id: u32| GroupKey { column: ColumnId(id), bin: None };
        let hours = GroupKey { column: ColumnId(8), bin: star_tree::bin("hour") };
        assert_eq!(chosen(facts(), Some(&columns[8])), [key(1), key(7), key(2), hours]);
        assert_eq!(chosen(facts(), None), [key(8), key(1), key(7), key(2)]);
        assert_eq!(chosen(Vec::new(), None), []);
    }
}
