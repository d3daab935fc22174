//! What DataFusion, Arrow, storage and the SQL parser raise, as PostgreSQL would say it: told by their types and, where those tell too little, by
//! their words.

use arrow::error::ArrowError;
use datafusion::{
    common::{Column, SchemaError},
    error::DataFusionError,
    sql::sqlparser::parser::ParserError,
};

use super::{SqlError, nearest, words};

pub(super) fn read(error: &DataFusionError, sql: &str) -> SqlError {
    match error {
        DataFusionError::External(inner) => read_external(inner.as_ref()),
        DataFusionError::ArrowError(inner, _) => read_arrow(inner),
        DataFusionError::Shared(inner) => read(inner, sql),
        DataFusionError::Context(_, inner) => read(inner, sql),
        DataFusionError::Diagnostic(diagnostic, inner) => {
            let position =
                diagnostic.span.and_then(|span| position_of(sql, span.start.line as usize, span.start.column as usize));
            read(inner, sql).at(position)
        }
        DataFusionError::Collection(errors) => errors
            .first()
            .map_or_else(|| SqlError::internal("an empty list of errors was raised"), |first| read(first, sql)),
        DataFusionError::SQL(parser, _) => read_parser(parser, sql),
        DataFusionError::SchemaError(schema, _) => read_schema(schema),
        DataFusionError::ResourcesExhausted(message) => read_spill_limit(message).unwrap_or_else(|| SqlError::new("53200", "out of memory")
            .with_detail(first_line(message))
            .with_hint("The query needs more memory than query.memory allows; filter or aggregate earlier, or raise the limit.")),
        DataFusionError::NotImplemented(message) => {
            words::read(message).unwrap_or_else(|| SqlError::new("0A000", first_line(message)))
        }
        DataFusionError::Plan(message) => read_plan(message),
        DataFusionError::Execution(message) | DataFusionError::Configuration(message) => read_execution(message),
        DataFusionError::IoError(io) => read_io(io),
        DataFusionError::ExecutionJoin(_) => SqlError::internal("a query task panicked; see the server's log"),
        other => read_words(&other.strip_backtrace()),
    }
}

/// What goes wrong with spill files.
fn read_io(error: &std::io::Error) -> SqlError {
    if let Some(inner) = error.get_ref() {
        if let Some(datafusion) = inner.downcast_ref::<DataFusionError>() {
            return read(datafusion, "");
        }
        if let Some(spilled) = read_spill_limit(&inner.to_string()) {
            return spilled;
        }
    }
    match error.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
            SqlError::new("53100", format!("could not write a spill file: {error}"))
                .with_hint("Free disk space in the data directory, or filter or aggregate earlier.")
        }
        _ => SqlError::new("58030", format!("could not read or write a spill file: {error}")),
    }
}

/// The limit on spill files is a part of the memory that a query may use.
fn read_spill_limit(message: &str) -> Option<SqlError> {
    message.contains("used disk space during the spilling process").then(|| {
        SqlError::new("53200", "out of memory")
            .with_detail("The query's spill files have reached their limit.")
            .with_hint("Filter or aggregate earlier, or raise the limit on spill files.")
    })
}

