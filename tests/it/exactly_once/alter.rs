//! ALTER TABLE while rows come by INSERT, by COPY and from Kafka at the same time.

use std::{
    pin::pin,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::Duration,
};

use futures::SinkExt;

use super::{BINARY, create, send, topic};
use crate::support::{
    kafka::{Feed, brokers, create_topic},
    server::{Server, connect, runtime},
};

#[test]
fn columns_change_while_rows_come_from_everywhere() {
    let Some(brokers) = brokers("exactly_once::alter::columns_change_while_rows_come_from_everywhere") else { return };
    let topic = topic("altered");
    create_topic(&brokers, &topic, 2, &[]);
    let feed = Feed::new(&brokers, &topic);
    let mut server = Server::start(BINARY);
    create(&server, &brokers, &topic, "", "partitions = 2, seal_rows = 1500");
    let (stop, inserted, copied) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    let mut sent = 0;
    thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::SeqCst) {
                let first = inserted.load(Ordering::SeqCst);
                let rows: Vec<_> = (first..first + 50).map(|seq| format!("(100, {seq})")).collect();
                server.sql(&format!("INSERT INTO t (part, seq) VALUES {}", rows.join(", ")));
                inserted.fetch_add(50, Ordering::SeqCst);
            }
        });
        scope.spawn(|| {
            while !stop.load(Ordering::SeqCst) {
                let first = copied.load(Ordering::SeqCst);
                let text: String = (first..first + 500).map(|seq| format!("200\t{seq}\n")).collect();
                let taken = runtime().block_on(async {
                    let client = connect(server.pg_port).await.unwrap();
                    let sink = client.copy_in("COPY t (part, seq) FROM STDIN").await.unwrap();
                    let mut sink = pin!(sink);
                    sink.send(bytes::Bytes::from(text)).await.unwrap();
                    sink.finish().await.unwrap()
                });
                assert_eq!(taken, 500);
                copied.fetch_add(500, Ordering::SeqCst);
            }
        });
        for round in 0..6 {
            (0..2).for_each(|part| send(&feed, part, sent..sent + 1000));
            feed.flush();
            sent += 1000;
            server.sql(&format!("ALTER TABLE t ADD COLUMN c{round} TEXT DEFAULT 'of round {round}'"));
            thread::sleep(Duration::from_millis(100));
            match round {
                1 => server.sql("ALTER TABLE t DROP COLUMN c0"),
                2 => server.sql("ALTER TABLE t RENAME COLUMN c1 TO renamed"),
                3 => server.sql("ALTER TABLE t ALTER COLUMN part TYPE BIGINT"),
                4 => server.sql("ALTER TABLE t ADD COLUMN other INT, DROP COLUMN c2"),
                _ => Vec::new(),
            };
        }
        stop.store(true, Ordering::SeqCst);
    });
    let (inserted, copied) = (inserted.into_inner(), copied.into_inner());
    assert!(inserted > 0 && copied > 0);
    server.wait_for("SELECT count(*) FROM t WHERE part < 100", &(2 * sent).to_string(), Duration::from_secs(60));
    for _ in 0..2 {
        for (part, rows) in [(0, sent), (1, sent), (100, inserted), (200, copied)] {
            let row =
                &server.sql(&format!("SELECT count(*), count(DISTINCT seq), sum(seq) FROM t WHERE part = {part}"))[0];
            let wanted = [rows, rows, rows * (rows - 1) / 2].map(|number| Some(number.to_string()));
            assert_eq!(row[..], wanted, "rows of {part}");
        }
        assert_eq!(server.value("SELECT count(*) FROM t WHERE c5 <> 'of round 5' OR renamed <> 'of round 1'"), "0");
        assert_eq!(server.value("SELECT count(*) FROM rt.dlq"), "0");
        server.kill_and_restart();
        server.sql("SELECT rt.drain('t')");
    }
}
