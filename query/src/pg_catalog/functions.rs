//! The functions of the system catalogs.
//!
//! They are called on a handful of rows, so they work row by row on [`ScalarValue`]s. A NULL argument gives NULL.

use std::{fmt, hash, sync::Arc};

use arrow::{
    array::AsArray,
    datatypes::{DataType, Field, FieldRef},
};
use datafusion::{
    common::ScalarValue,
    error::{DataFusionError, Result},
    logical_expr::{
        ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
    },
};

use super::{
    relations::{Relations, index_definition, quote_ident, split_name},
    rewrite::{EMPTY_ARRAY, OID_ARRAY, PROC_OID, REGCLASS, REGNAMESPACE, REGPROC, REGROLE, REGTYPE},
    rows,
    server::{DATABASE_OID, all_roles},
    types,
};
use crate::{SqlError, catalog::DATABASE};

type Call = Arc<dyn Fn(&[ScalarValue]) -> Result<ScalarValue> + Send + Sync>;

#[derive(Clone)]
enum Returns {
    Fixed(DataType),
    /// Text gives an oid, an oid gives text: what `x::regclass` is depends on x.
    OidOrName,
    /// The type of the first argument.
    First,
}

/// A function given by a closure over one row's arguments.
struct RowFunction {
    name: &'static str,
    signature: Signature,
    returns: Returns,
    /// Whether the closure wants to see NULLs.
    sees_null: bool,
    call: Call,
}

impl fmt::Debug for RowFunction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RowFunction").field("name", &self.name).finish_non_exhaustive()
    }
}

impl PartialEq for RowFunction {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for RowFunction {}

impl hash::Hash for RowFunction {
    fn hash<H: hash::Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

impl ScalarUDFImpl for RowFunction {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Err(DataFusionError::Internal("return_field_from_args is used instead".into()))
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        let data_type = match &self.returns {
            Returns::Fixed(data_type) => data_type.clone(),
            Returns::OidOrName => match args.arg_fields.first().map(|field| field.data_type()) {
                Some(data_type) if is_text(data_type) => DataType::Int32,
                _ => DataType::Utf8,
            },
            Returns::First => args.arg_fields.first().map_or(DataType::Null, |field| field.data_type().clone()),
        };
        Ok(Arc::new(Field::new(self.name, data_type, true)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let returns = args.return_field.data_type();
        let one = |row: usize| -> Result<ScalarValue> {
            let values = args
                .args
                .iter()
                .map(|arg| match arg {
                    ColumnarValue::Scalar(value) => Ok(value.clone()),
                    ColumnarValue::Array(array) => ScalarValue::try_from_array(array, row),
                })
                .collect::<Result<Vec<_>>>()?;
            if !self.sees_null && values.iter().any(ScalarValue::is_null) {
                return ScalarValue::try_from(returns);
            }
            (self.call)(&values)
        };
        if args.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_))) {
            return Ok(ColumnarValue::Scalar(one(0)?));
        }
        if args.number_rows == 0 {
            return Ok(ColumnarValue::Array(arrow::array::new_empty_array(returns)));
        }
        let values = (0..args.number_rows).map(one).collect::<Result<Vec<_>>>()?;
        Ok(ColumnarValue::Array(ScalarValue::iter_to_array(values)?))
    }
}

fn is_text(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Utf8 | DataType::Utf8View | DataType::LargeUtf8)
}

fn text(value: &ScalarValue) -> String {
    value.try_as_str().flatten().map_or_else(|| value.to_string(), ToOwned::to_owned)
}

fn int(value: &ScalarValue) -> Option<i64> {
    match value {
        ScalarValue::Int16(v) => v.map(i64::from),
        ScalarValue::Int32(v) => v.map(i64::from),
        ScalarValue::Int64(v) => *v,
        ScalarValue::UInt32(v) => v.map(i64::from),
        ScalarValue::UInt64(v) => v.and_then(|v| i64::try_from(v).ok()),
        ScalarValue::Decimal128(Some(v), _, 0) => i64::try_from(*v).ok(),
        other => other.try_as_str().flatten().and_then(|text| text.trim().parse().ok()),
    }
}

