//! Schemas, relations and columns: `pg_namespace`, `pg_class`, `pg_attribute` and the views over them.

use std::sync::{Arc, LazyLock, Weak};

use arrow::datatypes::{Field, SchemaRef};
use futures::FutureExt;
use tidemill_storage::{
    index::{IndexKind, IndexSpec},
    scalar::Scalar,
    schema::Compression,
    table::TableSnapshot,
    upsert::KeySpec,
};

use super::{
    OWNER, definitions,
    rows::{Cell, Rows},
    types,
};
use crate::{Engine, TableHandle, star_tree};

pub(super) const OWNER_OID: i32 = 10;
pub(super) const PUBLIC_OID: i32 = 2200;
/// Views of other schemas of ours have no stored oid: they are numbered from here, in the order of their names.
const VIEW_OIDS: i32 = 14_000;
const SCHEMA_OIDS: i32 = 13_900;
const HEAP: i32 = 2;
/// The method of indexes that stand for primary keys, which clients know by this name.
const BTREE: i32 = 403;
/// Primary keys have no stored oids: their indexes and constraints are numbered from these by the oids of their tables.
const PRIMARY_KEY_INDEXES: i32 = 0x4000_0000;
const PRIMARY_KEYS: i32 = 0x5000_0000;

/// A relation as the catalogs see it.
pub(super) struct Relation {
    pub(super) oid: i32,
    pub(super) schema: String,
    pub(super) schema_oid: i32,
    pub(super) name: String,
    /// `r` table, `v` view, `i` index.
    pub(super) kind: &'static str,
    pub(super) columns: Vec<RelationColumn>,
    pub(super) rows: i64,
    pub(super) bytes: i64,
    /// Of a view of a user: its query.
    pub(super) query: Option<Arc<str>>,
    /// Of an index: what it is of.
    pub(super) index: Option<IndexOf>,
    pub(super) has_indexes: bool,
}

/// What is to be known of an index beside its name.
pub(super) struct IndexOf {
    pub(super) table: i32,
    pub(super) table_name: String,
    /// `None`: a primary key, which is no index of ours.
    kind: Option<IndexKind>,
    /// Of a star-tree: what follows its kind.
    definition: Option<String>,
    /// Numbers of its columns in the table, from 1.
    numbers: Vec<i64>,
    /// Every segment has it.
    is_built: bool,
}

pub(super) struct RelationColumn {
    pub(super) name: String,
    pub(super) pg_type: types::PgType,
    pub(super) not_null: bool,
    /// As an SQL expression.
    pub(super) default: Option<String>,
    pub(super) compression: Compression,
}

impl Relation {
    /// The oid of the constraint that the relation stands for, if it does for a primary key.
    pub(super) fn primary_key(&self) -> Option<i32> {
        let of = self.index.as_ref().filter(|of| of.kind.is_none())?;
        Some(PRIMARY_KEYS + of.table)
    }

    /// `PRIMARY KEY (a, b)`, as `pg_get_constraintdef` gives it.
    pub(super) fn constraint_definition(&self) -> String {
        let columns: Vec<String> = self.columns.iter().map(|column| quote_ident(&column.name)).collect();
        format!("PRIMARY KEY ({})", columns.join(", "))
    }
}

impl RelationColumn {
    fn of_field(field: &Field) -> Self {
        Self {
            name: field.name().clone(),
            pg_type: types::of_field(field),
            not_null: !field.is_nullable(),
            default: None,
            compression: Compression::Default,
        }
    }
}

/// What the catalogs ask the engine.
pub(super) struct Relations {
    engine: Weak<Engine>,
}

impl Relations {
    pub(super) fn new(engine: &Weak<Engine>) -> Self {
        Self { engine: Weak::clone(engine) }
    }

    pub(super) fn engine(&self) -> Option<Arc<Engine>> {
        self.engine.upgrade()
    }

    /// Schema names with oids.
    pub(super) fn schemas(&self) -> Vec<(i32, String)> {
        let mut schemas = vec![
            (11, "pg_catalog".to_owned()),
            (PUBLIC_OID, "public".to_owned()),
            (13_470, "information_schema".to_owned()),
        ];
        if let Some(engine) = self.engine() {
            let others =
                engine.schema_names().into_iter().filter(|name| !schemas.iter().any(|(_, known)| known == name));
            let others: Vec<_> = others.enumerate().map(|(i, name)| (SCHEMA_OIDS + i as i32, name)).collect();
            schemas.extend(others);
        }
        schemas
    }

