//! Any query over any sources: fed in any batches, from any streams, restored at any moment; and what DataFusion says of the same rows as tables.

use arrow::{
    array::{ArrayRef, Int64Array, StringArray},
    util::display::{ArrayFormatter, FormatOptions},
};
use datafusion::{datasource::MemTable, prelude::SessionConfig};
use proptest::prelude::*;

use super::*;
use crate::pipeline::rules::Rules;

/// A source with columns `id` (text), `v` (integer) and `ts`, and how many seconds its rows may come out of order.
pub(super) struct RigSource {
    pub(super) name: &'static str,
    pub(super) delay_s: i64,
}

/// id, value, second
pub(super) type Event = (Option<String>, Option<i64>, i64);

pub(super) struct Rig {
    plan: Arc<Plan>,
    sources: Arc<[MachineSource]>,
    tables: Arc<[Arc<dyn TableRows>]>,
    settings: Settings,
    /// Whether it spills what it may at every third step.
    spills: bool,
    /// Another number of lanes whenever the machine is made again, from one on; 0: always one.
    lanes: usize,
}

/// A table with columns `id`, `v` and `ts` that rows look into.
#[derive(Debug)]
pub(super) struct RigTable {
    pub(super) name: &'static str,
    /// Whether `id` is its primary key.
    pub(super) has_key: bool,
    pub(super) rows: parking_lot::Mutex<Vec<Event>>,
    pub(super) is_broken: std::sync::atomic::AtomicBool,
}

impl RigTable {
    pub(super) fn new(name: &'static str, has_key: bool, rows: &[Event]) -> Arc<Self> {
        Arc::new(Self { name, has_key, rows: rows.to_vec().into(), is_broken: false.into() })
    }
}

impl TableRows for RigTable {
    fn rows_of(&self, by: &[usize], keys: &[ArrayRef], columns: &[usize]) -> Result<RecordBatch> {
        if self.is_broken.load(std::sync::atomic::Ordering::SeqCst) {
            return Err(Error::Unavailable("the table is broken".into()));
        }
        let rows = event_batch(&self.rows.lock());
        let (mut of_key, mut places) = (Vec::new(), Vec::new());
        for key in 0..keys[0].len() {
            for row in 0..rows.num_rows() {
                let is_equal = |(column, values): (&usize, &ArrayRef)| {
                    let column = rows.column(*column);
                    column.is_valid(row) && column.slice(row, 1) == values.slice(key, 1)
                };
                if by.iter().zip(keys).all(is_equal) {
                    of_key.push(key as u32);
                    places.push(row as u32);
                }
            }
        }
        let places = arrow::array::UInt32Array::from(places);
        let mut fields = vec![Field::new("key", ArrowType::UInt32, false)];
        let mut taken: Vec<ArrayRef> = vec![Arc::new(arrow::array::UInt32Array::from(of_key))];
        for column in columns {
            fields.push(rows.schema().field(*column).clone());
            taken.push(arrow::compute::take(rows.column(*column), &places, None)?);
        }
        Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), taken)?)
    }
}

/// How many rows are taken next, whether a crash follows, and of which stream.
pub(super) type Cut = (usize, bool, u32);

pub(super) fn cuts() -> impl Strategy<Value = Vec<Cut>> {
    prop::collection::vec((0usize..12, any::<bool>(), any::<u32>()), 1..60)
}

/// Rows that come at most `disorder` seconds after a later one of them.
pub(super) fn events(ids: u8, step: i64, disorder: i64) -> impl Strategy<Value = Vec<Event>> {
    let row = (prop::option::weighted(0.93, 0..ids), prop::option::weighted(0.9, 0i64..4), 0..=disorder, 0..=step);
    prop::collection::vec(row, 0..80).prop_map(|rows| {
        let mut now = 1000;
        let event = |(id, value, behind, step): (Option<u8>, Option<i64>, i64, i64)| {
            now += step;
            (id.map(|id| format!("k{id}")), value, now - behind)
        };
        rows.into_iter().map(event).collect()
    })
}

