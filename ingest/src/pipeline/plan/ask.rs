//! `http_lookup('http://host:port/path', key)`: what a service says of a key.
//!
//! ```text
//! SELECT a, http_lookup(url, k) -> 'x' FROM s      Projection: a, __http_lookup_1 -> 'x'
//!                                                    Projection: s.*, http_lookup(url, k) AS __http_lookup_1      a step of its own
//!                                                      s
//! ```
//!
//! Each call is put below the node that has it, so that it is asked once for a row, for the rows that get there, and before what is made of it.

use std::sync::Arc;

use arrow::datatypes::{DataType as ArrowType, FieldRef, Schema, SchemaRef};
use datafusion::{
    common::{
        Column, DFSchema, DataFusionError, ScalarValue, exec_err,
        tree_node::{Transformed, TreeNode},
    },
    logical_expr::{
        Cast, ColumnarValue, Distinct, DistinctOn, Expr, ExprSchemable, Filter, LogicalPlan, Projection,
        ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
    },
};
use tidemill_storage::schema::DataType;

use super::{
    super::{
        expression::{Expression, definition},
        rules::Rules,
    },
    unsupported,
};
use crate::{
    Error, Result,
    http::{Address, NoAddress},
};

const HTTP_LOOKUP: &str = "http_lookup";
const SHAPE: &str =
    "write http_lookup('http://host:port/path', key) in the select list or in WHERE; the key is put behind the address";

/// A question to a service, compiled.
#[derive(Debug)]
pub(crate) struct Ask {
    /// Place among what the machine asks: tables, then services.
    pub(crate) place: usize,
    /// A text.
    pub(crate) key: Expression,
    /// Columns of the rows, then the answer.
    pub(crate) output: SchemaRef,
    address: String,
}

impl Ask {
    /// `place_of`: of a service, among what is asked.
    pub(super) fn compile(
        rules: &dyn Rules,
        input: &DFSchema,
        call: &Expr,
        output: SchemaRef,
        place_of: &mut dyn FnMut(Address) -> usize,
    ) -> Result<Self> {
        let Some([url, key]) = arguments(call) else { return Err(definition(SHAPE)) };
        let address = address(url)?;
        let field = key.to_field(input).map_err(|error| definition(error.to_string()))?.1;
        let is_key = match DataType::of_field(&field) {
            Some(DataType::Text | DataType::Uuid | DataType::SmallInt | DataType::Int | DataType::BigInt) => true,
            _ => matches!(field.data_type(), ArrowType::Utf8 | ArrowType::Null),
        };
        if !is_key {
            return Err(Error::Mismatch {
                message: format!("{HTTP_LOOKUP}() takes a key that is a text, a uuid or an integer"),
                hint: Some("cast it: http_lookup('http://…', key::text)".into()),
            });
        }
        let text = Expr::Cast(Cast::new(Box::new(key.clone()), ArrowType::Utf8View));
        let key = Expression::of_plan(rules, &Arc::new(input.clone()), text, HTTP_LOOKUP)?;
        let shown = address.to_string();
        Ok(Self { place: place_of(address), key, output, address: shown })
    }

    pub(super) fn describe(&self) -> String {
        format!("HttpLookUp: {}, by [{}]", self.address, self.key.describe())
    }
}

fn address(url: &Expr) -> Result<Address> {
    let text = match url.clone().unalias_nested().data {
        Expr::Literal(ScalarValue::Utf8(Some(text)) | ScalarValue::Utf8View(Some(text)), _) => text,
        _ => {
            return Err(Error::Definition {
                message: format!("the address that {HTTP_LOOKUP}() asks is not a constant text"),
                hint: Some(SHAPE.into()),
            });
        }
    };
    Address::parse(&text, None).map_err(|wrong| match wrong {
        NoAddress::Https => Error::Unsupported {
            message: format!("{HTTP_LOOKUP}() cannot ask over https"),
            hint: Some("use http:// in a network that you trust, or through a TLS proxy beside the server".into()),
        },
        NoAddress::Malformed | NoAddress::TwoUsers => {
            Error::Definition { message: format!("'{text}' is no address of a service"), hint: Some(SHAPE.into()) }
        }
    })
}

fn arguments(expr: &Expr) -> Option<&[Expr; 2]> {
    match expr {
        Expr::Alias(alias) => arguments(&alias.expr),
        Expr::ScalarFunction(function) if function.func.name() == HTTP_LOOKUP => {
            function.args.as_slice().try_into().ok()
        }
        _ => None,
    }
}

pub(super) fn has_call(expr: &Expr) -> bool {
    expr.exists(|expr| Ok(arguments(expr).is_some())).unwrap_or(false)
}

/// The questions of a node that [`lifted`] made: columns of its input as they are, and these.
pub(super) fn asked(node: &Projection) -> Option<&[Expr]> {
    let questions = node.expr.get(node.input.schema().fields().len()..)?;
    (!questions.is_empty() && questions.iter().all(|expr| arguments(expr).is_some())).then_some(questions)
}

