//! From the columns of a file to the columns of the source.
//!
//! A value either keeps its meaning exactly or its row is rejected: casts that could narrow are done there and back, and what does not come back
//! the same is at fault. Pairs of types between which no such cast is known do not fit at all. Times are cut to microseconds.

use std::sync::Arc;

use arrow::{
    array::{
        Array, ArrayRef, AsArray, BooleanArray, RecordBatch, RecordBatchOptions, StringViewArray, StringViewBuilder,
        new_null_array,
    },
    compute::{CastOptions, cast_with_options, filter_record_batch, kernels::cmp::not_distinct},
    datatypes::{DataType as ArrowType, Field, Schema, SchemaRef},
    error::ArrowError,
};
use tidemill_storage::schema::DataType;

use crate::decode::{PathStep, SourceColumn, parse_json, source_schema};

/// Bytes of JSON documents after which a batch ends early: numbers are written out, nine bytes may become a hundred thousand.
const DOCUMENTS_BYTES_MAX: usize = 32 << 20;

/// Why a file can give no row of the source.
#[derive(Debug)]
pub(super) struct Misfit {
    pub(super) reason: String,
    pub(super) hint: &'static str,
}

/// A value that the source's column cannot hold.
#[derive(Debug, PartialEq)]
pub(super) struct Fault {
    pub(super) row: usize,
    pub(super) column: String,
    pub(super) reason: String,
}

#[derive(Debug)]
pub(super) struct Cast {
    schema: SchemaRef,
    columns: Vec<SourceColumn>,
    /// The file's name for each column; `None` where the file has none and it is NULL.
    from: Vec<Option<String>>,
}

/// How a file's type becomes a column's.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// Every value fits.
    Exact,
    /// Each value has to come back the same.
    ThereAndBack,
    Uuid,
    /// Text that is read as a document.
    Json,
    None,
}

impl Cast {
    pub(super) fn new(file: &Schema, columns: &[SourceColumn]) -> Result<Self, Misfit> {
        let mut from = Vec::with_capacity(columns.len());
        for column in columns {
            let name = match column.path.as_slice() {
                [PathStep::Field(name)] => name,
                _ => {
                    return Err(Misfit {
                        reason: format!("column '{}' has a path, which files of rows do not have", column.name),
                        hint: "leave the path out; columns are taken by name",
                    });
                }
            };
            match file.fields().iter().find(|field| field.name() == name) {
                Some(field) if way(field.data_type(), &column.data_type) == Way::None => {
                    return Err(Misfit {
                        reason: format!(
                            "its column '{name}' of type {} cannot become {}",
                            field.data_type(),
                            column.data_type
                        ),
                        hint: "give the source's column a type that holds every value of the file's",
                    });
                }
                Some(_) => from.push(Some(name.clone())),
                None if column.nullable => from.push(None),
                None => {
                    return Err(Misfit {
                        reason: format!("it has no column '{name}', which is NOT NULL in the source"),
                        hint: "leave the column out, or without NOT NULL",
                    });
                }
            }
        }
        Ok(Self { schema: source_schema(columns), columns: columns.to_vec(), from })
    }

    pub(super) fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    pub(super) fn file_columns(&self) -> Vec<&str> {
        self.from.iter().flatten().map(String::as_str).collect()
    }

    /// How many of the first rows of `batch` are cast at once, at least one, and the columns that had to be made to know.
    fn documents(&self, batch: &RecordBatch) -> Result<(usize, Vec<Option<Converted>>), ArrowError> {
        let mut rows = batch.num_rows();
        let mut made = Vec::with_capacity(self.columns.len());
        for (column, from) in self.columns.iter().zip(&self.from) {
            let given = from.as_ref().and_then(|name| batch.column_by_name(name));
            let texts = given.filter(|given| way(given.data_type(), &column.data_type) == Way::Json);
            made.push(texts.map(|texts| documents(&texts.slice(0, rows))).transpose()?);
            if let Some(Some((array, _))) = made.last() {
                rows = array.len();
            }
        }
        Ok((rows, made))
    }

