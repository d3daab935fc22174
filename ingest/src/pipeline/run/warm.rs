//! The state of another query over the same sources: made of what is retained, up to where the pipeline stands, before the query takes the place of the one that runs.
//!
//! ```text
//! sources ─ from the beginning, up to the positions of the old query's last checkpoint ─► machine of the new query ─► a checkpoint that follows that one
//!                                                                                         └─ rows: given by the old query, so dropped
//! ```
//!
//! It reads beside the pipeline, first up to where that is, and once it stands still the rest. What always holds: the checkpoint has the positions of the old one and the end of its log, so nothing is read twice or left out.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tidemill_storage::ids::StreamId;

use super::{
    super::{
        machine::{Arrival, Machine, MachineSource, state_file},
        services::HttpService,
    },
    CheckpointRecord, PipelineSpec, RunOptions,
    checkpoint::file_name,
    copies::Copies,
    inputs::Inputs,
    shared::Shared,
    spilled::Spilled,
};
use crate::{
    Error, Result, consumer::batch::cut_at, deep_store::DeepStore, landmark::Landmark, runtime::IngestRuntime,
    source::Start,
};

const TURN: Duration = Duration::from_millis(50);
/// How long nothing may come before it is given up.
const PATIENCE_US: i64 = 30_000_000;

/// Positions of streams.
pub type Positions = BTreeMap<StreamId, u64>;

/// The query to come, while it catches up.
pub struct Warming {
    shared: Arc<Shared>,
    inputs: Inputs,
    machine: Machine,
    options: RunOptions,
}

impl Warming {
    /// What `spec` says of checkpoints, sinks and the log is not used.
    pub fn new(runtime: &Arc<IngestRuntime>, spec: PipelineSpec) -> Result<Self> {
        let shared = Shared::new(spec.id, spec.name, spec.options.clone(), runtime, false);
        let mut tables = spec.tables;
        for address in spec.plan.services() {
            let asking = Arc::clone(&shared);
            let services = spec.options.services.clone();
            let clock = Arc::clone(&shared.clock);
            tables.push(Arc::new(HttpService::new(address.clone(), services, clock, move || asking.gives_up())?));
        }
        let inputs = spec.inputs.into_iter().map(|input| super::Input { start: Start::Earliest, ..input }).collect();
        let inputs = Inputs::new(&shared, inputs);
        let source = |input: &super::Input| MachineSource { id: input.id, watermark: input.watermark.clone() };
        let sources: Arc<[MachineSource]> = inputs.all().iter().map(source).collect();
        let spilled = Arc::new(Spilled::new(&spec.directory, || {}));
        let machine = Machine::new(spec.plan, sources, tables.into(), spec.options.settings(spilled))?;
        Ok(Self { shared, inputs, machine, options: spec.options })
    }

    /// Takes all that is retained before `positions`. Blocks.
    pub fn feed(&mut self, positions: &Positions) -> Result<()> {
        // What was read past positions of the last time was dropped, and is read again.
        self.inputs.start(&self.machine)?;
        let fed = self.feed_all(positions);
        self.inputs.stop();
        fed
    }

    fn feed_all(&mut self, positions: &Positions) -> Result<()> {
        let mut came_us = self.shared.clock.monotonic_us();
        loop {
            let reached: Positions = self.machine.progress().positions.into_iter().collect();
            if positions.iter().all(|(stream, wanted)| reached.get(stream).is_some_and(|at| at >= wanted)) {
                return Ok(());
            }
            let now_us = self.shared.clock.monotonic_us();
            let behind = self.machine.behind();
            let Some(arrival) = self.inputs.next(&behind, false, &[], TURN)? else {
                if now_us - came_us > PATIENCE_US {
                    let why = self.shared.input_error().unwrap_or_else(|| "a source gives nothing".into());
                    return Err(Error::Unavailable(format!("the new query does not catch up: {why}")));
                }
                continue;
            };
            came_us = now_us;
            let Some(arrival) = before(arrival, positions) else { continue };
            // Its rows and letters were given by the query before it.
            self.machine.apply(&arrival)?;
            let (bytes, limit) = (self.machine.size().0 as u64, self.options.memory_limit);
            if bytes > limit {
                return Err(Error::Unavailable(format!(
                    "the state of the new query takes {bytes} bytes, and memory_limit is {limit}"
                )));
            }
        }
    }

    /// The checkpoint that follows `base`, with its state in a file, durable; it counts when somebody records it.
    pub fn checkpoint(
        mut self,
        directory: &Path,
        base: &CheckpointRecord,
        deep_store: Option<DeepStore>,
    ) -> Result<CheckpointRecord> {
        let (known, _) = state_file::open(directory, &base.state)?;
        // What the old query gave because partitions were silent, or read in another order, is not given again.
        self.machine.follow(&known.time)?;
        let mut picture = self.machine.picture()?;
        picture.progress.counts = known.counts;
        picture.progress.positions = base.positions.clone();
        picture.progress.landmarks = known.landmarks;
        let id = base.id + 1;
        let record = CheckpointRecord {
            id,
            at_us: self.shared.clock.now_us(),
            duration_us: 0,
            state: state_file::write(directory, &file_name(id), &picture)?,
            spilled: picture.spilled()?,
            diary: None,
            groups: picture.parts.iter().map(|part| part.rows as u64).sum(),
            dead_letters: None,
            replayed: Vec::new(),
            ..base.clone()
        };
        if let Some(store) = deep_store {
            Copies::new(store).keep(directory, &record)?;
        }
        Ok(record)
    }
}

impl Drop for Warming {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        self.inputs.stop();
    }
}

/// What of an arrival is before positions.
fn before(mut arrival: Arrival, positions: &Positions) -> Option<Arrival> {
    let stream = match &arrival {
        Arrival::Rows { batch, .. } => batch.stream,
        Arrival::Begin { stream, .. } | Arrival::Flow { stream, .. } | Arrival::Skip { stream, .. } => *stream,
        Arrival::Known { .. } | Arrival::Again { .. } | Arrival::Give | Arrival::Spill { .. } => return Some(arrival),
    };
    // A stream that the old query does not know begins when the new one takes its place.
    let wanted = *positions.get(&stream)?;
    if let Arrival::Rows { batch, landmark, .. } = &mut arrival {
        if batch.from >= wanted {
            return None;
        }
        if batch.to > wanted {
            cut_at(batch, wanted);
            *landmark = batch.origin.as_ref().and_then(|origin| Landmark::last_below(origin, wanted));
        }
    }
    Some(arrival)
}
