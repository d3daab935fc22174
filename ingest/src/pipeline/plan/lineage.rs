//! What the columns of a pipeline's output are made of: which are keys of its GROUP BY as they are, which come of the window alone.

use datafusion::{
    common::tree_node::TreeNode,
    logical_expr::{Aggregate, Expr, LogicalPlan},
};

use super::{ask, windows};

/// One column of the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lineage {
    /// A key of GROUP BY, counted without the window.
    Key(usize),
    /// Made of the window and nothing else.
    Window,
    Other,
}

/// Of each column of a node.
pub(super) fn of(plan: &LogicalPlan) -> Vec<Lineage> {
    match plan {
        LogicalPlan::Aggregate(node) => groups(node),
        LogicalPlan::Projection(node) => {
            let below = of(&node.input);
            let of_expr = |expr: &Expr| {
                let plain = expr.clone().unalias_nested().data;
                let columns = plain.column_refs();
                let at = |column| node.input.schema().maybe_index_of_column(column).and_then(|at| below.get(at));
                let mut all = columns.iter().map(|column| at(column).copied().unwrap_or(Lineage::Other));
                match &plain {
                    Expr::Column(_) => all.next().unwrap_or(Lineage::Other),
                    _ if ask::has_call(&plain) => Lineage::Other,
                    _ if !columns.is_empty() && all.all(|lineage| lineage == Lineage::Window) => Lineage::Window,
                    _ => Lineage::Other,
                }
            };
            node.expr.iter().map(of_expr).collect()
        }
        // A look-up in a table leaves the columns of the stream what they are.
        LogicalPlan::Join(node) => {
            let mut all = of(&node.left);
            all.resize(node.schema.fields().len(), Lineage::Other);
            all
        }
        LogicalPlan::Filter(node) => of(&node.input),
        LogicalPlan::SubqueryAlias(node) => of(&node.input),
        other => vec![Lineage::Other; other.schema().fields().len()],
    }
}

fn groups(node: &Aggregate) -> Vec<Lineage> {
    if matches!(node.group_expr.first(), Some(Expr::GroupingSet(_))) {
        return vec![Lineage::Other; node.schema.fields().len()];
    }
    let mut keys = 0;
    let of_group = |expr: &Expr| {
        if expr.exists(|expr| Ok(windows::is_window(expr))).unwrap_or(false) {
            return Lineage::Window;
        }
        keys += 1;
        Lineage::Key(keys - 1)
    };
    let mut all: Vec<Lineage> = node.group_expr.iter().map(of_group).collect();
    all.resize(node.schema.fields().len(), Lineage::Other);
    all
}
