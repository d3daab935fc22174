//! `/metrics` in Prometheus' text form: counters that the parts keep, and gauges read from the running tables at each scrape.

use std::sync::Arc;

use axum::{
    extract::State as Shared,
    http::header,
    response::{IntoResponse, Response},
};
use metrics::{describe_gauge, gauge};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tidemill_query::registry::QueryState;

use super::State;
use crate::{server::instance::Instance, session::registry::Registry};

/// Latencies, seconds: half a millisecond to a minute.
const SECONDS: &[f64] =
    &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];

/// The recorder of this process.
#[derive(Clone, Debug)]
pub struct Metrics(PrometheusHandle);

/// Installs the recorder; before anything is counted. A second call (in tests) has a recorder that nobody writes to.
pub fn install() -> Result<Metrics, String> {
    let recorder = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".into()), SECONDS)
        .map_err(|error| error.to_string())?
        .build_recorder();
    let handle = recorder.handle();
    let _ = metrics::set_global_recorder(recorder);
    describe_gauge!("tidemill_table_rows", "rows visible to a query now");
    describe_gauge!("tidemill_table_bytes", "bytes of segments: files and memory");
    describe_gauge!("tidemill_table_segments", "segments by state");
    describe_gauge!("tidemill_ingest_rows", "rows made visible since the start, per source partition");
    describe_gauge!("tidemill_ingest_lag", "messages in the source that are not visible yet");
    describe_gauge!("tidemill_ingest_position", "next offset that is not visible yet");
    describe_gauge!("tidemill_ingest_freshness_seconds", "age of the newest message when it became visible");
    describe_gauge!("tidemill_ingest_dead_letters", "dead letters since the start, per source partition");
    describe_gauge!("tidemill_ingest_stopped", "1 when the partition stands still until a person looks");
    describe_gauge!("tidemill_queries_running", "statements that run now");
    describe_gauge!(
        "tidemill_queries_at_work",
        "queries that hold threads or memory, ended ones too until they let go"
    );
    describe_gauge!("tidemill_result_cache_bytes", "memory of kept answers of sealed segments");
    describe_gauge!("tidemill_result_cache_hits", "answers that were there, since the start");
    describe_gauge!("tidemill_result_cache_misses", "answers that had to be found, since the start");
    describe_gauge!("tidemill_connections", "sessions that are open");
    describe_gauge!("tidemill_uptime_seconds", "since the server started");
    Ok(Metrics(handle))
}

pub(super) async fn render(Shared(state): Shared<Arc<State>>) -> Response {
    observe(&state.instance, &state.shared.registry);
    state.metrics.0.run_upkeep();
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], state.metrics.0.render()).into_response()
}

fn observe(instance: &Instance, registry: &Registry) {
    for (table, live) in instance.all_live() {
        let (mut rows, mut bytes) = (0, 0);
        let mut states = std::collections::BTreeMap::from([
            ("consuming", 0_u32),
            ("sealing", 0),
            ("committed", 0),
            ("quarantined", 0),
        ]);
        for view in &live.table.snapshot().views {
            rows += view.rows();
            for segment in view.segments() {
                bytes += segment.bytes();
                *states.entry(segment.state().name()).or_default() += 1;
            }
        }
        gauge!("tidemill_table_rows", "table" => table.name.clone()).set(rows as f64);
        gauge!("tidemill_table_bytes", "table" => table.name.clone()).set(bytes as f64);
        for (state, count) in states {
            gauge!("tidemill_table_segments", "table" => table.name.clone(), "state" => state).set(count);
        }
        for status in live.ingest.status() {
            let set = |name: &'static str, value: f64| {
                let labels = [
                    ("table", table.name.clone()),
                    ("source", status.source_name.clone()),
                    ("partition", status.source_partition.to_string()),
                ];
                gauge!(name, &labels).set(value);
            };
            set("tidemill_ingest_rows", status.rows as f64);
            set("tidemill_ingest_position", status.position as f64);
            set("tidemill_ingest_dead_letters", status.dead_letters as f64);
            set("tidemill_ingest_stopped", f64::from(u8::from(status.state == "stopped")));
            if let Some(lag) = status.lag() {
                set("tidemill_ingest_lag", lag as f64);
            }
            if let Some(age) = status.freshness_ms {
                set("tidemill_ingest_freshness_seconds", age as f64 / 1_000.0);
            }
        }
    }
    if let Ok(engine) = instance.engine() {
        let running = engine.queries().running().iter().filter(|query| query.state == QueryState::Running).count();
        gauge!("tidemill_queries_running").set(running as f64);
        gauge!("tidemill_queries_at_work").set(engine.queries().at_work() as f64);
        let results = engine.results();
        gauge!("tidemill_result_cache_bytes").set(results.bytes() as f64);
        gauge!("tidemill_result_cache_hits").set(results.hits() as f64);
        gauge!("tidemill_result_cache_misses").set(results.misses() as f64);
    }
    gauge!("tidemill_connections").set(registry.sessions().len() as f64);
    gauge!("tidemill_uptime_seconds").set((instance.clock.now_us() - instance.started_us) as f64 / 1e6);
}
