//! A model's protobuf before it is loaded: what it takes and gives, and whether there is anything in it that is not run here.

use std::collections::HashSet;

use tract_onnx::{
    pb::{
        AttributeProto, GraphProto, ModelProto, TensorProto, ValueInfoProto, tensor_shape_proto::dimension,
        type_proto::Value,
    },
    prelude::Framework,
    tract_core::internal::DatumType,
};

use crate::functions::user::Unfit;

/// What rows are scored with. Not in it, though tract has them: control flow, random numbers, what makes large tensors of small ones, images and sequences.
#[rustfmt::skip]
pub(super) const OPERATORS: &[&str] = &[
    // Pipelines of scikit-learn, LightGBM and XGBoost.
    "ArrayFeatureExtractor", "Imputer", "LinearClassifier", "LinearRegressor", "Normalizer", "OneHotEncoder", "Scaler", "TreeEnsembleClassifier", "TreeEnsembleRegressor",
    // Networks of dense layers.
    "BatchNormalization", "Dropout", "Gemm", "LayerNormalization", "MatMul",
    "Celu", "Clip", "Elu", "Gelu", "HardSigmoid", "HardSwish", "LeakyRelu", "LogSoftmax", "Mish", "PRelu", "Relu", "Selu", "Sigmoid", "Softmax", "Softplus", "Softsign", "Swish", "Tanh", "ThresholdedRelu",
    // Arithmetic, comparisons, logic.
    "Abs", "Add", "Ceil", "Cos", "Div", "Erf", "Exp", "Floor", "Log", "Max", "Mean", "Min", "Mod", "Mul", "Neg", "Pow", "Reciprocal", "Round", "Sign", "Sin", "Sqrt", "Sub", "Sum", "Tan",
    "And", "Equal", "Greater", "GreaterOrEqual", "IsInf", "IsNaN", "Less", "LessOrEqual", "Not", "Or", "Where", "Xor",
    // Sums, columns and shapes.
    "ArgMax", "ArgMin", "ReduceL1", "ReduceL2", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum", "ReduceSumSquare",
    "Cast", "Concat", "Constant", "Flatten", "Gather", "Identity", "Reshape", "Shape", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze",
];
/// Elements of one tensor of the file: what 16 MiB can hold, and no more if it says so.
const ELEMENTS_MAX: u64 = 16 << 20;
/// Operators of a graph.
const NODES_MAX: usize = 20_000;

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
        Ok(Self { proto, inputs, outputs })
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
    Ok(())
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
    attribute.t.iter().chain(&attribute.tensors).try_for_each(check_tensor)
}

/// Whether a tensor is in the file, and as long as it says.
fn check_tensor(tensor: &TensorProto) -> Result<(), Unfit> {
    if tensor.data_location.is_some_and(|location| location != 0) || !tensor.external_data.is_empty() {
        return Err(Unfit::new(
            format!("tensor {:?} of the model is in another file", tensor.name),
            "a model is one file: save it without external data",
        ));
    }
    let elements = tensor.dims.iter().try_fold(1u64, |all, dimension| all.checked_mul(u64::try_from(*dimension).ok()?));
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
    match elements {
        // A value has a byte at least; how many exactly, is checked where the type is known.
        Some(elements) if elements <= given.min(ELEMENTS_MAX) => Ok(()),
        _ => Err(Unfit::new(format!("tensor {:?} of the model is damaged", tensor.name), "")),
    }
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
