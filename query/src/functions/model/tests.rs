//! Models beside the scores that onnxruntime has for them, and files that are no models. `tests/tools/models.py` makes `tests/models/`.

use std::{fs, path::PathBuf, sync::Arc};

use arrow::{
    array::{Array, ArrayRef, AsArray, Float32Array, Float64Array, Int64Array, StringViewArray},
    compute::cast,
    datatypes::{DataType as ArrowType, Float64Type, Int64Type},
};
use proptest::prelude::*;
use tidemill_storage::schema::DataType;

use super::Model;
use crate::{
    exec::work::StopFlag,
    functions::user::{Declaration, Failed, Unfit},
};

const FEATURES: [&str; 4] = ["distance", "hour", "passengers", "surge"];

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/models")
}

fn bytes(name: &str) -> Vec<u8> {
    fs::read(folder().join(format!("{name}.onnx"))).unwrap()
}

/// Rows and scores as the CSV has them, by column.
struct Reference(Vec<(String, Vec<String>)>);

impl Reference {
    fn read(name: &str) -> Self {
        let text = fs::read_to_string(folder().join(format!("{name}.csv"))).unwrap();
        let mut lines = text.lines().map(|line| line.split(',').map(str::to_owned));
        let mut columns: Vec<(String, Vec<String>)> = lines.next().unwrap().map(|name| (name, Vec::new())).collect();
        for line in lines {
            columns.iter_mut().zip(line).for_each(|((_, cells), cell)| cells.push(cell));
        }
        Self(columns)
    }

    fn column(&self, name: &str) -> &[String] {
        &self.0.iter().find(|(known, _)| known == name).unwrap_or_else(|| panic!("no column {name}")).1
    }

    /// An empty cell is NULL.
    fn numbers(&self, name: &str) -> ArrayRef {
        Arc::new(self.column(name).iter().map(|cell| cell.parse::<f64>().ok()).collect::<Float64Array>())
    }

    /// Of an output `[N, C]`, by row.
    fn several(&self, output: &str) -> Vec<f64> {
        let of = |at: usize| self.0.iter().find(|(name, _)| *name == format!("{output}.{at}"));
        let columns: Vec<&Vec<String>> = (0..).map_while(|at| of(at).map(|(_, cells)| cells)).collect();
        assert!(columns.len() > 1, "{output}");
        (0..columns[0].len()).flat_map(|row| columns.iter().map(move |cells| cells[row].parse().unwrap())).collect()
    }
}

fn declared(arguments: &[(&str, DataType)], returns: DataType) -> Declaration {
    Declaration {
        oid: 1,
        name: "f".into(),
        arguments: arguments.iter().map(|(name, data_type)| (Some((*name).to_owned()), data_type.clone())).collect(),
        returns,
        called_on_null: false,
    }
}

fn of_features(returns: DataType) -> Declaration {
    declared(&FEATURES.map(|name| (name, DataType::Double)), returns)
}

fn load(name: &str, output: Option<&str>, declaration: &Declaration) -> Result<Model, Unfit> {
    Model::new(&bytes(name), output, declaration)
}

fn score(model: &Model, arguments: &[ArrayRef]) -> ArrayRef {
    model.call(arguments, arguments[0].len(), &StopFlag::default()).unwrap()
}

#[track_caller]
fn assert_close(name: &str, found: &[f64], wanted: &[f64]) {
    assert_eq!(found.len(), wanted.len(), "{name}");
    for (row, (found, wanted)) in found.iter().zip(wanted).enumerate() {
        // Near to zero a probability is what floats leave of a difference from one.
        let close = (found - wanted).abs() <= 1e-5 * wanted.abs() + 1e-6;
        assert!(close, "{name}, value {row}: {found}, and {wanted} is the reference");
    }
}

fn floats(array: &ArrayRef) -> Vec<f64> {
    array.as_primitive::<Float64Type>().values().to_vec()
}

