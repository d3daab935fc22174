//! Operators of `ai.onnx.ml` that tract does not have, or not as they are needed here.

mod classes;
mod encoder;
mod imputer;
mod linear;
mod scaler;
mod trees;

use tract_onnx::Onnx;

/// tract with them.
pub(super) fn onnx() -> Onnx {
    let mut onnx = tract_onnx::onnx();
    // What a file says of shapes in between is mostly right; what follows from its inputs is.
    onnx.ignore_value_info = true;
    let operators = &mut onnx.op_register;
    operators.insert("Imputer", imputer::imputer);
    operators.insert("LinearClassifier", linear::classifier);
    operators.insert("OneHotEncoder", encoder::one_hot_encoder);
    operators.insert("Scaler", scaler::scaler);
    operators.insert("TreeEnsembleClassifier", trees::classifier);
    operators.insert("TreeEnsembleRegressor", trees::regressor);
    onnx
}