fn utf8(value: impl Into<Option<String>>) -> ScalarValue {
    ScalarValue::Utf8(value.into())
}

fn boolean(value: bool) -> ScalarValue {
    ScalarValue::Boolean(Some(value))
}

fn define(
    name: &'static str,
    returns: Returns,
    sees_null: bool,
    call: impl Fn(&[ScalarValue]) -> Result<ScalarValue> + Send + Sync + 'static,
) -> Arc<ScalarUDF> {
    // Stable, not immutable: the answer depends on the catalog at the time.
    let any_number = Signature::one_of(
        vec![datafusion::logical_expr::TypeSignature::VariadicAny, datafusion::logical_expr::TypeSignature::Nullary],
        Volatility::Stable,
    );
    Arc::new(ScalarUDF::new_from_impl(RowFunction {
        name,
        signature: any_number,
        returns,
        sees_null,
        call: Arc::new(call),
    }))
}

/// A function whose value is the same for all arguments that are not NULL.
fn constant(name: &'static str, value: ScalarValue) -> Arc<ScalarUDF> {
    define(name, Returns::Fixed(value.data_type()), false, move |_| Ok(value.clone()))
}

/// All functions, for the engine to register.
pub(super) fn all(relations: &Arc<Relations>) -> Vec<Arc<ScalarUDF>> {
    let text_type = || Returns::Fixed(DataType::Utf8);
    let long = || Returns::Fixed(DataType::Int64);
    let mut functions = vec![
        define("format_type", text_type(), true, |args| {
            let Some(oid) = args.first().and_then(int) else { return Ok(utf8(None)) };
            let modifier = args.get(1).and_then(int).map(|modifier| modifier as i32);
            Ok(utf8(types::format_type(oid as i32, modifier)))
        }),
        define("pg_get_expr", text_type(), false, |args| Ok(utf8(args.first().map(text)))),
        define("quote_ident", text_type(), false, |args| Ok(utf8(args.first().map(|v| quote_ident(&text(v)))))),
        define("quote_literal", text_type(), false, |args| Ok(utf8(args.first().map(|v| quote_literal(&text(v)))))),
        define("parse_ident", Returns::Fixed(DataType::new_list(DataType::Utf8, true)), false, |args| {
            let parts: Vec<_> = args.first().map(|v| split_name(&text(v))).unwrap_or_default();
            let parts: Vec<_> = parts.into_iter().map(utf8).collect();
            Ok(ScalarValue::List(ScalarValue::new_list_nullable(&parts, &DataType::Utf8)))
        }),
        define("pg_encoding_to_char", text_type(), false, |args| {
            Ok(utf8(if args.first().and_then(int) == Some(6) { "UTF8" } else { "SQL_ASCII" }.to_owned()))
        }),
        define("pg_char_to_encoding", Returns::Fixed(DataType::Int32), false, |args| {
            let name = args.first().map(text).unwrap_or_default().replace(['-', '_'], "");
            Ok(ScalarValue::Int32(Some(if name.eq_ignore_ascii_case("utf8") { 6 } else { -1 })))
        }),
        constant("getdatabaseencoding", utf8("UTF8".to_owned())),
        define("array_lower", Returns::Fixed(DataType::Int32), false, |args| Ok(bound(args, |_| 1))),
        define("array_upper", Returns::Fixed(DataType::Int32), false, |args| Ok(bound(args, |length| length))),
        current_schemas(),
        oid_array(),
        define("pg_size_pretty", text_type(), false, |args| Ok(utf8(args.first().and_then(int).map(size_pretty)))),
        define(EMPTY_ARRAY, Returns::First, true, |args| {
            let value = args.first().cloned().unwrap_or(ScalarValue::Null);
            match (&value, value.data_type()) {
                (ScalarValue::List(_), DataType::List(item)) if value.is_null() => {
                    Ok(ScalarValue::List(ScalarValue::new_list_nullable(&[], item.data_type())))
                }
                _ => Ok(value),
            }
        }),
    ];
    for name in [
        "obj_description",
        "col_description",
        "shobj_description",
        "pg_get_serial_sequence",
        "pg_get_partkeydef",
        "pg_get_triggerdef",
        "pg_get_ruledef",
        "pg_get_statisticsobjdef_columns",
        "pg_get_functiondef",
        "pg_get_function_sqlbody",
        "pg_tablespace_location",
        "inet_server_addr",
    ] {
        functions.push(define(name, text_type(), true, |_| Ok(utf8(None))));
    }
    for name in [
        "pg_function_is_visible",
        "pg_type_is_visible",
        "pg_operator_is_visible",
        "pg_opclass_is_visible",
        "pg_opfamily_is_visible",
        "pg_collation_is_visible",
        "pg_conversion_is_visible",
        "pg_ts_config_is_visible",
        "pg_ts_dict_is_visible",
        "pg_ts_parser_is_visible",
        "pg_ts_template_is_visible",
        "pg_relation_is_publishable",
        "pg_relation_is_updatable",
        "has_schema_privilege",
        "has_table_privilege",
        "has_any_column_privilege",
        "has_column_privilege",
        "has_database_privilege",
        "has_function_privilege",
        "has_type_privilege",
        "has_tablespace_privilege",
        "has_sequence_privilege",
        "has_language_privilege",
        "pg_has_role",
    ] {
        functions.push(constant(name, boolean(true)));
    }
    for name in ["pg_is_other_temp_schema", "pg_is_in_recovery", "row_security_active", "pg_statistics_obj_is_visible"]
    {
        functions.push(constant(name, boolean(false)));
    }
    for (name, value) in [("pg_my_temp_schema", 0), ("pg_stat_get_numscans", 0), ("inet_server_port", 0)] {
        functions.push(constant(name, ScalarValue::Int32(Some(value))));
    }
    functions.push(constant("txid_current", ScalarValue::Int64(Some(1))));
    functions.push(constant("pg_advisory_unlock_all", utf8(String::new())));
    for name in ["pg_advisory_lock", "pg_advisory_xact_lock"] {
        functions.push(constant(name, utf8(String::new())));
    }
    for name in ["pg_try_advisory_lock", "pg_advisory_unlock"] {
        functions.push(constant(name, boolean(true)));
    }
    let of_roles = Arc::clone(relations);
    functions.push(define("pg_get_userbyid", text_type(), false, move |args| {
        let oid = args.first().and_then(int).unwrap_or_default();
        let found = all_roles(&of_roles).into_iter().find(|(known, ..)| i64::from(*known) == oid);
        Ok(utf8(found.map_or_else(|| format!("unknown (OID={oid})"), |(_, name, _)| name)))
    }));
    functions.extend(of_functions(relations));
    functions.extend(with_catalog(relations, text_type(), long()));
    functions
}

