//! What EXPLAIN CREATE PIPELINE shows.

use datafusion::logical_expr::LogicalPlan;

use super::{Plan, PlanSource, Step};

/// The query's nodes, one a line.
pub(super) fn text(plan: &LogicalPlan) -> String {
    plan.display_indent().to_string()
}

/// The operators, from the output to the sources, then the query's nodes.
pub(super) fn lines(plan: &Plan, sources: &[PlanSource], text: &str) -> Vec<String> {
    let mut lines = vec!["Pipeline".to_owned()];
    let describe = |step: &Step| match step {
        Step::Filter(condition) => format!("Filter: {}", condition.describe()),
        Step::Project(expressions, _) => {
            let all: Vec<String> = expressions.iter().map(super::super::expression::Expression::describe).collect();
            format!("Project: {}", all.join(", "))
        }
    };
    let mut depth = 1;
    let mut put = |depth: usize, line: String| lines.push(format!("{}{line}", "  ".repeat(depth)));
    for step in plan.steps.iter().rev() {
        put(depth, describe(step));
        depth += 1;
    }
    if let Some(aggregate) = &plan.aggregate {
        put(depth, aggregate.describe());
        depth += 1;
    }
    if plan.branches.len() > 1 {
        put(depth, "Union".into());
        depth += 1;
    }
    for branch in &plan.branches {
        let mut depth = depth;
        for step in branch.steps.iter().rev() {
            put(depth, describe(step));
            depth += 1;
        }
        let source = &sources[branch.source];
        let time = source.time_column.as_ref().map_or_else(String::new, |time| format!(", event time {time}"));
        put(depth, format!("Source: {}{time}", source.name));
    }
    lines.push("Query".into());
    lines.extend(text.lines().map(|line| format!("  {line}")));
    lines
}
