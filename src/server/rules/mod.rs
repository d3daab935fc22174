//! Rules: what is done about pipelines of which a number is out of bounds.
//!
//! ```text
//! status of each pipeline ─► numbers (`metrics.rs`) ─ out of bounds for as long as a rule says ─► event, and what the rule does
//! ```
//!
//! Rules that everybody has (`shipped`) are rules like others; one of the same name stands in the place of one of these. What pipelines do about themselves is told beside them
//! (`OF_PIPELINES`): they start again after a failure, and after `stuck_after` without any sign of life.

pub mod metrics;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tidemill_ingest::{
    events::{Event, EventSink, Severity},
    pipeline::run::PipelineStatus,
};
use tidemill_query::notifications::Notification;
use tidemill_storage::ids::TableId;
use tokio::sync::watch;

use self::metrics::{Metric, Reading};
use super::instance::Instance;
use crate::{
    catalog::{
        Definitions,
        definition::{Comparison, PipelineDefinition, RuleAction, RuleDefinition},
    },
    ddl, runtime,
    session::channels::Channels,
};

/// How often numbers are looked at.
const TURN: Duration = Duration::from_secs(1);
/// A pipeline whose number stays out of bounds is told to start again so often at most.
const RESTART_EVERY_US: i64 = 60_000_000;
/// Who says notifications of rules.
const PID: i32 = 0;

/// What rules did since the start, by their names.
#[derive(Debug, Default)]
pub struct Rules {
    fired: Mutex<BTreeMap<String, Fired>>,
}

/// What one of them did.
#[derive(Clone, Debug, Default)]
pub struct Fired {
    pub count: u64,
    /// The last time; microseconds since 1970.
    pub at_us: Option<i64>,
    pub pipeline: Option<String>,
    /// Why what it does was not done.
    pub error: Option<String>,
}

impl Rules {
    pub fn fired(&self, rule: &str) -> Fired {
        self.fired.lock().get(rule).cloned().unwrap_or_default()
    }
}

/// What pipelines do about themselves: name, metric, range and action.
pub const OF_PIPELINES: [[&str; 4]; 2] = [
    ["failed", "failures", "> 0", "RESTART, after 0.1 s to 10 s"],
    ["stuck", "silence", "> stuck_after of the pipeline", "RESTART"],
];

pub fn is_of_pipelines(rule: &str) -> bool {
    OF_PIPELINES.iter().any(|[name, ..]| *name == rule)
}

/// The rules that every server has.
pub fn shipped() -> Vec<Arc<RuleDefinition>> {
    let rule = |name: &str, metric: &str, bound: f64, written: &str, hold_us: i64| {
        Arc::new(RuleDefinition {
            oid: 0,
            name: name.to_owned(),
            version: 0,
            pipeline: None,
            metric: metric.to_owned(),
            comparison: Comparison::Above,
            bound,
            written: written.to_owned(),
            hold_us,
            action: RuleAction::Event,
            enabled: true,
            created_at_us: 0,
        })
    };
    vec![
        rule("keeps_failing", "failing", 300.0, "5 minutes", 0),
        rule("sink_holds_it", "held", 300.0, "5 minutes", 0),
        rule("little_memory", "memory", 0.9, "90%", 60_000_000),
    ]
}

/// All rules: those that were made, and those of every server of which none of these has the name.
pub fn all(definitions: &Definitions) -> Vec<Arc<RuleDefinition>> {
    let shipped = shipped().into_iter().filter(|rule| definitions.rule_named(&rule.name).is_none());
    shipped.chain(definitions.rules.values().cloned()).collect()
}

/// Follows the rules until the server stops.
pub async fn follow(instance: Arc<Instance>, channels: Arc<Channels>, mut stopping: watch::Receiver<bool>) {
    let mut watching = Watching::default();
    let mut turns = tokio::time::interval(TURN);
    turns.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = turns.tick() => {}
            _ = stopping.changed() => return,
        }
        for firing in watching.turn(&instance) {
            // Nobody waits for what takes long.
            runtime::spawn(firing.carry_out(Arc::clone(&instance), Arc::clone(&channels)));
        }
    }
}

/// What is remembered from turn to turn. Times are monotonic.
#[derive(Default)]
struct Watching {
    pipelines: BTreeMap<TableId, Seen>,
    /// Of rules by name and version, and pipelines: since when they are out of bounds.
    episodes: BTreeMap<(String, u64, TableId), Episode>,
}

struct Seen {
    status: PipelineStatus,
    at_us: i64,
    /// Since when it is in its state.
    state_us: i64,
}

#[derive(Clone, Copy)]
struct Episode {
    since_us: i64,
    fired_us: Option<i64>,
}

