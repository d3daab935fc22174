//! A model's protobuf before it is loaded: what it takes and gives, and whether there is anything in it that is not run here.

use std::collections::{HashMap, HashSet};

use tract_onnx::{
    pb::{
        AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, tensor_shape_proto::dimension,
        type_proto::Value,
    },
    prelude::Framework,
    tract_core::internal::DatumType,
};

use crate::functions::user::Unfit;

/// What rows are scored with. Not in it, though tract has them: control flow, random numbers, what makes large tensors of small ones, images and sequences; `Shape`, with which a few operators make
/// expressions that tract does not end to simplify; what gives infinity for numbers in the hundreds (`HardSwish`, `LogSoftmax`, `Mish`, `ReduceLogSumExp`, `Softplus`).
#[rustfmt::skip]
pub(super) const OPERATORS: &[&str] = &[
    // Pipelines of scikit-learn, LightGBM and XGBoost.
    "ArrayFeatureExtractor", "Imputer", "LinearClassifier", "LinearRegressor", "Normalizer", "OneHotEncoder", "Scaler", "TreeEnsembleClassifier", "TreeEnsembleRegressor",
    // Networks of dense layers.
    "BatchNormalization", "Dropout", "Gemm", "LayerNormalization", "MatMul",
    "Celu", "Clip", "Elu", "Gelu", "HardSigmoid", "LeakyRelu", "PRelu", "Relu", "Selu", "Sigmoid", "Softmax", "Softsign", "Swish", "Tanh", "ThresholdedRelu",
    // Arithmetic, comparisons, logic.
    "Abs", "Add", "Ceil", "Cos", "Div", "Erf", "Exp", "Floor", "Log", "Max", "Mean", "Min", "Mod", "Mul", "Neg", "Pow", "Reciprocal", "Round", "Sign", "Sin", "Sqrt", "Sub", "Sum", "Tan",
    "And", "Equal", "Greater", "GreaterOrEqual", "IsInf", "IsNaN", "Less", "LessOrEqual", "Not", "Or", "Where", "Xor",
    // Sums, columns and shapes.
    "ArgMax", "ArgMin", "ReduceL1", "ReduceL2", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum", "ReduceSumSquare",
    "Cast", "Concat", "Constant", "Flatten", "Gather", "Identity", "Reshape", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze",
];
/// What gives a number, a class or an answer for NaN, or may: behind it nobody sees that a value was missing.
#[rustfmt::skip]
const SWALLOWING: &[&str] = &[
    "ArgMax", "ArgMin", "Celu", "Clip", "Equal", "Erf", "Greater", "GreaterOrEqual", "HardSigmoid", "IsInf", "LeakyRelu", "Less", "LessOrEqual", "LinearClassifier", "Max", "Min", "Normalizer",
    "OneHotEncoder", "PRelu", "ReduceMax", "ReduceMin", "Relu", "Sigmoid", "Softmax", "Tanh", "ThresholdedRelu",
];
/// What knows what to do with NaN.
const OF_MISSING: &[&str] = &["Imputer", "IsNaN", "TreeEnsembleClassifier", "TreeEnsembleRegressor"];
/// Elements of one tensor of the file: what 16 MiB can hold, and no more if it says so.
const ELEMENTS_MAX: u64 = 16 << 20;
/// Elements that may be computed of constants when a model is loaded.
const CONSTANT_MAX: u64 = 4 << 20;
/// Operators of a graph: loading takes tract more than twice as long for twice as many.
const NODES_MAX: usize = 2000;
/// Axes of a tensor, also where `Reshape` makes them.
pub(super) const AXES_MAX: usize = 8;
/// Bytes of a label or a category: each row may get one.
const TEXT_MAX: usize = 1024;

/// An input of a graph.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Input {
    pub(super) name: String,
    pub(super) datum_type: DatumType,
    /// Whether there may be any number of rows; else there is one.
    pub(super) is_batch: bool,
    /// `None`: it is a list with one value a row.
    pub(super) columns: Option<Columns>,
}