pub(super) fn event_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("id", ArrowType::Utf8, true),
        Field::new("v", ArrowType::Int64, true),
        Field::new("ts", ArrowType::Timestamp(TimeUnit::Microsecond, None), true),
    ]))
}

pub(super) fn event_batch(events: &[Event]) -> RecordBatch {
    let ids: StringArray = events.iter().map(|event| event.0.clone()).collect();
    let values: Int64Array = events.iter().map(|event| event.1).collect();
    let times: TimestampMicrosecondArray = events.iter().map(|event| event.2 * SECOND).collect::<Vec<_>>().into();
    let columns: Vec<ArrayRef> = vec![Arc::new(ids), Arc::new(values), Arc::new(times)];
    RecordBatch::try_new(event_schema(), columns).unwrap()
}

/// Rows as text, in their order.
pub(super) fn lines(batch: &RecordBatch) -> Vec<String> {
    let options = FormatOptions::new().with_null("null");
    let columns: Vec<_> =
        batch.columns().iter().map(|column| ArrayFormatter::try_new(column, &options).unwrap()).collect();
    let line = |row| columns.iter().map(|column| column.value(row).to_string()).collect::<Vec<_>>().join(" | ");
    (0..batch.num_rows()).map(line).collect()
}

pub(super) fn sorted(mut lines: Vec<String>) -> Vec<String> {
    lines.sort();
    lines
}

fn rules() -> SessionContext {
    let mut config = SessionConfig::new();
    config.options_mut().sql_parser.dialect = datafusion::common::config::Dialect::PostgreSQL;
    SessionContext::new_with_config(config)
}

pub(super) fn plan_tables(tables: &[Arc<RigTable>]) -> Vec<PlanTable> {
    let of_plan = |table: &Arc<RigTable>| PlanTable {
        name: table.name.into(),
        schema: event_schema(),
        key: if table.has_key { vec![0] } else { Vec::new() },
        time: Some(2),
    };
    tables.iter().map(of_plan).collect()
}

impl Rig {
    pub(super) fn new(sources: &[RigSource], text: &str, late: Late) -> Self {
        Self::with_tables(sources, &[], text, late)
    }

    pub(super) fn with_tables(sources: &[RigSource], tables: &[Arc<RigTable>], text: &str, late: Late) -> Self {
        Self::made(&rules().state(), sources, tables, text, late)
    }

    pub(super) fn with_rules(rules: &dyn Rules, sources: &[RigSource], text: &str) -> Self {
        Self::made(rules, sources, &[], text, Late::default())
    }

    fn made(rules: &dyn Rules, sources: &[RigSource], tables: &[Arc<RigTable>], text: &str, late: Late) -> Self {
        let of_plan: Vec<PlanSource> = sources
            .iter()
            .map(|source| PlanSource {
                name: source.name.into(),
                schema: event_schema(),
                time_column: Some("ts".into()),
            })
            .collect();
        let plan = Plan::with_tables(rules, &of_plan, &plan_tables(tables), text);
        let plan = plan.unwrap_or_else(|error| panic!("{text}: {error}"));
        let machine = |(at, source): (usize, &RigSource)| {
            let watermark = format!("ts - INTERVAL '{} seconds'", source.delay_s);
            let watermark = Watermark::compile(rules, &event_schema(), &watermark).unwrap();
            MachineSource { id: SourceId(at as u64 + 1), watermark: Some(Arc::new(watermark)) }
        };
        let sources: Vec<MachineSource> = sources.iter().enumerate().map(machine).collect();
        let settings = Settings { jump_max_us: i64::MAX, late, store: Arc::new(MemoryStore::default()), lanes: 1 };
        let tables = tables.iter().map(|table| Arc::clone(table) as Arc<dyn TableRows>).collect();
        Self { plan: Arc::new(plan), sources: sources.into(), tables, settings, spills: false, lanes: 0 }
    }

    pub(super) fn spilling(self) -> Self {
        self.spilling_if(true)
    }

    pub(super) fn spilling_if(self, spills: bool) -> Self {
        Self { spills, ..self }
    }

    pub(super) fn in_lanes(self, lanes: usize) -> Self {
        Self { lanes, ..self }
    }

