//! WITH (…) of CREATE PIPELINE.

use tidemill_ingest::pipeline::{Late, LatePolicy};

use crate::{
    catalog::definition::PipelineOptions,
    session::error::{Result, SqlError, state},
    sql::{ast::OptionPair, options},
};

const OPTIONS: &[&str] = &[
    "checkpoint_interval",
    "idle_timeout",
    "watermark_jump",
    "memory_limit",
    "stuck_after",
    "late",
    "allowed_lateness",
    "delivery",
    "parallelism",
    "by_name",
    "profile",
    "priority",
    "http_timeout",
    "http_tries",
    "http_cache_ttl",
    "http_cache_bytes",
    "http_concurrency",
];
/// How long windows stay with `late = 'update'` when nothing is said: an hour.
const ALLOWED_US: i64 = 3_600_000_000;

/// What the options say.
#[derive(Debug, Default)]
pub(super) struct Read {
    pub(super) options: PipelineOptions,
    pub(super) by_name: bool,
    /// Where `late` stands, or the `profile` that says it.
    pub(super) late_position: Option<u32>,
    pub(super) notices: Vec<String>,
}

/// Options that a pipeline that is there may be given.
const CHANGEABLE: &[&str] = &["checkpoint_interval", "idle_timeout", "memory_limit", "stuck_after", "parallelism"];
/// Lanes of a pipeline at most.
const LANES_MAX: u32 = 64;

pub(super) fn read(pairs: &[OptionPair]) -> Result<Read> {
    read_over(PipelineOptions::default(), pairs)
}

/// What ALTER PIPELINE … SET makes of the options.
pub(super) fn change(options: &PipelineOptions, pairs: &[OptionPair]) -> Result<PipelineOptions> {
    for OptionPair { key, .. } in pairs {
        let name = key.value.to_lowercase();
        if OPTIONS.contains(&&*name) && !CHANGEABLE.contains(&&*name) {
            return Err(SqlError::unsupported(format!("option \"{name}\" of a pipeline cannot be changed"))
                .at(key.position)
                .with_hint(format!("{} can; for others drop the pipeline and make it again", CHANGEABLE.join(", "))));
        }
    }
    let late = options.late;
    Ok(PipelineOptions { late, ..read_over(options.clone(), pairs)?.options })
}

fn read_over(options: PipelineOptions, pairs: &[OptionPair]) -> Result<Read> {
    let mut found = Read { options, ..Read::default() };
    let (mut allowed, mut profile) = (None, None);
    for OptionPair { key, value, value_position } in pairs {
        let read = &mut found.options;
        let wrong = |hint: String| {
            SqlError::new(state::INVALID_PARAMETER_VALUE, format!("option \"{}\" has the value '{value}'", key.value))
                .at(*value_position)
                .with_hint(hint)
        };
        let duration = || options::duration_us(value).map_err(&wrong);
        match key.value.to_lowercase().as_str() {
            "checkpoint_interval" => read.checkpoint_interval_us = duration()?,
            "idle_timeout" => read.idle_timeout_us = duration()?,
            "watermark_jump" => read.watermark_jump_us = duration()?,
            "memory_limit" => read.memory_limit = options::bytes(value).map_err(&wrong)?,
            "stuck_after" => read.stuck_after_us = duration_or_none(value).map_err(&wrong)?,
            "by_name" => found.by_name = value.parse().map_err(|_| wrong("it takes true or false".into()))?,
            "late" => {
                read.late.policy = match value.to_lowercase().as_str() {
                    "drop" => LatePolicy::Drop,
                    "update" => LatePolicy::Update,
                    "dlq" => LatePolicy::Dlq,
                    _ => return Err(wrong("it takes drop, update or dlq".into())),
                };
                found.late_position = Some(*value_position);
            }
            "allowed_lateness" => allowed = Some((duration_or_none(value).map_err(&wrong)?, *value_position)),
            "delivery" if value.eq_ignore_ascii_case("exactly_once") => {}
            "delivery" if value.eq_ignore_ascii_case("at_least_once") => {
                found.notices.push("delivery into tables is exactly_once, which costs nothing more".into());
            }
            "delivery" => return Err(wrong("it takes exactly_once or at_least_once".into())),
            "parallelism" => read.parallelism = number(value, LANES_MAX).map_err(&wrong)?,
            "http_timeout" => read.services.timeout_us = duration()?,
            "http_tries" => read.services.tries = number(value, 100).map_err(&wrong)?,
            "http_cache_ttl" => read.services.cache_ttl_us = duration_or_none(value).map_err(&wrong)?,
            "http_cache_bytes" => read.services.cache_bytes = options::bytes(value).map_err(&wrong)?,
            "http_concurrency" => read.services.concurrency = number(value, 256).map_err(&wrong)?,
            "profile" => {
                let late = match value.to_lowercase().as_str() {
                    "freshness" => LatePolicy::Drop,
                    "completeness" => LatePolicy::Update,
                    _ => return Err(wrong("it takes freshness or completeness".into())),
                };
                profile = Some((late, *value_position));
            }
            "priority" => {
                let notice = format!("option \"{}\" means nothing to a pipeline yet and is ignored", key.value);
                found.notices.push(notice);
            }
            _ => return Err(options::unknown("pipeline", &key.value, OPTIONS.iter().copied()).at(key.position)),
        }
    }
    if let Some((late, position)) = profile {
        if found.late_position.is_none() {
            (found.options.late.policy, found.late_position) = (late, Some(position));
        }
        let notice = "option \"profile\" says what becomes of late rows; reads and failover do not go by it yet";
        found.notices.push(notice.into());
    }
    found.options.late = settle(found.options.late.policy, allowed)?;
    Ok(found)
}

fn number(value: &str, most: u32) -> Result<u32, String> {
    let read = value.trim().parse().ok().filter(|number| (1..=most).contains(number));
    read.ok_or_else(|| format!("it takes a number from 1 to {most}"))
}

/// Zero is a time here.
fn duration_or_none(value: &str) -> Result<i64, String> {
    let number = value.trim().trim_end_matches(|c: char| c.is_alphabetic() || c == ' ');
    if number.parse::<f64>().is_ok_and(|number| number == 0.0) {
        return Ok(0);
    }
    options::duration_us(value)
}

fn settle(policy: LatePolicy, allowed: Option<(i64, u32)>) -> Result<Late> {
    match (policy, allowed) {
        (LatePolicy::Update, Some((0, position))) => {
            let message = "late = 'update' with allowed_lateness = 0 would update nothing";
            Err(SqlError::new(state::INVALID_PARAMETER_VALUE, message)
                .at(position)
                .with_hint("say for how long windows may change, or late = 'drop'"))
        }
        (LatePolicy::Update, allowed) => Ok(Late { policy, allowed_us: allowed.map_or(ALLOWED_US, |(us, _)| us) }),
        (_, Some((us, position))) if us > 0 => {
            let message =
                "allowed_lateness says for how long windows may change that were given; it goes with late = 'update'";
            Err(SqlError::new(state::INVALID_PARAMETER_VALUE, message)
                .at(position)
                .with_hint("to have windows wait for late rows, give the time to the source: WATERMARK FOR ts AS ts - INTERVAL '…'"))
        }
        _ => Ok(Late { policy, allowed_us: 0 }),
    }
}
