//! Databases, roles, settings, backends: what the catalogs say of the server itself.

use tidemill_storage::schema::DataType;

use super::{
    OWNER,
    relations::{OWNER_OID, PUBLIC_OID, Relations},
    rows::{Cell, Rows},
    types,
};
use crate::{catalog::DATABASE, functions::user::Language};

pub(super) const DATABASE_OID: i32 = 16_384;
/// Of configured users, in the order of the configuration.
const FIRST_USER_OID: i32 = 16_385;
const UTF8: i32 = 6;

pub(super) fn fill(relations: &Relations, name: &str, rows: &mut Rows) {
    match name {
        "pg_database" => rows.add([
            ("oid", DATABASE_OID.into()),
            ("datname", DATABASE.into()),
            ("datdba", OWNER_OID.into()),
            ("encoding", UTF8.into()),
            ("datlocprovider", "c".into()),
            ("datallowconn", true.into()),
            ("datconnlimit", Cell::Int(-1)),
            ("dattablespace", 1663.into()),
            ("datcollate", "C".into()),
            ("datctype", "C.UTF-8".into()),
        ]),
        "pg_roles" | "pg_user" | "pg_authid" | "pg_shadow" => roles(name, relations, rows),
        "pg_tablespace" => {
            rows.instead().add([
                ("oid", 1663.into()),
                ("spcname", "pg_default".into()),
                ("spcowner", OWNER_OID.into()),
            ]);
        }
        "pg_language" => {
            for language in Language::ALL {
                rows.add([
                    ("oid", language.oid().into()),
                    ("lanname", language.name().into()),
                    ("lanowner", OWNER_OID.into()),
                    ("lanispl", true.into()),
                    ("lanpltrusted", true.into()),
                ]);
            }
        }
        "pg_proc" => user_functions(relations, rows),
        "pg_settings" => settings(relations, rows),
        "pg_stat_activity" => activity(relations, rows),
        "pg_timezone_names" => {
            for zone in chrono_tz::TZ_VARIANTS {
                rows.add([("name", zone.name().into()), ("abbrev", zone.name().into()), ("is_dst", false.into())]);
            }
        }
        "pg_stat_database" => {
            rows.add([("datid", DATABASE_OID.into()), ("datname", DATABASE.into()), ("numbackends", 1.into())]);
        }
        "pg_type" => {
            // uuid, jsonb and the others are in the static rows; nothing of ours is a type of its own.
            let _ = types::TEXT;
        }
        _ => {}
    }
}

/// The owner, then the configured users, all of them as mighty, with their oids.
pub(super) fn all_roles(relations: &Relations) -> Vec<(i32, String, bool)> {
    let users = relations.engine().map(|engine| engine.users()).unwrap_or_default();
    // Where nobody is configured, anybody may connect, as the owner.
    let mut roles = vec![(OWNER_OID, OWNER.to_owned(), users.is_empty() || users.iter().any(|user| user == OWNER))];
    let others = users.into_iter().filter(|user| user != OWNER);
    roles.extend(others.zip(FIRST_USER_OID..).map(|(user, oid)| (oid, user, true)));
    roles
}

fn roles(view: &str, relations: &Relations, rows: &mut Rows) {
    for (oid, name, can_login) in all_roles(relations) {
        role(view, oid, &name, can_login, rows);
    }
}

fn role(view: &str, oid: i32, name: &str, can_login: bool, rows: &mut Rows) {
    match view {
        "pg_roles" | "pg_authid" => rows.add([
            ("oid", oid.into()),
            ("rolname", name.into()),
            ("rolsuper", true.into()),
            ("rolinherit", true.into()),
            ("rolcreaterole", true.into()),
            ("rolcreatedb", true.into()),
            ("rolcanlogin", can_login.into()),
            ("rolreplication", true.into()),
            ("rolbypassrls", true.into()),
            ("rolconnlimit", Cell::Int(-1)),
        ]),
        _ => rows.add([
            ("usename", name.into()),
            ("usesysid", oid.into()),
            ("usecreatedb", true.into()),
            ("usesuper", true.into()),
            ("userepl", true.into()),
            ("usebypassrls", true.into()),
        ]),
    }
}

/// Functions of users, beside PostgreSQL's.
fn user_functions(relations: &Relations, rows: &mut Rows) {
    let Some(engine) = relations.engine() else { return };
    for function in engine.user_functions() {
        let declaration = function.declaration();
        let oid_of = |data_type: &DataType| types::of_field(&data_type.field("", true)).oid;
        let arguments = &declaration.arguments;
        let types: Vec<String> = arguments.iter().map(|(_, data_type)| oid_of(data_type).to_string()).collect();
        let mut cells: Vec<(&str, Cell)> = vec![
            ("oid", (declaration.oid as i32).into()),
            ("proname", declaration.name.as_str().into()),
            ("pronamespace", PUBLIC_OID.into()),
            ("proowner", OWNER_OID.into()),
            ("prolang", function.language().oid().into()),
            ("procost", 1.0.into()),
            ("prokind", "f".into()),
            ("proisstrict", (!declaration.called_on_null).into()),
            ("provolatile", "i".into()),
            ("proparallel", "s".into()),
            ("pronargs", (arguments.len() as i32).into()),
            ("prorettype", oid_of(&declaration.returns).into()),
            ("proargtypes", types.join(" ").into()),
            ("prosrc", function.symbol().into()),
        ];
        if arguments.iter().any(|(name, _)| name.is_some()) {
            let names = arguments.iter().map(|(name, _)| name.clone().unwrap_or_default());
            cells.push(("proargnames", names.collect::<Vec<_>>().into()));
        }
        rows.add(cells);
    }
}

fn settings(relations: &Relations, rows: &mut Rows) {
    let Some(engine) = relations.engine() else { return };
    for (name, value, description) in engine.default_settings() {
        rows.add([
            ("name", name.into()),
            ("setting", value.clone().into()),
            ("category", "Tidemill".into()),
            ("short_desc", description.into()),
            ("context", "user".into()),
            ("vartype", "string".into()),
            ("source", "default".into()),
            ("boot_val", value.clone().into()),
            ("reset_val", value.into()),
            ("pending_restart", false.into()),
        ]);
    }
}

fn activity(relations: &Relations, rows: &mut Rows) {
    let Some(engine) = relations.engine() else { return };
    for query in engine.queries().running() {
        rows.add([
            ("datid", DATABASE_OID.into()),
            ("datname", DATABASE.into()),
            ("pid", Cell::Int(query.pid.into())),
            ("usesysid", OWNER_OID.into()),
            ("usename", query.user.clone().into()),
            ("query_start", query.started_us.into()),
            ("state", "active".into()),
            ("query", query.sql.as_ref().into()),
            ("backend_type", "client backend".into()),
        ]);
    }
}
