//! Protobuf: files as registries know them, and which may follow which.

mod comparison;
mod print;
#[cfg(test)]
mod tests;

use base64::{Engine, engine::general_purpose::STANDARD};
use prost_reflect::{
    FileDescriptor,
    prost::Message as _,
    prost_types::{DescriptorProto, FileDescriptorProto},
};

pub(super) use self::comparison::misfits;
use crate::decode::protobuf::compile;

/// One compiled file.
#[derive(Debug)]
pub(super) struct Schema {
    file: FileDescriptor,
}

impl Schema {
    /// Reads a .proto, or a FileDescriptorProto in Base64 as Python's client sends it, which becomes a .proto; and the text.
    pub(super) fn parse(text: &str, referenced: &[(String, String)]) -> Result<(Self, String), String> {
        let text = match unpacked(text) {
            Some(file) => print::proto(&file)?,
            None => text.to_owned(),
        };
        let file = compile(&text, referenced)?;
        if file.messages().len() == 0 && file.enums().len() == 0 {
            return Err("it has no message and no enum".into());
        }
        Ok((Self { file }, text))
    }

    /// The file without comments and places, and without the places of maps among the types of a message, which no .proto has.
    pub(super) fn identity(&self) -> String {
        let mut file = self.file.file_descriptor_proto().clone();
        file.source_code_info = None;
        file.message_type.iter_mut().for_each(settle_maps);
        STANDARD.encode(file.encode_to_vec())
    }

    pub(super) fn descriptor(&self) -> Vec<u8> {
        let mut file = self.file.file_descriptor_proto().clone();
        file.source_code_info = None;
        file.encode_to_vec()
    }
}

/// The depth of messages is that of a text that was compiled, which is bounded.
fn settle_maps(message: &mut DescriptorProto) {
    message.nested_type.sort_by_key(print::is_entry);
    message.nested_type.iter_mut().for_each(settle_maps);
}

/// The file of a text that is Base64 of one. A .proto is never Base64: it has spaces.
fn unpacked(text: &str) -> Option<FileDescriptorProto> {
    let bytes = STANDARD.decode(text.trim()).ok()?;
    FileDescriptorProto::decode(bytes.as_slice()).ok()
}
