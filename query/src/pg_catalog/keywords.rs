//! `pg_get_keywords()`: what tools read to know which names they must quote.

use std::sync::{Arc, LazyLock};

use arrow::{
    array::{ArrayRef, BooleanArray, RecordBatch, StringViewArray},
    datatypes::{Field, Schema},
};
use datafusion::{
    catalog::{MemTable, TableFunctionArgs, TableFunctionImpl, TableProvider},
    error::DataFusionError,
};

use crate::{Engine, SqlError};

struct Keyword {
    word: &'static str,
    category: &'static str,
    bare_label: bool,
}

static KEYWORDS: LazyLock<Vec<Keyword>> = LazyLock::new(|| {
    let (mut category, mut bare_label) = ("U", true);
    let mut keywords = Vec::new();
    for line in include_str!("keywords.txt").lines().filter(|line| !line.starts_with('#')) {
        let mut words = line.split_whitespace();
        if !line.starts_with(' ') {
            category = words.next().unwrap_or(category);
            bare_label = words.next() == Some("t");
        }
        keywords.extend(words.map(|word| Keyword { word, category, bare_label }));
    }
    keywords.sort_by_key(|keyword| keyword.word);
    keywords
});

#[derive(Debug)]
struct Keywords;

impl TableFunctionImpl for Keywords {
    fn call_with_args(&self, args: TableFunctionArgs<'_, '_>) -> Result<Arc<dyn TableProvider>, DataFusionError> {
        if !args.exprs().is_empty() {
            return Err(SqlError::new("42883", "function pg_get_keywords takes no arguments").into());
        }
        let texts = |of: fn(&Keyword) -> &'static str| -> ArrayRef {
            Arc::new(StringViewArray::from_iter_values(KEYWORDS.iter().map(of)))
        };
        let category = |keyword: &Keyword| match keyword.category {
            "C" => "unreserved (cannot be function or type name)",
            "T" => "reserved (can be function or type name)",
            "R" => "reserved",
            _ => "unreserved",
        };
        let label = |keyword: &Keyword| if keyword.bare_label { "can be bare label" } else { "requires AS" };
        let bare: BooleanArray = KEYWORDS.iter().map(|keyword| Some(keyword.bare_label)).collect();
        let columns: [(&str, ArrayRef); 5] = [
            ("word", texts(|keyword| keyword.word)),
            ("catcode", texts(|keyword| keyword.category)),
            ("barelabel", Arc::new(bare)),
            ("catdesc", texts(category)),
            ("baredesc", texts(label)),
        ];
        let field = |(name, column): &(&str, ArrayRef)| Field::new(*name, column.data_type().clone(), true);
        let schema = Arc::new(Schema::new(columns.iter().map(field).collect::<Vec<_>>()));
        let batch = RecordBatch::try_new(Arc::clone(&schema), columns.into_iter().map(|(_, column)| column).collect())?;
        Ok(Arc::new(MemTable::try_new(schema, vec![vec![batch]])?))
    }
}

pub(super) fn install(engine: &Engine) -> Result<(), SqlError> {
    engine.extend(|state| {
        state.register_udtf("pg_get_keywords", Arc::new(Keywords));
        Ok(())
    })
}
