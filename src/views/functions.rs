//! The view of functions that users made.

use tidemill_query::SqlError;

use super::{
    Rows,
    rows::{
        Cell,
        Kind::{self, Int, Text, Time},
    },
};
use crate::{catalog::definition::FunctionDefinition, server::instance::Instance};

pub(super) const FUNCTIONS: &[(&str, Kind)] = &[
    ("oid", Int),
    ("name", Text),
    ("arguments", Text),
    ("returns", Text),
    ("language", Text),
    ("symbol", Text),
    ("module", Text),
    ("path", Text),
    ("created_at", Time),
    ("error", Text),
];

pub(super) fn functions(instance: &Instance) -> Result<Rows, SqlError> {
    let definitions = instance.catalog.definitions();
    Ok(definitions.functions.values().map(|function| row(instance, function)).collect())
}

fn row(instance: &Instance, function: &FunctionDefinition) -> Vec<Cell> {
    let arguments = function.arguments.iter().map(|argument| match &argument.name {
        Some(name) => format!("{name} {}", argument.data_type),
        None => argument.data_type.to_string(),
    });
    vec![
        function.oid.into(),
        function.name.as_str().into(),
        arguments.collect::<Vec<_>>().join(", ").into(),
        function.returns.to_string().into(),
        function.language.name().into(),
        function.symbol.as_str().into(),
        function.module.as_str().into(),
        function.path.as_deref().into(),
        Cell::Time(function.created_at_us),
        instance.functions.broken(&function.name).into(),
    ]
}
