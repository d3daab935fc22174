//! Files as .proto texts: what data depends on. Services, extensions and options of people's own are left out.

use std::fmt::Write as _;

use prost_reflect::prost_types::{
    DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorProto,
    field_descriptor_proto::{Label, Type},
};

/// Deepest nesting of messages.
const DEPTH_MAX: usize = 64;
/// The last number that a field can have.
const NUMBER_MAX: i32 = 536_870_911;

/// The error says what a .proto cannot say.
pub(super) fn proto(file: &FileDescriptorProto) -> Result<String, String> {
    let syntax = match file.syntax() {
        "" => "proto2",
        known @ ("proto2" | "proto3") => known,
        other => return Err(format!("syntax \"{other}\" is neither proto2 nor proto3")),
    };
    let mut printer = Printer { out: format!("syntax = \"{syntax}\";\n"), is_proto3: syntax == "proto3" };
    if !file.package().is_empty() {
        printer.line(0, &format!("package {};", name(file.package(), true)?));
    }
    for (at, import) in (0..).zip(&file.dependency) {
        let word = if file.public_dependency.contains(&at) { "public " } else { "" };
        printer.line(0, &format!("import {word}{};", quoted(import)));
    }
    for message in &file.message_type {
        printer.message(message, 0)?;
    }
    for words in &file.enum_type {
        printer.words(words, 0)?;
    }
    Ok(printer.out)
}

struct Printer {
    out: String,
    is_proto3: bool,
}

impl Printer {
    fn line(&mut self, depth: usize, text: &str) {
        self.out.push_str(&"  ".repeat(depth));
        self.out.push_str(text);
        self.out.push('\n');
    }

    fn message(&mut self, message: &DescriptorProto, depth: usize) -> Result<(), String> {
        if depth > DEPTH_MAX {
            return Err(format!("messages stand in each other more than {DEPTH_MAX} deep"));
        }
        if !message.extension_range.is_empty() || !message.extension.is_empty() {
            return Err(format!("message \"{}\" has extensions; send the .proto itself", message.name()));
        }
        self.line(depth, &format!("message {} {{", name(message.name(), false)?));
        for nested in message.nested_type.iter().filter(|nested| !is_entry(nested)) {
            self.message(nested, depth + 1)?;
        }
        for words in &message.enum_type {
            self.words(words, depth + 1)?;
        }
        let mut printed = Vec::new();
        for field in &message.field {
            let Some(at) = real_oneof(field) else {
                let text = self.field(message, field, true)?;
                self.line(depth + 1, &text);
                continue;
            };
            if printed.contains(&at) {
                continue;
            }
            printed.push(at);
            let oneof = usize::try_from(at).ok().and_then(|at| message.oneof_decl.get(at));
            let oneof = oneof.ok_or_else(|| format!("field \"{}\" is of a oneof that is not there", field.name()))?;
            self.line(depth + 1, &format!("oneof {} {{", name(oneof.name(), false)?));
            for field in message.field.iter().filter(|field| real_oneof(field) == Some(at)) {
                let text = self.field(message, field, false)?;
                self.line(depth + 2, &text);
            }
            self.line(depth + 1, "}");
        }
        for range in &message.reserved_range {
            // The end is not in it.
            let (from, to) = (range.start(), range.end().saturating_sub(1));
            let to = if to >= NUMBER_MAX { "max".to_owned() } else { to.to_string() };
            self.line(depth + 1, &format!("reserved {from} to {to};"));
        }
        for reserved in &message.reserved_name {
            self.line(depth + 1, &format!("reserved {};", quoted(reserved)));
        }
        self.line(depth, "}");
        Ok(())
    }