    /// User tables and the views of our own schemas.
    pub(super) fn own(&self) -> Vec<Relation> {
        let Some(engine) = self.engine() else { return Vec::new() };
        let mut relations = Vec::new();
        for handle in engine.tables.tables() {
            let schema = handle.table.schema();
            let snapshot = handle.table.snapshot();
            let bytes =
                snapshot.views.iter().flat_map(|view| view.segments()).map(|segment| segment.bytes()).sum::<u64>();
            let columns = schema
                .columns
                .iter()
                .map(|column| RelationColumn {
                    not_null: !column.nullable,
                    compression: column.compression,
                    default: column.default.as_ref().map(|value| default_sql(value, &column.data_type.to_string())),
                    ..RelationColumn::of_field(&column.data_type.field(&column.name, column.nullable))
                })
                .collect();
            relations.push(Relation {
                oid: handle.oid as i32,
                schema: "public".into(),
                schema_oid: PUBLIC_OID,
                name: handle.name.clone(),
                kind: "r",
                columns,
                rows: snapshot.rows() as i64,
                bytes: bytes as i64,
                query: None,
                index: None,
                has_indexes: !snapshot.indexes.is_empty() || handle.table.key().is_some(),
            });
            relations.extend(handle.table.key().map(|key| primary_key(&handle, &snapshot, key)));
            relations.extend(snapshot.indexes.iter().map(|spec| index(&handle, &snapshot, spec)));
        }
        for view in engine.tables.views() {
            let columns = view.columns.iter().map(|column| RelationColumn {
                name: column.name.clone(),
                pg_type: types::PgType {
                    modifier: column.modifier,
                    ..types::named(&column.type_name).unwrap_or(types::TEXT)
                },
                not_null: false,
                default: None,
                compression: Compression::Default,
            });
            relations.push(Relation {
                oid: view.oid as i32,
                schema: "public".into(),
                schema_oid: PUBLIC_OID,
                columns: columns.collect(),
                name: view.name,
                kind: "v",
                rows: 0,
                bytes: 0,
                query: Some(view.query),
                index: None,
                has_indexes: false,
            });
        }
        let mut oid = VIEW_OIDS;
        for (schema_oid, schema) in self.schemas() {
            if ["pg_catalog", "information_schema", "public"].contains(&schema.as_str()) {
                continue;
            }
            let Some(provider) = engine.schema_named(&schema) else { continue };
            let mut names = provider.table_names();
            names.sort();
            for name in names {
                // Providers of ours answer at once.
                let arrow: Option<SchemaRef> =
                    provider.table(&name).now_or_never().and_then(Result::ok).flatten().map(|table| table.schema());
                let columns =
                    arrow.iter().flat_map(|arrow| arrow.fields().iter()).map(|field| RelationColumn::of_field(field));
                relations.push(Relation {
                    oid,
                    schema: schema.clone(),
                    schema_oid,
                    columns: columns.collect(),
                    name,
                    kind: "v",
                    rows: 0,
                    bytes: 0,
                    query: None,
                    index: None,
                    has_indexes: false,
                });
                oid += 1;
            }
        }
        relations
    }

    /// All relations: our own and the catalogs'.
    pub(super) fn all(&self) -> Vec<Relation> {
        let mut relations = self.own();
        relations.extend(definitions::all().iter().map(|definition| {
            Relation {
                oid: definition.oid,
                schema: definition.schema.clone(),
                schema_oid: if definition.schema == "pg_catalog" { 11 } else { 13_470 },
                name: definition.name.clone(),
                kind: if definition.kind == "r" { "r" } else { "v" },
                columns: definition
                    .columns
                    .iter()
                    .map(|column| RelationColumn {
                        name: column.name.clone(),
                        pg_type: types::named(&column.type_name).unwrap_or(types::TEXT),
                        not_null: column.not_null,
                        default: None,
                        compression: Compression::Default,
                    })
                    .collect(),
                rows: 0,
                bytes: 0,
                query: None,
                index: None,
                has_indexes: false,
            }
        }));
        relations
    }

