//! Avro data straight into columns.
//!
//! ```text
//! message ─ frame? ─► schema of its id ─► walk along the paths of the columns ─► one value per column ─► convert ─► append
//!                                         (reads past everything else)          (last of equal keys)
//! ```
//!
//! A message is read with the schema that it was written with; columns are found in it by name. What the schema does not have is NULL. Nothing is
//! appended before the whole message has been read to its last byte. The plain twin in the tests is arrow-avro, which also writes what is read.

mod columns;
mod datum;
mod examples;
mod plan;
mod schema;
#[cfg(test)]
mod tests;

pub(super) use self::columns::columns;
pub(super) use self::examples::examples;
pub(super) use self::plan::Plan;
use self::{
    datum::{Found, Reader},
    schema::{Schema, Type},
};
use super::{
    Decoded, Decoder, SourceColumn,
    column::Column,
    cursor::{Cursor, Unfit},
    number::Misfit,
    path::display_path,
    registry::{FRAME_BYTES, Registered, SchemasById, frame},
    rows::{Fault, Rows},
    value::Value,
};
use crate::{Error, Result, message::MessageBatch};

pub(super) struct AvroDecoder {
    columns: Vec<SourceColumn>,
    rows: Rows,
    plans: Plans,
    /// For nested values, reused.
    json: String,
}

/// The schemas that messages are written with.
enum Plans {
    /// All with one.
    One(Box<Plan>),
    /// Each with the one whose id it carries.
    ById(SchemasById<Plan>),
}

impl AvroDecoder {
    /// For bare data, all written with the one `schema`. `Definition` when it is no schema, or when a column has no place in it.
    pub(super) fn with_schema(schema: &str, columns: &[SourceColumn]) -> Result<Self> {
        let unusable = |reason: String| Error::Definition {
            message: format!("the Avro schema cannot be used: {reason}"),
            hint: Some("give the writer's schema as JSON, or the path of its .avsc file".into()),
        };
        let schema = Schema::parse(schema, []).map_err(unusable)?;
        let fields = match schema.get(schema.root) {
            Type::Record(fields) => fields.iter().map(|field| field.name.as_str()).collect::<Vec<_>>().join(", "),
            _ => String::new(),
        };
        let plan = Plan::new(schema, columns).map_err(unusable)?;
        if let Some(absent) = plan.absent.first() {
            let column = &columns[*absent];
            return Err(Error::Definition {
                message: format!(
                    "column \"{}\" is not in the Avro schema: it has no {}",
                    column.name,
                    display_path(&column.path)
                ),
                hint: Some(format!("the record has {fields}")).filter(|_| !fields.is_empty()),
            });
        }
        Ok(Self::new(Plans::One(Box::new(plan)), columns))
    }

    /// For messages that carry the id of their schema.
    pub(super) fn with_registry(schemas: SchemasById<Plan>, columns: &[SourceColumn]) -> Self {
        Self::new(Plans::ById(schemas), columns)
    }

    /// Has a schema, by its id, without asking for it.
    pub(super) fn knowing(mut self, known: Option<(u32, &Registered)>) -> Self {
        if let (Plans::ById(schemas), Some((id, registered))) = (&mut self.plans, known) {
            schemas.hold(id, compile(registered, &self.columns));
        }
        self
    }

    fn new(plans: Plans, columns: &[SourceColumn]) -> Self {
        Self { columns: columns.to_vec(), rows: Rows::new(columns), plans, json: String::new() }
    }
}

impl Decoder for AvroDecoder {
    fn decode(&mut self, messages: &MessageBatch) -> Result<Decoded> {
        let columns = &self.columns;
        if let Plans::ById(schemas) = &mut self.plans {
            schemas.prepare(messages, |registered| compile(registered, columns))?;
        }
        let mut found = vec![Found::Nothing; columns.len()];
        while let Some(message) = self.rows.next(messages) {
            let payload = messages.payload(message);
            let result = read(&self.plans, payload, &mut found)
                .and_then(|plan| append(plan, &found, columns, &mut self.rows, &mut self.json));
            self.rows.end_row(result, messages, message);
        }
        Ok(self.rows.finish())
    }
}

fn compile(registered: &Registered, columns: &[SourceColumn]) -> Result<Plan, String> {
    if !registered.is_avro() {
        return Err(format!("it is a schema of {}, and the source's format is avro", registered.kind.name()));
    }
    let referenced = registered.references.iter().map(|(_, text)| text.as_str());
    Plan::new(Schema::parse(&registered.text, referenced)?, columns)
}

/// Reads one message to its end.
fn read<'a>(plans: &'a Plans, payload: &'a [u8], found: &mut [Found<'a>]) -> Result<&'a Plan, Fault> {
    let (plan, datum) = match plans {
        Plans::One(plan) => (&**plan, Cursor::new(payload, 0)),
        Plans::ById(schemas) => {
            let (id, datum) = frame(payload)?;
            (schemas.get(id)?, Cursor::new(datum, FRAME_BYTES))
        }
    };
    found.fill(Found::Nothing);
    Reader::new(&plan.schema, datum).whole(plan.root.as_ref(), found)?;
    Ok(plan)
}

fn append(
    plan: &Plan,
    found: &[Found<'_>],
    columns: &[SourceColumn],
    rows: &mut Rows,
    json: &mut String,
) -> Result<(), Fault> {
    for (at, found) in found.iter().enumerate() {
        let column = rows.column(at);
        match *found {
            Found::Nothing if !columns[at].nullable => {
                return Err(Fault::not_null(&columns[at], !plan.absent.contains(&at)));
            }
            Found::Value(Value::Null) if !columns[at].nullable => return Err(Fault::not_null(&columns[at], true)),
            Found::Nothing => column.append_null(),
            Found::Value(value) => column.append(value)?,
            Found::Misfit { misfit, bytes } => return Err(column.refusal(Value::Bytes(bytes), misfit).into()),
            Found::Nested { of, at } => nested(plan, of, at, column, json)?,
        }
    }
    Ok(())
}

fn nested(plan: &Plan, of: usize, at: Cursor<'_>, column: &mut Column, json: &mut String) -> Result<(), Fault> {
    let mut reader = Reader::new(&plan.schema, at);
    let result = if column.takes_json() {
        json.clear();
        match reader.write_json(of, json, 0) {
            Ok(()) => column.append(Value::Json(json)).map_err(Unfit::from),
            Err(unfit) => Err(unfit),
        }
    } else {
        let filled = match plan.schema.get(of) {
            Type::Array(items) => column.append_list(|item| reader.elements(*items, item, json)),
            _ => None,
        };
        filled.unwrap_or(Err(Unfit::Misfit(Misfit::Kind)))
    };
    result.map_err(|unfit| match unfit {
        Unfit::Broken(broken) => broken.into(),
        Unfit::Fault(fault) => fault,
        Unfit::Misfit(misfit) => {
            let shown = match plan.schema.get(of) {
                Type::Array(_) => "an array",
                Type::Map(_) => "a map",
                _ => "a record",
            };
            column.refusal(Value::Json(shown), misfit).into()
        }
    })
}