/// Columns of an input of rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Columns {
    Fixed(usize),
    /// As many as there are arguments.
    Any,
}

/// What can be loaded.
pub(super) struct Graph {
    pub(super) proto: ModelProto,
    pub(super) inputs: Vec<Input>,
    /// As the graph calls them.
    pub(super) outputs: Vec<String>,
    /// An operator that makes a number of a missing value, if nothing in the model is made for such.
    pub(super) swallows_missing: Option<String>,
}

impl Graph {
    pub(super) fn read(bytes: &[u8]) -> Result<Self, Unfit> {
        let no_model = |what: &str| {
            Unfit::new(
                format!("it is no ONNX model{what}"),
                "it takes a model in the ONNX format, as skl2onnx, onnxmltools and torch.onnx write it",
            )
        };
        let mut proto = tract_onnx::onnx()
            .proto_model_for_read(&mut &bytes[..])
            .map_err(|error| no_model(&format!(": {}", error.root_cause())))?;
        let graph = proto.graph.as_mut().filter(|graph| !graph.node.is_empty()).ok_or_else(|| no_model(""))?;
        if !proto.functions.is_empty() {
            return Err(Unfit::new("the model has functions of its own", "export it without them"));
        }
        let renamed = strip_maps(graph);
        check(graph)?;
        let operator_in = |known: &[&str]| {
            let found = graph.node.iter().find(|node| known.contains(&node.op_type.as_str()));
            found.map(|node| node.op_type.clone())
        };
        let swallows_missing = operator_in(SWALLOWING).filter(|_| operator_in(OF_MISSING).is_none());
        let initialized: HashSet<&str> = graph.initializer.iter().map(|tensor| tensor.name.as_str()).collect();
        let inputs = graph.input.iter().filter(|input| !initialized.contains(input.name.as_str()));
        let inputs = inputs.map(input).collect::<Result<Vec<_>, _>>()?;
        if inputs.is_empty() {
            return Err(Unfit::new("the model takes nothing", ""));
        }
        let outputs = graph.output.iter().map(|output| {
            let known = renamed.iter().find(|(made, _)| *made == output.name);
            known.map_or_else(|| output.name.clone(), |(_, name)| name.clone())
        });
        let outputs = outputs.collect();
        Ok(Self { proto, inputs, outputs, swallows_missing })
    }
}

/// `ZipMap`, with which skl2onnx ends classifiers if it is not told otherwise, makes a list of dictionaries of the probabilities. The tensor before it is the output then. Gives the tensors that
/// became outputs, with the names of these.
fn strip_maps(graph: &mut GraphProto) -> Vec<(String, String)> {
    let mut renamed = Vec::new();
    let GraphProto { node, output, .. } = graph;
    node.retain(|node| {
        let ([from], [to]) = (&node.input[..], &node.output[..]) else { return true };
        let ends = output.iter_mut().find(|output| output.name == *to);
        match ends {
            Some(output) if node.op_type == "ZipMap" => {
                output.name.clone_from(from);
                output.r#type = None;
                renamed.push((from.clone(), to.clone()));
                false
            }
            _ => true,
        }
    });
    renamed
}

fn check(graph: &GraphProto) -> Result<(), Unfit> {
    if graph.node.len() > NODES_MAX {
        return Err(Unfit::new(
            format!("the model has {} operators", graph.node.len()),
            format!("{NODES_MAX} are the most"),
        ));
    }
    if !graph.sparse_initializer.is_empty() {
        return Err(Unfit::new("the model has sparse tensors", "export it with dense ones"));
    }
    graph.initializer.iter().try_for_each(check_tensor)?;
    for node in &graph.node {
        if !OPERATORS.contains(&node.op_type.as_str()) {
            return Err(unknown(&node.op_type));
        }
        node.attribute.iter().try_for_each(|attribute| check_attribute(&node.op_type, attribute))?;
    }
    check_constants(graph)
}

