//! What a schema would do to those that depend on its subject, found out by doing: examples of the schema go through each source's own decoder, checks and transforms, beside examples of the
//! subject's newest schema. What goes wrong with both of them is nobody's news.
//!
//! ```text
//! subject ─► sources ─┬─► tables ─► pipelines that look into them ─► …
//!                     └─► pipelines ─► tables, sinks
//!         ◄─ sinks that write it
//! ```

use std::{collections::BTreeMap, sync::Arc};

use arrow::{array::Array, datatypes::Schema as ArrowSchema};
use tidemill_ingest::{
    Error,
    dead_letters::OnError,
    decode::{
        Format, SourceColumn,
        trial::{self, Fate, Writer},
    },
    message::SourceBatch,
    pipeline::plan::Plan,
};
use tidemill_storage::ids::TableId;

use crate::{
    catalog::{
        Definitions,
        definition::{PipelineDefinition, SourceDefinition, TableDefinition},
    },
    server::{instance::Instance, live, look_ups, pipelines},
};

/// Of one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    pub object: String,
    /// "subject", "source", "table", "pipeline" or "sink".
    pub kind: &'static str,
    /// What goes wrong, for a person; `None` is nothing.
    pub breaks: Option<String>,
}

impl Verdict {
    pub fn name(&self) -> &'static str {
        if self.breaks.is_some() { "breaks" } else { "ok" }
    }
}

/// What goes wrong with messages of the new schema.
#[derive(Clone, Debug, Default)]
struct Damage {
    /// Why messages become no rows.
    lost: Option<String>,
    /// Columns that are NULL from then on.
    empty: Vec<String>,
}

impl Damage {
    fn words(&self) -> Option<String> {
        let empty = (!self.empty.is_empty()).then(|| empty(&self.empty));
        match (&self.lost, empty) {
            (Some(lost), Some(empty)) => Some(format!("{lost}; {empty}")),
            (lost, empty) => lost.clone().or(empty),
        }
    }
}

fn empty(columns: &[String]) -> String {
    let names: Vec<String> = columns.iter().map(|name| format!("\"{name}\"")).collect();
    match names.as_slice() {
        [one] => format!("column {one} is NULL in every new row: the schema has no value for it"),
        several => {
            format!("columns {} are NULL in every new row: the schema has no values for them", several.join(", "))
        }
    }
}

/// Verdicts of the sources and of all that they feed.
pub(super) fn of_sources(
    instance: &Instance,
    definitions: &Arc<Definitions>,
    sources: &[Arc<SourceDefinition>],
    old: &Writer<'_>,
    new: &Writer<'_>,
) -> Vec<Verdict> {
    let mut walk = Walk { instance, definitions: Arc::clone(definitions), found: BTreeMap::new() };
    for source in sources {
        if let Err(error) = walk.source(source, old, new) {
            let reason = format!("it cannot be tried out: {error}");
            walk.tell(0, source.id.0, &source.name, "source", Some(reason));
        }
    }
    walk.found.into_values().collect()
}

struct Walk<'a> {
    instance: &'a Instance,
    definitions: Arc<Definitions>,
    /// By kind, in the order in which rows flow, and number.
    found: BTreeMap<(u8, u64), Verdict>,
}

