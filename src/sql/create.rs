//! CREATE SOURCE and CREATE TABLE, in our spelling and in Flink's; other CREATEs of ours begin here.

use datafusion::sql::sqlparser::tokenizer::{Token, Word};

use tidemill_storage::schema::{Compression, Merge};

use super::{
    ast::{
        Check, ColumnDefinition, CreateSource, CreateTable, Ddl, Infer, Name, OptionPair, TableQuery, Transform,
        Watermark,
    },
    not_yet,
    options::TABLE_OPTIONS,
    tokens::Cursor,
    types::data_type,
    view::create_view,
};
use crate::session::error::{Result, SqlError, state};

/// Columns of one table or source, as in Postgres.
const COLUMNS_MAX: usize = 1_600;

/// After CREATE. `None` when it is not ours.
pub(crate) fn create(cursor: &mut Cursor<'_>) -> Result<Option<Ddl>> {
    let position = cursor.position();
    let replace = cursor.keywords(&["OR", "REPLACE"]);
    let refuse = |what: &str| Err(SqlError::unsupported(format!("{what} is not supported")).at(position));
    not_yet(cursor, "CREATE")?;
    if cursor.keyword("PIPELINE") {
        return super::pipeline::create_pipeline(cursor, replace).map(Some);
    }
    if cursor.keyword("RULE") {
        return super::rule::create_rule(cursor, replace).map(Some);
    }
    if cursor.keyword("SOURCE") {
        return if replace { refuse("CREATE OR REPLACE SOURCE") } else { create_source(cursor).map(Some) };
    }
    if cursor.keyword("SINK") {
        return if replace { refuse("CREATE OR REPLACE SINK") } else { super::sink::create_sink(cursor).map(Some) };
    }
    if cursor.keyword("SUBJECT") {
        return if replace {
            refuse("CREATE OR REPLACE SUBJECT")
        } else {
            super::subject::create_subject(cursor).map(Some)
        };
    }
    for kind in ["TEMPORARY", "TEMP", "UNLOGGED", "EXTERNAL", "FOREIGN", "GLOBAL", "LOCAL"] {
        let mut ahead = cursor.clone();
        if ahead.keyword(kind)
            && (ahead.keyword("TABLE") || ahead.keywords(&["TEMPORARY", "TABLE"]) || ahead.keywords(&["TEMP", "TABLE"]))
        {
            return refuse(&format!("CREATE {kind} TABLE"));
        }
    }
    if cursor.keyword("VIEW") {
        return create_view(cursor, replace).map(Some);
    }
    for kind in ["MATERIALIZED", "RECURSIVE", "TEMPORARY", "TEMP"] {
        if cursor.keywords(&[kind, "VIEW"]) {
            return refuse(&format!("CREATE {kind} VIEW"));
        }
    }
    if cursor.is_keyword("UNIQUE") {
        return Err(SqlError::unsupported("CREATE UNIQUE INDEX is not supported: rows are only appended").at(position));
    }
    if cursor.keyword("INDEX") {
        return if replace { refuse("CREATE OR REPLACE INDEX") } else { super::index::create_index(cursor).map(Some) };
    }
    if cursor.keyword("FUNCTION") {
        return super::function::create_function(cursor, replace).map(Some);
    }
    if cursor.keyword("TABLE") {
        return if replace { refuse("CREATE OR REPLACE TABLE") } else { create_table(cursor).map(Some) };
    }
    Ok(None)
}

/// What stands in the parentheses.
#[derive(Default)]
struct Elements {
    columns: Vec<ColumnDefinition>,
    primary_key: Vec<Name>,
    watermark: Option<Watermark>,
    checks: Vec<Check>,
}