fn read_external(error: &(dyn std::error::Error + Send + Sync + 'static)) -> SqlError {
    if let Some(sql) = error.downcast_ref::<SqlError>() {
        return sql.clone();
    }
    if let Some(storage) = error.downcast_ref::<tidemill_storage::Error>() {
        return read_storage(storage);
    }
    if let Some(datafusion) = error.downcast_ref::<DataFusionError>() {
        return read(datafusion, "");
    }
    if let Some(arrow) = error.downcast_ref::<ArrowError>() {
        return read_arrow(arrow);
    }
    let message = error.to_string();
    words::read(&message).unwrap_or_else(|| SqlError::internal(message))
}

pub(super) fn read_storage(error: &tidemill_storage::Error) -> SqlError {
    use tidemill_storage::Error;
    match error {
        Error::Corrupt { .. } | Error::Poisoned { .. } => SqlError::new("XX001", error.to_string())
            .with_hint("The segment is left out of service; `tidemill segment verify` tells what is damaged."),
        Error::Io { kind: std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded, .. } => {
            SqlError::new("53100", error.to_string()).with_hint("Free disk space in the data directory.")
        }
        Error::Io { kind: std::io::ErrorKind::NotFound, .. } => SqlError::new("58P01", error.to_string())
            .with_hint("The segment is left out of service: put the file back and start the server again."),
        Error::Io { .. } => SqlError::new("58030", error.to_string()),
        Error::OutOfRange(message) => SqlError::new("22003", message.clone()),
        Error::Computation(inner) => match inner.downcast_ref::<DataFusionError>() {
            Some(error) => read(error, ""),
            None => SqlError::internal(inner.to_string()),
        },
        _ => SqlError::internal(error.to_string()),
    }
}

pub(super) fn read_arrow(error: &ArrowError) -> SqlError {
    match error {
        ArrowError::DivideByZero => SqlError::division_by_zero(),
        ArrowError::ArithmeticOverflow(message) => {
            let name = ["Decimal", "Int16", "Int32", "Int64"].iter().find(|name| message.contains(**name));
            match name {
                Some(&"Decimal") => SqlError::new("22003", "numeric field overflow"),
                _ => SqlError::out_of_range("value"),
            }
        }
        ArrowError::ExternalError(inner) => read_external(inner.as_ref()),
        ArrowError::CastError(message) | ArrowError::ParseError(message) => read_cast(message),
        ArrowError::IoError(message, io) => read_spill_limit(message).unwrap_or_else(|| read_io(io)),
        ArrowError::MemoryError(message) => SqlError::new("53200", "out of memory").with_detail(first_line(message)),
        ArrowError::ComputeError(message) | ArrowError::InvalidArgumentError(message) => read_execution(message),
        other => {
            let message = other.to_string();
            words::read(&message).unwrap_or_else(|| SqlError::internal(message))
        }
    }
}

/// Arrow's casts say "Cannot cast string 'x' to value of Int32 type" and the like.
fn read_cast(message: &str) -> SqlError {
    let text = quoted(message).unwrap_or_default();
    let type_name = if message.contains("Int16") {
        "smallint"
    } else if message.contains("Int32") {
        "integer"
    } else if message.contains("Int64") {
        "bigint"
    } else if message.contains("Float32") {
        "real"
    } else if message.contains("Float64") {
        "double precision"
    } else if message.contains("Boolean") {
        "boolean"
    } else if message.contains("Decimal") {
        "numeric"
    } else if message.contains("Date32") || message.contains("Date64") {
        "date"
    } else if message.contains("imestamp") {
        "timestamp"
    } else if message.contains("Time") {
        "time"
    } else if message.contains("nterval") {
        "interval"
    } else {
        ""
    };
    if message.contains("Can't cast value") || message.contains("verflow") || message.contains("too large to store") {
        return match type_name {
            "" | "numeric" => SqlError::new("22003", "numeric field overflow"),
            name => SqlError::out_of_range(name),
        };
    }
    match type_name {
        "date" | "timestamp" | "time" | "interval" => SqlError::invalid_datetime(type_name, &text),
        "" if message.contains("parsing") && message.contains("imestamp") => {
            SqlError::invalid_datetime("timestamp", &text)
        }
        "" => SqlError::new("22P02", first_line(message)),
        name => SqlError::invalid_text(name, &text),
    }
}

fn read_schema(error: &SchemaError) -> SqlError {
    match error {
        SchemaError::FieldNotFound { field, valid_fields } => undefined_column(field, valid_fields),
        SchemaError::AmbiguousReference { field } => {
            SqlError::new("42702", format!("column reference \"{}\" is ambiguous", field.name()))
        }
        SchemaError::DuplicateQualifiedField { name, .. } | SchemaError::DuplicateUnqualifiedField { name } => {
            SqlError::new("42701", format!("column \"{name}\" specified more than once"))
        }
    }
    .at(None)
}

fn undefined_column(field: &Column, valid: &[Column]) -> SqlError {
    let message = match &field.relation {
        Some(relation) => {
            if !valid.is_empty() && !valid.iter().any(|known| known.relation.as_ref() == Some(relation)) {
                return SqlError::new("42P01", format!("missing FROM-clause entry for table \"{}\"", relation.table()));
            }
            format!("column {}.{} does not exist", relation.table(), field.name())
        }
        None => format!("column \"{}\" does not exist", field.name()),
    };
    let error = SqlError::new("42703", message);
    match nearest(field.name(), valid.iter().map(Column::name)) {
        Some(near) => {
            let shown = valid.iter().find(|known| known.name() == near).and_then(|known| known.relation.as_ref());
            let shown = shown.map_or_else(|| near.to_owned(), |relation| format!("{}.{near}", relation.table()));
            error.with_hint(format!("Perhaps you meant to reference the column \"{shown}\"."))
        }
        None => error,
    }
}

fn read_parser(error: &ParserError, sql: &str) -> SqlError {
    match error {
        ParserError::RecursionLimitExceeded => {
            SqlError::new("54001", "the statement is nested too deeply").with_hint("At most 50 levels are allowed.")
        }
        ParserError::TokenizerError(message) => {
            let (text, at) = split_location(message, sql);
            let lower = text.to_lowercase();
            if lower.starts_with("unterminated") {
                SqlError::syntax(lower).at(at)
            } else {
                SqlError::syntax(format!("syntax error: {text}")).at(at)
            }
        }
        ParserError::ParserError(message) => {
            let (text, at) = split_location(message, sql);
            match text.rsplit_once("found: ") {
                Some((_, "EOF")) => SqlError::syntax("syntax error at end of input").at(Some(sql.chars().count() + 1)),
                Some((expected, found)) => {
                    let expected = expected.trim_end_matches(", ").trim_start_matches("Expected: ");
                    let error = SqlError::syntax(format!("syntax error at or near \"{found}\"")).at(at);
                    if expected.is_empty() { error } else { error.with_detail(format!("Expected {expected}.")) }
                }
                None => SqlError::syntax(format!("syntax error: {text}")).at(at),
            }
        }
    }
}

/// Cuts " at Line: 1, Column: 8" off and turns it into a position.
fn split_location<'a>(message: &'a str, sql: &str) -> (&'a str, Option<usize>) {
    let message = message.strip_prefix("sql parser error: ").unwrap_or(message);
    let Some((text, location)) = message.rsplit_once(" at Line: ") else { return (message, None) };
    let Some((line, column)) = location.split_once(", Column: ") else { return (text, None) };
    match (line.trim().parse(), column.trim().parse()) {
        (Ok(line), Ok(column)) => (text, position_of(sql, line, column)),
        _ => (text, None),
    }
}

