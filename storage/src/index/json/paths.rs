//! Which parts of documents an index knows.
//!
//! ```text
//! paths = 'a.b, tags'    what is at a.b, at tags, and all below these: also tags[], a.b[].c
//! exclude = 'a.b.c'      but nothing at a.b.c and below
//! max_levels = 3         values three steps below the document at most, each place in an array a step; of what is deeper, that it is there
//! ```
//!
//! A question that is about more than that is not the index's to answer: see [`JsonPaths::covered`].

use serde::{Deserialize, Serialize};

use super::terms::DEPTH_MAX;
use crate::documents::{DocumentTest, Step, ValueTest};

/// Keys from the document down; places in arrays are left out.
pub(super) type Path = Vec<String>;

/// What an index is limited to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JsonPaths {
    /// Values at and below these are known; empty: all.
    pub paths: Vec<Path>,
    /// Of these, values at and below these are not.
    #[serde(default)]
    pub exclude: Vec<Path>,
    /// Steps to the deepest values that are told apart; from 1 to 16.
    #[serde(default)]
    pub max_levels: Option<u8>,
}

/// What a walk through a document finds at some keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Values here are known, and so may be those below.
    Known,
    /// Values here are not known; some below may be.
    Above,
    /// Neither here nor below.
    Outside,
}

fn begins(keys: &[impl AsRef<str>], path: &[String]) -> bool {
    path.len() <= keys.len() && path.iter().zip(keys).all(|(part, key)| part == key.as_ref())
}

fn leads_to(keys: &[impl AsRef<str>], path: &[String]) -> bool {
    keys.len() < path.len() && keys.iter().zip(path).all(|(key, part)| part == key.as_ref())
}

impl JsonPaths {
    pub(super) fn levels(&self) -> usize {
        self.max_levels.map_or(DEPTH_MAX, |levels| usize::from(levels).clamp(1, DEPTH_MAX))
    }

    pub(super) fn place(&self, keys: &[impl AsRef<str>]) -> Place {
        if self.exclude.iter().any(|path| begins(keys, path)) {
            return Place::Outside;
        }
        if self.paths.is_empty() || self.paths.iter().any(|path| begins(keys, path)) {
            return Place::Known;
        }
        match self.paths.iter().any(|path| leads_to(keys, path)) {
            true => Place::Above,
            false => Place::Outside,
        }
    }

    /// What the index can say of a test: one that every document passes that passes `test`. Of an AND the parts that it knows; `None` where it knows nothing.
    pub fn covered(&self, test: &DocumentTest) -> Option<DocumentTest> {
        match test {
            DocumentTest::And(tests) => {
                let known: Vec<_> = tests.iter().filter_map(|test| self.covered(test)).collect();
                (!known.is_empty()).then_some(DocumentTest::And(known))
            }
            DocumentTest::Or(tests) => {
                Some(DocumentTest::Or(tests.iter().map(|test| self.covered(test)).collect::<Option<_>>()?))
            }
            DocumentTest::At { path, value, .. } => {
                // What is deeper is only known to be there, as what is at the deepest level.
                let keys: Vec<&str> = path
                    .iter()
                    .take(self.levels())
                    .filter_map(|step| match step {
                        Step::Key(key) => Some(key.as_str()),
                        Step::Element => None,
                    })
                    .collect();
                // These look at whatever is below, too, where nothing may be missing.
                let looks_below = match value {
                    ValueTest::Exists | ValueTest::Cast { .. } => true,
                    ValueTest::Text(text) => text.starts_with(['{', '[']),
                    _ => path.len() > self.levels(),
                };
                let is_whole = !looks_below || !self.exclude.iter().any(|path| leads_to(&keys, path));
                (self.place(&keys) == Place::Known && is_whole).then(|| test.clone())
            }
        }
    }

    /// Options by their names, as [`Self::parse_paths`] reads them.
    pub fn options(&self) -> Vec<(&'static str, String)> {
        let list = |paths: &[Path]| paths.iter().map(|path| shown(path)).collect::<Vec<_>>().join(", ");
        let mut options = Vec::new();
        if !self.paths.is_empty() {
            options.push(("paths", list(&self.paths)));
        }
        if !self.exclude.is_empty() {
            options.push(("exclude", list(&self.exclude)));
        }
        if let Some(levels) = self.max_levels {
            options.push(("max_levels", levels.to_string()));
        }
        options
    }

    /// `a.b, "with.dot".c`, also in braces, each with `$.` before it or `[*]` at a key; `None` for what is no such list.
    pub fn parse_paths(text: &str) -> Option<Vec<Path>> {
        let text = text.trim();
        let text = match text.strip_prefix('{') {
            Some(inner) => inner.strip_suffix('}')?,
            None => text,
        };
        let (mut paths, mut path, mut rest) = (Vec::new(), Path::new(), text.trim());
        if let Some(after) = rest.strip_prefix("$.") {
            rest = after;
        }
        loop {
            let key = match rest.strip_prefix('"') {
                Some(quoted) => {
                    let mut key = String::new();
                    let mut quoted = quoted;
                    loop {
                        let end = quoted.find('"')?;
                        key.push_str(&quoted[..end]);
                        quoted = &quoted[end + 1..];
                        match quoted.strip_prefix('"') {
                            Some(after) => {
                                key.push('"');
                                quoted = after;
                            }
                            None => break,
                        }
                    }
                    rest = quoted;
                    key
                }
                None => {
                    let end = rest.find(['.', ',', '[', '"']).unwrap_or(rest.len());
                    let key = rest[..end].trim();
                    if key.is_empty() {
                        return None;
                    }
                    rest = &rest[end..];
                    key.to_owned()
                }
            };
            path.push(key);
            rest = rest.trim_start();
            while let Some(after) = rest.strip_prefix("[*]") {
                rest = after.trim_start();
            }
            if rest.is_empty() {
                paths.push(path);
                return Some(paths);
            }
            if let Some(after) = rest.strip_prefix('.') {
                rest = after;
            } else {
                paths.push(std::mem::take(&mut path));
                rest = rest.strip_prefix(',')?.trim_start();
                rest = rest.strip_prefix("$.").unwrap_or(rest);
            }
        }
    }
}

fn shown(path: &[String]) -> String {
    let is_plain = |key: &str| {
        !key.is_empty() && key != "$" && key.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '-' | '$' | '@'))
    };
    let key = |key: &String| if is_plain(key) { key.clone() } else { format!("\"{}\"", key.replace('"', "\"\"")) };
    path.iter().map(key).collect::<Vec<_>>().join(".")
}
