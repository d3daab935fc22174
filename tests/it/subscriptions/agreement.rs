//! Random statements, seals and compactions under subscriptions: what they were sent adds up to what SELECT gives, whether they look at the rows that
//! changed or ask the whole query again, and whether they have memory for all rows at once or not.

use std::collections::BTreeMap;

use tokio_postgres::Client;

use super::{BINARY, Subscriber, Values, result};
use crate::support::server::{Server, connect, runtime};

const QUERIES: [&str; 7] = [
    "SELECT id, city, n FROM t WHERE n > 3",
    "SELECT upper(city) AS c, n % 3 AS m FROM t",
    "SELECT city FROM t WHERE id = 7 OR city LIKE 'b%'",
    "SELECT id FROM t WHERE n < 5 UNION ALL SELECT n FROM t",
    "SELECT city, count(*), sum(n), min(id) FROM t GROUP BY city",
    "SELECT DISTINCT n FROM t ORDER BY n DESC LIMIT 4",
    "SELECT a.id, b.n FROM t a JOIN t b ON a.id = b.n WHERE a.n > 5",
];
const PLAIN: &str = "SET rt.subscribe_to_changes = off";

/// Numbers that look random and are the same each time.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }
}

fn statement(random: &mut Random, step: u64) -> String {
    let id = random.below(40);
    match random.below(20) {
        0..=7 => {
            let rows: Vec<String> = (0..1 + random.below(12))
                .map(|_| {
                    let city = ["'bern'", "'oslo'", "'rome'", "NULL"][random.below(4) as usize];
                    format!("({}, {city}, {})", random.below(40), random.below(10))
                })
                .collect();
            format!("INSERT INTO t (id, city, n) VALUES {}", rows.join(", "))
        }
        8..=10 => format!("UPDATE t SET n = (n + {}) % 10 WHERE id % 7 = {}", random.below(3), id % 7),
        11 => "UPDATE t SET city = city WHERE id < 20".into(),
        12 | 13 => format!("DELETE FROM t WHERE id BETWEEN {id} AND {}", id + 4),
        14..=16 => "SELECT rt.seal('t')".into(),
        17 | 18 => "SELECT rt.compact('t')".into(),
        _ if random.below(3) == 0 => "TRUNCATE t".into(),
        _ => format!("ALTER TABLE t ADD COLUMN more_{step} INT DEFAULT {id}"),
    }
}

async fn agree(server: &Server, seed: u64, table: &str) {
    let random = &mut Random(seed);
    let client: Client = connect(server.pg_port).await.unwrap();
    client.simple_query(table).await.unwrap();
    client.simple_query("INSERT INTO t SELECT k, 'bern', k % 10 FROM generate_series(0, 20) AS s(k)").await.unwrap();
    let mut subscribers = Vec::new();
    for query in QUERIES {
        let before = result(&client, query).await;
        for settings in ["", PLAIN] {
            let mut subscriber = Subscriber::open(server, settings, query, "").await;
            subscriber.until(&before).await;
            subscribers.push((query, subscriber));
        }
        // Without what is there already: the same from here on.
        let mut later = Subscriber::open(server, "", query, ", snapshot = false").await;
        later.moment().await.unwrap();
        assert_eq!(later.state, BTreeMap::<Values, i64>::new());
        later.state.clone_from(&before);
        subscribers.push((query, later));
    }
    for step in 0..40 {
        let sql = statement(random, step);
        client.simple_query(&sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
        // Several at a time gather.
        if random.below(3) == 0 || step == 39 {
            let mut wanted = BTreeMap::new();
            for query in QUERIES {
                wanted.insert(query, result(&client, query).await);
            }
            for (query, subscriber) in &mut subscribers {
                subscriber.until(&wanted[query]).await;
            }
        }
    }
    drop(subscribers);
    client.simple_query("DROP TABLE t").await.unwrap();
}

#[test]
fn both_ways_add_up_to_the_result() {
    let server = Server::start(BINARY);
    runtime().block_on(async {
        let columns = "id BIGINT, city TEXT, n INT";
        agree(&server, 1, &format!("CREATE TABLE t ({columns})")).await;
        agree(&server, 2, &format!("CREATE TABLE t ({columns}, PRIMARY KEY (id)) WITH (partitions = 3)")).await;
        // Seals put rows in another order.
        let sorted = "CREATE INDEX ON t USING sorted (n)";
        agree(&server, 3, &format!("CREATE TABLE t ({columns}, PRIMARY KEY (id)); {sorted}")).await;
    });
}

/// Little memory: what compaction wrote again is compared in parts.
#[test]
fn rows_that_do_not_fit_are_compared_in_parts() {
    let server = Server::start_with(BINARY, &["--memory-subscription-bytes", "100000"]);
    server.sql("CREATE TABLE t (id BIGINT, n INT) WITH (seal_rows = 3000)");
    for part in 0..3 {
        server.sql(&format!(
            "INSERT INTO t SELECT k, k % 9 FROM generate_series({}, {}) AS s(k)",
            part * 3000 + 1,
            part * 3000 + 3000
        ));
    }
    server.sql("SELECT rt.seal('t')");
    runtime().block_on(async {
        let client = connect(server.pg_port).await.unwrap();
        let query = "SELECT id, n FROM t";
        let mut subscriber = Subscriber::open(&server, "", query, "").await;
        subscriber.until(&result(&client, query).await).await;
        client.simple_query("DELETE FROM t WHERE n = 4 OR id = 3000").await.unwrap();
        let left = result(&client, query).await;
        subscriber.until(&left).await;
        // 8000 rows went, and came again.
        client.simple_query("SELECT rt.compact('t')").await.unwrap();
        client.simple_query("INSERT INTO t VALUES (-1, -1)").await.unwrap();
        let mut wanted = left.clone();
        wanted.insert(vec![Some("-1".into()), Some("-1".into())], 1);
        let mut rows = 0;
        while subscriber.is_open || subscriber.state != wanted {
            rows += u32::from(subscriber.step().await.unwrap().diff.is_some());
        }
        assert_eq!(rows, 1, "rows that were only written again are not sent");
        // The same query by the other way needs memory for its result, and is told so.
        let mut other = Subscriber::open(&server, PLAIN, query, "").await;
        let error = other.end().await;
        let error = error.as_db_error().unwrap();
        assert_eq!(error.code().code(), "53200");
        assert!(error.detail().unwrap().contains("memory.subscription_bytes"), "{error:?}");
    });
}