/// The character, counted from 1, that stands at `line` and `column`, both counted from 1.
pub(super) fn position_of(sql: &str, line: usize, column: usize) -> Option<usize> {
    if line == 0 || column == 0 {
        return None;
    }
    let mut before = 0;
    for (index, text) in sql.split('\n').enumerate() {
        let length = text.chars().count();
        if index + 1 == line {
            return (column <= length + 1).then_some(before + column);
        }
        before += length + 1;
    }
    None
}

fn read_plan(message: &str) -> SqlError {
    let line = first_line(message);
    if let Some(known) = words::read(message) {
        return known;
    }
    if let Some(rest) = line.strip_prefix("Invalid function '") {
        let name = rest.split('\'').next().unwrap_or_default();
        return undefined_function(name, &line);
    }
    if line.contains("No function matches the given name and argument types") {
        let call = quoted(&line).unwrap_or_default();
        return SqlError::new("42883", format!("function {} does not exist", postgres_types(&call))).with_hint(
            "No function matches the given name and argument types. You might need to add explicit type casts.",
        );
    }
    if line.starts_with("table function '") {
        let name = quoted(&line).unwrap_or_default();
        return SqlError::new("42883", format!("function {name} does not exist"));
    }
    if line.contains("must be in GROUP BY")
        || line.contains("must appear in the GROUP BY clause")
        || line.contains("could not be resolved from available columns")
    {
        let column = quoted(&line).unwrap_or_default();
        let column = column.replace('"', "");
        return SqlError::new(
            "42803",
            format!("column \"{column}\" must appear in the GROUP BY clause or be used in an aggregate function"),
        );
    }
    if line.contains("Cannot coerce") || line.contains("Cannot infer common") || line.contains("cannot be cast") {
        return operator_mismatch(&line);
    }
    if line.contains("Cannot automatically convert") || line.contains("Unsupported CAST") {
        return SqlError::new("42846", line);
    }
    // Group functions of pipelines.
    if line.contains("takes a TIMESTAMP or TIMESTAMPTZ as its first argument") {
        return SqlError::new("42804", postgres_types(&line));
    }
    if line.contains("Projections require unique expression names") {
        return SqlError::new("42701", line);
    }
    if line.contains("different number of columns") || line.contains("must have the same number of columns") {
        return SqlError::syntax("each UNION query must have the same number of columns");
    }
    if line.contains("should be boolean") || line.contains("non-boolean predicate") {
        return SqlError::datatype_mismatch("argument of WHERE must be type boolean");
    }
    read_words(message)
}

/// Functions that there are with OVER only.
const WINDOW_FUNCTIONS: [&str; 9] =
    ["row_number", "rank", "dense_rank", "percent_rank", "cume_dist", "ntile", "lag", "lead", "nth_value"];