    /// Of a machine that is made for the `time`th time.
    fn settings(&self, time: usize) -> Settings {
        Settings { lanes: if self.lanes == 0 { 1 } else { (self.lanes + time * 3) % 5 + 1 }, ..self.settings.clone() }
    }

    /// Without tables; `service` is as many services.
    pub(super) fn with_services(
        sources: &[RigSource],
        text: &str,
        count: usize,
        service: &Arc<impl TableRows + 'static>,
    ) -> Self {
        let services = (0..count).map(|_| Arc::clone(service) as Arc<dyn TableRows>).collect();
        Self { tables: services, ..Self::new(sources, text, Late::default()) }
    }

    pub(super) fn machine(&self, streams: u32) -> Machine {
        let machine =
            Machine::new(Arc::clone(&self.plan), Arc::clone(&self.sources), Arc::clone(&self.tables), self.settings(0));
        let mut machine = machine.unwrap();
        for source in self.sources.iter() {
            for partition in 0..streams {
                let stream = StreamId { source: source.id, partition };
                machine.apply(&Arrival::Begin { stream, offset: 0 }).unwrap();
                machine.apply(&Arrival::Flow { stream, flow: Flow::Behind }).unwrap();
            }
            machine.apply(&Arrival::Known { source: source.id }).unwrap();
        }
        machine
    }

    pub(super) fn restore(&self, picture: Picture) -> Result<Machine> {
        self.restore_at(picture, 0)
    }

    fn restore_at(&self, picture: Picture, time: usize) -> Result<Machine> {
        Machine::restore(
            Arc::clone(&self.plan),
            Arc::clone(&self.sources),
            Arc::clone(&self.tables),
            self.settings(time),
            picture.progress,
            picture.parts.into_iter().map(Ok),
        )
    }

    /// The machine as a crash would leave it: out of a file.
    fn restored(&self, machine: &mut Machine, time: usize) -> Machine {
        let directory = tempfile::tempdir().unwrap();
        let file = state_file::write(directory.path(), "s", &machine.picture().unwrap()).unwrap();
        self.restore_at(state_file::read(directory.path(), &file).unwrap(), time).unwrap()
    }

    pub(super) fn arrival(&self, source: usize, partition: u32, from: u64, events: &[Event]) -> Arrival {
        let to = from + events.len() as u64;
        let batch = SourceBatch {
            stream: StreamId { source: self.sources[source].id, partition },
            rows: event_batch(events),
            row_offsets: (from..to).collect(),
            from,
            to,
            newest_timestamp_ms: -1,
            rejects: Vec::new(),
            origin: None,
        };
        Arrival::Rows { source, batch: Box::new(batch), landmark: None }
    }

    /// All rows of the sources, over `streams` partitions each, then far in the future one row that ends everything. What was given, in order.
    pub(super) fn run(&self, of_sources: &[Vec<Event>], streams: u32, cuts: &[Cut]) -> (Vec<String>, Counts) {
        let queues = queues(of_sources, streams);
        let schedule = schedule(&queues, cuts);
        self.run_as(&queues, streams, &schedule)
    }

    /// The same, and again with the rows in the same order, but one by one.
    pub(super) fn run_twice(
        &self,
        of_sources: &[Vec<Event>],
        streams: u32,
        cuts: &[Cut],
    ) -> [(Vec<String>, Counts); 2] {
        let queues = queues(of_sources, streams);
        let schedule = schedule(&queues, cuts);
        let single =
            |step: &Step| (0..step.count).map(|_| Step { count: 1, crashes: false, ..*step }).collect::<Vec<_>>();
        let singles: Vec<Step> = schedule.iter().flat_map(single).collect();
        [self.run_as(&queues, streams, &schedule), self.run_as(&queues, streams, &singles)]
    }

