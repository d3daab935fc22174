//! Tables that merge the rows of a key against a model, which merges one row after another, value by value: random columns, rules, defaults and NULLs; rows
//! in random batches of several streams, some of them twice; deletes, statements, compaction, a column that is added; seals at once and late, in other
//! orders of rows; restarts that read again what was not committed. After every step each key has the row of the model: nothing is added twice, and
//! nothing is lost.

use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
    sync::Arc,
};

use arrow::{
    array::{
        ArrayRef, AsArray, BooleanArray, Int64Array, ListArray, RecordBatch, StringArray, StringViewArray,
        new_null_array,
    },
    buffer::OffsetBuffer,
    compute::{cast, concat_batches, filter_record_batch, nullif},
    datatypes::{DataType as ArrowType, Int64Type},
};
use proptest::prelude::*;
use tidemill_storage::{
    ids::{ColumnId, OffsetRange, PartitionId, SchemaVersion, SegmentId, SourceId, StreamId, TableId},
    row_set::RowSet,
    scalar::{Scalar, compare_floats},
    scan::{Addresses, ScanHints, ScanRequest, address_of, addressed},
    schema::{Column, DataType, Merge, TableSchema},
    segment::{
        Segment,
        builder::{SealContext, seal_sorted},
        committed::{Expected, open},
        consuming::ConsumingSegment,
    },
    table::{Change, PartitionWriter, Rewriting, Table, TableSnapshot},
    testing::{
        Random,
        generate::{self, Shape},
        oracle::{Row, Value, rows_of},
    },
    upsert::{Keep, KeySpec, Provenance},
};

const KEY: ColumnId = ColumnId(0);
const VERSION: ColumnId = ColumnId(1);
const DELETED: ColumnId = ColumnId(2);
/// Columns before those with values.
const FIRST: usize = 3;

/// A new schema of random columns; the second one has a column more.
fn schemas(random: &mut Random) -> [Arc<TableSchema>; 2] {
    let mut columns = vec![
        Column { nullable: false, ..Column::new(KEY, "key", DataType::BigInt) },
        Column::new(VERSION, "version", DataType::BigInt),
        Column::new(DELETED, "deleted", DataType::Boolean),
    ];
    let count = 2 + random.below(5);
    for index in 0..count {
        let merge = *random.pick(&Merge::ALL);
        let types: Vec<DataType> = generate::every_type().into_iter().filter(|known| merge.takes(known)).collect();
        let data_type = random.pick(&types).clone();
        let default = if random.one_in(3) { generate::scalar(random, &data_type) } else { None };
        // The last one is added to a table that has rows.
        let must_have_some = default.is_none() && index + 1 == count;
        columns.push(Column {
            nullable: must_have_some || random.one_in(2),
            default,
            merge,
            ..Column::new(ColumnId(10 + index as u32), format!("c{index}"), data_type)
        });
    }
    let second = TableSchema { version: SchemaVersion(2), columns, time_column: None };
    let mut first = TableSchema { version: SchemaVersion(1), ..second.clone() };
    first.columns.pop();
    [Arc::new(first), Arc::new(second)]
}

/// Rows of one stream on their way, with all columns.
struct Stream {
    id: StreamId,
    /// In the schema in which rows arrive.
    batch: RecordBatch,
    rows: Vec<Row>,
    offsets: Vec<u64>,
    /// Which of its message each row is.
    ordinals: Vec<i64>,
}

