//! Arguments as a model takes them: which of them are columns of which input, and their values as tensors.

use arrow::{
    array::{Array, ArrayRef, ArrowPrimitiveType, AsArray},
    compute::cast,
    datatypes::{DataType as ArrowType, Float32Type, Float64Type, Int32Type, Int64Type},
};
use tidemill_storage::schema::DataType;
use tract_onnx::tract_core::internal::{Datum, DatumType, TDim, TVec, Tensor, TractResult, tensor1, tvec};

use super::graph::{Columns, Input};
use crate::functions::user::{Declaration, Unfit};

/// Arguments of a function.
const ARGUMENTS_MAX: usize = 100;

/// An input with the arguments that are its columns.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) datum_type: DatumType,
    arguments: Vec<usize>,
    /// One value a row, without an axis for columns.
    is_list: bool,
}

/// Shares the arguments out among the inputs: by name where each input is of one column and each argument has an input's name, else in their order.
pub(super) fn share_out(inputs: &[Input], declaration: &Declaration) -> Result<Vec<Taken>, Unfit> {
    let arguments = &declaration.arguments;
    if arguments.len() > ARGUMENTS_MAX {
        return Err(Unfit::new(format!("a function takes {ARGUMENTS_MAX} arguments at most"), ""));
    }
    let places = by_name(inputs, declaration).or_else(|| in_order(inputs, arguments.len())).ok_or_else(|| {
        Unfit::new(
            format!("the model takes {}, and the function has {} arguments", describe(inputs), arguments.len()),
            "an argument is a column of the model's input, or an input where the model has several; they are in the model's order, or have the names of its inputs",
        )
    })?;
    let taken = inputs.iter().zip(places).map(|(input, places)| {
        for place in &places {
            check(input, &arguments[*place], *place, declaration.called_on_null)?;
        }
        Ok(Taken { datum_type: input.datum_type, arguments: places, is_list: input.columns.is_none() })
    });
    taken.collect()
}

fn by_name(inputs: &[Input], declaration: &Declaration) -> Option<Vec<Vec<usize>>> {
    let is_single = |input: &Input| matches!(input.columns, None | Some(Columns::Fixed(1) | Columns::Any));
    if inputs.len() != declaration.arguments.len() || !inputs.iter().all(is_single) {
        return None;
    }
    let place_of = |input: &Input| {
        let is_it = |(name, _): &(Option<String>, DataType)| {
            name.as_ref().is_some_and(|name| name.eq_ignore_ascii_case(&input.name))
        };
        let mut found =
            (0..).zip(&declaration.arguments).filter(|(_, argument)| is_it(argument)).map(|(place, _)| place);
        found.next().filter(|_| found.next().is_none())
    };
    inputs.iter().map(|input| place_of(input).map(|place| vec![place])).collect()
}

fn in_order(inputs: &[Input], arguments: usize) -> Option<Vec<Vec<usize>>> {
    let fixed: usize = inputs.iter().map(|input| width(input).unwrap_or_default()).sum();
    let any = inputs.iter().filter(|input| width(input).is_none()).count();
    // One may take what is left; several get one each.
    let rest = arguments.checked_sub(fixed)?;
    let of_any = match any {
        0 if rest > 0 => return None,
        0 => 0,
        1 if rest > 0 => rest,
        _ if rest == any => 1,
        _ => return None,
    };
    let mut next = 0;
    let mut take = |input: &Input| {
        let count = width(input).unwrap_or(of_any);
        next += count;
        (next - count..next).collect()
    };
    Some(inputs.iter().map(&mut take).collect())
}

/// Arguments that an input takes; `None`: as many as there are.
fn width(input: &Input) -> Option<usize> {
    match input.columns {
        None => Some(1),
        Some(Columns::Fixed(columns)) => Some(columns),
        Some(Columns::Any) => None,
    }
}

/// Whether values of the argument are values of the input.
fn check(
    input: &Input,
    argument: &(Option<String>, DataType),
    place: usize,
    called_on_null: bool,
) -> Result<(), Unfit> {
    use DataType::{BigInt, Boolean, Double, Int, Real, SmallInt, Text};
    let (name, data_type) = argument;
    let taken: &[DataType] = match input.datum_type {
        DatumType::F32 | DatumType::F64 => &[SmallInt, Int, BigInt, Real, Double, Boolean],
        DatumType::I64 => &[SmallInt, Int, BigInt, Boolean],
        DatumType::I32 => &[SmallInt, Int, Boolean],
        DatumType::Bool => &[Boolean],
        DatumType::String => &[Text],
        _ => &[],
    };
    let what = || format!("input {:?} of the model is of {}", input.name, type_name(input.datum_type));
    if !taken.contains(data_type) {
        let argument =
            name.as_ref().map_or_else(|| format!("argument {}", place + 1), |name| format!("argument \"{name}\""));
        let names: Vec<String> = taken.iter().map(ToString::to_string).collect();
        return Err(Unfit::new(
            format!("{}, and {argument} is {data_type}", what()),
            match names.is_empty() {
                true => "models take float, double, int64, int32, bool and string".to_owned(),
                false => format!("it takes {}", names.join(", ")),
            },
        ));
    }
    if called_on_null && !matches!(input.datum_type, DatumType::F32 | DatumType::F64) {
        return Err(Unfit::new(
            format!("{}, which has no NaN that a NULL could be passed as", what()),
            "leave CALLED ON NULL INPUT away: then a NULL argument gives NULL",
        ));
    }
    Ok(())
}

