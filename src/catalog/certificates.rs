//! What was forgotten, for ever: the answers of `CALL rt.forget`.
//!
//! ```text
//!   certificates   version of the log → JSON Certificate
//! ```
//!
//! The value itself is in none of them, only its SHA-256.

use redb::{ReadableTable, TableDefinition};
use serde::{Deserialize, Serialize};

use super::{database::Result, store::Catalog};

const CERTIFICATES: TableDefinition<u64, &[u8]> = TableDefinition::new("certificates");

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Certificate {
    pub at_us: i64,
    /// Name of the column.
    pub column: String,
    /// SHA-256 of the value as it was given, in hexadecimal.
    pub value_sha256: String,
    pub objects: Vec<CertifiedObject>,
}

/// What was looked through.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertifiedObject {
    /// `table`, `dead letters`, `pipeline`.
    pub kind: String,
    pub name: String,
    /// Rows or letters that were there and are not any more.
    pub rows: u64,
    /// Segments that were written again for it.
    pub segments: u64,
    /// `gone`, `still there`, `not looked through`.
    pub state: String,
    pub detail: Option<String>,
}

impl Catalog {
    /// Keeps a certificate; its number. Blocks for a sync of the disk.
    pub fn certify(&self, certificate: &Certificate) -> Result<u64> {
        self.database().write(|change| {
            let version = change.record("rows.forget", certificate)?;
            let mut all = change.transaction().open_table(CERTIFICATES)?;
            all.insert(version, serde_json::to_vec(certificate)?.as_slice())?;
            Ok(version)
        })
    }

    /// All of them, oldest first, with their numbers.
    pub fn certificates(&self) -> Result<Vec<(u64, Certificate)>> {
        self.database().read(|transaction| {
            let all = match transaction.open_table(CERTIFICATES) {
                Ok(all) => all,
                // Nothing was ever forgotten.
                Err(redb::TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
                Err(error) => return Err(error.into()),
            };
            let read = |entry: std::result::Result<_, redb::StorageError>| {
                let (number, certificate): (redb::AccessGuard<'_, u64>, redb::AccessGuard<'_, &[u8]>) = entry?;
                Ok((number.value(), serde_json::from_slice(certificate.value())?))
            };
            all.iter()?.map(read).collect()
        })
    }
}
