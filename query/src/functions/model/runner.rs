//! A model that was checked against what SQL says of it, and its runs.

use std::{
    any::Any,
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use arrow::{
    array::{ArrayRef, new_empty_array},
    compute::concat,
};
use tidemill_storage::schema::DataType;
use tract_onnx::{
    prelude::{Framework, InferenceFact, InferenceModelExt, IntoRunnable, TypedModel, TypedRunnableModel},
    tract_core::internal::{SymbolValues, TDim, TVec, TractError, TractResult},
};

use super::{
    columns::{Taken, describe, share_out},
    graph::Graph,
    operators,
    scores::{Output, column},
};
use crate::{
    exec::work::StopFlag,
    functions::user::{Declaration, Failed, Unfit},
};

/// Rows of one run.
const ROWS_MAX: usize = 4096;
/// Elements of the largest tensor of one run.
const ELEMENTS_MAX: usize = 4 << 20;

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
        let model = model.into_optimized().map_err(unloadable)?;
        let elements = elements_of_a_row(&model, &SymbolValues::default().with(&symbol, 1));
        if elements > ELEMENTS_MAX {
            return Err(Unfit::new(
                format!("the model makes {elements} numbers of one row"),
                format!("{ELEMENTS_MAX} are the most"),
            ));
        }
        Ok(Self {
            plan: model.into_runnable().map_err(unloadable)?,
            inputs,
            output: outputs[chosen].name.clone(),
            returns: declaration.returns.clone(),
            rows_max: if is_batch { (ELEMENTS_MAX / elements).clamp(1, ROWS_MAX) } else { 1 },
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

/// Of the largest tensor on the way of a row.
fn elements_of_a_row(model: &TypedModel, one: &SymbolValues) -> usize {
    // Constants are there once, however many rows there are.
    let computed = model.nodes.iter().filter(|node| !node.inputs.is_empty());
    let elements = computed.flat_map(|node| &node.outputs).map(|outlet| {
        let fact = &outlet.fact;
        let mut shape =
            fact.shape.iter().map(|axis| axis.eval_to_i64(one).ok().and_then(|axis| usize::try_from(axis).ok()));
        // What nobody knows is taken to be large.
        shape.try_fold(1usize, |all, axis| all.checked_mul(axis?)).unwrap_or(ELEMENTS_MAX / 64)
    });
    elements.max().unwrap_or(1).max(1)
}

/// tract may panic on a strange model: that is an error of the model. Nothing that a panic left half done is used afterwards.
fn guarded<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic: Box<dyn Any + Send>| {
        let words = panic.downcast_ref::<&str>().map(|words| (*words).to_owned());
        let words = words.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
        format!("it is not as models are ({})", words.chars().take(200).collect::<String>())
    })
}
