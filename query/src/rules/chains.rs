//! Long sums, `a + b - c + …`, as one call: planning them as they are written takes time by the cube of their length, since each of the operators asks all below
//! it for their types, and each of these for its name.
//!
//! ```text
//! syntax:  a + b - c …          ⇒  <chain>('+-…', a, b, c, …)
//! types:   acc + b, acc - c, …  ⇒  one small plan for each pair of types, settled as any statement is
//! runs:    from left to right, one operator at a time, as they stand
//! ```
//!
//! What is no sum of numbers is written out again, and takes its time.

use std::{collections::HashMap, ops::ControlFlow, sync::Arc};

use arrow::datatypes::{DataType, Field};
use datafusion::{
    common::{Column, DFSchema, ScalarValue, tree_node::Transformed},
    error::DataFusionError,
    execution::SessionState,
    logical_expr::{
        BinaryExpr, EmptyRelation, Expr, ExprSchemable, LogicalPlan, Operator, Projection,
        expr::ScalarFunction,
        planner::{PlannerResult, RawBinaryExpr},
    },
    physical_plan::PhysicalExpr,
    sql::sqlparser::ast::{self, BinaryOperator, Statement, VisitMut, VisitorMut},
};

use super::{syntax::function, types};
use crate::functions::chain::{Chain, NAME, Step};

/// Shorter sums are planned as they are written.
const TERMS_MIN: usize = 32;

const SUM: &str = "\u{1}sum";
const ITEM: &str = "\u{1}item";

/// Rewrites `statement` in place.
pub(super) fn gather(statement: &mut Statement) {
    let _ = VisitMut::visit(statement, &mut Gatherer);
}

struct Gatherer;

impl VisitorMut for Gatherer {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &mut ast::Expr) -> ControlFlow<()> {
        if is_long(expr) {
            let whole = std::mem::replace(expr, ast::Expr::value(ast::Value::Null));
            *expr = gathered(whole);
        }
        ControlFlow::Continue(())
    }
}

fn is_long(expr: &ast::Expr) -> bool {
    let (mut terms, mut rest) = (1, expr);
    while let ast::Expr::BinaryOp { left, op: BinaryOperator::Plus | BinaryOperator::Minus, right } = rest {
        // What a parameter or a quoted literal is is told by the term before it.
        if is_loose(right) {
            return false;
        }
        (terms, rest) = (terms + 1, left);
    }
    terms >= TERMS_MIN && !is_loose(rest)
}

fn is_loose(term: &ast::Expr) -> bool {
    match term {
        ast::Expr::Nested(inner) | ast::Expr::UnaryOp { expr: inner, .. } => is_loose(inner),
        ast::Expr::Value(value) => {
            !matches!(value.value, ast::Value::Number(..) | ast::Value::Boolean(_) | ast::Value::Null)
        }
        _ => false,
    }
}

fn gathered(expr: ast::Expr) -> ast::Expr {
    let (mut operators, mut terms, mut rest) = (Vec::new(), Vec::new(), expr);
    loop {
        match rest {
            ast::Expr::BinaryOp { left, op: op @ (BinaryOperator::Plus | BinaryOperator::Minus), right } => {
                operators.push(if op == BinaryOperator::Plus { '+' } else { '-' });
                terms.push(*right);
                rest = *left;
            }
            first => {
                terms.push(first);
                break;
            }
        }
    }
    let operators = operators.into_iter().rev().collect();
    let operators = ast::Expr::value(ast::Value::SingleQuotedString(operators));
    function(NAME, std::iter::once(operators).chain(terms.into_iter().rev()).collect())
}

/// What became of an expression.
pub(super) enum Settled {
    /// It is no sum that was gathered.
    Other(Expr),
    Chain(Expr),
    /// A sum of other things than numbers, written out. Nothing was done to it yet.
    Apart(Expr),
}

/// Gives a sum that was gathered its types; its terms have theirs. `settle` does so to a plan.
pub(super) fn settle(
    expr: Expr,
    schema: &DFSchema,
    state: &SessionState,
    settle: impl Fn(LogicalPlan) -> Result<LogicalPlan, DataFusionError>,
) -> Result<Settled, DataFusionError> {
    let call = match expr {
        Expr::ScalarFunction(call) if call.func.name() == NAME && !call.func.inner().is::<Chain>() => call,
        other => return Ok(Settled::Other(other)),
    };
    let mut args = call.args.into_iter();
    let operators = match args.next() {
        Some(Expr::Literal(value, _)) => value.try_as_str().flatten().unwrap_or_default().to_owned(),
        _ => String::new(),
    };
    let terms: Vec<Expr> = args.collect();
    Ok(match chain(&operators, &terms, schema, state, settle)? {
        Some(chain) => Settled::Chain(chain),
        None => Settled::Apart(written_out(&operators, terms, schema, state)?),
    })
}

fn operator(sign: char) -> Operator {
    if sign == '-' { Operator::Minus } else { Operator::Plus }
}

/// As the planner makes it of what stands there.
fn written_out(
    operators: &str,
    terms: Vec<Expr>,
    schema: &DFSchema,
    state: &SessionState,
) -> Result<Expr, DataFusionError> {
    let mut terms = terms.into_iter();
    let mut sum = terms.next().unwrap_or_else(|| Expr::Literal(ScalarValue::Null, None));
    for (sign, term) in operators.chars().zip(terms) {
        let op = if sign == '-' { BinaryOperator::Minus } else { BinaryOperator::Plus };
        let mut raw = Some(RawBinaryExpr { op, left: sum, right: term });
        let mut planned = None;
        for planner in state.expr_planners() {
            let Some(binary) = raw.take() else { break };
            match planner.plan_binary_op(binary, schema)? {
                PlannerResult::Planned(expr) => planned = Some(expr),
                PlannerResult::Original(binary) => raw = Some(binary),
            }
        }
        let plain = raw.map(|binary| {
            Expr::BinaryExpr(BinaryExpr::new(Box::new(binary.left), operator(sign), Box::new(binary.right)))
        });
        sum = planned.or(plain).unwrap_or_else(|| Expr::Literal(ScalarValue::Null, None));
    }
    Ok(sum)
}

