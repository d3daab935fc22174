//! `transform(TABLE source, argument, …)` in FROM: what is made of it.
//!
//! Until the plan is taken apart, the call is a relation whose name has all of it: `"transform name(source, argument, …)"`.

use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use arrow::{
    array::{RecordBatch, RecordBatchOptions, UInt32Array},
    datatypes::SchemaRef,
};
use datafusion::sql::sqlparser::tokenizer::Token;

use super::{
    super::{
        plugin::{Bound, Stateful, Transforms},
        rules::Rules,
    },
    PlanSource,
};
use crate::{Error, Result};

const PREFIX: &str = "transform ";
/// Between parts of a name; no text of SQL has it.
const SEPARATOR: char = '\u{1f}';
/// Between the source and each column behind PARTITION BY.
const OF_KEY: char = '\u{1e}';

/// A call, as its relation is named.
pub(super) fn relation(name: &str, of: &Input, arguments: &[String]) -> String {
    let input: String = [of.source.as_str()]
        .into_iter()
        .chain(of.keys.iter().map(String::as_str))
        .collect::<Vec<_>>()
        .join(&OF_KEY.to_string());
    let parts = [name, &input].into_iter().chain(arguments.iter().map(String::as_str));
    format!("{PREFIX}{}", parts.collect::<Vec<_>>().join(&SEPARATOR.to_string()))
}

/// `TABLE source [PARTITION BY (key, …)]`
pub(super) struct Input {
    pub(super) source: String,
    pub(super) keys: Vec<String>,
}

/// The source of a call, if a relation is one.
pub(super) fn source_of(relation: &str) -> Option<&str> {
    relation.strip_prefix(PREFIX)?.split(SEPARATOR).nth(1)?.split(OF_KEY).next()
}

/// The text of an argument, behind a minus if it is negative.
pub(super) fn argument(token: &Token, is_negative: bool) -> Option<String> {
    match token {
        Token::Number(text, _) if is_negative => Some(format!("-{text}")),
        _ if is_negative => None,
        Token::SingleQuotedString(text) | Token::Number(text, _) => Some(text.clone()),
        Token::Word(word) if word.quote_style.is_none() && ["true", "false"].contains(&&*word.value.to_lowercase()) => {
            Some(word.value.to_lowercase())
        }
        _ => None,
    }
}

/// A call in a query.
#[derive(Clone)]
pub(crate) struct Call {
    /// As the plan names it.
    pub(super) relation: String,
    /// Place among the sources.
    pub(super) source: usize,
    pub(super) name: String,
    arguments: Vec<String>,
    pub(super) body: Body,
    pub(super) output: SchemaRef,
}

#[derive(Clone)]
pub(super) enum Body {
    EachRow(Arc<dyn Bound>),
    /// With the columns that are the key.
    ByKey(Arc<dyn Stateful>, Vec<String>),
}

impl fmt::Debug for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Call").field("relation", &self.relation).field("output", &self.output).finish_non_exhaustive()
    }
}

impl Call {
    pub(super) fn bind(rules: &dyn Rules, relation: &str, sources: &[PlanSource]) -> Result<Option<Self>> {
        let Some(rest) = relation.strip_prefix(PREFIX) else { return Ok(None) };
        let mut parts = rest.split(SEPARATOR).map(str::to_owned);
        let (Some(name), Some(input)) = (parts.next(), parts.next()) else { return Ok(None) };
        let mut input = input.split(OF_KEY).map(str::to_owned);
        let Some(of) = input.next() else { return Ok(None) };
        let keys: Vec<String> = input.collect();
        let arguments: Vec<String> = parts.collect();
        let transforms: &Transforms = rules.transforms();
        let transform = transforms.named(&name).ok_or_else(|| {
            let known: Vec<&str> = transforms.names().collect();
            Error::Expression {
                state: "42883",
                message: match known.is_empty() {
                    true => format!("there is no transform {name}(TABLE …): this server has none"),
                    false => format!("there is no transform {name}(TABLE …); there are {}", known.join(", ")),
                },
            }
        })?;
        let source = sources.iter().position(|source| source.name == of).ok_or_else(|| Error::Expression {
            state: "42P01",
            message: format!("source \"{of}\" does not exist, which {name}(TABLE {of}) reads"),
        })?;
        let schema = &sources[source].schema;
        let bind = || match keys.is_empty() {
            true => transform.bind(schema, &arguments).map(|bound| (bound.output(), Body::EachRow(bound))),
            false => {
                let bound = transform.bind_keyed(schema, &keys, &arguments)?;
                Ok((bound.output(), Body::ByKey(bound, keys)))
            }
        };
        let (output, body) = catch_unwind(AssertUnwindSafe(bind))
            .unwrap_or_else(|_| Err("it panicked".into()))
            .map_err(|message| Error::Definition { message: format!("{name}(TABLE {of}): {message}"), hint: None })?;
        Ok(Some(Self { relation: relation.to_owned(), source, name, arguments, body, output }))
    }

    /// The rows, and which of the rows before each came of.
    pub(crate) fn run(&self, rows: &RecordBatch) -> Result<(RecordBatch, UInt32Array), String> {
        let Body::EachRow(bound) = &self.body else { return Err("it goes key by key".into()) };
        // One that panics on a row must not take the pipeline down each time the row is read again.
        let made = catch_unwind(AssertUnwindSafe(|| bound.run(rows)));
        let made = made.unwrap_or_else(|_| Err("it cannot be computed for this row".into()));
        let made = made.map_err(|reason| format!("{}(): {reason}", self.name))?;
        let is_sound = made.rows.num_rows() == made.of.len()
            && made.of.is_sorted()
            && made.of.last().is_none_or(|last| (*last as usize) < rows.num_rows())
            && made.rows.schema().fields().iter().map(|field| field.data_type()).eq(self
                .output
                .fields()
                .iter()
                .map(|field| field.data_type()));
        if !is_sound {
            return Err(format!("{}() gave other columns than it says, or rows that came of no row", self.name));
        }
        let options = RecordBatchOptions::new().with_row_count(Some(made.of.len()));
        let columns = made.rows.columns().to_vec();
        let rows = RecordBatch::try_new_with_options(Arc::clone(&self.output), columns, &options);
        Ok((rows.map_err(|error| error.to_string())?, made.of.into()))
    }

    pub(super) fn describe(&self) -> String {
        let arguments: Vec<String> = self.arguments.iter().map(|argument| format!(", '{argument}'")).collect();
        let keys = match &self.body {
            Body::EachRow(_) => String::new(),
            Body::ByKey(_, keys) => format!(" PARTITION BY ({})", keys.join(", ")),
        };
        format!("Transform: {}(TABLE …{keys}{})", self.name, arguments.concat())
    }
}
