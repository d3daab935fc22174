//! The columns that a pipeline gives, and the columns of tables that they go to.

use arrow::{array::RecordBatch, datatypes::DataType as ArrowType};
use datafusion::logical_expr::LogicalPlan;
use tidemill_storage::{
    ids::{ColumnId, SchemaVersion},
    schema::{Column, DataType, TableSchema},
};

use super::{
    super::assignment::{assign, cast_checked},
    unsupported,
};
use crate::{Error, Result};

/// How outputs find their columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placement<'a> {
    /// The first to the first, as INSERT does.
    Position,
    /// To those that have their names.
    Name,
    /// To these, in order.
    Columns(&'a [String]),
}

/// What a pipeline gives.
#[derive(Debug)]
pub(crate) struct Outputs {
    /// As rows stand in the log behind the pipeline; names are `c0`, `c1`, …, so that none comes twice.
    pub(crate) schema: TableSchema,
    /// What the query calls them.
    pub(crate) names: Vec<String>,
}

impl Outputs {
    pub(super) fn of(plan: &LogicalPlan) -> Result<Self> {
        let fields = plan.schema().fields();
        let mut columns = Vec::with_capacity(fields.len());
        for (at, field) in fields.iter().enumerate() {
            let data_type = match (DataType::of_field(field), field.data_type()) {
                (Some(data_type), _) => data_type,
                (None, ArrowType::Null | ArrowType::Utf8 | ArrowType::LargeUtf8) => DataType::Text,
                (None, ArrowType::Binary | ArrowType::LargeBinary) => DataType::Bytea,
                (None, ArrowType::Struct(_)) => {
                    return Err(Error::Unsupported {
                        message: format!("column \"{}\" is a window, which no table can have", field.name()),
                        hint: Some("its ends are given by the functions with _START and _END".into()),
                    });
                }
                (None, other) => {
                    return Err(unsupported(
                        format!("column \"{}\" has the type {other}, which no table can have", field.name()),
                        "cast it to a type that a column can have",
                    ));
                }
            };
            columns.push(Column::new(ColumnId(at as u32), format!("c{at}"), data_type));
        }
        let names = fields.iter().map(|field| field.name().clone()).collect();
        Ok(Self { schema: TableSchema { version: SchemaVersion(1), columns, time_column: None }, names })
    }

    /// Rows as the log has them.
    pub(crate) fn conform(&self, rows: &RecordBatch) -> Result<RecordBatch, String> {
        let schema = self.schema.arrow();
        let columns = rows.columns().iter().zip(schema.fields());
        let columns = columns.map(|(array, field)| cast_checked(array, field.data_type())).collect::<Result<_, _>>()?;
        let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
        RecordBatch::try_new_with_options(schema, columns, &options).map_err(|error| error.to_string())
    }

    /// The name of the column of table `name` that each output goes to. Errors are those of INSERT.
    pub(super) fn place(&self, target: &TableSchema, name: &str, placement: Placement<'_>) -> Result<Vec<String>> {
        let error = |state: &'static str, message: String| Error::Expression { state, message };
        let placed: Vec<String> = match placement {
            Placement::Position => {
                if self.names.len() > target.columns.len() {
                    return Err(error(
                        "42601",
                        format!(
                            "the SELECT gives {} columns, and table \"{name}\" has {}",
                            self.names.len(),
                            target.columns.len()
                        ),
                    ));
                }
                target.columns.iter().take(self.names.len()).map(|column| column.name.clone()).collect()
            }
            Placement::Name => self.names.clone(),
            Placement::Columns(columns) if columns.len() != self.names.len() => {
                let message = format!("{} columns are named, and the SELECT gives {}", columns.len(), self.names.len());
                return Err(error("42601", message));
            }
            Placement::Columns(columns) => columns.to_vec(),
        };
        for (at, column) in placed.iter().enumerate() {
            if placed[..at].contains(column) {
                return Err(error("42701", format!("column \"{column}\" specified more than once")));
            }
            let Some(wanted) = target.columns.iter().find(|known| known.name == *column) else {
                let message = format!("column \"{column}\" of relation \"{name}\" does not exist");
                return Err(error("42703", message));
            };
            let given = &self.schema.columns[at].data_type;
            if assign(&given.field(column, true), wanted).is_err() {
                return Err(Error::Mismatch {
                    message: format!(
                        "column \"{column}\" is of type {} but expression \"{}\" is of type {given}",
                        wanted.data_type, self.names[at]
                    ),
                    hint: Some(if placement == Placement::Position && self.fit_by_name(target) {
                        "columns go by their positions; INSERT INTO … BY NAME and WITH (by_name = true) go by their names"
                            .into()
                    } else {
                        "you will need to rewrite or cast the expression".into()
                    }),
                });
            }
        }
        let is_fed = |column: &Column| placed.contains(&column.name) || column.nullable || column.default.is_some();
        if let Some(column) = target.columns.iter().find(|column| !is_fed(column)) {
            return Err(error(
                "23502",
                format!(
                    "column \"{}\" of table \"{name}\" is NOT NULL and gets no value from the pipeline",
                    column.name
                ),
            ));
        }
        Ok(placed)
    }

    fn fit_by_name(&self, target: &TableSchema) -> bool {
        self.names.iter().all(|name| target.columns.iter().any(|column| column.name == *name))
    }
}