impl Walk<'_> {
    /// False when as much is known already.
    fn tell(&mut self, rank: u8, id: u64, name: &str, kind: &'static str, breaks: Option<String>) -> bool {
        let known = self.found.get(&(rank, id));
        if known.is_some_and(|known| known.breaks.is_some() || breaks.is_none()) {
            return false;
        }
        self.found.insert((rank, id), Verdict { object: name.to_owned(), kind, breaks });
        true
    }

    fn source(&mut self, source: &Arc<SourceDefinition>, old: &Writer<'_>, new: &Writer<'_>) -> Result<(), Error> {
        let (options, _) = live::source_options(source)?;
        let Some(format) = &options.format else { return Ok(()) };
        let columns = live::source_columns(&source.columns)?;
        let mut damage = Damage::default();
        for column in &columns {
            of_column(format, column, old, new, options.on_error, &mut damage);
        }
        let checks = live::checks(self.instance.expressions(), source, &columns)?;
        // Of what cannot be decoded nothing more is to be said.
        let try_out = |writer: &Writer<'_>| {
            let mut batch = trial::rows(format, &columns, writer)?;
            batch.rejects.clear();
            let mut checked = checks.apply(batch);
            let refused = checked.rejects.drain(..).map(|reject| reject.reason).collect::<Vec<_>>();
            Ok::<_, Error>((checked, refused))
        };
        let before = try_out(old).ok();
        let after = try_out(new).ok();
        if let (Some((_, before)), Some((_, after)), None) = (&before, &after, &damage.lost)
            && let Some(fresh) = after.iter().find(|reason| !before.contains(reason))
        {
            damage.lost = Some(format!("{fresh}; {}", fate_of(options.on_error, false)));
        }
        self.tell(0, source.id.0, &source.name, "source", damage.words());
        let lost = damage.lost.as_ref().map(|reason| format!("source \"{}\": {reason}", source.name));
        let batches = before.map(|(batch, _)| batch).zip(after.map(|(batch, _)| batch));
        for table in self.definitions.clone().tables_of(source.id) {
            let breaks = match (&lost, &batches) {
                (Some(lost), _) => Some(lost.clone()),
                (None, Some((before, after))) => {
                    self.table_of_source(table, source, &columns, before, after, &damage, options.on_error)
                }
                (None, None) => None,
            };
            self.table(table, breaks);
        }
        for pipeline in self.definitions.clone().pipelines_of(source.id) {
            let breaks = lost.clone().or_else(|| {
                let read = damage.empty.iter().filter(|column| self.reads(pipeline, source, column));
                let read: Vec<String> = read.cloned().collect();
                (!read.is_empty()).then(|| format!("it reads source \"{}\", of which {}", source.name, empty(&read)))
            });
            self.pipeline(pipeline, breaks);
        }
        Ok(())
    }

    /// What becomes of rows on their way from a source into a table.
    #[expect(clippy::too_many_arguments, reason = "what is tried, before and after")]
    fn table_of_source(
        &self,
        table: &TableDefinition,
        source: &SourceDefinition,
        columns: &[SourceColumn],
        before: &SourceBatch,
        after: &SourceBatch,
        damage: &Damage,
        on_error: OnError,
    ) -> Option<String> {
        let expressions = self.instance.expressions();
        let transform = match live::transform(expressions, columns, table) {
            Ok(transform) => transform,
            Err(error) => return Some(format!("it cannot be tried out: {error}")),
        };
        let (was, is) = (transform.apply(before), transform.apply(after));
        let fresh = is.rejects.iter().find(|reject| !was.rejects.iter().any(|known| known.reason == reject.reason));
        if let Some(fresh) = fresh {
            return Some(format!("{}; {}", fresh.reason, fate_of(on_error, false)));
        }
        let is_filled = |array: &dyn Array| array.null_count() < array.len();
        let emptied = table.schema.columns.iter().filter(|column| {
            let of = |rows: &arrow::array::RecordBatch| {
                rows.column_by_name(&column.name).is_some_and(|array| is_filled(array))
            };
            is.rows.num_rows() > 0 && of(&was.rows) && !of(&is.rows)
        });
        let emptied: Vec<String> = emptied.map(|column| column.name.clone()).collect();
        if !emptied.is_empty() {
            return Some(empty(&emptied));
        }
        // What a condition reads and never finds leaves rows out.
        let read = damage.empty.iter().find(|name| {
            let without: Vec<SourceColumn> = columns.iter().filter(|column| column.name != **name).cloned().collect();
            live::transform(expressions, &without, table).is_err()
        });
        read.map(|name| {
            format!("it reads column \"{name}\" of source \"{}\", which is NULL in every new row", source.name)
        })
    }

    /// Whether a pipeline would be another one, or none, without a column of a source.
    fn reads(&self, pipeline: &PipelineDefinition, source: &SourceDefinition, column: &str) -> bool {
        let plan = |without: bool| {
            let sources = pipelines::sources_of(&self.definitions, pipeline);
            let mut known = pipelines::plan_sources(&sources)?;
            for one in known.iter_mut().filter(|one| without && one.name == source.name) {
                let fields = one.schema.fields().iter().filter(|field| field.name() != column).cloned();
                one.schema = Arc::new(ArrowSchema::new(fields.collect::<Vec<_>>()));
                one.time_column = one.time_column.take().filter(|time| time != column);
            }
            let tables = look_ups::plan_tables(&look_ups::tables_of(&self.definitions, pipeline));
            Plan::with_tables(self.instance.expressions(), &known, &tables, &pipeline.query)
        };
        match (plan(false), plan(true)) {
            (Ok(with), Ok(without)) => with.output() != without.output() || with.names() != without.names(),
            _ => true,
        }
    }

    fn table(&mut self, table: &TableDefinition, breaks: Option<String>) {
        if !self.tell(1, table.id.0, &table.name, "table", breaks.clone()) {
            return;
        }
        for pipeline in self.definitions.clone().pipelines_looking_into(table.id) {
            let breaks = breaks.as_ref().map(|reason| format!("it looks into table \"{}\": {reason}", table.name));
            self.pipeline(pipeline, breaks);
        }
    }

    fn pipeline(&mut self, pipeline: &PipelineDefinition, breaks: Option<String>) {
        if !self.tell(2, pipeline.id.0, &pipeline.name, "pipeline", breaks.clone()) {
            return;
        }
        for target in &pipeline.targets {
            let breaks = breaks.as_ref().map(|reason| format!("pipeline \"{}\": {reason}", pipeline.name));
            let definitions = Arc::clone(&self.definitions);
            if let Some(table) = definitions.tables.get(&target.table) {
                self.table(table, breaks);
            } else if let Some(sink) = definitions.sinks.get(&target.table) {
                let TableId(id) = sink.id;
                self.tell(3, id, &sink.name, "sink", breaks);
            }
        }
    }
}

