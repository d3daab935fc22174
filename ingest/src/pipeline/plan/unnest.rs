//! Lists as rows: `unnest(array)`, `jsonb_array_elements(doc -> 'items')` and their like, in the select list or LATERAL in FROM.

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, AsArray, RecordBatch, RecordBatchOptions, UInt32Array, new_null_array},
    compute::{cast, take},
    datatypes::{DataType as ArrowType, Field, Schema, SchemaRef},
};
use datafusion::{common::NullHandling, logical_expr::Unnest as UnnestNode};

use super::unsupported;
use crate::Result;

/// A row for each item of its lists; of several lists the shorter ones end with NULLs.
#[derive(Debug)]
pub(crate) struct Unnest {
    /// Of each column that is given: the column that it is made of, and whether that is a list whose items it is.
    columns: Vec<(usize, bool)>,
    /// Whether rows without a list, and with an empty one, stay, with NULL.
    keeps_null: bool,
    keeps_empty: bool,
    output: SchemaRef,
}

impl Unnest {
    pub(super) fn compile(node: &UnnestNode) -> Result<Self> {
        if !node.struct_type_columns.is_empty() {
            return Err(unsupported("unnest() of a record is not supported in a pipeline", "name its fields"));
        }
        let is_deep = node.options.recursions.iter().any(|recursion| recursion.depth > 1);
        if is_deep || node.list_type_columns.iter().any(|(_, list)| list.depth > 1) {
            return Err(unsupported(
                "unnest() of lists of lists is not supported in a pipeline",
                "unnest them one by one, in subqueries",
            ));
        }
        let columns = node.dependency_indices.iter().zip(node.schema.columns()).map(|(from, column)| {
            let is_item = |(list, of): &(usize, datafusion::logical_expr::ColumnUnnestList)| {
                list == from && of.output_column.name == column.name
            };
            (*from, node.list_type_columns.iter().any(is_item))
        });
        let fields = node.schema.fields().iter().map(|field| field.as_ref().clone().with_nullable(true));
        Ok(Self {
            columns: columns.collect(),
            keeps_null: node.options.null_handling != NullHandling::Drop,
            keeps_empty: node.options.null_handling == NullHandling::PreserveAndExpandEmpty,
            output: Arc::new(Schema::new(fields.collect::<Vec<Field>>())),
        })
    }

    /// The rows, and which of the rows before each of them was.
    pub(crate) fn run(&self, rows: &RecordBatch) -> Result<(RecordBatch, UInt32Array), String> {
        let text = |error: arrow::error::ArrowError| error.to_string();
        let mut lists = Vec::new();
        for (from, _) in self.columns.iter().filter(|(_, is_item)| *is_item) {
            lists.push(List::of(rows.column(*from))?);
        }
        let mut of: Vec<u32> = Vec::new();
        let mut items: Vec<Vec<Option<u32>>> = vec![Vec::new(); lists.len()];
        for row in 0..rows.num_rows() {
            let length =
                lists.iter().map(|list| list.length(row, self.keeps_null, self.keeps_empty)).max().unwrap_or(1);
            for at in 0..length {
                of.push(row as u32);
                lists.iter().zip(&mut items).for_each(|(list, items)| items.push(list.item(row, at)));
            }
        }
        let of = UInt32Array::from(of);
        let mut unnested = lists.iter().zip(items);
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(self.columns.len());
        for ((from, is_item), field) in self.columns.iter().zip(self.output.fields()) {
            let column = match is_item {
                true => match unnested.next() {
                    Some((list, items)) => take(&list.values, &UInt32Array::from(items), None).map_err(text)?,
                    None => new_null_array(field.data_type(), of.len()),
                },
                false => take(rows.column(*from), &of, None).map_err(text)?,
            };
            columns.push(match column.data_type() == field.data_type() {
                true => column,
                false => cast(&column, field.data_type()).map_err(text)?,
            });
        }
        let options = RecordBatchOptions::new().with_row_count(Some(of.len()));
        let rows = RecordBatch::try_new_with_options(Arc::clone(&self.output), columns, &options).map_err(text)?;
        Ok((rows, of))
    }

    pub(super) fn describe(&self) -> String {
        let items = self.columns.iter().zip(self.output.fields()).filter(|((_, is_item), _)| *is_item);
        let items: Vec<&str> = items.map(|(_, field)| field.name().as_str()).collect();
        format!("Unnest: {}", items.join(", "))
    }
}

/// Lists of one column.
struct List {
    values: ArrayRef,
    /// Where the items of each row are; `None`: there is no list.
    places: Vec<Option<(u32, u32)>>,
}

impl List {
    fn of(array: &ArrayRef) -> Result<Self, String> {
        let item = match array.data_type() {
            ArrowType::List(_) => None,
            ArrowType::LargeList(item) | ArrowType::FixedSizeList(item, _) | ArrowType::ListView(item) => Some(item),
            ArrowType::Null => {
                return Ok(Self { values: new_null_array(&ArrowType::Null, 0), places: vec![None; array.len()] });
            }
            other => return Err(format!("{other} is no list")),
        };
        let array = match item {
            Some(item) => cast(array, &ArrowType::List(Arc::clone(item))).map_err(|error| error.to_string())?,
            None => Arc::clone(array),
        };
        let list = array.as_list_opt::<i32>().ok_or("the list cannot be read")?;
        let place = |row: usize| {
            let (from, to) = (list.value_offsets()[row] as u32, list.value_offsets()[row + 1] as u32);
            list.is_valid(row).then_some((from, to))
        };
        Ok(Self { values: Arc::clone(list.values()), places: (0..list.len()).map(place).collect() })
    }

    fn length(&self, row: usize, keeps_null: bool, keeps_empty: bool) -> u32 {
        match self.places[row] {
            None => u32::from(keeps_null),
            Some((from, to)) if from == to => u32::from(keeps_empty),
            Some((from, to)) => to - from,
        }
    }

    fn item(&self, row: usize, at: u32) -> Option<u32> {
        let (from, to) = self.places[row]?;
        from.checked_add(at).filter(|place| *place < to)
    }
}
