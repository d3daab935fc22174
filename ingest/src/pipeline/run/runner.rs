//! The thread that processes: arrivals into the machine, its rows into the log, its pictures to the writer.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tidemill_storage::ids::{SourceId, StreamId};

use super::{
    super::{
        machine::{Arrival, Machine, MachineSource, Outcome},
        plan::Plan,
        tables::TableRows,
    },
    Output, RunOptions,
    checkpoints::{Checkpoints, Written},
    delivery::Deliveries,
    inputs::{Bell, Inputs},
    limit::{OverLimit, Retained},
    renewal::Blueprint,
    shared::Shared,
    spilled::Spilled,
    stepper::{Step, Stepper},
    watch::Pressure,
};
use crate::{
    Error, Result,
    consumer::{committing::panic_text, pace::backoff},
    dead_letters::{DeadLetterBuffer, OnError},
    events::Severity,
};

/// Rows of one frame of the log.
const FRAME_ROWS: usize = 64 * 1024;
const TURN: Duration = Duration::from_millis(20);
/// Groups that change are given so often.
const GIVE_EVERY_US: i64 = 100_000;
/// How often sizes and options are looked at.
const LOOK_EVERY_US: i64 = 50_000;
/// A pipeline that failed is sound again when it takes rows, or has worked for so long.
const SOUND_AFTER_US: i64 = 2_000_000;
/// How often others are told how far the pipeline is, as long as there is always more to do.
const TELL_EVERY_US: i64 = 50_000;

pub(super) struct Runner {
    pub(super) shared: Arc<Shared>,
    pub(super) plan: Arc<Plan>,
    blueprint: Blueprint,
    pub(super) inputs: Inputs,
    pub(super) directory: PathBuf,
    pub(super) output: Arc<Output>,
    pub(super) deliveries: Arc<Deliveries>,
    pub(super) machine: Machine,
    stepper: Stepper,
    /// Stands in the machine's place while a step goes on.
    spare: Option<Machine>,
    pub(super) checkpoints: Checkpoints,
    spilled: Arc<Spilled>,
    /// What was applied since the base of the checkpoints.
    retained: Retained,
    /// Something is to be kept.
    pub(super) is_dirty: bool,
    /// The checkpoint that has this opening's mark is there.
    is_marked: bool,
    pub(super) options: RunOptions,
    looked_us: i64,
    given_us: i64,
    pub(super) told_us: i64,
    /// Something changed that others were not told.
    pub(super) is_untold: bool,
    pub(super) over_limit: Option<OverLimit>,
    pub(super) pressure: Pressure,
    /// Why nothing is taken for now, apart from that.
    pub(super) held: Option<String>,
    /// And whether the sink that holds it takes nothing at all.
    pub(super) is_held_by_trouble: bool,
}

/// What a runner works on.
pub(super) struct Works {
    pub(super) plan: Arc<Plan>,
    pub(super) tables: Arc<[Arc<dyn TableRows>]>,
    pub(super) inputs: Inputs,
    pub(super) directory: PathBuf,
    pub(super) output: Arc<Output>,
    pub(super) deliveries: Arc<Deliveries>,
    pub(super) checkpoints: Checkpoints,
    pub(super) spilled: Spilled,
}

impl Runner {
    pub(super) fn new(shared: Arc<Shared>, works: Works) -> Result<Self> {
        let Works { plan, tables, inputs, directory, output, deliveries, checkpoints, spilled } = works;
        let spilled = Arc::new(spilled);
        let source = |input: &super::Input| MachineSource { id: input.id, watermark: input.watermark.clone() };
        let sources: Arc<[MachineSource]> = inputs.all().iter().map(source).collect();
        let options = shared.options();
        // The checkpoint is read when the thread begins.
        let blueprint = Blueprint { plan: Arc::clone(&plan), sources, tables };
        let machine = blueprint.machine(options.settings(Arc::clone(&spilled) as _))?;
        Ok(Self {
            stepper: Stepper::new(&shared),
            spare: None,
            is_marked: deliveries.boards.is_empty(),
            shared,
            plan,
            blueprint,
            inputs,
            directory,
            output,
            deliveries,
            machine,
            checkpoints,
            spilled,
            retained: Retained::default(),
            is_dirty: false,
            options,
            looked_us: 0,
            given_us: 0,
            told_us: 0,
            is_untold: true,
            over_limit: None,
            pressure: Pressure::default(),
            held: None,
            is_held_by_trouble: false,
        })
    }

