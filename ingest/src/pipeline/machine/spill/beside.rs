//! Work on files that a machine does not wait for.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use crossbeam_channel::{Receiver, TryRecvError, bounded};

use super::Store;
use crate::{Error, Result, consumer::committing::panic_text};

/// What becomes of it. Nobody goes on with it when this is dropped.
pub(crate) struct Beside<T> {
    done: Receiver<Result<T>>,
    given_up: Arc<AtomicBool>,
}

/// Whether work is to be left alone.
pub(crate) struct GivenUp(Arc<AtomicBool>);

impl GivenUp {
    /// An error if it is.
    pub(crate) fn check(&self) -> Result<()> {
        match self.0.load(Ordering::Relaxed) {
            true => Err(Error::Unavailable("work on spilled state was given up".into())),
            false => Ok(()),
        }
    }
}

impl<T: Send + 'static> Beside<T> {
    pub(crate) fn begin(store: &dyn Store, work: impl FnOnce(&GivenUp) -> Result<T> + Send + 'static) -> Result<Self> {
        let (finished, done) = bounded(1);
        let given_up = Arc::new(AtomicBool::new(false));
        let of_work = GivenUp(Arc::clone(&given_up));
        store.beside(Box::new(move || {
            let made = catch_unwind(AssertUnwindSafe(|| work(&of_work))).unwrap_or_else(|panic| {
                Err(Error::Unavailable(format!("work on spilled state panicked: {}", panic_text(&*panic))))
            });
            // Nobody listens any more when the machine is gone.
            let _ = finished.send(made);
        }))?;
        Ok(Self { done, given_up })
    }

    /// What was made, once.
    pub(crate) fn poll(&self) -> Result<Option<T>> {
        match self.done.try_recv() {
            Ok(made) => made.map(Some),
            Err(TryRecvError::Empty) => Ok(None),
            Err(TryRecvError::Disconnected) => Err(ended()),
        }
    }

    pub(crate) fn wait(self) -> Result<T> {
        self.done.recv().unwrap_or_else(|_| Err(ended()))
    }
}

impl<T> Drop for Beside<T> {
    fn drop(&mut self) {
        self.given_up.store(true, Ordering::SeqCst);
    }
}

fn ended() -> Error {
    Error::Unavailable("the thread that works on spilled state has ended".into())
}