/// What of a column goes wrong that does not yet.
fn of_column(
    format: &Format,
    column: &SourceColumn,
    old: &Writer<'_>,
    new: &Writer<'_>,
    on_error: OnError,
    damage: &mut Damage,
) {
    let before = trial::fate(format, column, old).unwrap_or_default();
    let after = match trial::fate(format, column, new) {
        Ok(fate) => fate,
        Err(error) => {
            damage.lost.get_or_insert_with(|| format!("it cannot be tried out: {error}"));
            return;
        }
    };
    let was_broken = before.values == 0 && before.refused > 0;
    let fresh = after.refusals.iter().find(|refusal| !was_broken && !before.refusals.contains(refusal));
    match fresh {
        Some((reason, _)) => {
            let is_all = after.refused == after.messages;
            damage.lost.get_or_insert_with(|| format!("{reason}; {}", fate_of(on_error, is_all)));
        }
        None if before.values > 0 && Fate::is_null(&after) => damage.empty.push(column.name.clone()),
        None => {}
    }
}

/// What a source does with messages that become no rows.
fn fate_of(on_error: OnError, is_all: bool) -> &'static str {
    match (on_error, is_all) {
        (OnError::Dlq, true) => "all new messages become dead letters",
        (OnError::Dlq, false) => "such messages become dead letters",
        (OnError::Skip, true) => "all new messages are skipped",
        (OnError::Skip, false) => "such messages are skipped",
        (OnError::Stop, _) => "the first such message stops the ingestion of its partition",
    }
}