    /// The relation that `name` means: `orders`, `public.orders`, `"Odd Name"`.
    pub(super) fn named(&self, name: &str) -> Option<i32> {
        let parts = split_name(name);
        let (schema, name) = match parts.as_slice() {
            [name] => (None, name),
            [.., schema, name] => (Some(schema), name),
            [] => return None,
        };
        if schema.is_none_or(|schema| schema == "public")
            && let Some(engine) = self.engine()
            && let Some(oid) = engine
                .tables
                .table(name)
                .map(|table| table.oid)
                .or_else(|| engine.tables.view(name).map(|view| view.oid))
        {
            return Some(oid as i32);
        }
        if schema.is_none_or(|schema| schema == "public") {
            let index = self.own().into_iter().find(|relation| relation.index.is_some() && relation.name == *name);
            if let Some(index) = index {
                return Some(index.oid);
            }
        }
        let schema = schema.map_or("pg_catalog", String::as_str);
        if let Some(definition) = definitions::find(schema, name) {
            return Some(definition.oid);
        }
        self.own()
            .into_iter()
            .find(|relation| relation.schema == schema && relation.name == *name)
            .map(|relation| relation.oid)
    }

    /// The query of a view, as `pg_get_viewdef` gives it.
    pub(super) fn view_query(&self, oid: i32) -> Option<String> {
        let views = self.engine()?.tables.views();
        views.into_iter().find(|view| view.oid as i32 == oid).map(|view| format!("{};", view.query))
    }

    /// How `oid::regclass` prints: qualified when it is not in `public` or `pg_catalog`.
    pub(super) fn name_of(&self, oid: i32) -> Option<String> {
        if let Some(definition) = definitions::all().iter().find(|definition| definition.oid == oid) {
            return Some(match definition.schema.as_str() {
                "pg_catalog" => definition.name.clone(),
                schema => format!("{schema}.{}", definition.name),
            });
        }
        self.own().into_iter().find(|relation| relation.oid == oid).map(|relation| match relation.schema.as_str() {
            "public" => quote_ident(&relation.name),
            schema => format!("{}.{}", quote_ident(schema), quote_ident(&relation.name)),
        })
    }
}

fn primary_key(handle: &TableHandle, snapshot: &TableSnapshot, key: &KeySpec) -> Relation {
    let places: Vec<usize> = key.columns.iter().filter_map(|id| snapshot.schema.index_of(*id)).collect();
    let columns = places.iter().map(|place| &snapshot.schema.columns[*place]);
    Relation {
        oid: PRIMARY_KEY_INDEXES + handle.oid as i32,
        schema: "public".into(),
        schema_oid: PUBLIC_OID,
        name: format!("{}_pkey", handle.name),
        kind: "i",
        columns: columns
            .map(|column| RelationColumn::of_field(&column.data_type.field(&column.name, column.nullable)))
            .collect(),
        rows: snapshot.rows() as i64,
        bytes: 0,
        query: None,
        index: Some(IndexOf {
            table: handle.oid as i32,
            table_name: handle.name.clone(),
            kind: None,
            definition: None,
            numbers: places.iter().map(|place| *place as i64 + 1).collect(),
            is_built: true,
        }),
        has_indexes: false,
    }
}

fn index(handle: &TableHandle, snapshot: &TableSnapshot, spec: &IndexSpec) -> Relation {
    let segments = snapshot.views.iter().flat_map(|view| view.segments()).filter_map(|segment| segment.as_committed());
    let (mut bytes, mut is_built) = (0, true);
    for segment in segments.filter(|segment| segment.wants_index(spec)) {
        match segment.index_bytes(spec.id) {
            Some(found) => bytes += found,
            None => is_built = false,
        }
    }
    let places: Vec<usize> = spec.columns.iter().filter_map(|id| snapshot.schema.index_of(*id)).collect();
    let columns = places.iter().map(|place| &snapshot.schema.columns[*place]);
    Relation {
        oid: spec.id.0 as i32,
        schema: "public".into(),
        schema_oid: PUBLIC_OID,
        name: spec.name.clone(),
        kind: "i",
        columns: columns
            .map(|column| RelationColumn::of_field(&column.data_type.field(&column.name, column.nullable)))
            .collect(),
        rows: snapshot.rows() as i64,
        bytes: bytes as i64,
        query: None,
        index: Some(IndexOf {
            table: handle.oid as i32,
            table_name: handle.name.clone(),
            kind: Some(spec.kind.clone()),
            definition: match &spec.kind {
                IndexKind::StarTree(tree) => Some(star_tree::definition(tree, &snapshot.schema)),
                _ => None,
            },
            numbers: places.iter().map(|place| *place as i64 + 1).collect(),
            is_built,
        }),
        has_indexes: false,
    }
}