fn streams(random: &mut Random, arriving: &TableSchema, count: usize) -> Vec<Stream> {
    let keys = 1 + random.below(count);
    let versions = 1 + random.below(20);
    let shape = *random.pick(&[Shape::Few, Shape::Any]);
    let values = TableSchema { columns: arriving.columns[FIRST..].to_vec(), ..arriving.clone() };
    let ids = (0..3).map(|index| StreamId { source: SourceId(1 + index / 2), partition: index as u32 % 2 });
    let streams = ids.map(|id| {
        let rows = count / 3 + 1;
        let made = generate::batch(random, &values, &vec![shape; values.columns.len()], 0, rows);
        let brings = 1 + random.below(4);
        let mut columns: Vec<ArrayRef> = vec![
            Arc::new((0..rows).map(|_| Some(random.below(keys) as i64)).collect::<Int64Array>()),
            Arc::new(
                (0..rows).map(|_| (!random.one_in(5)).then(|| random.below(versions) as i64)).collect::<Int64Array>(),
            ),
            Arc::new(
                (0..rows)
                    .map(|_| *random.pick(&[None, Some(false), Some(false), Some(true)]))
                    .collect::<BooleanArray>(),
            ),
        ];
        for (column, array) in values.columns.iter().zip(made.columns()) {
            let absent: BooleanArray = (0..rows).map(|_| Some(column.nullable && !random.one_in(brings))).collect();
            columns.push(nullif(array, &absent).unwrap());
        }
        let batch = RecordBatch::try_new(arriving.arrow(), columns).unwrap();
        let (mut offsets, mut ordinals): (Vec<u64>, Vec<i64>) = (vec![0], vec![0]);
        for row in 1..rows {
            let step = *random.pick(&[0, 1, 1, 1, 3]);
            offsets.push(offsets[row - 1] + step);
            ordinals.push(if step == 0 { ordinals[row - 1] + 1 } else { 0 });
        }
        let types: Vec<DataType> = arriving.columns.iter().map(|column| column.data_type.clone()).collect();
        Stream { id, rows: rows_of(&types, &batch), batch, offsets, ordinals }
    });
    streams.collect()
}

/// Whether there is a version, or there is none; the version; source, partition, offset, row of the message.
type Rank = (bool, i64, u64, u32, u64, i64);

/// What happened to the table, in order.
#[derive(Clone, Debug)]
enum Event {
    /// A row of a stream came, while the table had so many columns.
    Row {
        stream: usize,
        row: usize,
        columns: usize,
    },
    Deleted(i64),
    /// A statement set a column.
    Set(i64, usize, Value),
}

struct Model<'a> {
    spec: &'a KeySpec,
    columns: &'a [Column],
    streams: &'a [Stream],
}

#[derive(Clone)]
struct Winner {
    rank: Rank,
    is_there: bool,
    values: Row,
}

impl Model<'_> {
    /// The rows that are seen, by key: the version, and the values.
    fn seen(&self, events: &[Event]) -> BTreeMap<i64, Row> {
        let mut winners: HashMap<i64, Winner> = HashMap::new();
        for event in events {
            match event {
                Event::Row { stream, row, columns } => self.take(&mut winners, &self.streams[*stream], *row, *columns),
                Event::Deleted(key) => winners.get_mut(key).unwrap().is_there = false,
                Event::Set(key, column, value) => {
                    let winner = winners.get_mut(key).unwrap();
                    assert!(winner.is_there);
                    winner.rank.5 += 1 << 32;
                    winner.values[*column] = value.clone();
                }
            }
        }
        let there = winners.into_iter().filter(|(_, winner)| winner.is_there);
        there.map(|(key, winner)| (key, winner.values.iter().map(plain).collect())).collect()
    }

    fn take(&self, winners: &mut HashMap<i64, Winner>, stream: &Stream, row: usize, columns: usize) {
        let values = &stream.rows[row];
        let Value::One(Scalar::Int(key)) = values[0] else { panic!("a row without a key") };
        let version = match values[1] {
            Value::One(Scalar::Int(version)) if self.spec.version.is_some() => Some(version),
            _ => None,
        };
        let StreamId { source, partition } = stream.id;
        let place = (source.0, partition, stream.offsets[row], stream.ordinals[row]);
        let rank = (version.is_some(), version.unwrap_or(0), place.0, place.1, place.2, place.3);
        let deletes = self.spec.delete.is_some() && values[2] == Value::One(Scalar::Boolean(true));
        // What a table does not have yet no row brings.
        let brought = |at: usize| if at < columns { values[at].clone() } else { Value::Null };
        let known = winners.get(&key);
        if known.is_some_and(|known| rank <= known.rank) {
            return;
        }
        let base = known.filter(|known| known.is_there && !deletes);
        let merged = (FIRST..self.columns.len()).map(|at| match (base, &self.columns[at]) {
            (Some(base), column) => merge(column, &base.values[at - FIRST], brought(at)),
            (None, column) => match (brought(at), &column.default) {
                (Value::Null, Some(default)) => Value::One(default.clone()),
                (Value::List(items), _) if column.merge == Merge::Union => union(Vec::new(), items),
                (value, _) => value,
            },
        });
        let values = merged.collect();
        winners.insert(key, Winner { rank, is_there: !deletes, values });
    }
}

