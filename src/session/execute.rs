//! One statement, executed.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use arrow::{
    array::{ArrayRef, RecordBatch, StringArray},
    datatypes::{DataType, Field, Schema},
};
use datafusion::{common::ScalarValue, sql::sqlparser::ast::Statement as Ast};
use futures::StreamExt;
use tidemill_query::{plan::WriteKind, settings::Settings};

use super::{
    CURSORS_MAX, CopyIn, CopyOut, CopyWriter, Cursor, Prepared, Response, Rows, RowsTag, Session, VERDICT_COLUMNS,
    columns,
    copy::options::{Copy, What, quoted},
    error::{Result, SqlError, state},
    notify::Listening,
    returning,
    statement::{self, Discard, Fetch, Kind, Statement},
    transaction::{Lasting, Mark, Status},
    value::{PgType, Scalar},
    write::{Staged, check_not_null},
};
use crate::{runtime, sql::ast};

impl Session {
    /// Runs a prepared statement. [`Session::begin`] was called before; [`Session::failed`] is to be called on an error.
    pub async fn execute(&mut self, prepared: &Prepared, values: Vec<ScalarValue>) -> Result<Response> {
        let statement = Arc::clone(&prepared.statement);
        let command = |tag: &str| Ok(Response::Command(tag.to_owned()));
        match &statement.kind {
            Kind::Query(ast) => match self.with_digits(prepared, &values).await? {
                Some(exact) => self.query(ast, &exact, values).await,
                None => self.query(ast, prepared, values).await,
            },
            Kind::Subscribe(subscribe) => match self.with_digits(prepared, &values).await? {
                Some(exact) => self.subscribe(subscribe, &exact, values),
                None => self.subscribe(subscribe, prepared, values),
            },
            Kind::Definition(tag) => self.define(&statement, tag).await,
            Kind::Set { name, value, local } => {
                if *local && !self.transaction.is_block() {
                    self.notice(
                        true,
                        state::NO_ACTIVE_SQL_TRANSACTION,
                        "SET LOCAL can only be used in transaction blocks",
                    );
                    return command("SET");
                }
                // Those of a transaction end with it, however they are set.
                let local = *local || name.to_lowercase().starts_with("transaction_");
                match value {
                    Some(value) => self.query.settings().set(name, value, local)?,
                    None => self.query.settings().reset(name)?,
                }
                self.note_application_name();
                command("SET")
            }
            Kind::Reset(name) => {
                match name {
                    Some(name) => self.query.settings().reset(name)?,
                    None => self.query.settings().reset_all(),
                }
                self.note_application_name();
                command("RESET")
            }
            Kind::Show(name) => {
                let value = self.query.settings().show(name)?;
                table(&[Settings::canonical_name(name).unwrap_or(name)], vec![vec![value]])
            }
            Kind::ShowAll => self.show_all(),
            Kind::Begin { settings } => {
                if self.status() != Status::Idle {
                    self.notice(true, state::ACTIVE_SQL_TRANSACTION, "there is already a transaction in progress");
                } else {
                    self.transaction.begin();
                }
                self.set_all(settings, true)?;
                command("BEGIN")
            }
            Kind::SetTransaction { settings } => {
                let local = settings.iter().all(|(name, _)| !name.starts_with("default_"));
                self.set_all(settings, local)?;
                command("SET")
            }
            Kind::Commit { chain } => {
                let failed = self.status() == Status::Failed;
                if failed {
                    self.warn_of_lasting();
                    self.forget_listening(Mark::default());
                }
                self.end_transaction(*chain);
                self.commit_listening()?;
                command(if failed { "ROLLBACK" } else { "COMMIT" })
            }
            Kind::Rollback { chain } => {
                self.warn_of_lasting();
                self.forget_listening(Mark::default());
                self.end_transaction(*chain);
                command("ROLLBACK")
            }
            Kind::Savepoint(name) => {
                self.in_block("SAVEPOINT")?;
                let mark = self.mark();
                self.transaction.savepoint(name, mark);
                command("SAVEPOINT")
            }
            Kind::RollbackTo(name) => {
                self.in_block("ROLLBACK TO SAVEPOINT")?;
                match self.transaction.rollback_to(name) {
                    Some(mark) => {
                        self.forget_listening(mark);
                        command("ROLLBACK")
                    }
                    None => Err(no_savepoint(name)),
                }
            }
            Kind::Release(name) => {
                self.in_block("RELEASE SAVEPOINT")?;
                match self.transaction.release(name) {
                    true => command("RELEASE"),
                    false => Err(no_savepoint(name)),
                }
            }
            Kind::Discard(what) => self.discard(*what),
            Kind::Prepare { name, types, statement: inner } => {
                let types = types.iter().copied().map(Some).collect();
                let shift = inner.offset.saturating_sub(statement.offset);
                let prepared =
                    self.prepare(inner.as_ref().clone(), types).await.map_err(|error| error.shifted(shift))?;
                self.keep_prepared(name, prepared)?;
                command("PREPARE")
            }
            Kind::Execute { name, arguments } => {
                let prepared = self.prepared(name)?;
                let prepared = self.current(&prepared).await?;
                let values = self.arguments(name, &prepared.parameters, arguments).await?;
                Box::pin(self.execute(&prepared, values)).await
            }
            Kind::ExplainExecute { explain, name, arguments } => self.explain_execute(explain, name, arguments).await,
            Kind::Deallocate(name) => {
                match name {
                    None => {
                        self.statements.clear();
                        return command("DEALLOCATE ALL");
                    }
                    Some(name) => {
                        self.prepared(name)?;
                        self.forget_prepared(name);
                    }
                }
                command("DEALLOCATE")
            }
            Kind::Declare { name, hold, binary, scroll, query } => {
                // Positions count from the start of this statement's text.
                let shift = query.offset.saturating_sub(statement.offset);
                self.declare(name, (*hold, *binary, *scroll), query).await.map_err(|error| error.shifted(shift))
            }
            Kind::Fetch(fetch) => self.fetch(fetch).await,
            Kind::CloseCursor(name) => {
                match name {
                    None => {
                        self.cursors.clear();
                        return command("CLOSE CURSOR ALL");
                    }
                    Some(name) => {
                        self.cursor(name)?;
                        self.cursors.remove(name);
                    }
                }
                command("CLOSE CURSOR")
            }
            Kind::Listen(channel) => self.change_listening(Listening::Listen(channel.clone())),
            Kind::Unlisten(channel) => self.change_listening(Listening::Unlisten(channel.clone())),
            Kind::Notify { channel, payload } => self.notify(channel, payload),
            Kind::Copy(copy) => self.copy(copy, statement.offset).await,
            Kind::Call { name, position, .. } => self.call(name, *position, prepared, values).await,
            Kind::Nothing(tag) => command(tag),
        }
    }

