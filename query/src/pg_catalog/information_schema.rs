//! `information_schema`: the same relations in the words of the SQL standard.

use super::{
    OWNER,
    relations::{Relation, Relations},
    rows::{Cell, Rows},
};
use crate::catalog::DATABASE;

pub(super) fn fill(relations: &Relations, name: &str, rows: &mut Rows) {
    match name {
        "schemata" => {
            for (_, schema) in relations.schemas() {
                rows.add([
                    ("catalog_name", DATABASE.into()),
                    ("schema_name", schema.into()),
                    ("schema_owner", OWNER.into()),
                ]);
            }
        }
        "tables" => {
            relations
                .all()
                .iter()
                .filter(|relation| relation.index.is_none())
                .for_each(|relation| table(relation, rows));
        }
        "columns" => {
            relations
                .all()
                .iter()
                .filter(|relation| relation.index.is_none())
                .for_each(|relation| columns(relation, rows));
        }
        "table_constraints" | "key_column_usage" => {
            for relation in relations.own() {
                let Some(of) = relation.index.as_ref().filter(|_| relation.primary_key().is_some()) else { continue };
                let named = || -> Vec<(&'static str, Cell)> {
                    vec![
                        ("constraint_catalog", DATABASE.into()),
                        ("constraint_schema", relation.schema.as_str().into()),
                        ("constraint_name", relation.name.as_str().into()),
                        ("table_catalog", DATABASE.into()),
                        ("table_schema", relation.schema.as_str().into()),
                        ("table_name", of.table_name.as_str().into()),
                    ]
                };
                if name == "table_constraints" {
                    let kind: [(&str, Cell); 4] = [
                        ("constraint_type", "PRIMARY KEY".into()),
                        ("is_deferrable", "NO".into()),
                        ("initially_deferred", "NO".into()),
                        ("enforced", "YES".into()),
                    ];
                    rows.add(named().into_iter().chain(kind));
                    continue;
                }
                for (at, column) in (1..).zip(&relation.columns) {
                    let place: [(&str, Cell); 2] =
                        [("column_name", column.name.as_str().into()), ("ordinal_position", Cell::Int(at))];
                    rows.add(named().into_iter().chain(place));
                }
            }
        }
        "views" => {
            for relation in relations.all().iter().filter(|relation| relation.kind == "v") {
                rows.add([
                    ("table_catalog", DATABASE.into()),
                    ("table_schema", relation.schema.as_str().into()),
                    ("table_name", relation.name.as_str().into()),
                    ("check_option", "NONE".into()),
                    ("is_updatable", "NO".into()),
                    ("is_insertable_into", "NO".into()),
                ]);
            }
        }
        "information_schema_catalog_name" => rows.add([("catalog_name", DATABASE.into())]),
        "enabled_roles" | "applicable_roles" if name == "enabled_roles" => {
            rows.add([("role_name", OWNER.into())]);
        }
        "character_sets" => rows.add([
            ("character_set_name", "UTF8".into()),
            ("character_repertoire", "UCS".into()),
            ("form_of_use", "UTF8".into()),
            ("default_collate_catalog", DATABASE.into()),
            ("default_collate_schema", "pg_catalog".into()),
            ("default_collate_name", "C".into()),
        ]),
        "table_privileges" | "role_table_grants" => {
            for relation in relations.own().into_iter().filter(|relation| relation.index.is_none()) {
                for privilege in if relation.kind == "r" { &["INSERT", "SELECT"][..] } else { &["SELECT"][..] } {
                    rows.add([
                        ("grantor", OWNER.into()),
                        ("grantee", OWNER.into()),
                        ("table_catalog", DATABASE.into()),
                        ("table_schema", relation.schema.as_str().into()),
                        ("table_name", relation.name.as_str().into()),
                        ("privilege_type", (*privilege).into()),
                        ("is_grantable", "YES".into()),
                        ("with_hierarchy", "NO".into()),
                    ]);
                }
            }
        }
        _ => {}
    }
}

fn table(relation: &Relation, rows: &mut Rows) {
    rows.add([
        ("table_catalog", DATABASE.into()),
        ("table_schema", relation.schema.as_str().into()),
        ("table_name", relation.name.as_str().into()),
        ("table_type", if relation.kind == "r" { "BASE TABLE" } else { "VIEW" }.into()),
        ("is_insertable_into", if relation.kind == "r" { "YES" } else { "NO" }.into()),
        ("is_typed", "NO".into()),
    ]);
}

fn columns(relation: &Relation, rows: &mut Rows) {
    for (i, column) in relation.columns.iter().enumerate() {
        let array = column.pg_type.name.starts_with('_');
        let mut cells: Vec<(&'static str, Cell)> = vec![
            ("table_catalog", DATABASE.into()),
            ("table_schema", relation.schema.as_str().into()),
            ("table_name", relation.name.as_str().into()),
            ("column_name", column.name.as_str().into()),
            ("ordinal_position", (i as i32 + 1).into()),
            ("is_nullable", if column.not_null { "NO" } else { "YES" }.into()),
            ("data_type", if array { "ARRAY" } else { column.pg_type.sql_name }.into()),
            ("udt_catalog", DATABASE.into()),
            ("udt_schema", "pg_catalog".into()),
            ("udt_name", column.pg_type.name.into()),
            ("dtd_identifier", (i + 1).to_string().into()),
            ("is_self_referencing", "NO".into()),
            ("is_identity", "NO".into()),
            ("is_generated", "NEVER".into()),
            ("is_updatable", if relation.kind == "r" { "YES" } else { "NO" }.into()),
        ];
        if let Some(default) = &column.default {
            cells.push(("column_default", default.as_str().into()));
        }
        let numeric: Option<(i32, i32, Option<i32>)> = match column.pg_type.name {
            "int2" => Some((16, 2, Some(0))),
            "int4" => Some((32, 2, Some(0))),
            "int8" => Some((64, 2, Some(0))),
            "float4" => Some((24, 2, None)),
            "float8" => Some((53, 2, None)),
            "numeric" if column.pg_type.modifier >= 4 => {
                let packed = column.pg_type.modifier - 4;
                Some((packed >> 16, 10, Some(packed & 0x7ff)))
            }
            _ => None,
        };
        if let Some((precision, radix, scale)) = numeric {
            cells.push(("numeric_precision", precision.into()));
            cells.push(("numeric_precision_radix", radix.into()));
            if let Some(scale) = scale {
                cells.push(("numeric_scale", scale.into()));
            }
        }
        match column.pg_type.name {
            "timestamp" | "timestamptz" | "time" | "interval" => cells.push(("datetime_precision", 6.into())),
            "date" => cells.push(("datetime_precision", 0.into())),
            "text" | "varchar" => cells.push(("character_octet_length", (1 << 30).into())),
            _ => {}
        }
        rows.add(cells);
    }
}
