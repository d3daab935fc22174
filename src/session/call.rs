//! CALL: procedures. There is one, `rt.forget(column, value)`.
//!
//! ```text
//! for each table with the column:  DELETE … WHERE column = value ─ seal ─ all rows that are stored and have the value, seen or not ─ out of their files
//!                                  └────────────────────────── again, until there are none ──────────────────────────┘
//! for each table:                  dead letters with the value
//! ```

use std::sync::Arc;

use datafusion::common::ScalarValue;
use futures::StreamExt;
use tidemill_storage::{scan::Addresses, schema::DataType};

use super::{
    Prepared, Response, Rows, RowsTag, Session, WriteTarget, columns,
    copy::options::quoted,
    error::{Result, SqlError, state},
    statement,
};
use crate::{catalog::certificates::CertifiedObject, suggest};

const FORGET: &str = "rt.forget";
/// How often a table is looked through: rows with the value may come meanwhile.
const ROUNDS: usize = 5;

impl Session {
    /// Plans the arguments, and tells the columns of the answer.
    pub(super) async fn prepare_call(
        &self,
        name: &str,
        arguments: &[String],
        position: u32,
        prepared: &mut Prepared,
    ) -> Result<()> {
        if name != FORGET {
            return Err(unknown(name).at(position));
        }
        let [column, value] = arguments else {
            let message = format!("procedure rt.forget takes a column and a value, not {} arguments", arguments.len());
            return Err(SqlError::new(state::UNDEFINED_FUNCTION, message)
                .with_hint("CALL rt.forget('user_id', '42')")
                .at(position));
        };
        let text = format!("SELECT CAST({column} AS TEXT), CAST({value} AS TEXT)");
        let planned = Box::pin(self.prepare_text(&text, prepared.types.clone())).await?;
        (prepared.plan, prepared.parameters) = (planned.plan, planned.parameters);
        prepared.columns = self.prepare_text(&certificate(0), Vec::new()).await?.columns;
        Ok(())
    }

    /// A statement of our own; positions in it mean nothing to the client.
    async fn prepare_text(&self, text: &str, types: Vec<Option<super::value::PgType>>) -> Result<Prepared> {
        let [statement] = &statement::parse(text)?[..] else {
            return Err(SqlError::syntax("the arguments of CALL must be expressions"));
        };
        let prepared = Box::pin(self.prepare(statement.clone(), types)).await;
        prepared.map_err(|error| SqlError { position: None, ..error })
    }

    pub(super) async fn call(
        &mut self,
        name: &str,
        position: u32,
        prepared: &Prepared,
        values: Vec<ScalarValue>,
    ) -> Result<Response> {
        self.writable("CALL")?;
        let plan = prepared.plan.as_ref().ok_or_else(|| unknown(name).at(position))?;
        let (_, mut batches) = self.start(plan, values)?;
        let mut arguments = None;
        while let Some(batch) = batches.next().await {
            let batch = batch?;
            if batch.num_rows() > 0 {
                let text = |at: usize| -> Result<Option<String>> {
                    let value = ScalarValue::try_from_array(batch.column(at), 0)?;
                    Ok(value.try_as_str().flatten().map(str::to_owned))
                };
                arguments = Some((text(0)?, text(1)?));
            }
        }
        let Some((Some(column), Some(value))) = arguments else {
            return Err(SqlError::new(state::NULL_VALUE_NOT_ALLOWED, "column and value of rt.forget must not be NULL"));
        };
        let number = self.forget(&column, &value).await?;
        self.transaction.lasting.rows = true;
        let answer = self.prepare_text(&certificate(number), Vec::new()).await?;
        let plan = answer.plan.as_ref().ok_or_else(|| SqlError::internal("a certificate without a query"))?;
        let columns = prepared.columns.clone().unwrap_or_else(|| columns(plan.schema(), plan.origins()));
        let (schema, batches) = self.start(plan, Vec::new())?;
        Ok(Response::Rows(Rows { schema, columns, batches, tag: RowsTag::Call, binary: false }))
    }

