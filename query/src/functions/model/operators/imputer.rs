//! `Imputer`: a missing value becomes its column's.

use std::sync::Arc;

use tract_onnx::{model::ParsingContext, pb::NodeProto, tract_core::ops::cast::cast, tract_hir::internal::*};

#[derive(Clone, Debug, PartialEq)]
struct Imputer {
    /// Of each column, or one of all.
    values: Arc<Vec<f32>>,
    /// What is missing; NaN: what is no number.
    replaced: f32,
}

impl Eq for Imputer {}

pub(super) fn imputer(_: &ParsingContext<'_>, node: &NodeProto) -> TractResult<(Box<dyn InferenceOp>, Vec<String>)> {
    let values: Vec<f32> = match node.get_attr_opt_vec("imputed_value_floats")? {
        Some(values) => values,
        None => bail!("an imputer of integers is not run here"),
    };
    ensure!(!values.is_empty(), "an imputer without values");
    let replaced = node.get_attr_opt("replaced_value_float")?.unwrap_or(f32::NAN);
    Ok((expand(Imputer { values: Arc::new(values), replaced }), Vec::new()))
}

impl Expansion for Imputer {
    fn name(&self) -> StaticName {
        "Imputer".into()
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
        let floats = model.wire_node(format!("{prefix}.float"), cast(f32::datum_type()), inputs)?;
        model.wire_node(prefix, self.clone(), &floats)
    }
}

impl Op for Imputer {
    fn name(&self) -> StaticName {
        "Imputer".into()
    }

    op_as_typed_op!();
}

impl EvalOp for Imputer {
    op_out_of_plan!();

    fn eval(&self, _: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let mut given = args_1!(inputs).into_tensor();
        let columns = given.shape().last().copied().unwrap_or(1).max(1);
        ensure!(self.values.len() == 1 || self.values.len() == columns, "Imputer has {} values", self.values.len());
        let is_missing = |value: f32| if self.replaced.is_nan() { value.is_nan() } else { value == self.replaced };
        {
            let mut view = given.try_as_plain_ram_mut()?;
            for row in view.as_slice_mut::<f32>()?.chunks_mut(columns) {
                for (at, value) in row.iter_mut().enumerate().filter(|(_, value)| is_missing(**value)) {
                    *value = self.values[at % self.values.len()];
                }
            }
        }
        Ok(tvec!(given.into_tvalue()))
    }
}

impl TypedOp for Imputer {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        Ok(tvec!(f32::fact(inputs[0].shape.iter())))
    }

    as_op!();
}
