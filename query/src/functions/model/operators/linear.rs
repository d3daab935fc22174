//! `LinearClassifier`: logistic regression and its kin. tract's takes no labels that are strings, and has other scores where one sum decides between two classes.

use std::sync::Arc;

use tract_onnx::{model::ParsingContext, pb::NodeProto, tract_core::ops::cast::cast, tract_hir::internal::*};

use super::classes::{Labels, Transform, largest, logistic, outputs};

#[derive(Clone, Debug)]
struct Linear {
    weights: Arc<Weights>,
    transform: Transform,
}

#[derive(Debug)]
struct Weights {
    /// Row by row: those of a sum.
    coefficients: Vec<f32>,
    /// One a sum: there is one for each class, or one alone that decides between two.
    intercepts: Vec<f32>,
    labels: Labels,
}

/// The same file gives the same operator.
impl PartialEq for Linear {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.weights, &other.weights)
    }
}

impl Eq for Linear {}

pub(super) fn classifier(_: &ParsingContext<'_>, node: &NodeProto) -> TractResult<(Box<dyn InferenceOp>, Vec<String>)> {
    let labels = Labels::read(node, "classlabels_ints")?;
    let coefficients: Vec<f32> = node.get_attr_vec("coefficients")?;
    // onnxruntime wants them, too: without them it is not known how many sums there are.
    let intercepts: Vec<f32> = node.get_attr_vec("intercepts")?;
    let sums = intercepts.len();
    ensure!(sums == labels.len() || sums == 1 && labels.len() == 2, "{sums} intercepts for {} classes", labels.len());
    ensure!(
        !coefficients.is_empty() && coefficients.len().is_multiple_of(sums),
        "{} coefficients for {sums} sums",
        coefficients.len()
    );
    let weights = Arc::new(Weights { coefficients, intercepts, labels });
    Ok((expand(Linear { weights, transform: Transform::read(node)? }), Vec::new()))
}

impl Weights {
    fn features(&self) -> usize {
        self.coefficients.len() / self.intercepts.len()
    }
}

impl Linear {
    /// Scores of a row, and its class.
    fn score(&self, row: &[f32], scores: &mut [f64]) -> usize {
        let weights = &*self.weights;
        let of_sums = weights.coefficients.chunks_exact(row.len()).zip(&weights.intercepts);
        for ((coefficients, intercept), score) in of_sums.zip(&mut *scores) {
            let products = row.iter().zip(coefficients).map(|(value, by)| f64::from(*value) * f64::from(*by));
            *score = products.sum::<f64>() + f64::from(*intercept);
        }
        if weights.intercepts.len() > 1 {
            let class = largest(scores);
            self.transform.apply(scores);
            return class;
        }
        let sum = scores[0];
        let second = if self.transform == Transform::Logistic { logistic(sum) } else { sum };
        (scores[0], scores[1]) = (1.0 - second, second);
        (sum > 0.0).into()
    }
}

impl Expansion for Linear {
    fn name(&self) -> StaticName {
        "LinearClassifier".into()
    }

    fn nboutputs(&self) -> TractResult<usize> {
        Ok(2)
    }

    fn rules<'r, 'p: 'r, 's: 'r>(
        &'s self,
        s: &mut Solver<'r>,
        inputs: &'p [TensorProxy],
        outputs: &'p [TensorProxy],
    ) -> InferenceResult {
        check_input_arity(inputs, 1)?;
        check_output_arity(outputs, 2)?;
        s.equals(&inputs[0].rank, 2)?;
        s.equals(&outputs[0].datum_type, self.weights.labels.datum_type())?;
        s.equals(&outputs[0].rank, 1)?;
        s.equals(&outputs[0].shape[0], &inputs[0].shape[0])?;
        s.equals(&outputs[1].datum_type, f32::datum_type())?;
        s.equals(&outputs[1].rank, 2)?;
        s.equals(&outputs[1].shape[0], &inputs[0].shape[0])?;
        s.equals(&outputs[1].shape[1], self.weights.labels.len().to_dim())
    }

    fn wire(&self, prefix: &str, model: &mut TypedModel, inputs: &[OutletId]) -> TractResult<TVec<OutletId>> {
        let shape = &model.outlet_fact(inputs[0])?.shape;
        let features = self.weights.features();
        ensure!(
            shape.rank() == 2 && shape[1] == features.to_dim(),
            "the classifier looks at {features} features and is given {shape:?}"
        );
        let floats = model.wire_node(format!("{prefix}.float"), cast(f32::datum_type()), inputs)?;
        model.wire_node(prefix, self.clone(), &floats)
    }
}

impl Op for Linear {
    fn name(&self) -> StaticName {
        "LinearClassifier".into()
    }

    op_as_typed_op!();
}

impl EvalOp for Linear {
    op_out_of_plan!();

    fn eval(&self, _: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let given = args_1!(inputs);
        let features = self.weights.features();
        ensure!(given.rank() == 2 && given.shape()[1] == features, "the classifier looks at {features} features");
        let rows = given.try_as_plain_ram()?.as_slice::<f32>()?.chunks_exact(features);
        let labels = &self.weights.labels;
        let mut scores = vec![0f64; given.shape()[0] * labels.len()];
        let classes: Vec<usize> =
            rows.zip(scores.chunks_exact_mut(labels.len())).map(|(row, scores)| self.score(row, scores)).collect();
        outputs(labels, &classes, &scores)
    }
}

impl TypedOp for Linear {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        let rows = inputs[0].shape[0].clone();
        let labels = &self.weights.labels;
        Ok(tvec!(labels.datum_type().fact([rows.clone()]), f32::fact([rows, labels.len().to_dim()])))
    }

    fn cost(&self, inputs: &[&TypedFact]) -> TractResult<TVec<(Cost, TDim)>> {
        let steps = self.weights.coefficients.len() + self.weights.labels.len();
        Ok(tvec!((Cost::FMA(f32::datum_type()), inputs[0].shape[0].clone() * steps)))
    }

    as_op!();
}
