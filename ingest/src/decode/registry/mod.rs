//! Schema registries: messages that carry the id of the schema that they were written with.
//!
//! ```text
//! message: 0 · id (4 bytes, the highest first) · datum         Confluent's frame
//! id ─► known? ─ no ─► GET /schemas/ids/<id> ─► 200: compiled and kept for ever
//!                                              ├► no such schema: the message is a dead letter; asked again after a while
//!                                              └► no answer, or none of a registry: an error of the source, nothing is taken
//! ```

mod client;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use tidemill_storage::clock::{Clock, SystemClock};

pub use self::client::RegistryAddress;
pub(crate) use self::client::{Client, Kind, Registered};
use super::rows::Fault;
use crate::{Result, message::MessageBatch};

/// Bytes of a message before its datum.
pub(crate) const FRAME_BYTES: usize = 5;
/// How long an id is taken to be unknown without asking again.
const UNKNOWN_FOR_US: i64 = 10_000_000;
/// Unknown ids that are remembered.
const UNKNOWN_MAX: usize = 4096;

/// The id of a framed message's schema, and its datum.
pub(super) fn frame(payload: &[u8]) -> Result<(u32, &[u8]), Fault> {
    match payload.split_first_chunk::<FRAME_BYTES>() {
        Some(([0, id @ ..], datum)) => Ok((u32::from_be_bytes(*id), datum)),
        Some(([other, ..], _)) => Err(Fault::message(format!(
            "the message does not begin with a schema registry's frame: its first byte is {other:#04x} instead of 0x00"
        ))),
        None => Err(Fault::message(format!(
            "the message has {} bytes, and a schema registry's frame alone has {FRAME_BYTES}",
            payload.len()
        ))),
    }
}

/// What was made of the schemas of a registry, by id.
#[derive(Debug)]
pub(super) struct SchemasById<T> {
    client: Client,
    clock: Arc<dyn Clock>,
    known: HashMap<u32, Known<T>>,
}

#[derive(Debug)]
enum Known<T> {
    Usable(T),
    /// Why not. What a registry has under an id never changes.
    Unusable(String),
    Unknown {
        reason: String,
        /// Microseconds of the monotonic clock.
        since_us: i64,
    },
}

impl<T> SchemasById<T> {
    pub(super) fn new(address: &RegistryAddress) -> Self {
        Self::with_clock(address, Arc::new(SystemClock::new()))
    }

    fn with_clock(address: &RegistryAddress, clock: Arc<dyn Clock>) -> Self {
        Self { client: Client::new(address.clone()), clock, known: HashMap::new() }
    }

    /// Fetches the schemas of all messages that are not known yet, and compiles them. `Unavailable` when the registry does not answer. Blocks.
    pub(super) fn prepare(
        &mut self,
        messages: &MessageBatch,
        compile: impl Fn(&Registered) -> Result<T, String>,
    ) -> Result<()> {
        let now_us = self.clock.monotonic_us();
        let mut last = None;
        let mut wanted = BTreeSet::new();
        for message in messages.messages.iter().filter(|message| !message.is_null) {
            let Ok((id, _)) = frame(messages.payload(message)) else { continue };
            if last == Some(id) {
                continue;
            }
            last = Some(id);
            match self.known.get(&id) {
                Some(Known::Usable(_) | Known::Unusable(_)) => {}
                Some(Known::Unknown { since_us, .. }) if now_us - since_us < UNKNOWN_FOR_US => {}
                _ => {
                    wanted.insert(id);
                }
            }
        }
        for id in wanted {
            let known = match self.client.schema(id)? {
                Ok(registered) => match compile(&registered) {
                    Ok(usable) => Known::Usable(usable),
                    Err(reason) => Known::Unusable(format!("the schema with id {id} cannot be used: {reason}")),
                },
                Err(reason) => {
                    let is_unknown = |known: &Known<T>| matches!(known, Known::Unknown { .. });
                    if self.known.len() >= UNKNOWN_MAX {
                        self.known.retain(|_, known| !is_unknown(known));
                    }
                    Known::Unknown { reason, since_us: now_us }
                }
            };
            self.known.insert(id, known);
        }
        Ok(())
    }

    /// Has what was made of a schema without asking for it.
    pub(super) fn hold(&mut self, id: u32, made: Result<T, String>) {
        let known = match made {
            Ok(usable) => Known::Usable(usable),
            Err(reason) => Known::Unusable(format!("the schema cannot be used: {reason}")),
        };
        self.known.insert(id, known);
    }

    /// What was made of the schema, after [`Self::prepare`].
    #[inline]
    pub(super) fn get(&self, id: u32) -> Result<&T, Fault> {
        match self.known.get(&id) {
            Some(Known::Usable(usable)) => Ok(usable),
            Some(Known::Unusable(reason) | Known::Unknown { reason, .. }) => Err(Fault::message(reason.as_str())),
            None => Err(Fault::message(format!("the schema with id {id} is not known"))),
        }
    }

    /// As [`Self::get`], to change it; `None` when there is none to use.
    pub(super) fn get_mut(&mut self, id: u32) -> Option<&mut T> {
        match self.known.get_mut(&id) {
            Some(Known::Usable(usable)) => Some(usable),
            _ => None,
        }
    }
}