/// What scikit-learn, LightGBM and XGBoost export, each row beside onnxruntime's score of it; rows without a value are NaN.
#[test]
fn scores_are_those_of_onnxruntime() {
    for name in ["linear", "boosted", "forest", "network", "imputed", "lightgbm", "xgboost"] {
        let reference = Reference::read(name);
        let model =
            load(name, None, &of_features(DataType::Double)).unwrap_or_else(|unfit| panic!("{name}: {unfit:?}"));
        let features = FEATURES.map(|feature| reference.numbers(feature));
        let wanted = floats(&reference.numbers("variable"));
        assert_close(name, &floats(&score(&model, &features)), &wanted);
        assert_eq!(model.output, "variable");
    }
}

#[test]
fn classes_and_their_probabilities_are_those_of_onnxruntime() {
    for (name, label, probabilities) in [
        ("logistic", "output_label", "output_probability"),
        ("logistic_binary", "output_label", "output_probability"),
        ("logistic_kinds", "output_label", "output_probability"),
        ("linear_sums", "label", "scores"),
        ("boosted_classes", "output_label", "output_probability"),
        ("forest_classes", "output_label", "output_probability"),
        ("forest_binary", "label", "probabilities"),
        ("network_classes", "output_label", "output_probability"),
        ("lightgbm_classes", "label", "probabilities"),
        ("xgboost_classes", "label", "probabilities"),
    ] {
        let reference = Reference::read(name);
        let features = FEATURES.map(|feature| reference.numbers(feature));
        let is_text = reference.column(label)[0].parse::<i64>().is_err();
        // The one that fits the type is found; with its name it is the same.
        for output in [None, Some(label)] {
            let returns = if is_text { DataType::Text } else { DataType::BigInt };
            let model = load(name, output, &of_features(returns)).unwrap_or_else(|unfit| panic!("{name}: {unfit:?}"));
            assert_eq!(model.output, label);
            let found = score(&model, &features);
            let found: Vec<String> = match is_text {
                true => found.as_string_view().iter().map(|label| label.unwrap().to_owned()).collect(),
                false => found.as_primitive::<Int64Type>().values().iter().map(ToString::to_string).collect(),
            };
            assert_eq!(found, reference.column(label), "{name}");
        }
        let of_all = of_features(DataType::Array(Box::new(DataType::Double)));
        let model = load(name, None, &of_all).unwrap_or_else(|unfit| panic!("{name}: {unfit:?}"));
        assert_eq!(model.output, probabilities);
        let found = score(&model, &features);
        assert_eq!(found.data_type(), &of_all.returns.arrow());
        assert_close(name, &floats(found.as_list::<i32>().values()), &reference.several(probabilities));
    }
}

/// An input for each argument, of types of their own: found by name in any order, or by place.
#[test]
fn arguments_are_inputs_by_name_or_by_place() {
    let reference = Reference::read("columns");
    let distance = cast(&reference.numbers("distance"), &ArrowType::Float32).unwrap();
    let hour = cast(&reference.numbers("hour"), &ArrowType::Int32).unwrap();
    let city: ArrayRef = Arc::new(reference.column("city").iter().map(Some).collect::<StringViewArray>());
    let wanted = floats(&reference.numbers("variable"));
    let named = [("City", DataType::Text), ("DISTANCE", DataType::Real), ("hour", DataType::Int)];
    let mut declaration = Declaration { called_on_null: false, ..declared(&named, DataType::Double) };
    let model = load("columns", None, &declaration).unwrap();
    assert_close("by name", &floats(&score(&model, &[city.clone(), distance.clone(), hour.clone()])), &wanted);
    declaration.arguments = vec![(None, DataType::Real), (None, DataType::Int), (None, DataType::Text)];
    let model = load("columns", None, &declaration).unwrap();
    assert_close("by place", &floats(&score(&model, &[distance, hour, city])), &wanted);
}