    pub(super) fn run(mut self) {
        let mut failures = 0;
        let mut is_sound = self.rebuild();
        loop {
            let worked = match is_sound {
                Ok(()) => catch_unwind(AssertUnwindSafe(|| self.work(&mut failures)))
                    .unwrap_or_else(|panic| Err(Error::Unavailable(format!("it panicked: {}", panic_text(&*panic))))),
                Err(error) => Err(error),
            };
            let is_asked = self.shared.was_asked_restart();
            if is_asked && worked.is_err() {
                self.inputs.abandon()
            } else {
                self.inputs.stop()
            }
            match worked {
                Ok(()) => break,
                Err(_) if is_asked && !self.shared.is_stopping() => {
                    self.asked(&mut failures);
                    is_sound = self.rebuild();
                }
                Err(error) => {
                    // A step that was given up is nobody's failure: it is done again.
                    if !self.shared.gave_up() {
                        failures += 1;
                        self.failed(&error, failures);
                        if !self.shared.is_asked_restart() {
                            self.shared.rest(backoff(failures));
                        }
                    }
                    if self.shared.is_stopping() {
                        // What was applied half-way is given up; the last checkpoint stands.
                        self.finish_writing();
                        self.checkpoints.end();
                        self.stepper.end();
                        return;
                    }
                    is_sound = self.rebuild();
                }
            }
        }
        self.finish_writing();
        if let Err(error) = self.checkpoint_now(true) {
            tracing::warn!(%error, pipeline = self.shared.name, "the last checkpoint of a pipeline failed; what is past the one before is derived again");
        }
        self.checkpoints.end();
        self.stepper.end();
    }

    /// Somebody wants it to start again, which is no failure.
    fn asked(&mut self, failures: &mut u32) {
        *failures = 0;
        let message = format!("pipeline '{}' was told to start again from its last checkpoint", self.shared.name);
        self.shared.event(Severity::Info, "pipeline_restarted", message);
        self.shared.status.lock().restarts += 1;
        self.shared.set_state("starting", None);
        self.shared.changed.notify_waiters();
    }

    fn failed(&mut self, error: &Error, failures: u32) {
        {
            let mut status = self.shared.status.lock();
            status.state = "failing";
            status.error = Some(error.to_string());
            status.restarts += 1;
            status.retry_at_us = Some(self.shared.clock.now_us() + backoff(failures).as_micros() as i64);
        }
        if failures.is_power_of_two() {
            let message = format!(
                "pipeline '{}' failed ({failures} times): {error}; it starts again from its last checkpoint",
                self.shared.name
            );
            self.shared.event(Severity::Page, "pipeline_failed", message);
        }
        self.shared.changed.notify_waiters();
    }

    /// Makes the machine as it was after the last step that went well: from the last checkpoint, and what came since.
    fn rebuild(&mut self) -> Result<()> {
        self.finish_writing();
        let settings = self.shared.options().settings(Arc::clone(&self.spilled) as _);
        let base = self.checkpoints.base();
        let mut machine = match base {
            Some(record) => self.blueprint.at(settings, &self.directory, record, || false)?,
            None => self.blueprint.machine(settings)?,
        };
        let mut end = base.map_or(0, |record| record.end);
        for (arrival, answers) in self.retained.iter() {
            let outcome = machine.apply_again(arrival, answers.clone())?;
            end += outcome.rows.iter().map(|rows| rows.num_rows() as u64).sum::<u64>();
        }
        if end != self.output.log.end() {
            return Err(Error::Unavailable(format!(
                "it was derived again up to row {end} of its log, which has {}; it goes on when the server starts again",
                self.output.log.end()
            )));
        }
        self.machine = machine;
        Ok(())
    }

    /// The same machine with other settings, and threads of sources that fit them; a checkpoint of its own follows, so that nothing is derived again by the settings before.
    pub(super) fn go_on_as(&mut self, options: RunOptions) -> Result<()> {
        self.machine = self.blueprint.after(&mut self.machine, options.settings(Arc::clone(&self.spilled) as _))?;
        self.spare = None;
        self.inputs.stop();
        self.is_dirty = true;
        self.checkpoint_now(true)
    }