fn undefined_function(name: &str, line: &str) -> SqlError {
    if WINDOW_FUNCTIONS.contains(&name) {
        return SqlError::new("42809", format!("window function {name} requires an OVER clause"));
    }
    let error = SqlError::new("42883", format!("function {name} does not exist"));
    match line.split_once("Did you mean '").and_then(|(_, rest)| rest.split('\'').next()) {
        Some(near) => error.with_hint(format!("Perhaps you meant {near}.")),
        None => error,
    }
}

/// "Cannot coerce arithmetic expression Utf8View + Int64 to valid types" and its kin.
fn operator_mismatch(line: &str) -> SqlError {
    let operands = line
        .split_once("expression ")
        .or_else(|| line.split_once("operation "))
        .map_or(line, |(_, rest)| rest)
        .split(" to valid")
        .next()
        .unwrap_or(line);
    SqlError::new("42883", format!("operator does not exist: {}", postgres_types(operands)))
        .with_hint("No operator matches the given name and argument types. You might need to add explicit type casts.")
}

fn read_execution(message: &str) -> SqlError {
    if let Some(known) = words::read(message) {
        return known;
    }
    let lower = message.to_lowercase();
    if lower.contains("divide by zero") || lower.contains("division by zero") {
        return SqlError::division_by_zero();
    }
    if lower.contains("too large to store") || lower.contains("too small to store") {
        return SqlError::new("22003", "numeric field overflow").with_detail(first_line(message));
    }
    if lower.contains("overflow") || lower.contains("out of range") {
        return SqlError::new("22003", first_line(message));
    }
    if lower.contains("error parsing timestamp") || lower.contains("error parsing date") {
        return SqlError::invalid_datetime("timestamp", &quoted(message).unwrap_or_default());
    }
    if lower.contains("cannot cast") || lower.contains("can't cast") {
        return read_cast(message);
    }
    if lower.contains("returned more than one row") || lower.contains("scalar subquery") {
        return SqlError::new("21000", "more than one row returned by a subquery used as an expression");
    }
    if lower.contains("regular expression") || lower.contains("regex") {
        return SqlError::new("2201B", format!("invalid regular expression: {}", first_line(message)));
    }
    read_words(message)
}

fn read_words(message: &str) -> SqlError {
    if let Some(known) = words::read(message) {
        return known;
    }
    let line = first_line(message);
    let line = line.strip_prefix("Error during planning: ").unwrap_or(&line).to_owned();
    if line.contains("failed to match any signature") {
        let name = quoted(&line).unwrap_or_default();
        // "… requires Int64, but received String (DataType: Utf8View)."
        let given = line.split_once("(DataType: ").and_then(|(_, rest)| rest.split(").").next()).unwrap_or_default();
        return SqlError::new("42883", format!("function {name}({}) does not exist", postgres_types(given))).with_hint(
            "No function matches the given name and argument types. You might need to add explicit type casts.",
        );
    }
    if line.starts_with("No field named") {
        let name = quoted(&line).unwrap_or_else(|| line.clone());
        return SqlError::new("42703", format!("column \"{}\" does not exist", name.trim_end_matches('.')));
    }
    SqlError::internal(line)
}

pub(super) fn first_line(message: &str) -> String {
    message.lines().next().unwrap_or_default().trim().to_owned()
}

/// The first text in quotes of either kind.
fn quoted(message: &str) -> Option<String> {
    let start = message.find(['\'', '"'])?;
    let quote = message[start..].chars().next()?;
    let rest = &message[start + 1..];
    let end = rest.find(quote)?;
    Some(rest[..end].to_owned())
}

/// Arrow's names of types in a message, as PostgreSQL's.
pub(super) fn postgres_types(text: &str) -> String {
    let mut text = text.to_owned();
    for (arrow, postgres) in [
        ("Utf8View", "text"),
        ("LargeUtf8", "text"),
        ("Utf8", "text"),
        ("Int16", "smallint"),
        ("Int32", "integer"),
        ("Int64", "bigint"),
        ("Float32", "real"),
        ("Float64", "double precision"),
        ("Boolean", "boolean"),
        ("BinaryView", "bytea"),
        ("Date32", "date"),
        ("Timestamp(µs, \"UTC\")", "timestamp with time zone"),
        ("Timestamp(µs)", "timestamp without time zone"),
        ("Interval(MonthDayNano)", "interval"),
        ("Null", "unknown"),
    ] {
        text = text.replace(arrow, postgres);
    }
    text
}