/// A row has the same score alone, among others and at any place of a batch: pipelines compute rows again, in other batches.
#[test]
fn a_score_does_not_depend_on_the_batch() {
    for name in ["linear", "logistic", "logistic_kinds", "network", "boosted", "forest_classes"] {
        let reference = Reference::read(name);
        let returns = match name {
            "logistic" | "logistic_kinds" | "forest_classes" => DataType::Array(Box::new(DataType::Double)),
            _ => DataType::Double,
        };
        let model = load(name, None, &of_features(returns)).unwrap();
        let features = FEATURES.map(|feature| reference.numbers(feature));
        let many: Vec<ArrayRef> = features
            .iter()
            .map(|column| {
                let values = floats(column);
                Arc::new(Float64Array::from_iter_values(values.iter().cycle().take(10_007).copied())) as ArrayRef
            })
            .collect();
        let of_many = score(&model, &many);
        for row in (0..10_007).step_by(13) {
            let one: Vec<ArrayRef> = many.iter().map(|column| column.slice(row, 1)).collect();
            assert_eq!(&score(&model, &one), &of_many.slice(row, 1), "{name}, row {row}");
        }
        assert_eq!(score(&model, &many.iter().map(|column| column.slice(0, 0)).collect::<Vec<_>>()).len(), 0);
    }
}

#[test]
fn a_model_of_one_row_is_run_row_by_row() {
    let model = load("one_row", None, &of_features(DataType::Real)).unwrap();
    let column: ArrayRef = Arc::new(Float32Array::from(vec![0.0, 1.0, 2.0]));
    let found = score(&model, &[column.clone(), column.clone(), column.clone(), column]);
    let found = floats(&cast(&found, &ArrowType::Float64).unwrap());
    let wanted = [0.0f64, 1.75, 3.5].map(|sum| 1.0 / (1.0 + (-sum).exp()));
    assert_close("one_row", &found, &wanted);
}

#[test]
fn a_query_that_ended_stops_its_model() {
    let model = load("linear", None, &of_features(DataType::Double)).unwrap();
    let column: ArrayRef = Arc::new(Float64Array::from(vec![1.0; 10]));
    let stop = StopFlag::default();
    stop.raise();
    assert_eq!(model.call(&[column.clone(), column.clone(), column.clone(), column], 10, &stop), Err(Failed::Stopped));
}

#[test]
fn what_does_not_fit_is_refused_with_what_to_do() {
    use DataType::{BigInt, Double, Int, Real, Text, Uuid};
    let of = |types: &[DataType], returns: DataType| {
        let arguments: Vec<(&str, DataType)> = types.iter().map(|data_type| ("a", data_type.clone())).collect();
        Declaration { called_on_null: false, ..declared(&arguments, returns) }
    };
    let four = vec![Real; 4];
    for (name, output, types, returns, message, hint) in [
        (
            "linear",
            None,
            vec![Real; 3],
            Double,
            "takes features float [N, 4], and the function has 3 arguments",
            "a column",
        ),
        (
            "linear",
            None,
            vec![Real, Real, Real, Text],
            Double,
            "features\" of the model is of float, and argument \"a\" is text",
            "double precision",
        ),
        ("linear", None, vec![Real, Real, Real, Uuid], Double, "is uuid", "boolean"),
        (
            "linear",
            None,
            four.clone(),
            BigInt,
            "gives variable float [N, 1], and the function returns bigint",
            "\"variable\" is double precision",
        ),
        ("linear", Some("fare"), four.clone(), Double, "no output \"fare\"", "gives variable float [N, 1]"),
        (
            "forest_classes",
            None,
            four.clone(),
            Double,
            "output_label string [N], output_probability float [N, 3]",
            "\"output_label\" is text, \"output_probability\" is double precision[]",
        ),
        ("forest_binary", Some("probabilities"), four.clone(), BigInt, "returns bigint", "double precision[]"),
        ("columns", None, vec![Real, Double, Text], Double, "input \"hour\" of the model is of int64", "bigint"),
        ("columns", None, vec![Real, Int], Double, "has 2 arguments", "names of its inputs"),
        ("vectors", None, four.clone(), Double, "the operator \"SVMRegressor\"", "trees and forests"),
    ] {
        let unfit = load(name, output, &of(&types, returns)).unwrap_err();
        let found = unfit.hint.clone().unwrap_or_default();
        assert!(unfit.message.contains(message) && found.contains(hint), "{name}: {unfit:?}");
    }
    let on_null = Declaration { called_on_null: true, ..of(&[Real, Int, Text], Double) };
    assert!(load("columns", None, &on_null).unwrap_err().message.contains("no NaN"), "integers have no NaN");
    for bytes in [&b""[..], b"\0asm\x01\0\0\0", b"root:x:0:0:root:/root:/bin/sh\n", &[0xff; 4096]] {
        let unfit = Model::new(bytes, None, &of(&four, Double)).unwrap_err();
        assert!(unfit.message.contains("no ONNX model"), "{unfit:?}");
    }
}