    fn field(
        &self,
        message: &DescriptorProto,
        field: &FieldDescriptorProto,
        is_labelled: bool,
    ) -> Result<String, String> {
        let entry = message
            .nested_type
            .iter()
            .find(|nested| is_entry(nested) && field.type_name().rsplit('.').next() == Some(nested.name()));
        let of = match entry.map(|entry| entry.field.as_slice()) {
            Some([key, value]) => format!("map<{}, {}>", type_name(key)?, type_name(value)?),
            _ => {
                let label = match field.label() {
                    _ if !is_labelled => "",
                    Label::Repeated => "repeated ",
                    Label::Required => "required ",
                    Label::Optional if !self.is_proto3 || field.proto3_optional() => "optional ",
                    Label::Optional => "",
                };
                format!("{label}{}", type_name(field)?)
            }
        };
        let mut options = Vec::new();
        if let Some(default) = &field.default_value {
            options.push(match field.r#type() {
                Type::String => format!("default = {}", quoted(default)),
                // Escaped already.
                Type::Bytes => format!("default = \"{default}\""),
                _ => format!("default = {}", name_or_number(default)?),
            });
        }
        if let Some(settings) = &field.options {
            options.extend(settings.packed.map(|packed| format!("packed = {packed}")));
            options.extend(settings.deprecated.filter(|is| *is).map(|_| "deprecated = true".to_owned()));
        }
        let mut out = format!("{of} {} = {}", name(field.name(), false)?, field.number());
        if !options.is_empty() {
            let _ = write!(out, " [{}]", options.join(", "));
        }
        out.push(';');
        Ok(out)
    }

    fn words(&mut self, words: &EnumDescriptorProto, depth: usize) -> Result<(), String> {
        self.line(depth, &format!("enum {} {{", name(words.name(), false)?));
        if words.options.as_ref().is_some_and(|options| options.allow_alias()) {
            self.line(depth + 1, "option allow_alias = true;");
        }
        for value in &words.value {
            self.line(depth + 1, &format!("{} = {};", name(value.name(), false)?, value.number()));
        }
        for range in &words.reserved_range {
            // Here the end is in it.
            let to = if range.end() == i32::MAX { "max".to_owned() } else { range.end().to_string() };
            self.line(depth + 1, &format!("reserved {} to {to};", range.start()));
        }
        for reserved in &words.reserved_name {
            self.line(depth + 1, &format!("reserved {};", quoted(reserved)));
        }
        self.line(depth, "}");
        Ok(())
    }
}

pub(super) fn is_entry(message: &DescriptorProto) -> bool {
    message.options.as_ref().is_some_and(|options| options.map_entry())
}

fn real_oneof(field: &FieldDescriptorProto) -> Option<i32> {
    field.oneof_index.filter(|_| !field.proto3_optional())
}

fn type_name(field: &FieldDescriptorProto) -> Result<String, String> {
    Ok(match field.r#type() {
        Type::Double => "double",
        Type::Float => "float",
        Type::Int64 => "int64",
        Type::Uint64 => "uint64",
        Type::Int32 => "int32",
        Type::Fixed64 => "fixed64",
        Type::Fixed32 => "fixed32",
        Type::Bool => "bool",
        Type::String => "string",
        Type::Bytes => "bytes",
        Type::Uint32 => "uint32",
        Type::Sfixed32 => "sfixed32",
        Type::Sfixed64 => "sfixed64",
        Type::Sint32 => "sint32",
        Type::Sint64 => "sint64",
        Type::Group => return Err(format!("field \"{}\" is a group; send the .proto itself", field.name())),
        // With its leading dot: a full name.
        Type::Message | Type::Enum => return name(field.type_name(), true).map(str::to_owned),
    }
    .to_owned())
}

/// Bytes of others become a text that is compiled: only names may stand where names are.
fn name(name: &str, is_dotted: bool) -> Result<&str, String> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || (is_dotted && byte == b'.');
    match !name.is_empty() && name.bytes().all(is_plain) {
        true => Ok(name),
        false => Err(format!("{name:?} is no name")),
    }
}

fn name_or_number(text: &str) -> Result<&str, String> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-' | b'+');
    match !text.is_empty() && text.bytes().all(is_plain) {
        true => Ok(text),
        false => Err(format!("{text:?} is no default")),
    }
}

fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            c if c.is_ascii_control() => _ = write!(out, "\\{:03o}", u32::from(c)),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}