/// What follows from constants alone is computed when the model is loaded: a small file could ask for any amount of memory then.
fn check_constants(graph: &GraphProto) -> Result<(), Unfit> {
    let mut sizes: HashMap<&str, u64> = HashMap::new();
    sizes.extend(graph.initializer.iter().map(|tensor| (tensor.name.as_str(), elements(tensor).unwrap_or(u64::MAX))));
    let mut left: Vec<&NodeProto> = graph.node.iter().collect();
    loop {
        let before = left.len();
        let mut found = Ok(());
        left.retain(|node| {
            let inputs = node.input.iter().filter(|name| !name.is_empty());
            let Some(inputs) = inputs.map(|name| sizes.get(name.as_str()).copied()).collect::<Option<Vec<u64>>>()
            else {
                return true;
            };
            match constant(node, &inputs) {
                Some(size) => sizes.extend(node.output.iter().map(|name| (name.as_str(), size))),
                None => found = Err(large_constant(node)),
            }
            false
        });
        found?;
        if left.len() == before {
            return graph.node.iter().try_for_each(|node| check_axes(node, &sizes));
        }
    }
}

/// Shapes and axes that operators are given as tensors: tract makes as many of them as are asked for.
fn check_axes(node: &NodeProto, sizes: &HashMap<&str, u64>) -> Result<(), Unfit> {
    let operator = node.op_type.as_str();
    if !["Reshape", "Slice", "Squeeze", "Unsqueeze"].contains(&operator) && !operator.starts_with("Reduce") {
        return Ok(());
    }
    let given = node.input.iter().skip(1).filter_map(|name| sizes.get(name.as_str()));
    match given.max() {
        Some(axes) if *axes > AXES_MAX as u64 => Err(many_axes(operator, *axes as usize)),
        _ => Ok(()),
    }
}

/// Elements that an operator makes of constants, at most; `None`: too many, or one that has no business with constants.
fn constant(node: &NodeProto, inputs: &[u64]) -> Option<u64> {
    let size = match node.op_type.as_str() {
        "Constant" => {
            let lists = node.attribute.iter().map(|attribute| {
                let tensor = attribute.t.as_ref().map_or(0, |tensor| elements(tensor).unwrap_or(u64::MAX));
                let lists = attribute.ints.len() + attribute.floats.len() + attribute.strings.len();
                tensor.saturating_add(lists as u64)
            });
            lists.fold(0, u64::saturating_add).max(1)
        }
        "Concat" => inputs.iter().copied().fold(0, u64::saturating_add),
        "Cast" | "Flatten" | "Identity" | "Reshape" | "Slice" | "Squeeze" | "Transpose" | "Unsqueeze" => {
            *inputs.first()?
        }
        operator if operator.starts_with("TreeEnsemble") || operator == "OneHotEncoder" => return None,
        _ => {
            let sum = inputs.iter().copied().fold(0, u64::saturating_add);
            inputs.iter().copied().fold(1, u64::saturating_mul).max(sum)
        }
    };
    (size <= CONSTANT_MAX).then_some(size)
}

fn large_constant(node: &NodeProto) -> Unfit {
    Unfit::new(
        format!(
            "operator {:?} of the model computes with constants alone, and may make very many numbers",
            node.op_type
        ),
        "export it with constants folded, as onnxsim does",
    )
}

/// An operator that is not run.
fn unknown(operator: &str) -> Unfit {
    Unfit::new(
        format!("the model has the operator {operator:?}, which is not run here"),
        "trees and forests, boosted trees, linear models, dense networks and their scalers, imputers and one-hot encoders are; docs/sql.md has the list",
    )
}

fn check_attribute(operator: &str, attribute: &AttributeProto) -> Result<(), Unfit> {
    if attribute.g.is_some() || !attribute.graphs.is_empty() {
        return Err(unknown(operator));
    }
    if attribute.sparse_tensor.is_some() || !attribute.sparse_tensors.is_empty() {
        return Err(Unfit::new("the model has sparse tensors", "export it with dense ones"));
    }
    let list = ["axes", "perm", "shape"].contains(&attribute.name.as_str());
    if list && attribute.ints.len() > AXES_MAX {
        return Err(many_axes(operator, attribute.ints.len()));
    }
    if operator == "Normalizer" && attribute.name == "norm" && attribute.s == b"MAX" {
        return Err(unknown("Normalizer of MAX"));
    }
    [&attribute.s].into_iter().chain(&attribute.strings).try_for_each(|text| check_text(text.len()))?;
    attribute.t.iter().chain(&attribute.tensors).try_for_each(check_tensor)
}

