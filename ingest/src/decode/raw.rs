//! The bytes of a message as one TEXT or BYTEA column.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, BinaryViewBuilder, RecordBatch, StringViewBuilder},
    datatypes::SchemaRef,
};
use tidemill_storage::schema::DataType;

use super::{Decoded, Decoder, SourceColumn, json::utf8, rows::Fault, source_schema};
use crate::{Error, Result, message::MessageBatch};

#[derive(Debug)]
pub(super) struct RawDecoder {
    name: String,
    is_text: bool,
    schema: SchemaRef,
}

impl RawDecoder {
    pub(super) fn new(columns: &[SourceColumn]) -> Result<Self> {
        match columns {
            [column] if matches!(column.data_type, DataType::Text | DataType::Bytea) => Ok(Self {
                name: column.name.clone(),
                is_text: column.data_type == DataType::Text,
                schema: source_schema(columns),
            }),
            _ => Err(Error::Definition {
                message: "format 'raw' needs exactly one column, of type TEXT or BYTEA".into(),
                hint: Some("use format 'json' or 'csv' to read several columns".into()),
            }),
        }
    }

    fn text<'a>(&self, payload: &'a [u8]) -> Result<&'a str, Fault> {
        let text = utf8(payload)?;
        match text.find('\0') {
            None => Ok(text),
            Some(at) => {
                Err(Fault::column(&self.name, format!("column \"{}\" (text): a NUL character at byte {at}", self.name)))
            }
        }
    }
}

impl Decoder for RawDecoder {
    fn decode(&mut self, messages: &MessageBatch) -> Result<Decoded> {
        let (mut texts, mut bytes) = (StringViewBuilder::new(), BinaryViewBuilder::new());
        let (mut row_offsets, mut rejects) = (Vec::new(), Vec::new());
        for message in messages.messages.iter().filter(|message| !message.is_null) {
            let payload = messages.payload(message);
            if self.is_text {
                match self.text(payload) {
                    Ok(text) => texts.append_value(text),
                    Err(fault) => {
                        rejects.push(fault.reject(messages, message));
                        continue;
                    }
                }
            } else {
                bytes.append_value(payload);
            }
            row_offsets.push(message.offset);
        }
        let array: ArrayRef = if self.is_text { Arc::new(texts.finish()) } else { Arc::new(bytes.finish()) };
        let rows = RecordBatch::try_new(SchemaRef::clone(&self.schema), vec![array])
            .expect("invariant: the one column has the schema's type");
        Ok(Decoded { rows, row_offsets, rejects, taken: messages.messages.len() })
    }
}
