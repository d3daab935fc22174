//! A model that was checked against what SQL says of it, and its runs.

use std::{
    any::Any,
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use arrow::{
    array::{Array, ArrayRef, AsArray, Float64Array, StringViewArray, new_empty_array},
    compute::{cast, concat},
    datatypes::{DataType as ArrowType, Float64Type},
};
use tidemill_storage::schema::DataType;
use tract_onnx::{
    prelude::{Framework, InferenceFact, InferenceModelExt, IntoRunnable, TypedModel, TypedRunnableModel},
    tract_core::internal::{Cost, Symbol, SymbolValues, TDim, TVec, TractError, TractResult},
};

use super::{
    columns::{Taken, describe, share_out},
    graph::{AXES_MAX, Graph},
    operators,
    scores::{Output, column},
};
use crate::{
    exec::work::StopFlag,
    functions::user::{Declaration, Failed, Unfit},
};

/// Rows of one run.
const ROWS_MAX: u64 = 4096;
/// Elements of all tensors of one run.
const ELEMENTS_MAX: u64 = 4 << 20;
/// Multiplications and comparisons of one run: between runs it is looked at whether the query ended.
const WORK_OF_A_RUN: u64 = 256 << 20;
/// Rows that a model is tried with when it is loaded.
const PROBED: usize = 5;
/// Of a row.
const WORK_MAX: u64 = 1 << 30;

/// A model that can be run.
pub(in crate::functions) struct Model {
    plan: Arc<TypedRunnableModel>,
    inputs: Vec<Taken>,
    /// What the graph calls the output.
    pub(in crate::functions) output: String,
    returns: DataType,
    /// Of one run.
    rows_max: usize,
}

impl fmt::Debug for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Model({})", self.output)
    }
}

impl Model {
    /// `output`: the one that is meant, where the model has several.
    pub(in crate::functions) fn new(
        bytes: &[u8],
        output: Option<&str>,
        declaration: &Declaration,
    ) -> Result<Self, Unfit> {
        guarded(|| Self::load(bytes, output, declaration))
            .unwrap_or_else(|panic| Err(Unfit::new(format!("the model cannot be loaded: {panic}"), "")))
    }

    fn load(bytes: &[u8], output: Option<&str>, declaration: &Declaration) -> Result<Self, Unfit> {
        let unloadable = |error: TractError| {
            let reason: String = error.root_cause().to_string().chars().take(300).collect();
            Unfit::new(format!("the model cannot be loaded: {reason}"), "")
        };
        let graph = Graph::read(bytes)?;
        let inputs = share_out(&graph.inputs, declaration)?;
        if let Some(operator) = graph.swallows_missing.filter(|_| declaration.called_on_null) {
            return Err(Unfit::new(
                format!(
                    "operator {operator:?} of the model may make a number of a missing value, and nothing in it is made for such"
                ),
                "leave CALLED ON NULL INPUT away: then a NULL argument gives NULL; or begin the model with an imputer",
            ));
        }
        let mut model = operators::onnx().model_for_proto_model(&graph.proto).map_err(unloadable)?;
        let is_batch = graph.inputs.iter().all(|input| input.is_batch);
        let symbol = model.new_sym_with_prefix("rows");
        let rows: TDim = if is_batch { symbol.clone().into() } else { 1.into() };
        for (at, input) in inputs.iter().enumerate() {
            let fact = InferenceFact::dt_shape(input.datum_type, input.shape(&rows));
            model.set_input_fact(at, fact).map_err(unloadable)?;
        }
        let mut model = model.into_typed().map_err(unloadable)?;
        let outputs = outputs(&model, graph.outputs).map_err(unloadable)?;
        let chosen = choose(&outputs, output, declaration, &rows, || describe(&graph.inputs))?;
        let outlet = model.outputs[chosen];
        model.select_output_outlets(&[outlet]).map_err(unloadable)?;
        let of_typed = Size::of(&model, &symbol)?;
        let model = model.into_optimized().map_err(unloadable)?;
        let size = Size { work: of_typed.work, ..Size::of(&model, &symbol)? };
        let rows_max = (ELEMENTS_MAX / size.elements).min(WORK_OF_A_RUN / size.work.max(1));
        let made = Self {
            plan: model.into_runnable().map_err(unloadable)?,
            inputs,
            output: outputs[chosen].name.clone(),
            returns: declaration.returns.clone(),
            rows_max: if is_batch { rows_max.clamp(1, ROWS_MAX) as usize } else { 1 },
        };
        match is_batch && made.mixes_rows(declaration) {
            true => Err(Unfit::new(
                "the model gives a row another score when there are other rows",
                "it computes over the axis of rows: export it so that a row has a score of its own",
            )),
            false => Ok(made),
        }
    }

