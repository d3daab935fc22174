//! Places: `geo_cell`, `geo_distance`, `geo_within`. Of what is no place (a latitude beyond 90 degrees, a longitude beyond 180, NaN) they are NULL, so
//! that one bad row fails no query.

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, AsArray, BooleanArray, Float64Array, Int64Array},
    datatypes::{DataType, Float64Type, Int64Type},
};
use datafusion::{
    error::DataFusionError,
    logical_expr::{ScalarUDF, Signature, Volatility::Immutable},
};
use h3o::{LatLng, Resolution};
use tidemill_storage::geo::{Area, Polygon, distance, is_place};

use super::simple::{Call, Returns, Simple};
use crate::SqlError;

pub(crate) const DISTANCE: &str = "geo_distance";
pub(crate) const WITHIN: &str = "geo_within";

pub(crate) fn udfs() -> Vec<Arc<ScalarUDF>> {
    use DataType::{Float64, Int64, Utf8View};
    vec![
        Simple::udf(
            "geo_cell",
            Signature::exact(vec![Float64, Float64, Int64], Immutable),
            Returns::Type(Int64),
            cells,
        ),
        Simple::udf(DISTANCE, Signature::exact(vec![Float64; 4], Immutable), Returns::Type(Float64), distances),
        Simple::udf(
            WITHIN,
            Signature::exact(vec![Float64, Float64, Utf8View], Immutable),
            Returns::Type(DataType::Boolean),
            within,
        ),
    ]
}

/// H3's number of the cell of a resolution around each place.
fn cells(call: &Call<'_>) -> Result<ArrayRef, DataFusionError> {
    let (lats, lngs) = (floats(call, 0)?, floats(call, 1)?);
    let resolutions = call.cast(2, &DataType::Int64)?;
    let resolutions = resolutions.as_primitive::<Int64Type>();
    let mut out = Vec::with_capacity(call.rows);
    for row in 0..call.rows {
        if lats.is_null(row) || lngs.is_null(row) || resolutions.is_null(row) {
            out.push(None);
            continue;
        }
        let resolution = u8::try_from(resolutions.value(row)).ok().and_then(|number| Resolution::try_from(number).ok());
        let Some(resolution) = resolution else {
            return Err(SqlError::invalid_parameter(format!("geo_cell has no resolution {}", resolutions.value(row)))
                .with_hint("Resolutions are 0 (4.4 million square kilometres) to 15 (one square metre).")
                .into());
        };
        let (lat, lng) = (lats.value(row), lngs.value(row));
        let place = is_place(lat, lng).then(|| LatLng::new(lat, lng).ok()).flatten();
        out.push(place.map(|place| u64::from(place.to_cell(resolution)) as i64));
    }
    Ok(Arc::new(Int64Array::from(out)))
}

fn distances(call: &Call<'_>) -> Result<ArrayRef, DataFusionError> {
    let arrays = [floats(call, 0)?, floats(call, 1)?, floats(call, 2)?, floats(call, 3)?];
    let metres = (0..call.rows).map(|row| {
        if arrays.iter().any(|array| array.is_null(row)) {
            return None;
        }
        distance(arrays[0].value(row), arrays[1].value(row), arrays[2].value(row), arrays[3].value(row))
    });
    Ok(Arc::new(metres.collect::<Float64Array>()))
}

fn within(call: &Call<'_>) -> Result<ArrayRef, DataFusionError> {
    let (lats, lngs, shapes) = (floats(call, 0)?, floats(call, 1)?, call.text(2)?);
    let mut last: Option<(&str, Area)> = None;
    let mut out = Vec::with_capacity(call.rows);
    for (row, shape) in shapes.iter().enumerate() {
        let Some(shape) = shape else {
            out.push(None);
            continue;
        };
        let area = match &mut last {
            Some((known, area)) if *known == shape => &*area,
            last => &last.insert((shape, area(shape)?)).1,
        };
        let has_place = lats.is_valid(row) && lngs.is_valid(row) && is_place(lats.value(row), lngs.value(row));
        out.push(has_place.then(|| area.contains(lats.value(row), lngs.value(row))));
    }
    Ok(Arc::new(BooleanArray::from(out)))
}

