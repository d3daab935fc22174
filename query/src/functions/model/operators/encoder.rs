//! `OneHotEncoder`: a column for each category, one where the value is it. One axis more than the input has.

use std::{collections::HashMap, sync::Arc};

use tract_onnx::{model::ParsingContext, pb::NodeProto, tract_hir::internal::*};

#[derive(Clone, Debug, PartialEq, Eq)]
struct OneHotEncoder {
    categories: Arc<Categories>,
    /// Whether a value that is no category is none of them, not an error.
    is_lenient: bool,
}

#[derive(Debug, PartialEq, Eq)]
enum Categories {
    Integers(HashMap<i64, usize>),
    Texts(HashMap<String, usize>),
}

impl Categories {
    fn len(&self) -> usize {
        match self {
            Self::Integers(known) => known.len(),
            Self::Texts(known) => known.len(),
        }
    }
}

pub(super) fn one_hot_encoder(
    _: &ParsingContext<'_>,
    node: &NodeProto,
) -> TractResult<(Box<dyn InferenceOp>, Vec<String>)> {
    let integers: Option<Vec<i64>> = node.get_attr_opt_vec("cats_int64s")?;
    let texts: Option<Vec<String>> = node.get_attr_opt_vec("cats_strings")?;
    let (categories, given) = match (integers, texts) {
        (Some(values), None) => (Categories::Integers(values.iter().copied().zip(0..).collect()), values.len()),
        (None, Some(values)) => (Categories::Texts(values.iter().cloned().zip(0..).collect()), values.len()),
        _ => bail!("an encoder has categories of integers or of strings"),
    };
    ensure!(given > 0 && categories.len() == given, "categories of an encoder differ");
    let is_lenient = node.get_attr_opt::<i64>("zeros")?.unwrap_or(1) != 0;
    Ok((expand(OneHotEncoder { categories: Arc::new(categories), is_lenient }), Vec::new()))
}

impl Expansion for OneHotEncoder {
    fn name(&self) -> StaticName {
        "OneHotEncoder".into()
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
        s.given(&inputs[0].shape, move |s, shape| {
            let mut shape = shape;
            shape.push(self.categories.len().to_dim());
            s.equals(&outputs[0].shape, shape)
        })
    }

    fn wire(&self, prefix: &str, model: &mut TypedModel, inputs: &[OutletId]) -> TractResult<TVec<OutletId>> {
        model.wire_node(prefix, self.clone(), inputs)
    }
}

impl Op for OneHotEncoder {
    fn name(&self) -> StaticName {
        "OneHotEncoder".into()
    }

    op_as_typed_op!();
}

impl EvalOp for OneHotEncoder {
    op_out_of_plan!();

    fn eval(&self, _: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let given = args_1!(inputs);
        let width = self.categories.len();
        let mut made = vec![0f32; given.len() * width];
        let mut put = |row: usize, category: Option<&usize>| -> TractResult<()> {
            match category {
                Some(category) => made[row * width + category] = 1.0,
                None => ensure!(self.is_lenient, "a value is none of the encoder's categories"),
            }
            Ok(())
        };
        match &*self.categories {
            Categories::Integers(known) => {
                let given = given.cast_to::<i64>()?;
                let view = given.try_as_plain_ram()?;
                for (row, value) in view.as_slice::<i64>()?.iter().enumerate() {
                    put(row, known.get(value))?;
                }
            }
            Categories::Texts(known) => {
                let view = given.try_as_plain_ram()?;
                for (row, value) in view.as_slice::<String>()?.iter().enumerate() {
                    put(row, known.get(value))?;
                }
            }
        }
        let shape: Vec<usize> = given.shape().iter().copied().chain([width]).collect();
        Ok(tvec!(tensor1(&made).into_shape(&shape)?.into_tvalue()))
    }
}

impl TypedOp for OneHotEncoder {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        let mut shape: Vec<TDim> = inputs[0].shape.iter().cloned().collect();
        shape.push(self.categories.len().to_dim());
        Ok(tvec!(f32::fact(&shape)))
    }

    as_op!();
}
