//! A restaurant's orders, whose events come in any order, repeated and late: the dashboard is the same.

use super::{BINARY, Random};
use crate::support::server::Server;

/// order, restaurant, item, qty, cents, status, placed at, updated at, seconds of preparation, rating.
const EVENTS: [&str; 10] = [
    "101, 7, 'ramen', 2, 2400, 'placed', '12:00:05', '12:00:05', NULL, NULL",
    "102, 7, 'gyoza', 1, 600, 'placed', '12:00:40', '12:00:40', NULL, NULL",
    "101, 7, 'ramen', 2, 2400, 'accepted', '12:00:05', '12:00:50', NULL, NULL",
    "103, 9, 'pho', 1, 1300, 'placed', '12:01:10', '12:01:10', NULL, NULL",
    "101, 7, 'ramen', 2, 2400, 'delivered', '12:00:05', '12:25:00', 540, 5",
    "102, 7, 'gyoza', 1, 600, 'cancelled', '12:00:40', '12:03:00', NULL, NULL",
    "104, 7, 'ramen', 1, 1200, 'placed', '13:02:00', '13:02:00', NULL, NULL",
    // Late and once more: must lose.
    "101, 7, 'ramen', 2, 2400, 'accepted', '12:00:05', '12:00:50', NULL, NULL",
    "104, 7, 'ramen', 1, 1100, 'delivered', '13:02:00', '13:30:00', 660, 3",
    "105, 7, 'ramen', 3, 3600, 'delivered', '13:40:00', '14:10:00', 600, 4",
];

fn row(event: &str) -> String {
    let mut fields: Vec<String> = event.split(", ").map(ToOwned::to_owned).collect();
    for at in [6, 7] {
        fields[at] = format!("'2024-03-01 {}Z'", fields[at].trim_matches('\''));
    }
    format!("({})", fields.join(", "))
}

/// A question, and the rows of its answer.
const DASHBOARD: [(&str, &str); 8] = [
    (
        "SELECT date_trunc('hour', placed_at)::text, sum(price_cents) FROM orders WHERE restaurant_id = 7 AND status <> 'cancelled' GROUP BY 1 ORDER BY 1",
        "2024-03-01 12:00:00+00 2400, 2024-03-01 13:00:00+00 4700",
    ),
    (
        "SELECT item, sum(qty) FROM orders WHERE restaurant_id = 7 AND status <> 'cancelled' GROUP BY 1 ORDER BY 2 DESC LIMIT 10",
        "ramen 6",
    ),
    ("SELECT avg(rating)::numeric(4,2), count(rating) FROM orders WHERE restaurant_id = 7", "4.00 3"),
    (
        "SELECT (count(*) FILTER (WHERE status = 'cancelled'))::numeric(4,2) / count(*) < 0.26 FROM orders WHERE restaurant_id = 7",
        "t",
    ),
    (
        "SELECT avg(prep_sec)::int, percentile_cont(0.5) WITHIN GROUP (ORDER BY prep_sec) FROM orders WHERE restaurant_id = 7",
        "600 600",
    ),
    ("SELECT status, count(*) FROM orders GROUP BY status ORDER BY 2 DESC, 1", "delivered 3, cancelled 1, placed 1"),
    ("SELECT count(*), min(price_cents), max(price_cents), count(DISTINCT status) FROM orders", "5 600 3600 3"),
    (
        "SELECT order_id, price_cents FROM orders WHERE restaurant_id = 7 ORDER BY order_id DESC LIMIT 2",
        "105 3600, 104 1100",
    ),
];

fn check(server: &Server, when: &str) {
    for (question, expected) in DASHBOARD {
        for setting in [
            "rt.use_indexes = always",
            "rt.use_indexes = off",
            "rt.use_star_tree = off",
            "rt.aggregate_in_segment = off",
        ] {
            let rows = server.sql(&format!("SET {setting}; {question}"));
            let rows: Vec<String> = rows
                .iter()
                .map(|row| row.iter().map(|value| value.as_deref().unwrap_or("NULL")).collect::<Vec<_>>().join(" "))
                .collect();
            assert_eq!(rows.join(", "), expected, "{when}, {setting}: {question}");
        }
    }
    assert_eq!(server.value("SET rt.skip_upsert = on; SELECT count(*) FROM orders"), "10", "{when}");
}

#[test]
fn the_dashboard_is_the_same_for_every_order_of_arrival() {
    let mut server = Server::start(BINARY);
    let mut random = Random(22);
    let mut order: Vec<usize> = (0..EVENTS.len()).collect();
    for arrival in 0..14 {
        server.sql(
            "CREATE TABLE orders (order_id BIGINT PRIMARY KEY, restaurant_id BIGINT, item TEXT, qty INT, price_cents BIGINT, status TEXT,
               placed_at TIMESTAMPTZ, updated_at TIMESTAMPTZ, prep_sec INT, rating INT)
             WITH (mode = 'upsert', version_column = 'updated_at', time_column = 'placed_at', partitions = 4, out_of_order = 'keep')",
        );
        if arrival % 2 == 1 {
            server.sql("CREATE INDEX ON orders USING sorted (restaurant_id)");
        }
        server.sql("CREATE INDEX ON orders USING inverted (status)");
        server.sql(
            "CREATE INDEX ON orders USING star_tree (restaurant_id, status, item, date_trunc('hour', placed_at))
             AGGREGATE (sum(price_cents), sum(qty), count(*), sum(rating), count(rating))",
        );
        let mut left = &order[..];
        while !left.is_empty() {
            let (some, rest) = left.split_at(1 + random.below(left.len().min(4)));
            let rows: Vec<String> = some.iter().map(|at| row(EVENTS[*at])).collect();
            server.sql(&format!("INSERT INTO orders VALUES {}", rows.join(", ")));
            left = rest;
            match random.below(6) {
                0 => _ = server.sql("SELECT rt.seal('orders')"),
                1 if arrival % 4 == 3 => _ = server.kill_and_restart(),
                _ => {}
            }
        }
        check(&server, &format!("arrival {arrival} {order:?}, consuming"));
        server.sql("SELECT rt.seal('orders')");
        check(&server, &format!("arrival {arrival} {order:?}, sealed"));
        if arrival % 4 == 0 {
            server.kill_and_restart();
            check(&server, &format!("arrival {arrival} {order:?}, restarted"));
        }
        server.sql("DROP TABLE orders");
        random.shuffle(&mut order);
    }
}
