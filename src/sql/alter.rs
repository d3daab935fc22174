//! ALTER TABLE and SOURCE, and DROP of whatever was created; other ALTERs of ours begin here.

use datafusion::sql::sqlparser::tokenizer::Token;

use super::{
    ast::{AlterAction, AlterSource, AlterSourceAction, AlterTable, Ddl, Drop, ObjectKind},
    create::{column_definition, compression, options},
    function, not_yet,
    tokens::Cursor,
    types::data_type,
};
use crate::session::error::{Result, SqlError};

/// After ALTER. `None` when it is not ours.
pub(crate) fn alter(cursor: &mut Cursor<'_>) -> Result<Option<Ddl>> {
    not_yet(cursor, "ALTER")?;
    if cursor.keyword("SOURCE") {
        return source(cursor).map(Some);
    }
    if cursor.keyword("SINK") {
        return super::sink::alter_sink(cursor).map(Some);
    }
    if cursor.keyword("SUBJECT") {
        return super::subject::alter_subject(cursor).map(Some);
    }
    if cursor.keyword("PIPELINE") {
        return super::pipeline::alter_pipeline(cursor).map(Some);
    }
    if cursor.keyword("RULE") {
        return super::rule::alter_rule(cursor).map(Some);
    }
    if !cursor.keyword("TABLE") {
        return Ok(None);
    }
    let if_exists = cursor.keywords(&["IF", "EXISTS"]);
    cursor.keyword("ONLY");
    let name = cursor.object_name("the name of the table")?;
    let mut actions = Vec::new();
    loop {
        actions.push(action(cursor)?);
        if !cursor.symbol(&Token::Comma) {
            break;
        }
    }
    Ok(Some(Ddl::AlterTable(AlterTable { name, if_exists, actions })))
}

/// After ALTER SOURCE.
fn source(cursor: &mut Cursor<'_>) -> Result<Ddl> {
    let if_exists = cursor.keywords(&["IF", "EXISTS"]);
    let name = cursor.object_name("the name of the source")?;
    let action = if cursor.keyword("SET") {
        AlterSourceAction::SetOptions(options(cursor)?)
    } else if cursor.keyword("RESET") {
        cursor.expect_keyword("OFFSETS")?;
        cursor.expect_keyword("TO")?;
        let position = cursor.position();
        AlterSourceAction::ResetOffsets { start: cursor.string("where to begin, as in 'earliest'")?, position }
    } else {
        return Err(SqlError::unsupported(
            "ALTER SOURCE takes SET (on_gap = 'skip', max_rows_per_s = 20000) and RESET OFFSETS TO 'earliest'",
        )
        .at(cursor.position()));
    };
    Ok(Ddl::AlterSource(AlterSource { name, if_exists, action }))
}

fn action(cursor: &mut Cursor<'_>) -> Result<AlterAction> {
    if cursor.keyword("ADD") {
        for constraint in ["CONSTRAINT", "CHECK", "PRIMARY", "UNIQUE", "FOREIGN"] {
            if cursor.is_keyword(constraint) {
                return Err(
                    SqlError::unsupported("adding constraints to a table is not supported").at(cursor.position())
                );
            }
        }
        cursor.keyword("COLUMN");
        let if_not_exists = cursor.keywords(&["IF", "NOT", "EXISTS"]);
        return Ok(AlterAction::AddColumn { column: column_definition(cursor)?, if_not_exists });
    }
    if cursor.keyword("DROP") {
        if cursor.is_keyword("CONSTRAINT") {
            return Err(SqlError::unsupported("tables have no constraints to drop").at(cursor.position()));
        }
        cursor.keyword("COLUMN");
        let if_exists = cursor.keywords(&["IF", "EXISTS"]);
        let name = cursor.name("the name of a column")?;
        if !cursor.keyword("CASCADE") {
            cursor.keyword("RESTRICT");
        }
        return Ok(AlterAction::DropColumn { name, if_exists });
    }
    if cursor.keyword("RENAME") {
        if cursor.keyword("TO") {
            return Ok(AlterAction::RenameTo(cursor.name("the new name of the table")?));
        }
        cursor.keyword("COLUMN");
        let from = cursor.name("the name of a column")?;
        cursor.expect_keyword("TO")?;
        return Ok(AlterAction::RenameColumn { from, to: cursor.name("the new name of the column")? });
    }
    if cursor.keyword("ALTER") {
        cursor.keyword("COLUMN");
        let column = cursor.name("the name of a column")?;
        if cursor.keywords(&["SET", "COMPRESSION"]) {
            return Ok(AlterAction::SetCompression { column, compression: compression(cursor)? });
        }
        if !cursor.keywords(&["SET", "DATA", "TYPE"]) && !cursor.keyword("TYPE") {
            if cursor.is_keyword("SET") || cursor.is_keyword("DROP") {
                return Err(
                    SqlError::unsupported("only type and compression of a column can be altered").at(cursor.position())
                );
            }
            return cursor.expected("TYPE");
        }
        let position = cursor.position();
        let (data_type, _) = data_type(cursor)?;
        if cursor.is_keyword("USING") {
            return Err(
                SqlError::unsupported("USING is not supported: stored rows are not rewritten").at(cursor.position())
            );
        }
        return Ok(AlterAction::SetType { column, data_type, position });
    }
    if cursor.keyword("SET") {
        return Ok(AlterAction::SetOptions(options(cursor)?));
    }
    if cursor.keywords(&["PAUSE", "INGESTION"]) {
        return Ok(AlterAction::PauseIngestion);
    }
    if cursor.keywords(&["RESUME", "INGESTION"]) {
        return Ok(AlterAction::ResumeIngestion);
    }
    cursor.expected("ADD, DROP, RENAME, ALTER, SET, PAUSE INGESTION or RESUME INGESTION")
}

/// After DROP. `None` when it is not ours.
pub(crate) fn drop(cursor: &mut Cursor<'_>) -> Result<Option<Ddl>> {
    not_yet(cursor, "DROP")?;
    if cursor.keyword("SUBJECT") {
        return super::subject::drop_subject(cursor).map(Some);
    }
    let kind = if cursor.keyword("TABLE") {
        ObjectKind::Table
    } else if cursor.keyword("SOURCE") {
        ObjectKind::Source
    } else if cursor.keyword("SINK") {
        ObjectKind::Sink
    } else if cursor.keyword("PIPELINE") {
        ObjectKind::Pipeline
    } else if cursor.keyword("VIEW") {
        ObjectKind::View
    } else if cursor.keyword("INDEX") {
        cursor.keyword("CONCURRENTLY");
        ObjectKind::Index
    } else if cursor.keyword("FUNCTION") {
        ObjectKind::Function
    } else if cursor.keyword("RULE") {
        ObjectKind::Rule
    } else {
        return Ok(None);
    };
    let if_exists = cursor.keywords(&["IF", "EXISTS"]);
    let mut names = Vec::new();
    loop {
        names.push(cursor.object_name(&format!("the name of the {}", kind.name()))?);
        if kind == ObjectKind::Function {
            // A name has one function: what it takes need not be said.
            function::arguments_of_dropped(cursor)?;
        }
        if !cursor.symbol(&Token::Comma) {
            break;
        }
    }
    let cascade = cursor.keyword("CASCADE");
    if !cascade {
        cursor.keyword("RESTRICT");
    }
    Ok(Some(Ddl::Drop(Drop { kind, names, if_exists, cascade })))
}
