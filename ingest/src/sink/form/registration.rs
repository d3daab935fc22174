//! The schema of a sink's records at a registry: asked for once, before the first record.

use crate::{
    Error, Result,
    decode::registry::{Client, FRAME_BYTES, Kind, Registered, RegistryAddress},
};

/// Where the schema goes, and what it is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registration {
    pub address: RegistryAddress,
    pub subject: String,
    /// Full name of the record or the message.
    pub name: String,
}

/// What only the registry tells.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wire {
    /// Before each value.
    frame: Vec<u8>,
    /// Of fields, in the order of the columns; of Protobuf alone.
    numbers: Vec<u32>,
}

impl Wire {
    pub(super) fn new(id: u32, more: &[u8], numbers: Vec<u32>) -> Self {
        let mut frame = Vec::with_capacity(FRAME_BYTES + more.len());
        frame.push(0);
        frame.extend_from_slice(&id.to_be_bytes());
        frame.extend_from_slice(more);
        Self { frame, numbers }
    }

    /// Without a frame.
    #[cfg(test)]
    pub(super) fn bare(numbers: Vec<u32>) -> Self {
        Self { frame: Vec::new(), numbers }
    }

    pub(super) fn frame(&self) -> &[u8] {
        &self.frame
    }

    pub(super) fn numbers(&self) -> &[u32] {
        &self.numbers
    }
}

impl Registration {
    /// The name of a record in what is called like a topic, which may have hyphens and begin with a digit.
    pub(in crate::sink) fn name_of(topic: &str) -> String {
        let word = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
        let name: String = topic.chars().map(word).collect();
        if name.starts_with(|c: char| c.is_ascii_digit()) { format!("_{name}") } else { name }
    }

    /// The namespace or package, and the name in it.
    pub(super) fn split(&self) -> (Option<&str>, &str) {
        match self.name.rsplit_once('.') {
            Some((space, name)) => (Some(space), name),
            None => (None, &self.name),
        }
    }

    /// The id of the schema. Blocks.
    pub(super) fn register(&self, kind: &Kind, text: &str) -> Result<u32> {
        let registered = Client::new(self.address.clone()).register(&self.subject, kind, text)?;
        registered.map_err(|reason| Error::Mismatch {
            message: format!(
                "the schema registry {} refuses the {} schema of the records for subject '{}': {reason}",
                self.address,
                kind.name(),
                self.subject
            ),
            hint: Some(
                "give columns that go with the subject's earlier versions, another 'subject', or the subject another compatibility level at the registry".into(),
            ),
        })
    }

    /// The newest schema of the subject. Blocks.
    pub(super) fn latest(&self) -> Result<Option<Registered>> {
        Client::new(self.address.clone()).latest(&self.subject)
    }
}