    /// Processes until the pipeline stops.
    fn work(&mut self, failures: &mut u32) -> Result<()> {
        self.tell();
        self.mark()?;
        let mut behind = Vec::new();
        let begun_us = self.shared.clock.monotonic_us();
        while !self.shared.is_stopping() {
            if self.shared.is_asked_restart() {
                return Err(Error::Unavailable("it is to start again".into()));
            }
            if let Some(written) = self.checkpoints.take() {
                self.written(&written);
            }
            let now_us = self.shared.clock.monotonic_us();
            if now_us - self.looked_us >= LOOK_EVERY_US {
                self.looked_us = now_us;
                self.look()?;
            }
            self.forget_resent();
            if self.shared.is_paused() {
                self.inputs.stop();
                self.shared.settling.store(true, Ordering::SeqCst);
                let given = self.give(0);
                self.shared.settling.store(false, Ordering::SeqCst);
                given?;
                self.finish_writing();
                self.checkpoint_now(true)?;
                self.tell();
                self.shared.set_state("paused", None);
                self.shared.rest(Duration::from_millis(100));
                continue;
            }
            if self.is_checkpoint_due() {
                self.begin_checkpoint(false)?;
            }
            // One source holds nobody back but itself.
            if self.inputs.all().len() > 1 || self.over_limit.is_some() {
                behind = self.machine.behind();
            }
            let is_over = self.over_limit.as_ref().is_some_and(|over| behind.is_empty() || over.is_far());
            if is_over || self.held.is_some() || self.retained.is_full() || !self.deliveries.are_ours() {
                self.give(0)?;
                self.tell();
                self.shared.rest(TURN);
                continue;
            }
            self.replay()?;
            self.inputs.check()?;
            self.inputs.start(&self.machine)?;
            match self.next(&behind)? {
                Some(arrival) => {
                    // Before the rows that it failed at come again there are arrivals that say nothing.
                    let is_sign = matches!(arrival, Arrival::Rows { .. }) || now_us - begun_us >= SOUND_AFTER_US;
                    self.apply(arrival)?;
                    self.give(GIVE_EVERY_US)?;
                    if is_sign {
                        *failures = 0;
                    }
                    if self.over_limit.is_none() && *failures == 0 {
                        self.shared.set_state("running", None);
                    }
                    if now_us - self.told_us >= TELL_EVERY_US {
                        self.tell();
                    }
                }
                // Nothing comes: what changed is given and told at once.
                None => {
                    self.give(0)?;
                    if *failures > 0 && self.over_limit.is_none() && now_us - begun_us >= SOUND_AFTER_US {
                        *failures = 0;
                        self.shared.set_state("running", None);
                    }
                    if self.is_untold {
                        self.tell();
                    }
                }
            }
        }
        Ok(())
    }

    /// Lets sinks be taken over, once a checkpoint has our mark.
    fn mark(&mut self) -> Result<()> {
        if !self.is_marked {
            self.is_dirty = true;
            self.checkpoint_now(false)?;
            self.is_marked = true;
            self.deliveries.begin();
        }
        Ok(())
    }

    fn next(&self, behind: &[SourceId]) -> Result<Option<Arrival>> {
        let bells: [&dyn Bell; 2] = [self.output.bell(), self.checkpoints.done()];
        let next = self.inputs.next(behind, self.over_limit.is_some(), &bells, TURN);
        // What it rang for is seen to in the next turn.
        let _ = self.output.bell().try_recv();
        next
    }

    /// How many rows became dead letters.
    pub(super) fn apply(&mut self, arrival: Arrival) -> Result<u64> {
        let Step { arrival, outcome, answers } = self.step(arrival)?;
        fail::fail_point!("pipeline::applied", |_| Err(Error::Unavailable("failpoint pipeline::applied".into())));
        self.put(&outcome)?;
        let is_known = matches!(arrival, Arrival::Known { .. });
        let rejected = (outcome.rejects.len() + outcome.late.len()) as u64;
        self.keep(outcome, matches!(arrival, Arrival::Again { .. }));
        self.retained.push(arrival, answers);
        self.is_dirty = true;
        self.is_untold = true;
        if is_known && !self.shared.connected.load(Ordering::SeqCst) {
            // Where streams begin is durable before anything of them is taken.
            self.finish_writing();
            self.checkpoint_now(false)?;
            self.shared.connected.store(true, Ordering::SeqCst);
            self.tell();
        }
        Ok(rejected)
    }

    fn step(&mut self, arrival: Arrival) -> Result<Step> {
        let spare = match self.spare.take() {
            Some(spare) => spare,
            None => self.blueprint.machine(self.options.settings(Arc::clone(&self.spilled) as _))?,
        };
        let (step, spare) = self.stepper.step(&mut self.machine, spare, arrival)?;
        self.spare = Some(spare);
        Ok(step)
    }