    /// Stores what a COPY … FROM STDIN was given; its tag.
    pub async fn finish_copy(&mut self, copy: CopyIn) -> Result<String> {
        let (target, staged) = copy.finish()?;
        let rows = staged.rows;
        self.append(&target, staged).await?;
        Ok(format!("COPY {rows}"))
    }

    async fn query(&mut self, ast: &Ast, prepared: &Prepared, values: Vec<ScalarValue>) -> Result<Response> {
        let plan = prepared.plan.as_ref().ok_or_else(|| SqlError::internal("a query was executed without its plan"))?;
        if let Some(write) = plan.write() {
            self.writable(returning::name(write.kind))?;
            let mut target = self.shared.backend.write_target(&write.table.name)?;
            // The plan gives rows for the columns that the table had when it was made.
            target.schema = Arc::clone(&write.schema);
            if write.kind != WriteKind::Insert {
                let (rows, returned) = self.change(plan, write, values, &target).await?;
                return Ok(returning::answer(prepared, write, rows, returned));
            }
            let (_, mut batches) = self.start(plan, values.clone())?;
            let mut staged = Staged::default();
            let schema = target.schema.arrow();
            while let Some(batch) = batches.next().await {
                let batch = batch?;
                for (column, array) in target.schema.columns.iter().zip(batch.columns()) {
                    check_not_null(&target, column, array)?;
                }
                staged.push(RecordBatch::try_new(Arc::clone(&schema), batch.columns().to_vec())?)?;
            }
            let returned = self.returned(write, values, &staged.batches).await?;
            let rows = staged.rows;
            self.append(&target, staged).await?;
            return Ok(returning::answer(prepared, write, rows, returned));
        }
        let tag = match ast {
            Ast::Explain { .. } => RowsTag::Explain,
            _ => RowsTag::Select,
        };
        let columns = prepared.columns.clone().unwrap_or_else(|| columns(plan.schema(), plan.origins()));
        let (schema, batches) = self.start(plan, values)?;
        Ok(Response::Rows(Rows { schema, columns, batches, tag, binary: false, live: false }))
    }

