//! `TreeEnsembleRegressor` and `TreeEnsembleClassifier`: forests and boosted trees. tract has the second, but trusts a file that its indexes lie inside.
//!
//! What the specification leaves open of classes (two of them with weights of one, say) is as in onnxruntime.

mod ensemble;

use std::sync::Arc;

use tract_onnx::{model::ParsingContext, pb::NodeProto, tract_core::ops::cast::cast, tract_hir::internal::*};

use self::ensemble::Ensemble;
use super::classes::{Labels, Transform, largest, logistic, outputs};

#[derive(Clone, Debug)]
struct Trees {
    ensemble: Arc<Ensemble>,
    /// Added to each target's sum; empty: nothing.
    base: Vec<f32>,
    transform: Transform,
    /// Of classes; `None`: numbers are asked for.
    labels: Option<Arc<Labels>>,
}

/// The same file gives the same operator.
impl PartialEq for Trees {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.ensemble, &other.ensemble)
    }
}

impl Eq for Trees {}

pub(super) fn regressor(_: &ParsingContext<'_>, node: &NodeProto) -> TractResult<(Box<dyn InferenceOp>, Vec<String>)> {
    let targets: i64 = node.get_attr_opt("n_targets")?.unwrap_or(1);
    let ensemble = Ensemble::read(node, "target", usize::try_from(targets).unwrap_or_default())?;
    read(node, ensemble, None)
}

pub(super) fn classifier(_: &ParsingContext<'_>, node: &NodeProto) -> TractResult<(Box<dyn InferenceOp>, Vec<String>)> {
    let labels = Labels::read(node, "classlabels_int64s")?;
    let ensemble = Ensemble::read(node, "class", labels.len())?;
    read(node, ensemble, Some(Arc::new(labels)))
}

fn read(
    node: &NodeProto,
    ensemble: Ensemble,
    labels: Option<Arc<Labels>>,
) -> TractResult<(Box<dyn InferenceOp>, Vec<String>)> {
    let base: Vec<f32> = node.get_attr_opt_vec("base_values")?.unwrap_or_default();
    let is_of_all = base.is_empty() || base.len() == ensemble.targets;
    ensure!(
        is_of_all || labels.is_some() && ensemble.targets == 2 && base.len() == 1,
        "trees of {} targets have {} base values",
        ensemble.targets,
        base.len()
    );
    let transform = Transform::read(node)?;
    Ok((expand(Trees { ensemble: Arc::new(ensemble), base, transform, labels }), Vec::new()))
}

impl Trees {
    /// Of a row: turns sums into scores; gives the class.
    fn finish(&self, scores: &mut [f64]) -> usize {
        if scores.len() == 2 && self.labels.is_some() {
            return self.finish_two(scores);
        }
        for (score, base) in scores.iter_mut().zip(&self.base) {
            *score += f64::from(*base);
        }
        let class = largest(scores);
        self.transform.apply(scores);
        class
    }

    /// Two classes: their trees may have weights of one of them alone, which are for the second class then.
    fn finish_two(&self, scores: &mut [f64]) -> usize {
        let ensemble = &self.ensemble;
        let is_second_scored = ensemble.scored[1];
        // Weights of one class, whichever of the two it is.
        let is_of_one = ensemble.scored[0] != ensemble.scored[1];
        let mut is_pair = is_second_scored;
        match self.base[..] {
            [first, second] if is_second_scored => {
                scores[0] += f64::from(first);
                scores[1] += f64::from(second);
            }
            [_, second] => {
                scores[1] = scores[0] + f64::from(second);
                scores[0] = -scores[1];
                is_pair = true;
            }
            [base] => scores[0] += f64::from(base),
            _ => {}
        }
        let deciding = if is_pair { scores[1] } else { scores[0] };
        let bound = if is_of_one && ensemble.is_positive { 0.5 } else { 0.0 };
        if is_pair {
            let class = match is_of_one {
                true => deciding > bound,
                // Both have trees: the larger one.
                false => scores[1] > scores[0],
            };
            self.transform.apply(scores);
            return class.into();
        }
        let score = scores[0];
        let (first, second) = match self.transform {
            _ if ensemble.is_positive => (1.0 - score, score),
            Transform::Logistic => (logistic(-score), logistic(score)),
            Transform::None | Transform::Softmax => (-score, score),
        };
        (scores[0], scores[1]) = (first, second);
        (deciding > bound).into()
    }
}

