//! EXPLAIN: the physical plan as lines of one text column, with what each scan pruned and, under ANALYZE, what it read.

use std::{fmt, sync::Arc};

use arrow::{
    array::{ArrayRef, RecordBatch, StringViewArray},
    datatypes::{DataType, Field, Schema, SchemaRef},
};
use datafusion::sql::sqlparser::ast::{AnalyzeFormatKind, UtilityOption};
use datafusion::{
    execution::TaskContext,
    physical_plan::{DisplayFormatType, ExecutionPlan, execute_stream, metrics::MetricValue},
};
use futures::StreamExt;
use tidemill_storage::schema::TYPE_KEY;

use crate::{
    Plan, SqlError,
    exec::work::{WatchedExec, Work},
};

/// What the plan is written as.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Shape {
    /// A line per operator.
    #[default]
    Text,
    /// One document in one row.
    Json,
    /// The same in PostgreSQL's XML, for DBeaver.
    Xml,
}

/// What EXPLAIN was asked for.
#[derive(Clone, Debug, Default)]
pub struct Explain {
    pub analyze: bool,
    pub verbose: bool,
    pub shape: Shape,
}

impl Explain {
    /// Takes FORMAT and the options in brackets; those that change nothing here are taken silently.
    pub(crate) fn read(
        &mut self,
        format: Option<&AnalyzeFormatKind>,
        options: &[UtilityOption],
    ) -> Result<(), SqlError> {
        if let Some(format) = format {
            let (AnalyzeFormatKind::Keyword(format) | AnalyzeFormatKind::Assignment(format)) = format;
            self.format(&format.to_string())?;
        }
        for option in options {
            let value = option.arg.as_ref().map(crate::rules::word);
            let on = !matches!(value.as_deref(), Some("off" | "false" | "0"));
            match option.name.value.to_lowercase().as_str() {
                "analyze" | "analyse" => self.analyze = on,
                "verbose" => self.verbose = on,
                "format" => self.format(value.as_deref().unwrap_or("text"))?,
                "costs" | "buffers" | "settings" | "timing" | "summary" | "wal" | "generic_plan" => {}
                other => return Err(SqlError::syntax(format!("unrecognized EXPLAIN option \"{other}\""))),
            }
        }
        Ok(())
    }

    fn format(&mut self, name: &str) -> Result<(), SqlError> {
        self.shape = match name.to_lowercase().as_str() {
            "text" => Shape::Text,
            "json" => Shape::Json,
            "xml" => Shape::Xml,
            other => {
                return Err(SqlError::invalid_parameter(format!(
                    "unrecognized value for EXPLAIN option \"format\": \"{other}\""
                )));
            }
        };
        Ok(())
    }
}

/// The one column that EXPLAIN gives.
pub(crate) fn schema(shape: Shape) -> SchemaRef {
    let column = Field::new("QUERY PLAN", DataType::Utf8View, false);
    let column = match shape {
        Shape::Json => column.with_metadata([(TYPE_KEY.to_owned(), "json".to_owned())].into()),
        Shape::Text | Shape::Xml => column,
    };
    Arc::new(Schema::new(vec![column]))
}

pub(crate) async fn run(
    mut physical: Arc<dyn ExecutionPlan>,
    context: Arc<TaskContext>,
    plan: &Plan,
    work: &Arc<Work>,
    explain: &Explain,
) -> Result<RecordBatch, SqlError> {
    let located = |error| SqlError::from_datafusion(&error, &plan.sql);
    if explain.analyze {
        physical = work.watch(physical).map_err(located)?;
        let mut batches = execute_stream(Arc::clone(&physical), context).map_err(located)?;
        while let Some(batch) = batches.next().await {
            batch.map_err(located)?;
        }
    }
    let lines = match explain.shape {
        Shape::Json => {
            let document = serde_json::json!([{ "Plan": node(physical.as_ref(), explain) }]);
            vec![serde_json::to_string_pretty(&document).map_err(|error| SqlError::internal(error.to_string()))?]
        }
        Shape::Xml => {
            let mut text = "<explain xmlns=\"http://www.postgresql.org/2009/explain\">\n  <Query>\n".to_owned();
            element("Plan", &node(physical.as_ref(), explain), 2, &mut text);
            text.push_str("  </Query>\n</explain>");
            vec![text]
        }
        Shape::Text => {
            let mut lines = Vec::new();
            indented(physical.as_ref(), explain, 0, &mut lines);
            lines
        }
    };
    let lines: ArrayRef = Arc::new(StringViewArray::from_iter_values(lines));
    Ok(RecordBatch::try_new(schema(explain.shape), vec![lines])?)
}