/// A side of an operator: a literal, or something of a type.
#[derive(Clone, PartialEq, Eq, Hash)]
enum Side {
    Literal(ScalarValue),
    Typed(DataType),
}

impl Side {
    /// `None` for what is no number.
    fn of(expr: &Expr, schema: &DFSchema) -> Result<Option<Self>, DataFusionError> {
        if let Expr::Literal(value, _) = expr {
            let is_known = value.is_null() || is_number(&value.data_type());
            return Ok(is_known.then(|| Self::Literal(value.clone())));
        }
        let data_type = expr.get_type(schema)?;
        Ok(is_number(&data_type).then_some(Self::Typed(data_type)))
    }

    /// It as an operand, and the column that it is then.
    fn operand(&self, name: &str) -> (Expr, Option<Field>) {
        match self {
            Self::Literal(value) => (Expr::Literal(value.clone(), None), None),
            Self::Typed(data_type) => {
                let field = Field::new(name, data_type.clone(), true);
                (Expr::Column(Column::new_unqualified(name)), Some(field))
            }
        }
    }
}

fn is_number(data_type: &DataType) -> bool {
    types::is_int(data_type) || types::is_float(data_type) || types::is_decimal(data_type)
}

/// One operator that has its types, and that of what it gives.
type Link = (Arc<dyn PhysicalExpr>, Arc<arrow::datatypes::Schema>, DataType);

fn chain(
    operators: &str,
    terms: &[Expr],
    schema: &DFSchema,
    state: &SessionState,
    settle: impl Fn(LogicalPlan) -> Result<LogicalPlan, DataFusionError>,
) -> Result<Option<Expr>, DataFusionError> {
    let Some((first, rest)) = terms.split_first() else { return Ok(None) };
    let Some(mut sum) = Side::of(first, schema)? else { return Ok(None) };
    let mut args: Vec<Expr> = match sum {
        Side::Typed(_) => vec![first.clone()],
        Side::Literal(_) => Vec::new(),
    };
    let mut links: HashMap<(Side, char, Side), Link> = HashMap::new();
    let mut steps = Vec::with_capacity(rest.len());
    for (sign, term) in operators.chars().zip(rest) {
        let Some(item) = Side::of(term, schema)? else { return Ok(None) };
        let takes_item = matches!(item, Side::Typed(_));
        let key = (sum, sign, item);
        let link = match links.get(&key) {
            Some(link) => link,
            None => match link(&key, state, &settle)? {
                Some(link) => links.entry(key.clone()).or_insert(link),
                None => return Ok(None),
            },
        };
        steps.push(Step { expr: Arc::clone(&link.0), columns: Arc::clone(&link.1), takes_item });
        sum = Side::Typed(link.2.clone());
        if takes_item {
            args.push(term.clone());
        }
    }
    let Side::Typed(returns) = sum else { return Ok(None) };
    let starts = matches!(Side::of(first, schema)?, Some(Side::Typed(_)));
    let func = Chain::udf(steps, starts, returns, args.len());
    Ok(Some(Expr::ScalarFunction(ScalarFunction::new_udf(func, args))))
}

/// `sum op item` with PostgreSQL's types and checks. `None` where it is no number.
fn link(
    (sum, sign, item): &(Side, char, Side),
    state: &SessionState,
    settle: impl Fn(LogicalPlan) -> Result<LogicalPlan, DataFusionError>,
) -> Result<Option<Link>, DataFusionError> {
    let ((left, left_field), (right, right_field)) = (sum.operand(SUM), item.operand(ITEM));
    let fields = left_field.into_iter().chain(right_field).collect::<Vec<_>>();
    let schema = Arc::new(DFSchema::from_unqualified_fields(fields.into(), HashMap::new())?);
    let input = LogicalPlan::EmptyRelation(EmptyRelation { produce_one_row: false, schema: Arc::clone(&schema) });
    let expr = Expr::BinaryExpr(BinaryExpr::new(Box::new(left), operator(*sign), Box::new(right)));
    let plan = settle(LogicalPlan::Projection(Projection::try_new(vec![expr], Arc::new(input))?))?;
    let LogicalPlan::Projection(settled) = plan else { return Ok(None) };
    let returns = settled.schema.field(0).data_type().clone();
    let Some(expr) = settled.expr.into_iter().next().filter(|_| is_number(&returns)) else { return Ok(None) };
    let expr = state.create_physical_expr(expr.unalias_nested().data, &schema)?;
    Ok(Some((expr, Arc::clone(schema.inner()), returns)))
}

/// The rules of one expression, from the leaves up, with sums gathered.
pub(super) fn transformed(
    settled: Settled,
    rules: impl Fn(Expr) -> Result<Transformed<Expr>, DataFusionError>,
) -> Result<Transformed<Expr>, DataFusionError> {
    use datafusion::common::tree_node::TreeNode;
    match settled {
        Settled::Other(expr) => rules(expr),
        Settled::Chain(expr) => Ok(Transformed::yes(expr)),
        Settled::Apart(expr) => expr.transform_up(rules).map(|apart| Transformed::yes(apart.data)),
    }
}
