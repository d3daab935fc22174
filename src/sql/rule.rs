//! CREATE RULE and ALTER RULE.

use datafusion::sql::sqlparser::tokenizer::Token;

use super::{
    ast::{AlterRule, CreateRule, Ddl},
    create::{option_value, options},
    options::duration_us,
    tokens::Cursor,
};
use crate::{
    catalog::definition::{Comparison, RuleAction},
    session::error::{Result, SqlError, state},
};

/// After CREATE [OR REPLACE] RULE.
pub(super) fn create_rule(cursor: &mut Cursor<'_>, or_replace: bool) -> Result<Ddl> {
    let position = cursor.position();
    let if_not_exists = cursor.keywords(&["IF", "NOT", "EXISTS"]);
    if or_replace && if_not_exists {
        return Err(SqlError::syntax("OR REPLACE and IF NOT EXISTS exclude each other").at(position));
    }
    let name = cursor.object_name("the name of the rule")?;
    if cursor.is_keyword("AS") {
        return Err(SqlError::unsupported("rules that rewrite statements are not supported").at(cursor.position()).with_hint(
            "a rule here watches pipelines: CREATE RULE name ON PIPELINE pipeline WHEN lag > 100000 FOR '1 minute' DO RESTART",
        ));
    }
    cursor.expect_keyword("ON")?;
    let pipeline = match cursor.keywords(&["ALL", "PIPELINES"]) {
        true => None,
        false if cursor.keyword("PIPELINE") => Some(cursor.object_name("the name of the pipeline")?),
        false => return cursor.expected("PIPELINE name or ALL PIPELINES"),
    };
    cursor.expect_keyword("WHEN")?;
    let metric = cursor.name("the name of a metric")?;
    let comparison = comparison(cursor)?;
    let bound_position = cursor.position();
    let bound = option_value(cursor)?;
    let hold_us = match cursor.keyword("FOR") {
        true => {
            let position = cursor.position();
            let text = cursor.string("how long, as in '30 seconds'")?;
            let wrong = |message| SqlError::new(state::INVALID_PARAMETER_VALUE, message).at(position);
            duration_us(&text).map_err(wrong)?
        }
        false => 0,
    };
    cursor.expect_keyword("DO")?;
    let (action, options) = action(cursor)?;
    Ok(Ddl::CreateRule(CreateRule {
        name,
        or_replace,
        if_not_exists,
        pipeline,
        metric,
        comparison,
        bound,
        bound_position,
        hold_us,
        action,
        options,
    }))
}

fn comparison(cursor: &mut Cursor<'_>) -> Result<Comparison> {
    let comparison = match cursor.peek() {
        Some(Token::Gt) => Comparison::Above,
        Some(Token::GtEq) => Comparison::AtLeast,
        Some(Token::Lt) => Comparison::Below,
        Some(Token::LtEq) => Comparison::AtMost,
        _ => return cursor.expected(">, >=, < or <="),
    };
    cursor.step();
    Ok(comparison)
}

fn action(cursor: &mut Cursor<'_>) -> Result<(RuleAction, Vec<super::ast::OptionPair>)> {
    let mut ahead = cursor.clone();
    if ahead.keyword("SET") {
        let pairs = options(&mut ahead)?;
        if !ahead.at_end() {
            return ahead.expected("end of statement");
        }
        return Ok((RuleAction::Alter(cursor.text.slice(cursor.rest()).to_owned()), pairs));
    }
    let action = if cursor.keyword("EVENT") {
        RuleAction::Event
    } else if cursor.keyword("NOTIFY") {
        RuleAction::Notify(cursor.name("the name of a channel")?.value)
    } else if cursor.keyword("RESTART") {
        RuleAction::Alter("RESTART".to_owned())
    } else if cursor.keyword("PAUSE") {
        RuleAction::Alter("PAUSE".to_owned())
    } else {
        return cursor.expected("EVENT, NOTIFY channel, RESTART, PAUSE or SET (…)");
    };
    Ok((action, Vec::new()))
}

/// After ALTER RULE.
pub(super) fn alter_rule(cursor: &mut Cursor<'_>) -> Result<Ddl> {
    let if_exists = cursor.keywords(&["IF", "EXISTS"]);
    let name = cursor.object_name("the name of the rule")?;
    let enabled = if cursor.keyword("ENABLE") {
        true
    } else if cursor.keyword("DISABLE") {
        false
    } else {
        return cursor.expected("ENABLE or DISABLE");
    };
    Ok(Ddl::AlterRule(AlterRule { name, if_exists, enabled }))
}
