//! `Scaler`: (x - offset) · scale, column by column.

use tract_onnx::{
    model::ParsingContext,
    pb::NodeProto,
    tract_core::ops::{cast::cast, math},
    tract_hir::internal::*,
};

#[derive(Clone, Debug)]
struct Scaler {
    offset: Option<Vec<f32>>,
    scale: Option<Vec<f32>>,
}

pub(super) fn scaler(_: &ParsingContext<'_>, node: &NodeProto) -> TractResult<(Box<dyn InferenceOp>, Vec<String>)> {
    let (offset, scale) = (node.get_attr_opt_vec("offset")?, node.get_attr_opt_vec("scale")?);
    Ok((expand(Scaler { offset, scale }), Vec::new()))
}

impl Expansion for Scaler {
    fn name(&self) -> StaticName {
        "Scaler".into()
    }

    fn rules<'r, 'p: 'r, 's: 'r>(
        &'s self,
        s: &mut Solver<'r>,
        inputs: &'p [TensorProxy],
        outputs: &'p [TensorProxy],
    ) -> InferenceResult {
        check_input_arity(inputs, 1)?;
        check_output_arity(outputs, 1)?;
        s.equals(&outputs[0].datum_type, f32::datum_type())?;
        s.equals(&inputs[0].shape, &outputs[0].shape)
    }

    fn wire(&self, prefix: &str, model: &mut TypedModel, inputs: &[OutletId]) -> TractResult<TVec<OutletId>> {
        let shape = model.outlet_fact(inputs[0])?.shape.clone();
        ensure!(shape.rank() == 2, "Scaler takes rows");
        let mut made = model.wire_node(format!("{prefix}.float"), cast(f32::datum_type()), inputs)?;
        let steps = [("offset", &self.offset, math::sub()), ("scale", &self.scale, math::mul())];
        for (name, values, operator) in steps {
            let Some(values) = values else { continue };
            ensure!(
                values.len() == 1 || shape[1] == values.len().to_dim(),
                "Scaler has {} values of {name}",
                values.len()
            );
            let values = tensor1(values).into_shape(&[1, values.len()])?;
            let values = model.add_const(format!("{prefix}.{name}"), values)?;
            made = model.wire_node(format!("{prefix}.{name}d"), operator, &[made[0], values])?;
        }
        Ok(made)
    }
}