/// What is said of functions: of those that users made, as nobody prints PostgreSQL's.
fn of_functions(relations: &Arc<Relations>) -> Vec<Arc<ScalarUDF>> {
    let of_user = |relations: &Relations, args: &[ScalarValue]| {
        let oid = args.first().and_then(int)?;
        let functions = relations.engine()?.user_functions();
        functions.into_iter().find(|function| i64::from(function.declaration().oid) == oid)
    };
    let name_of = |data_type: &tidemill_storage::schema::DataType| {
        let known = types::of_field(&data_type.field("", true));
        types::format_type(known.oid, None)
    };
    let text_type = || Returns::Fixed(DataType::Utf8);
    let of_result = Arc::clone(relations);
    let mut functions = vec![define("pg_get_function_result", text_type(), false, move |args| {
        Ok(utf8(of_user(&of_result, args).map(|function| name_of(&function.declaration().returns))))
    })];
    for name in ["pg_get_function_arguments", "pg_get_function_identity_arguments"] {
        let of_arguments = Arc::clone(relations);
        functions.push(define(name, text_type(), false, move |args| {
            let Some(function) = of_user(&of_arguments, args) else { return Ok(utf8(String::new())) };
            let arguments = function.declaration().arguments.iter().map(|(name, data_type)| match name {
                Some(name) => format!("{} {}", quote_ident(name), name_of(data_type)),
                None => name_of(data_type),
            });
            Ok(utf8(arguments.collect::<Vec<_>>().join(", ")))
        }));
    }
    let known = Arc::clone(relations);
    functions.push(define(PROC_OID, Returns::Fixed(DataType::Int32), false, move |args| {
        let Some(name) = args.first().map(text) else { return Ok(ScalarValue::Int32(None)) };
        let functions = known.engine().map(|engine| engine.user_functions()).unwrap_or_default();
        let of_user = functions.iter().find(|function| function.declaration().name == name);
        let oid = of_user.map_or_else(|| rows::function_oid(&name), |function| function.declaration().oid as i32);
        Ok(ScalarValue::Int32(Some(oid)))
    }));
    functions
}

