//! Functions that users made, in whatever language: what SQL says of one, what it is computed by, and how a plan calls it.
//!
//! ```text
//! called.rs   types of the call ─► columns ─► UserFunction: rows without NULLs ─► body      wasm/   WebAssembly
//!                                                                                           model/  a model of machine learning
//! ```
//!
//! They are IMMUTABLE: a body computes a row's result from its arguments and nothing else. STRICT, too (a NULL argument gives NULL, and is not passed), but for models that are CALLED ON NULL INPUT.

mod called;

use std::{fmt, sync::Arc};

use arrow::{
    array::{Array, ArrayRef, UInt32Array},
    buffer::NullBuffer,
    compute::take,
};
use datafusion::{
    common::DataFusionError,
    logical_expr::{ScalarUDF, Volatility},
};
use serde::{Deserialize, Serialize};
use tidemill_storage::schema::DataType;

use self::called::Called;
use super::{
    model::Model,
    wasm::{Sandbox, WasmFunction},
};
use crate::{SqlError, exec::work::StopFlag};

/// What a function is written in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Language {
    #[default]
    Wasm,
    Model,
}

impl Language {
    pub const ALL: [Self; 2] = [Self::Wasm, Self::Model];

    /// As SQL says it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Wasm => "wasm",
            Self::Model => "model",
        }
    }

    /// Object id in `pg_language`; PostgreSQL gives none of its own objects these.
    pub(crate) fn oid(self) -> i32 {
        match self {
            Self::Wasm => 13_999,
            Self::Model => 13_998,
        }
    }
}

/// What SQL says of a function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Declaration {
    pub oid: u32,
    pub name: String,
    pub arguments: Vec<(Option<String>, DataType)>,
    pub returns: DataType,
    /// Else a NULL argument gives NULL without a call.
    pub called_on_null: bool,
}

/// What is wrong with a body or with what SQL says of it, and what can be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unfit {
    pub message: String,
    pub hint: Option<String>,
}

impl Unfit {
    /// An empty hint is none.
    pub(super) fn new(message: impl Into<String>, hint: impl Into<String>) -> Self {
        let hint = hint.into();
        Self { message: message.into(), hint: (!hint.is_empty()).then_some(hint) }
    }
}

/// Why a call gave nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Failed {
    /// The function did not end.
    Interrupted,
    /// The query that called it did.
    Stopped,
    /// It failed for a row, or gave what it may not.
    Trapped(String),
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Interrupted => f.write_str("it did not end within a second"),
            Self::Stopped => f.write_str("the query was stopped"),
            Self::Trapped(reason) => f.write_str(reason),
        }
    }
}

/// One function. Another body is another one of these, so that a plan never has two.
#[derive(Debug)]
pub struct UserFunction {
    declaration: Declaration,
    body: Body,
}

#[derive(Debug)]
enum Body {
    Wasm(WasmFunction),
    Model(Model),
}

impl UserFunction {
    /// `symbol`: what the module calls it.
    pub fn wasm(sandbox: &Sandbox, declaration: Declaration, bytes: &[u8], symbol: &str) -> Result<Arc<Self>, Unfit> {
        let types: Vec<DataType> = declaration.arguments.iter().map(|(_, data_type)| data_type.clone()).collect();
        let body = Body::Wasm(WasmFunction::new(sandbox, bytes, symbol, &types, &declaration.returns)?);
        Ok(Arc::new(Self { declaration, body }))
    }

    /// `output`: what the model calls what is returned; `None`: the first output whose type fits.
    pub fn model(declaration: Declaration, bytes: &[u8], output: Option<&str>) -> Result<Arc<Self>, Unfit> {
        let body = Body::Model(Model::new(bytes, output, &declaration)?);
        Ok(Arc::new(Self { declaration, body }))
    }

    pub fn declaration(&self) -> &Declaration {
        &self.declaration
    }

    pub fn language(&self) -> Language {
        match self.body {
            Body::Wasm(_) => Language::Wasm,
            Body::Model(_) => Language::Model,
        }
    }

    /// What the module calls the function, or the model what is returned.
    pub fn symbol(&self) -> &str {
        match &self.body {
            Body::Wasm(function) => function.symbol(),
            Body::Model(model) => &model.output,
        }
    }

    /// The function for an engine.
    pub(crate) fn udf(self: &Arc<Self>) -> Arc<ScalarUDF> {
        Arc::new(Called::udf(self, Volatility::Immutable))
    }

    fn call(&self, arguments: &[ArrayRef], rows: usize, stop: &StopFlag) -> Result<ArrayRef, DataFusionError> {
        // NULLs are taken out, and put in again where they were.
        let nulls = arguments
            .iter()
            .fold(None, |all, argument| NullBuffer::union(all.as_ref(), argument.logical_nulls().as_ref()));
        let nulls = nulls.filter(|nulls| nulls.null_count() > 0 && !self.declaration.called_on_null);
        let Some(nulls) = nulls else { return self.compute(arguments, rows, stop) };
        let valid: UInt32Array = nulls.valid_indices().map(|row| row as u32).collect();
        let given = arguments.iter().map(|argument| take(argument, &valid, None));
        let made = self.compute(&given.collect::<Result<Vec<_>, _>>()?, valid.len(), stop)?;
        let mut next = 0..valid.len() as u32;
        let places: UInt32Array = (0..rows).map(|row| nulls.is_valid(row).then(|| next.next()).flatten()).collect();
        Ok(take(&made, &places, None)?)
    }

    fn compute(&self, arguments: &[ArrayRef], rows: usize, stop: &StopFlag) -> Result<ArrayRef, DataFusionError> {
        let made = match &self.body {
            Body::Wasm(function) => function.call(arguments, rows, stop),
            Body::Model(model) => model.call(arguments, rows, stop),
        };
        made.map_err(|failed| self.error(failed))
    }

    fn error(&self, failed: Failed) -> DataFusionError {
        let name = &self.declaration.name;
        let error = match failed {
            Failed::Stopped => SqlError::cancelled(),
            // No row is to blame: on a faster machine it might have ended.
            Failed::Interrupted => {
                SqlError::new("57014", format!("canceling function {name}(), which did not end within a second"))
                    .with_hint("A call may take a second; what loops for ever is stopped after it.")
            }
            Failed::Trapped(reason) => SqlError::new("38000", format!("function {name}() failed: {reason}")),
        };
        error.into()
    }
}

/// Whether a user made the function.
pub fn is_user_function(function: &ScalarUDF) -> bool {
    function.inner().downcast_ref::<Called>().is_some()
}
