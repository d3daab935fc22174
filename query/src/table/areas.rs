//! Filters on places as hints for the scan: the cells that cover the area, which an index knows, and the frame around it, which segments evaluate.
//!
//! The plan keeps the filter above the scan, which tests what comes; so a hint may say less than the filter, never more.
//!
//! | filter | area |
//! |---|---|
//! | `geo_distance(lat, lng, 52.5, 13.4) < 500`, `<=`, BETWEEN | a circle |
//! | `geo_within(lat, lng, 'POLYGON((…))')` | the polygon |
//! | several joined by OR, on the same columns | all of them |

use std::sync::Arc;

use arrow::datatypes::DataType as Arrow;
use datafusion::{
    common::{
        ScalarValue,
        tree_node::{Transformed, TreeNode},
    },
    logical_expr::{
        BinaryExpr, Expr, Operator,
        expr::{Placeholder, ScalarFunction},
    },
};
use tidemill_storage::{
    geo::{Area, cover},
    ids::ColumnId,
    index::IndexKind,
    predicate::{CompareOp, Predicate},
    scalar::Scalar,
    scan::PlaceTest,
    schema::{Column, DataType, TableSchema},
};

use crate::functions::{cast::CastTo, geo};

/// Where the place in two columns lies.
#[derive(Clone, Debug)]
pub(crate) struct AreaTest {
    pub(crate) lat: ColumnId,
    pub(crate) lng: ColumnId,
    pub(crate) area: Area,
}

/// Degrees by which a REAL or a NUMERIC may differ from the float that it becomes.
const ROUNDED: f64 = 1e-4;

impl AreaTest {
    /// What segments evaluate of it themselves: that the place lies in a frame around the area. `None` of columns that are no floats.
    pub(crate) fn frame(&self, schema: &TableSchema) -> Option<Predicate> {
        let is_float =
            |id| schema.column(id).is_some_and(|column| matches!(column.data_type, DataType::Double | DataType::Real));
        if !is_float(self.lat) || !is_float(self.lng) {
            return None;
        }
        let between = |column, low: f64, high: f64| {
            let compare = |op, value| Predicate::Compare { column, op, value: Scalar::Float(value) };
            [compare(CompareOp::GreaterEq, low), compare(CompareOp::LessEq, high)]
        };
        let frames = self.area.frames(ROUNDED).into_iter().map(|frame| {
            let lat = between(self.lat, frame.south, frame.north);
            let lng = between(self.lng, frame.west, frame.east);
            Predicate::And(lat.into_iter().chain(lng).collect())
        });
        let mut frames: Vec<Predicate> = frames.collect();
        if frames.len() == 1 { frames.pop() } else { Some(Predicate::Or(frames)) }
    }

    /// What indexes know.
    pub(crate) fn cells(&self) -> PlaceTest {
        PlaceTest { lat: self.lat, lng: self.lng, cells: Arc::new(cover(&self.area)) }
    }
}

/// Whether the filter tells an area; of one with parameters: for some value of them.
pub(crate) fn takes(filter: &Expr, schema: &TableSchema) -> bool {
    let sample = filter.clone().transform_up(|expr| match &expr {
        Expr::Placeholder(Placeholder { field: Some(field), .. }) if field.data_type() == &Arrow::Float64 => {
            Ok(Transformed::yes(Expr::Literal(ScalarValue::Float64(Some(0.0)), None)))
        }
        _ => Ok(Transformed::no(expr)),
    });
    sample.is_ok_and(|sample| test(&sample.data, schema).is_some())
}

/// The area in which a place is, at least, that passes the filter.
pub(crate) fn test(filter: &Expr, schema: &TableSchema) -> Option<AreaTest> {
    match filter {
        Expr::Alias(alias) => test(&alias.expr, schema),
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::And, right }) => {
            test(left, schema).or_else(|| test(right, schema))
        }
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Or, right }) => {
            let (left, right) = (test(left, schema)?, test(right, schema)?);
            let same = left.lat == right.lat && left.lng == right.lng;
            same.then(|| AreaTest { area: Area::Any(vec![left.area, right.area]), ..left })
        }
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => match (number(left), number(right), op) {
            (None, Some(metres), Operator::Lt | Operator::LtEq | Operator::Eq) => circle(left, metres, schema),
            (Some(metres), None, Operator::Gt | Operator::GtEq | Operator::Eq) => circle(right, metres, schema),
            _ => None,
        },
        Expr::Between(between) if !between.negated => circle(&between.expr, number(&between.high)?, schema),
        Expr::ScalarFunction(call) if call.func.name() == geo::WITHIN => {
            let [lat, lng, shape] = call.args.as_slice() else { return None };
            let Expr::Literal(shape, _) = shape else { return None };
            let area = geo::area(shape.try_as_str()??).ok()?;
            Some(AreaTest { lat: degrees(lat, schema)?.id, lng: degrees(lng, schema)?.id, area })
        }
        _ => None,
    }
}

fn circle(call: &Expr, metres: f64, schema: &TableSchema) -> Option<AreaTest> {
    let Expr::ScalarFunction(ScalarFunction { func, args }) = call else { return None };
    let [lat1, lng1, lat2, lng2] = args.as_slice() else { return None };
    // Every distance is less than NaN.
    if func.name() != geo::DISTANCE || metres.is_nan() {
        return None;
    }
    let ((lat, lng), (middle_lat, middle_lng)) = match (number(lat2), number(lng2)) {
        (Some(lat), Some(lng)) => ((lat1, lng1), (lat, lng)),
        _ => ((lat2, lng2), (number(lat1)?, number(lng1)?)),
    };
    Some(AreaTest {
        lat: degrees(lat, schema)?.id,
        lng: degrees(lng, schema)?.id,
        area: Area::Circle { lat: middle_lat, lng: middle_lng, metres },
    })
}

fn number(expr: &Expr) -> Option<f64> {
    match expr {
        Expr::Literal(ScalarValue::Float64(value), _) => *value,
        Expr::Alias(alias) => number(&alias.expr),
        _ => None,
    }
}

/// A column of numbers, as it is or as a float.
fn degrees<'a>(expr: &Expr, schema: &'a TableSchema) -> Option<&'a Column> {
    let column = match expr {
        Expr::Column(column) => schema.column_named(&column.name)?,
        Expr::Cast(cast) if cast.field.data_type() == &Arrow::Float64 => return degrees(&cast.expr, schema),
        // A numeric becomes a float by a cast of ours.
        Expr::ScalarFunction(call) if call.func.inner().is::<CastTo>() => return degrees(call.args.first()?, schema),
        _ => return None,
    };
    IndexKind::Geo.takes(&column.data_type).then_some(column)
}