fn many_axes(what: &str, axes: usize) -> Unfit {
    Unfit::new(format!("the model has {axes} axes in {what}"), format!("{AXES_MAX} are the most"))
}

fn check_text(length: usize) -> Result<(), Unfit> {
    match length <= TEXT_MAX {
        true => Ok(()),
        false => Err(Unfit::new(format!("the model has a text of {length} bytes"), format!("{TEXT_MAX} are the most"))),
    }
}

/// Whether a tensor is in the file, and as long as it says.
fn check_tensor(tensor: &TensorProto) -> Result<(), Unfit> {
    if tensor.data_location.is_some_and(|location| location != 0) || !tensor.external_data.is_empty() {
        return Err(Unfit::new(
            format!("tensor {:?} of the model is in another file", tensor.name),
            "a model is one file: save it without external data",
        ));
    }
    if tensor.dims.len() > AXES_MAX {
        return Err(many_axes(&format!("tensor {:?}", tensor.name), tensor.dims.len()));
    }
    tensor.string_data.iter().try_for_each(|text| check_text(text.len()))?;
    let given = [
        tensor.raw_data.len(),
        tensor.float_data.len(),
        tensor.int32_data.len(),
        tensor.int64_data.len(),
        tensor.double_data.len(),
        tensor.uint64_data.len(),
        tensor.string_data.len(),
    ];
    let given: u64 = given.iter().map(|length| *length as u64).sum();
    match elements(tensor) {
        // A value has a byte at least; how many exactly, is checked where the type is known.
        Some(elements) if elements <= given.min(ELEMENTS_MAX) => Ok(()),
        _ => Err(Unfit::new(format!("tensor {:?} of the model is damaged", tensor.name), "")),
    }
}

fn elements(tensor: &TensorProto) -> Option<u64> {
    tensor.dims.iter().try_fold(1u64, |all, dimension| all.checked_mul(u64::try_from(*dimension).ok()?))
}

fn input(info: &ValueInfoProto) -> Result<Input, Unfit> {
    let strange = |what: &str| {
        Unfit::new(
            format!("input {:?} of the model {what}", info.name),
            "a function is given one tensor of rows [N, columns], or such a tensor for each argument",
        )
    };
    let Some(Value::TensorType(tensor)) = info.r#type.as_ref().and_then(|kind| kind.value.as_ref()) else {
        return Err(strange("is no tensor"));
    };
    let known = tract_onnx::pb::tensor_proto::DataType::try_from(tensor.elem_type).ok();
    let datum_type = known
        .and_then(|known| DatumType::try_from(known).ok())
        .ok_or_else(|| strange("has a type that is not known"))?;
    let shape = tensor.shape.as_ref().ok_or_else(|| strange("has no shape"))?;
    let fixed = |at: usize| match shape.dim.get(at).and_then(|dimension| dimension.value.as_ref()) {
        Some(dimension::Value::DimValue(value)) if *value >= 0 => Some(*value as usize),
        _ => None,
    };
    let columns = match shape.dim.len() {
        1 => None,
        2 => Some(fixed(1).map_or(Columns::Any, Columns::Fixed)),
        other => return Err(strange(&format!("has {other} dimensions"))),
    };
    let is_batch = match fixed(0) {
        None | Some(0) => true,
        Some(1) => false,
        Some(rows) => return Err(strange(&format!("takes {rows} rows at a time, neither one nor any number"))),
    };
    if columns == Some(Columns::Fixed(0)) {
        return Err(strange("has no columns"));
    }
    Ok(Input { name: info.name.clone(), datum_type, is_batch, columns })
}
