//! What DataFusion says in its own words, in PostgreSQL's: a part of its message, the SQLSTATE, the message.
//!
//! In a message `{1}`, `{2}` stand for the first and second text in quotes of DataFusion's, `{n}` for its first whole number, `{line}`
//! for its first line. The first entry that fits is taken.

use super::{
    SqlError,
    read::{first_line, postgres_types},
};

const WORDS: &[(&str, &str, &str)] = &[
    // Clauses.
    ("Cannot find column with position", "42P10", "GROUP BY position {n} is not in select list"),
    ("Order by column out of bounds", "42P10", "ORDER BY position {n} is not in select list"),
    ("Aggregate functions are not allowed in the WHERE", "42803", "aggregate functions are not allowed in WHERE"),
    ("Aggregate function calls cannot be nested", "42803", "aggregate function calls cannot be nested"),
    ("Window functions are not allowed in", "42P20", "window functions are not allowed in WHERE"),
    ("Window function calls cannot be nested", "42P20", "window function calls cannot be nested"),
    ("start bound", "42P20", "the frame starts behind its end"),
    ("LIMIT must be >= 0", "2201W", "LIMIT must not be negative"),
    ("OFFSET must be >=0", "2201X", "OFFSET must not be negative"),
    ("Expected LIMIT to be an integer", "42804", "argument of LIMIT must be type bigint"),
    ("Expected OFFSET to be an integer", "42804", "argument of OFFSET must be type bigint"),
    ("Incompatible inputs for Union", "42804", "types of one column of UNION cannot be matched"),
    ("Too many columns! The subquery", "42601", "subquery must return only one column"),
    ("should only return one column", "42601", "subquery must return only one column"),
    ("Inconsistent data length across values", "42601", "VALUES lists must all be the same length"),
    ("names given as column alias", "42P10", "{n} columns are available, more or fewer are named"),
    (
        "DISTINCT ON expressions must match",
        "42P10",
        "SELECT DISTINCT ON expressions must match initial ORDER BY expressions",
    ),
    ("WITH query name", "42712", "WITH query name \"{1}\" specified more than once"),
    (
        "to grouping function is not in grouping columns",
        "42803",
        "arguments to GROUPING must be grouping expressions of the query",
    ),
    ("requires a boolean expression", "42804", "argument of NOT must be type boolean"),
    ("only supports signed numeric, interval", "42883", "operator does not exist: - of this type"),
    ("requires a window frame", "42P20", "{line}"),
    ("NTILE requires a positive integer", "22014", "argument of ntile must be greater than zero"),
    ("UnicodeStringLiteral", "42601", "invalid Unicode escape value"),
    ("Join condition must be boolean", "42804", "argument of JOIN/ON must be type boolean"),
    ("Inconsistent data type across values", "42804", "types of one column of VALUES cannot be matched"),
    ("Inconsistent metadata across values", "42804", "types of one column of VALUES cannot be matched"),
    // Subqueries that nothing plans.
    ("OuterReferenceColumn", "0A000", "this correlated subquery is not supported"),
    ("outer_ref(", "0A000", "this correlated subquery is not supported"),
    ("Correlated column is not allowed", "0A000", "this correlated subquery is not supported"),
    ("Correlated scalar subquery", "0A000", "this correlated subquery is not supported"),
    (
        "In/Exist/SetComparison subquery can only be used",
        "0A000",
        "EXISTS and IN with a subquery are not supported here",
    ),
    ("logical expression Exists", "0A000", "EXISTS with a subquery is not supported here"),
    ("logical expression InSubquery", "0A000", "IN with a subquery is not supported here"),
    ("logical expression ScalarSubquery", "0A000", "a subquery as a value is not supported here"),
    ("logical expression WindowFunction", "42P20", "window functions are not allowed here"),
    ("logical expression AggregateFunction", "42803", "aggregate functions are not allowed here"),
    ("logical expression Unnest", "0A000", "set-returning functions are not allowed here"),
    ("Unnest should be rewritten", "0A000", "set-returning functions are not allowed here"),
    // Arrays and fields.
    ("unnest() can only be applied to array", "42883", "function unnest takes an array"),
    ("unnest on non-list", "42883", "function unnest takes an array"),
    ("Cannot access field", "42804", "cannot subscript a value of this type"),
    ("Dot access not supported", "42809", "column notation applied to a type that is not a composite type"),
    // Functions.
    ("Percentile value must be between", "22003", "percentile value is not between 0 and 1"),
    ("cannot take square root of a negative", "2201F", "cannot take square root of a negative number"),
    ("zero raised to a negative power", "2201F", "zero raised to a negative power is undefined"),
    ("factorial of a negative number", "22003", "factorial of a negative number is undefined"),
    ("Overflow happened on FACTORIAL", "22003", "numeric field overflow"),
    ("negative count not allowed", "22011", "negative substring length not allowed"),
    ("negative substring length not allowed", "22011", "negative substring length not allowed"),
    ("overlay start position must be", "22011", "negative substring length not allowed"),
    ("field position must not be zero", "22023", "field position must not be zero"),
    ("invalid Unicode scalar value", "22023", "character number must be a character of Unicode"),
    ("Month value", "22008", "date field value out of range"),
    ("Day value", "22008", "date field value out of range"),
    ("Unable to parse date", "22008", "date field value out of range"),
    ("Hour value", "22008", "time field value out of range"),
    ("Minute value", "22008", "time field value out of range"),
    ("Second value", "22008", "time field value out of range"),
    ("no built-in encoding named", "22023", "unrecognized encoding: \"{1}\""),
    ("Failed to decode value using hex", "22023", "invalid hexadecimal digit: \"{1}\""),
    ("Failed to decode value using base64", "22023", "invalid base64 text"),
    ("regex parse error", "2201B", "invalid regular expression"),
    ("Regular expression did not compile", "2201B", "invalid regular expression"),
    (
        "Cannot get result type for decimal operation",
        "22003",
        "numeric field overflow: the result would have more digits than a numeric can have (38); cast an operand to fewer digits after the point",
    ),
    ("Unsupported CAST from", "42846", "cannot cast type {from} to {to}"),
    ("Unsupported binary operator", "42883", "operator does not exist for these types"),
    ("Unsupported SQL unary operator", "42883", "operator does not exist for this type"),
    ("Unsupported SQL binary operator", "42883", "operator does not exist for these types"),
];

