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
        plugin::{Bound, Transforms},
        rules::Rules,
    },
    PlanSource,
};
use crate::{Error, Result};

const PREFIX: &str = "transform ";
/// Between parts of a name; no text of SQL has it.
const SEPARATOR: char = '\u{1f}';

/// A call, as its relation is named.
pub(super) fn relation(name: &str, source: &str, arguments: &[String]) -> String {
    let parts = [name, source].into_iter().chain(arguments.iter().map(String::as_str));
    format!("{PREFIX}{}", parts.collect::<Vec<_>>().join(&SEPARATOR.to_string()))
}

/// The source of a call, if a relation is one.
pub(super) fn source_of(relation: &str) -> Option<&str> {
    relation.strip_prefix(PREFIX)?.split(SEPARATOR).nth(1)
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
    name: String,
    arguments: Vec<String>,
    bound: Arc<dyn Bound>,
    pub(super) output: SchemaRef,
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
        let (Some(name), Some(of)) = (parts.next(), parts.next()) else { return Ok(None) };
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
        let bound = catch_unwind(AssertUnwindSafe(|| transform.bind(&sources[source].schema, &arguments)))
            .unwrap_or_else(|_| Err("it panicked".into()))
            .map_err(|message| Error::Definition { message: format!("{name}(TABLE {of}): {message}"), hint: None })?;
        let output = bound.output();
        Ok(Some(Self { relation: relation.to_owned(), source, name, arguments, bound, output }))
    }

    /// The rows, and which of the rows before each came of.
    pub(crate) fn run(&self, rows: &RecordBatch) -> Result<(RecordBatch, UInt32Array), String> {
        // One that panics on a row must not take the pipeline down each time the row is read again.
        let made = catch_unwind(AssertUnwindSafe(|| self.bound.run(rows)));
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
        format!("Transform: {}(TABLE …{})", self.name, arguments.concat())
    }
}