/// Those that look into the catalog.
fn with_catalog(relations: &Arc<Relations>, text_type: Returns, long: Returns) -> Vec<Arc<ScalarUDF>> {
    let visible = Arc::clone(relations);
    let mut functions = vec![define("pg_table_is_visible", Returns::Fixed(DataType::Boolean), false, move |args| {
        let oid = args.first().and_then(int).unwrap_or_default() as i32;
        // Visible without a schema: what is in public or pg_catalog.
        let name = visible.name_of(oid);
        Ok(boolean(name.is_some_and(|name| split_name(&name).len() == 1)))
    })];
    for name in ["pg_relation_size", "pg_total_relation_size", "pg_table_size", "pg_indexes_size"] {
        let relations = Arc::clone(relations);
        functions.push(define(name, long.clone(), false, move |args| {
            let oid = match args.first() {
                Some(value) if is_text(&value.data_type()) => relations.named(&text(value)),
                value => value.and_then(int).map(|oid| oid as i32),
            };
            let relation = relations.own().into_iter().find(|relation| Some(relation.oid) == oid);
            let of_indexes = || -> i64 {
                let all = relations.own().into_iter();
                all.filter(|r| r.index.as_ref().is_some_and(|of| Some(of.table) == oid)).map(|r| r.bytes).sum()
            };
            let bytes = relation.map(|relation| match name {
                "pg_indexes_size" => of_indexes(),
                "pg_total_relation_size" => relation.bytes + of_indexes(),
                _ => relation.bytes,
            });
            Ok(ScalarValue::Int64(bytes))
        }));
    }
    let defined = Arc::clone(relations);
    functions.push(define("pg_get_indexdef", text_type.clone(), true, move |args| {
        let oid = args.first().and_then(int).unwrap_or_default() as i32;
        let relation = defined.own().into_iter().find(|relation| relation.oid == oid);
        // With the number of a column, that column alone.
        let column = args.get(1).and_then(int).filter(|number| *number > 0);
        Ok(utf8(match column {
            Some(number) => relation
                .filter(|relation| relation.index.is_some())
                .and_then(|relation| Some(quote_ident(&relation.columns.get(number as usize - 1)?.name))),
            None => relation.as_ref().and_then(index_definition),
        }))
    }));
    let constrained = Arc::clone(relations);
    functions.push(define("pg_get_constraintdef", text_type.clone(), true, move |args| {
        let oid = args.first().and_then(int).unwrap_or_default() as i32;
        let relation = constrained.own().into_iter().find(|relation| relation.primary_key() == Some(oid));
        Ok(utf8(relation.map(|relation| relation.constraint_definition())))
    }));
    let of_database = Arc::clone(relations);
    functions.push(define("pg_database_size", long, false, move |_| {
        Ok(ScalarValue::Int64(Some(of_database.own().iter().map(|relation| relation.bytes).sum())))
    }));
    let views = Arc::clone(relations);
    functions.push(define("pg_get_viewdef", Returns::Fixed(DataType::Utf8), false, move |args| {
        let view = args.first().and_then(|value| match value.data_type().is_integer() {
            true => text(value).parse().ok(),
            false => views.named(&text(value)),
        });
        Ok(utf8(view.and_then(|oid| views.view_query(oid))))
    }));
    let to_regclass = Arc::clone(relations);
    functions.push(define("to_regclass", Returns::Fixed(DataType::Int32), false, move |args| {
        Ok(ScalarValue::Int32(args.first().and_then(|value| to_regclass.named(&text(value)))))
    }));
    functions.push(define("to_regtype", Returns::Fixed(DataType::Int32), false, |args| {
        Ok(ScalarValue::Int32(args.first().and_then(|value| type_named(&text(value)))))
    }));
    let regclass = Arc::clone(relations);
    functions.push(define(REGCLASS, Returns::OidOrName, false, move |args| {
        oid_or_name(
            &args[0],
            |name| regclass.named(name).ok_or_else(|| SqlError::undefined_table(name)),
            |oid| regclass.name_of(oid).unwrap_or_else(|| oid.to_string()),
        )
    }));
    functions.push(define(REGTYPE, Returns::OidOrName, false, |args| {
        oid_or_name(
            &args[0],
            |name| type_named(name).ok_or_else(|| SqlError::new("42704", format!("type \"{name}\" does not exist"))),
            |oid| types::format_type(oid, None),
        )
    }));
    let namespaces = Arc::clone(relations);
    functions.push(define(REGNAMESPACE, Returns::OidOrName, false, move |args| {
        let schemas = namespaces.schemas();
        oid_or_name(
            &args[0],
            |name| {
                let found = schemas.iter().find(|(_, schema)| schema == name).map(|(oid, _)| *oid);
                found.ok_or_else(|| SqlError::new("3F000", format!("schema \"{name}\" does not exist")))
            },
            |oid| {
                schemas
                    .iter()
                    .find(|(known, _)| *known == oid)
                    .map_or_else(|| oid.to_string(), |(_, name)| name.clone())
            },
        )
    }));
    let of_roles = Arc::clone(relations);
    functions.push(define(REGROLE, Returns::OidOrName, false, move |args| {
        let roles = all_roles(&of_roles);
        oid_or_name(
            &args[0],
            |name| {
                let found = roles.iter().find(|(_, known, _)| known == name).map(|(oid, ..)| *oid);
                found.ok_or_else(|| SqlError::new("42704", format!("role \"{name}\" does not exist")))
            },
            |oid| {
                let found = roles.iter().find(|(known, ..)| *known == oid);
                found.map_or_else(|| oid.to_string(), |(_, name, _)| name.clone())
            },
        )
    }));
    functions.push(define(REGPROC, text_type, false, |args| Ok(utf8(text(&args[0])))));
    functions.push(define("pg_database_oid", Returns::Fixed(DataType::Int32), false, |args| {
        Ok(ScalarValue::Int32((text(&args[0]) == DATABASE).then_some(DATABASE_OID)))
    }));
    functions
}