fn create_source(cursor: &mut Cursor<'_>) -> Result<Ddl> {
    let if_not_exists = cursor.keywords(&["IF", "NOT", "EXISTS"]);
    let name = cursor.object_name("the name of the source")?;
    let position = cursor.position();
    let elements = if cursor.peek() == Some(&Token::LParen) { elements(cursor)? } else { Elements::default() };
    let topic_position = cursor.position();
    let mut topic = None;
    if cursor.keywords(&["FROM", "TOPIC"]) {
        topic = Some((cursor.position(), cursor.string("the name of a topic")?));
    }
    let infer = infer(cursor)?;
    if infer.is_some() && !elements.columns.is_empty() {
        return Err(SqlError::syntax("a source has columns or INFER, not both")
            .at(position)
            .with_hint("leave the parentheses out; what INFER finds is said in a notice, to be copied and changed"));
    }
    cursor.expect_keyword("WITH")?;
    let mut options = options(cursor)?;
    if let Some((value_position, value)) = topic {
        let mut imply =
            |key: &str, value: String| match options.iter().find(|pair| pair.key.value.eq_ignore_ascii_case(key)) {
                Some(given) => given.value.trim() == value,
                None => {
                    let key = Name { value: key.to_owned(), position: topic_position };
                    options.push(OptionPair { key, value, value_position });
                    true
                }
            };
        if !imply("connector", "kafka".into()) || !imply("topic", value) {
            return Err(SqlError::syntax("FROM TOPIC and the options name different things").at(topic_position));
        }
    }
    match source(name, if_not_exists, elements, options)? {
        Ddl::CreateSource(source) => Ok(Ddl::CreateSource(CreateSource { infer, ..source })),
        other => Ok(other),
    }
}

/// Messages that INFER looks at when it does not say.
const SAMPLE: u64 = 10_000;
const SAMPLE_MAX: u64 = 1_000_000;

/// `INFER [(SAMPLE number)]`.
fn infer(cursor: &mut Cursor<'_>) -> Result<Option<Infer>> {
    let position = cursor.position();
    if !cursor.keyword("INFER") {
        return Ok(None);
    }
    let mut sample = SAMPLE;
    if cursor.symbol(&Token::LParen) {
        cursor.expect_keyword("SAMPLE")?;
        let position = cursor.position();
        sample = cursor.number("a number of messages")?;
        if !(1..=SAMPLE_MAX).contains(&sample) {
            return Err(SqlError::syntax(format!("a sample has 1 to {SAMPLE_MAX} messages")).at(position));
        }
        cursor.expect_symbol(&Token::RParen)?;
    }
    Ok(Some(Infer { sample: sample as usize, position }))
}

fn source(name: Name, if_not_exists: bool, elements: Elements, options: Vec<OptionPair>) -> Result<Ddl> {
    let Elements { columns, primary_key, watermark, checks } = elements;
    if let Some(column) = columns.iter().find(|column| column.compression.is_some()) {
        return Err(SqlError::unsupported("COMPRESSION belongs to the columns of a table")
            .at(column.name.position)
            .with_hint("say it in CREATE TABLE, or ALTER TABLE … ALTER COLUMN … SET COMPRESSION"));
    }
    if let Some((_, position)) = columns.iter().find_map(|column| column.merge) {
        return Err(SqlError::unsupported("MERGE belongs to the columns of a table")
            .at(position)
            .with_hint("say it in CREATE TABLE … WITH (mode = 'partial_upsert')"));
    }
    Ok(Ddl::CreateSource(CreateSource {
        name,
        if_not_exists,
        columns,
        primary_key,
        watermark,
        checks,
        options,
        infer: None,
    }))
}

