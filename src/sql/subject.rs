//! CREATE, ALTER and DROP SUBJECT: the schema registry.

use datafusion::sql::sqlparser::tokenizer::{Token, Word};

use super::{
    ast::{AlterSubject, AlterSubjectAction, CreateSubject, Ddl, DropSubject, Name, SchemaText},
    create::options,
    tokens::Cursor,
};
use crate::session::error::{Result, SqlError, state};

const NAME: &str = "the name of the subject";

/// After CREATE SUBJECT.
pub(super) fn create_subject(cursor: &mut Cursor<'_>) -> Result<Ddl> {
    let if_not_exists = cursor.keywords(&["IF", "NOT", "EXISTS"]);
    let name = name(cursor)?;
    let options = if cursor.keyword("WITH") { options(cursor)? } else { Vec::new() };
    cursor.expect_keyword("AS")?;
    Ok(Ddl::CreateSubject(CreateSubject { name, if_not_exists, options, schema: schema(cursor)? }))
}

/// After ALTER SUBJECT.
pub(super) fn alter_subject(cursor: &mut Cursor<'_>) -> Result<Ddl> {
    let if_exists = cursor.keywords(&["IF", "EXISTS"]);
    let name = name(cursor)?;
    let position = cursor.position();
    let action = if cursor.keyword("PROPOSE") {
        AlterSubjectAction::Propose(schema(cursor)?)
    } else if cursor.keywords(&["ADD", "VERSION"]) {
        let schema = schema(cursor)?;
        AlterSubjectAction::Add { schema, force: cursor.keyword("FORCE") }
    } else if cursor.keyword("SET") {
        AlterSubjectAction::Set(options(cursor)?)
    } else {
        let message = "ALTER SUBJECT takes PROPOSE '…', ADD VERSION '…' [FORCE] or SET (compatibility = '…')";
        return Err(SqlError::new(state::SYNTAX_ERROR, message).at(position));
    };
    Ok(Ddl::AlterSubject(AlterSubject { name, if_exists, action }))
}

/// After DROP SUBJECT.
pub(super) fn drop_subject(cursor: &mut Cursor<'_>) -> Result<Ddl> {
    let if_exists = cursor.keywords(&["IF", "EXISTS"]);
    let name = name(cursor)?;
    let version = match cursor.keyword("VERSION") {
        true => {
            let position = cursor.position();
            let number = cursor.number("the number of a version")?;
            let number = u32::try_from(number).ok().filter(|number| *number > 0);
            let wrong = || SqlError::new(state::INVALID_PARAMETER_VALUE, "versions count from 1").at(position);
            Some(number.ok_or_else(wrong)?)
        }
        false => None,
    };
    let force = cursor.keyword("FORCE");
    if !force {
        cursor.keyword("RESTRICT");
    }
    Ok(Ddl::DropSubject(DropSubject { name, if_exists, version, force }))
}

/// A word, a quoted name or a string: names of subjects have hyphens, and may be longer than others.
fn name(cursor: &mut Cursor<'_>) -> Result<Name> {
    let position = cursor.position();
    let quoted = match cursor.peek() {
        Some(Token::SingleQuotedString(value)) => Some(value.clone()),
        Some(Token::Word(Word { value, quote_style: Some(_), .. })) => Some(value.clone()),
        _ => None,
    };
    let value = match quoted {
        Some(value) => {
            cursor.step();
            value
        }
        None => cursor.name(NAME)?.value,
    };
    match cursor.peek() {
        Some(Token::Minus | Token::Period | Token::Div) => Err(SqlError::syntax(format!(
            "the name of a subject that is more than one word stands in quotes, as in \"{value}-value\""
        ))
        .at(position)),
        _ => Ok(Name { value, position }),
    }
}

fn schema(cursor: &mut Cursor<'_>) -> Result<SchemaText> {
    let position = cursor.position();
    Ok(SchemaText { text: cursor.string("a schema, as in '{\"type\": \"record\", …}'")?, position })
}