    fn run_as(&self, queues: &[Queue], streams: u32, schedule: &[Step]) -> (Vec<String>, Counts) {
        let mut machine = self.machine(streams);
        let mut offsets = vec![0; queues.len()];
        let mut found = Vec::new();
        // A crash is followed by a picture, or by an older one and the arrivals since, out of bytes.
        let (mut base, mut diary, mut crashes): (Option<Picture>, Vec<u8>, usize) = (None, Vec::new(), 0);
        let apply = |machine: &mut Machine, arrival: &Arrival, diary: &mut Vec<u8>| {
            let outcome = machine.apply(arrival).unwrap();
            arrivals::encode(arrival, &machine.answers(), diary).unwrap();
            outcome
        };
        let mut take = |outcome: Outcome| {
            assert!(outcome.rejects.is_empty(), "{:?}", outcome.rejects);
            outcome.rows.iter().for_each(|rows| found.extend(lines(rows)));
        };
        for step in schedule {
            let (source, partition, queue) = &queues[step.queue];
            let from = offsets[step.queue];
            let rows = &queue[from..from + step.count];
            take(apply(&mut machine, &self.arrival(*source, *partition, from as u64, rows), &mut diary));
            offsets[step.queue] += step.count;
            if step.gives {
                take(apply(&mut machine, &Arrival::Give, &mut diary));
            }
            if self.spills && offsets[step.queue].is_multiple_of(3) {
                while let Some(arrival) = machine.spilling(usize::MAX) {
                    take(apply(&mut machine, &arrival, &mut diary));
                }
            }
            if step.crashes {
                crashes += 1;
                match &base {
                    Some(picture) if crashes % 3 > 0 => {
                        machine = self.restore_at(picture.clone(), crashes).unwrap();
                        let mut rest = diary.as_slice();
                        while !rest.is_empty() {
                            let (arrival, answers) = arrivals::decode(&mut rest).unwrap();
                            machine.apply_again(&arrival, answers).unwrap();
                        }
                    }
                    _ => {
                        machine = self.restored(&mut machine, crashes);
                        base = Some(machine.picture().unwrap());
                        diary.clear();
                    }
                }
            }
        }
        take(machine.apply(&Arrival::Give).unwrap());
        found.retain(|line| !line.contains("end"));
        (found, machine.counts())
    }
}

/// Source, partition and rows of a stream.
type Queue = (usize, u32, Vec<Event>);

/// What comes next.
#[derive(Clone, Copy)]
struct Step {
    queue: usize,
    count: usize,
    gives: bool,
    crashes: bool,
}

fn queues(of_sources: &[Vec<Event>], streams: u32) -> Vec<Queue> {
    let mut queues = Vec::new();
    for (source, events) in of_sources.iter().enumerate() {
        for partition in 0..streams {
            let own = events.iter().enumerate().filter(|(at, _)| (at * 7 + at / 3) as u32 % streams == partition);
            let mut queue: Vec<Event> = own.map(|(_, event)| event.clone()).collect();
            // Nobody's partner: each source has another.
            queue.extend(vec![(Some(format!("end{source}{partition}")), Some(7), 100_000); 2]);
            queues.push((source, partition, queue));
        }
    }
    queues
}

fn schedule(queues: &[Queue], cuts: &[Cut]) -> Vec<Step> {
    let mut left: Vec<usize> = queues.iter().map(|queue| queue.2.len()).collect();
    let mut steps = Vec::new();
    let mut cut = cuts.iter().cycle();
    loop {
        let open: Vec<usize> = (0..left.len()).filter(|at| left[*at] > 0).collect();
        if open.is_empty() {
            return steps;
        }
        let (count, crashes, which) = *cut.next().unwrap();
        let queue = open[which as usize % open.len()];
        let count = count.max(1).min(left[queue]);
        left[queue] -= count;
        steps.push(Step { queue, count, crashes, gives: which % 3 == 0 });
    }
}

/// What DataFusion says of the rows as tables.
pub(super) fn batch_answer(sources: &[RigSource], of_sources: &[Vec<Event>], text: &str) -> Vec<String> {
    let context = rules();
    for (source, events) in sources.iter().zip(of_sources) {
        let table = MemTable::try_new(event_schema(), vec![vec![event_batch(events)]]).unwrap();
        context.register_table(source.name, Arc::new(table)).unwrap();
    }
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let batches = runtime.block_on(async { context.sql(text).await.unwrap().collect().await.unwrap() });
    sorted(batches.iter().flat_map(lines).collect())
}