/// One line per operator, children further in, as PostgreSQL draws its plans.
fn indented(plan: &dyn ExecutionPlan, explain: &Explain, depth: usize, lines: &mut Vec<String>) {
    let plan = WatchedExec::unwatched(plan);
    let arrow = if depth == 0 { String::new() } else { format!("{}->  ", " ".repeat(depth * 6 - 4)) };
    lines.push(format!("{arrow}{}{}", described(plan, explain), measured(plan, explain)));
    for child in plan.children() {
        indented(child.as_ref(), explain, depth + 1, lines);
    }
}

fn described(plan: &dyn ExecutionPlan, explain: &Explain) -> String {
    let format = if explain.verbose { DisplayFormatType::Verbose } else { DisplayFormatType::Default };
    struct Shown<'a>(&'a dyn ExecutionPlan, DisplayFormatType);
    impl fmt::Display for Shown<'_> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            self.0.fmt_as(self.1, f)
        }
    }
    Shown(plan, format).to_string()
}

/// ` (actual time=1.234 ms, rows=5, …)`, summed over the operator's lanes.
fn measured(plan: &dyn ExecutionPlan, explain: &Explain) -> String {
    if !explain.analyze {
        return String::new();
    }
    let parts: Vec<String> = metrics(plan).into_iter().map(|(name, value)| format!("{name}={value}")).collect();
    if parts.is_empty() { String::new() } else { format!(" (actual {})", parts.join(", ")) }
}

/// A counter's value.
enum Metric {
    Nanoseconds(usize),
    Count(usize),
}

impl fmt::Display for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nanoseconds(nanoseconds) => write!(f, "{:.3} ms", *nanoseconds as f64 / 1e6),
            Self::Count(count) => count.fmt(f),
        }
    }
}

/// The operator's counters that are not zero: time and rows first.
fn metrics(plan: &dyn ExecutionPlan) -> Vec<(String, Metric)> {
    let Some(all) = plan.metrics() else { return Vec::new() };
    let all = all.aggregate_by_name();
    let mut out = Vec::new();
    if let Some(nanoseconds) = all.elapsed_compute() {
        out.push(("time".to_owned(), Metric::Nanoseconds(nanoseconds)));
    }
    if let Some(rows) = all.output_rows() {
        out.push(("rows".to_owned(), Metric::Count(rows)));
    }
    for metric in all.iter() {
        if let MetricValue::Count { name, count } = metric.value()
            && count.value() > 0
        {
            out.push((name.to_string(), Metric::Count(count.value())));
        }
        if let MetricValue::SpillCount(count) = metric.value()
            && count.value() > 0
        {
            out.push(("spills".to_owned(), Metric::Count(count.value())));
        }
    }
    out
}

fn node(plan: &dyn ExecutionPlan, explain: &Explain) -> serde_json::Value {
    let plan = WatchedExec::unwatched(plan);
    let mut node = serde_json::json!({ "Node Type": plan.name(), "Detail": described(plan, explain) });
    if explain.analyze {
        for (name, value) in metrics(plan) {
            // Numbers, by the names that readers of PostgreSQL's plans look for; times in milliseconds.
            match value {
                Metric::Nanoseconds(nanoseconds) => {
                    node["Actual Total Time"] = ((nanoseconds / 1000) as f64 / 1000.0).into();
                }
                Metric::Count(count) if name == "rows" => node["Actual Rows"] = count.into(),
                Metric::Count(count) => node[format!("Actual {name}")] = count.into(),
            }
        }
    }
    let children: Vec<_> = plan.children().into_iter().map(|child| self::node(child.as_ref(), explain)).collect();
    if !children.is_empty() {
        node["Plans"] = children.into();
    }
    node
}

/// A value of the JSON document as PostgreSQL writes it in XML: `Node Type` is `<Node-Type>`, the plans below are `<Plan>`s.
fn element(name: &str, value: &serde_json::Value, depth: usize, out: &mut String) {
    use fmt::Write;
    let (indent, tag) = ("  ".repeat(depth), name.replace(' ', "-"));
    match value {
        serde_json::Value::Object(fields) => {
            let _ = writeln!(out, "{indent}<{tag}>");
            for (name, value) in fields {
                element(name, value, depth + 1, out);
            }
            let _ = writeln!(out, "{indent}</{tag}>");
        }
        serde_json::Value::Array(plans) => {
            let _ = writeln!(out, "{indent}<{tag}>");
            for plan in plans {
                element("Plan", plan, depth + 1, out);
            }
            let _ = writeln!(out, "{indent}</{tag}>");
        }
        value => {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
            let _ = writeln!(out, "{indent}<{tag}>{text}</{tag}>");
        }
    }
}
