//! Physical expressions over a scan's columns, read back as the expressions that the planner began with, so that
//! [`pushdown`](super::pushdown) can say which predicates they are.

use std::sync::Arc;

use datafusion::{
    common::Column as LogicalColumn,
    logical_expr::{
        BinaryExpr, Cast, Expr,
        expr::{InList, ScalarFunction},
    },
    physical_expr::{
        PhysicalExpr, ScalarFunctionExpr,
        expressions::{
            BinaryExpr as PhysicalBinary, CastExpr, Column, InListExpr, IsNotNullExpr, IsNullExpr, Literal, NotExpr,
        },
    },
};
use tidemill_storage::{scan::ScanRequest, schema::Column as StoredColumn};

use crate::functions::floats;

/// The stored column that `expr` is, over the output of a scan for `request`.
pub(crate) fn stored_column<'a>(expr: &Arc<dyn PhysicalExpr>, request: &'a ScanRequest) -> Option<&'a StoredColumn> {
    let column = expr.downcast_ref::<Column>()?;
    request.schema.column(*request.projection.get(column.index())?)
}

/// `expr`, over the output of a scan for `request`, as the planner wrote it; `None` for forms that no predicate has. Predicates take equal floats for
/// one, whatever their bits.
pub(crate) fn logical(expr: &Arc<dyn PhysicalExpr>, request: &ScanRequest) -> Option<Expr> {
    let expr = floats::without(expr).unwrap_or(expr);
    let inner = |expr: &Arc<dyn PhysicalExpr>| Some(Box::new(logical(expr, request)?));
    if let Some(column) = stored_column(expr, request) {
        return Some(Expr::Column(LogicalColumn::new_unqualified(&column.name)));
    }
    if let Some(literal) = expr.downcast_ref::<Literal>() {
        return Some(Expr::Literal(literal.value().clone(), None));
    }
    if let Some(binary) = expr.downcast_ref::<PhysicalBinary>() {
        return Some(Expr::BinaryExpr(BinaryExpr {
            left: inner(binary.left())?,
            op: *binary.op(),
            right: inner(binary.right())?,
        }));
    }
    if let Some(cast) = expr.downcast_ref::<CastExpr>() {
        let field = Arc::clone(cast.target_field());
        return Some(Expr::Cast(Cast { expr: inner(cast.expr())?, field }));
    }
    if let Some(not) = expr.downcast_ref::<NotExpr>() {
        return Some(Expr::Not(inner(not.arg())?));
    }
    if let Some(null) = expr.downcast_ref::<IsNullExpr>() {
        return Some(Expr::IsNull(inner(null.arg())?));
    }
    if let Some(null) = expr.downcast_ref::<IsNotNullExpr>() {
        return Some(Expr::IsNotNull(inner(null.arg())?));
    }
    if let Some(list) = expr.downcast_ref::<InListExpr>() {
        let items = list.list().iter().map(|item| logical(item, request)).collect::<Option<Vec<_>>>()?;
        return Some(Expr::InList(InList { expr: inner(list.expr())?, list: items, negated: list.negated() }));
    }
    if let Some(call) = expr.downcast_ref::<ScalarFunctionExpr>() {
        let args = call.args().iter().map(|arg| logical(arg, request)).collect::<Option<Vec<_>>>()?;
        return Some(Expr::ScalarFunction(ScalarFunction::new_udf(Arc::new(call.fun().clone()), args)));
    }
    None
}