    /// Whether some rows together have other scores than each alone. What fails for them says nothing.
    fn mixes_rows(&self, declaration: &Declaration) -> bool {
        let stop = StopFlag::default();
        let columns = declaration.arguments.iter().enumerate().map(|(at, (_, data_type))| {
            let numbers = (0..PROBED).map(|row| ((row * 7 + at * 3) % 11) as f64 * 1.3 + 0.2);
            let numbers: ArrayRef = match data_type {
                DataType::Text => Arc::new(StringViewArray::from_iter_values(numbers.map(|number| number.to_string()))),
                DataType::Real | DataType::Double => Arc::new(Float64Array::from_iter_values(numbers)),
                _ => Arc::new(Float64Array::from_iter_values(numbers.map(f64::floor))),
            };
            cast(&numbers, &data_type.arrow())
        });
        let Ok(columns) = columns.collect::<Result<Vec<ArrayRef>, _>>() else { return false };
        let Ok(together) = self.call(&columns, PROBED, &stop) else { return false };
        (0..PROBED).any(|row| {
            let alone: Vec<ArrayRef> = columns.iter().map(|column| column.slice(row, 1)).collect();
            self.call(&alone, 1, &stop).is_ok_and(|alone| !is_close(&alone, &together.slice(row, 1)))
        })
    }

    /// The score of each row. NULLs are passed as NaN.
    pub(in crate::functions) fn call(
        &self,
        arguments: &[ArrayRef],
        rows: usize,
        stop: &StopFlag,
    ) -> Result<ArrayRef, Failed> {
        if rows == 0 {
            return Ok(new_empty_array(&self.returns.arrow()));
        }
        guarded(|| self.run(arguments, rows, stop)).unwrap_or_else(|panic| Err(Failed::Trapped(panic)))
    }

    fn run(&self, arguments: &[ArrayRef], rows: usize, stop: &StopFlag) -> Result<ArrayRef, Failed> {
        let columns = self.inputs.iter().map(|input| input.columns(arguments));
        let columns: Vec<Vec<ArrayRef>> = columns.collect::<Result<_, _>>().map_err(Failed::Trapped)?;
        let failed = |error: TractError| Failed::Trapped(error.root_cause().to_string());
        let mut parts = Vec::with_capacity(rows.div_ceil(self.rows_max));
        for from in (0..rows).step_by(self.rows_max) {
            if stop.is_raised() {
                return Err(Failed::Stopped);
            }
            let count = self.rows_max.min(rows - from);
            let given =
                self.inputs.iter().zip(&columns).map(|(input, columns)| Ok(input.tensor(columns, from, count)?.into()));
            let given = given.collect::<TractResult<TVec<_>>>().map_err(failed)?;
            let made = self.plan.run(given).map_err(failed)?;
            let made = made.first().ok_or_else(|| Failed::Trapped("it gave nothing".into()))?;
            parts.push(column(made, count, &self.returns)?);
        }
        match &parts[..] {
            [one] => Ok(Arc::clone(one)),
            _ => {
                let parts: Vec<_> = parts.iter().map(AsRef::as_ref).collect();
                concat(&parts).map_err(|error| Failed::Trapped(error.to_string()))
            }
        }
    }
}

/// With the names that the graph has for them.
fn outputs(model: &TypedModel, names: Vec<String>) -> TractResult<Vec<Output>> {
    let outputs = model.outputs.iter().zip(names).map(|(outlet, name)| {
        let fact = model.outlet_fact(*outlet)?;
        Ok(Output { name, datum_type: fact.datum_type, shape: fact.shape.iter().cloned().collect() })
    });
    outputs.collect()
}

/// Which of them is returned.
fn choose(
    outputs: &[Output],
    named: Option<&str>,
    declaration: &Declaration,
    rows: &TDim,
    inputs: impl Fn() -> String,
) -> Result<usize, Unfit> {
    let returns = &declaration.returns;
    let described = || outputs.iter().map(|output| output.describe(rows)).collect::<Vec<_>>().join(", ");
    let types = |of: &[&Output]| {
        let types = of.iter().filter_map(|output| Some(format!("{:?} is {}", output.name, output.natural(rows)?)));
        types.collect::<Vec<_>>().join(", ")
    };
    let candidates: Vec<(usize, &Output)> = match named {
        Some(named) => outputs.iter().enumerate().filter(|(_, output)| output.name == *named).collect(),
        None => outputs.iter().enumerate().collect(),
    };
    if candidates.is_empty() {
        return Err(Unfit::new(
            format!("the model has no output {:?}", named.unwrap_or_default()),
            format!("it takes {} and gives {}", inputs(), described()),
        ));
    }
    let fits = candidates.iter().find(|(_, output)| output.is(returns, rows));
    fits.map(|(at, _)| *at).ok_or_else(|| {
        let of: Vec<&Output> = candidates.iter().map(|(_, output)| *output).collect();
        let hint = types(&of);
        Unfit::new(
            format!("the model takes {} and gives {}, and the function returns {returns}", inputs(), described()),
            match hint.is_empty() {
                true => "a function returns a value, or an array of values, for each row".to_owned(),
                false => format!("{hint}; another output is chosen by its name: AS 'file', 'name'"),
            },
        )
    })
}

