//! Advice about a source: what its messages are, beside what it says of them.

use std::{collections::BTreeMap, sync::Arc};

use tidemill_storage::schema::DataType;

use super::{Proposal, quoted};
use crate::{
    catalog::definition::{SourceColumnDefinition, SourceDefinition},
    ddl,
    server::instance::Instance,
    session::error::Result,
};

/// Messages that are looked at.
const SAMPLE: usize = 10_000;

pub(crate) async fn of_source(instance: &Arc<Instance>, source: &SourceDefinition) -> Result<Vec<Proposal>> {
    let (inferred, said) = ddl::inferred_columns(instance, source, SAMPLE).await?;
    Ok(proposals(&source.columns, &inferred, &said))
}

/// Where a column stands in a message.
fn place(column: &SourceColumnDefinition) -> String {
    column.path.clone().unwrap_or_else(|| format!("$.{}", column.name))
}

fn definition(column: &SourceColumnDefinition) -> String {
    let path = column.path.as_ref().map_or(String::new(), |path| format!(" PATH '{}'", path.replace('\'', "''")));
    let epoch = column.epoch.as_ref().map_or(String::new(), |epoch| format!(" EPOCH '{epoch}'"));
    format!("{} {}{path}{epoch}", quoted(&column.name), column.data_type)
}

/// Columns as they are and as a sample would have them in, proposals out.
fn proposals(declared: &[SourceColumnDefinition], inferred: &[SourceColumnDefinition], said: &str) -> Vec<Proposal> {
    let found: BTreeMap<String, &SourceColumnDefinition> =
        inferred.iter().map(|column| (place(column), column)).collect();
    let mut all = Vec::new();
    let propose = |column: &str, proposal: String, reason: String| Proposal {
        column: Some(column.to_owned()),
        kind: "type",
        proposal,
        reason,
        statement: None,
    };
    for column in declared {
        match found.get(&place(column)) {
            Some(better) if better.data_type != column.data_type && is_better(&column.data_type, &better.data_type) => {
                let reason =
                    format!("it is {} now, and this is what its values in a sample are ({said})", column.data_type);
                all.push(propose(
                    &column.name,
                    definition(&SourceColumnDefinition { name: column.name.clone(), ..(*better).clone() }),
                    reason,
                ));
            }
            Some(_) => {}
            // A document has columns of its members.
            None if column.path.as_deref() == Some("$") || column.data_type == DataType::Jsonb => {}
            None => all.push(propose(
                &column.name,
                "no column".into(),
                format!("no message of a sample has anything at {} ({said})", place(column)),
            )),
        }
    }
    let has_place = |place_of: &str| {
        declared.iter().any(|column| {
            let known = place(column);
            known == place_of || place_of.strip_prefix(&known).is_some_and(|rest| rest.starts_with('.')) && known != "$"
        })
    };
    for column in inferred.iter().filter(|column| !has_place(&place(column))) {
        all.push(propose(
            &column.name,
            definition(column),
            format!("messages have it, and the source has no column of it ({said})"),
        ));
    }
    all
}

/// Whether a sample's type says more than the one that is declared: a number that is wider than its sample is nobody's mistake.
fn is_better(declared: &DataType, sampled: &DataType) -> bool {
    use DataType::{BigInt, Double, Jsonb, Numeric, Real, Text};
    match (declared, sampled) {
        (Text, Text | Jsonb) | (Jsonb, _) => false,
        (Text, _) => true,
        // Values that do not fit become dead letters.
        (_, Text | Jsonb) => true,
        (declared, sampled) if declared.widens_to(sampled) => true,
        // Digits after the point.
        (BigInt | DataType::Int | DataType::SmallInt, Numeric { .. } | Double | Real) => true,
        (Double | Real, Numeric { .. }) => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_tells_what_fits_better() {
        let column = |name: &str, data_type: DataType, path: Option<&str>| SourceColumnDefinition {
            name: name.to_owned(),
            data_type,
            nullable: true,
            path: path.map(str::to_owned),
            epoch: None,
            in_key: false,
        };
        let declared = [
            column("id", DataType::Text, None),
            column("n", DataType::BigInt, None),
            column("small", DataType::Int, None),
            column("gone", DataType::BigInt, None),
            column("whole", DataType::Jsonb, Some("$")),
            column("place", DataType::Jsonb, None),
            column("city", DataType::Text, Some("$.address.city")),
        ];
        let inferred = [
            column("id", DataType::Uuid, None),
            column("n", DataType::BigInt, None),
            column("small", DataType::BigInt, None),
            column("place_zip", DataType::Text, Some("$.place.zip")),
            column("address_city", DataType::Text, Some("$.address.city")),
            column("address_street", DataType::Text, Some("$.address.street")),
        ];
        let found = proposals(&declared, &inferred, "10 messages");
        let found: Vec<_> =
            found.iter().map(|one| (one.column.as_deref().unwrap_or_default(), one.proposal.as_str())).collect();
        assert_eq!(
            found,
            [
                ("id", "id uuid"),
                ("small", "small bigint"),
                ("gone", "no column"),
                ("address_street", "address_street text PATH '$.address.street'"),
            ]
        );
    }
}