fn create_table(cursor: &mut Cursor<'_>) -> Result<Ddl> {
    let if_not_exists = cursor.keywords(&["IF", "NOT", "EXISTS"]);
    let name = cursor.object_name("the name of the table")?;
    let elements = if cursor.peek() == Some(&Token::LParen) { elements(cursor)? } else { Elements::default() };
    for (words, what) in [
        (&["PARTITIONED", "BY"][..], "PARTITIONED BY"),
        (&["PARTITION", "BY"][..], "PARTITION BY"),
        (&["INHERITS"][..], "INHERITS"),
        (&["TABLESPACE"][..], "TABLESPACE"),
        (&["USING"][..], "USING"),
    ] {
        let position = cursor.position();
        if cursor.keywords(words) {
            return Err(SqlError::unsupported(format!("{what} is not supported in CREATE TABLE")).at(position));
        }
    }
    let mut pairs = Vec::new();
    if cursor.keyword("WITH") {
        pairs = options(cursor)?;
    }
    let mut sources = Vec::new();
    if cursor.keywords(&["FROM", "SOURCES"]) {
        cursor.expect_symbol(&Token::LParen)?;
        loop {
            sources.push(cursor.object_name("the name of a source")?);
            if !cursor.symbol(&Token::Comma) {
                break;
            }
        }
        cursor.expect_symbol(&Token::RParen)?;
    } else if cursor.keyword("FROM") {
        cursor.expect_keyword("SOURCE")?;
        sources.push(cursor.object_name("the name of the source")?);
    }
    let ignored = foreign_options(&mut pairs);
    if pairs.iter().any(|pair| pair.key.value == "connector") {
        if !sources.is_empty() || cursor.is_keyword("AS") {
            return cursor.expected("end of statement: a table with a connector is a source");
        }
        return source(name, if_not_exists, elements, pairs);
    }
    if let Some(watermark) = &elements.watermark {
        return Err(SqlError::unsupported("a watermark belongs to a source, not to a table")
            .at(watermark.column.position)
            .with_hint("say it in CREATE SOURCE, or give the connector in WITH"));
    }
    if let Some(check) = elements.checks.first() {
        return Err(SqlError::unsupported("CHECK constraints on tables are not supported yet")
            .at(check.position)
            .with_hint("put the constraint on the source"));
    }
    let position = cursor.position();
    let query = if !cursor.keyword("AS") {
        TableQuery::None
    } else if sources.is_empty() {
        if !elements.columns.is_empty() {
            return Err(SqlError::unsupported("CREATE TABLE with columns and AS SELECT is not supported")
                .at(position)
                .with_hint("leave the columns out, or create the table and INSERT INTO it"));
        }
        let query = cursor.rest();
        TableQuery::Contents(cursor.text.parse_with(query, |parser| parser.parse_query())?)
    } else {
        TableQuery::Transform(transform(cursor)?)
    };
    if elements.columns.is_empty() && sources.is_empty() && matches!(query, TableQuery::None) {
        return cursor.expected("columns, FROM SOURCE or AS SELECT");
    }
    let Elements { columns, primary_key, .. } = elements;
    Ok(Ddl::CreateTable(CreateTable {
        name,
        if_not_exists,
        columns,
        primary_key,
        options: pairs,
        ignored,
        sources,
        query,
    }))
}

/// A Flink job's sink table of Pinot is a plain table here. Takes away the connector and what else means nothing here; gives the names
/// of the latter.
fn foreign_options(pairs: &mut Vec<OptionPair>) -> Vec<String> {
    let is_connector = |pair: &OptionPair| pair.key.value == "connector";
    if !pairs.iter().any(|pair| is_connector(pair) && pair.value.eq_ignore_ascii_case("pinot")) {
        return Vec::new();
    }
    pairs.retain(|pair| !is_connector(pair));
    let is_ours = |pair: &OptionPair| TABLE_OPTIONS.contains(&pair.key.value.to_lowercase().as_str());
    let ignored = pairs.iter().filter(|pair| !is_ours(pair)).map(|pair| pair.key.value.clone()).collect();
    pairs.retain(is_ours);
    ignored
}

/// `SELECT items [WHERE condition]`: one row in, one or no row out, so nothing else of a query may follow.
fn transform(cursor: &mut Cursor<'_>) -> Result<Transform> {
    cursor.expect_keyword("SELECT")?;
    let position = cursor.position();
    if cursor.is_keyword("DISTINCT") {
        return Err(SqlError::unsupported("DISTINCT is not supported at ingest").at(position));
    }
    let select = until_clause(cursor)?;
    if select.is_empty() {
        return cursor.expected("a select list");
    }
    let text = cursor.text;
    text.parse_with(select, |parser| parser.parse_projection())?;
    let filter = if cursor.keyword("WHERE") {
        let condition = until_clause(cursor)?;
        cursor.expression(condition)?;
        Some(text.slice(condition).to_owned())
    } else {
        None
    };
    Ok(Transform { select: text.slice(select).to_owned(), filter, position })
}