/// The statement that makes an index; `None` for other relations.
pub(super) fn index_definition(relation: &Relation) -> Option<String> {
    let of = relation.index.as_ref()?;
    let columns: Vec<String> = relation.columns.iter().map(|column| quote_ident(&column.name)).collect();
    let options = match &of.kind {
        Some(IndexKind::Bloom { fpp }) => format!(" WITH (fpp='{fpp}')"),
        Some(IndexKind::JsonPaths(paths)) => {
            let options = paths.options().into_iter();
            let each: Vec<String> =
                options.map(|(key, value)| format!("{key}='{}'", value.replace('\'', "''"))).collect();
            format!(" WITH ({})", each.join(", "))
        }
        _ => String::new(),
    };
    let what = of.definition.clone().unwrap_or_else(|| format!("({}){options}", columns.join(", ")));
    Some(format!(
        "CREATE {} {} ON public.{} USING {} {what}",
        if of.kind.is_some() { "INDEX" } else { "UNIQUE INDEX" },
        quote_ident(&relation.name),
        quote_ident(&of.table_name),
        of.kind.as_ref().map_or("btree", IndexKind::name),
    ))
}

/// Oid of star-trees in `pg_am`.
const STAR_TREE_METHOD: i32 = 13_804;

/// Oid of the kind of an index in `pg_am`.
fn access_method(kind: &IndexKind) -> i32 {
    match kind {
        IndexKind::Inverted => 13_801,
        IndexKind::Range => 13_802,
        IndexKind::Bloom { .. } => 13_803,
        IndexKind::StarTree(_) => STAR_TREE_METHOD,
        IndexKind::Sorted => 13_805,
        IndexKind::Json | IndexKind::JsonPaths(_) => 13_806,
        IndexKind::Text => 13_807,
        IndexKind::Geo => 13_808,
    }
}

/// `a."B c".d` → a, B c, d; unquoted parts in lower case.
pub(super) fn split_name(name: &str) -> Vec<String> {
    let mut parts = Vec::new();
    let mut part = String::new();
    let mut quoted = false;
    let mut chars = name.trim().chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => {
                chars.next();
                part.push('"');
            }
            '"' => quoted = !quoted,
            '.' if !quoted => parts.push(std::mem::take(&mut part)),
            c if quoted => part.push(c),
            c => part.extend(c.to_lowercase()),
        }
    }
    parts.push(part);
    parts
}

/// An identifier as SQL must write it.
pub(crate) fn quote_ident(name: &str) -> String {
    static RESERVED: LazyLock<std::collections::HashSet<&str>> = LazyLock::new(|| {
        "all analyse analyze and any array as asc asymmetric both case cast check collate column constraint create default deferrable desc distinct do else \
         end except false fetch for foreign from grant group having in initially intersect into lateral leading limit not null offset on only or \
         order placing primary references returning select some symmetric table then to trailing true union unique user using variadic when where \
         window with"
            .split_whitespace()
            .collect()
    });
    let plain = name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '$')
        && !RESERVED.contains(name);
    if plain { name.to_owned() } else { format!("\"{}\"", name.replace('"', "\"\"")) }
}

/// A column's default as an SQL expression.
pub(crate) fn default_sql(value: &Scalar, type_name: &str) -> String {
    match value {
        Scalar::Boolean(v) => v.to_string(),
        Scalar::Int(v) if ["smallint", "integer", "bigint"].contains(&type_name) => v.to_string(),
        Scalar::Float(v) => v.to_string(),
        Scalar::Text(v) => format!("'{}'::{type_name}", v.replace('\'', "''")),
        other => format!("{}::{type_name}", scalar_text(other, type_name)),
    }
}