fn merge(column: &Column, old: &Value, new: Value) -> Value {
    let (old, new) = match (old, new) {
        (Value::Null, Value::List(items)) if column.merge == Merge::Union => return union(Vec::new(), items),
        (Value::Null, new) => return new,
        (old, Value::Null) => return old.clone(),
        (old, new) => (old.clone(), new),
    };
    match (column.merge, old, new) {
        (Merge::Overwrite, _, new) => new,
        (Merge::Ignore, old, _) => old,
        (Merge::Append, Value::List(old), Value::List(new)) => Value::List(old.into_iter().chain(new).collect()),
        (Merge::Union, Value::List(old), Value::List(new)) => union(old, new),
        (Merge::Increment, Value::One(old), Value::One(new)) => Value::One(sum(&column.data_type, old, new)),
        (Merge::Max, Value::One(old), Value::One(new)) => {
            Value::One(if new.compare(&old).unwrap().is_gt() { new } else { old })
        }
        (Merge::Min, Value::One(old), Value::One(new)) => {
            Value::One(if new.compare(&old).unwrap().is_lt() { new } else { old })
        }
        (rule, old, new) => panic!("{rule:?} of {old:?} and {new:?}"),
    }
}

fn union(mut old: Vec<Option<Scalar>>, new: Vec<Option<Scalar>>) -> Value {
    let is_same = |a: &Option<Scalar>, b: &Option<Scalar>| match (a, b) {
        (Some(Scalar::Float(a)), Some(Scalar::Float(b))) => compare_floats(*a, *b).is_eq(),
        (a, b) => a == b,
    };
    for item in new {
        if !old.iter().any(|known| is_same(known, &item)) {
            old.push(item);
        }
    }
    Value::List(old)
}

fn sum(data_type: &DataType, old: Scalar, new: Scalar) -> Scalar {
    let within = |value: i128, limit: i128| value.clamp(-limit, limit);
    match (old, new) {
        (Scalar::Int(a), Scalar::Int(b)) => {
            let limit = match data_type {
                DataType::SmallInt => i128::from(i16::MAX),
                DataType::Int => i128::from(i32::MAX),
                _ => i128::from(i64::MAX),
            };
            Scalar::Int((i128::from(a) + i128::from(b)).clamp(-limit - 1, limit) as i64)
        }
        (Scalar::Float(a), Scalar::Float(b)) if *data_type == DataType::Real => {
            Scalar::Float(f64::from(a as f32 + b as f32))
        }
        (Scalar::Float(a), Scalar::Float(b)) => Scalar::Float(a + b),
        (Scalar::Decimal(a), Scalar::Decimal(b)) => {
            let DataType::Numeric { precision, .. } = data_type else { panic!("decimals are numeric") };
            Scalar::Decimal(within(a + b, 10_i128.pow(u32::from(*precision)) - 1))
        }
        (a, b) => panic!("a sum of {a:?} and {b:?}"),
    }
}

/// One NaN: which of them a sum is nobody says.
fn plain(value: &Value) -> Value {
    match value {
        Value::One(Scalar::Float(float)) if float.is_nan() => Value::One(Scalar::Float(f64::NAN)),
        other => other.clone(),
    }
}

struct Machine<'a> {
    dir: &'a Path,
    spec: KeySpec,
    schema: Arc<TableSchema>,
    table: Table,
    writer: PartitionWriter,
    sealing: Vec<Arc<ConsumingSegment>>,
    committed: Vec<Arc<dyn Segment>>,
    deleted: BTreeMap<SegmentId, RowSet>,
    /// Rows of each stream that were appended.
    appended: Vec<usize>,
    /// The same, of ended segments.
    ended: Vec<(SegmentId, Vec<usize>)>,
    events: Vec<Event>,
}

impl<'a> Machine<'a> {
    fn new(dir: &'a Path, spec: KeySpec, schema: &Arc<TableSchema>) -> Self {
        let table = Table::with_key(TableId(1), Arc::clone(schema), 1, Some(spec.clone()));
        let partition = Arc::clone(&table.partitions()[0]);
        let writer = PartitionWriter::open(partition, Arc::clone(schema), SegmentId(1), &[], &[]).unwrap();
        Self {
            dir,
            spec,
            schema: Arc::clone(schema),
            table,
            writer,
            sealing: Vec::new(),
            committed: Vec::new(),
            deleted: BTreeMap::new(),
            appended: vec![0; 3],
            ended: Vec::new(),
            events: Vec::new(),
        }
    }