fn floats(call: &Call<'_>, index: usize) -> Result<Float64Array, DataFusionError> {
    Ok(call.cast(index, &DataType::Float64)?.as_primitive::<Float64Type>().clone())
}

/// The area of a POLYGON or MULTIPOLYGON in well-known text, longitude before latitude. 22P02 for what is none.
pub(crate) fn area(text: &str) -> Result<Area, SqlError> {
    let wrong = || {
        SqlError::invalid_text("polygon", text).with_hint(
            "It is written as POLYGON((13.3 52.4, 13.5 52.4, 13.4 52.6, 13.3 52.4)), longitude before latitude.",
        )
    };
    let trimmed = text.trim();
    let name = trimmed.find('(').map(|at| trimmed[..at].trim().to_ascii_uppercase()).ok_or_else(wrong)?;
    let mut reader = Reader { rest: &trimmed[trimmed.find('(').unwrap_or(0)..] };
    let area = match name.as_str() {
        "POLYGON" => reader.polygon().map(Area::Polygon),
        "MULTIPOLYGON" => reader.list(|reader| reader.polygon().map(Area::Polygon)).map(Area::Any),
        _ => None,
    };
    area.filter(|_| reader.rest.trim().is_empty()).ok_or_else(wrong)
}

struct Reader<'a> {
    rest: &'a str,
}

impl Reader<'_> {
    fn symbol(&mut self, symbol: char) -> bool {
        let after = self.rest.trim_start().strip_prefix(symbol);
        self.rest = after.unwrap_or(self.rest);
        after.is_some()
    }

    /// `(item, item, …)`.
    fn list<T>(&mut self, mut item: impl FnMut(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let mut items = Vec::new();
        if !self.symbol('(') {
            return None;
        }
        loop {
            items.push(item(self)?);
            if !self.symbol(',') {
                break;
            }
        }
        self.symbol(')').then_some(items)
    }

    /// Rings, of which each ends where it began.
    fn polygon(&mut self) -> Option<Polygon> {
        let rings = self.list(|reader| reader.list(Self::corner))?;
        let is_closed = |ring: &Vec<(f64, f64)>| ring.len() >= 4 && ring.first() == ring.last();
        rings.iter().all(is_closed).then_some(Polygon { rings })
    }

    /// Longitude and latitude, turned round.
    fn corner(&mut self) -> Option<(f64, f64)> {
        let lng = self.number()?;
        let lat = self.number()?;
        is_place(lat, lng).then_some((lat, lng))
    }

    fn number(&mut self) -> Option<f64> {
        let rest = self.rest.trim_start();
        let end = rest.find(|c: char| c.is_whitespace() || matches!(c, ',' | '(' | ')')).unwrap_or(rest.len());
        let number = rest[..end].parse().ok()?;
        self.rest = &rest[end..];
        Some(number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn well_known_text_is_read() {
        let square = "POLYGON((0 0, 10 0, 10 10, 0 10, 0 0))";
        assert!(area(square).unwrap().contains(5.0, 1.0));
        assert!(!area(square).unwrap().contains(5.0, 11.0));
        let holed = area(" polygon ( (0 0,10 0,10 10,0 10,0 0) , (4 4,6 4,6 6,4 6,4 4) ) ").unwrap();
        assert!(holed.contains(1.0, 5.0) && !holed.contains(5.0, 5.0));
        let two = area("MULTIPOLYGON(((0 0, 1 0, 1 1, 0 0)), ((179 -1, 180 -1, 180 1, 179 1, 179 -1)))").unwrap();
        assert!(two.contains(0.2, 0.5) && two.contains(0.0, 179.5) && !two.contains(0.0, 90.0));
        for wrong in [
            "",
            "POINT(1 2)",
            "POLYGON",
            "POLYGON()",
            "POLYGON(())",
            "POLYGON((0 0, 1 1, 0 0))",
            "POLYGON((0 0, 10 0, 10 10, 0 10))",
            "POLYGON((0 0, 10 0, 10 100, 0 0))",
            "POLYGON((0 0, 1 0, 1 1, 0 0)) x",
            "POLYGON((0 0, 1 0, 1 NaN, 0 0))",
            "POLYGON((0 0 0, 1 0 0, 1 1 0, 0 0 0))",
        ] {
            assert_eq!(area(wrong).unwrap_err().sqlstate, "22P02", "{wrong}");
        }
    }
}
