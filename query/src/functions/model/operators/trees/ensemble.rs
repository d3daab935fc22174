//! Trees as nodes in one list, and what they say of a row.
//!
//! ```text
//! branch   feature, value, comparison ─► yes │ no          leaf   weights[begin..end]: (target, weight)
//! ```
//!
//! When it is read, every index is checked, and that each node has one way to it: so no row leads out of the list or around in it. Sums are of 64 bits and go from tree to tree, whatever other rows
//! there are: a row's score is the same in every batch.

use std::collections::{HashMap, HashSet};

use tract_onnx::{pb::NodeProto, tract_hir::internal::*};

/// Where a node of a tree, by the ids that the file has for them, is in the list.
type Places = HashMap<(i64, i64), usize>;

/// Of one ensemble.
const TARGETS_MAX: usize = 4096;

#[derive(Debug)]
pub(super) struct Ensemble {
    nodes: Vec<Node>,
    roots: Vec<u32>,
    weights: Vec<(u32, f32)>,
    pub(super) targets: usize,
    /// Columns that a row needs.
    pub(super) features: usize,
    aggregate: Aggregate,
    /// Whether no weight is below zero.
    pub(super) is_positive: bool,
    /// The targets that weights are of.
    pub(super) scored: Vec<bool>,
}

/// A leaf has its weights at `yes..no`.
#[derive(Clone, Copy, Debug)]
struct Node {
    value: f32,
    feature: u32,
    yes: u32,
    no: u32,
    test: Test,
    /// Where a missing value goes: NaN fails every comparison but `!=`.
    takes_missing: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Test {
    LessOrEqual,
    Less,
    GreaterOrEqual,
    Greater,
    Equal,
    NotEqual,
    Leaf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Aggregate {
    Sum,
    Average,
    Min,
    Max,
}

impl Ensemble {
    /// `leaves`: what attributes of weights begin with.
    pub(super) fn read(node: &NodeProto, leaves: &str, targets: usize) -> TractResult<Self> {
        ensure!((1..=TARGETS_MAX).contains(&targets), "trees of {targets} targets");
        for attribute in &node.attribute {
            ensure!(
                !attribute.name.ends_with("_as_tensor"),
                "trees of 64-bit numbers are not run here: export the model for inputs of float"
            );
        }
        let aggregate = match node.get_attr_opt("aggregate_function")?.unwrap_or("SUM") {
            "SUM" => Aggregate::Sum,
            "AVERAGE" => Aggregate::Average,
            "MIN" => Aggregate::Min,
            "MAX" => Aggregate::Max,
            other => bail!("the aggregate function {other:?} of trees is not known"),
        };
        let (nodes, places) = nodes(node)?;
        let mut made = Self {
            roots: Vec::new(),
            weights: Vec::new(),
            targets,
            features: nodes
                .iter()
                .filter(|node| node.test != Test::Leaf)
                .map(|node| node.feature as usize + 1)
                .max()
                .unwrap_or(0),
            nodes,
            aggregate,
            is_positive: true,
            scored: vec![false; targets],
        };
        made.put_weights(node, leaves, &places)?;
        made.find_roots(&places)?;
        Ok(made)
    }

    /// Nodes that a row passes, at most.
    pub(super) fn steps(&self) -> usize {
        self.nodes.len() + self.weights.len()
    }

    fn put_weights(&mut self, node: &NodeProto, leaves: &str, places: &Places) -> TractResult<()> {
        let count = node.get_attr_slice::<i64>(&format!("{leaves}_ids"))?.len();
        let of = |name: &str| integers(node, &format!("{leaves}_{name}"), count);
        let (ids, trees, at) = (of("ids")?, of("treeids")?, of("nodeids")?);
        let weights = node.get_attr_slice::<f32>(&format!("{leaves}_weights"))?;
        ensure!(weights.len() == count, "{count} leaves of trees have {} weights", weights.len());
        let mut of_nodes: Vec<(usize, u32, f32)> = Vec::with_capacity(count);
        for (at, (id, weight)) in trees.iter().zip(at).zip(ids.iter().zip(weights)) {
            let place = *places
                .get(&(*at.0, *at.1))
                .with_context(|| format!("a weight of node {} of tree {}, which is not there", at.1, at.0))?;
            let target = usize::try_from(*id).ok().filter(|target| *target < self.targets);
            let target = target.with_context(|| format!("a weight of target {id}, of {}", self.targets))?;
            ensure!(self.nodes[place].test == Test::Leaf, "a weight of a node that is no leaf");
            self.is_positive &= *weight >= 0.0;
            self.scored[target] = true;
            of_nodes.push((place, target as u32, *weight));
        }
        of_nodes.sort_by_key(|(place, ..)| *place);
        for (place, target, weight) in of_nodes {
            let node = &mut self.nodes[place];
            let end = self.weights.len() as u32;
            if node.yes == node.no {
                (node.yes, node.no) = (end, end);
            }
            node.no = end + 1;
            self.weights.push((target, weight));
        }
        Ok(())
    }

    fn find_roots(&mut self, places: &Places) -> TractResult<()> {
        let mut parents = vec![0u8; self.nodes.len()];
        for node in self.nodes.iter().filter(|node| node.test != Test::Leaf) {
            for child in [node.yes, node.no] {
                let parents = &mut parents[child as usize];
                ensure!(*parents == 0, "a node of a tree is reached on two ways");
                *parents = 1;
            }
        }
        let mut roots: Vec<(i64, usize)> = Vec::new();
        roots
            .extend(places.iter().filter(|(_, place)| parents[**place] == 0).map(|((tree, _), place)| (*tree, *place)));
        roots.sort_unstable();
        let trees: HashSet<i64> = places.keys().map(|(tree, _)| *tree).collect();
        let differ = roots.windows(2).all(|pair| pair[0].0 != pair[1].0);
        ensure!(differ && roots.len() == trees.len(), "a tree has one root");
        self.roots = roots.into_iter().map(|(_, place)| place as u32).collect();
        Ok(())
    }

    /// Adds up what the trees say of rows of `columns` values: for each row its targets in `sums`, which are zeros before.
    pub(super) fn score(&self, rows: &[f32], columns: usize, sums: &mut [f64]) -> TractResult<()> {
        ensure!(columns >= self.features && columns > 0, "trees of {} features are given {columns}", self.features);
        for (row, sums) in rows.chunks_exact(columns).zip(sums.chunks_exact_mut(self.targets)) {
            match self.aggregate {
                Aggregate::Sum | Aggregate::Average => {
                    self.each(row, |target, weight| sums[target] += f64::from(weight))
                }
                Aggregate::Min => self.extreme(row, sums, f32::min),
                Aggregate::Max => self.extreme(row, sums, f32::max),
            }
            if self.aggregate == Aggregate::Average {
                sums.iter_mut().for_each(|sum| *sum /= self.roots.len() as f64);
            }
        }
        Ok(())
    }

    fn extreme(&self, row: &[f32], sums: &mut [f64], choose: fn(f32, f32) -> f32) {
        let mut found: Vec<Option<f32>> = vec![None; sums.len()];
        self.each(row, |target, weight| {
            found[target] = Some(found[target].map_or(weight, |before| choose(before, weight)));
        });
        for (sum, found) in sums.iter_mut().zip(found) {
            *sum = found.map_or(0.0, f64::from);
        }
    }

    fn each(&self, row: &[f32], mut take: impl FnMut(usize, f32)) {
        for root in &self.roots {
            let mut node = &self.nodes[*root as usize];
            while node.test != Test::Leaf {
                let value = row[node.feature as usize];
                let holds = match node.test {
                    Test::LessOrEqual => value <= node.value,
                    Test::Less => value < node.value,
                    Test::GreaterOrEqual => value >= node.value,
                    Test::Greater => value > node.value,
                    Test::Equal => value == node.value,
                    Test::NotEqual | Test::Leaf => value != node.value,
                };
                let holds = holds || node.takes_missing && value.is_nan();
                node = &self.nodes[if holds { node.yes } else { node.no } as usize];
            }
            for (target, weight) in &self.weights[node.yes as usize..node.no as usize] {
                take(*target as usize, *weight);
            }
        }
    }
}

fn integers<'a>(node: &'a NodeProto, name: &str, count: usize) -> TractResult<&'a [i64]> {
    let values = node.get_attr_slice::<i64>(name)?;
    ensure!(values.len() == count, "{name} of trees has {} values, of {count}", values.len());
    Ok(values)
}