/// As ONNX calls it.
pub(super) fn type_name(datum_type: DatumType) -> String {
    match datum_type {
        DatumType::F32 => "float".into(),
        DatumType::F64 => "double".into(),
        DatumType::TDim => "int64".into(),
        other => format!("{other:?}").to_lowercase().replace("i64", "int64").replace("i32", "int32"),
    }
}

pub(super) fn describe(inputs: &[Input]) -> String {
    let rows = |input: &Input| if input.is_batch { "N" } else { "1" };
    let describe = inputs.iter().map(|input| {
        let columns = match input.columns {
            None => String::new(),
            Some(Columns::Fixed(columns)) => format!(", {columns}"),
            Some(Columns::Any) => ", any".to_owned(),
        };
        format!("{} {} [{}{columns}]", input.name, type_name(input.datum_type), rows(input))
    });
    describe.collect::<Vec<_>>().join(", ")
}

impl Taken {
    pub(super) fn shape(&self, rows: &TDim) -> TVec<TDim> {
        match self.is_list {
            true => tvec!(rows.clone()),
            false => tvec!(rows.clone(), self.arguments.len().into()),
        }
    }

    /// The arguments, of the type that the tensor has.
    pub(super) fn columns(&self, arguments: &[ArrayRef]) -> Result<Vec<ArrayRef>, String> {
        let wanted = match self.datum_type {
            DatumType::F32 => ArrowType::Float32,
            DatumType::F64 => ArrowType::Float64,
            DatumType::I64 => ArrowType::Int64,
            DatumType::I32 => ArrowType::Int32,
            DatumType::Bool => ArrowType::Boolean,
            _ => ArrowType::Utf8View,
        };
        let columns = self.arguments.iter().map(|at| cast(&arguments[*at], &wanted).map_err(|error| error.to_string()));
        columns.collect()
    }

    /// Some rows of the columns.
    pub(super) fn tensor(&self, columns: &[ArrayRef], from: usize, count: usize) -> TractResult<Tensor> {
        let made = match self.datum_type {
            DatumType::F32 => numbers::<Float32Type>(columns, from, count, f32::NAN),
            DatumType::F64 => numbers::<Float64Type>(columns, from, count, f64::NAN),
            DatumType::I64 => numbers::<Int64Type>(columns, from, count, 0),
            DatumType::I32 => numbers::<Int32Type>(columns, from, count, 0),
            DatumType::Bool => {
                let columns: Vec<_> = columns.iter().map(|column| column.as_boolean()).collect();
                of_rows(from, count, columns.len(), |row, at| columns[at].value(row))
            }
            _ => {
                let columns: Vec<_> = columns.iter().map(|column| column.as_string_view()).collect();
                of_rows(from, count, columns.len(), |row, at| columns[at].value(row).to_owned())
            }
        };
        match self.is_list {
            true => Ok(made),
            false => made.into_shape(&[count, columns.len()]),
        }
    }
}

fn of_rows<T: Datum>(from: usize, count: usize, width: usize, value: impl Fn(usize, usize) -> T) -> Tensor {
    let value = &value;
    let values: Vec<T> = (from..from + count).flat_map(|row| (0..width).map(move |at| value(row, at))).collect();
    tensor1(&values)
}

fn numbers<T>(columns: &[ArrayRef], from: usize, count: usize, missing: T::Native) -> Tensor
where
    T: ArrowPrimitiveType,
    T::Native: Datum + Copy,
{
    let width = columns.len();
    let mut values = vec![missing; count * width];
    for (at, column) in columns.iter().enumerate() {
        let column = column.as_primitive::<T>();
        let places = values[at..].iter_mut().step_by(width);
        match column.nulls().filter(|nulls| nulls.null_count() > 0) {
            None => places.zip(&column.values()[from..from + count]).for_each(|(place, value)| *place = *value),
            Some(nulls) => {
                for (place, row) in places.zip(from..from + count).filter(|(_, row)| nulls.is_valid(*row)) {
                    *place = column.value(row);
                }
            }
        }
    }
    tensor1(&values)
}
