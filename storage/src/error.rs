//! What can go wrong with bytes on disk. Precise inside; the layers above say whose fault it is.

use std::{io, path::PathBuf, sync::Arc};

pub type Result<T, E = Error> = std::result::Result<T, E>;

#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Bytes that are not what the format says. `what` names the section; `expected` and `found` tell a person why.
    #[error("segment file {path:?} is damaged: {what}: expected {expected}, found {found}")]
    Corrupt { path: PathBuf, what: String, expected: String, found: String },

    /// The file was sound when opened and is no longer: it shrank under the map, or the disk failed.
    #[error("segment file {path:?} cannot be read any more; the segment is quarantined")]
    Poisoned { path: PathBuf },

    #[error("{action} {path:?}: {message}")]
    Io { action: &'static str, path: PathBuf, kind: io::ErrorKind, message: String },

    /// The caller asked for something that does not fit: a wrong type, an unknown column.
    #[error("{0}")]
    Invalid(String),

    /// A value that was asked for lies outside its type: a sum, a time rounded down.
    #[error("{0}")]
    OutOfRange(String),

    #[error("{0}")]
    Arrow(String),

    /// What the layer above could not compute from a row's values; its own error.
    #[error("{0}")]
    Computation(Arc<dyn std::error::Error + Send + Sync>),
}

impl Error {
    pub fn io(action: &'static str, path: impl Into<PathBuf>, error: &io::Error) -> Self {
        Self::Io { action, path: path.into(), kind: error.kind(), message: error.to_string() }
    }

    pub fn corrupt(
        path: impl Into<PathBuf>,
        what: impl Into<String>,
        expected: impl ToString,
        found: impl ToString,
    ) -> Self {
        Self::Corrupt { path: path.into(), what: what.into(), expected: expected.to_string(), found: found.to_string() }
    }

    /// Adds the file and what of it was read to an error of the column codecs, which know neither.
    pub fn at(self, in_path: &std::path::Path, in_what: &str) -> Self {
        match self {
            Self::Corrupt { path, what, expected, found } if path.as_os_str().is_empty() => {
                Self::Corrupt { path: in_path.into(), what: format!("{in_what}, {what}"), expected, found }
            }
            other => other,
        }
    }
}

impl From<arrow::error::ArrowError> for Error {
    fn from(error: arrow::error::ArrowError) -> Self {
        Self::Arrow(error.to_string())
    }
}