    async fn append(&mut self, target: &super::WriteTarget, staged: Staged) -> Result<()> {
        if staged.rows == 0 {
            return Ok(());
        }
        // In a task of its own: it is carried through even when the client goes away meanwhile.
        let (backend, target) = (Arc::clone(&self.shared.backend), target.clone());
        runtime::spawn(async move { backend.append(&target, staged.batches).await }).await.map_err(died)??;
        self.transaction.lasting.rows = true;
        Ok(())
    }

    async fn define(&mut self, statement: &Statement, tag: &'static str) -> Result<Response> {
        self.writable(tag)?;
        let (shared, text) = (Arc::clone(&self.shared), Arc::clone(&statement.text));
        // In a task of its own: a definition is never left half done by a client that goes away.
        let outcome = runtime::spawn(async move {
            let outcome = shared.backend.execute_ddl(&text).await;
            shared.definitions.fetch_add(1, Ordering::SeqCst);
            outcome
        });
        let outcome = outcome.await.map_err(died)??;
        match tag {
            "TRUNCATE TABLE" => self.transaction.lasting.rows = true,
            ast::EXPLAIN | ast::PROPOSE => {}
            _ => self.transaction.lasting.definitions = true,
        }
        for notice in outcome.notices {
            self.notice(false, state::SUCCESSFUL_COMPLETION, notice);
        }
        if tag == ast::EXPLAIN {
            return table(&["QUERY PLAN"], vec![outcome.lines]);
        }
        if tag == ast::PROPOSE {
            let column = |at: usize| outcome.verdicts.iter().map(|row| row[at].clone()).collect();
            return table(&VERDICT_COLUMNS, (0..VERDICT_COLUMNS.len()).map(column).collect());
        }
        Ok(Response::Command(outcome.tag))
    }

    pub(super) fn writable(&self, what: &str) -> Result<()> {
        if self.query.settings().show("transaction_read_only").is_ok_and(|value| value == "on") {
            return Err(SqlError::new("25006", format!("cannot execute {what} in a read-only transaction")));
        }
        Ok(())
    }

    fn set_all(&mut self, settings: &[(String, String)], local: bool) -> Result<()> {
        for (name, value) in settings {
            self.query.settings().set(name, value, local)?;
        }
        Ok(())
    }

    /// Says what a rolled back transaction leaves behind.
    pub(super) fn warn_of_lasting(&mut self) {
        if let Some(warning) = self.transaction.lasting.warning() {
            self.notice(true, state::WARNING, warning);
        }
        self.transaction.lasting = Lasting::default();
    }

    fn end_transaction(&mut self, chain: bool) {
        if self.status() == Status::Idle {
            self.notice(true, state::NO_ACTIVE_SQL_TRANSACTION, "there is no transaction in progress");
        }
        self.transaction.end();
        self.query.settings().end_transaction();
        self.cursors.retain(|_, cursor| cursor.hold);
        if chain {
            self.transaction.begin();
        }
    }

    fn in_block(&self, what: &str) -> Result<()> {
        if self.status() != Status::Idle {
            return Ok(());
        }
        Err(SqlError::new(state::NO_ACTIVE_SQL_TRANSACTION, format!("{what} can only be used in transaction blocks")))
    }

    fn discard(&mut self, what: Discard) -> Result<Response> {
        match what {
            Discard::All => {
                if self.transaction.is_block() {
                    return Err(SqlError::new(
                        state::ACTIVE_SQL_TRANSACTION,
                        "DISCARD ALL cannot run inside a transaction block",
                    ));
                }
                self.statements.clear();
                self.cursors.clear();
                self.listener.unlisten(None);
                self.query.settings().reset_all();
                self.note_application_name();
                Ok(Response::Command("DISCARD ALL".to_owned()))
            }
            Discard::Plans => Ok(Response::Command("DISCARD PLANS".to_owned())),
            Discard::Sequences => Ok(Response::Command("DISCARD SEQUENCES".to_owned())),
            Discard::Temp => Ok(Response::Command("DISCARD TEMP".to_owned())),
        }
    }

    fn show_all(&self) -> Result<Response> {
        let settings = self.query.settings().all();
        let names = settings.iter().map(|(name, ..)| name.clone()).collect();
        let values = settings.iter().map(|(_, value, _)| value.clone()).collect();
        let abouts = settings.iter().map(|(.., about)| (*about).to_owned()).collect();
        table(&["name", "setting", "description"], vec![names, values, abouts])
    }

