#!/usr/bin/env python3
"""Makes tests/models/ anew: models as scikit-learn, LightGBM and XGBoost export them, rows, and what onnxruntime gives for these.

    python3 -m venv /tmp/models && /tmp/models/bin/pip install -r tests/tools/models.txt
    /tmp/models/bin/python tests/tools/models.py

Each NAME.onnx has a NAME.csv: the columns of the arguments, then each output of the model (a column `output`, or `output.0`, `output.1`, ...).
An empty cell of an argument is a missing value, which the model gets as NaN. For what the library and onnxruntime score alike the difference is asserted
here, so the figures are those of the library, too.
"""

import csv
import pathlib

import lightgbm
import numpy as np
import onnx
import onnxruntime
import xgboost
from onnx import TensorProto, helper
from onnxmltools.convert import convert_lightgbm, convert_xgboost
from onnxmltools.convert.common.data_types import FloatTensorType as ToolsFloat
from skl2onnx import convert_sklearn
from skl2onnx.common.data_types import FloatTensorType, Int64TensorType, StringTensorType
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import (
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.svm import SVR

FOLDER = pathlib.Path(__file__).resolve().parent.parent / "models"
ROWS = 40
COLUMNS = ["distance", "hour", "passengers", "surge"]
random = np.random.default_rng(20261123)


def rides(count):
    distance = random.gamma(2.0, 3.0, count)
    hour = random.integers(0, 24, count)
    passengers = random.integers(1, 6, count)
    surge = 1 + random.beta(1, 4, count)
    # As float32 from the start: what the library sees is what the model sees.
    features = np.stack([distance, hour, passengers, surge], axis=1).astype(np.float32)
    fare = (2.5 + 1.8 * distance + (hour > 21) * 3) * surge + random.normal(0, 0.3, count)
    return features, fare


def missing(features, share=0.15):
    features = features.copy()
    features[random.random(features.shape) < share] = np.nan
    return features


def write(name, model, inputs, columns, expected=None):
    """`inputs`: by the model's names. `expected`: what the library gives, by the output's name."""
    # Without what is made anew each time.
    model.doc_string, model.graph.name = "", name
    data = model.SerializeToString()
    (FOLDER / f"{name}.onnx").write_bytes(data)
    session = onnxruntime.InferenceSession(data)
    named = {}
    for output, value in zip(session.get_outputs(), session.run(None, inputs)):
        if isinstance(value, list):  # ZipMap
            value = np.array([list(row.values()) for row in value], dtype=np.float32)
        named[output.name] = np.asarray(value)
    for output, value in (expected or {}).items():
        found = named[output].reshape(np.shape(value))
        if found.dtype.kind == "f":
            np.testing.assert_allclose(found, value, rtol=2e-4, atol=2e-5)
        else:
            np.testing.assert_array_equal(found.astype(str), np.asarray(value).astype(str))
    header, cells = list(columns), [list(column) for column in columns.values()]
    for output, value in named.items():
        value = value.reshape(len(value), -1)
        for at in range(value.shape[1]):
            header.append(output if value.shape[1] == 1 else f"{output}.{at}")
            cells.append(list(value[:, at]))
    with open(FOLDER / f"{name}.csv", "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        for row in zip(*cells):
            writer.writerow([text(cell) for cell in row])
    operators = [f"{node.op_type}" for node in model.graph.node]
    print(f"{name:24} {len(data):7} bytes  {' '.join(operators)}")


def text(cell):
    if isinstance(cell, (float, np.floating)):
        return "" if np.isnan(cell) else np.format_float_positional(cell, trim="-")
    return str(cell)


def of_features(name, model, features, expected=None, input_name="features"):
    columns = {column: features[:, at] for at, column in enumerate(COLUMNS)}
    write(name, model, {input_name: features}, columns, expected)


def sklearn_model(name, estimator, features, target, rows, gives, options=None, opset=None):
    estimator.fit(features, target)
    shape = FloatTensorType([None, features.shape[1]])
    model = convert_sklearn(estimator, initial_types=[("features", shape)], options=options, target_opset=opset)
    of_features(name, model, rows, {key: getattr(estimator, call)(rows) for key, call in gives.items()} if gives else None)


def main():
    FOLDER.mkdir(exist_ok=True)
    features, fare = rides(600)
    rows, _ = rides(ROWS)
    is_dear = (fare > np.median(fare)).astype(np.int64)
    kind = np.array(["short", "middle", "long"])[np.digitize(fare, np.quantile(fare, [0.3, 0.7]))]
    number = {"variable": "predict"}

    sklearn_model("linear", LinearRegression(), features, fare, rows, number)
    sklearn_model("logistic", make_pipeline(StandardScaler(), LogisticRegression()), features, is_dear, rows, {"output_label": "predict"})
    sklearn_model("boosted", GradientBoostingRegressor(n_estimators=25, max_depth=3, random_state=1), features, fare, rows, number)
    sklearn_model("boosted_classes", GradientBoostingClassifier(n_estimators=12, max_depth=3, random_state=1), features, is_dear, rows, {"output_label": "predict"})
    sklearn_model("forest", RandomForestRegressor(n_estimators=12, max_depth=4, random_state=1), features, fare, rows, number)
    sklearn_model("forest_classes", RandomForestClassifier(n_estimators=10, max_depth=4, random_state=1), features, kind, rows, {"output_label": "predict"})
    binary = RandomForestClassifier(n_estimators=8, max_depth=4, random_state=1)
    sklearn_model("forest_binary", binary, features, is_dear, rows, {"label": "predict", "probabilities": "predict_proba"}, options={id(binary): {"zipmap": False}})
    mlp = make_pipeline(StandardScaler(), MLPRegressor(hidden_layer_sizes=(12, 6), max_iter=800, random_state=1))
    sklearn_model("network", mlp, features, fare, rows, number)
    mlp = make_pipeline(StandardScaler(), MLPClassifier(hidden_layer_sizes=(8,), max_iter=600, random_state=1))
    sklearn_model("network_classes", mlp, features, kind, rows, {"output_label": "predict"})
    imputed = make_pipeline(SimpleImputer(), StandardScaler(), LinearRegression())
    sklearn_model("imputed", imputed, missing(features), fare, missing(rows), number)
    # For benchmarks.
    large, of_large = rides(4000)
    hundred = GradientBoostingRegressor(n_estimators=100, max_depth=5, random_state=1)
    sklearn_model("hundred_trees", hundred, large, of_large, rows, number)
    # Support vectors are of the operators that nobody here has.
    sklearn_model("vectors", SVR(C=0.1).fit(features[:60], fare[:60]), features[:60], fare[:60], rows, number)

    # Missing values are of the trees: which way they go was learned.
    holey, holey_rows = missing(features), missing(rows)
    shape = [("features", ToolsFloat([None, 4]))]
    booster = lightgbm.LGBMRegressor(n_estimators=20, num_leaves=8, min_child_samples=10, random_state=1, verbose=-1)
    booster.fit(holey, fare)
    of_features("lightgbm", convert_lightgbm(booster, initial_types=shape), holey_rows, {"variable": booster.predict(holey_rows)})
    booster = lightgbm.LGBMClassifier(n_estimators=12, num_leaves=6, random_state=1, verbose=-1)
    booster.fit(holey, is_dear)
    of_features("lightgbm_classes", convert_lightgbm(booster, initial_types=shape), holey_rows, {"label": booster.predict(holey_rows)})
    booster = xgboost.XGBRegressor(n_estimators=20, max_depth=3, random_state=1)
    booster.fit(holey, fare)
    of_features("xgboost", convert_xgboost(booster, initial_types=shape), holey_rows, {"variable": booster.predict(holey_rows)})
    booster = xgboost.XGBClassifier(n_estimators=8, max_depth=3, random_state=1)
    booster.fit(holey, (np.digitize(fare, np.quantile(fare, [0.3, 0.7]))))
    of_features("xgboost_classes", convert_xgboost(booster, initial_types=shape), holey_rows, {"probabilities": booster.predict_proba(holey_rows)})

    # A tensor for each column, of types of their own.
    import pandas

    city = random.choice(["Oslo", "Bergen", "Tromsø"], len(features))
    table = pandas.DataFrame({"distance": features[:, 0], "hour": features[:, 1].astype(np.int64), "city": city})
    columns = ColumnTransformer([("numbers", StandardScaler(), ["distance"]), ("hours", OneHotEncoder(handle_unknown="ignore"), ["hour"]), ("cities", OneHotEncoder(handle_unknown="ignore"), ["city"])])
    estimator = make_pipeline(columns, LinearRegression()).fit(table, fare + (city == "Oslo") * 4)
    types = [("distance", FloatTensorType([None, 1])), ("hour", Int64TensorType([None, 1])), ("city", StringTensorType([None, 1]))]
    model = convert_sklearn(estimator, initial_types=types)
    some = table.iloc[:ROWS].copy()
    some.loc[0, "city"] = "Nowhere"
    inputs = {"distance": some.distance.to_numpy().reshape(-1, 1), "hour": some.hour.to_numpy().reshape(-1, 1), "city": some.city.to_numpy().astype(object).reshape(-1, 1)}
    write("columns", model, inputs, {column: some[column].to_numpy() for column in some}, {"variable": estimator.predict(some)})

    # Classes that have names, of linear models: one sum for two classes, a sum for each of three.
    names = np.array(["cheap", "dear"])[is_dear]
    sklearn_model("logistic_binary", make_pipeline(StandardScaler(), LogisticRegression()), features, names, rows, {"output_label": "predict"})
    sklearn_model("logistic_kinds", make_pipeline(StandardScaler(), LogisticRegression()), features, kind, rows, {"output_label": "predict"})
    # One sum without a transform: the scores of two classes are 1 - sum and sum.
    linear = helper.make_node("LinearClassifier", ["features"], ["label", "scores"], domain="ai.onnx.ml", classlabels_ints=[3, 8], coefficients=[0.1, -0.05, 0.02, 0.3], intercepts=[-0.4])
    shapes = [helper.make_tensor_value_info("label", TensorProto.INT64, [None]), helper.make_tensor_value_info("scores", TensorProto.FLOAT, [None, 2])]
    graph = helper.make_graph([linear], "sums", [helper.make_tensor_value_info("features", TensorProto.FLOAT, [None, 4])], shapes)
    of_features("linear_sums", helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 1)], ir_version=8), rows)

    # One row at a time, as networks are often exported.
    weights = helper.make_tensor("w", TensorProto.FLOAT, [4, 1], [0.5, -1.0, 0.25, 2.0])
    of_one = [
        helper.make_node("MatMul", ["x", "w"], ["m"]),
        helper.make_node("Sigmoid", ["m"], ["y"]),
    ]
    graph = helper.make_graph(of_one, "one", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4])], [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 1])], [weights])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 15)], ir_version=8)
    onnx.checker.check_model(model)
    (FOLDER / "one_row.onnx").write_bytes(model.SerializeToString())

    # Fails for rows: there are five places.
    table = helper.make_tensor("table", TensorProto.FLOAT, [5], [0.5, 1.5, 2.5, 3.5, 4.5])
    graph = helper.make_graph([helper.make_node("Gather", ["table", "place"], ["value"])], "lookup", [helper.make_tensor_value_info("place", TensorProto.INT64, ["N"])], [helper.make_tensor_value_info("value", TensorProto.FLOAT, ["N"])], [table])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 15)], ir_version=8)
    onnx.checker.check_model(model)
    (FOLDER / "lookup.onnx").write_bytes(model.SerializeToString())


main()
