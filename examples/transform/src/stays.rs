//! `stays(TABLE source PARTITION BY key, 'ts', seconds)`: from when to when rows of a key came, until none did for that many seconds.
//!
//! ```text
//! vehicle  ts         vehicle  rows  since     ts          (60 seconds)
//! 7        12:00:00   7        2     12:00:00  12:01:30
//! 7        12:00:30
//! ```

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, AsArray, Int64Array, RecordBatch, TimestampMicrosecondArray},
    compute::cast,
    datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit, TimestampMicrosecondType},
};
use tidemill::plugin::{Bound, State, Stateful, Transform};

/// The transform, by its name.
pub(crate) struct Stays;

struct OfKey {
    /// Place of the event time among the source's columns.
    time: usize,
    silence_us: i64,
    output: SchemaRef,
}

impl Transform for Stays {
    fn name(&self) -> &str {
        "stays"
    }

    fn bind(&self, _: &Schema, _: &[String]) -> Result<Arc<dyn Bound>, String> {
        Err("say whose stays: stays(TABLE source PARTITION BY key, 'ts', 60)".into())
    }

    fn bind_keyed(&self, input: &Schema, key: &[String], arguments: &[String]) -> Result<Arc<dyn Stateful>, String> {
        let [time, seconds] = arguments else { return Err("it takes the event time's column, and seconds".into()) };
        let seconds = seconds.parse().ok().filter(|seconds: &i64| (1..=86_400).contains(seconds));
        let seconds = seconds.ok_or("seconds are from 1 to 86400")?;
        let column = |name: &String| input.index_of(name).map_err(|_| format!("the source has no column \"{name}\""));
        let at = column(time)?;
        if !matches!(input.field(at).data_type(), DataType::Timestamp(TimeUnit::Microsecond, _)) {
            return Err(format!("column \"{time}\" is no time"));
        }
        let mut fields = Vec::new();
        for name in key {
            fields.push(input.field(column(name)?).clone());
        }
        fields.push(Field::new("rows", DataType::Int64, true));
        fields.push(Field::new("since", input.field(at).data_type().clone(), true));
        fields.push(input.field(at).clone());
        Ok(Arc::new(OfKey { time: at, silence_us: seconds * 1_000_000, output: Arc::new(Schema::new(fields)) }))
    }
}

/// Rows, and the time of the first one.
fn read(state: &State) -> Option<(i64, i64)> {
    let (rows, since) = state.bytes.split_first_chunk::<8>()?;
    Some((i64::from_le_bytes(*rows), i64::from_le_bytes(since.try_into().ok()?)))
}

impl Stateful for OfKey {
    fn output(&self) -> SchemaRef {
        Arc::clone(&self.output)
    }

    fn row(&self, state: &mut State, rows: &RecordBatch, at: usize) -> Result<Option<RecordBatch>, String> {
        let time = rows.column(self.time).as_primitive::<TimestampMicrosecondType>().value(at);
        let (before, since) = read(state).unwrap_or((0, time));
        state.bytes = [before + 1, since].iter().flat_map(|number| number.to_le_bytes()).collect();
        state.wake_us = Some(time + self.silence_us);
        Ok(None)
    }

    fn wake(&self, state: &mut State, key: &RecordBatch, at_us: i64) -> Result<Option<RecordBatch>, String> {
        let (rows, since) = read(state).ok_or("a state that it did not write")?;
        *state = State::default();
        let mut columns = key.columns().to_vec();
        columns.push(Arc::new(Int64Array::from(vec![rows])));
        for time in [since, at_us] {
            let time: ArrayRef = Arc::new(TimestampMicrosecondArray::from(vec![time]));
            let field = self.output.field(columns.len());
            columns.push(cast(&time, field.data_type()).map_err(|error| error.to_string())?);
        }
        RecordBatch::try_new(self.output(), columns).map(Some).map_err(|error| error.to_string())
    }
}
