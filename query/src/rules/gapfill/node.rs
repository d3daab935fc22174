//! The plan's node above an aggregate whose buckets are to be without gaps.

use std::{cmp::Ordering, collections::HashSet, fmt, sync::Arc};

use datafusion::{
    common::{DFSchema, DFSchemaRef},
    error::DataFusionError,
    logical_expr::{Expr, LogicalPlan, UserDefinedLogicalNodeCore},
};

use super::bounds::Bound;

/// A column that the node adds: what a value of its input is in the buckets that are not there.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Fill {
    /// Of the column.
    pub(crate) name: String,
    /// The column of the input that has the values of the buckets that are there.
    pub(crate) source: usize,
    pub(crate) way: Way,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Way {
    /// The last value before, at first that of column `before`.
    Locf { before: Option<usize>, nulls_are_missing: Expr },
    /// On the line between the values of the bucket before and the bucket after.
    Interpolate,
}

/// All buckets of each group of its input, which has a row for each bucket of a group that is there. Its columns are the first ones of the input and then `fills`.
///
/// Expressions have no columns. While a statement is planned its input is that; the optimizer is not shown it where a condition could be moved below it that
/// leaves rows out, not groups ([`Seal`](crate::rules::shared_ctes::Seal)).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct GapFill {
    pub(crate) input: Arc<LogicalPlan>,
    /// Place of the bucket's beginning.
    pub(crate) bucket: usize,
    /// Places of the other keys.
    pub(crate) keys: Vec<usize>,
    /// The columns of the input that rows of one group have in common: the keys, or what they are compared by.
    pub(crate) by: Vec<usize>,
    /// How many columns of the input are columns of the output.
    pub(crate) columns: usize,
    pub(crate) fills: Vec<Fill>,
    pub(crate) width: Expr,
    pub(crate) zone: Option<Expr>,
    /// As the call says.
    pub(crate) start: Option<Expr>,
    pub(crate) finish: Option<Expr>,
    /// As conditions say.
    pub(crate) from: Vec<Bound>,
    pub(crate) to: Vec<Bound>,
    pub(crate) is_sealed: bool,
    schema: DFSchemaRef,
}

impl GapFill {
    /// A node without fills, whose schema is made by [`GapFill::settled`].
    pub(super) fn new(
        input: Arc<LogicalPlan>,
        bucket: usize,
        keys: Vec<usize>,
        width: Expr,
        zone: Option<Expr>,
        (start, finish): (Option<Expr>, Option<Expr>),
        (from, to): (Vec<Bound>, Vec<Bound>),
    ) -> Result<Self, DataFusionError> {
        let schema = Arc::clone(input.schema());
        let columns = schema.fields().len();
        let (by, fills) = (keys.clone(), Vec::new());
        let made = Self {
            input,
            bucket,
            keys,
            by,
            columns,
            fills,
            width,
            zone,
            start,
            finish,
            from,
            to,
            is_sealed: false,
            schema,
        };
        made.settled()
    }

    /// Hidden from whoever walks the plan.
    pub(crate) fn sealed(&self) -> Self {
        Self { is_sealed: true, ..self.clone() }
    }

    /// With the schema that its parts give.
    pub(crate) fn settled(mut self) -> Result<Self, DataFusionError> {
        let input = self.input.schema();
        let mut fields = Vec::with_capacity(self.columns + self.fills.len());
        for (index, (qualifier, field)) in input.iter().take(self.columns).enumerate() {
            // Buckets that were not there have no aggregates.
            let is_nullable = field.is_nullable() || !self.keys.contains(&index);
            let field = Arc::new(field.as_ref().clone().with_nullable(is_nullable));
            fields.push((qualifier.cloned(), field));
        }
        for fill in &self.fills {
            let field = input.field(fill.source).as_ref().clone().with_name(&fill.name).with_nullable(true);
            fields.push((None, Arc::new(field)));
        }
        self.schema = Arc::new(DFSchema::new_with_metadata(fields, input.metadata().clone())?);
        Ok(self)
    }
}

impl PartialOrd for GapFill {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        if self == other { Some(Ordering::Equal) } else { None }
    }
}

impl UserDefinedLogicalNodeCore for GapFill {
    fn name(&self) -> &'static str {
        "GapFill"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        if self.is_sealed { Vec::new() } else { vec![&self.input] }
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        let options = [&self.zone, &self.start, &self.finish].into_iter().flatten();
        let bounds = self.from.iter().chain(&self.to).map(|bound| &bound.at);
        let nulls = self.fills.iter().filter_map(|fill| match &fill.way {
            Way::Locf { nulls_are_missing, .. } => Some(nulls_are_missing),
            Way::Interpolate => None,
        });
        std::iter::once(&self.width).chain(options).chain(bounds).chain(nulls).cloned().collect()
    }

    /// Conditions on the other keys leave out whole groups.
    fn prevent_predicate_push_down_columns(&self) -> HashSet<String> {
        let others = self.schema.fields().iter().enumerate().filter(|(index, _)| !self.keys.contains(index));
        others.map(|(_, field)| field.name().clone()).collect()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "GapFill: width={}", self.width)
    }

    fn with_exprs_and_inputs(&self, exprs: Vec<Expr>, mut inputs: Vec<LogicalPlan>) -> Result<Self, DataFusionError> {
        let mut made = self.clone();
        if let Some(input) = inputs.pop() {
            made.input = Arc::new(input);
        }
        let nulls = made.fills.iter_mut().filter_map(|fill| match &mut fill.way {
            Way::Locf { nulls_are_missing, .. } => Some(nulls_are_missing),
            Way::Interpolate => None,
        });
        let options = [&mut made.zone, &mut made.start, &mut made.finish].into_iter().flatten();
        let bounds = made.from.iter_mut().chain(&mut made.to).map(|bound| &mut bound.at);
        let places = std::iter::once(&mut made.width).chain(options).chain(bounds).chain(nulls);
        let mut exprs = exprs.into_iter();
        for place in places {
            *place = exprs.next().ok_or_else(|| DataFusionError::Internal("GapFill lost an expression".to_owned()))?;
        }
        made.settled()
    }
}