/// The tokens up to WHERE or the end; an error at a clause that cannot be here.
fn until_clause<'a>(cursor: &mut Cursor<'a>) -> Result<&'a [datafusion::sql::sqlparser::tokenizer::TokenWithSpan]> {
    const REFUSED: &[&str] = &[
        "FROM",
        "GROUP",
        "HAVING",
        "ORDER",
        "LIMIT",
        "OFFSET",
        "UNION",
        "EXCEPT",
        "INTERSECT",
        "WINDOW",
        "QUALIFY",
        "FETCH",
    ];
    let mut inside = cursor.clone();
    let tokens = cursor.until(|cursor| cursor.is_keyword("WHERE"));
    let mut depth = 0_u32;
    let mut after_distinct = false;
    let end = cursor.position();
    while inside.position() < end && !inside.at_end() {
        match inside.peek() {
            Some(Token::LParen | Token::LBracket) => depth += 1,
            Some(Token::RParen | Token::RBracket) => depth = depth.saturating_sub(1),
            // IS DISTINCT FROM is an operator.
            Some(Token::Word(_)) if depth == 0 && !(after_distinct && inside.is_keyword("FROM")) => {
                if let Some(clause) = REFUSED.iter().find(|clause| inside.is_keyword(clause)) {
                    return Err(SqlError::unsupported(format!(
                        "{clause} is not supported in the transform of a table"
                    ))
                    .at(inside.position())
                    .with_hint("AS SELECT items [WHERE condition] filters and derives one row at a time"));
                }
            }
            _ => {}
        }
        after_distinct = inside.is_keyword("DISTINCT");
        inside.step();
    }
    Ok(tokens)
}

fn elements(cursor: &mut Cursor<'_>) -> Result<Elements> {
    let mut elements = Elements::default();
    cursor.expect_symbol(&Token::LParen)?;
    if cursor.symbol(&Token::RParen) {
        return Ok(elements);
    }
    loop {
        element(cursor, &mut elements)?;
        if elements.columns.len() > COLUMNS_MAX {
            return Err(SqlError::new(state::PROGRAM_LIMIT_EXCEEDED, format!("more than {COLUMNS_MAX} columns"))
                .at(cursor.position()));
        }
        if !cursor.symbol(&Token::Comma) {
            break;
        }
    }
    cursor.expect_symbol(&Token::RParen)?;
    Ok(elements)
}

/// `(name type, …)` of what has columns and nothing else.
pub(super) fn columns_only(cursor: &mut Cursor<'_>, of: &str) -> Result<Vec<ColumnDefinition>> {
    let position = cursor.position();
    let Elements { columns, primary_key, watermark, checks } = elements(cursor)?;
    if !primary_key.is_empty() || watermark.is_some() || !checks.is_empty() {
        return Err(SqlError::syntax(format!("a {of} has columns alone: no PRIMARY KEY, no CHECK and no WATERMARK"))
            .at(position));
    }
    Ok(columns)
}

fn element(cursor: &mut Cursor<'_>, elements: &mut Elements) -> Result<()> {
    let position = cursor.position();
    if cursor.keywords(&["WATERMARK", "FOR"]) {
        let column = cursor.name("the column of the watermark")?;
        cursor.expect_keyword("AS")?;
        let expression = cursor.until(|cursor| cursor.peek() == Some(&Token::Comma));
        cursor.expression(expression)?;
        if elements.watermark.is_some() {
            return Err(SqlError::new(state::INVALID_OBJECT_DEFINITION, "a source has one watermark").at(position));
        }
        elements.watermark = Some(Watermark { column, expression: cursor.text.slice(expression).to_owned() });
        return Ok(());
    }
    let name = if cursor.keyword("CONSTRAINT") { Some(cursor.name("the name of the constraint")?) } else { None };
    if cursor.keyword("CHECK") {
        elements.checks.push(check(cursor, name, position)?);
        return Ok(());
    }
    if cursor.keywords(&["PRIMARY", "KEY"]) {
        cursor.expect_symbol(&Token::LParen)?;
        loop {
            elements.primary_key.push(cursor.name("a column")?);
            if !cursor.symbol(&Token::Comma) {
                break;
            }
        }
        cursor.expect_symbol(&Token::RParen)?;
        // Flink's spelling.
        cursor.keywords(&["NOT", "ENFORCED"]);
        return Ok(());
    }
    for constraint in ["UNIQUE", "FOREIGN", "EXCLUDE", "LIKE"] {
        if cursor.is_keyword(constraint) {
            return Err(SqlError::unsupported(format!("{constraint} is not supported")).at(position));
        }
    }
    if name.is_some() {
        return cursor.expected("CHECK or PRIMARY KEY");
    }
    let column = column(cursor, elements)?;
    elements.columns.push(column);
    Ok(())
}

