//! What the threads of one pipeline share.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use parking_lot::{Condvar, Mutex};
use tidemill_storage::{
    clock::Clock,
    ids::{SourceId, StreamId, TableId},
};
use tokio::sync::Notify;

use super::{PipelineStatus, RunOptions, forgetting::Forgetting, letters::Letters, replay::Replay};
use crate::{
    Error,
    events::{Event, Severity},
    runtime::IngestRuntime,
};

/// Threads of one pipeline that never ended and were left alone: with more of them it is not started again, or they would fill the server.
const LEFT_MAX: usize = 4;

pub(crate) struct Shared {
    pub(crate) id: TableId,
    pub(crate) name: String,
    pub(crate) clock: Arc<dyn Clock>,
    pub(super) options: Mutex<RunOptions>,
    pub(crate) runtime: Arc<IngestRuntime>,
    pub(crate) status: Mutex<PipelineStatus>,
    pub(super) input_errors: Mutex<BTreeMap<SourceId, String>>,
    /// Where streams of the sources end, as was seen last.
    pub(super) ends: Mutex<BTreeMap<StreamId, u64>>,
    /// How long all threads of sources together waited because nothing more was taken.
    waited_us: AtomicI64,
    /// It is to start again from its last checkpoint.
    restart: AtomicBool,
    pub(super) letters: Letters,
    pub(super) stopping: AtomicBool,
    pub(super) paused: AtomicBool,
    pub(super) connected: AtomicBool,
    /// A step was given up because somebody wants the pipeline to stand still.
    given_up: AtomicBool,
    pub(super) replay: Replay,
    pub(super) forgetting: Forgetting,
    /// The last groups before a pause are being given, which is not given up for it.
    pub(super) settling: AtomicBool,
    /// When the first row came since the start (monotonic); `i64::MAX` before.
    first_row_us: AtomicI64,
    /// When the step that goes on last showed that it does (monotonic).
    step_us: AtomicI64,
    /// Threads that did not end, and are not waited for.
    left: Mutex<Vec<JoinHandle<()>>>,
    /// Rang when anything above changes.
    pub(super) changed: Notify,
    nudge: Mutex<()>,
    wake: Condvar,
}

impl Shared {
    pub(super) fn new(
        id: TableId,
        name: String,
        options: RunOptions,
        runtime: &Arc<IngestRuntime>,
        is_paused: bool,
    ) -> Arc<Self> {
        Arc::new(Self {
            id,
            name,
            clock: Arc::clone(&runtime.clock),
            options: Mutex::new(options),
            runtime: Arc::clone(runtime),
            status: Mutex::new(PipelineStatus { state: "starting", ..PipelineStatus::default() }),
            input_errors: Mutex::default(),
            ends: Mutex::default(),
            waited_us: AtomicI64::new(0),
            restart: AtomicBool::new(false),
            letters: Letters::default(),
            stopping: AtomicBool::new(false),
            paused: AtomicBool::new(is_paused),
            connected: AtomicBool::new(false),
            given_up: AtomicBool::new(false),
            replay: Replay::default(),
            forgetting: Forgetting::default(),
            settling: AtomicBool::new(false),
            first_row_us: AtomicI64::new(i64::MAX),
            step_us: AtomicI64::new(0),
            left: Mutex::default(),
            changed: Notify::new(),
            nudge: Mutex::new(()),
            wake: Condvar::new(),
        })
    }

    pub(crate) fn event(&self, severity: Severity, kind: &'static str, message: String) {
        let at_us = self.clock.now_us();
        self.runtime.events.record(Event {
            at_us,
            severity,
            kind,
            table: None,
            partition: None,
            stream: None,
            message,
        });
    }

    pub(super) fn options(&self) -> RunOptions {
        self.options.lock().clone()
    }

    pub(super) fn set_state(&self, state: &'static str, error: Option<String>) {
        let mut status = self.status.lock();
        if status.state != state || status.error != error {
            status.state = state;
            status.error = error;
            status.retry_at_us = None;
            drop(status);
            self.changed.notify_waiters();
        }
    }