    /// Takes the rows that have the value out of all tables and their files; the number of the certificate.
    async fn forget(&mut self, column: &str, value: &str) -> Result<u64> {
        let backend = Arc::clone(&self.shared.backend);
        let targets = backend.write_targets();
        let has_column = |target: &&WriteTarget| target.schema.columns.iter().any(|known| known.name == column);
        if !targets.iter().any(|target| has_column(&target)) {
            let known = targets.iter().flat_map(|target| &target.schema.columns).map(|column| column.name.as_str());
            let error = SqlError::new(state::UNDEFINED_COLUMN, format!("no table has a column \"{column}\""));
            return Err(match suggest::hint(column, known) {
                Some(hint) => error.with_hint(hint),
                None => error,
            });
        }
        let mut objects = Vec::new();
        for target in targets.iter().filter(has_column) {
            objects.push(self.forget_rows(target, column, value).await?);
        }
        // Of sources with such a member there may be tables without the column.
        for target in &targets {
            let letters = self.interruptible(backend.erase_letters(target, column, value)).await?;
            if letters > 0 || has_column(&target) {
                let detail = None;
                objects.push(object("dead letters", &target.name, (letters, 0), "gone", detail));
            }
        }
        backend.certify(column, value, objects).await
    }

    async fn forget_rows(&mut self, target: &WriteTarget, column: &str, value: &str) -> Result<CertifiedObject> {
        let backend = Arc::clone(&self.shared.backend);
        let data_type = target.schema.columns.iter().find(|known| known.name == column).map(|known| &known.data_type);
        let literal = format!("'{}'", value.replace('\'', "''"));
        let condition = match data_type {
            Some(DataType::Array(_)) => format!("{literal} = ANY({})", quoted(column)),
            Some(DataType::Jsonb) => format!("{} #>> '{{}}' = {literal}", quoted(column)),
            _ => format!("{} = {literal}", quoted(column)),
        };
        let delete = format!("DELETE FROM {} WHERE {condition}", quoted(&target.name));
        let (mut rows, mut segments) = (0, 0);
        for _ in 0..ROUNDS {
            let deleted = match self.delete(&delete, target).await {
                Ok(deleted) => deleted,
                // No row has what is no value of the type.
                Err(error) if error.state.starts_with("22") => {
                    let detail = Some(format!("the column has no such value: {}", error.message));
                    return Ok(object("table", &target.name, (0, 0), "gone", detail));
                }
                Err(error) => return Err(error),
            };
            self.interruptible(backend.seal(target)).await?;
            let (stored, in_memory) = self.stored(&delete, target).await?;
            let is_done = deleted == 0 && stored.is_empty() && !in_memory;
            rows += deleted;
            // Also when there are none: rows may have been deleted by others, a moment ago.
            segments += self.interruptible(backend.erase(target, stored)).await?;
            if is_done {
                return Ok(object("table", &target.name, (rows, segments), "gone", None));
            }
        }
        let detail = "rows with the value keep coming; stop what brings them and call it again";
        Ok(object("table", &target.name, (rows, segments), "still there", Some(detail.to_owned())))
    }

    /// Runs DELETE; how many rows it deleted.
    async fn delete(&mut self, delete: &str, target: &WriteTarget) -> Result<u64> {
        let prepared = self.prepare_text(delete, Vec::new()).await?;
        let Some((plan, write)) = prepared.plan.as_ref().and_then(|plan| Some((plan, plan.write()?))) else {
            return Err(SqlError::internal("DELETE without a plan"));
        };
        let target = WriteTarget { schema: Arc::clone(&write.schema), ..target.clone() };
        Ok(self.change(plan, write, Vec::new(), &target).await?.0)
    }

    /// The rows that DELETE would be about if it saw all that are stored, that nobody sees, too; and whether there are such ones in memory.
    async fn stored(&mut self, delete: &str, target: &WriteTarget) -> Result<(Addresses, bool)> {
        self.query.read_every_version(true);
        let read = self.read_stored(delete, target).await;
        self.query.read_every_version(false);
        read
    }

    async fn read_stored(&mut self, delete: &str, target: &WriteTarget) -> Result<(Addresses, bool)> {
        let prepared = self.prepare_text(delete, Vec::new()).await?;
        let Some((plan, write)) = prepared.plan.as_ref().and_then(|plan| Some((plan, plan.write()?))) else {
            return Err(SqlError::internal("DELETE without a plan"));
        };
        let read = self.read_changed(plan, write, Vec::new(), target).await?;
        Ok((read.change.gone, read.in_memory))
    }
}

fn object(
    kind: &str,
    name: &str,
    (rows, segments): (u64, u64),
    state: &str,
    detail: Option<String>,
) -> CertifiedObject {
    CertifiedObject { kind: kind.into(), name: name.into(), rows, segments, state: state.into(), detail }
}

fn certificate(number: u64) -> String {
    format!("SELECT * FROM rt.certificates WHERE certificate = {number}")
}

fn unknown(name: &str) -> SqlError {
    let error = SqlError::new(state::UNDEFINED_FUNCTION, format!("procedure {name} does not exist"));
    error.with_hint("there is one procedure, rt.forget(column, value); functions are called with SELECT")
}