    /// Appends the next rows of a stream, whole messages.
    fn append(&mut self, streams: &[Stream], stream: usize, wanted: usize) {
        let Stream { id, batch, offsets, .. } = &streams[stream];
        let at = self.appended[stream];
        let mut end = offsets.len().min(at + wanted);
        while end < offsets.len() && end > at && offsets[end] == offsets[end - 1] {
            end += 1;
        }
        let from = if at == 0 { 0 } else { offsets[at - 1] + 1 };
        let to = if end == at { from } else { offsets[end - 1] + 1 };
        let columns = self.schema.columns.len();
        let rows = batch.slice(at, end - at).project(&(0..columns).collect::<Vec<_>>()).unwrap();
        let progress = OffsetRange { stream: *id, from, to };
        self.writer.append_from(&rows, || Provenance::of(*id, &offsets[at..end]), &[progress]).unwrap();
        self.events.extend((at..end).map(|row| Event::Row { stream, row, columns }));
        self.appended[stream] = end;
    }

    /// One of the rows that were appended comes once more.
    fn repeat(&mut self, random: &mut Random, streams: &[Stream]) {
        let stream = random.below(streams.len());
        let Stream { id, batch, offsets, ordinals, .. } = &streams[stream];
        let row = random.below(offsets.len());
        if row < self.appended[stream] && ordinals[row] == 0 {
            let rows = batch.slice(row, 1).project(&(0..self.schema.columns.len()).collect::<Vec<_>>()).unwrap();
            self.writer.append_from(&rows, || Provenance::of(*id, &offsets[row..=row]), &[]).unwrap();
        }
    }

    fn rotate(&mut self) {
        if let Some(ended) = self.writer.rotate(Arc::clone(&self.schema)) {
            self.ended.push((ended.id(), self.appended.clone()));
            self.sealing.push(ended);
        }
    }

    fn commit(&mut self, by: &[ColumnId]) {
        if self.sealing.is_empty() {
            return;
        }
        let ended = self.sealing.remove(0);
        if ended.rows() == 0 {
            self.writer.partition().remove(&[ended.id()]);
            return;
        }
        let (segment, order) = self.written(&ended, by);
        self.writer.replace(Arc::clone(&segment), order.as_deref()).unwrap();
        self.committed.push(segment);
    }

    fn written(&self, rows: &ConsumingSegment, by: &[ColumnId]) -> (Arc<dyn Segment>, Option<Arc<[u32]>>) {
        let context = SealContext { table: TableId(1), partition: PartitionId(0), created_at_us: 0 };
        let file = seal_sorted(rows, self.dir, &format!("s{}", rows.id()), &context, by).unwrap();
        let expected = Expected { id: rows.id(), bytes: file.bytes, checksum: file.checksum };
        (open(&file.path, &expected).unwrap(), file.order)
    }