fn scalar_text(value: &Scalar, type_name: &str) -> String {
    match value {
        Scalar::Decimal(v) => {
            let scale = type_name
                .rsplit_once(',')
                .and_then(|(_, s)| s.trim_end_matches(')').parse::<usize>().ok())
                .unwrap_or(0);
            let digits = format!("{:0width$}", v.unsigned_abs(), width = scale + 1);
            let (whole, fraction) = digits.split_at(digits.len() - scale);
            let sign = if *v < 0 { "-" } else { "" };
            if scale == 0 { format!("'{sign}{whole}'") } else { format!("'{sign}{whole}.{fraction}'") }
        }
        Scalar::Bytes(v) => format!("'\\x{}'", v.iter().map(|byte| format!("{byte:02x}")).collect::<String>()),
        Scalar::Int(v) if type_name == "date" => chrono::DateTime::from_timestamp(v * 86_400, 0)
            .map_or_else(|| v.to_string(), |at| format!("'{}'", at.format("%F"))),
        Scalar::Int(v) => chrono::DateTime::from_timestamp_micros(*v)
            .map_or_else(|| v.to_string(), |at| format!("'{}'", at.format("%F %T%.f"))),
        other => format!("'{other:?}'"),
    }
}

/// Adds the rows of the relations that this module knows.
pub(super) fn fill(relations: &Relations, name: &str, rows: &mut Rows) {
    match name {
        "pg_namespace" => {
            for (oid, name) in relations.schemas() {
                rows.add([("oid", oid.into()), ("nspname", name.into()), ("nspowner", OWNER_OID.into())]);
            }
        }
        "pg_class" => relations.all().iter().for_each(|relation| class(relation, rows)),
        "pg_attribute" => relations.all().iter().for_each(|relation| attributes(relation, rows)),
        "pg_attrdef" => {
            for relation in relations.own() {
                for (i, column) in relation.columns.iter().enumerate() {
                    if let Some(default) = &column.default {
                        rows.add([
                            ("oid", (relation.oid + 100_000 + i as i32).into()),
                            ("adrelid", relation.oid.into()),
                            ("adnum", (i as i32 + 1).into()),
                            ("adbin", default.as_str().into()),
                        ]);
                    }
                }
            }
        }
        "pg_am" => {
            let of_columns = [
                IndexKind::Inverted,
                IndexKind::Range,
                IndexKind::Bloom { fpp: 0.01 },
                IndexKind::Sorted,
                IndexKind::Json,
                IndexKind::Text,
                IndexKind::Geo,
            ];
            let kinds = of_columns.iter().map(|kind| (access_method(kind), kind.name()));
            for (oid, name) in kinds.chain([(STAR_TREE_METHOD, "star_tree"), (BTREE, "btree")]) {
                rows.add([("oid", oid.into()), ("amname", name.into()), ("amtype", "i".into())]);
            }
        }
        "pg_index" => {
            for relation in relations.own() {
                let Some(of) = &relation.index else { continue };
                let zeros = || Cell::Ints(vec![0; of.numbers.len()]);
                rows.add([
                    ("indexrelid", relation.oid.into()),
                    ("indrelid", of.table.into()),
                    ("indnatts", (of.numbers.len() as i32).into()),
                    ("indnkeyatts", (of.numbers.len() as i32).into()),
                    ("indisunique", of.kind.is_none().into()),
                    ("indisprimary", of.kind.is_none().into()),
                    ("indimmediate", true.into()),
                    ("indisvalid", of.is_built.into()),
                    ("indisready", true.into()),
                    ("indislive", true.into()),
                    ("indkey", Cell::Ints(of.numbers.clone())),
                    ("indcollation", zeros()),
                    ("indclass", zeros()),
                    ("indoption", zeros()),
                ]);
            }
        }
        "pg_constraint" => {
            for relation in relations.own() {
                let (Some(oid), Some(of)) = (relation.primary_key(), &relation.index) else { continue };
                rows.add([
                    ("oid", oid.into()),
                    ("conname", relation.name.as_str().into()),
                    ("connamespace", relation.schema_oid.into()),
                    ("contype", "p".into()),
                    ("convalidated", true.into()),
                    ("conrelid", of.table.into()),
                    ("conindid", relation.oid.into()),
                    ("conislocal", true.into()),
                    ("connoinherit", true.into()),
                    ("conkey", Cell::Ints(of.numbers.clone())),
                ]);
            }
        }
        "pg_indexes" => {
            for relation in relations.own() {
                let Some(of) = &relation.index else { continue };
                let definition = index_definition(&relation).unwrap_or_default();
                rows.add([
                    ("schemaname", relation.schema.as_str().into()),
                    ("tablename", of.table_name.as_str().into()),
                    ("indexname", relation.name.as_str().into()),
                    ("indexdef", definition.into()),
                ]);
            }
        }
        "pg_tables" => {
            for relation in relations.all().iter().filter(|relation| relation.kind == "r") {
                rows.add([
                    ("schemaname", relation.schema.as_str().into()),
                    ("tablename", relation.name.as_str().into()),
                    ("tableowner", OWNER.into()),
                    ("hasindexes", relation.has_indexes.into()),
                    ("hasrules", false.into()),
                    ("hastriggers", false.into()),
                    ("rowsecurity", false.into()),
                ]);
            }
        }
        "pg_views" => {
            for relation in relations.all().iter().filter(|relation| relation.kind == "v") {
                rows.add([
                    ("schemaname", relation.schema.as_str().into()),
                    ("viewname", relation.name.as_str().into()),
                    ("viewowner", OWNER.into()),
                    (
                        "definition",
                        relation.query.as_ref().map_or_else(String::new, |query| format!("{query};")).into(),
                    ),
                ]);
            }
        }
        "pg_stat_user_tables" | "pg_stat_all_tables" => {
            for relation in relations.own().iter().filter(|relation| relation.kind == "r") {
                rows.add([
                    ("relid", relation.oid.into()),
                    ("schemaname", relation.schema.as_str().into()),
                    ("relname", relation.name.as_str().into()),
                    ("n_live_tup", relation.rows.into()),
                    ("n_dead_tup", 0.into()),
                    ("n_tup_ins", relation.rows.into()),
                ]);
            }
        }
        _ => {}
    }
}