/// Puts each call into a node of its own.
pub(super) fn lifted(plan: LogicalPlan) -> Result<LogicalPlan> {
    let mut number = 0;
    let plan = plan.transform_up(|node| {
        if !node.expressions().iter().any(has_call) {
            return Ok(Transformed::no(node));
        }
        Ok(Transformed::yes(match node {
            LogicalPlan::Projection(Projection { expr, input, .. }) => {
                let (expr, input) = below(expr, input, &mut number)?;
                LogicalPlan::Projection(Projection::try_new(expr, input)?)
            }
            LogicalPlan::Filter(Filter { predicate, input, .. }) => {
                let columns: Vec<Expr> = input.schema().columns().into_iter().map(Expr::Column).collect();
                let (mut predicate, input) = below(vec![predicate], input, &mut number)?;
                let filter = Filter::try_new(predicate.remove(0), input)?;
                LogicalPlan::Projection(Projection::try_new(columns, Arc::new(LogicalPlan::Filter(filter)))?)
            }
            LogicalPlan::Distinct(Distinct::On(DistinctOn { on_expr, select_expr, sort_expr, input, .. })) => {
                let keys = on_expr.len();
                let (mut on_expr, input) = below([on_expr, select_expr].concat(), input, &mut number)?;
                let select_expr = on_expr.split_off(keys);
                LogicalPlan::Distinct(Distinct::On(DistinctOn::try_new(on_expr, select_expr, sort_expr, input)?))
            }
            _ => {
                return Err(DataFusionError::Plan(format!(
                    "{HTTP_LOOKUP}() cannot be used here: select it in a subquery in FROM, and use its column"
                )));
            }
        }))
    });
    plan.map(|plan| plan.data).map_err(|error| unsupported(super::plain_message(&error), ""))
}

/// Expressions over columns instead of calls, and the input that has these columns.
fn below(
    mut exprs: Vec<Expr>,
    mut input: Arc<LogicalPlan>,
    number: &mut usize,
) -> Result<(Vec<Expr>, Arc<LogicalPlan>), DataFusionError> {
    let names: Vec<String> = exprs.iter().map(|expr| expr.schema_name().to_string()).collect();
    // Calls within the keys of calls come first.
    while exprs.iter().any(has_call) {
        let mut calls: Vec<(Expr, Column)> = Vec::new();
        for expr in &mut exprs {
            let replaced = std::mem::take(expr).transform_up(|expr| {
                let Some(arguments) = arguments(&expr).filter(|_| !matches!(expr, Expr::Alias(_))) else {
                    return Ok(Transformed::no(expr));
                };
                let is_new = |column: &Column| calls.iter().any(|(_, known)| known == column);
                if arguments.iter().any(|argument| argument.column_refs().into_iter().any(is_new)) {
                    return Ok(Transformed::no(expr));
                }
                if let Some((_, column)) = calls.iter().find(|(call, _)| *call == expr) {
                    return Ok(Transformed::yes(Expr::Column(column.clone())));
                }
                *number += 1;
                let column = Column::from_name(format!("__http_lookup_{number}"));
                calls.push((expr, column.clone()));
                Ok(Transformed::yes(Expr::Column(column)))
            })?;
            *expr = replaced.data;
        }
        let columns = input.schema().columns().into_iter().map(Expr::Column);
        let calls = calls.into_iter().map(|(call, column)| call.alias(column.name));
        let all: Vec<Expr> = columns.chain(calls).collect();
        input = Arc::new(LogicalPlan::Projection(Projection::try_new(all, input)?));
    }
    let named = exprs.into_iter().zip(names).map(|(expr, name)| expr.alias_if_changed(name));
    Ok((named.collect::<Result<_, _>>()?, input))
}

/// The columns of the rows, and one for the answer to a question.
pub(super) fn with_answer(rows: &Schema, name: &str) -> SchemaRef {
    let mut fields: Vec<FieldRef> = rows.fields().iter().cloned().collect();
    fields.push(Arc::new(DataType::Jsonb.field(name, true)));
    Arc::new(Schema::new(fields))
}

pub(super) fn function() -> Arc<ScalarUDF> {
    Arc::new(ScalarUDF::new_from_impl(HttpLookup { signature: Signature::any(2, Volatility::Volatile) }))
}

/// What the plan knows of it; a step asks, so nobody calls it.
#[derive(Debug, PartialEq, Eq, Hash)]
struct HttpLookup {
    signature: Signature,
}

impl ScalarUDFImpl for HttpLookup {
    fn name(&self) -> &str {
        HTTP_LOOKUP
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[ArrowType]) -> Result<ArrowType, DataFusionError> {
        Ok(ArrowType::Utf8View)
    }

    fn return_field_from_args(&self, _: ReturnFieldArgs<'_>) -> Result<FieldRef, DataFusionError> {
        Ok(Arc::new(DataType::Jsonb.field(HTTP_LOOKUP, true)))
    }

    fn invoke_with_args(&self, _: ScalarFunctionArgs) -> Result<ColumnarValue, DataFusionError> {
        exec_err!("{HTTP_LOOKUP}() was not asked")
    }
}