    /// The rows that fit, which of the first rows of `batch` they are, one fault for each of the others, and how many rows these were: all
    /// unless their documents became very large.
    pub(super) fn apply(
        &self,
        batch: &RecordBatch,
    ) -> Result<(RecordBatch, Vec<usize>, Vec<Fault>, usize), ArrowError> {
        let (rows, made) = self.documents(batch)?;
        let batch = batch.slice(0, rows);
        let mut faults: Vec<Option<Fault>> = (0..rows).map(|_| None).collect();
        let mut arrays: Vec<ArrayRef> = Vec::with_capacity(self.columns.len());
        for ((column, from), made) in self.columns.iter().zip(&self.from).zip(made) {
            let wanted = column.data_type.arrow();
            let Some(given) = from.as_ref().and_then(|name| batch.column_by_name(name)) else {
                arrays.push(new_null_array(&wanted, rows));
                continue;
            };
            let (array, good) = match made {
                Some((array, good)) => (array.slice(0, rows), good),
                None => convert(given, &column.data_type)?,
            };
            for (row, fault) in faults.iter_mut().enumerate() {
                let reason = if good.as_ref().is_some_and(|good| !good.value(row)) {
                    format!("the value does not fit {}", column.data_type)
                } else if !column.nullable && array.is_null(row) {
                    "NULL in a NOT NULL column".to_owned()
                } else {
                    continue;
                };
                fault.get_or_insert_with(|| Fault { row, column: column.name.clone(), reason });
            }
            arrays.push(array);
        }
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        // Nullable until the rows at fault are out.
        let open: Vec<Field> =
            self.schema.fields().iter().map(|field| field.as_ref().clone().with_nullable(true)).collect();
        let all = RecordBatch::try_new_with_options(Arc::new(Schema::new(open)), arrays, &options)?;
        let good: BooleanArray = faults.iter().map(|fault| Some(fault.is_none())).collect();
        let kept = (0..rows).filter(|row| faults[*row].is_none()).collect::<Vec<_>>();
        let filtered = if kept.len() == rows { all } else { filter_record_batch(&all, &good)? };
        let options = RecordBatchOptions::new().with_row_count(Some(kept.len()));
        let fitting =
            RecordBatch::try_new_with_options(Arc::clone(&self.schema), filtered.columns().to_vec(), &options)?;
        Ok((fitting, kept, faults.into_iter().flatten().collect(), rows))
    }
}

/// Values, and which of them are right; `None` where all are.
type Converted = (ArrayRef, Option<BooleanArray>);

/// The first texts as documents, until these are very large.
fn documents(texts: &ArrayRef) -> Result<Converted, ArrowError> {
    let texts = cast_with_options(texts, &ArrowType::Utf8View, &CastOptions::default())?;
    let texts = texts.as_string_view();
    let (mut array, mut good) = (StringViewBuilder::new(), Vec::with_capacity(texts.len()));
    let (mut document, mut bytes) = (String::new(), 0);
    for text in texts {
        document.clear();
        let parsed = text.map(|text| parse_json(text, &mut document));
        good.push(!matches!(parsed, Some(Err(_))));
        array.append_option(matches!(parsed, Some(Ok(()))).then_some(&document));
        bytes += document.len();
        if bytes >= DOCUMENTS_BYTES_MAX {
            break;
        }
    }
    Ok((Arc::new(array.finish()), Some(BooleanArray::from(good))))
}