/// A column with its constraints; used by ALTER TABLE ADD COLUMN as well.
pub(crate) fn column_definition(cursor: &mut Cursor<'_>) -> Result<ColumnDefinition> {
    let mut elements = Elements::default();
    let column = column(cursor, &mut elements)?;
    if let Some(key) = elements.primary_key.first() {
        return Err(SqlError::unsupported("a primary key cannot be added to a table").at(key.position));
    }
    if let Some(check) = elements.checks.first() {
        return Err(SqlError::unsupported("CHECK constraints on tables are not supported yet").at(check.position));
    }
    Ok(column)
}

fn column(cursor: &mut Cursor<'_>, elements: &mut Elements) -> Result<ColumnDefinition> {
    let name = cursor.name("the name of a column")?;
    let (data_type, notice) = data_type(cursor)?;
    let notice = notice.map(|notice| format!("column \"{}\": {notice}", name.value));
    let mut column = ColumnDefinition {
        name,
        data_type,
        not_null: false,
        default: None,
        path: None,
        epoch: None,
        compression: None,
        merge: None,
        notice,
    };
    loop {
        let position = cursor.position();
        let constraint =
            if cursor.keyword("CONSTRAINT") { Some(cursor.name("the name of the constraint")?) } else { None };
        if cursor.keywords(&["NOT", "NULL"]) {
            column.not_null = true;
        } else if cursor.keyword("NULL") {
            if column.not_null {
                return Err(SqlError::syntax(format!(
                    "conflicting NULL and NOT NULL of column \"{}\"",
                    column.name.value
                ))
                .at(position));
            }
        } else if cursor.keyword("DEFAULT") {
            let expression = cursor.until(ends_default);
            column.default = Some(cursor.expression(expression)?);
        } else if cursor.keyword("PATH") {
            column.path = Some(cursor.string("a path such as '$.a.b'")?);
        } else if cursor.keyword("COMPRESSION") {
            column.compression = Some(compression(cursor)?);
        } else if cursor.keyword("MERGE") {
            if column.merge.is_some() {
                let message = format!("column \"{}\" has more than one MERGE", column.name.value);
                return Err(SqlError::syntax(message).at(position));
            }
            column.merge = Some((merge(cursor)?, position));
        } else if cursor.keyword("EPOCH") {
            column.epoch = Some(cursor.string("the unit of the number: 's', 'ms', 'us' or 'ns'")?);
        } else if cursor.keywords(&["PRIMARY", "KEY"]) {
            cursor.keywords(&["NOT", "ENFORCED"]);
            if !elements.primary_key.is_empty() {
                return Err(SqlError::new(state::INVALID_TABLE_DEFINITION, "multiple primary keys are not allowed")
                    .at(position));
            }
            elements.primary_key.push(Name { value: column.name.value.clone(), position });
        } else if cursor.keyword("CHECK") {
            elements.checks.push(check(cursor, constraint, position)?);
        } else {
            for refused in ["UNIQUE", "REFERENCES", "GENERATED", "COLLATE", "METADATA", "AS"] {
                if cursor.is_keyword(refused) {
                    return Err(SqlError::unsupported(format!(
                        "{refused} is not supported in a column definition yet"
                    ))
                    .at(position));
                }
            }
            if constraint.is_some() {
                return cursor.expected("a constraint");
            }
            return Ok(column);
        }
    }
}

/// The method after COMPRESSION; PostgreSQL's words where it has them.
pub(crate) fn compression(cursor: &mut Cursor<'_>) -> Result<Compression> {
    // DEFAULT is a keyword, which a name cannot be.
    if cursor.keyword("DEFAULT") {
        return Ok(Compression::Default);
    }
    let method = cursor.name("a compression method: zstd, lz4, none or default")?;
    Compression::ALL.into_iter().find(|compression| compression.name() == method.value).ok_or_else(|| {
        SqlError::new(state::INVALID_PARAMETER_VALUE, format!("invalid compression method \"{}\"", method.value))
            .at(method.position)
            .with_hint("columns are compressed by zstd, lz4 or none; default chooses for each segment")
    })
}

