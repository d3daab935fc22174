//! The function as DataFusion calls it.

use std::{
    hash::{Hash, Hasher},
    sync::Arc,
};

use arrow::{
    array::{
        Array, ArrayRef, ArrowPrimitiveType, AsArray, BinaryViewArray, BinaryViewBuilder, BooleanArray, PrimitiveArray,
        StringViewArray, StringViewBuilder, UInt32Array,
    },
    buffer::{NullBuffer, ScalarBuffer},
    compute::{CastOptions, cast_with_options, take},
    datatypes::{ArrowNativeType, DataType as ArrowType, Float32Type, Float64Type, Int16Type, Int32Type, Int64Type},
};
use datafusion::{
    common::{DataFusionError, ScalarValue},
    logical_expr::{
        ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, TypeSignature, Volatility,
        simplify::{ExprSimplifyResult, SimplifyContext},
    },
};
use tidemill_storage::schema::DataType;
use wasmtime::Val;

use super::{
    Passed, Sandbox, Unfit,
    adapter::ROWS_MAX,
    module::{Failed, Given, Running, WasmFunction},
};
use crate::{SqlError, exec::work::StopFlag, functions::session::SessionFacts};

/// What SQL says of a function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Declaration {
    pub oid: u32,
    pub name: String,
    pub arguments: Vec<(Option<String>, DataType)>,
    pub returns: DataType,
}

/// One function. Another body is another one of these, so that a plan never has two.
#[derive(Debug)]
pub struct WasmUdf {
    declaration: Declaration,
    body: WasmFunction,
}

impl WasmUdf {
    /// `symbol`: what the module calls it.
    pub fn new(sandbox: &Sandbox, declaration: Declaration, bytes: &[u8], symbol: &str) -> Result<Arc<Self>, Unfit> {
        let types: Vec<DataType> = declaration.arguments.iter().map(|(_, data_type)| data_type.clone()).collect();
        let body = WasmFunction::new(sandbox, bytes, symbol, &types, &declaration.returns)?;
        Ok(Arc::new(Self { declaration, body }))
    }

    pub fn declaration(&self) -> &Declaration {
        &self.declaration
    }

    /// The function for an engine.
    pub(crate) fn udf(self: &Arc<Self>) -> Arc<ScalarUDF> {
        Arc::new(Called::udf(self, Volatility::Immutable))
    }

    fn call(&self, arguments: &[ArrayRef], rows: usize, stop: &StopFlag) -> Result<ArrayRef, DataFusionError> {
        // NULLs are taken out, and put in again where they were.
        let nulls = arguments
            .iter()
            .fold(None, |all, argument| NullBuffer::union(all.as_ref(), argument.logical_nulls().as_ref()));
        let nulls = nulls.filter(|nulls| nulls.null_count() > 0);
        let (given, count) = match &nulls {
            None => (arguments.to_vec(), rows),
            Some(nulls) => {
                let valid: UInt32Array = nulls.valid_indices().map(|row| row as u32).collect();
                let given = arguments.iter().map(|argument| take(argument, &valid, None));
                (given.collect::<Result<_, _>>()?, valid.len())
            }
        };
        let body = &self.body;
        let given: Vec<Column<'_>> = given
            .iter()
            .zip(&body.arguments)
            .map(|(array, passed)| Column::of(array, *passed))
            .collect::<Result<_, _>>()?;
        let made =
            body.with(stop, |running| results(running, body, &given, count)).map_err(|failed| self.error(failed))?;
        let Some(nulls) = nulls else { return Ok(made) };
        let mut next = 0..count as u32;
        let places: UInt32Array = (0..rows).map(|row| nulls.is_valid(row).then(|| next.next()).flatten()).collect();
        Ok(take(&made, &places, None)?)
    }