impl Watching {
    fn turn(&mut self, instance: &Instance) -> Vec<Firing> {
        let definitions = instance.catalog.definitions();
        let rules = all(&definitions);
        let now_us = instance.clock.monotonic_us();
        let mut firings = Vec::new();
        let mut pipelines = BTreeMap::new();
        let mut episodes = BTreeMap::new();
        for pipeline in definitions.pipelines.values().filter(|pipeline| !pipeline.paused) {
            let Some(running) = instance.pipelines.live(pipeline.id).and_then(|live| live.running()) else { continue };
            let status = running.status();
            let before = self.pipelines.remove(&pipeline.id);
            let state_us =
                before.as_ref().filter(|seen| seen.status.state == status.state).map_or(now_us, |seen| seen.state_us);
            let reading = Reading {
                status: &status,
                before: before.as_ref().map(|seen| (&seen.status, (now_us - seen.at_us) as f64 / 1e6)),
                options: &pipeline.options,
                now_us: instance.clock.now_us(),
                state_s: (now_us - state_us) as f64 / 1e6,
            };
            for rule in rules.iter().filter(|rule| rule.enabled && rule.pipeline.is_none_or(|id| id == pipeline.id)) {
                let Some(metric) = Metric::named(&rule.metric) else { continue };
                let Some(value) = (metric.of)(&reading).filter(|value| rule.comparison.holds(*value, rule.bound))
                else {
                    continue;
                };
                let key = (rule.name.clone(), rule.version, pipeline.id);
                let mut episode = self.episodes.remove(&key).unwrap_or(Episode { since_us: now_us, fired_us: None });
                if episode.is_due(rule, now_us) {
                    episode.fired_us = Some(now_us);
                    let (rule, pipeline) = (Arc::clone(rule), Arc::clone(pipeline));
                    firings.push(Firing { rule, pipeline, metric, value });
                }
                episodes.insert(key, episode);
            }
            pipelines.insert(pipeline.id, Seen { status, at_us: now_us, state_us });
        }
        (self.pipelines, self.episodes) = (pipelines, episodes);
        firings
    }
}

impl Episode {
    /// Whether the rule does something now: once as long as its number stays out of bounds, or now and then when a pipeline is to start again.
    fn is_due(&self, rule: &RuleDefinition, now_us: i64) -> bool {
        let is_restart = matches!(&rule.action, RuleAction::Alter(clause) if clause == "RESTART");
        let is_free = match self.fired_us {
            None => true,
            Some(fired_us) => is_restart && now_us - fired_us >= RESTART_EVERY_US.max(rule.hold_us),
        };
        is_free && now_us - self.since_us >= rule.hold_us
    }
}

/// What is to be done about a pipeline.
struct Firing {
    rule: Arc<RuleDefinition>,
    pipeline: Arc<PipelineDefinition>,
    metric: &'static Metric,
    value: f64,
}

impl Firing {
    async fn carry_out(self, instance: Arc<Instance>, channels: Arc<Channels>) {
        let Self { rule, pipeline, metric, value } = self;
        let (name, of, shown) = (&rule.name, &pipeline.name, metric.unit.show(value));
        let bounds = range(&rule);
        let why = format!("rule '{name}' on pipeline '{of}': {} is {shown} ({bounds})", rule.metric);
        let done = match &rule.action {
            RuleAction::Event => Ok(()),
            RuleAction::Notify(channel) => {
                let payload =
                    serde_json::json!({ "rule": name, "pipeline": of, "metric": rule.metric, "value": value });
                let notification = Notification { channel: channel.clone(), payload: payload.to_string() };
                channels.send(PID, vec![notification])
            }
            RuleAction::Alter(clause) => {
                let sql = format!("ALTER PIPELINE \"{}\" {clause}", of.replace('"', "\"\""));
                ddl::execute(&instance, &sql).await.map(|_| ())
            }
        };
        let error = done.err().map(|error| error.message);
        let (severity, message) = match (&error, &rule.action) {
            (Some(error), action) => (Severity::Page, format!("{why}; {action} failed: {error}")),
            (None, RuleAction::Event) => (Severity::Warning, why),
            (None, action) => (Severity::Warning, format!("{why}; {action} is done")),
        };
        let at_us = instance.clock.now_us();
        let kind = "rule";
        instance.events.record(Event { at_us, severity, kind, table: None, partition: None, stream: None, message });
        let mut all = instance.rules.fired.lock();
        let fired = all.entry(rule.name.clone()).or_default();
        fired.count += 1;
        (fired.at_us, fired.pipeline, fired.error) = (Some(at_us), Some(pipeline.name.clone()), error);
    }
}

/// The bounds of a rule, as they are told.
pub fn range(rule: &RuleDefinition) -> String {
    let hold = match rule.hold_us {
        0 => String::new(),
        us => format!(" for {} s", us as f64 / 1e6),
    };
    format!("{} {}{hold}", rule.comparison, rule.written)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_does_something_once_and_restarts_now_and_then() {
        let mut rule = (*shipped()[0]).clone();
        rule.hold_us = 3_000_000;
        let second = 1_000_000;
        let fires = |rule: &RuleDefinition| {
            let mut episode = Episode { since_us: 0, fired_us: None };
            let due = (0..200).filter(|turn| {
                let is_due = episode.is_due(rule, turn * second);
                if is_due {
                    episode.fired_us = Some(turn * second);
                }
                is_due
            });
            due.collect::<Vec<i64>>()
        };
        assert_eq!(fires(&rule), [3]);
        rule.action = RuleAction::Alter("PAUSE".into());
        assert_eq!(fires(&rule), [3]);
        rule.action = RuleAction::Alter("RESTART".into());
        assert_eq!(fires(&rule), [3, 63, 123, 183]);
        rule.hold_us = 90 * second;
        assert_eq!(fires(&rule), [90, 180]);
    }
}
