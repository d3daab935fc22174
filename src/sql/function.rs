//! CREATE FUNCTION … LANGUAGE wasm.

use datafusion::sql::sqlparser::tokenizer::Token;

use super::{
    ast::{CreateFunction, Ddl, FunctionArgument, Module},
    tokens::Cursor,
    types::data_type,
};
use crate::session::error::{Result, SqlError, state};

/// What PostgreSQL says of a function and is always so here.
const ALWAYS: &[&[&str]] =
    &[&["IMMUTABLE"], &["STRICT"], &["RETURNS", "NULL", "ON", "NULL", "INPUT"], &["PARALLEL", "SAFE"], &["LEAKPROOF"]];
/// And what is never so.
const NEVER: &[&str] = &[
    "VOLATILE",
    "STABLE",
    "CALLED",
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
    let (mut has_language, mut body) = (false, None);
    while !cursor.at_end() {
        let position = cursor.position();
        if cursor.keyword("LANGUAGE") {
            language(cursor)?;
            has_language = true;
        } else if cursor.keyword("AS") {
            let position = cursor.position();
            let module = module(cursor.string("the path of a module")?).map_err(|error| error.at(position))?;
            let symbol = match cursor.symbol(&Token::Comma) {
                true => Some(cursor.string("what the module calls the function")?),
                false => None,
            };
            body = Some((module, symbol, position));
        } else if ALWAYS.iter().any(|words| cursor.keywords(words)) {
            // So it is.
        } else if NEVER.iter().any(|word| cursor.is_keyword(word)) {
            let message = "functions in WebAssembly are IMMUTABLE and STRICT, and nothing else";
            return Err(SqlError::unsupported(message).at(position));
        } else {
            return cursor.expected("LANGUAGE wasm AS 'file.wasm'");
        }
    }
    let Some((module, symbol, module_position)) = body.filter(|_| has_language) else {
        let what = if has_language { "no function body specified" } else { "no language specified" };
        return Err(SqlError::new(state::INVALID_FUNCTION_DEFINITION, what)
            .at(name.position)
            .with_hint("write LANGUAGE wasm AS 'file.wasm'"));
    };
    Ok(Ddl::CreateFunction(CreateFunction {
        name,
        or_replace,
        if_not_exists,
        arguments,
        returns,
        module,
        module_position,
        symbol,
    }))
}

fn language(cursor: &mut Cursor<'_>) -> Result<()> {
    let position = cursor.position();
    let name = match cursor.peek() {
        Some(Token::SingleQuotedString(_)) => cursor.string("a language")?,
        _ => cursor.name("a language")?.value,
    };
    if name.eq_ignore_ascii_case("wasm") {
        return Ok(());
    }
    Err(SqlError::new(state::UNDEFINED_OBJECT, format!("language \"{name}\" does not exist"))
        .at(position)
        .with_hint("functions are written in WebAssembly: LANGUAGE wasm AS 'file.wasm'"))
}

/// A path, or the bytes themselves as BYTEA is written in hex: `\x0061736d…`.
fn module(text: String) -> Result<Module> {
    let Some(digits) = text.strip_prefix("\\x") else { return Ok(Module::Path(text)) };
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    let (pairs, rest) = digits.as_bytes().as_chunks::<2>();
    let bytes: Option<Vec<u8>> = pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect();
    bytes.filter(|_| rest.is_empty()).map(Module::Bytes).ok_or_else(|| {
        SqlError::new(state::INVALID_TEXT_REPRESENTATION, "the module is not written in hexadecimal digits")
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