    /// A statement deletes some of the rows that are seen in committed segments, or sets a column of them to what the first of them has.
    fn change(&mut self, random: &mut Random, by: &[ColumnId]) {
        let addressed = Arc::new(addressed(&self.schema));
        let request = Arc::new(request(&addressed));
        let (mut gone, mut batches, share) = (Addresses::default(), Vec::new(), 1 + random.below(4));
        for unit in self.table.snapshot().plan(&request).units {
            for batch in unit.scan(&request, &Arc::default()).unwrap() {
                let batch = batch.unwrap();
                let picked: BooleanArray = (0..batch.num_rows()).map(|_| Some(random.one_in(share))).collect();
                let batch = filter_record_batch(&batch, &picked).unwrap();
                let taken = BooleanArray::from(gone.take(&batch).unwrap());
                batches.push(filter_record_batch(&batch, &taken).unwrap());
            }
        }
        let deleted: Vec<(SegmentId, RowSet)> = gone.segments().map(|(_, id, rows)| (id, rows.clone())).collect();
        assert!(self.writer.are_seen(&deleted));
        let all = concat_batches(&addressed.arrow(), &batches).unwrap();
        if all.num_rows() == 0 {
            return;
        }
        let keys = all.column(0).as_primitive::<Int64Type>().values().to_vec();
        let mut added = None;
        if random.one_in(2) {
            self.events.extend(keys.iter().map(|key| Event::Deleted(*key)));
        } else {
            let written = self.writer.written(Arc::clone(&self.schema));
            let column = FIRST + random.below(self.schema.columns.len() - FIRST);
            let types: Vec<DataType> = self.schema.columns.iter().map(|column| column.data_type.clone()).collect();
            let first =
                rows_of(&types, &all.project(&(0..types.len()).collect::<Vec<_>>()).unwrap())[0][column].clone();
            self.events.extend(keys.iter().map(|key| Event::Set(*key, column - FIRST, first.clone())));
            let mut columns = all.columns()[..types.len()].to_vec();
            let zeros = arrow::array::UInt32Array::from(vec![0; keys.len()]);
            columns[column] = arrow::compute::take(&columns[column], &zeros, None).unwrap();
            let mut provenance = Vec::new();
            for address in address_of(&all).unwrap() {
                let (_, id, row) = address.unwrap();
                let segment = self.committed.iter().find(|segment| segment.id() == id).unwrap();
                provenance.push(Provenance::of_changed(segment.as_ref(), &[row], self.spec.keep).unwrap());
            }
            columns.extend(Provenance::concat(&provenance).unwrap().columns().iter().cloned());
            let rows = RecordBatch::try_new(written.arrow(), columns).unwrap();
            let segment = ConsumingSegment::new(self.writer.take_id(), written).with(&rows, &[]).unwrap();
            added = Some(self.written(&segment, by).0);
            self.committed.extend(added.clone());
        }
        deleted.iter().for_each(|(id, rows)| self.deleted.entry(*id).or_default().add(rows));
        let prepared = self.writer.prepare_change(Change { added, deleted }).unwrap();
        self.writer.change(prepared);
    }

    /// Puts one segment in the places of some committed ones.
    fn compact(&mut self, random: &mut Random, by: &[ColumnId]) {
        let is_picked = |segment: &&Arc<dyn Segment>| segment.schema().version == self.schema.version;
        let picked: Vec<_> = self.committed.iter().filter(is_picked).filter(|_| !random.one_in(3)).cloned().collect();
        let written = self.writer.written(Arc::clone(&self.schema));
        let columns: Vec<ColumnId> = written.columns.iter().map(|column| column.id).collect();
        let (mut from, mut rows) = (Vec::new(), Vec::new());
        let view = self.writer.partition().view();
        for segment in &picked {
            let needed = self.writer.needed(segment.id()).unwrap();
            let validity = view.validities().of(segment.id());
            let is_kept = |row: &u32| validity.is_none_or(|known| known.is_valid(*row)) || needed.contains(*row);
            let kept: Vec<u32> = (0..segment.rows()).filter(is_kept).collect();
            from.extend(kept.iter().map(|row| (segment.id(), *row)));
            rows.push(RecordBatch::try_new(written.arrow(), segment.take(&columns, &kept).unwrap()).unwrap());
        }
        let id = self.writer.take_id();
        let mut new = None;
        if !from.is_empty() {
            let all = concat_batches(&written.arrow(), &rows).unwrap();
            let segment = ConsumingSegment::new(id, written).with(&all, &[]).unwrap();
            let (segment, order) = self.written(&segment, by);
            if let Some(order) = order {
                from = order.iter().map(|row| from[*row as usize]).collect();
            }
            new = Some(segment);
        }
        let retired: Vec<SegmentId> = picked.iter().map(|segment| segment.id()).collect();
        let is_deleted =
            |(id, row): &(SegmentId, u32)| self.deleted.get(id).is_some_and(|deleted| deleted.contains(*row));
        let deleted: RowSet = (0..).zip(&from).filter(|(_, old)| is_deleted(old)).map(|(row, _)| row).collect();
        let rewriting = Rewriting { new: new.clone(), from, retired: retired.clone(), ..Default::default() };
        let prepared = self.writer.prepare_rewrite(rewriting).unwrap();
        self.committed.retain(|segment| !retired.contains(&segment.id()));
        self.deleted.retain(|id, _| !retired.contains(id));
        self.committed.extend(new);
        self.deleted.insert(id, deleted);
        self.writer.rewrite(prepared);
    }

