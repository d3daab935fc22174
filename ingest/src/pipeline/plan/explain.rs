//! What EXPLAIN CREATE PIPELINE shows.

use datafusion::logical_expr::LogicalPlan;

use super::{Kind, Lane, Origin, Plan, PlanSource, Step};

/// The query's nodes, one a line.
pub(super) fn text(plan: &LogicalPlan) -> String {
    plan.display_indent().to_string()
}

/// The operators, from the output to the sources, then the query's nodes.
pub(super) fn lines(plan: &Plan, sources: &[PlanSource], text: &str) -> Vec<String> {
    let mut lines = vec!["Pipeline".to_owned()];
    lanes(plan, sources, &plan.output, 1, &mut lines);
    lines.push("Query".into());
    lines.extend(text.lines().map(|line| format!("  {line}")));
    lines
}

fn lanes(plan: &Plan, sources: &[PlanSource], of: &[Lane], mut depth: usize, lines: &mut Vec<String>) {
    let put = |lines: &mut Vec<String>, depth: usize, line: String| lines.push(format!("{}{line}", "  ".repeat(depth)));
    if of.len() > 1 {
        put(lines, depth, "Union".into());
        depth += 1;
    }
    for lane in of {
        let mut depth = depth;
        for step in lane.steps.iter().rev() {
            put(lines, depth, describe(step));
            depth += 1;
        }
        match lane.from {
            Origin::Source(at) => {
                let source = &sources[at];
                let time = source.time_column.as_ref().map_or_else(String::new, |time| format!(", event time {time}"));
                put(lines, depth, format!("Source: {}{time}", source.name));
            }
            Origin::Operator(at) => {
                let operator = &plan.operators[at];
                let line = match &operator.kind {
                    Kind::Aggregate(aggregate) => aggregate.describe(),
                    Kind::Join(join) => join.describe(),
                    Kind::AsOf(as_of) => as_of.describe(),
                    Kind::Ranking(ranking) => ranking.describe(),
                    Kind::Dedup(dedup) => dedup.describe(),
                    Kind::Process(process) => process.describe(),
                };
                put(lines, depth, line);
                operator.sides.iter().for_each(|side| lanes(plan, sources, side, depth + 1, lines));
            }
        }
    }
}

fn describe(step: &Step) -> String {
    match step {
        Step::LookUp(look_up) => look_up.describe(),
        Step::Transform(call) => call.describe(),
        Step::Ask(ask) => ask.describe(),
        Step::Unnest(unnest) => unnest.describe(),
        Step::Filter(condition) => format!("Filter: {}", condition.describe()),
        Step::Project(expressions, _) => {
            let all: Vec<String> = expressions.iter().map(super::super::expression::Expression::describe).collect();
            format!("Project: {}", all.join(", "))
        }
    }
}
