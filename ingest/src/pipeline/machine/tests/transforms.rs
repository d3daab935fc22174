//! Transforms that a program brings: rows of a source, made into others.

use arrow::array::{ArrayRef, StringArray};
use datafusion::{
    common::{DFSchemaRef, DataFusionError},
    execution::SessionState,
    logical_expr::{Expr, LogicalPlan, ScalarUDF},
    sql::sqlparser::ast,
};

use super::{rig::*, *};
use crate::pipeline::{
    plugin::{Bound, Transform, Transformed, Transforms},
    rules::{Misunderstood, Rules},
};

/// `copies(TABLE source, prefix)`: each row as often as its `v` says, numbered.
struct Copies;

struct OfSource(String);

impl Transform for Copies {
    fn name(&self) -> &str {
        "copies"
    }

    fn bind(&self, _: &Schema, arguments: &[String]) -> Result<Arc<dyn Bound>, String> {
        match arguments {
            [prefix] => Ok(Arc::new(OfSource(prefix.clone()))),
            _ => Err("it takes one argument".into()),
        }
    }
}

impl Bound for OfSource {
    fn output(&self) -> SchemaRef {
        let field = |name: &str, data_type| Field::new(name, data_type, true);
        let ts = event_schema().field(2).clone();
        Arc::new(Schema::new(vec![field("name", ArrowType::Utf8), field("n", ArrowType::Int64), ts]))
    }

    fn run(&self, rows: &RecordBatch) -> Result<Transformed, String> {
        let ids: &StringArray = rows.column(0).as_string();
        let values: &Int64Array = rows.column(1).as_primitive();
        let (mut of, mut names, mut numbers) = (Vec::new(), Vec::new(), Vec::new());
        for row in 0..rows.num_rows() {
            assert!(values.value(row) != 13, "it panics");
            if values.value(row) < 0 {
                return Err("a negative number of copies".into());
            }
            for n in 0..values.value(row) {
                of.push(row as u32);
                names.push(ids.is_valid(row).then(|| format!("{}{}", self.0, ids.value(row))));
                numbers.push(n);
            }
        }
        let ts = arrow::compute::take(rows.column(2), &arrow::array::UInt32Array::from(of.clone()), None);
        let columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from(names)),
            Arc::new(Int64Array::from(numbers)),
            ts.map_err(|error| error.to_string())?,
        ];
        let rows = RecordBatch::try_new(self.output(), columns).map_err(|error| error.to_string())?;
        Ok(Transformed { rows, of })
    }
}

#[derive(Debug)]
struct WithTransforms(SessionState, Transforms);

impl Rules for WithTransforms {
    fn state(&self) -> &SessionState {
        &self.0
    }

    fn plan(&self, expression: ast::Expr, schema: &DFSchemaRef) -> Result<Expr, Misunderstood> {
        self.0.plan(expression, schema)
    }

    fn query(
        &self,
        query: ast::Query,
        sources: &[(String, SchemaRef)],
        functions: &[Arc<ScalarUDF>],
    ) -> Result<LogicalPlan, Misunderstood> {
        self.0.query(query, sources, functions)
    }

    fn transforms(&self) -> &Transforms {
        &self.1
    }

    fn reader(&self) -> fn(&DataFusionError) -> String {
        self.0.reader()
    }
}

/// `copies` alone.
pub(super) fn copies() -> Transforms {
    Transforms::new().with(Copies)
}

pub(super) fn with_transforms(transforms: Transforms) -> impl Rules {
    let mut config = datafusion::prelude::SessionConfig::new();
    config.options_mut().sql_parser.dialect = datafusion::common::config::Dialect::PostgreSQL;
    WithTransforms(SessionContext::new_with_config(config).state(), transforms)
}

fn rules() -> impl Rules {
    with_transforms(copies())
}

#[test]
fn rows_of_a_transform_go_on_as_rows_of_a_source() {
    let event = |id: &str, v: i64, second| (Some(id.to_owned()), Some(v), second);
    let rows = [event("a", 2, 1), event("b", -1, 2), event("c", 0, 3), event("d", 13, 4), event("e", 1, 5)];
    for (text, expected) in [
        ("SELECT name, n FROM copies(TABLE s, 'x-')", &["x-a | 0", "x-a | 1", "x-e | 0"][..]),
        ("SELECT name FROM copies(TABLE s, -1.5) WHERE n < 1", &["-1.5a", "-1.5e"]),
        ("SELECT c.name || n FROM copies(TABLE s, 'it''s \"') AS c WHERE n < 1", &["it's \"a0", "it's \"e0"]),
        (
            "SELECT count(*), max(copies.name) FROM copies (table S, '') GROUP BY TUMBLE(ts, INTERVAL '1 minute')",
            &["3 | e"],
        ),
        (
            "SELECT l.name, r.v FROM copies(TABLE s, '') l JOIN s r ON r.id = l.name AND r.ts BETWEEN l.ts AND l.ts + INTERVAL '1 second' WHERE l.n = 0",
            &["a | 2", "e | 1"],
        ),
    ] {
        let rig = Rig::with_rules(&rules(), &[RigSource { name: "s", delay_s: 0 }], text);
        let mut machine = rig.machine(1);
        let mut outcome = machine.apply(&rig.arrival(0, 0, 0, &rows)).unwrap();
        outcome.rows.extend(machine.apply(&rig.arrival(0, 0, 5, &[event("end", 0, 1000)])).unwrap().rows);
        let found = sorted(outcome.rows.iter().flat_map(lines).collect());
        assert_eq!(found, expected, "{text}");
        let reasons: Vec<&str> = outcome.rejects.iter().map(|(_, reject)| &*reject.reason).collect();
        assert_eq!(reasons.len(), 2, "{text} {reasons:?}");
        assert!(
            reasons[0].contains("copies(): a negative number") && reasons[1].contains("cannot be computed"),
            "{reasons:?}"
        );
    }
}

#[test]
fn transforms_that_cannot_be_are_refused() {
    let source = PlanSource { name: "s".into(), schema: event_schema(), time_column: Some("ts".into()) };
    for (text, words) in [
        ("SELECT * FROM copies(TABLE s)", "it takes one argument"),
        ("SELECT * FROM copies(TABLE t, 'x')", "source \"t\" does not exist"),
        ("SELECT * FROM other(TABLE s, 'x')", "there are copies"),
        ("SELECT * FROM copies(TABLE s, id)", ""),
    ] {
        let error = Plan::compile(&rules(), std::slice::from_ref(&source), text).unwrap_err().to_string();
        assert!(error.contains(words), "{text}\n{error}");
    }
    assert_eq!(
        crate::pipeline::plan::relations(
            &crate::pipeline::plan::parse(&rules(), "SELECT * FROM copies(TABLE s, 'x') JOIN s ON TRUE").unwrap()
        ),
        ["s"]
    );
}