    pub(crate) fn set_input_error(&self, source: SourceId, error: Option<String>) {
        let mut errors = self.input_errors.lock();
        match error {
            Some(error) => _ = errors.insert(source, error),
            None => _ = errors.remove(&source),
        }
    }

    pub(super) fn input_error(&self) -> Option<String> {
        self.input_errors.lock().values().next().cloned()
    }

    /// A thread of a source waited because nothing more was taken.
    pub(super) fn waited(&self, us: i64) {
        self.waited_us.fetch_add(us, Ordering::Relaxed);
    }

    pub(super) fn waited_us(&self) -> i64 {
        self.waited_us.load(Ordering::Relaxed)
    }

    /// Has it start again from its last checkpoint, as soon as it sees that.
    pub(super) fn ask_restart(&self) {
        self.restart.store(true, Ordering::SeqCst);
        self.ring();
    }

    pub(super) fn is_asked_restart(&self) -> bool {
        self.restart.load(Ordering::SeqCst)
    }

    /// Whether it was asked to start again since the last call.
    pub(super) fn was_asked_restart(&self) -> bool {
        self.restart.swap(false, Ordering::SeqCst)
    }

    /// A row came.
    pub(super) fn begun(&self, now_us: i64) {
        self.first_row_us.fetch_min(now_us, Ordering::Relaxed);
    }

    /// When the first row came, or `since` if that is later.
    pub(super) fn first_row_us(&self, since: i64) -> i64 {
        self.first_row_us.load(Ordering::Relaxed).max(since)
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    pub(super) fn is_paused(&self) -> bool {
        self.paused.load(Ordering::SeqCst)
    }

    /// Whether a step that takes long is to be given up; who asks gives it up then.
    pub(super) fn gives_up(&self) -> bool {
        let is_wanted = self.is_stopping() || self.is_paused() && !self.settling.load(Ordering::SeqCst);
        if is_wanted {
            self.given_up.store(true, Ordering::SeqCst);
        }
        is_wanted
    }

    /// Whether a step was given up since the last call.
    pub(super) fn gave_up(&self) -> bool {
        self.given_up.swap(false, Ordering::SeqCst)
    }

    /// A step begins, or waits for somebody whom it need not wait for without end.
    pub(super) fn step_goes_on(&self) {
        self.step_us.store(self.clock.monotonic_us(), Ordering::Relaxed);
    }

    pub(super) fn step_went_on_us(&self) -> i64 {
        self.step_us.load(Ordering::Relaxed)
    }

    /// Whether something of which nothing was seen for so long is left alone for another one.
    pub(super) fn is_stuck(&self, silent_us: i64, what: &str) -> bool {
        let stuck_after_us = self.options.lock().stuck_after_us;
        stuck_after_us > 0 && silent_us >= stuck_after_us && self.may_leave(what)
    }

    /// Whether one more thread may be left alone. Says so when there were too many of these.
    pub(super) fn may_leave(&self, what: &str) -> bool {
        let mut left = self.left.lock();
        left.retain(|thread| !thread.is_finished());
        if left.len() >= LEFT_MAX {
            let error =
                format!("{what}, and {LEFT_MAX} threads before it did not either; the server has to be started again");
            drop(left);
            self.set_state("failing", Some(error));
            return false;
        }
        true
    }

    /// The error of that.
    pub(super) fn stuck(&self, what: &str, silent_us: i64) -> Error {
        let seconds = silent_us / 1_000_000;
        let message = format!(
            "pipeline '{}' is stuck: {what}, for {seconds} s; it starts again from its last checkpoint",
            self.name
        );
        self.event(Severity::Page, "pipeline_stuck", message);
        Error::Unavailable(format!("it was stuck: {what}"))
    }

    /// Takes a thread that is not waited for.
    pub(super) fn leave(&self, thread: JoinHandle<()>) {
        self.left.lock().push(thread);
    }

    /// Waits for `time`, or until somebody rings.
    pub(super) fn rest(&self, time: Duration) {
        let mut nudge = self.nudge.lock();
        if !self.is_stopping() {
            self.wake.wait_for(&mut nudge, time);
        }
    }

    pub(super) fn ring(&self) {
        self.wake.notify_all();
        self.changed.notify_waiters();
    }
}
