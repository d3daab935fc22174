//! Star-trees as SQL writes them: bins of time by their units, the clauses of their definition.

use tidemill_storage::{
    aggregate::{Bin, Function, GroupKey},
    index::{StarTree, star::LEAF_RECORDS},
    schema::TableSchema,
};

use crate::{functions::datetime::trunc, pg_catalog::quote_ident};

/// Units of `date_trunc` that have one length, the shortest first.
pub const UNITS: [&str; 7] = ["microsecond", "millisecond", "second", "minute", "hour", "day", "week"];

/// The bins of `date_trunc(unit, time)` in UTC; `None` for units without one length, and for what is none.
pub fn bin(unit: &str) -> Option<Bin> {
    let (width, origin) = trunc::fixed_length(unit)?;
    Some(Bin { width, origin })
}

/// A dimension: `city`, `date_trunc('hour', ts)`.
pub fn dimension(key: &GroupKey, schema: &TableSchema) -> String {
    let name = schema.column(key.column).map_or("?", |column| column.name.as_str());
    match key.bin {
        None => quote_ident(name),
        Some(known) => {
            let unit = UNITS.into_iter().find(|unit| bin(unit) == Some(known)).unwrap_or("?");
            format!("date_trunc('{unit}', {})", quote_ident(name))
        }
    }
}

/// The dimensions, as they stand between parentheses.
pub fn dimensions(tree: &StarTree, schema: &TableSchema) -> String {
    tree.dimensions.iter().map(|key| dimension(key, schema)).collect::<Vec<_>>().join(", ")
}

/// The aggregates, as they stand between parentheses.
pub fn aggregates(tree: &StarTree, schema: &TableSchema) -> String {
    let text = |function: &Function| {
        let column = function.column().and_then(|id| schema.column(id)).map_or("?", |column| column.name.as_str());
        let column = quote_ident(column);
        match function {
            Function::Rows => "count(*)".to_owned(),
            Function::Count(_) => format!("count({column})"),
            Function::Sum(_) => format!("sum({column})"),
            Function::Min(_) => format!("min({column})"),
            Function::Max(_) => format!("max({column})"),
            Function::And(_) => format!("bool_and({column})"),
            Function::Or(_) => format!("bool_or({column})"),
            Function::Distinct(_) | Function::DistinctOf(_) => format!("approx_distinct({column})"),
            Function::Quantiles(_) | Function::QuantilesOf(_) => format!("approx_percentile({column})"),
            // No documents keep these.
            Function::Mean(_)
            | Function::Squares(_)
            | Function::Set(_)
            | Function::First { .. }
            | Function::Last { .. } => "?".to_owned(),
        }
    };
    tree.aggregates.iter().map(text).collect::<Vec<_>>().join(", ")
}

/// What follows `USING star_tree`.
pub(crate) fn definition(tree: &StarTree, schema: &TableSchema) -> String {
    let options = match tree.max_leaf_records {
        LEAF_RECORDS => String::new(),
        records => format!(" WITH (max_leaf_records='{records}')"),
    };
    format!("({}) AGGREGATE ({}){options}", dimensions(tree, schema), aggregates(tree, schema))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_lead_to_bins_that_differ() {
        let mut bins: Vec<Bin> = UNITS.into_iter().map(|unit| bin(unit).unwrap()).collect();
        assert!(bins.is_sorted_by_key(|bin| bin.width));
        bins.dedup();
        assert_eq!(bins.len(), UNITS.len());
        assert_eq!(bin("month"), None);
        assert_eq!(bin("lower"), None);
    }
}
