//! What a runner tells of itself, and what it looks at now and then: options, the size of its state (what is too much goes to files), what waits for its sinks.

use super::{super::machine::NEVER, limit::OverLimit, runner::Runner};
use crate::{Result, events::Severity};

/// How often the share of time is computed that sources wait.
const PRESSURE_EVERY_US: i64 = 1_000_000;

/// Since when it is counted how long sources wait, and how long they had waited then.
#[derive(Default)]
pub(super) struct Pressure {
    since_us: i64,
    waited_us: i64,
}

impl Runner {
    /// Tells others how far it is. Not for every arrival: it costs more than some do.
    pub(super) fn tell(&mut self) {
        self.is_untold = false;
        self.told_us = self.shared.clock.monotonic_us();
        let progress = self.machine.progress();
        {
            let mut status = self.shared.status.lock();
            status.counts = self.machine.counts();
            status.watermark_us = Some(self.machine.watermark()).filter(|us| *us != NEVER);
            status.is_settled = self.machine.is_settled();
            status.positions = progress.positions.into_iter().collect();
            if let Some(base) = self.checkpoints.base() {
                status.checkpoint = Some(base.id);
                status.checkpoint_at_us = Some(base.at_us);
            }
        }
        self.shared.changed.notify_waiters();
    }

    /// Looks at options, at the size of the state, and at what waits for sinks.
    pub(super) fn look(&mut self) -> Result<()> {
        self.options = self.shared.options();
        let was_held = self.held.is_some();
        self.held = self.deliveries.full(&self.output);
        if let Some(held) = &self.held {
            // That sinks are slower than sources is nobody's trouble; that one takes nothing is.
            let trouble = self.deliveries.trouble();
            if let (Some(trouble), false) = (&trouble, self.is_held_by_trouble) {
                let message = format!("pipeline '{}' stands still: {held}; {trouble}", self.shared.name);
                self.shared.event(Severity::Page, "sink_backlog", message);
            }
            self.is_held_by_trouble = trouble.is_some();
            let told = trouble.map_or_else(|| held.clone(), |trouble| format!("{held}; {trouble}"));
            self.shared.set_state("held", Some(told));
        } else if was_held {
            self.is_held_by_trouble = false;
            self.shared.set_state("running", None);
        }
        if !self.deliveries.are_ours() && !self.shared.is_paused() {
            let trouble = self.deliveries.trouble();
            self.shared.set_state(if trouble.is_some() { "failing" } else { "starting" }, trouble);
        }
        if self.options.parallelism != self.machine.lanes() {
            self.move_keys()?;
        }
        if !self.shared.is_paused() {
            self.spill()?;
        }
        self.measure();
        Ok(())
    }

    /// Goes on in another number of lanes, with all that is kept of each key, and reads with as many threads.
    fn move_keys(&mut self) -> Result<()> {
        self.finish_writing();
        let (from, to) = (self.machine.lanes(), self.options.parallelism);
        self.go_on_as(self.options.clone())?;
        let message = format!("pipeline '{}' has {to} lanes now, and had {from}", self.shared.name);
        self.shared.event(Severity::Info, "pipeline_parallelism", message);
        Ok(())
    }

    /// Puts state into files until half of the limit is free, or nothing is left that may go there.
    fn spill(&mut self) -> Result<()> {
        let limit = self.options.memory_limit;
        if self.machine.size().0 as u64 <= limit {
            return Ok(());
        }
        // Groups that wait to be given cannot go there, and those that were given can.
        self.give(0)?;
        loop {
            let bytes = self.machine.size().0 as u64;
            let wanted = bytes.saturating_sub(limit / 2);
            let Some(arrival) = self.machine.spilling(wanted as usize).filter(|_| wanted > 0) else { return Ok(()) };
            self.apply(arrival)?;
            if self.machine.size().0 as u64 >= bytes {
                return Ok(());
            }
        }
    }

    fn measure(&mut self) {
        let (bytes, groups) = self.machine.size();
        let limit = self.options.memory_limit;
        let is_over = bytes as u64 > limit;
        {
            let mut status = self.shared.status.lock();
            status.state_bytes = bytes as u64;
            status.spilled_bytes = self.machine.spilled();
            status.open_groups = groups as u64;
        }
        self.measure_pressure();
        if is_over && self.over_limit.is_none() {
            let error = format!("its state takes {bytes} bytes, and memory_limit is {limit}; it stands still");
            let message = format!("pipeline '{}': {error}", self.shared.name);
            self.shared.event(Severity::Page, "pipeline_memory", message);
            self.shared.set_state("failing", Some(error));
        } else if !is_over && self.over_limit.is_some() {
            self.shared.set_state("running", None);
        }
        let (first, now) = (self.over_limit.as_ref().map_or(bytes as u64, |over| over.first), bytes as u64);
        self.over_limit = is_over.then_some(OverLimit { limit, first, now });
    }
    /// The share of time in which its sources had something and nothing was taken.
    fn measure_pressure(&mut self) {
        let (now_us, waited_us) = (self.shared.clock.monotonic_us(), self.shared.waited_us());
        let elapsed_us = now_us - self.pressure.since_us;
        if elapsed_us < PRESSURE_EVERY_US {
            return;
        }
        let threads = self.inputs.threads() as i64;
        let waited = waited_us - self.pressure.waited_us;
        self.shared.status.lock().backpressure_permille = match threads {
            0 => 0,
            _ => (waited * 1000 / (elapsed_us * threads)).clamp(0, 1000) as u32,
        };
        self.pressure = Pressure { since_us: now_us, waited_us };
    }
}
