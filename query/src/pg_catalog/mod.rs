//! PostgreSQL's system catalogs: what `\d`, drivers and BI tools ask before they show a person anything.
//!
//! ```text
//! relations.txt   every relation of pg_catalog and information_schema of PostgreSQL 15 with its columns and types (facts, generated)
//! static data     types, operators, functions, … from datafusion-pg-catalog
//! rows            pg_class, pg_attribute, … computed from our tables when they are read
//! functions       format_type, pg_get_expr, pg_table_is_visible, …, and the casts ::regclass, ::regtype, ::regproc
//! ```
//!
//! Every relation is there with all its columns, since tools select `c.*`; those that we have nothing for are empty.
//!
//! Oid columns are Int32 with the field metadata [`OID_KEY`] = `oid`, `regproc`, …, so that the wire can give them their own type.

mod definitions;
mod functions;
mod information_schema;
mod keywords;
mod nothing;
mod relations;
mod rewrite;
mod rows;
mod server;
mod tableoid;
pub mod types;

use std::{fmt, sync::Arc};

use arrow::{array::RecordBatch, datatypes::SchemaRef};

use self::{definitions::Definition, relations::Relations};
use crate::{Engine, SqlError, SystemViews, views::SystemSchema};

pub use definitions::OID_KEY;
pub(crate) use relations::{default_sql, quote_ident};
pub(crate) use rewrite::rewrite;

/// The one role that owns everything as long as there are no others.
pub const OWNER: &str = "tidemill";

/// Puts both schemas and their functions into `engine`.
pub(crate) fn install(engine: &Arc<Engine>) -> Result<(), SqlError> {
    let relations = Arc::new(Relations::new(&Arc::downgrade(engine)));
    for schema in ["pg_catalog", "information_schema"] {
        let views = Arc::new(Catalog { schema, relations: Arc::clone(&relations) });
        engine.register_schema(schema, Arc::new(SystemSchema::new(views)));
    }
    for function in functions::all(&relations) {
        engine.register_function(function)?;
    }
    keywords::install(engine)
}

/// One of the two schemas.
struct Catalog {
    schema: &'static str,
    relations: Arc<Relations>,
}

impl fmt::Debug for Catalog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Catalog").field("schema", &self.schema).finish_non_exhaustive()
    }
}

impl SystemViews for Catalog {
    fn names(&self) -> Vec<String> {
        definitions::all().iter().filter(|d| d.schema == self.schema).map(|d| d.name.clone()).collect()
    }

    fn schema(&self, name: &str) -> Option<SchemaRef> {
        definitions::find(self.schema, name).map(|definition| Arc::clone(&definition.arrow))
    }

    fn rows(&self, name: &str) -> Result<RecordBatch, SqlError> {
        let definition: &Definition =
            definitions::find(self.schema, name).ok_or_else(|| SqlError::undefined_table(name))?;
        let mut rows = rows::Rows::new(definition);
        match self.schema {
            "pg_catalog" => {
                if let Some(batch) = rows::static_rows(definition)? {
                    rows.keep(batch);
                }
                relations::fill(&self.relations, name, &mut rows);
                server::fill(&self.relations, name, &mut rows);
            }
            _ => information_schema::fill(&self.relations, name, &mut rows),
        }
        rows.finish()
    }
}

#[cfg(test)]
mod tests;