/// The nodes, with the places that other nodes name them by.
fn nodes(node: &NodeProto) -> TractResult<(Vec<Node>, Places)> {
    let modes = node.get_attr_opt_tvec::<&str>("nodes_modes")?.unwrap_or_default();
    let count = modes.len();
    ensure!(count > 0, "trees without nodes");
    let trees = integers(node, "nodes_treeids", count)?;
    let ids = integers(node, "nodes_nodeids", count)?;
    let features = integers(node, "nodes_featureids", count)?;
    let (yes, no) = (integers(node, "nodes_truenodeids", count)?, integers(node, "nodes_falsenodeids", count)?);
    let values = node.get_attr_slice::<f32>("nodes_values")?;
    ensure!(values.len() == count, "{count} nodes of trees have {} values", values.len());
    let missing = node.get_attr_opt_slice::<i64>("nodes_missing_value_tracks_true")?.unwrap_or_default();
    ensure!(missing.is_empty() || missing.len() == count, "nodes_missing_value_tracks_true has another length");
    let mut places = HashMap::with_capacity(count);
    for (place, id) in trees.iter().copied().zip(ids.iter().copied()).enumerate() {
        ensure!(places.insert(id, place).is_none(), "node {} of tree {} is there twice", id.1, id.0);
    }
    let mut nodes = Vec::with_capacity(count);
    for (at, mode) in modes.iter().enumerate() {
        let test = match *mode {
            "LEAF" => Test::Leaf,
            "BRANCH_LEQ" => Test::LessOrEqual,
            "BRANCH_LT" => Test::Less,
            "BRANCH_GTE" => Test::GreaterOrEqual,
            "BRANCH_GT" => Test::Greater,
            "BRANCH_EQ" => Test::Equal,
            "BRANCH_NEQ" => Test::NotEqual,
            other => bail!("the comparison {other:?} of trees is not known"),
        };
        let child = |id: i64| {
            let place = places.get(&(trees[at], id)).map(|place| *place as u32);
            place.with_context(|| format!("node {id} of tree {} is not there", trees[at]))
        };
        let (yes, no) = if test == Test::Leaf { (0, 0) } else { (child(yes[at])?, child(no[at])?) };
        let feature =
            u16::try_from(features[at]).ok().with_context(|| format!("trees look at feature {}", features[at]))?;
        let takes_missing = missing.get(at).is_some_and(|missing| *missing != 0);
        nodes.push(Node { value: values[at], feature: feature.into(), yes, no, test, takes_missing });
    }
    Ok((nodes, places))
}