fn class(relation: &Relation, rows: &mut Rows) {
    let access = match &relation.index {
        Some(of) => of.kind.as_ref().map_or(BTREE, access_method),
        None if relation.kind == "r" => HEAP,
        None => 0,
    };
    rows.add([
        ("oid", relation.oid.into()),
        ("relname", relation.name.as_str().into()),
        ("relnamespace", relation.schema_oid.into()),
        ("relowner", OWNER_OID.into()),
        ("relam", access.into()),
        ("relhasindex", relation.has_indexes.into()),
        ("relfilenode", relation.oid.into()),
        ("relpages", (relation.bytes / 8192).into()),
        ("reltuples", Cell::Float(relation.rows as f64)),
        ("relpersistence", "p".into()),
        ("relkind", relation.kind.into()),
        ("relnatts", (relation.columns.len() as i32).into()),
        ("relispopulated", true.into()),
        ("relreplident", "d".into()),
        ("relfrozenxid", 0.into()),
    ]);
}

fn attributes(relation: &Relation, rows: &mut Rows) {
    for (i, column) in relation.columns.iter().enumerate() {
        let array = column.pg_type.name.starts_with('_');
        rows.add([
            ("attrelid", relation.oid.into()),
            ("attname", column.name.as_str().into()),
            ("atttypid", column.pg_type.oid.into()),
            ("attstattarget", Cell::Int(-1)),
            ("attlen", i32::from(column.pg_type.length).into()),
            ("attnum", (i as i32 + 1).into()),
            ("attndims", i32::from(array).into()),
            ("attcacheoff", Cell::Int(-1)),
            ("atttypmod", column.pg_type.modifier.into()),
            ("attbyval", (column.pg_type.length > 0 && column.pg_type.length <= 8).into()),
            ("attalign", "i".into()),
            ("attstorage", if column.pg_type.length < 0 { "x" } else { "p" }.into()),
            // PostgreSQL knows no zstd here, and psql shows a letter it does not know as ???.
            ("attcompression", if column.compression == Compression::Lz4 { "l" } else { "" }.into()),
            ("attnotnull", column.not_null.into()),
            ("atthasdef", column.default.is_some().into()),
            ("attislocal", true.into()),
            ("attcollation", if ["text", "_text"].contains(&column.pg_type.name) { 100 } else { 0 }.into()),
        ]);
    }
}
