//! Protobuf schemas: from .proto texts or descriptors to the type of a message.

use prost_reflect::{DescriptorPool, EnumDescriptor, FileDescriptor, Kind as FieldKind, MessageDescriptor};
use protox::{
    Compiler,
    file::{ChainFileResolver, File, FileResolver, GoogleFileResolver},
};

use super::wire::Scalar;

/// Deepest nesting of message types in a file.
const NESTED_MAX: usize = 64;

/// What registries know without being told.
const BUILT_IN: [(&str, &str); 2] = [
    (
        "confluent/meta.proto",
        r#"syntax = "proto3"; package confluent; import "google/protobuf/descriptor.proto";
        message Meta { string doc = 1; map<string, string> params = 2; repeated string tags = 3; }
        extend google.protobuf.FileOptions { Meta file_meta = 1088; }
        extend google.protobuf.MessageOptions { Meta message_meta = 1088; }
        extend google.protobuf.FieldOptions { Meta field_meta = 1088; }
        extend google.protobuf.EnumOptions { Meta enum_meta = 1088; }
        extend google.protobuf.EnumValueOptions { Meta enum_value_meta = 1088; }"#,
    ),
    (
        "confluent/type/decimal.proto",
        r#"syntax = "proto3"; package confluent.type;
        message Decimal { bytes value = 1; uint32 precision = 2; int32 scale = 3; }"#,
    ),
];

/// Texts by the names under which they import each other.
struct Texts(Vec<(String, String)>);

impl FileResolver for Texts {
    fn open_file(&self, name: &str) -> Result<File, protox::Error> {
        let known = self.0.iter().find(|(known, _)| known == name).map(|(_, text)| text.as_str());
        let name_of_types = name.replace("confluent/types/", "confluent/type/");
        let built_in = || BUILT_IN.iter().find(|(known, _)| *known == name_of_types).map(|(_, text)| *text);
        match known.or_else(built_in) {
            Some(text) => File::from_source(name, text),
            None => Err(protox::Error::file_not_found(name)),
        }
    }
}

/// Compiles a .proto text, which may import `referenced` texts by name. The error tells a person what is wrong.
pub(crate) fn compile(text: &str, referenced: &[(String, String)]) -> Result<FileDescriptor, String> {
    const NAME: &str = "schema.proto";
    let mut texts = referenced.to_vec();
    texts.insert(0, (NAME.into(), text.into()));
    let mut resolver = ChainFileResolver::new();
    resolver.add(Texts(texts));
    resolver.add(GoogleFileResolver::new());
    let mut compiler = Compiler::with_file_resolver(resolver);
    compiler.include_imports(true).open_file(NAME).map_err(|error| error.to_string())?;
    let pool = compiler.descriptor_pool();
    pool.get_file_by_name(NAME).ok_or_else(|| "it gives no file".into())
}

/// Compiles a .proto file with what it imports from its own folder.
pub(in crate::decode) fn compile_file(path: &std::path::Path) -> Result<FileDescriptor, String> {
    let name = path.file_name().and_then(|name| name.to_str()).ok_or("its name is no text")?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(std::path::Path::new("."));
    let mut compiler = Compiler::new([folder]).map_err(|error| error.to_string())?;
    compiler.include_imports(true).open_file(name).map_err(|error| error.to_string())?;
    let pool = compiler.descriptor_pool();
    pool.get_file_by_name(name).ok_or_else(|| "it gives no file".into())
}

/// Reads a serialized FileDescriptorSet.
pub(in crate::decode) fn descriptor_set(bytes: &[u8]) -> Result<DescriptorPool, String> {
    let pool = DescriptorPool::decode(bytes).map_err(|error| error.to_string())?;
    let unknown = |file: &FileDescriptor| !matches!(file.file_descriptor_proto().syntax(), "" | "proto2" | "proto3");
    let strange = pool.files().find(unknown);
    match strange {
        Some(file) => Err(format!("file {} is neither proto2 nor proto3", file.name())),
        None => Ok(pool),
    }
}

