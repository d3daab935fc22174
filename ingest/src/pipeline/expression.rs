//! SQL expressions over the rows of a source: compiled once, evaluated a batch at a time.
//!
//! Arithmetic never wraps: `+ - *` and negation fail on overflow. Expressions give the same answer whenever they are computed, because
//! rows are read again from the topic after a crash; so `random()` and `now()` are refused, as are aggregates, windows and subqueries.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use arrow::{
    array::{ArrayRef, RecordBatch, new_null_array},
    datatypes::{DataType as ArrowType, FieldRef, SchemaRef},
    error::ArrowError,
};
use datafusion::{
    common::{
        DFSchema, DFSchemaRef, DataFusionError, ScalarValue,
        config::Dialect,
        tree_node::{Transformed, TreeNode, TreeNodeRecursion},
    },
    logical_expr::{Expr, Operator, Volatility, simplify::SimplifyContext},
    optimizer::simplify_expressions::ExprSimplifier,
    physical_expr::{
        PhysicalExpr,
        expressions::{BinaryExpr, Literal, NegativeExpr},
    },
    sql::sqlparser::ast,
};

use super::rules::Rules;
use crate::{Error, Result};

/// A compiled expression.
#[derive(Debug)]
pub(crate) struct Expression {
    physical: Arc<dyn PhysicalExpr>,
    /// Type and metadata of the result.
    pub(crate) field: FieldRef,
    /// The value, when the expression is a literal.
    pub(super) literal: Option<ScalarValue>,
    /// What a row failed with, for a user.
    reader: fn(&DataFusionError) -> String,
    /// Whether it was the row that failed.
    blames_rows: fn(&DataFusionError) -> bool,
}

/// Why rows could not be computed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Uncomputed {
    /// One of them cannot be, now and always.
    Row(String),
    /// They may be another time: a function did not end in its time. No row is to become a dead letter for it, as what becomes of rows depends on no clock.
    Nobody(String),
}

impl Uncomputed {
    pub(crate) fn reason(self) -> String {
        match self {
            Self::Row(reason) | Self::Nobody(reason) => reason,
        }
    }

    pub(crate) fn error(self) -> Error {
        match self {
            Self::Row(reason) => Error::DataFusion(Arc::new(DataFusionError::Execution(reason))),
            Self::Nobody(reason) => Error::Unavailable(reason),
        }
    }
}

impl From<String> for Uncomputed {
    fn from(reason: String) -> Self {
        Self::Row(reason)
    }
}

impl From<&str> for Uncomputed {
    fn from(reason: &str) -> Self {
        Self::Row(reason.to_owned())
    }
}

pub(super) fn definition(message: impl Into<String>) -> Error {
    Error::Definition { message: message.into(), hint: None }
}

/// Reads one SQL expression.
pub(super) fn parse(rules: &dyn Rules, text: &str) -> Result<ast::Expr> {
    rules
        .state()
        .sql_to_expr(text, &Dialect::PostgreSQL)
        .map_err(|error| definition(format!("cannot read the expression {text}: {}", plain_message(&error))))
}

impl Expression {
    /// Compiles `expression` over rows of `schema`. `what` names it in messages.
    pub(super) fn compile(rules: &dyn Rules, schema: &SchemaRef, expression: ast::Expr, what: &str) -> Result<Self> {
        let reader = rules.reader();
        let fail = |error: DataFusionError| definition(format!("{what}: {}", reader(&error)));
        let df_schema = Arc::new(DFSchema::try_from(SchemaRef::clone(schema)).map_err(fail)?);
        let planned = rules.plan(expression, &df_schema);
        let logical = planned
            .map_err(|wrong| Error::Expression { state: wrong.state, message: format!("{what}: {}", wrong.message) })?;
        refuse_functions_of_users(rules, &logical, what)?;
        Self::of_plan(rules, &df_schema, logical, what)
    }

