//! One consuming thread's way through some partitions of a shared source.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use super::{
    Share,
    cohort::{Cohort, Read},
};
use crate::{
    Error, Result,
    source::{Fetched, Reader},
};

pub(super) struct ShareReader {
    share: Arc<Share>,
    number: u64,
    places: Vec<Place>,
    /// The place that is looked at first in the next poll, so that each has its turn.
    first: usize,
    /// An error that came beside messages, told at the next poll.
    held: Option<Error>,
}

/// One partition being read.
struct Place {
    partition: u32,
    position: u64,
    cohort: Option<Arc<Cohort>>,
    /// Told of a gap and not yet sent elsewhere.
    stopped: bool,
}

impl Place {
    fn at(partition: u32, position: u64) -> Self {
        Self { partition, position, cohort: None, stopped: false }
    }

    fn poll(&mut self, share: &Share, reader: u64, max_messages: usize, max_bytes: usize) -> Result<Option<Fetched>> {
        if self.stopped {
            return Ok(None);
        }
        if self.cohort.as_ref().is_some_and(|cohort| share.is_behind(self.partition, self.position, cohort)) {
            self.leave(share, reader);
        }
        // A seat may be lost between sitting down and reading, hardly twice.
        for _ in 0..3 {
            let cohort = match &self.cohort {
                Some(cohort) => cohort,
                None => self.cohort.insert(share.join(reader, self.partition, self.position)?),
            };
            let now_us = share.clock.monotonic_us();
            match cohort.read(reader, max_messages, max_bytes, now_us, &share.bell)? {
                Read::Nothing => return Ok(None),
                Read::Batch(batch) => {
                    self.position = batch.to;
                    return Ok(Some(Fetched::Messages(batch)));
                }
                Read::Gap { wanted, found } => {
                    self.stopped = true;
                    self.leave(share, reader);
                    return Ok(Some(Fetched::Gap { partition: self.partition, wanted, found }));
                }
                Read::Out => self.leave(share, reader),
            }
        }
        Ok(None)
    }

    fn leave(&mut self, share: &Share, reader: u64) {
        if let Some(cohort) = self.cohort.take() {
            share.leave(reader, self.partition, &cohort);
        }
    }
}

impl ShareReader {
    pub(super) fn new(share: Arc<Share>, number: u64, positions: &BTreeMap<u32, u64>) -> Self {
        let places = positions.iter().map(|(partition, offset)| Place::at(*partition, *offset)).collect();
        Self { share, number, places, first: 0, held: None }
    }

    fn take(&mut self, max_messages: usize, max_bytes: usize) -> Result<Vec<Fetched>> {
        let served = self.share.fetcher.serve();
        let mut fetched = Vec::new();
        self.first += 1;
        for index in 0..self.places.len() {
            let index = (self.first + index) % self.places.len();
            match self.places[index].poll(&self.share, self.number, max_messages.max(1), max_bytes.max(1)) {
                Ok(one) => fetched.extend(one),
                Err(error) => self.held = Some(error),
            }
        }
        if let Err(error) = served {
            self.held.get_or_insert(error);
        }
        match self.held.take() {
            Some(error) if fetched.is_empty() => Err(error),
            held => {
                self.held = held;
                Ok(fetched)
            }
        }
    }
}

impl Reader for ShareReader {
    fn poll(&mut self, max_messages: usize, max_bytes: usize, timeout: Duration) -> Result<Vec<Fetched>> {
        if let Some(error) = self.held.take() {
            return Err(error);
        }
        let deadline_us = self.share.clock.monotonic_us() + timeout.as_micros() as i64;
        loop {
            let heard = self.share.bell.heard();
            let fetched = self.take(max_messages, max_bytes)?;
            let left_us = deadline_us - self.share.clock.monotonic_us();
            // It rings for messages of any partition: look again as long as there is time.
            if !fetched.is_empty()
                || left_us <= 0
                || !self.share.bell.wait(heard, Duration::from_micros(left_us.unsigned_abs()))
            {
                return Ok(fetched);
            }
        }
    }

    fn seek(&mut self, partition: u32, offset: u64) -> Result<()> {
        let Some(place) = self.places.iter_mut().find(|place| place.partition == partition) else {
            return Err(Error::Unavailable(format!("partition {partition} is not being read")));
        };
        place.leave(&self.share, self.number);
        *place = Place::at(partition, offset);
        Ok(())
    }

    fn add(&mut self, partition: u32, offset: u64) -> Result<()> {
        if self.places.iter().any(|place| place.partition == partition) {
            return self.seek(partition, offset);
        }
        self.places.push(Place::at(partition, offset));
        Ok(())
    }

    fn sharing(&self, partition: u32) -> usize {
        let place = self.places.iter().find(|place| place.partition == partition);
        place.and_then(|place| place.cohort.as_ref()).map_or(1, |cohort| cohort.readers())
    }
}

impl Drop for ShareReader {
    fn drop(&mut self) {
        for place in &mut self.places {
            place.leave(&self.share, self.number);
        }
    }
}