    /// The values of `EXECUTE name (…)`, read and converted as casts to the parameters' types are.
    async fn arguments(&mut self, name: &str, wanted: &[PgType], arguments: &[String]) -> Result<Vec<ScalarValue>> {
        if arguments.len() != wanted.len() {
            return Err(SqlError::syntax(format!("wrong number of parameters for prepared statement \"{name}\""))
                .with_detail(format!("Expected {} parameters but got {}.", wanted.len(), arguments.len())));
        }
        if arguments.is_empty() {
            return Ok(Vec::new());
        }
        let items: Vec<String> =
            arguments.iter().zip(wanted).map(|(argument, wanted)| argument_of(argument, *wanted)).collect();
        let statements = statement::parse(&format!("SELECT {}", items.join(", ")))?;
        let [select] = statements.as_slice() else {
            return Err(SqlError::syntax("the arguments of EXECUTE must be expressions"));
        };
        let prepared =
            self.prepare(select.clone(), Vec::new()).await.map_err(|error| SqlError { position: None, ..error })?;
        let plan =
            prepared.plan.as_ref().ok_or_else(|| SqlError::syntax("the arguments of EXECUTE must be expressions"))?;
        let (_, mut batches) = self.start(plan, Vec::new())?;
        while let Some(batch) = batches.next().await {
            let batch = batch?;
            if batch.num_rows() > 0 {
                return batch.columns().iter().map(|column| Ok(ScalarValue::try_from_array(column, 0)?)).collect();
            }
        }
        Err(SqlError::syntax("the arguments of EXECUTE gave no row"))
    }

    async fn explain_execute(&mut self, explain: &str, name: &str, arguments: &[String]) -> Result<Response> {
        let prepared = self.prepared(name)?;
        let text = format!("{explain} {}", prepared.statement.text);
        let statements = statement::parse(&text)?;
        let [explained] = statements.as_slice() else {
            return Err(SqlError::syntax("EXPLAIN EXECUTE explains one statement"));
        };
        let types = prepared.parameters.iter().copied().map(Some).collect();
        let values = self.arguments(name, &prepared.parameters, arguments).await?;
        let explained =
            self.prepare(explained.clone(), types).await.map_err(|error| SqlError { position: None, ..error })?;
        let values = if explained.parameters.is_empty() { Vec::new() } else { values };
        Box::pin(self.execute(&explained, values)).await
    }

    async fn declare(
        &mut self,
        name: &str,
        (hold, binary, scroll): (bool, bool, bool),
        query: &Statement,
    ) -> Result<Response> {
        if !hold && !self.transaction.is_block() {
            return Err(SqlError::new(
                state::NO_ACTIVE_SQL_TRANSACTION,
                "DECLARE CURSOR can only be used in transaction blocks",
            )
            .with_hint("begin a transaction, or declare the cursor WITH HOLD"));
        }
        if self.cursors.contains_key(name) {
            return Err(SqlError::new(state::DUPLICATE_CURSOR, format!("cursor \"{name}\" already exists")));
        }
        if self.cursors.len() >= CURSORS_MAX {
            return Err(SqlError::new(
                state::PROGRAM_LIMIT_EXCEEDED,
                format!("a session can have {CURSORS_MAX} open cursors"),
            )
            .with_hint("CLOSE those that are not needed"));
        }
        let prepared = self.prepare(query.clone(), Vec::new()).await?;
        let (schema, batches, live) = self.start_prepared(&prepared)?;
        let columns = prepared.columns.clone().unwrap_or_else(|| columns(&schema, &[]));
        let cursor = Cursor::new(schema, columns, batches, hold, binary, scroll).of_live(live);
        self.cursors.insert(name.to_owned(), Arc::new(cursor));
        Ok(Response::Command("DECLARE CURSOR".to_owned()))
    }

    async fn fetch(&mut self, fetch: &Fetch) -> Result<Response> {
        let cursor = Arc::clone(self.cursor(&fetch.cursor)?);
        let mut batches = cursor.fetch_some(fetch.step, fetch.timeout)?;
        if fetch.moves {
            let mut rows = 0;
            while let Some(batch) = batches.next().await {
                rows += batch?.num_rows();
            }
            return Ok(Response::Command(format!("MOVE {rows}")));
        }
        Ok(Response::Rows(Rows {
            schema: Arc::clone(&cursor.schema),
            columns: Arc::clone(&cursor.columns),
            batches,
            tag: RowsTag::Fetch,
            binary: cursor.binary,
            live: cursor.live,
        }))
    }