impl Expansion for Trees {
    fn name(&self) -> StaticName {
        "TreeEnsemble".into()
    }

    fn nboutputs(&self) -> TractResult<usize> {
        Ok(if self.labels.is_some() { 2 } else { 1 })
    }

    fn rules<'r, 'p: 'r, 's: 'r>(
        &'s self,
        s: &mut Solver<'r>,
        inputs: &'p [TensorProxy],
        outputs: &'p [TensorProxy],
    ) -> InferenceResult {
        check_input_arity(inputs, 1)?;
        check_output_arity(outputs, self.nboutputs()?)?;
        let scores = match &self.labels {
            Some(labels) => {
                s.equals(&outputs[0].datum_type, labels.datum_type())?;
                s.equals(&outputs[0].rank, 1)?;
                s.equals(&outputs[0].shape[0], &inputs[0].shape[0])?;
                &outputs[1]
            }
            None => &outputs[0],
        };
        s.equals(&inputs[0].rank, 2)?;
        s.equals(&scores.datum_type, f32::datum_type())?;
        s.equals(&scores.rank, 2)?;
        s.equals(&scores.shape[0], &inputs[0].shape[0])?;
        s.equals(&scores.shape[1], self.ensemble.targets.to_dim())
    }

    fn wire(&self, prefix: &str, model: &mut TypedModel, inputs: &[OutletId]) -> TractResult<TVec<OutletId>> {
        let fact = model.outlet_fact(inputs[0])?;
        ensure!(fact.rank() == 2, "trees take rows");
        if let Ok(columns) = fact.shape[1].to_usize() {
            let needed = self.ensemble.features;
            ensure!(columns >= needed, "the trees look at {needed} features and are given {columns}");
        }
        let floats = model.wire_node(format!("{prefix}.float"), cast(f32::datum_type()), inputs)?;
        model.wire_node(prefix, self.clone(), &floats)
    }
}

impl Op for Trees {
    fn name(&self) -> StaticName {
        "TreeEnsemble".into()
    }

    op_as_typed_op!();
}

impl EvalOp for Trees {
    op_out_of_plan!();

    fn eval(&self, _: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let given = args_1!(inputs);
        let [rows, columns] = *given.shape() else { bail!("trees take rows") };
        let targets = self.ensemble.targets;
        let mut scores = vec![0f64; rows * targets];
        self.ensemble.score(given.try_as_plain_ram()?.as_slice::<f32>()?, columns, &mut scores)?;
        let classes: Vec<usize> = scores.chunks_exact_mut(targets).map(|scores| self.finish(scores)).collect();
        let Some(labels) = &self.labels else {
            let scores: Vec<f32> = scores.into_iter().map(|score| score as f32).collect();
            return Ok(tvec!(tensor1(&scores).into_shape(&[rows, targets])?.into_tvalue()));
        };
        outputs(labels, &classes, &scores)
    }
}

impl TypedOp for Trees {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        let rows = inputs[0].shape[0].clone();
        let scores = f32::fact([rows.clone(), self.ensemble.targets.to_dim()]);
        Ok(match &self.labels {
            Some(labels) => tvec!(labels.datum_type().fact([rows]), scores),
            None => tvec!(scores),
        })
    }

    fn cost(&self, inputs: &[&TypedFact]) -> TractResult<TVec<(Cost, TDim)>> {
        Ok(tvec!((Cost::FMA(f32::datum_type()), inputs[0].shape[0].clone() * self.ensemble.steps())))
    }

    as_op!();
}