    /// What a crash leaves: the committed segments, streams that go on where these end, and what statements did.
    fn restart(&mut self) {
        let waiting = self.sealing.drain(..).map(|segment| segment.id()).min();
        self.ended.retain(|(id, _)| waiting.is_none_or(|waiting| *id < waiting));
        self.appended = self.ended.last().map_or(vec![0; 3], |(_, appended)| appended.clone());
        let appended = self.appended.clone();
        self.events.retain(|event| match event {
            Event::Row { stream, row, .. } => *row < appended[*stream],
            _ => true,
        });
        let ids = self.ended.iter().map(|(id, _)| id.0).chain(self.committed.iter().map(|segment| segment.id().0));
        let next = SegmentId(ids.max().map_or(1, |id| id + 1));
        self.table = Table::with_key(TableId(1), Arc::clone(&self.schema), 1, Some(self.spec.clone()));
        let partition = &self.table.partitions()[0];
        self.committed.iter().for_each(|segment| partition.put(Arc::clone(segment)));
        let deleted: Vec<_> = self.deleted.iter().map(|(id, rows)| (*id, rows.clone())).collect();
        self.writer =
            PartitionWriter::open(Arc::clone(partition), Arc::clone(&self.schema), next, &deleted, &[]).unwrap();
    }

    fn alter(&mut self, schema: &Arc<TableSchema>) {
        self.rotate();
        self.schema = Arc::clone(schema);
        self.table.set_schema(Arc::clone(schema));
        assert!(self.writer.rotate(Arc::clone(schema)).is_none());
    }
}

fn request(schema: &Arc<TableSchema>) -> ScanRequest {
    ScanRequest {
        projection: schema.columns.iter().map(|column| column.id).collect(),
        schema: Arc::clone(schema),
        predicate: None,
        limit: None,
        batch_rows: 8192,
        hints: ScanHints::default(),
    }
}

/// The values of each key that is seen.
fn seen(snapshot: &TableSnapshot) -> BTreeMap<i64, Row> {
    let request = Arc::new(request(&snapshot.schema));
    let types: Vec<DataType> = snapshot.schema.columns.iter().map(|column| column.data_type.clone()).collect();
    let mut found = BTreeMap::new();
    for unit in snapshot.plan(&request).units {
        for batch in unit.scan(&request, &Arc::default()).unwrap() {
            for row in rows_of(&types, &batch.unwrap()) {
                let Value::One(Scalar::Int(key)) = row[0] else { panic!("a row without a key") };
                assert!(found.insert(key, row[FIRST..].iter().map(plain).collect()).is_none(), "key {key} twice");
            }
        }
    }
    assert_eq!(snapshot.rows(), found.len() as u64);
    found
}

fn check(seed: u64, count: usize) {
    let mut random = Random::new(seed);
    let random = &mut random;
    let [first, second] = schemas(random);
    let spec = KeySpec {
        columns: vec![KEY],
        version: (!random.one_in(3)).then_some(VERSION),
        delete: (!random.one_in(3)).then_some(DELETED),
        keep: Keep::Last,
        keeps_losers: random.one_in(2),
        late: None,
        merges: true,
        ages: None,
    };
    let streams = streams(random, &spec.arriving(&second), count);
    let model = Model { spec: &spec, columns: &second.columns, streams: &streams };
    let dir = tempfile::tempdir().unwrap();
    let mut machine = Machine::new(dir.path(), spec.clone(), &first);
    let by: &[ColumnId] = random.pick::<&[ColumnId]>(&[&[], &[KEY], &[VERSION, KEY]]);
    let alter_at = random.below(80);
    for step in 0..60 {
        if step == alter_at {
            machine.alter(&second);
        }
        match random.below(12) {
            0 | 1 => machine.rotate(),
            2..=4 => machine.commit(by),
            5 => machine.change(random, by),
            6 if random.one_in(3) => machine.restart(),
            7 => machine.compact(random, by),
            8 => machine.repeat(random, &streams),
            _ => {
                let stream = random.below(streams.len());
                machine.append(&streams, stream, 1 + random.below(count));
            }
        }
        let columns = machine.schema.columns.len() - FIRST;
        let mut wanted = model.seen(&machine.events);
        wanted.values_mut().for_each(|row| row.truncate(columns));
        assert_eq!(seen(&machine.table.snapshot()), wanted, "seed {seed}, step {step}");
    }
    machine.rotate();
    while !machine.sealing.is_empty() {
        machine.commit(by);
    }
    let before = seen(&machine.table.snapshot());
    machine.restart();
    assert_eq!(seen(&machine.table.snapshot()), before, "seed {seed}, at the end");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 250, ..ProptestConfig::default() })]

    #[test]
    fn rows_are_merged_as_the_model_merges_them(seed: u64, count in prop_oneof![1usize..12, 1usize..200, 200usize..600]) {
        check(seed, count);
    }
}