    /// Has groups given that changed, when the last time is long ago.
    pub(super) fn give(&mut self, every_us: i64) -> Result<()> {
        if !self.machine.is_waiting() {
            return Ok(());
        }
        let now_us = self.shared.clock.monotonic_us();
        if now_us - self.given_us < every_us {
            return Ok(());
        }
        self.given_us = now_us;
        self.apply(Arrival::Give).map(|_| ())
    }

    /// Gives rows to those who read the log.
    fn put(&self, outcome: &Outcome) -> Result<()> {
        let schema = self.plan.output();
        for rows in &outcome.rows {
            let mut at = 0;
            while at < rows.num_rows() {
                let count = FRAME_ROWS.min(rows.num_rows() - at);
                let end = self.output.log.publish(schema, &[rows.slice(at, count)])?;
                self.output.end.store(end, Ordering::SeqCst);
                at += count;
            }
        }
        Ok(())
    }

    /// Puts what were no rows among the dead letters; what was one before stays one, whatever the source says.
    fn keep(&self, outcome: Outcome, were_letters: bool) {
        if outcome.rejects.is_empty() && outcome.late.is_empty() {
            return;
        }
        let at_us = self.shared.clock.now_us();
        let mut buffer = DeadLetterBuffer::new(usize::MAX);
        let input = |stream: StreamId| self.inputs.all().iter().find(|input| input.id == stream.source);
        for (stream, reject) in outcome.rejects {
            if let Some(input) = input(stream).filter(|input| were_letters || input.on_error != OnError::Skip) {
                buffer.push(&input.name, stream, reject, at_us);
            }
        }
        // What becomes of late rows is said by the pipeline, not by the source.
        for (stream, reject) in outcome.late {
            if let Some(input) = input(stream) {
                buffer.push(&input.name, stream, reject, at_us);
            }
        }
        self.shared.letters.push(buffer.take());
    }

    /// Whether a checkpoint would say anything new.
    fn has_news(&self) -> bool {
        let base = self.checkpoints.base();
        let kept = || base.map_or(&[][..], |base| base.delivered.as_slice());
        self.is_dirty || !self.shared.letters.is_empty() || self.deliveries.delivered() != kept()
    }

    fn is_checkpoint_due(&self) -> bool {
        self.checkpoints.is_due(self.options.checkpoint_interval_us, self.retained.is_much()) && self.has_news()
    }

    /// Hands a picture to the writer.
    fn begin_checkpoint(&mut self, whole: bool) -> Result<()> {
        let delivered = self.deliveries.delivered();
        self.is_dirty = false;
        self.checkpoints.begin(&mut self.machine, &self.retained, delivered, whole)
    }

    fn written(&mut self, written: &Written) {
        match written {
            Written::Kept(count) => {
                self.retained.drop_first(*count);
                let settings = self.options.settings(Arc::clone(&self.spilled) as _);
                self.checkpoints.renew(&self.blueprint, settings, self.machine.size().0);
                for input in self.inputs.all() {
                    let positions = self.checkpoints.base().map_or(&[][..], |record| &record.positions);
                    let of_input = positions.iter().filter(|(stream, _)| stream.source == input.id);
                    let positions = of_input.map(|(stream, offset)| (stream.partition, *offset)).collect();
                    input.connector.committed(self.shared.id, &positions);
                }
                self.is_untold = true;
            }
            Written::Failed(_) => self.is_dirty = true,
        }
    }

    pub(super) fn finish_writing(&mut self) {
        if let Some(written) = self.checkpoints.finish() {
            self.written(&written);
        }
    }

    /// A checkpoint that covers everything, when anything is new. `whole`: with a picture of its own, for those who go on from it otherwise than this one would. Waits for it.
    pub(super) fn checkpoint_now(&mut self, whole: bool) -> Result<()> {
        let is_part = self.checkpoints.base().is_some_and(|base| base.diary.is_some());
        if !(self.has_news() || whole && is_part) {
            return Ok(());
        }
        self.begin_checkpoint(whole)?;
        match self.checkpoints.finish() {
            Some(written) => {
                self.written(&written);
                match written {
                    Written::Failed(error) => Err(error),
                    Written::Kept(_) => Ok(()),
                }
            }
            None => Ok(()),
        }
    }
}