/// What a row takes.
#[derive(Clone, Copy, Debug)]
struct Size {
    /// Of all tensors on its way: in the worst case they are there at the same time.
    elements: u64,
    /// Multiplications and comparisons, and elements that are made.
    work: u64,
}

impl Size {
    fn of(model: &TypedModel, rows: &Symbol) -> Result<Self, Unfit> {
        let one = SymbolValues::default().with(rows, 1);
        let two = SymbolValues::default().with(rows, 2);
        let mut size = Self { elements: 1, work: 0 };
        // Constants are there once, however many rows there are.
        for node in model.nodes.iter().filter(|node| !node.inputs.is_empty()) {
            for outlet in &node.outputs {
                let shape = &outlet.fact.shape;
                if shape.rank() > AXES_MAX {
                    let message = format!("the model makes tensors of {} axes", shape.rank());
                    return Err(Unfit::new(message, format!("{AXES_MAX} are the most")));
                }
                let made = elements(shape.iter(), &one);
                if elements(shape.iter(), &two) > made.saturating_mul(2) {
                    return Err(Unfit::new(
                        "the model makes tensors of rows by rows",
                        "it computes over the axis of rows: export it so that a row has a score of its own",
                    ));
                }
                size.elements = size.elements.saturating_add(made);
            }
            let inputs = model.node_input_facts(node.id).ok();
            let costs = inputs.and_then(|inputs| node.op.cost(&inputs).ok()).unwrap_or_default();
            for (_, cost) in costs.iter().filter(|(kind, _)| !matches!(kind, Cost::Buffer(_) | Cost::Params(_))) {
                size.work = size.work.saturating_add(evaluated(cost, &one).unwrap_or(WORK_OF_A_RUN));
            }
        }
        size.work = size.work.saturating_add(size.elements);
        if size.elements > ELEMENTS_MAX || size.work > WORK_MAX {
            return Err(Unfit::new(
                format!("the model makes {} numbers of one row, in {} steps", size.elements, size.work),
                format!("{ELEMENTS_MAX} numbers and {WORK_MAX} steps are the most"),
            ));
        }
        Ok(size)
    }
}

fn elements<'a>(mut shape: impl Iterator<Item = &'a TDim>, symbols: &SymbolValues) -> u64 {
    // What nobody knows is taken to be large.
    shape.try_fold(1u64, |all, axis| all.checked_mul(evaluated(axis, symbols)?)).unwrap_or(ELEMENTS_MAX / 64)
}

fn evaluated(dimension: &TDim, symbols: &SymbolValues) -> Option<u64> {
    dimension.eval_to_i64(symbols).ok().and_then(|value| u64::try_from(value).ok())
}

/// Whether two columns are the same but for what floats lose where sums are made in another order.
fn is_close(one: &ArrayRef, other: &ArrayRef) -> bool {
    if let (Some(one), Some(other)) = (one.as_list_opt::<i32>(), other.as_list_opt::<i32>()) {
        return is_close(&one.value(0), &other.value(0));
    }
    if !one.data_type().is_floating() {
        return one == other;
    }
    let floats =
        |of: &ArrayRef| cast(of, &ArrowType::Float64).map(|of| of.as_primitive::<Float64Type>().values().to_vec());
    let (Ok(one), Ok(other)) = (floats(one), floats(other)) else { return false };
    let close = |(one, other): (&f64, &f64)| {
        one == other
            || one.is_nan() && other.is_nan()
            || (one - other).abs() <= 1e-3 * one.abs().max(other.abs()) + 1e-5
    };
    one.len() == other.len() && one.iter().zip(&other).all(close)
}

/// tract may panic on a strange model: that is an error of the model. Nothing that a panic left half done is used afterwards.
fn guarded<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic: Box<dyn Any + Send>| {
        let words = panic.downcast_ref::<&str>().map(|words| (*words).to_owned());
        let words = words.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
        format!("it is not as models are ({})", words.chars().take(200).collect::<String>())
    })
}
