//! `cells(TABLE source, size)`: the rows of a source that have a place, each with the cell of a grid that it is in.
//!
//! ```text
//! lon   lat    …        lon   lat    …   cell
//! 4.91  52.37           4.91  52.37      491:5237        (size 0.01)
//! NULL  52.37           (is left out)
//! ```

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, AsArray, RecordBatch, StringViewArray, UInt32Array},
    compute::take_record_batch,
    datatypes::{DataType, Field, Float64Type, Schema, SchemaRef},
};
use tidemill::plugin::{Bound, Transform, Transformed};

/// The transform, by its name.
pub(crate) struct Cells;

struct OfSource {
    longitude: usize,
    latitude: usize,
    size: f64,
    output: SchemaRef,
}

impl Transform for Cells {
    fn name(&self) -> &str {
        "cells"
    }

    fn bind(&self, input: &Schema, arguments: &[String]) -> Result<Arc<dyn Bound>, String> {
        let [size] = arguments else { return Err("it takes one argument, the size of a cell in degrees".into()) };
        let size = size.parse().ok().filter(|size: &f64| *size > 0.0 && size.is_finite());
        let column = |name: &str| {
            let found = input.index_of(name).ok().filter(|at| *input.field(*at).data_type() == DataType::Float64);
            found.ok_or_else(|| format!("the source has no column \"{name}\" DOUBLE PRECISION"))
        };
        let mut fields = input.fields().to_vec();
        fields.push(Arc::new(Field::new("cell", DataType::Utf8View, true)));
        Ok(Arc::new(OfSource {
            longitude: column("lon")?,
            latitude: column("lat")?,
            size: size.ok_or("the size of a cell is a number above zero")?,
            output: Arc::new(Schema::new(fields)),
        }))
    }
}

impl Bound for OfSource {
    fn output(&self) -> SchemaRef {
        Arc::clone(&self.output)
    }

    fn run(&self, rows: &RecordBatch) -> Result<Transformed, String> {
        let number = |at: usize| rows.column(at).as_primitive_opt::<Float64Type>().ok_or("a place is no number");
        let (longitude, latitude) = (number(self.longitude)?, number(self.latitude)?);
        let mut of: Vec<u32> = Vec::new();
        let mut cells: Vec<String> = Vec::new();
        for row in 0..rows.num_rows() {
            if longitude.is_null(row) || latitude.is_null(row) {
                continue;
            }
            let (x, y) = (longitude.value(row), latitude.value(row));
            if !(x.abs() <= 180.0 && y.abs() <= 90.0) {
                return Err(format!("{x}, {y} is no place on earth"));
            }
            cells.push(format!("{}:{}", (x / self.size).floor(), (y / self.size).floor()));
            of.push(row as u32);
        }
        let kept = take_record_batch(rows, &UInt32Array::from(of.clone())).map_err(|error| error.to_string())?;
        let mut columns = kept.columns().to_vec();
        columns.push(Arc::new(StringViewArray::from(cells)) as ArrayRef);
        let rows = RecordBatch::try_new(Arc::clone(&self.output), columns).map_err(|error| error.to_string())?;
        Ok(Transformed { rows, of })
    }
}