    async fn copy(&mut self, copy: &Copy, offset: u32) -> Result<Response> {
        let (query, shift) = match &copy.what {
            What::Query(query) => (query.as_ref().clone(), Some(query.offset.saturating_sub(offset))),
            What::Table { name, columns, position, .. } if copy.from => {
                self.writable("COPY FROM")?;
                let target = self.shared.backend.write_target(name).map_err(|error| match error.position {
                    None => error.at(position.saturating_sub(offset)),
                    Some(_) => error,
                })?;
                let reader = CopyIn::new(target, columns, copy.options.clone(), self.read_style())?;
                return Ok(Response::CopyIn(Box::new(reader)));
            }
            What::Table { schema, name, columns, .. } => {
                let list = match columns.is_empty() {
                    true => "*".to_owned(),
                    false => columns.iter().map(|name| quoted(name)).collect::<Vec<_>>().join(", "),
                };
                let from = match schema {
                    Some(schema) => format!("{}.{}", quoted(schema), quoted(name)),
                    None => quoted(name),
                };
                let parsed = statement::parse(&format!("SELECT {list} FROM {from}"))?;
                let query = parsed.into_iter().next().ok_or_else(|| SqlError::internal("COPY made no query"))?;
                (query, None)
            }
        };
        let prepared = self.prepare(query, Vec::new()).await.map_err(|error| match shift {
            Some(shift) => error.shifted(shift),
            // The position is one in a text that the client did not send.
            None => SqlError { position: None, ..error },
        })?;
        let plan = prepared.plan.as_ref().ok_or_else(|| {
            SqlError::syntax("COPY query must have a RETURNING clause").with_hint("COPY takes a SELECT or VALUES")
        })?;
        if plan.write().is_some() {
            return Err(SqlError::unsupported("COPY query must be a SELECT or VALUES"));
        }
        let (schema, batches, live) = self.start_prepared(&prepared)?;
        Ok(Response::CopyOut(CopyOut {
            columns: schema.fields().len(),
            writer: CopyWriter::new(copy.options.clone(), schema, self.style()),
            batches,
            live,
        }))
    }
}

pub(super) fn died(error: tokio::task::JoinError) -> SqlError {
    tracing::error!(%error, "a task of a statement died");
    SqlError::internal("the statement's task died; see the server's log")
}

fn no_savepoint(name: &str) -> SqlError {
    SqlError::new(state::INVALID_SAVEPOINT, format!("savepoint \"{name}\" does not exist"))
}

/// The answer of SHOW: columns of text.
fn table(names: &[&str], columns: Vec<Vec<String>>) -> Result<Response> {
    let fields: Vec<Field> = names.iter().map(|name| Field::new(*name, DataType::Utf8, false)).collect();
    let schema = Arc::new(Schema::new(fields));
    let arrays = columns.into_iter().map(|values| Arc::new(StringArray::from(values)) as ArrayRef).collect();
    let batch = RecordBatch::try_new(Arc::clone(&schema), arrays)?;
    Ok(Response::Rows(Rows {
        schema,
        columns: super::text_columns(names),
        batches: Box::pin(futures::stream::once(async move { Ok(batch) })),
        tag: RowsTag::Show,
        binary: false,
        live: false,
    }))
}

/// "500ms", "5s", "1min", "2h", "1d", "0": as SHOW writes them. `None` for no limit.
pub(super) fn duration(shown: &str) -> Option<Duration> {
    let digits = shown.find(|c: char| !c.is_ascii_digit()).unwrap_or(shown.len());
    let number: u64 = shown[..digits].parse().ok()?;
    let unit = match &shown[digits..] {
        "" | "ms" => 1,
        "s" => 1000,
        "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    (number > 0).then(|| Duration::from_millis(number.saturating_mul(unit)))
}

/// An argument of EXECUTE as a parameter's type. Texts are of any length, and numerics keep all digits that they are written with until the statement has its scale.
fn argument_of(argument: &str, wanted: PgType) -> String {
    let name = match wanted.scalar {
        // With the digits that are written.
        Scalar::Numeric if argument.trim_start().starts_with('\'') && !wanted.array => wanted.scalar.name(),
        Scalar::Bool
        | Scalar::Bytea
        | Scalar::Date
        | Scalar::Float4
        | Scalar::Float8
        | Scalar::Int2
        | Scalar::Int4
        | Scalar::Int8
        | Scalar::Interval
        | Scalar::Json
        | Scalar::Jsonb
        | Scalar::Time
        | Scalar::Timestamp
        | Scalar::TimestampTz
        | Scalar::Uuid => wanted.scalar.name(),
        _ => return argument.to_owned(),
    };
    format!("CAST({argument} AS {name}{})", if wanted.array { "[]" } else { "" })
}
