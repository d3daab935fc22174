//! CREATE FUNCTION … LANGUAGE wasm or model.

use datafusion::sql::sqlparser::tokenizer::Token;
use tidemill_query::functions::user::Language;

use super::{
    ast::{CreateFunction, Ddl, FunctionArgument, Module},
    tokens::Cursor,
    types::data_type,
};
use crate::session::error::{Result, SqlError, state};

/// What PostgreSQL says of a function and is always so here.
const ALWAYS: &[&[&str]] = &[&["IMMUTABLE"], &["PARALLEL", "SAFE"], &["LEAKPROOF"]];
/// Whether it is called with NULLs.
const ON_NULL: &[(&[&str], bool)] = &[
    (&["STRICT"], false),
    (&["RETURNS", "NULL", "ON", "NULL", "INPUT"], false),
    (&["CALLED", "ON", "NULL", "INPUT"], true),
];
/// And what is never so.
const NEVER: &[&str] = &[
    "VOLATILE",
    "STABLE",
    "SECURITY",
    "EXTERNAL",
    "WINDOW",
    "SUPPORT",
    "SET",
    "COST",
    "ROWS",
    "TRANSFORM",
    "PARALLEL",
    "NOT",
];
/// What is written when something is missing.
const FORM: &str = "write LANGUAGE wasm AS 'file.wasm', or LANGUAGE model AS 'file.onnx'";

/// After CREATE [OR REPLACE] FUNCTION.
pub(super) fn create_function(cursor: &mut Cursor<'_>, or_replace: bool) -> Result<Ddl> {
    let if_not_exists = cursor.keywords(&["IF", "NOT", "EXISTS"]);
    let name = cursor.object_name("the name of the function")?;
    let arguments = arguments(cursor)?;
    cursor.expect_keyword("RETURNS")?;
    if cursor.is_keyword("TABLE") || cursor.is_keyword("SETOF") {
        return Err(SqlError::unsupported("a function gives one value, not rows").at(cursor.position()));
    }
    let (returns, _) = data_type(cursor)?;
    let (mut written_in, mut body) = (None, None);
    let mut on_null: Option<(bool, u32)> = None;
    while !cursor.at_end() {
        let position = cursor.position();
        if cursor.keyword("LANGUAGE") {
            written_in = Some(language(cursor)?);
        } else if cursor.keyword("AS") {
            let position = cursor.position();
            let module =
                module(cursor.string("the path of a module or of a model")?).map_err(|error| error.at(position))?;
            let symbol = match cursor.symbol(&Token::Comma) {
                true => Some(cursor.string("what the module calls the function, or the model its output")?),
                false => None,
            };
            body = Some((module, symbol, position));
        } else if ALWAYS.iter().any(|words| cursor.keywords(words)) {
            // So it is.
        } else if let Some((_, called)) = ON_NULL.iter().find(|(words, _)| cursor.keywords(words)) {
            if on_null.is_some_and(|(before, _)| before != *called) {
                return Err(SqlError::new(state::SYNTAX_ERROR, "conflicting or redundant options").at(position));
            }
            on_null = Some((*called, position));
        } else if NEVER.iter().any(|word| cursor.is_keyword(word)) {
            let message = "functions are IMMUTABLE and PARALLEL SAFE, and nothing else";
            return Err(SqlError::unsupported(message).at(position));
        } else {
            return cursor.expected("LANGUAGE wasm AS 'file.wasm' or LANGUAGE model AS 'file.onnx'");
        }
    }
    let (Some((module, symbol, module_position)), Some(language)) = (body, written_in) else {
        let what = if written_in.is_some() { "no function body specified" } else { "no language specified" };
        return Err(SqlError::new(state::INVALID_FUNCTION_DEFINITION, what).at(name.position).with_hint(FORM));
    };
    if let (Language::Wasm, Some((true, position))) = (language, on_null) {
        return Err(SqlError::unsupported("functions in WebAssembly are STRICT, and not called on NULL input")
            .at(position)
            .with_hint("a NULL argument gives NULL; models can be CALLED ON NULL INPUT"));
    }
    Ok(Ddl::CreateFunction(CreateFunction {
        name,
        or_replace,
        if_not_exists,
        arguments,
        returns,
        language,
        called_on_null: on_null.is_some_and(|(called, _)| called),
        module,
        module_position,
        symbol,
    }))
}

fn language(cursor: &mut Cursor<'_>) -> Result<Language> {
    let position = cursor.position();
    let name = match cursor.peek() {
        Some(Token::SingleQuotedString(_)) => cursor.string("a language")?,
        _ => cursor.name("a language")?.value,
    };
    let known = Language::ALL.into_iter().find(|language| name.eq_ignore_ascii_case(language.name()));
    known.ok_or_else(|| {
        SqlError::new(state::UNDEFINED_OBJECT, format!("language \"{name}\" does not exist")).at(position).with_hint(
            "functions are WebAssembly (LANGUAGE wasm AS 'file.wasm') or models (LANGUAGE model AS 'file.onnx')",
        )
    })
}

/// A path, or the bytes themselves as BYTEA is written in hex: `\x0061736d…`.
fn module(text: String) -> Result<Module> {
    let Some(digits) = text.strip_prefix("\\x") else { return Ok(Module::Path(text)) };
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    let (pairs, rest) = digits.as_bytes().as_chunks::<2>();
    let bytes: Option<Vec<u8>> = pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect();
    bytes.filter(|_| rest.is_empty()).map(Module::Bytes).ok_or_else(|| {
        SqlError::new(state::INVALID_TEXT_REPRESENTATION, "what comes after \\x is not written in hexadecimal digits")
    })
}

/// `([name] type, …)`
fn arguments(cursor: &mut Cursor<'_>) -> Result<Vec<FunctionArgument>> {
    let mut ahead = cursor.clone();
    if ahead.symbol(&Token::LParen) && ahead.symbol(&Token::RParen) {
        *cursor = ahead;
        return Ok(Vec::new());
    }
    cursor.list(|cursor| {
        // A name and a type, or a type alone.
        let mut ahead = cursor.clone();
        let is_named = ahead.name("a name").is_ok() && data_type(&mut ahead).is_ok();
        let name = if is_named { Some(cursor.name("the name of an argument")?.value) } else { None };
        let (data_type, _) = data_type(cursor)?;
        Ok(FunctionArgument { name, data_type })
    })
}

/// After the name in DROP FUNCTION.
pub(super) fn arguments_of_dropped(cursor: &mut Cursor<'_>) -> Result<()> {
    if cursor.peek() == Some(&Token::LParen) {
        arguments(cursor)?;
    }
    Ok(())
}
