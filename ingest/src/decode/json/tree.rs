//! Which parts of a message the columns want: their paths as one tree, and the walk through a message along it.

use std::collections::HashMap;

use super::{
    scan::{DEPTH_MAX, Kind, Scanner, Span, SyntaxError},
    string::unescape,
};
use crate::decode::PathStep;

/// Up to so many fields are looked for one by one.
const LINEAR_FIELDS_MAX: usize = 12;

/// All paths of a source's columns. Node 0 is the message.
#[derive(Debug)]
pub(in crate::decode) struct Tree {
    nodes: Vec<Node>,
}

#[derive(Debug, Default)]
struct Node {
    /// Columns that take this value as it is.
    columns: Vec<usize>,
    fields: Vec<(Box<str>, usize)>,
    /// Position in `fields` by name, when there are many.
    by_name: HashMap<Box<str>, usize>,
    /// Ascending by index.
    elements: Vec<(usize, usize)>,
    /// Columns of this node and all below it.
    subtree: Vec<usize>,
}

impl Tree {
    /// Of the path of each column, in their order.
    pub(in crate::decode) fn new<'a>(paths: impl IntoIterator<Item = &'a [PathStep]>) -> Self {
        let mut nodes = vec![Node::default()];
        for (column, path) in paths.into_iter().enumerate() {
            let mut at = 0;
            nodes[at].subtree.push(column);
            for step in path {
                let fresh = nodes.len();
                let next = match step {
                    PathStep::Field(name) => match nodes[at].fields.iter().find(|(known, _)| **known == **name) {
                        Some((_, node)) => *node,
                        None => {
                            nodes[at].fields.push((name.as_str().into(), fresh));
                            fresh
                        }
                    },
                    PathStep::Index(index) => match nodes[at].elements.binary_search_by_key(index, |(known, _)| *known)
                    {
                        Ok(position) => nodes[at].elements[position].1,
                        Err(position) => {
                            nodes[at].elements.insert(position, (*index, fresh));
                            fresh
                        }
                    },
                };
                if next == fresh {
                    nodes.push(Node::default());
                }
                at = next;
                nodes[at].subtree.push(column);
            }
            nodes[at].columns.push(column);
        }
        for node in &mut nodes {
            if node.fields.len() > LINEAR_FIELDS_MAX {
                node.by_name = node.fields.iter().enumerate().map(|(at, (name, _))| (name.clone(), at)).collect();
            }
        }
        Self { nodes }
    }

    /// Finds each column's value in `text`, which must be one JSON object. Columns without a value have `None`.
    pub(in crate::decode) fn find(&self, text: &str, found: &mut [Option<Span>]) -> Result<(), SyntaxError> {
        found.fill(None);
        let mut scanner = Scanner::new(text);
        if scanner.peek() != b'{' {
            return scanner.fail("a message is one JSON object");
        }
        self.walk(&mut scanner, text, 0, 0, found)?;
        scanner.end()
    }

    /// Recursion goes along paths, so it is no deeper than the longest one.
    fn walk(
        &self,
        scanner: &mut Scanner<'_>,
        text: &str,
        node: usize,
        depth: u32,
        found: &mut [Option<Span>],
    ) -> Result<(), SyntaxError> {
        let node = &self.nodes[node];
        let byte = scanner.peek();
        let span = if byte == b'{' && !node.fields.is_empty() {
            let start = scanner.at;
            self.walk_object(scanner, text, node, depth + 1, found)?;
            Span { kind: Kind::Object, start, end: scanner.at }
        } else if byte == b'[' && !node.elements.is_empty() {
            let start = scanner.at;
            self.walk_array(scanner, text, node, depth + 1, found)?;
            Span { kind: Kind::Array, start, end: scanner.at }
        } else {
            scanner.value(depth)?
        };
        for column in &node.columns {
            found[*column] = Some(span);
        }
        Ok(())
    }

    fn walk_object(
        &self,
        scanner: &mut Scanner<'_>,
        text: &str,
        node: &Node,
        depth: u32,
        found: &mut [Option<Span>],
    ) -> Result<(), SyntaxError> {
        debug_assert!(depth < DEPTH_MAX, "invariant: paths are shorter than the deepest nesting");
        if scanner.open(b'}') {
            return Ok(());
        }
        // Messages mostly have their members in the order of the columns.
        let mut expected = 0;
        loop {
            let key = scanner.key()?;
            match node.field(key, text, expected) {
                Some(field) => {
                    expected = field + 1;
                    let child = node.fields[field].1;
                    // A name that comes twice: the last one counts, and nothing of the first may shine through.
                    for column in &self.nodes[child].subtree {
                        found[*column] = None;
                    }
                    self.walk(scanner, text, child, depth, found)?;
                }
                None => {
                    scanner.value(depth)?;
                }
            }
            if !scanner.more(b'}')? {
                return Ok(());
            }
        }
    }

    fn walk_array(
        &self,
        scanner: &mut Scanner<'_>,
        text: &str,
        node: &Node,
        depth: u32,
        found: &mut [Option<Span>],
    ) -> Result<(), SyntaxError> {
        if scanner.open(b']') {
            return Ok(());
        }
        let mut wanted = node.elements.iter().peekable();
        for index in 0.. {
            match wanted.next_if(|(at, _)| *at == index) {
                Some((_, child)) => self.walk(scanner, text, *child, depth, found)?,
                None => {
                    scanner.value(depth)?;
                }
            }
            if !scanner.more(b']')? {
                break;
            }
        }
        Ok(())
    }
}

impl Node {
    #[inline]
    fn field(&self, key: Span, text: &str, expected: usize) -> Option<usize> {
        if key.kind == Kind::EscapedString {
            let mut name = String::new();
            // A name that is no text is no column's.
            unescape(&text[key.start + 1..key.end - 1], &mut name).ok()?;
            return self.position(&name, expected);
        }
        self.position(&text[key.start + 1..key.end - 1], expected)
    }

    #[inline]
    fn position(&self, name: &str, expected: usize) -> Option<usize> {
        if let Some((known, _)) = self.fields.get(expected)
            && **known == *name
        {
            return Some(expected);
        }
        if self.by_name.is_empty() {
            self.fields.iter().position(|(known, _)| **known == *name)
        } else {
            self.by_name.get(name).copied()
        }
    }
}