/// `message` in PostgreSQL's words, if it is known here.
pub(super) fn read(message: &str) -> Option<SqlError> {
    let (_, sqlstate, words) = WORDS.iter().find(|(part, _, _)| message.contains(part))?;
    let line = first_line(message);
    let mut quoted = line.split(['\'', '"']).skip(1).step_by(2);
    let number: String = line.chars().skip_while(|c| !c.is_ascii_digit()).take_while(char::is_ascii_digit).collect();
    let (from, to) = line
        .split_once("CAST from ")
        .and_then(|(_, types)| types.split_once(" to "))
        .map_or((String::new(), String::new()), |(from, to)| (postgres_types(from), postgres_types(to)));
    let text = words
        .replace("{1}", quoted.next().unwrap_or_default())
        .replace("{2}", quoted.next().unwrap_or_default())
        .replace("{n}", &number)
        .replace("{from}", &from)
        .replace("{to}", &to)
        .replace("{line}", &line);
    let error = SqlError::new(sqlstate, text);
    Some(match *sqlstate {
        "2201B" => match message.lines().rev().find_map(|line| line.trim().strip_prefix("error: ")) {
            Some(reason) => error.with_detail(reason.to_owned()),
            None => error,
        },
        "0A000" if words.contains("correlated") => {
            error.with_hint("Write it as a join, or compute the outer value in a subquery of FROM.")
        }
        _ => error,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_words_are_postgresql_s() {
        for (message, sqlstate, words) in [
            (
                "Order by column out of bounds, specified: 5, max: 1",
                "42P10",
                "ORDER BY position 5 is not in select list",
            ),
            ("There is no built-in encoding named 'x', currently", "22023", "unrecognized encoding: \"x\""),
            ("Unsupported CAST from Boolean to Date32", "42846", "cannot cast type boolean to date"),
            ("regex parse error:\n    (\n    ^\nerror: unclosed group", "2201B", "invalid regular expression"),
        ] {
            let error = read(message).unwrap();
            assert_eq!((error.sqlstate, error.message.as_str()), (sqlstate, words));
        }
        assert_eq!(read("something else"), None);
    }
}
