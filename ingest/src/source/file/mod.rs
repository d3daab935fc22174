//! Files: bounded sources whose partitions are files.

mod options;

use std::sync::Arc;

pub use self::options::{FileFormat, FileOptions};
use super::{ConnectContext, Connector};
use crate::{Error, Result, decode::Format};

pub(super) fn connect(
    _options: &FileOptions,
    _context: &ConnectContext,
    _format: &mut Option<Format>,
) -> Result<Arc<dyn Connector>> {
    Err(Error::Unavailable("file sources are being built".into()))
}