/// A model reads no file: weights that are said to be elsewhere are refused before anybody looks for them.
#[test]
fn tensors_of_other_files_are_refused() {
    use tract_onnx::{pb::StringStringEntryProto, prelude::Framework};
    let mut proto = tract_onnx::onnx().proto_model_for_read(&mut &bytes("network")[..]).unwrap();
    let tensor = &mut proto.graph.as_mut().unwrap().initializer[0];
    tensor.raw_data.clear();
    tensor.float_data.clear();
    tensor.data_location = Some(1);
    tensor.external_data = vec![StringStringEntryProto { key: "location".into(), value: "../../etc/passwd".into() }];
    let unfit = Model::new(&encoded(&proto), None, &of_features(DataType::Double)).unwrap_err();
    assert!(unfit.message.contains("in another file"), "{unfit:?}");
}

fn encoded(proto: &tract_onnx::pb::ModelProto) -> Vec<u8> {
    use prost::Message;
    proto.encode_to_vec()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Whatever becomes of the bytes of a model: it is refused, or gives some score or an error. Nothing panics, loops or reads what is not its own.
    #[test]
    fn damage_is_an_error_or_a_score(
        which in 0usize..7,
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        end in prop::option::weighted(0.2, any::<prop::sample::Index>()),
    ) {
        let name = ["linear", "logistic", "logistic_kinds", "forest_binary", "network", "lightgbm", "columns"][which];
        let mut bytes = bytes(name);
        for (place, byte) in damage {
            let place = place.index(bytes.len());
            bytes[place] = byte;
        }
        if let Some(end) = end {
            bytes.truncate(end.index(bytes.len()));
        }
        let declaration = match name {
            "columns" => declared(&[("distance", DataType::Real), ("hour", DataType::BigInt), ("city", DataType::Text)], DataType::Double),
            "forest_binary" | "logistic" | "logistic_kinds" => of_features(DataType::Array(Box::new(DataType::Real))),
            _ => of_features(DataType::Double),
        };
        let declaration = Declaration { called_on_null: name == "lightgbm", ..declaration };
        if let Ok(model) = Model::new(&bytes, None, &declaration) {
            let values = [0.5, -1e30, f64::NAN, 3.0];
            let arguments = declaration.arguments.iter().map(|(_, data_type)| -> ArrayRef {
                match data_type {
                    DataType::Text => Arc::new(StringViewArray::from(vec!["Oslo", "", "x", "Bergen"])),
                    DataType::BigInt => Arc::new(Int64Array::from(vec![1, i64::MIN, 0, 23])),
                    _ => Arc::new(Float64Array::from(values.to_vec())),
                }
            });
            if let Ok(scores) = model.call(&arguments.collect::<Vec<_>>(), 4, &StopFlag::default()) {
                prop_assert_eq!(scores.len(), 4);
            }
        }
    }
}

/// Graphs that nobody exports: `x` and `y` are float `[N, 1]`.
mod strange {
    use tract_onnx::pb::{
        AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto, TensorShapeProto,
        TypeProto, ValueInfoProto,
        tensor_shape_proto::{Dimension, dimension},
        type_proto,
    };

    use super::*;

    const FLOAT: i32 = 1;
    const INT64: i32 = 7;

    fn node(operator: &str, inputs: &[&str], output: &str) -> NodeProto {
        NodeProto {
            op_type: operator.into(),
            name: output.into(),
            input: inputs.iter().map(|name| (*name).to_owned()).collect(),
            output: vec![output.into()],
            ..NodeProto::default()
        }
    }