    /// Compiles a planned expression.
    pub(super) fn of_plan(rules: &dyn Rules, schema: &DFSchemaRef, logical: Expr, what: &str) -> Result<Self> {
        refuse_what_is_not_per_row(&logical, what)?;
        let literal = match &logical {
            Expr::Literal(value, _) => Some(value.clone()),
            _ => None,
        };
        let reader = rules.reader();
        let fail = |error: DataFusionError| definition(format!("{what}: {}", reader(&error)));
        let logical = Self::simplified(rules, schema, logical, what)?;
        let physical = rules.state().create_physical_expr(logical, schema).map_err(fail)?;
        let of_physical = Self::of_physical(rules, physical, &Arc::new(schema.as_arrow().clone())).map_err(fail)?;
        Ok(Self { literal, ..of_physical })
    }

    /// Some functions (coalesce) are only there to be simplified.
    pub(super) fn simplified(rules: &dyn Rules, schema: &DFSchemaRef, logical: Expr, what: &str) -> Result<Expr> {
        let reader = rules.reader();
        let context = SimplifyContext::builder()
            .with_schema(Arc::clone(schema))
            .with_config_options(Arc::clone(rules.state().config_options()))
            .build();
        let simplifier = ExprSimplifier::new(context);
        simplifier
            .coerce(logical, schema)
            .and_then(|logical| simplifier.simplify(logical))
            .map_err(|error| definition(format!("{what}: {}", reader(&error))))
    }

    /// Compiles what is physical already.
    pub(super) fn of_physical(
        rules: &dyn Rules,
        physical: Arc<dyn PhysicalExpr>,
        schema: &SchemaRef,
    ) -> datafusion::common::Result<Self> {
        let physical = physical.transform_up(|expr| checked(expr, schema))?.data;
        let field = physical.return_field(schema)?;
        Ok(Self { physical, field, literal: None, reader: rules.reader(), blames_rows: rules.blames_rows() })
    }

    /// As EXPLAIN shows it.
    pub(super) fn describe(&self) -> String {
        self.physical.to_string()
    }

    /// One value per row, of an expression whose failures are those of rows: of all but those of pipelines.
    pub(crate) fn evaluate(&self, rows: &RecordBatch) -> Result<ArrayRef, String> {
        self.compute(rows).map_err(Uncomputed::reason)
    }

    /// One value per row. An expression that panics fails.
    pub(crate) fn compute(&self, rows: &RecordBatch) -> Result<ArrayRef, Uncomputed> {
        // A function that panics on one row must not take the partition down each time the row is read again.
        let result = catch_unwind(AssertUnwindSafe(|| self.physical.evaluate(rows)?.into_array(rows.num_rows())));
        match result {
            Ok(Ok(array)) if array.data_type() == &ArrowType::Null => {
                Ok(new_null_array(&ArrowType::Null, rows.num_rows()))
            }
            Ok(Ok(array)) => Ok(array),
            Ok(Err(error)) if (self.blames_rows)(&error) => Err(Uncomputed::Row((self.reader)(&error))),
            Ok(Err(error)) => Err(Uncomputed::Nobody((self.reader)(&error))),
            Err(_) => Err("the expression cannot be computed for this row".into()),
        }
    }
}

/// Makes arithmetic fail where it would wrap.
fn checked(
    expr: Arc<dyn PhysicalExpr>,
    schema: &SchemaRef,
) -> datafusion::common::Result<Transformed<Arc<dyn PhysicalExpr>>> {
    if let Some(binary) = expr.downcast_ref::<BinaryExpr>() {
        if matches!(binary.op(), Operator::Plus | Operator::Minus | Operator::Multiply) {
            let checked = BinaryExpr::new(Arc::clone(binary.left()), *binary.op(), Arc::clone(binary.right()))
                .with_fail_on_overflow(true);
            return Ok(Transformed::yes(Arc::new(checked)));
        }
    } else if let Some(negative) = expr.downcast_ref::<NegativeExpr>() {
        // Negation wraps at the smallest integer; a subtraction from zero can be told to fail.
        let zero = integer_zero(&negative.arg().data_type(schema)?);
        if let Some(zero) = zero {
            let checked = BinaryExpr::new(Arc::new(Literal::new(zero)), Operator::Minus, Arc::clone(negative.arg()))
                .with_fail_on_overflow(true);
            return Ok(Transformed::yes(Arc::new(checked)));
        }
    }
    Ok(Transformed::no(expr))
}

