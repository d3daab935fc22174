//! Errors carry PostgreSQL's SQLSTATE, its words, a position and, where there is one, a hint.

use tidemill_storage::schema::DataType;

use crate::support::World;

fn world() -> World {
    let world = World::new();
    world.table("orders", &[("id", DataType::BigInt), ("city", DataType::Text), ("price", DataType::Double)]);
    world
}

#[test]
fn states_and_words() {
    let world = world();
    for (sql, state, message) in [
        ("SELECT * FROM orderz", "42P01", "relation \"orderz\" does not exist"),
        ("SELECT * FROM nope.orders", "42P01", "relation \"nope.orders\" does not exist"),
        ("SELECT pricee FROM orders", "42703", "column \"pricee\" does not exist"),
        ("SELECT o.nope FROM orders o", "42703", "column o.nope does not exist"),
        ("SELECT x.id FROM orders o", "42P01", "missing FROM-clause entry for table \"x\""),
        ("SELECT * FROM orders WHERE nope = 1", "42703", "column \"nope\" does not exist"),
        ("SELEC 1", "42601", "syntax error at or near \"SELEC\""),
        ("SELECT nosuch(1)", "42883", "function nosuch does not exist"),
        ("SELECT 1 / 0", "22012", "division by zero"),
        ("SELECT 'x'::int", "22P02", "invalid input syntax for type integer: \"x\""),
        ("SELECT 2147483647 + 1", "22003", "integer out of range"),
        (
            "SELECT city, count(*) FROM orders",
            "42803",
            "column \"orders.city\" must appear in the GROUP BY clause or be used in an aggregate function",
        ),
        ("SELECT id FROM orders, orders o2", "42702", "column reference \"id\" is ambiguous"),
        ("SELECT 'a'::nope", "42704", "type \"nope\" does not exist"),
        ("SELECT * FROM orders WHERE id = 'x'", "22P02", "invalid input syntax for type bigint: \"x\""),
        (
            "SELECT (SELECT 1 UNION ALL SELECT 2)",
            "21000",
            "more than one row returned by a subquery used as an expression",
        ),
    ] {
        let error = world.error(sql);
        assert_eq!((error.sqlstate, error.message.as_str()), (state, message), "{sql}: {error:?}");
    }
}

#[test]
fn hints_and_positions() {
    let world = world();
    let error = world.error("SELECT pricee FROM orders");
    assert_eq!(error.hint.as_deref(), Some("Perhaps you meant to reference the column \"orders.price\"."));
    assert_eq!(error.position, Some(8));
    let error = world.error("SELECT * FROM ordres");
    assert!(error.hint.unwrap().contains("orders"));
}