    fn error(&self, failed: Failed) -> DataFusionError {
        let name = &self.declaration.name;
        let error = match failed {
            Failed::Stopped => SqlError::cancelled(),
            // No row is to blame: on a faster machine it might have ended.
            Failed::Interrupted => {
                SqlError::new("57014", format!("canceling function {name}(), which did not end within a second"))
                    .with_hint("A call may take a second; what loops for ever is stopped after it.")
            }
            Failed::Trapped(reason) => SqlError::new("38000", format!("function {name}() failed: {reason}")),
        };
        error.into()
    }
}

/// Whether a user made the function.
pub fn is_user_function(function: &ScalarUDF) -> bool {
    function.inner().downcast_ref::<Called>().is_some()
}

/// A function in a plan.
#[derive(Debug)]
struct Called {
    function: Arc<WasmUdf>,
    signature: Signature,
}

impl Called {
    fn udf(function: &Arc<WasmUdf>, volatility: Volatility) -> ScalarUDF {
        let types: Vec<ArrowType> =
            function.declaration.arguments.iter().map(|(_, data_type)| data_type.arrow()).collect();
        // Whole numbers in a statement are BIGINT; one that an INT cannot hold is out of range when it is passed.
        let wide = |data_type: &ArrowType| match data_type {
            ArrowType::Int16 | ArrowType::Int32 => ArrowType::Int64,
            other => other.clone(),
        };
        let widened: Vec<ArrowType> = types.iter().map(wide).collect();
        let types = match types.is_empty() {
            true => TypeSignature::Nullary,
            false if types == widened => TypeSignature::Exact(types),
            false => TypeSignature::OneOf(vec![TypeSignature::Exact(types), TypeSignature::Exact(widened)]),
        };
        ScalarUDF::new_from_impl(Self { function: Arc::clone(function), signature: Signature::new(types, volatility) })
    }
}

impl PartialEq for Called {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.function, &other.function) && self.signature.volatility == other.signature.volatility
    }
}

impl Eq for Called {}

impl Hash for Called {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name().hash(state);
    }
}

impl ScalarUDFImpl for Called {
    fn name(&self) -> &str {
        &self.function.declaration.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[ArrowType]) -> Result<ArrowType, DataFusionError> {
        Ok(self.function.declaration.returns.arrow())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue, DataFusionError> {
        let is_constant = args.args.iter().all(|argument| matches!(argument, ColumnarValue::Scalar(_)));
        let rows = if is_constant { 1 } else { args.number_rows };
        let declared = self.function.declaration.arguments.iter();
        let exact = CastOptions { safe: false, ..CastOptions::default() };
        let arrays = args.args.into_iter().zip(declared).map(|(argument, (_, data_type))| {
            let array = argument.into_array(rows)?;
            match data_type.arrow() {
                wanted if wanted == *array.data_type() => Ok(array),
                wanted => Ok(cast_with_options(&array, &wanted, &exact)?),
            }
        });
        let arrays = arrays.collect::<Result<Vec<_>, DataFusionError>>()?;
        let facts = args.config_options.extensions.get::<SessionFacts>();
        let stop = facts.map(|facts| facts.stop.clone()).unwrap_or_default();
        let made = self.function.call(&arrays, rows, &stop)?;
        match is_constant {
            true => Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&made, 0)?)),
            false => Ok(ColumnarValue::Array(made)),
        }
    }

    /// Called after constants were evaluated: what is still a function of constants has failed. It is not tried again in each round of the optimizer, which might take
    /// a second each time, but when the statement runs.
    fn simplify(&self, args: Vec<Expr>, _: &SimplifyContext) -> Result<ExprSimplifyResult, DataFusionError> {
        let has_failed = self.signature.volatility == Volatility::Immutable
            && args.iter().all(|argument| matches!(argument, Expr::Literal(..)));
        match has_failed {
            true => Ok(ExprSimplifyResult::Simplified(Self::udf(&self.function, Volatility::Volatile).call(args))),
            false => Ok(ExprSimplifyResult::Original(args)),
        }
    }
}