/// The type that a path of indices leads to, the first among the file's types, each other among those in the type before it.
pub(super) fn by_indices(file: &FileDescriptor, path: &[i32]) -> Option<MessageDescriptor> {
    let (first, nested) = path.split_first()?;
    if nested.len() > NESTED_MAX {
        return None;
    }
    let mut message = file.messages().nth(usize::try_from(*first).ok()?)?;
    for index in nested {
        // The types of maps' entries stand in no .proto, and are not counted.
        let next = message.child_messages().filter(|child| !child.is_map_entry()).nth(usize::try_from(*index).ok()?);
        message = next?;
    }
    Some(message)
}

/// The type of a field's values.
#[derive(Clone, Debug)]
pub(super) enum Kind {
    Scalar(Scalar),
    Enum(EnumDescriptor),
    Message(MessageKind),
}

#[derive(Clone, Debug)]
pub(super) struct MessageKind {
    pub(super) descriptor: MessageDescriptor,
    pub(super) known: Known,
}

/// Messages that mean one value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Known {
    /// A record like any other.
    No,
    Timestamp,
    Duration,
    /// `google.protobuf.Int64Value` and its like.
    Wrapper(Scalar),
    /// `confluent.type.Decimal`.
    Decimal,
    /// JSON in Protobuf.
    Struct,
    Value,
    List,
}

impl MessageKind {
    pub(super) fn of(descriptor: MessageDescriptor) -> Self {
        Self { known: Known::of(descriptor.full_name()), descriptor }
    }
}

impl Kind {
    pub(super) fn of(kind: FieldKind) -> Self {
        Self::Scalar(match kind {
            FieldKind::Double => Scalar::Double,
            FieldKind::Float => Scalar::Float,
            FieldKind::Int32 => Scalar::Int32,
            FieldKind::Int64 => Scalar::Int64,
            FieldKind::Uint32 => Scalar::Uint32,
            FieldKind::Uint64 => Scalar::Uint64,
            FieldKind::Sint32 => Scalar::Sint32,
            FieldKind::Sint64 => Scalar::Sint64,
            FieldKind::Fixed32 => Scalar::Fixed32,
            FieldKind::Fixed64 => Scalar::Fixed64,
            FieldKind::Sfixed32 => Scalar::Sfixed32,
            FieldKind::Sfixed64 => Scalar::Sfixed64,
            FieldKind::Bool => Scalar::Bool,
            FieldKind::String => Scalar::String,
            FieldKind::Bytes => Scalar::Bytes,
            FieldKind::Message(descriptor) => return Self::Message(MessageKind::of(descriptor)),
            FieldKind::Enum(words) => return Self::Enum(words),
        })
    }

    /// What the wire has of it; a message is none.
    pub(super) fn scalar(&self) -> Option<Scalar> {
        match self {
            Self::Scalar(scalar) => Some(*scalar),
            Self::Enum(_) => Some(Scalar::Enum),
            Self::Message(_) => None,
        }
    }
}

impl Known {
    fn of(full_name: &str) -> Self {
        let Some(name) = full_name.strip_prefix("google.protobuf.") else {
            return if full_name == "confluent.type.Decimal" { Self::Decimal } else { Self::No };
        };
        match name {
            "Timestamp" => Self::Timestamp,
            "Duration" => Self::Duration,
            "DoubleValue" => Self::Wrapper(Scalar::Double),
            "FloatValue" => Self::Wrapper(Scalar::Float),
            "Int64Value" => Self::Wrapper(Scalar::Int64),
            "UInt64Value" => Self::Wrapper(Scalar::Uint64),
            "Int32Value" => Self::Wrapper(Scalar::Int32),
            "UInt32Value" => Self::Wrapper(Scalar::Uint32),
            "BoolValue" => Self::Wrapper(Scalar::Bool),
            "StringValue" => Self::Wrapper(Scalar::String),
            "BytesValue" => Self::Wrapper(Scalar::Bytes),
            "Struct" => Self::Struct,
            "Value" => Self::Value,
            "ListValue" => Self::List,
            _ => Self::No,
        }
    }
}
