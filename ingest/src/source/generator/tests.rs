use arrow::{
    array::AsArray,
    compute::concat_batches,
    datatypes::{Float64Type, Int64Type, TimestampMicrosecondType},
};
use tidemill_storage::clock::ManualClock;

use super::*;

const NOW_US: i64 = 1_800_000_000_000_000;

fn generator(options: GeneratorOptions, clock: &Arc<ManualClock>) -> Arc<dyn Connector> {
    let context = ConnectContext {
        source: SourceId(3),
        name: "demo".into(),
        columns: columns(),
        clock: Arc::clone(clock) as Arc<dyn Clock>,
        log: None,
    };
    connect(&options, &context).unwrap()
}

fn options(rate: u64) -> GeneratorOptions {
    GeneratorOptions { rate, rows: None, seed: 42, partitions: 2, epoch_us: Some(NOW_US) }
}

fn rows(fetched: Vec<Fetched>) -> Vec<SourceBatch> {
    fetched
        .into_iter()
        .filter_map(|fetched| if let Fetched::Rows(batch) = fetched { Some(batch) } else { None })
        .collect()
}

#[test]
fn gives_the_same_rows_whatever_the_batches() {
    let clock = Arc::new(ManualClock::at(NOW_US));
    let connector = generator(GeneratorOptions { rows: Some(2001), ..options(0) }, &clock);
    let read = |step: usize, from: u64| {
        let mut reader = connector.open(&BTreeMap::from([(0, from)])).unwrap();
        let mut all = Vec::new();
        loop {
            let fetched = reader.poll(step, 1 << 20, Duration::ZERO).unwrap();
            let ended = fetched.iter().any(|fetched| matches!(fetched, Fetched::End { partition: 0 }));
            all.extend(rows(fetched));
            if ended {
                assert!(reader.poll(step, 1 << 20, Duration::ZERO).unwrap().is_empty());
                let batches: Vec<_> = all.into_iter().map(|batch| batch.rows).collect();
                return concat_batches(&batches[0].schema(), &batches).unwrap();
            }
        }
    };
    let whole = read(100_000, 0);
    assert_eq!(whole.num_rows(), 1001, "of 2001 rows the first of two partitions has one more");
    assert_eq!(read(7, 0), whole);
    assert_eq!(read(100, 640), whole.slice(640, 361));
    assert_eq!(whole.schema(), crate::decode::source_schema(&columns()));
    let another = generator(GeneratorOptions { seed: 43, ..options(0) }, &clock);
    let other = rows(another.open(&BTreeMap::from([(0, 0)])).unwrap().poll(1001, 1 << 20, Duration::ZERO).unwrap());
    assert_ne!(other[0].rows, whole);
}

#[test]
fn rows_come_at_the_rate_in_event_time() {
    let clock = Arc::new(ManualClock::at(NOW_US));
    let connector = generator(options(1000), &clock);
    let mut reader = connector.open(&BTreeMap::from([(0, 0), (1, 0)])).unwrap();
    let first = rows(reader.poll(10_000, 1 << 24, Duration::ZERO).unwrap());
    assert_eq!(first.iter().map(|batch| batch.to).collect::<Vec<_>>(), [1]);
    clock.advance_us(1_000_000);
    let second = rows(reader.poll(10_000, 1 << 24, Duration::ZERO).unwrap());
    assert_eq!(second.iter().map(|batch| batch.to).collect::<Vec<_>>(), [501, 500]);
    for batch in &second {
        let times = batch.rows.column_by_name("ts").unwrap().as_primitive::<TimestampMicrosecondType>().clone();
        assert!(times.values().windows(2).all(|pair| pair[1] - pair[0] == 2000));
        assert!(times.values().iter().all(|time| (NOW_US..=NOW_US + 1_000_000).contains(time)));
    }
    assert_eq!(connector.watermarks(0).unwrap(), Watermarks { low: 0, high: 501 });
    let at = |ms| connector.resolve(&Start::TimestampMs(ms), &[0, 1]).unwrap();
    assert_eq!(at(NOW_US / 1000 + 100), BTreeMap::from([(0, 50), (1, 50)]));
    assert_eq!(at(0), BTreeMap::from([(0, 0), (1, 0)]));
    assert_eq!(connector.resolve(&Start::Latest, &[0]).unwrap(), BTreeMap::from([(0, 501)]));
}

#[test]
fn orders_live_plausible_lives() {
    let clock = Arc::new(ManualClock::at(NOW_US));
    let connector = generator(GeneratorOptions { partitions: 1, ..options(0) }, &clock);
    let mut reader = connector.open(&BTreeMap::from([(0, 0)])).unwrap();
    let batch = rows(reader.poll(32_000, 1 << 24, Duration::ZERO).unwrap()).remove(0).rows;
    let ids = batch.column_by_name("order_id").unwrap().as_primitive::<Int64Type>();
    let statuses = batch.column_by_name("status").unwrap().as_string_view();
    let prices = batch.column_by_name("total_price").unwrap().as_primitive::<Float64Type>();
    let mut lives: BTreeMap<i64, Vec<(&str, f64)>> = BTreeMap::new();
    for row in 0..batch.num_rows() {
        lives.entry(ids.value(row)).or_default().push((statuses.value(row), prices.value(row)));
    }
    assert_eq!(lives.len(), 6400);
    let way = ["placed", "accepted", "cooking", "picked_up", "delivered"];
    let mut cancelled = 0;
    for life in lives.values() {
        assert_eq!(life.len(), 5);
        let kept = life.iter().position(|(status, _)| *status == "cancelled").unwrap_or(5);
        assert!(kept > 0 && life[kept..].iter().all(|(status, _)| *status == "cancelled"));
        assert!(life[..kept].iter().zip(way).all(|((status, _), wanted)| *status == wanted));
        assert!(life.iter().all(|(_, price)| *price == life[0].1 && (1.0..300.0).contains(price)));
        cancelled += usize::from(kept < 5);
    }
    assert!((200..800).contains(&cancelled), "{cancelled} of 6400 are cancelled");
    let tags = batch.column_by_name("tags").unwrap().as_list::<i32>();
    assert!((0..batch.num_rows()).any(|row| tags.value_length(row) > 1));
    let cities = batch.column_by_name("city").unwrap().as_string_view();
    let count = |name: &str| cities.iter().filter(|city| *city == Some(name)).count();
    assert!(count("Berlin") > 4 * count("Graz") && count("Graz") > 0);
}

#[test]
fn takes_some_of_its_columns_and_refuses_others() {
    let clock = Arc::new(ManualClock::at(NOW_US));
    let mut context = ConnectContext {
        source: SourceId(3),
        name: "demo".into(),
        columns: vec![columns().remove(11), columns().remove(0)],
        clock,
        log: None,
    };
    let two = connect(&options(0), &context).unwrap();
    let batch = rows(two.open(&BTreeMap::from([(1, 0)])).unwrap().poll(3, 1 << 20, Duration::ZERO).unwrap()).remove(0);
    let schema = batch.rows.schema();
    assert_eq!(schema.fields().iter().map(|field| field.name().as_str()).collect::<Vec<_>>(), ["ts", "order_id"]);
    context.columns = vec![SourceColumn::new("order_id", DataType::Text, true)];
    assert!(connect(&options(0), &context).unwrap_err().to_string().contains("bigint"));
    context.columns = vec![SourceColumn::new("colour", DataType::Text, true)];
    assert!(connect(&options(0), &context).unwrap_err().to_string().contains("no column 'colour'"));
}