fn convert(given: &ArrayRef, data_type: &DataType) -> Result<Converted, ArrowError> {
    let wanted = data_type.arrow();
    let safe = CastOptions { safe: true, ..CastOptions::default() };
    match way(given.data_type(), data_type) {
        Way::Exact => {
            let exact = CastOptions { safe: false, ..CastOptions::default() };
            Ok((cast_with_options(given, &wanted, &exact)?, None))
        }
        Way::ThereAndBack => {
            let there = cast_with_options(given, &wanted, &safe)?;
            let back = cast_with_options(&there, given.data_type(), &safe)?;
            let good = not_distinct(&back, given)?;
            Ok((there, Some(good)))
        }
        Way::Uuid => {
            let texts = cast_with_options(given, &ArrowType::Utf8View, &safe)?;
            let texts = texts
                .as_any()
                .downcast_ref::<StringViewArray>()
                .cloned()
                .unwrap_or_else(|| StringViewArray::new_null(given.len()));
            let parsed: Vec<Option<Result<String, ()>>> = texts
                .iter()
                .map(|text| text.map(|text| uuid::Uuid::try_parse(text).map(|id| id.to_string()).map_err(|_| ())))
                .collect();
            let good = parsed.iter().map(|value| Some(!matches!(value, Some(Err(()))))).collect();
            let array: StringViewArray = parsed.into_iter().map(|value| value.and_then(Result::ok)).collect();
            Ok((Arc::new(array), Some(good)))
        }
        Way::Json => documents(given),
        Way::None => Err(ArrowError::CastError(format!("{} cannot become {data_type}", given.data_type()))),
    }
}

fn way(from: &ArrowType, to: &DataType) -> Way {
    use ArrowType::{
        Binary, BinaryView, Boolean, Date32, Date64, Decimal128, Dictionary, FixedSizeBinary, Float16, Float32,
        Float64, Int8, Int16, Int32, Int64, LargeBinary, LargeList, LargeUtf8, List, Timestamp, UInt8, UInt16, UInt32,
        UInt64, Utf8, Utf8View,
    };
    if let Dictionary(_, values) = from {
        return match way(values, to) {
            Way::ThereAndBack => Way::None,
            other => other,
        };
    }
    let integer = matches!(from, Int8 | Int16 | Int32 | Int64 | UInt8 | UInt16 | UInt32 | UInt64);
    let text = matches!(from, Utf8 | LargeUtf8 | Utf8View);
    let exact = match (from, to) {
        (Boolean, DataType::Boolean) => true,
        (
            Int8 | Int16 | UInt8,
            DataType::SmallInt | DataType::Int | DataType::BigInt | DataType::Real | DataType::Double,
        ) => true,
        (Int32 | UInt16, DataType::Int | DataType::BigInt | DataType::Double) => true,
        (UInt16, DataType::Real) => true,
        (Int64 | UInt32, DataType::BigInt) | (UInt32, DataType::Double) => true,
        (Float16 | Float32, DataType::Real) | (Float16 | Float32 | Float64, DataType::Double) => true,
        (Decimal128(p1, s1), DataType::Numeric { precision, scale }) => {
            *s1 <= *scale && i16::from(*p1) - i16::from(*s1) <= i16::from(*precision) - i16::from(*scale)
        }
        (Binary | LargeBinary | BinaryView | FixedSizeBinary(_), DataType::Bytea) => true,
        (Date32 | Date64, DataType::Date) | (Date32, DataType::Timestamp) => true,
        // A time of no zone is no instant, and an instant is no time on a clock.
        (Timestamp(_, None), DataType::Timestamp) | (Timestamp(_, Some(_)), DataType::TimestampTz) => true,
        (_, DataType::Text) => text,
        (List(item) | LargeList(item), DataType::Array(wanted)) => way(item.data_type(), wanted) == Way::Exact,
        _ => false,
    };
    if exact {
        return Way::Exact;
    }
    let number = integer || matches!(from, Float16 | Float32 | Float64 | Decimal128(..));
    match to {
        DataType::Uuid if text => Way::Uuid,
        DataType::Jsonb if text => Way::Json,
        DataType::SmallInt
        | DataType::Int
        | DataType::BigInt
        | DataType::Real
        | DataType::Double
        | DataType::Numeric { .. }
            if number =>
        {
            Way::ThereAndBack
        }
        _ => Way::None,
    }
}
