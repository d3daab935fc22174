//! Kafka topics as sinks.
//!
//! ```text
//! begin ─ produce … ─ the place as an offset of a consumer group ─ commit      one transaction, of one transactional id for ever
//! ```
//!
//! The group is named as the transactional id and has no members; its offset of partition 0 of the sink's own topic is no offset of that topic but the place in the log behind the pipeline (a group
//! can keep offsets of topics only that are there). People can see it, and put it elsewhere, with Kafka's own tools. Its metadata say who put it there.
//!
//! `init_transactions` ends a transaction that another producer of the id had open, and has the broker refuse all that comes from it later; the place is read after that and never before.

mod options;
mod outlet;
mod topic;

use std::{collections::BTreeSet, sync::Arc};

pub use self::options::KafkaSinkOptions;
use self::outlet::KafkaOutlet;
use super::{Connector, Delivery, Outlet, Place};
use crate::Result;

/// A connector for one topic; waits for no broker.
pub(super) fn connect(options: &KafkaSinkOptions) -> Arc<dyn Connector> {
    Arc::new(KafkaSink { options: options.clone() })
}

#[derive(Debug)]
struct KafkaSink {
    options: KafkaSinkOptions,
}

impl Connector for KafkaSink {
    fn check(&self) -> Result<()> {
        topic::find(&self.options)
    }

    fn peek(&self, identity: &str, delivery: Delivery) -> Result<Option<Place>> {
        match delivery {
            Delivery::ExactlyOnce => outlet::peek(&self.options, identity),
            Delivery::AtLeastOnce => Ok(None),
        }
    }

    fn open(&self, identity: &str, delivery: Delivery, alone: &BTreeSet<u64>) -> Result<Box<dyn Outlet>> {
        Ok(Box::new(KafkaOutlet::open(&self.options, identity, delivery, alone)?))
    }
}
