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
        let (mut arguments, mut rows) = (None, 0);
        while let Some(batch) = batches.next().await {
            let batch = batch?;
            rows += batch.num_rows();
            if batch.num_rows() > 0 {
                let text = |at: usize| -> Result<Option<String>> {
                    let value = ScalarValue::try_from_array(batch.column(at), 0)?;
                    Ok(value.try_as_str().flatten().map(str::to_owned))
                };
                arguments = Some((text(0)?, text(1)?));
            }
        }
        if rows != 1 {
            return Err(SqlError::unsupported("set-returning functions are not allowed in CALL arguments"));
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
        Ok(Response::Rows(Rows { schema, columns, batches, tag: RowsTag::Call, binary: false, live: false }))
    }

    /// Takes the rows that have the value out of all tables and their files; the number of the certificate.
    async fn forget(&mut self, column: &str, value: &str) -> Result<u64> {
        let backend = Arc::clone(&self.shared.backend);
        let targets = backend.write_targets();
        let has_column = |target: &&WriteTarget| {
            target.schema.columns.iter().any(|known| known.name == column) || backend.had_column(target, column)
        };
        let with_column: Vec<&WriteTarget> = targets.iter().filter(has_column).collect();
        if with_column.is_empty() && !backend.source_has_column(column) {
            let known = targets.iter().flat_map(|target| &target.schema.columns).map(|column| column.name.as_str());
            let error = SqlError::new(state::UNDEFINED_COLUMN, format!("no table has a column \"{column}\""));
            return Err(match suggest::hint(column, known) {
                Some(hint) => error.with_hint(hint),
                None => error,
            });
        }
        let mut objects = Vec::new();
        for target in &with_column {
            let forgotten = self.forget_rows(target, column, value).await;
            objects.extend(self.unless_gone("table", target, forgotten)?);
        }
        // Of sources with such a member there may be tables without the column.
        for target in &targets {
            let letters = self.interruptible(backend.erase_letters(target, column, value)).await;
            let letters = letters.map(|letters| object("dead letters", &target.name, (letters, 0), "gone", None));
            if let Some(letters) = self.unless_gone("dead letters", target, letters)? {
                let is_told = letters.rows > 0
                    || letters.state != "gone"
                    || with_column.iter().any(|known| known.id == target.id);
                objects.extend(is_told.then_some(letters));
            }
        }
        backend.certify(column, value, objects).await
    }

    /// What is wrong with one table keeps no other from being looked through. One that was dropped meanwhile has nothing any more.
    fn unless_gone(
        &self,
        kind: &str,
        target: &WriteTarget,
        found: Result<CertifiedObject>,
    ) -> Result<Option<CertifiedObject>> {
        match found {
            Ok(found) => Ok(Some(found)),
            Err(error) if [state::QUERY_CANCELED, state::ADMIN_SHUTDOWN].contains(&error.state) => Err(error),
            Err(_) if !self.shared.backend.write_targets().iter().any(|known| known.id == target.id) => Ok(None),
            Err(error) => {
                let detail = Some(format!("{} ({})", error.message, error.state));
                Ok(Some(object(kind, &target.name, (0, 0), "not looked through", detail)))
            }
        }
    }

    async fn forget_rows(&mut self, target: &WriteTarget, column: &str, value: &str) -> Result<CertifiedObject> {
        let backend = Arc::clone(&self.shared.backend);
        let data_type = target.schema.columns.iter().find(|known| known.name == column).map(|known| &known.data_type);
        let delete = match condition(column, data_type, value) {
            Some(condition) => format!("DELETE FROM {} WHERE {condition}", quoted(&target.name)),
            // The table has it no more, its files do; or no row has what is no value of the type.
            None => {
                let erased = self.interruptible(backend.erase(target, Addresses::default(), column)).await?;
                let detail = match data_type {
                    Some(_) => "the column has no such value",
                    None => "what files had of a column that was dropped",
                };
                return Ok(object("table", &target.name, (0, erased.segments), "gone", Some(detail.to_owned())));
            }
        };
        let (mut rows, mut segments, mut held) = (0, 0, 0);
        for round in 0..ROUNDS {
            let deleted = match self.delete(&delete, target).await {
                Ok(deleted) => deleted,
                Err(error) if error.state.starts_with("22") => {
                    let detail = Some(format!("the column has no such value: {}", error.message));
                    return Ok(object("table", &target.name, (0, 0), "gone", detail));
                }
                Err(error) => return Err(error),
            };
            self.interruptible(backend.seal(target)).await?;
            let (stored, in_memory) = self.stored(&delete, target).await?;
            // What tombstones have in the place of a value is nobody's value.
            let is_done = deleted == 0 && !in_memory && (stored.is_empty() || round > 0 && held == 0);
            rows += deleted;
            // Also when there are none: rows may have been deleted by others, a moment ago.
            let erased = self.interruptible(backend.erase(target, stored, column)).await?;
            segments += erased.segments;
            held = erased.held;
            if is_done && held == 0 {
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
        // Another table may have its name by now.
        if write.table.table.id() != target.id {
            let message = format!("table \"{}\" was renamed meanwhile", target.name);
            return Err(SqlError::new(state::UNDEFINED_TABLE, message));
        }
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

/// Which rows have the value; `None` where none can. A value is what it is written as: it is not rounded to the column's scale, and no word that stands for another time.
fn condition(column: &str, data_type: Option<&DataType>, value: &str) -> Option<String> {
    let literal = format!("'{}'", value.replace('\'', "''"));
    let name = quoted(column);
    let begins_with_digit = value.trim_start().starts_with(|c: char| c.is_ascii_digit());
    let is_number = || {
        let digits = value.trim().trim_start_matches(['-', '+']);
        !digits.is_empty()
            && digits.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')
            && digits.bytes().filter(|byte| *byte == b'.').count() <= 1
            && digits.bytes().any(|byte| byte.is_ascii_digit())
    };
    match data_type? {
        DataType::Numeric { .. } => is_number().then(|| format!("{name} = {}", value.trim().trim_start_matches('+'))),
        DataType::Array(item) if matches!(**item, DataType::Numeric { .. }) => {
            is_number().then(|| format!("{} = ANY({name})", value.trim().trim_start_matches('+')))
        }
        DataType::Date | DataType::Timestamp | DataType::TimestampTz => {
            begins_with_digit.then(|| format!("{name} = {literal}"))
        }
        DataType::Array(_) => Some(format!("{literal} = ANY({name})")),
        DataType::Jsonb => Some(format!("{name} #>> '{{}}' = {literal}")),
        _ => Some(format!("{name} = {literal}")),
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