    fn with(mut node: NodeProto, name: &str, value: i64) -> NodeProto {
        // 2: an integer.
        node.attribute.push(AttributeProto { name: name.into(), i: value, r#type: 2, ..AttributeProto::default() });
        node
    }

    fn floats(name: &str, dims: &[i64]) -> TensorProto {
        let elements = dims.iter().product::<i64>() as usize;
        TensorProto {
            name: name.into(),
            dims: dims.to_vec(),
            data_type: FLOAT,
            float_data: vec![1.5; elements],
            ..TensorProto::default()
        }
    }

    fn integers(name: &str, values: &[i64]) -> TensorProto {
        TensorProto {
            name: name.into(),
            dims: vec![values.len() as i64],
            data_type: INT64,
            int64_data: values.to_vec(),
            ..TensorProto::default()
        }
    }

    fn tensor(name: &str, dims: &[Option<i64>]) -> ValueInfoProto {
        let dim = dims.iter().map(|value| {
            let value = value.map_or_else(|| dimension::Value::DimParam("N".into()), dimension::Value::DimValue);
            Dimension { value: Some(value), ..Dimension::default() }
        });
        let shape = (!dims.is_empty()).then(|| TensorShapeProto { dim: dim.collect() });
        let value = type_proto::Value::TensorType(type_proto::Tensor { elem_type: FLOAT, shape });
        ValueInfoProto {
            name: name.into(),
            r#type: Some(TypeProto { value: Some(value), ..TypeProto::default() }),
            ..ValueInfoProto::default()
        }
    }

    fn graph(nodes: Vec<NodeProto>, initializer: Vec<TensorProto>) -> Vec<u8> {
        let graph = GraphProto {
            node: nodes,
            name: "g".into(),
            initializer,
            input: vec![tensor("x", &[None, Some(1)])],
            output: vec![tensor("y", &[])],
            ..GraphProto::default()
        };
        let opset = |domain: &str, version| OperatorSetIdProto { domain: domain.into(), version };
        encoded(&ModelProto {
            ir_version: 8,
            graph: Some(graph),
            opset_import: vec![opset("", 17), opset("ai.onnx.ml", 3)],
            ..ModelProto::default()
        })
    }

    fn create(nodes: Vec<NodeProto>, initializer: Vec<TensorProto>, called_on_null: bool) -> Result<Model, Unfit> {
        let declaration = declared(&[("x", DataType::Double)], DataType::Double);
        Model::new(&graph(nodes, initializer), None, &Declaration { called_on_null, ..declaration })
    }

    /// What stands beside the refused graphs: one that is taken, so that they are not refused for how they are written.
    #[test]
    fn a_plain_graph_is_taken() {
        let nodes = vec![node("Add", &["x", "one"], "a"), node("Relu", &["a"], "y")];
        let model = create(nodes, vec![floats("one", &[1, 1])], false).unwrap();
        let given: ArrayRef = Arc::new(Float64Array::from(vec![1.0, -7.0]));
        assert_eq!(super::floats(&score(&model, &[given])), [2.5, 0.0]);
    }

    #[test]
    fn what_could_take_the_server_down_is_refused() {
        let chain = |length: usize| -> Vec<NodeProto> {
            let mut nodes = vec![node("Identity", &["x"], "c0")];
            nodes.extend((0..length).map(|at| node("Sin", &[&format!("c{at}")], &format!("c{}", at + 1))));
            nodes.push(node("Identity", &[&format!("c{length}")], "y"));
            nodes
        };
        let doubled = |axis: i64, from: &str, times: usize| -> Vec<NodeProto> {
            let name = |at: usize| if at == 0 { from.to_owned() } else { format!("d{at}") };
            let concat = |at: usize| with(node("Concat", &[&name(at), &name(at)], &name(at + 1)), "axis", axis);
            (0..times).map(concat).collect()
        };
        let summed = |mut nodes: Vec<NodeProto>, last: &str| {
            nodes.push(with(node("ReduceSum", &[last, "axis"], "y"), "keepdims", 1));
            nodes
        };
        let axis = || integers("axis", &[1]);
        let alone = |nodes: Vec<NodeProto>| (nodes, vec![axis()]);
        let shape = vec![node("Shape", &["x"], "s"), node("Mul", &["s", "s"], "y")];
        let across = vec![
            node("Reshape", &["x", "across"], "a"),
            node("Add", &["x", "a"], "b"),
            with(node("ReduceSum", &["b", "axis"], "y"), "keepdims", 1),
        ];
        let many = vec![node("Reshape", &["x", "many"], "y")];
        let mut folded = doubled(0, "one", 30);
        folded.push(with(node("ReduceSum", &["d30", "axis"], "s"), "keepdims", 1));
        folded.push(node("Add", &["x", "s"], "y"));
        let outer = vec![
            node("MatMul", &["tall", "wide"], "o"),
            with(node("ReduceSum", &["o", "axis"], "s"), "keepdims", 1),
            node("Add", &["x", "s"], "y"),
        ];
        let mut squares = vec![node("MatMul", &["x", "row"], "m0")];
        squares.extend((0..300).map(|at| node("MatMul", &[&format!("m{at}"), "square"], &format!("m{}", at + 1))));
        for ((nodes, tensors), message) in [
            (alone(shape), "operator \"Shape\""),
            (alone(chain(2000)), "operators"),
            (alone(summed(doubled(1, "x", 40), "d40")), "numbers of one row"),
            ((across, vec![axis(), integers("across", &[1, -1])]), "rows by rows"),
            ((many, vec![integers("many", &[1; 40])]), "40 axes in Reshape"),
            ((many_axes(), vec![]), "axes"),
            ((folded, vec![axis(), floats("one", &[1, 1])]), "constants alone"),
            ((outer, vec![axis(), floats("tall", &[9000, 1]), floats("wide", &[1, 9000])]), "constants alone"),
            (
                (summed(squares, "m300"), vec![axis(), floats("row", &[1, 1900]), floats("square", &[1900, 1900])]),
                "steps",
            ),
        ] {
            let unfit = create(nodes, tensors, false).expect_err(message);
            assert!(unfit.message.contains(message), "{message}: {unfit:?}");
        }
    }

    fn many_axes() -> Vec<NodeProto> {
        let mut unsqueeze = node("Transpose", &["x"], "y");
        // 7: integers.
        unsqueeze.attribute.push(AttributeProto {
            name: "perm".into(),
            ints: vec![0; 1000],
            r#type: 7,
            ..AttributeProto::default()
        });
        vec![unsqueeze]
    }

    /// A pipeline computes rows again, in other batches.
    #[test]
    fn what_computes_over_rows_is_refused() {
        for nodes in [
            vec![with(node("Softmax", &["x"], "y"), "axis", 0)],
            vec![with(node("ReduceSum", &["x", "rows"], "s"), "keepdims", 1), node("Sub", &["x", "s"], "y")],
        ] {
            let unfit = create(nodes, vec![integers("rows", &[0])], false).unwrap_err();
            assert!(unfit.message.contains("other rows"), "{unfit:?}");
        }
    }

    /// A missing value would have the score of a zero.
    #[test]
    fn what_makes_a_number_of_nan_is_not_called_on_null() {
        let nodes = || vec![node("Relu", &["x"], "y")];
        assert!(create(nodes(), Vec::new(), false).is_ok());
        let unfit = create(nodes(), Vec::new(), true).unwrap_err();
        assert!(unfit.message.contains("\"Relu\"") && unfit.message.contains("missing"), "{unfit:?}");
        assert!(create(vec![node("Neg", &["x"], "y")], Vec::new(), true).is_ok(), "NaN stays NaN");
        let known = |name| load(name, None, &Declaration { called_on_null: true, ..of_features(DataType::Double) });
        for name in ["imputed", "lightgbm", "xgboost"] {
            known(name).unwrap_or_else(|unfit| panic!("{name}: {unfit:?}"));
        }
        assert!(known("network").is_err());
        let of_kinds = Declaration { called_on_null: true, ..of_features(DataType::Text) };
        let unfit = load("logistic_kinds", None, &of_kinds).unwrap_err();
        assert!(unfit.message.contains("\"LinearClassifier\""), "NaN has a class: {unfit:?}");
    }
}