/// `array_lower`, `array_upper` of the one dimension that arrays have; NULL for others and for the empty array.
fn bound(args: &[ScalarValue], of_length: fn(i32) -> i32) -> ScalarValue {
    use arrow::array::Array;
    let length = match args.first() {
        Some(ScalarValue::List(list)) => list.value(0).len(),
        Some(ScalarValue::LargeList(list)) => list.value(0).len(),
        _ => 0,
    };
    let first_dimension = args.get(1).and_then(int) == Some(1);
    ScalarValue::Int32((first_dimension && length > 0).then(|| of_length(length as i32)))
}

/// An array of oids by name: aggregates forget what their values are marked with, and drivers read arrays by their type.
fn oid_array() -> Arc<ScalarUDF> {
    use crate::functions::simple::{Returns, Simple, any};
    let list = || {
        let metadata = std::collections::HashMap::from([(super::OID_KEY.to_owned(), "oid".to_owned())]);
        DataType::List(Arc::new(Field::new("item", DataType::Int32, true).with_metadata(metadata)))
    };
    Simple::udf(OID_ARRAY, any(1, Volatility::Immutable), Returns::Type(list()), |call| {
        let cast = call.cast(0, &DataType::new_list(DataType::Int32, true))?;
        let DataType::List(item) = call.returns.data_type() else {
            return Err(DataFusionError::Internal("an array of oids is a list".into()));
        };
        let (_, offsets, values, nulls) = cast.as_list::<i32>().clone().into_parts();
        Ok(Arc::new(arrow::array::ListArray::try_new(Arc::clone(item), offsets, values, nulls)?))
    })
}

