//! Which parts of a datum the columns want: their paths laid upon the types of one schema.

use super::schema::{Schema, Type, TypeId};
use crate::decode::{PathStep, SourceColumn};

/// Nodes of one plan. A path through unions of records has a node for each of their branches.
const NODES_MAX: usize = 100_000;

/// A schema and where in it the columns stand.
#[derive(Debug)]
pub(in crate::decode) struct Plan {
    pub(super) schema: Schema,
    /// `None` when no column stands in it.
    pub(super) root: Option<Node>,
    /// Columns that have no place in the schema: NULL in every row.
    pub(super) absent: Vec<usize>,
}

/// A type at one place.
#[derive(Debug, Default)]
pub(super) struct Node {
    /// Columns that take this value as it is.
    pub(super) columns: Vec<usize>,
    pub(super) inner: Inner,
    /// Columns of this node and all below it.
    pub(super) subtree: Vec<usize>,
}

#[derive(Debug, Default)]
pub(super) enum Inner {
    #[default]
    Nothing,
    /// By field.
    Record(Vec<Option<Node>>),
    /// By branch.
    Union(Vec<Option<Node>>),
    /// By index.
    Array(Vec<(usize, Node)>),
    /// By key.
    Map(Vec<(String, Node)>),
}

impl Plan {
    /// The error tells a person why the schema cannot be used.
    pub(super) fn new(schema: Schema, columns: &[SourceColumn]) -> Result<Self, String> {
        let wanted: Vec<Wanted<'_>> = columns.iter().enumerate().map(|(at, column)| (at, &column.path[..])).collect();
        let root = Layout { schema: &schema, nodes: 0 }.node(schema.root, &wanted)?;
        let found = root.as_ref().map_or(&[][..], |root| &root.subtree);
        let absent = (0..columns.len()).filter(|at| !found.contains(at)).collect();
        Ok(Self { schema, root, absent })
    }
}

/// A column and the steps that are left to its value.
type Wanted<'a> = (usize, &'a [PathStep]);

struct Layout<'a> {
    schema: &'a Schema,
    nodes: usize,
}

impl Layout<'_> {
    /// Recursion goes along paths. `None` when no column has a place here.
    fn node(&mut self, id: TypeId, wanted: &[Wanted<'_>]) -> Result<Option<Node>, String> {
        if wanted.is_empty() {
            return Ok(None);
        }
        self.nodes += 1;
        if self.nodes > NODES_MAX {
            return Err("the columns' paths have too many ways through its unions".into());
        }
        let mut node = Node::default();
        // A union is the value that is in it: whoever wants it wants each of its branches.
        if let Type::Union(branches) = self.schema.get(id) {
            // No union stands directly in a union: so this ends.
            let nodes = branches.iter().map(|branch| self.node(*branch, wanted));
            node.inner = Inner::Union(nodes.collect::<Result<_, _>>()?);
        } else {
            node.columns = wanted.iter().filter(|(_, path)| path.is_empty()).map(|(column, _)| *column).collect();
            node.inner = self.inner(id, wanted)?;
        }
        node.subtree = node.columns.clone();
        let children: Vec<&Node> = match &node.inner {
            Inner::Nothing => Vec::new(),
            Inner::Record(nodes) | Inner::Union(nodes) => nodes.iter().flatten().collect(),
            Inner::Array(nodes) => nodes.iter().map(|(_, node)| node).collect(),
            Inner::Map(nodes) => nodes.iter().map(|(_, node)| node).collect(),
        };
        for child in children {
            node.subtree.extend(&child.subtree);
        }
        node.subtree.sort_unstable();
        node.subtree.dedup();
        Ok(Some(node).filter(|node| !node.subtree.is_empty()))
    }

    fn inner(&mut self, id: TypeId, wanted: &[Wanted<'_>]) -> Result<Inner, String> {
        Ok(match self.schema.get(id) {
            Type::Record(fields) => {
                let mut by_field: Vec<Vec<Wanted<'_>>> = vec![Vec::new(); fields.len()];
                for (column, path) in wanted {
                    let Some((PathStep::Field(name), rest)) = path.split_first() else { continue };
                    // A field that was renamed is known by its former names, too.
                    let named = fields.iter().position(|field| field.name == *name);
                    let field = named.or_else(|| fields.iter().position(|field| field.aliases.contains(name)));
                    if let Some(field) = field {
                        by_field[field].push((*column, rest));
                    }
                }
                let nodes = fields.iter().zip(by_field).map(|(field, wanted)| self.node(field.of, &wanted));
                Inner::Record(nodes.collect::<Result<_, _>>()?)
            }
            Type::Array(items) => {
                let mut indices: Vec<usize> = wanted.iter().filter_map(|(_, path)| index(path)).collect();
                indices.sort_unstable();
                indices.dedup();
                let mut nodes = Vec::new();
                for wanted_index in indices {
                    let inside: Vec<_> = wanted
                        .iter()
                        .filter(|(_, path)| index(path) == Some(wanted_index))
                        .map(|(column, path)| (*column, &path[1..]))
                        .collect();
                    nodes.extend(self.node(*items, &inside)?.map(|node| (wanted_index, node)));
                }
                Inner::Array(nodes)
            }
            Type::Map(values) => {
                let mut keys: Vec<&str> = wanted.iter().filter_map(|(_, path)| key(path)).collect();
                keys.sort_unstable();
                keys.dedup();
                let mut nodes = Vec::new();
                for wanted_key in keys {
                    let inside: Vec<_> = wanted
                        .iter()
                        .filter(|(_, path)| key(path) == Some(wanted_key))
                        .map(|(column, path)| (*column, &path[1..]))
                        .collect();
                    nodes.extend(self.node(*values, &inside)?.map(|node| (wanted_key.to_owned(), node)));
                }
                Inner::Map(nodes)
            }
            _ => Inner::Nothing,
        })
    }
}

fn index(path: &[PathStep]) -> Option<usize> {
    match path.first() {
        Some(PathStep::Index(index)) => Some(*index),
        _ => None,
    }
}

fn key(path: &[PathStep]) -> Option<&str> {
    match path.first() {
        Some(PathStep::Field(key)) => Some(key),
        _ => None,
    }
}
