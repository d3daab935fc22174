//! Building the rows of a catalog relation: name a few cells, the rest is NULL or zero as the column allows.

use std::{
    collections::HashMap,
    sync::{Arc, LazyLock},
};

use arrow::{
    array::{
        ArrayBuilder, ArrayRef, AsArray, BooleanBuilder, Float32Builder, Float64Builder, Int16Builder, Int32Builder,
        Int64Builder, ListBuilder, RecordBatch, StringBuilder, TimestampMicrosecondBuilder, new_null_array,
    },
    compute::{cast, concat_batches},
    datatypes::{DataType, Int32Type},
};
use datafusion_pg_catalog::pg_catalog::{ArrowTable, PgCatalogStaticTables};

use super::definitions::Definition;
use crate::SqlError;

/// One value of a catalog row.
#[derive(Clone, Debug)]
pub(super) enum Cell {
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
    Texts(Vec<String>),
    Ints(Vec<i64>),
}

impl From<bool> for Cell {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl From<i32> for Cell {
    fn from(value: i32) -> Self {
        Self::Int(value.into())
    }
}

impl From<i64> for Cell {
    fn from(value: i64) -> Self {
        Self::Int(value)
    }
}

impl From<f64> for Cell {
    fn from(value: f64) -> Self {
        Self::Float(value)
    }
}

impl From<&str> for Cell {
    fn from(value: &str) -> Self {
        Self::Text(value.to_owned())
    }
}

impl From<String> for Cell {
    fn from(value: String) -> Self {
        Self::Text(value)
    }
}

impl From<Vec<String>> for Cell {
    fn from(value: Vec<String>) -> Self {
        Self::Texts(value)
    }
}

/// The rows of one relation while they are gathered.
pub(super) struct Rows {
    definition: &'static Definition,
    kept: Vec<RecordBatch>,
    rows: Vec<Vec<Option<Cell>>>,
}

impl Rows {
    pub(super) fn new(definition: &'static Definition) -> Self {
        Self { definition, kept: Vec::new(), rows: Vec::new() }
    }

    /// Rows that are there already, in the relation's columns.
    pub(super) fn keep(&mut self, batch: RecordBatch) {
        self.kept.push(batch);
    }

    /// Forgets what was kept: our rows stand instead of the static ones.
    pub(super) fn instead(&mut self) -> &mut Self {
        self.kept.clear();
        self
    }

    /// Adds a row. Columns that are not named are NULL, or zero, false, empty where the relation says NOT NULL.
    pub(super) fn add(&mut self, cells: impl IntoIterator<Item = (&'static str, Cell)>) {
        let mut row: Vec<Option<Cell>> = vec![None; self.definition.columns.len()];
        for (name, cell) in cells {
            let at = self.definition.columns.iter().position(|column| column.name == name);
            debug_assert!(at.is_some(), "{} has no column {name}", self.definition.name);
            if let Some(at) = at {
                row[at] = Some(cell);
            }
        }
        for (cell, column) in row.iter_mut().zip(&self.definition.columns) {
            if cell.is_none() && column.not_null {
                *cell = Some(match column.type_name.as_str() {
                    "bool" => Cell::Bool(false),
                    "name" | "text" | "varchar" | "char" => Cell::Text(String::new()),
                    "regproc" => Cell::Text("-".into()),
                    "oidvector" if column.name == "proargtypes" => Cell::Text(String::new()),
                    "float4" | "float8" => Cell::Float(0.0),
                    name if name.starts_with('_') || name == "int2vector" || name == "oidvector" => {
                        Cell::Ints(Vec::new())
                    }
                    _ => Cell::Int(0),
                });
            }
        }
        self.rows.push(row);
    }

    pub(super) fn finish(self) -> Result<RecordBatch, SqlError> {
        let schema = Arc::clone(&self.definition.arrow);
        let columns = schema
            .fields()
            .iter()
            .enumerate()
            .map(|(i, field)| array(field.data_type(), self.rows.iter().map(|row| row[i].as_ref())))
            .collect();
        let own = RecordBatch::try_new(Arc::clone(&schema), columns)?;
        Ok(concat_batches(&schema, self.kept.iter().chain([&own]))?)
    }
}

fn array<'a>(data_type: &DataType, cells: impl ExactSizeIterator<Item = Option<&'a Cell>>) -> ArrayRef {
    macro_rules! build {
        ($builder:expr, $cell:pat => $value:expr) => {{
            let mut builder = $builder;
            for cell in cells {
                builder.append_option(match cell {
                    Some($cell) => Some($value),
                    _ => None,
                });
            }
            Arc::new(builder.finish())
        }};
    }
    match data_type {
        DataType::Boolean => build!(BooleanBuilder::new(), Cell::Bool(v) => *v),
        DataType::Int16 => build!(Int16Builder::new(), Cell::Int(v) => *v as i16),
        DataType::Int32 => build!(Int32Builder::new(), Cell::Int(v) => *v as i32),
        DataType::Int64 => build!(Int64Builder::new(), Cell::Int(v) => *v),
        DataType::Float32 => build!(Float32Builder::new(), Cell::Float(v) => *v as f32),
        DataType::Float64 => build!(Float64Builder::new(), Cell::Float(v) => *v),
        DataType::Timestamp(..) => {
            build!(TimestampMicrosecondBuilder::new().with_timezone("UTC"), Cell::Int(v) => *v)
        }
        DataType::Utf8 => build!(StringBuilder::new(), Cell::Text(v) => v.as_str()),
        DataType::List(item) => lists(item.data_type(), cells),
        other => new_null_array(other, cells.len()),
    }
}

fn lists<'a>(item: &DataType, cells: impl ExactSizeIterator<Item = Option<&'a Cell>>) -> ArrayRef {
    fn fill<'a, B: ArrayBuilder>(
        mut builder: ListBuilder<B>,
        cells: impl Iterator<Item = Option<&'a Cell>>,
        push: impl Fn(&mut B, &Cell),
    ) -> ArrayRef {
        for cell in cells {
            if let Some(cell) = cell {
                push(builder.values(), cell);
            }
            builder.append(cell.is_some());
        }
        Arc::new(builder.finish())
    }
    match item {
        DataType::Int16 => fill(ListBuilder::new(Int16Builder::new()), cells, |values, cell| {
            if let Cell::Ints(ints) = cell {
                ints.iter().for_each(|v| values.append_value(*v as i16));
            }
        }),
        DataType::Int32 => fill(ListBuilder::new(Int32Builder::new()), cells, |values, cell| {
            if let Cell::Ints(ints) = cell {
                ints.iter().for_each(|v| values.append_value(*v as i32));
            }
        }),
        DataType::Utf8 => fill(ListBuilder::new(StringBuilder::new()), cells, |values, cell| {
            if let Cell::Texts(texts) = cell {
                texts.iter().for_each(|v| values.append_value(v));
            }
        }),
        other => new_null_array(
            &DataType::List(Arc::new(arrow::datatypes::Field::new("item", other.clone(), true))),
            cells.len(),
        ),
    }
}

