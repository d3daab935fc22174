//! The thread that takes steps for the runner, so that one that never ends can be given up.
//!
//! ```text
//! runner ─ machine, arrival ─► stepper ─ machine, what came of it ─► runner
//!    └─ no sign of it for `stuck_after`: the thread is left alone with the machine that it has, and the runner makes another of both
//! ```
//!
//! A step touches nothing but its machine, so whatever a thread does that was left alone, nobody sees it.

use std::{
    mem,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    thread::JoinHandle,
    time::Duration,
};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

use super::{
    super::{
        machine::{Arrival, Machine, Outcome},
        tables::Answers,
    },
    shared::Shared,
};
use crate::{
    Error, Result,
    consumer::committing::panic_text,
    runtime::{join, spawn},
};

/// How often the runner looks whether a step still goes on.
const TURN: Duration = Duration::from_millis(100);
/// How long a pipeline that is to end waits for a step.
const END_PATIENCE_US: i64 = 30_000_000;

pub(super) struct Stepper {
    shared: Arc<Shared>,
    thread: Option<Thread>,
}

struct Thread {
    jobs: Sender<Job>,
    done: Receiver<Done>,
    handle: JoinHandle<()>,
}

struct Job {
    machine: Box<Machine>,
    arrival: Arrival,
}

/// The machine is gone after a panic.
struct Done {
    machine: Option<Box<Machine>>,
    arrival: Arrival,
    outcome: Result<(Outcome, Answers)>,
}

/// A step that was taken, and what came of it.
pub(super) struct Step {
    pub(super) arrival: Arrival,
    pub(super) outcome: Outcome,
    pub(super) answers: Answers,
}

impl Stepper {
    pub(super) fn new(shared: &Arc<Shared>) -> Self {
        Self { shared: Arc::clone(shared), thread: None }
    }

    /// Has `machine` take what came. After an error it is in no state to go on, and may be another one; `spare` stands in its place meanwhile.
    pub(super) fn step(&mut self, machine: &mut Machine, spare: Machine, arrival: Arrival) -> Result<(Step, Machine)> {
        let thread = match &self.thread {
            Some(thread) => thread,
            None => self.thread.insert(start(&self.shared.name)?),
        };
        let (jobs, done) = (thread.jobs.clone(), thread.done.clone());
        let begun_us = self.shared.clock.monotonic_us();
        self.shared.step_goes_on();
        let job = Job { machine: Box::new(mem::replace(machine, spare)), arrival };
        if jobs.send(job).is_err() {
            self.thread = None;
            return Err(Error::Unavailable("the thread that takes steps has ended".into()));
        }
        loop {
            match done.recv_timeout(TURN) {
                Ok(Done { machine: back, arrival, outcome }) => {
                    let (outcome, answers) = outcome?;
                    let back = back.ok_or_else(|| Error::Unavailable("a step gave no machine back".into()))?;
                    let spare = mem::replace(machine, *back);
                    return Ok((Step { arrival, outcome, answers }, spare));
                }
                Err(RecvTimeoutError::Timeout) => {
                    if let Some(error) = self.given_up(begun_us) {
                        self.leave();
                        return Err(error);
                    }
                }
                Err(RecvTimeoutError::Disconnected) => {
                    self.thread = None;
                    return Err(Error::Unavailable("the thread that takes steps has ended".into()));
                }
            }
        }
    }

    /// Why the step that goes on is not waited for any longer.
    fn given_up(&self, begun_us: i64) -> Option<Error> {
        let now_us = self.shared.clock.monotonic_us();
        if self.shared.is_stopping() && now_us - begun_us >= END_PATIENCE_US {
            return Some(Error::Unavailable("it is to end, and a step does not".into()));
        }
        if self.shared.is_asked_restart() && self.shared.may_leave("a step does not end") {
            return Some(Error::Unavailable("it is to start again, and a step goes on".into()));
        }
        let silent_us = now_us - self.shared.step_went_on_us();
        let what = "a step over rows that are there does not end";
        self.shared.is_stuck(silent_us, what).then(|| self.shared.stuck(what, silent_us))
    }

    fn leave(&mut self) {
        if let Some(Thread { handle, .. }) = self.thread.take() {
            self.shared.leave(handle);
        }
    }

    /// Ends the thread.
    pub(super) fn end(&mut self) {
        if let Some(Thread { jobs, done, handle }) = self.thread.take() {
            drop((jobs, done));
            join(handle);
        }
    }
}

fn start(pipeline: &str) -> Result<Thread> {
    let (jobs, taken) = bounded::<Job>(1);
    let (finished, done) = bounded(1);
    let body = move || {
        for Job { mut machine, arrival } in taken {
            let taken = catch_unwind(AssertUnwindSafe(|| {
                fail::fail_point!("pipeline::step", |_| Err(Error::Unavailable("failpoint pipeline::step".into())));
                let outcome = machine.apply(&arrival)?;
                let answers = machine.answers();
                Ok((outcome, answers))
            }));
            let done = match taken {
                Ok(outcome) => Done { machine: Some(machine), arrival, outcome },
                Err(panic) => {
                    let error = Error::Unavailable(format!("it panicked: {}", panic_text(&*panic)));
                    Done { machine: None, arrival, outcome: Err(error) }
                }
            };
            if finished.send(done).is_err() {
                return;
            }
        }
    };
    Ok(Thread { jobs, done, handle: spawn(format!("step-{pipeline}"), body)? })
}
