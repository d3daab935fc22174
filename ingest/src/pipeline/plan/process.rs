//! `transform(TABLE source PARTITION BY key, …)`: what is made of it.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use arrow::{
    array::{Array, RecordBatch},
    datatypes::{Field, Schema, SchemaRef},
};
use datafusion::{common::DFSchema, logical_expr::Expr};

use super::{
    super::{
        expression::{Expression, definition},
        plugin::{State, Stateful},
        rules::Rules,
    },
    Call, PlanSource,
    transformed::Body,
    unsupported,
};
use crate::{Error, Result};

/// Rows of which something is kept by key, by a transform that a program brought.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) keys: Vec<Expression>,
    pub(crate) key_schema: SchemaRef,
    /// The event time.
    pub(crate) time: Expression,
    /// The source's columns.
    pub(crate) input: SchemaRef,
    pub(crate) output: SchemaRef,
    /// The column of the output that is the event time.
    pub(crate) time_column: Option<usize>,
    call: Call,
}

impl Process {
    /// `None`: the call is one of rows alone.
    pub(super) fn compile(rules: &dyn Rules, call: &Call, source: &PlanSource) -> Result<Option<Self>> {
        let Body::ByKey(_, names) = &call.body else { return Ok(None) };
        let Some(time) = &source.time_column else {
            return Err(unsupported(
                format!(
                    "{}(TABLE {} PARTITION BY …) goes by event time, and the source has none",
                    call.name, source.name
                ),
                "say WATERMARK FOR column AS column - INTERVAL '…' in CREATE SOURCE",
            ));
        };
        let schema = DFSchema::try_from_qualified_schema(source.name.as_str(), &source.schema)
            .map_err(|error| definition(error.to_string()))?;
        let schema = Arc::new(schema);
        let column = |name: &String, what: &str| {
            let at = schema.index_of_column_by_name(None, name).ok_or_else(|| Error::Expression {
                state: "42703",
                message: format!("column \"{name}\" does not exist in source \"{}\"", source.name),
            })?;
            Expression::of_plan(rules, &schema, Expr::Column(schema.qualified_field(at).into()), what)
        };
        let nullable = |field: &Field| field.clone().with_nullable(true);
        let keys: Vec<Expression> = names.iter().map(|name| column(name, "PARTITION BY")).collect::<Result<_>>()?;
        let of_key = |(name, key): (&String, &Expression)| Field::new(name, key.field.data_type().clone(), true);
        let key_schema = Schema::new(names.iter().zip(&keys).map(of_key).collect::<Vec<_>>());
        let input = Schema::new(source.schema.fields().iter().map(|field| nullable(field)).collect::<Vec<_>>());
        let time_column = call.output.fields().iter().position(|field| field.name() == time);
        let time = column(time, "the event time")?;
        if let Some(at) = time_column
            && call.output.field(at).data_type() != time.field.data_type()
        {
            let message = format!("{}() gives the event time of the source in another type", call.name);
            return Err(Error::Definition { message, hint: None });
        }
        let output = Schema::new(call.output.fields().iter().map(|field| nullable(field)).collect::<Vec<_>>());
        Ok(Some(Self {
            keys,
            key_schema: Arc::new(key_schema),
            time,
            input: Arc::new(input),
            output: Arc::new(output),
            time_column,
            call: call.clone(),
        }))
    }

    /// Lets the transform do something with the state of a key at an event time.
    pub(crate) fn run(
        &self,
        state: &mut State,
        time: i64,
        work: impl FnOnce(&dyn Stateful, &mut State) -> Result<Option<RecordBatch>, String>,
    ) -> Result<Option<RecordBatch>, String> {
        let Body::ByKey(transform, _) = &self.call.body else { return Err("it goes row by row".into()) };
        let made = catch_unwind(AssertUnwindSafe(|| work(&**transform, state)));
        let made = made.unwrap_or_else(|_| Err("it panicked".into()));
        let name = &self.call.name;
        let rows = made.map_err(|reason| format!("{name}(): {reason}"))?;
        if state.bytes.len() > State::BYTES_MAX {
            return Err(format!(
                "{name}() keeps {} bytes of a key; {} are the most",
                state.bytes.len(),
                State::BYTES_MAX
            ));
        }
        if state.wake_us.is_some_and(|wake| wake <= time) {
            return Err(format!("{name}() asks to be woken at a time that is over"));
        }
        let fits = |rows: &RecordBatch| {
            let types = rows.columns().iter().map(|column| column.data_type());
            types.eq(self.output.fields().iter().map(|field| field.data_type()))
        };
        match rows {
            Some(rows) if !fits(&rows) => Err(format!("{name}() gave other columns than it says")),
            rows => Ok(rows),
        }
    }

    pub(super) fn describe(&self) -> String {
        self.call.describe()
    }
}