static STATIC: LazyLock<Option<PgCatalogStaticTables>> = LazyLock::new(|| {
    PgCatalogStaticTables::try_new()
        .inspect_err(|error| tracing::error!(%error, "static catalog data cannot be read"))
        .ok()
});

/// What PostgreSQL itself ships in a relation, in our columns; `None` when the relation begins empty.
pub(super) fn static_rows(definition: &'static Definition) -> Result<Option<RecordBatch>, SqlError> {
    let Some(tables) = STATIC.as_ref() else { return Ok(None) };
    let table: &Arc<ArrowTable> = match definition.name.as_str() {
        "pg_aggregate" => &tables.pg_aggregate,
        "pg_am" => &tables.pg_am,
        "pg_amop" => &tables.pg_amop,
        "pg_amproc" => &tables.pg_amproc,
        "pg_cast" => &tables.pg_cast,
        "pg_collation" => &tables.pg_collation,
        "pg_conversion" => &tables.pg_conversion,
        "pg_description" => &tables.pg_description,
        "pg_language" => &tables.pg_language,
        "pg_opclass" => &tables.pg_opclass,
        "pg_operator" => &tables.pg_operator,
        "pg_opfamily" => &tables.pg_opfamily,
        "pg_proc" => &tables.pg_proc,
        "pg_range" => &tables.pg_range,
        "pg_tablespace" => &tables.pg_tablespace,
        "pg_ts_config" => &tables.pg_ts_config,
        "pg_ts_dict" => &tables.pg_ts_dict,
        "pg_ts_parser" => &tables.pg_ts_parser,
        "pg_ts_template" => &tables.pg_ts_template,
        "pg_type" => &tables.pg_type,
        _ => return Ok(None),
    };
    let wanted = &definition.arrow;
    let mut batches = Vec::new();
    for batch in table.data() {
        let columns = wanted
            .fields()
            .iter()
            .map(|field| match batch.column_by_name(field.name()) {
                Some(column) if column.data_type() == field.data_type() => Ok(Arc::clone(column)),
                Some(column) if !matches!(field.data_type(), DataType::List(_)) => cast(column, field.data_type()),
                _ => Ok(new_null_array(field.data_type(), batch.num_rows())),
            })
            .collect::<Result<Vec<_>, _>>()?;
        batches.push(RecordBatch::try_new(Arc::clone(wanted), columns)?);
    }
    let all = concat_batches(wanted, &batches)?;
    if definition.name == "pg_type" {
        return Ok(Some(arrow::compute::filter_record_batch(&all, &only_real_types(&all))?));
    }
    Ok(Some(all))
}

/// The oid of the function `name` in `pg_proc`; 0 when there is none.
pub(super) fn function_oid(name: &str) -> i32 {
    static OIDS: LazyLock<HashMap<String, i32>> = LazyLock::new(|| {
        let mut oids = HashMap::new();
        let Some(tables) = STATIC.as_ref() else { return oids };
        for batch in tables.pg_proc.data() {
            let columns = (batch.column_by_name("oid"), batch.column_by_name("proname"));
            let (Some(numbers), Some(names)) = columns else { continue };
            let (Ok(numbers), Ok(names)) = (cast(numbers, &DataType::Int32), cast(names, &DataType::Utf8)) else {
                continue;
            };
            let pairs = names.as_string::<i32>().iter().zip(numbers.as_primitive::<Int32Type>());
            for (name, oid) in pairs {
                if let (Some(name), Some(oid)) = (name, oid) {
                    oids.entry(name.to_owned()).or_insert(oid);
                }
            }
        }
        oids
    });
    OIDS.get(name).copied().unwrap_or(0)
}

/// Row types of a PostgreSQL server's own relations are left out: they belong to relations with other oids here.
fn only_real_types(types: &RecordBatch) -> arrow::array::BooleanArray {
    use arrow::array::Array;
    let kind = types.column_by_name("typtype").map(|c| c.as_string::<i32>());
    (0..types.num_rows()).map(|row| kind.map(|kind| kind.is_null(row) || kind.value(row) != "c")).collect()
}
