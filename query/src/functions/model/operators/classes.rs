//! What classifiers share: the names of classes, and how sums become scores.

use tract_onnx::{pb::NodeProto, tract_hir::internal::*};

/// Of classes, in the order of their scores.
#[derive(Debug)]
pub(super) enum Labels {
    Integers(Vec<i64>),
    Texts(Vec<String>),
}

impl Labels {
    /// `integers`: what the operator calls its attribute of integers. One class alone is refused: onnxruntime has other names for it.
    pub(super) fn read(node: &NodeProto, integers: &str) -> TractResult<Self> {
        let integers: Option<Vec<i64>> = node.get_attr_opt_vec(integers)?;
        let texts: Option<Vec<String>> = node.get_attr_opt_vec("classlabels_strings")?;
        let labels = match (integers, texts) {
            (Some(labels), None) => Self::Integers(labels),
            (None, Some(labels)) => Self::Texts(labels),
            _ => bail!("labels of classes are integers or strings"),
        };
        ensure!(labels.len() > 1, "a classifier of {} classes", labels.len());
        Ok(labels)
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Self::Integers(labels) => labels.len(),
            Self::Texts(labels) => labels.len(),
        }
    }

    pub(super) fn datum_type(&self) -> DatumType {
        match self {
            Self::Integers(_) => DatumType::I64,
            Self::Texts(_) => DatumType::String,
        }
    }

    /// A label for each row.
    pub(super) fn of(&self, classes: &[usize]) -> Tensor {
        match self {
            Self::Integers(labels) => tensor1(&classes.iter().map(|class| labels[*class]).collect::<Vec<_>>()),
            Self::Texts(labels) => tensor1(&classes.iter().map(|class| labels[*class].clone()).collect::<Vec<_>>()),
        }
    }
}

/// What is done with the sums of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Transform {
    None,
    Logistic,
    Softmax,
}

impl Transform {
    pub(super) fn read(node: &NodeProto) -> TractResult<Self> {
        Ok(match node.get_attr_opt("post_transform")?.unwrap_or("NONE") {
            "NONE" => Self::None,
            "LOGISTIC" => Self::Logistic,
            "SOFTMAX" => Self::Softmax,
            other => bail!("post_transform {other} is not run here"),
        })
    }

    pub(super) fn apply(self, scores: &mut [f64]) {
        match self {
            Self::None => {}
            Self::Logistic => scores.iter_mut().for_each(|score| *score = logistic(*score)),
            Self::Softmax => {
                let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                scores.iter_mut().for_each(|score| *score = (*score - largest).exp());
                let sum: f64 = scores.iter().sum();
                scores.iter_mut().for_each(|score| *score /= sum);
            }
        }
    }
}

pub(super) fn logistic(value: f64) -> f64 {
    1.0 / (1.0 + (-value).exp())
}

/// The first of the largest scores.
pub(super) fn largest(scores: &[f64]) -> usize {
    let mut class = 0;
    for (at, score) in scores.iter().enumerate() {
        if *score > scores[class] {
            class = at;
        }
    }
    class
}

/// What a classifier gives: labels `[N]` of rows, and their scores `[N, classes]`.
pub(super) fn outputs(labels: &Labels, classes: &[usize], scores: &[f64]) -> TractResult<TVec<TValue>> {
    let scores: Vec<f32> = scores.iter().map(|score| *score as f32).collect();
    let scores = tensor1(&scores).into_shape(&[classes.len(), labels.len()])?;
    Ok(tvec!(labels.of(classes).into_tvalue(), scores.into_tvalue()))
}