/// `current_schemas(include_implicit)`: the search path of the session.
fn current_schemas() -> Arc<ScalarUDF> {
    use crate::functions::simple::{Returns, Simple, any};
    let list = DataType::new_list(DataType::Utf8, true);
    Simple::udf("current_schemas", any(1, Volatility::Stable), Returns::Type(list), |call| {
        let path = call.session().map(|session| session.shared.settings.lock().search_path()).unwrap_or_default();
        let implicit = call.cast(0, &DataType::Boolean)?;
        let rows = implicit.as_boolean().iter().map(|implicit| {
            let schemas: Vec<_> = path
                .iter()
                .filter(|schema| implicit == Some(true) || *schema != "pg_catalog")
                .map(|schema| utf8(schema.clone()))
                .collect();
            match implicit {
                Some(_) => ScalarValue::List(ScalarValue::new_list_nullable(&schemas, &DataType::Utf8)),
                None => ScalarValue::new_null_list(DataType::Utf8, true, 1),
            }
        });
        ScalarValue::iter_to_array(rows.collect::<Vec<_>>())
    })
}

fn quote_literal(text: &str) -> String {
    let escape = if text.contains('\\') { "E" } else { "" };
    format!("{escape}'{}'", text.replace('\'', "''").replace('\\', "\\\\"))
}

fn oid_or_name(
    value: &ScalarValue,
    to_oid: impl Fn(&str) -> Result<i32, SqlError>,
    to_name: impl Fn(i32) -> String,
) -> Result<ScalarValue> {
    if is_text(&value.data_type()) {
        let name = text(value);
        // '16384'::regclass is a number, too.
        if let Ok(oid) = name.parse::<i32>() {
            return Ok(ScalarValue::Int32(Some(oid)));
        }
        return Ok(ScalarValue::Int32(Some(
            to_oid(&name).map_err(|error| DataFusionError::External(Box::new(error)))?,
        )));
    }
    Ok(utf8(int(value).map(|oid| if oid == 0 { "-".to_owned() } else { to_name(oid as i32) })))
}

/// `int4`, `integer`, `pg_catalog.int4`, `numeric(10,2)`, `text[]`.
fn type_named(name: &str) -> Option<i32> {
    let name = name.trim().trim_start_matches("pg_catalog.").trim_matches('"').to_lowercase();
    let (name, array) = match name.strip_suffix("[]") {
        Some(item) => (item.to_owned(), true),
        None => (name, false),
    };
    let bare = name.split('(').next().unwrap_or_default().trim();
    let known = types::named(bare).or_else(|| {
        let alias = match bare {
            "boolean" => "bool",
            "smallint" => "int2",
            "integer" | "int" => "int4",
            "bigint" => "int8",
            "real" => "float4",
            "double precision" => "float8",
            "decimal" => "numeric",
            "character varying" => "varchar",
            "timestamp without time zone" => "timestamp",
            "timestamp with time zone" => "timestamptz",
            _ => return None,
        };
        types::named(alias)
    })?;
    if array { types::named(&format!("_{}", known.name)).map(|known| known.oid) } else { Some(known.oid) }
}

fn size_pretty(bytes: i64) -> String {
    let mut size = bytes;
    for (i, unit) in ["bytes", "kB", "MB", "GB", "TB", "PB"].into_iter().enumerate() {
        // PostgreSQL goes on to the next unit from 10 of it on, and rounds half up.
        if size.abs() < 10 * 1024 || i == 5 {
            return format!("{size} {unit}");
        }
        size = (size + 512) / 1024;
    }
    format!("{bytes} bytes")
}