/// More rows of a key than there are in a batch, and a sum that reaches the end of its type.
#[test]
fn many_rows_of_one_key() {
    let column = |id, name: &str, data_type, merge| Column { merge, ..Column::new(ColumnId(id), name, data_type) };
    let tags = DataType::Array(Box::new(DataType::Text));
    let columns = vec![
        Column { nullable: false, ..column(0, "key", DataType::BigInt, Merge::Overwrite) },
        column(1, "version", DataType::BigInt, Merge::Overwrite),
        column(2, "deleted", DataType::Boolean, Merge::Overwrite),
        column(10, "small", DataType::SmallInt, Merge::Increment),
        column(11, "total", DataType::BigInt, Merge::Increment),
        column(12, "all", tags.clone(), Merge::Append),
        column(13, "some", tags.clone(), Merge::Union),
    ];
    let schema = Arc::new(TableSchema { version: SchemaVersion(1), columns, time_column: None });
    let spec = KeySpec {
        columns: vec![KEY],
        version: None,
        delete: None,
        keep: Keep::Last,
        keeps_losers: true,
        late: None,
        merges: true,
        ages: None,
    };
    let table = Table::with_key(TableId(1), Arc::clone(&schema), 1, Some(spec));
    let partition = Arc::clone(&table.partitions()[0]);
    let mut writer = PartitionWriter::open(partition, Arc::clone(&schema), SegmentId(1), &[], &[]).unwrap();
    let stream = StreamId { source: SourceId(1), partition: 0 };
    let rows = 10_000;
    for step in 0..4 {
        let first = step * rows as u64;
        let ones = Int64Array::from(vec![1; rows]);
        let texts: ArrayRef =
            Arc::new((0..rows as u64).map(|row| Some((first + row).to_string())).collect::<StringArray>());
        let list = |texts: ArrayRef| -> ArrayRef {
            let ArrowType::List(item) = tags.arrow() else { panic!("a list") };
            let texts = cast(&texts, &ArrowType::Utf8View).unwrap();
            Arc::new(ListArray::new(item, OffsetBuffer::from_lengths(vec![1; rows]), texts, None))
        };
        let few: ArrayRef = Arc::new((0..rows).map(|row| Some((row % 40).to_string())).collect::<StringViewArray>());
        let columns = vec![
            Arc::new(Int64Array::from(vec![7; rows])) as ArrayRef,
            new_null_array(&ArrowType::Int64, rows),
            new_null_array(&ArrowType::Boolean, rows),
            cast(&ones, &ArrowType::Int16).unwrap(),
            Arc::new(ones),
            list(texts),
            list(few),
        ];
        let batch = RecordBatch::try_new(schema.arrow(), columns).unwrap();
        let offsets: Vec<u64> = (first..first + rows as u64).collect();
        let progress = OffsetRange { stream, from: first, to: first + rows as u64 };
        writer.append_from(&batch, || Provenance::of(stream, &offsets), &[progress]).unwrap();
        if step % 2 == 1 {
            writer.rotate(Arc::clone(&schema));
        }
    }
    let seen = seen(&table.snapshot());
    let row = &seen[&7];
    assert_eq!(row[..2], [Value::One(Scalar::Int(i16::MAX.into())), Value::One(Scalar::Int(4 * rows as i64))]);
    let all = table.snapshot().with_every_version();
    assert_eq!(all.rows(), 4, "one row of a key is stored for each batch");
    let (Value::List(all), Value::List(some)) = (&row[2], &row[3]) else { panic!("{row:?}") };
    assert_eq!((all.len(), some.len()), (10_000, 40));
    assert_eq!(all[9_999], Some(Scalar::Text("9999".into())));
}
