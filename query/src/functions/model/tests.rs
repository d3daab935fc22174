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
        called_on_null: true,
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
    for name in ["linear", "logistic", "network", "boosted", "forest_classes"] {
        let reference = Reference::read(name);
        let returns = if name == "logistic" || name == "forest_classes" {
            DataType::Array(Box::new(DataType::Double))
        } else {
            DataType::Double
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
        which in 0usize..6,
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        end in prop::option::weighted(0.2, any::<prop::sample::Index>()),
    ) {
        let name = ["linear", "logistic", "forest_binary", "network", "lightgbm", "columns"][which];
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
            "forest_binary" | "logistic" => of_features(DataType::Array(Box::new(DataType::Real))),
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