/// An argument without NULLs.
enum Column<'a> {
    Boolean(&'a BooleanArray),
    SmallInt(&'a [i16]),
    Int(&'a [i32]),
    BigInt(&'a [i64]),
    Real(&'a [f32]),
    Double(&'a [f64]),
    Text(&'a StringViewArray),
    Bytes(&'a BinaryViewArray),
}

impl<'a> Column<'a> {
    fn of(array: &'a ArrayRef, passed: Passed) -> Result<Self, DataFusionError> {
        fn values<T: ArrowPrimitiveType>(array: &ArrayRef) -> Option<&[T::Native]> {
            array.as_primitive_opt::<T>().map(|array| &array.values()[..])
        }
        let column = match passed {
            Passed::Boolean => array.as_boolean_opt().map(Self::Boolean),
            Passed::SmallInt => values::<Int16Type>(array).map(Self::SmallInt),
            Passed::Int => values::<Int32Type>(array).map(Self::Int),
            Passed::BigInt => values::<Int64Type>(array).map(Self::BigInt),
            Passed::Real => values::<Float32Type>(array).map(Self::Real),
            Passed::Double => values::<Float64Type>(array).map(Self::Double),
            Passed::Text => array.as_string_view_opt().map(Self::Text),
            Passed::Bytes => array.as_binary_view_opt().map(Self::Bytes),
        };
        column.ok_or_else(|| DataFusionError::Internal(format!("an argument is {}", array.data_type())))
    }

    fn at(&self, row: usize) -> Given<'a> {
        Given::Number(match self {
            Self::Boolean(values) => Val::I32(values.value(row).into()),
            Self::SmallInt(values) => Val::I32(values[row].into()),
            Self::Int(values) => Val::I32(values[row]),
            Self::BigInt(values) => Val::I64(values[row]),
            Self::Real(values) => Val::F32(values[row].to_bits()),
            Self::Double(values) => Val::F64(values[row].to_bits()),
            Self::Text(values) => return Given::Bytes(values.value(row).as_bytes()),
            Self::Bytes(values) => return Given::Bytes(values.value(row)),
        })
    }

    /// Writes rows one after the other.
    fn write(&self, from: usize, count: usize, out: &mut [u8]) {
        fn all<const N: usize>(out: &mut [u8], values: impl Iterator<Item = [u8; N]>) {
            for (place, value) in out.as_chunks_mut::<N>().0.iter_mut().zip(values) {
                *place = value;
            }
        }
        let range = from..from + count;
        match self {
            Self::Boolean(values) => all(out, range.map(|row| i32::from(values.value(row)).to_le_bytes())),
            Self::SmallInt(values) => all(out, values[range].iter().map(|value| i32::from(*value).to_le_bytes())),
            Self::Int(values) => all(out, values[range].iter().map(|value| value.to_le_bytes())),
            Self::BigInt(values) => all(out, values[range].iter().map(|value| value.to_le_bytes())),
            Self::Real(values) => all(out, values[range].iter().map(|value| value.to_le_bytes())),
            Self::Double(values) => all(out, values[range].iter().map(|value| value.to_le_bytes())),
            // A function of texts is called row by row.
            Self::Text(_) | Self::Bytes(_) => {}
        }
    }
}

/// The function for each row.
fn results(running: &mut Running, body: &WasmFunction, given: &[Column<'_>], rows: usize) -> Result<ArrayRef, Failed> {
    let mut all = body.arguments.iter().chain([&body.returns]);
    match all.all(|passed| passed.number().is_some()) {
        true => in_blocks(running, body.returns, given, rows),
        false => one_by_one(running, body.returns, given, rows),
    }
}

fn in_blocks(running: &mut Running, returns: Passed, given: &[Column<'_>], rows: usize) -> Result<ArrayRef, Failed> {
    match returns {
        Passed::Boolean => {
            let made = blocks::<4, i32>(running, given, rows, i32::from_le_bytes)?;
            Ok(Arc::new(made.iter().map(|value| Some(*value != 0)).collect::<BooleanArray>()))
        }
        Passed::SmallInt => small(blocks::<4, i32>(running, given, rows, i32::from_le_bytes)?),
        Passed::Int => Ok(primitive::<Int32Type>(blocks(running, given, rows, i32::from_le_bytes)?)),
        Passed::BigInt => Ok(primitive::<Int64Type>(blocks(running, given, rows, i64::from_le_bytes)?)),
        Passed::Real => Ok(primitive::<Float32Type>(blocks(running, given, rows, f32::from_le_bytes)?)),
        Passed::Double => Ok(primitive::<Float64Type>(blocks(running, given, rows, f64::from_le_bytes)?)),
        Passed::Text | Passed::Bytes => Err(Failed::Trapped("a text is no number".into())),
    }
}

fn blocks<const N: usize, T: ArrowNativeType>(
    running: &mut Running,
    given: &[Column<'_>],
    rows: usize,
    read: fn([u8; N]) -> T,
) -> Result<Vec<T>, Failed> {
    let mut made = Vec::with_capacity(rows);
    while made.len() < rows {
        let (from, count) = (made.len(), (rows - made.len()).min(ROWS_MAX));
        running.block(
            count,
            |at, out| given[at].write(from, count, out),
            |bytes| made.extend(bytes.as_chunks::<N>().0[..count].iter().map(|bytes| read(*bytes))),
        )?;
    }
    Ok(made)
}

fn primitive<T: ArrowPrimitiveType>(values: Vec<T::Native>) -> ArrayRef {
    Arc::new(PrimitiveArray::<T>::new(ScalarBuffer::from(values), None))
}

fn small(values: Vec<i32>) -> Result<ArrayRef, Failed> {
    let fits: Option<Vec<i16>> = values.into_iter().map(|value| i16::try_from(value).ok()).collect();
    fits.map(primitive::<Int16Type>).ok_or_else(|| Failed::Trapped("it gave a number that is no smallint".into()))
}

fn one_by_one(running: &mut Running, returns: Passed, given: &[Column<'_>], rows: usize) -> Result<ArrayRef, Failed> {
    let mut texts = StringViewBuilder::new();
    let mut bytes = BinaryViewBuilder::new();
    let mut numbers: Vec<Val> = Vec::new();
    let mut row = Vec::with_capacity(given.len());
    for at in 0..rows {
        row.clear();
        row.extend(given.iter().map(|column| column.at(at)));
        let taken = running.one(&row, returns.number().is_none(), |given| match given {
            Given::Number(number) => {
                numbers.push(number);
                Ok(())
            }
            Given::Bytes(value) if returns == Passed::Bytes => {
                bytes.append_value(value);
                Ok(())
            }
            Given::Bytes(value) => match std::str::from_utf8(value) {
                Ok(text) => {
                    texts.append_value(text);
                    Ok(())
                }
                Err(_) => Err(Failed::Trapped("it gave a text that is no UTF-8".into())),
            },
        })?;
        match (taken, returns) {
            (None, Passed::Bytes) => bytes.append_null(),
            (None, _) => texts.append_null(),
            (Some(()), _) => {}
        }
    }
    let numbers = numbers.into_iter();
    Ok(match returns {
        Passed::Text => Arc::new(texts.finish()),
        Passed::Bytes => Arc::new(bytes.finish()),
        Passed::Boolean => Arc::new(numbers.map(|value| Some(value.i32() != Some(0))).collect::<BooleanArray>()),
        Passed::SmallInt => small(numbers.filter_map(|value| value.i32()).collect())?,
        Passed::Int => primitive::<Int32Type>(numbers.filter_map(|value| value.i32()).collect()),
        Passed::BigInt => primitive::<Int64Type>(numbers.filter_map(|value| value.i64()).collect()),
        Passed::Real => primitive::<Float32Type>(numbers.filter_map(|value| value.f32()).collect()),
        Passed::Double => primitive::<Float64Type>(numbers.filter_map(|value| value.f64()).collect()),
    })
}
