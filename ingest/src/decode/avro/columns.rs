//! Columns that a schema's records have.

use tidemill_storage::schema::DataType;

use super::schema::{Schema, Type, TypeId};
use crate::decode::infer::{COLUMNS_MAX, DEPTH_MAX, Found, Leaf};

/// The error tells a person what is wrong with the schema.
pub(in crate::decode) fn columns(text: &str, referenced: &[&str]) -> Result<Vec<Found>, String> {
    let schema = Schema::parse(text, referenced.iter().copied())?;
    let mut found = Vec::new();
    if let Type::Record(_) = schema.get(schema.root) {
        walk(&schema, schema.root, &mut Vec::new(), &mut found);
    }
    Ok(found)
}

fn walk(schema: &Schema, id: TypeId, path: &mut Vec<String>, found: &mut Vec<Found>) {
    let Type::Record(fields) = schema.get(id) else { return };
    for field in fields {
        if found.len() >= COLUMNS_MAX {
            return;
        }
        path.push(field.name.clone());
        let of = only_branch(schema, field.of);
        match leaf(schema, of).data_type() {
            Some(of) => found.push(Found::new(path, of)),
            None if path.len() < DEPTH_MAX => walk(schema, of, path, found),
            None => found.push(Found::new(path, DataType::Jsonb)),
        }
        path.pop();
    }
}

/// What a union of a type and null is, but for null.
fn only_branch(schema: &Schema, id: TypeId) -> TypeId {
    let Type::Union(branches) = schema.get(id) else { return id };
    let mut others = branches.iter().filter(|branch| !matches!(schema.get(**branch), Type::Null));
    match (others.next(), others.next()) {
        (Some(one), None) => *one,
        _ => id,
    }
}

fn leaf(schema: &Schema, id: TypeId) -> Leaf {
    Leaf::Column(match schema.get(id) {
        Type::Boolean => DataType::Boolean,
        Type::Int => DataType::Int,
        Type::Long => DataType::BigInt,
        Type::Float => DataType::Real,
        Type::Double => DataType::Double,
        Type::Bytes | Type::Fixed(_) => DataType::Bytea,
        Type::String | Type::Enum(_) | Type::Time(_) => DataType::Text,
        Type::Decimal { scale, .. } => match i8::try_from(*scale) {
            Ok(scale @ 0..=38) => DataType::Numeric { precision: 38, scale },
            _ => DataType::Text,
        },
        Type::Json => DataType::Jsonb,
        Type::Uuid => DataType::Uuid,
        Type::Date => DataType::Date,
        Type::Timestamp { is_utc: true, .. } => DataType::TimestampTz,
        Type::Timestamp { is_utc: false, .. } => DataType::Timestamp,
        Type::Null | Type::Map(_) | Type::Union(_) => return Leaf::Document,
        Type::Record(_) => return Leaf::Record,
        // A list of lists is a document, so one step is enough.
        Type::Array(item) => {
            return match leaf_of_item(schema, only_branch(schema, *item)) {
                Some(of) => Leaf::Column(DataType::Array(Box::new(of))),
                None => Leaf::Document,
            };
        }
    })
}

/// The type of elements that an array of ours can have.
fn leaf_of_item(schema: &Schema, id: TypeId) -> Option<DataType> {
    match schema.get(id) {
        Type::Array(_) | Type::Record(_) | Type::Map(_) | Type::Union(_) | Type::Null => None,
        _ => leaf(schema, id).data_type(),
    }
}
