//! Conditions on one column that segments do not know by form: `lower(city) = 'oslo'`, `tags::jsonb->>'src' = 'web'`, `id % 7 = 3`.
//!
//! A segment asks about them where it keeps values: once for each of a dictionary, else for the rows that its other conditions leave. What
//! is no function of the column's value alone (volatile functions, subqueries, other columns) stays with DataFusion.

use std::{fmt, sync::Arc};

use arrow::{
    array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, new_null_array},
    compute::filter,
    datatypes::{DataType as ArrowType, Schema, SchemaRef},
};
use datafusion::{
    common::{
        Column as LogicalColumn, DFSchema,
        tree_node::{Transformed, TreeNode, TreeNodeRecursion},
    },
    execution::context::ExecutionProps,
    logical_expr::{Expr, Volatility, physical_planning_context::PhysicalPlanningContext},
    physical_expr::{PhysicalExpr, create_physical_expr},
    physical_expr_common::physical_expr::fmt_sql,
};
use tidemill_storage::{
    Error,
    documents::{DocumentSieve, DocumentTest},
    predicate::{Condition, Predicate},
    schema::{Column, DataType, TableSchema},
};

use super::documents;

/// A physical expression over one column.
#[derive(Debug)]
struct Holding {
    expr: Arc<dyn PhysicalExpr>,
    schema: SchemaRef,
    /// What it asks of documents, and the bytes that tell it of most.
    documents: Option<Arc<DocumentTest>>,
    sieve: Option<DocumentSieve>,
}

impl fmt::Display for Holding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt_sql(self.expr.as_ref()).fmt(f)
    }
}

impl Condition for Holding {
    fn holds(&self, values: &ArrayRef) -> Result<BooleanArray, Error> {
        let Some(sieve) = &self.sieve else { return self.evaluated(values) };
        let texts = values.as_string_view();
        let passed: BooleanArray = texts.iter().map(|text| Some(text.is_some_and(|text| sieve.passes(text)))).collect();
        let count = passed.true_count();
        if count == 0 {
            return Ok(passed);
        }
        if count > values.len() / 2 {
            return self.evaluated(values);
        }
        let found = self.evaluated(&filter(values, &passed)?)?;
        let mut verdicts = found.iter();
        Ok(passed.values().iter().map(|passed| if passed { verdicts.next().flatten() } else { Some(false) }).collect())
    }

    fn documents(&self) -> Option<&Arc<DocumentTest>> {
        self.documents.as_ref()
    }
}

impl Holding {
    fn evaluated(&self, values: &ArrayRef) -> Result<BooleanArray, Error> {
        let rows = RecordBatch::try_new(Arc::clone(&self.schema), vec![Arc::clone(values)])?;
        let found = self.expr.evaluate(&rows).and_then(|found| found.into_array(rows.num_rows()));
        let found = found.map_err(|error| Error::Computation(Arc::new(error)))?;
        match found.as_boolean_opt() {
            Some(found) => Ok(found.clone()),
            None => Err(Error::Invalid(format!("{self} is {}, not boolean", found.data_type()))),
        }
    }
}

/// The rows for which `filter` is TRUE (`wanted`) or FALSE, where it is a condition on one column.
pub(crate) fn condition(
    filter: &Expr,
    wanted: bool,
    schema: &TableSchema,
    props: &ExecutionProps,
) -> Option<Predicate> {
    let mut column: Option<&Column> = None;
    let mut is_plain = true;
    let visited = filter.apply(|node| {
        match node {
            Expr::Column(found) => {
                let found = schema.column_named(&found.name);
                is_plain &= found.is_some() && (column.is_none() || column == found);
                column = column.or(found);
            }
            Expr::ScalarFunction(call) => is_plain &= call.func.signature().volatility != Volatility::Volatile,
            Expr::ScalarSubquery(_) | Expr::InSubquery(_) | Expr::Exists(_) | Expr::OuterReferenceColumn(..) => {
                is_plain = false;
            }
            _ => {}
        }
        Ok(if is_plain { TreeNodeRecursion::Continue } else { TreeNodeRecursion::Stop })
    });
    let column = column.filter(|_| is_plain && visited.is_ok())?;
    let bare = |node: Expr| match node {
        Expr::Column(found) => Ok(Transformed::yes(Expr::Column(LogicalColumn::new_unqualified(found.name)))),
        node => Ok(Transformed::no(node)),
    };
    let mut bare_filter = filter.clone().transform_up(bare).ok()?.data;
    if !wanted {
        bare_filter = Expr::Not(Box::new(bare_filter));
    }
    let of_column = DFSchema::try_from(schema_of(column)).ok()?;
    let expr = create_physical_expr(&bare_filter, &of_column, props, &PhysicalPlanningContext::default()).ok()?;
    let asked = (column.data_type == DataType::Jsonb).then(|| documents::test(&bare_filter, schema)).flatten();
    asking(expr, column, asked)
}

/// The rows for which `expr`, over `column` alone, is TRUE; `None` where segments should not be asked.
pub(crate) fn holding(expr: Arc<dyn PhysicalExpr>, column: &Column) -> Option<Predicate> {
    asking(expr, column, None)
}

/// The same of what asks this of the documents.
fn asking(expr: Arc<dyn PhysicalExpr>, column: &Column, asked: Option<DocumentTest>) -> Option<Predicate> {
    // Arrays are all different: nothing is gained.
    if matches!(column.data_type, DataType::Array(_)) {
        return None;
    }
    let schema = Arc::new(schema_of(column));
    if expr.data_type(&schema).ok()? != ArrowType::Boolean {
        return None;
    }
    let sieve = asked.as_ref().and_then(DocumentSieve::of);
    let holding = Holding { expr, schema, documents: asked.map(Arc::new), sieve };
    // Segments do not ask about NULL. Where it makes the condition fail, it must do so for rows alone.
    let of_null = holding.holds(&new_null_array(&column.data_type.arrow(), 1)).ok()?;
    let holds = Predicate::Holds { column: column.id, condition: Arc::new(holding) };
    Some(if of_null.is_valid(0) && of_null.value(0) {
        Predicate::Or(vec![holds, Predicate::IsNull { column: column.id, negated: false }])
    } else {
        holds
    })
}

/// Of the values of the column, which may be null.
fn schema_of(column: &Column) -> Schema {
    Schema::new(vec![column.data_type.field(&column.name, true)])
}