fn integer_zero(data_type: &ArrowType) -> Option<ScalarValue> {
    Some(match data_type {
        ArrowType::Int8 => ScalarValue::Int8(Some(0)),
        ArrowType::Int16 => ScalarValue::Int16(Some(0)),
        ArrowType::Int32 => ScalarValue::Int32(Some(0)),
        ArrowType::Int64 => ScalarValue::Int64(Some(0)),
        _ => return None,
    })
}

/// Functions whose answer depends on when they are called.
const NOW: [&str; 8] = [
    "now",
    "current_date",
    "current_time",
    "current_timestamp",
    "localtime",
    "localtimestamp",
    "statement_timestamp",
    "transaction_timestamp",
];

/// Of sources and tables, which share their threads with others: a function that takes long would hold these up.
fn refuse_functions_of_users(rules: &dyn Rules, expr: &Expr, what: &str) -> Result<()> {
    let mut found = None;
    expr.apply(|expr| {
        if let Expr::ScalarFunction(call) = expr
            && rules.is_users(&call.func)
        {
            found = Some(call.func.name().to_owned());
            return Ok(TreeNodeRecursion::Stop);
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    match found {
        None => Ok(()),
        Some(name) => Err(Error::Unsupported {
            message: format!("{what}: function {name}() in WebAssembly cannot be called here"),
            hint: Some("queries and pipelines call it: CREATE PIPELINE … AS SELECT … FROM the source".into()),
        }),
    }
}

fn refuse_what_is_not_per_row(expr: &Expr, what: &str) -> Result<()> {
    let mut refused = None;
    let visit = expr.apply(|expr| {
        refused = match expr {
            Expr::AggregateFunction(f) => Some((format!("aggregate {}()", f.func.name()), true)),
            Expr::WindowFunction(f) => Some((format!("window function {}()", f.fun.name()), true)),
            Expr::ScalarSubquery(_) | Expr::Exists(_) | Expr::InSubquery(_) | Expr::SetComparison(_) => {
                Some(("a subquery".to_owned(), true))
            }
            Expr::Unnest(_) => Some(("unnest()".to_owned(), true)),
            Expr::Placeholder(_) => Some(("a parameter".to_owned(), false)),
            Expr::ScalarFunction(f)
                if f.func.signature().volatility == Volatility::Volatile
                    || NOW.contains(&f.func.name())
                    // From today to the argument.
                    || f.func.name() == "age" && f.args.len() == 1 =>
            {
                Some((format!("{}(), which gives another answer each time,", f.func.name()), false))
            }
            _ => return Ok(TreeNodeRecursion::Continue),
        };
        Ok(TreeNodeRecursion::Stop)
    });
    visit?;
    match refused {
        None => Ok(()),
        Some((name, is_for_pipelines)) => Err(Error::Definition {
            message: format!("{what}: {name} cannot be used where each row is looked at alone"),
            hint: is_for_pipelines.then(|| "CREATE PIPELINE takes aggregates, windows and joins".into()),
        }),
    }
}

/// The message without the names of layers before it.
pub(super) fn plain_message(error: &DataFusionError) -> String {
    match error.find_root() {
        DataFusionError::ArrowError(error, _) => match error.as_ref() {
            ArrowError::DivideByZero => "division by zero".into(),
            ArrowError::ArithmeticOverflow(text) => format!("out of range: {text}"),
            ArrowError::CastError(text) | ArrowError::ComputeError(text) | ArrowError::InvalidArgumentError(text) => {
                text.clone()
            }
            other => other.to_string(),
        },
        DataFusionError::Plan(text) | DataFusionError::Execution(text) | DataFusionError::NotImplemented(text) => {
            text.clone()
        }
        DataFusionError::SQL(error, _) => error.to_string(),
        other => other.strip_backtrace(),
    }
}