/// The rule after MERGE.
fn merge(cursor: &mut Cursor<'_>) -> Result<Merge> {
    // UNION is a keyword that a name cannot be.
    if cursor.keyword("UNION") {
        return Ok(Merge::Union);
    }
    let names = Merge::ALL.map(Merge::name).join(", ");
    let rule = cursor.name(&format!("a merge rule: {names}"))?;
    Merge::ALL.into_iter().find(|merge| merge.name() == rule.value).ok_or_else(|| {
        SqlError::new(state::INVALID_PARAMETER_VALUE, format!("invalid merge rule \"{}\"", rule.value))
            .at(rule.position)
            .with_hint(format!("rules are {names}"))
    })
}

fn ends_default(cursor: &Cursor<'_>) -> bool {
    cursor.peek() == Some(&Token::Comma)
        || ["NOT", "PRIMARY", "CHECK", "CONSTRAINT", "PATH", "EPOCH", "COMPRESSION", "UNIQUE", "REFERENCES", "MERGE"]
            .iter()
            .any(|word| cursor.is_keyword(word))
}

fn check(cursor: &mut Cursor<'_>, name: Option<Name>, position: u32) -> Result<Check> {
    let expression = cursor.parenthesised()?;
    cursor.expression(expression)?;
    Ok(Check { name: name.map(|name| name.value), expression: cursor.text.slice(expression).to_owned(), position })
}

/// `(key = value, …)`. Keys may be quoted either way or dotted, values are strings, numbers or words.
pub(crate) fn options(cursor: &mut Cursor<'_>) -> Result<Vec<OptionPair>> {
    let mut pairs: Vec<OptionPair> = Vec::new();
    cursor.expect_symbol(&Token::LParen)?;
    if cursor.symbol(&Token::RParen) {
        return Ok(pairs);
    }
    loop {
        let key = option_key(cursor)?;
        if pairs.iter().any(|pair| pair.key.value == key.value) {
            return Err(SqlError::syntax(format!("option \"{}\" is given twice", key.value)).at(key.position));
        }
        cursor.expect_symbol(&Token::Eq)?;
        let value_position = cursor.position();
        let value = option_value(cursor)?;
        pairs.push(OptionPair { key, value, value_position });
        if !cursor.symbol(&Token::Comma) {
            break;
        }
    }
    cursor.expect_symbol(&Token::RParen)?;
    Ok(pairs)
}

fn option_key(cursor: &mut Cursor<'_>) -> Result<Name> {
    const WHAT: &str = "the name of an option";
    let position = cursor.position();
    if matches!(cursor.peek(), Some(Token::SingleQuotedString(_))) {
        let value = cursor.string(WHAT)?;
        // librdkafka's settings keep their case; ours are lower case.
        return Ok(Name { value: value.trim().to_owned(), position });
    }
    let mut value = String::new();
    loop {
        match cursor.peek() {
            // Reserved words may be keys: nothing else can stand here.
            Some(Token::Word(word)) => value.push_str(&match word.quote_style {
                Some(_) => word.value.clone(),
                None => word.value.to_lowercase(),
            }),
            _ => return cursor.expected(WHAT),
        }
        cursor.step();
        if !cursor.symbol(&Token::Period) {
            return Ok(Name { value, position });
        }
        value.push('.');
    }
}

pub(super) fn option_value(cursor: &mut Cursor<'_>) -> Result<String> {
    const WHAT: &str = "the value of the option: a string, a number or a word";
    match cursor.peek() {
        Some(Token::Word(Word { value, quote_style, .. })) => {
            cursor.step();
            Ok(if quote_style.is_some() { value.clone() } else { value.to_lowercase() })
        }
        Some(Token::Number(number, _)) => {
            cursor.step();
            Ok(number.clone())
        }
        Some(Token::Minus) => {
            cursor.step();
            match cursor.peek() {
                Some(Token::Number(number, _)) => {
                    cursor.step();
                    Ok(format!("-{number}"))
                }
                _ => cursor.expected("a number"),
            }
        }
        _ => cursor.string(WHAT),
    }
}
