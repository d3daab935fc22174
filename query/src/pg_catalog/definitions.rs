//! The relations of `relations.txt`: schema, name, oid, columns.

use std::{
    collections::HashMap,
    sync::{Arc, LazyLock},
};

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};

/// Key of the Arrow field metadata that marks oid columns; the value is the PostgreSQL type (`oid`, `regproc`, `regtype`).
pub const OID_KEY: &str = "pg.oid_alias";

#[derive(Debug)]
pub(super) struct Definition {
    pub(super) schema: String,
    pub(super) name: String,
    /// `r` or `v`.
    pub(super) kind: String,
    pub(super) oid: i32,
    pub(super) columns: Vec<ColumnDefinition>,
    pub(super) arrow: SchemaRef,
}

#[derive(Debug)]
pub(super) struct ColumnDefinition {
    pub(super) name: String,
    /// `pg_type.typname`.
    pub(super) type_name: String,
    pub(super) not_null: bool,
}

static ALL: LazyLock<Vec<Definition>> = LazyLock::new(|| include_str!("relations.txt").lines().map(parse).collect());

static BY_NAME: LazyLock<HashMap<(&str, &str), usize>> =
    LazyLock::new(|| ALL.iter().enumerate().map(|(i, d)| ((d.schema.as_str(), d.name.as_str()), i)).collect());

pub(super) fn all() -> &'static [Definition] {
    &ALL
}

pub(super) fn find(schema: &str, name: &str) -> Option<&'static Definition> {
    BY_NAME.get(&(schema, name)).map(|i| &ALL[*i])
}

fn parse(line: &str) -> Definition {
    let mut words = line.split(' ');
    let mut word = || words.next().expect("relations.txt: schema.name kind oid columns…");
    let (schema, name) = word().split_once('.').expect("relations.txt: schema.name");
    let kind = word().to_owned();
    let oid = word().parse().expect("relations.txt: an oid");
    let columns: Vec<ColumnDefinition> = words
        .map(|column| {
            let (name, type_name) = column.split_once(':').expect("relations.txt: column:type");
            ColumnDefinition {
                name: name.to_owned(),
                type_name: type_name.trim_end_matches('!').to_owned(),
                not_null: type_name.ends_with('!'),
            }
        })
        .collect();
    let arrow = Arc::new(Schema::new(columns.iter().map(field).collect::<Vec<_>>()));
    Definition { schema: schema.to_owned(), name: name.to_owned(), kind, oid, columns, arrow }
}

fn field(column: &ColumnDefinition) -> Field {
    let field = Field::new(&column.name, arrow_type(&column.name, &column.type_name), true);
    match column.type_name.as_str() {
        "oid" | "regproc" | "regtype" => {
            field.with_metadata(HashMap::from([(OID_KEY.to_owned(), column.type_name.clone())]))
        }
        _ => field,
    }
}

/// How a catalog column is kept. Names, chars and everything exotic are text, as clients read them.
fn arrow_type(name: &str, type_name: &str) -> DataType {
    match type_name {
        "bool" => DataType::Boolean,
        "int2" => DataType::Int16,
        "int4" | "oid" | "xid" => DataType::Int32,
        "int8" => DataType::Int64,
        "float4" => DataType::Float32,
        "float8" => DataType::Float64,
        "timestamptz" => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        "bytea" => DataType::Binary,
        "int2vector" => list(DataType::Int16),
        // As text, "23 25": how it prints, and nobody subscripts those of pg_proc but its own functions.
        "oidvector" if name == "proargtypes" => DataType::Utf8,
        "oidvector" => list(DataType::Int32),
        _ => match type_name.strip_prefix('_') {
            Some(item) => list(arrow_type(name, item)),
            None => DataType::Utf8,
        },
    }
}

fn list(item: DataType) -> DataType {
    DataType::List(Arc::new(Field::new("item", item, true)))
}
