//! The settings of one session: what SET changes and SHOW shows.
//!
//! Names are those of PostgreSQL, matched without regard to case; a setting that it has and we cannot honour takes only the values that
//! tell the truth. Settings of other families (`myapp.user`) are free text, as there.

use std::collections::BTreeMap;

use crate::SqlError;

/// How values of a setting are checked and written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Text,
    Bool,
    /// Milliseconds when no unit is given.
    Duration,
    Int {
        min: i64,
        max: i64,
    },
    /// One of these, lower case.
    OneOf(&'static [&'static str]),
    TimeZone,
    ReadOnly,
}

struct Setting {
    name: &'static str,
    default: &'static str,
    kind: Kind,
    /// Told to the client in a ParameterStatus message.
    reported: bool,
    about: &'static str,
}

const fn setting(name: &'static str, default: &'static str, kind: Kind, about: &'static str) -> Setting {
    Setting { name, default, kind, reported: false, about }
}

const fn reported(name: &'static str, default: &'static str, kind: Kind, about: &'static str) -> Setting {
    Setting { name, default, kind, reported: true, about }
}

const LEVELS: &[&str] = &["read uncommitted", "read committed", "repeatable read", "serializable"];
const MESSAGES: &[&str] = &[
    "debug5", "debug4", "debug3", "debug2", "debug1", "debug", "log", "notice", "warning", "error", "info", "fatal",
    "panic",
];

/// In the order of their names.
const SETTINGS: &[Setting] = &[
    reported("application_name", "", Kind::Text, "Name of the client, shown in rt.queries."),
    setting("backslash_quote", "safe_encoding", Kind::Text, "Taken for compatibility."),
    setting("bytea_output", "hex", Kind::OneOf(&["hex"]), "How bytea is written."),
    setting("check_function_bodies", "on", Kind::Bool, "Taken for compatibility."),
    reported("client_encoding", "UTF8", Kind::OneOf(&["utf8", "unicode", "sqlascii"]), "Always UTF8."),
    setting("client_min_messages", "notice", Kind::OneOf(MESSAGES), "Least severity of notices."),
    reported("DateStyle", "ISO, MDY", Kind::Text, "Dates are written in ISO form."),
    setting("default_table_access_method", "heap", Kind::Text, "Taken for compatibility."),
    setting("default_tablespace", "", Kind::Text, "Taken for compatibility."),
    setting(
        "default_transaction_isolation",
        "read committed",
        Kind::OneOf(LEVELS),
        "Each statement sees one snapshot.",
    ),
    reported("default_transaction_read_only", "off", Kind::Bool, "What transaction_read_only begins with."),
    setting("enable_seqscan", "on", Kind::Bool, "Taken for compatibility."),
    setting(
        "extra_float_digits",
        "1",
        Kind::Int { min: -15, max: 3 },
        "Floats are written in their shortest exact form.",
    ),
    setting("geqo", "on", Kind::Bool, "Taken for compatibility."),
    setting("idle_in_transaction_session_timeout", "0", Kind::Duration, "Ends sessions that idle in a transaction."),
    setting("idle_session_timeout", "0", Kind::Duration, "Ends sessions that idle."),
    reported("in_hot_standby", "off", Kind::ReadOnly, "Whether this server only follows."),
    reported("integer_datetimes", "on", Kind::ReadOnly, "Timestamps are integers of microseconds."),
    reported("IntervalStyle", "postgres", Kind::OneOf(&["postgres"]), "How intervals are written."),
    reported("is_superuser", "on", Kind::ReadOnly, "Whether the user is the owner."),
    setting("jit", "off", Kind::Bool, "Taken for compatibility."),
    setting("lc_collate", "C", Kind::ReadOnly, "Text is ordered by its bytes."),
    setting("lc_ctype", "C.UTF-8", Kind::ReadOnly, "Character classes."),
    setting("lc_messages", "C", Kind::Text, "Language of messages."),
    setting("lc_monetary", "C", Kind::Text, "Taken for compatibility."),
    setting("lc_numeric", "C", Kind::Text, "Taken for compatibility."),
    setting("lc_time", "C", Kind::Text, "Taken for compatibility."),
    setting("lock_timeout", "0", Kind::Duration, "Reads take no locks."),
    setting("max_identifier_length", "63", Kind::ReadOnly, "Bytes of a name."),
    setting("max_index_keys", "32", Kind::ReadOnly, "Columns of an index."),
    setting("quote_all_identifiers", "off", Kind::Bool, "Taken for compatibility."),
    setting("row_security", "on", Kind::Bool, "Taken for compatibility."),
    setting(
        crate::rules::segment_aggregates::SETTING,
        "on",
        Kind::Bool,
        "Whether segments group their rows themselves; off to compare.",
    ),
    setting(
        MAX_STALENESS,
        "0",
        Kind::Duration,
        "How stale the sources of a query's tables may be; it waits for them, or fails. 0 is any.",
    ),
    setting(
        crate::table::INDEX_SETTING,
        "on",
        Kind::OneOf(&["on", "off", "always"]),
        "Whether indexes find rows: where they are faster, never, or wherever they can; to compare.",
    ),
    setting(
        crate::rules::segment_aggregates::RESULTS_SETTING,
        "on",
        Kind::Bool,
        "Whether answers of sealed segments are kept for the next query that asks the same; off to compare.",
    ),
    setting(
        crate::table::SKIP_UPSERT_SETTING,
        "off",
        Kind::Bool,
        "Whether tables with a primary key show every row that they store, also those that lost; to look into them.",
    ),
    setting(
        crate::table::STAR_TREE_SETTING,
        "on",
        Kind::Bool,
        "Whether star-trees answer instead of rows; off to compare.",
    ),
    setting(
        crate::subscription::CHANGES_SETTING,
        "on",
        Kind::Bool,
        "Whether subscriptions look at changed rows alone where that tells what changed; off to compare.",
    ),
    setting("search_path", "\"$user\", public", Kind::Text, "Schemas that names are looked up in."),
    reported("server_encoding", "UTF8", Kind::ReadOnly, "Always UTF8."),
    reported(
        "server_version",
        crate::functions::session::SERVER_VERSION,
        Kind::ReadOnly,
        "PostgreSQL version followed.",
    ),
    setting("server_version_num", "150000", Kind::ReadOnly, "PostgreSQL version followed, as a number."),
    reported("session_authorization", "", Kind::ReadOnly, "The user."),
    setting(
        "default_text_search_config",
        "pg_catalog.simple",
        Kind::OneOf(&["simple", "pg_catalog.simple"]),
        "How words are read from texts.",
    ),
    reported("standard_conforming_strings", "on", Kind::OneOf(&["on"]), "Backslash is plain in '…'."),
    setting("statement_timeout", "0", Kind::Duration, "Ends statements that run longer; 0 is never."),
    setting("synchronous_commit", "on", Kind::Text, "Rows are durable when INSERT returns."),
    setting("synchronize_seqscans", "on", Kind::Bool, "Taken for compatibility."),
    reported("TimeZone", "UTC", Kind::TimeZone, "Zone that timestamptz is read and written in."),
    setting("transaction_isolation", "read committed", Kind::OneOf(LEVELS), "Each statement sees one snapshot."),
    setting("transaction_read_only", "off", Kind::Bool, "Whether INSERT, COPY FROM and definitions are refused."),
    setting("work_mem", "4MB", Kind::Text, "Taken for compatibility; query.memory is the limit."),
    setting("xmloption", "content", Kind::Text, "Taken for compatibility."),
];

/// How stale tables may be that a query reads.
const MAX_STALENESS: &str = "rt.max_staleness";

fn find(name: &str) -> Option<&'static Setting> {
    let name = match name.to_lowercase().as_str() {
        "timezone" | "time zone" | "time.zone" => "timezone".to_owned(),
        "names" => "client_encoding".to_owned(),
        other => other.to_owned(),
    };
    SETTINGS.iter().find(|setting| setting.name.to_lowercase() == name)
}

/// The settings of one session, with what SET LOCAL and a failed transaction take back.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What RESET goes back to, where it is not the built-in default: start-up options, the user.
    initial: BTreeMap<String, String>,
    values: BTreeMap<String, String>,
    /// Values to go back to at the end of the transaction (`None`: the default).
    local: BTreeMap<String, Option<String>>,
    /// Rises with every change.
    version: u64,
}

impl Settings {
    pub(crate) fn new(user: &str) -> Self {
        let initial = BTreeMap::from([("session_authorization".to_owned(), user.to_owned())]);
        Self { initial, values: BTreeMap::new(), local: BTreeMap::new(), version: 0 }
    }

    /// A value from the start-up packet: RESET goes back to it.
    pub(crate) fn set_initial(&mut self, name: &str, value: &str) -> Result<(), SqlError> {
        let (key, value) = checked(name, value)?;
        self.initial.insert(key, value);
        self.version += 1;
        Ok(())
    }

    /// Sets `name`; `local` lasts until [`Settings::end_transaction`].
    pub fn set(&mut self, name: &str, value: &str, local: bool) -> Result<(), SqlError> {
        let (key, value) = checked(name, value)?;
        if local {
            let before = self.values.get(&key).cloned();
            self.local.entry(key.clone()).or_insert(before);
        } else {
            self.local.remove(&key);
        }
        self.values.insert(key, value);
        self.version += 1;
        Ok(())
    }

    /// Back to the value the session began with.
    pub fn reset(&mut self, name: &str) -> Result<(), SqlError> {
        let key = match find(name) {
            Some(setting) => setting.name.to_owned(),
            None if is_foreign(name) => name.to_lowercase(),
            None => return Err(unknown(name)),
        };
        self.values.remove(&key);
        self.local.remove(&key);
        self.version += 1;
        Ok(())
    }

    pub fn reset_all(&mut self) {
        self.values.clear();
        self.local.clear();
        self.version += 1;
    }

    /// Takes back what SET LOCAL changed.
    pub fn end_transaction(&mut self) {
        for (key, before) in std::mem::take(&mut self.local) {
            match before {
                Some(value) => self.values.insert(key, value),
                None => self.values.remove(&key),
            };
            self.version += 1;
        }
    }

    /// The value as SHOW shows it.
    pub fn show(&self, name: &str) -> Result<String, SqlError> {
        match find(name) {
            Some(setting) => Ok(self.value(setting.name).unwrap_or(setting.default).to_owned()),
            None => self.value(&name.to_lowercase()).map(str::to_owned).ok_or_else(|| unknown(name)),
        }
    }

    /// Name as PostgreSQL writes it, value, description; in the order of names.
    pub fn all(&self) -> Vec<(String, String, &'static str)> {
        SETTINGS
            .iter()
            .map(|setting| {
                let value = self.value(setting.name).unwrap_or(setting.default);
                (setting.name.to_owned(), value.to_owned(), setting.about)
            })
            .collect()
    }

    /// What the client is told of: at start-up, and when it changes.
    pub fn reported(&self) -> Vec<(&'static str, String)> {
        SETTINGS
            .iter()
            .filter(|setting| setting.reported)
            .map(|setting| (setting.name, self.value(setting.name).unwrap_or(setting.default).to_owned()))
            .collect()
    }

    /// The canonical name (`TimeZone` for `timezone`).
    pub fn canonical_name(name: &str) -> Option<&'static str> {
        find(name).map(|setting| setting.name)
    }

    /// Schemas to look names up in, `pg_catalog` first as PostgreSQL has it.
    pub fn search_path(&self) -> Vec<String> {
        let value = self.value("search_path").unwrap_or("\"$user\", public");
        let mut path: Vec<String> = value
            .split(',')
            .map(|part| part.trim().trim_matches(['"', '\'']).to_owned())
            .filter(|part| !part.is_empty() && part != "$user")
            .collect();
        if !path.iter().any(|schema| schema == "pg_catalog") {
            path.insert(0, "pg_catalog".to_owned());
        }
        path
    }

    /// Of a setting that is on or off.
    pub(crate) fn is_on(&self, name: &str) -> bool {
        self.show(name).is_ok_and(|value| value == "on")
    }

    pub fn time_zone(&self) -> &str {
        self.value("TimeZone").unwrap_or("UTC")
    }

    /// `None` when there is no limit.
    pub fn statement_timeout_ms(&self) -> Option<u64> {
        self.value("statement_timeout").and_then(|value| duration_ms(value).ok()).filter(|ms| *ms > 0)
    }

    /// How stale tables may be; `None` when it does not matter.
    pub fn max_staleness_ms(&self) -> Option<u64> {
        self.value(MAX_STALENESS).and_then(|value| duration_ms(value).ok()).filter(|ms| *ms > 0)
    }

    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    fn value(&self, key: &str) -> Option<&str> {
        let own = self.values.get(key).or_else(|| self.initial.get(key)).map(String::as_str);
        own.or_else(|| match key {
            "transaction_isolation" => self.value("default_transaction_isolation"),
            "transaction_read_only" => self.value("default_transaction_read_only"),
            _ => None,
        })
    }
}

fn unknown(name: &str) -> SqlError {
    SqlError::new("42704", format!("unrecognized configuration parameter \"{name}\""))
}

/// A setting of a family that is not ours, which clients keep for themselves.
fn is_foreign(name: &str) -> bool {
    name.split_once('.').is_some_and(|(family, _)| !family.eq_ignore_ascii_case("rt"))
}

/// The canonical name and the value as it is kept.
fn checked(name: &str, value: &str) -> Result<(String, String), SqlError> {
    let Some(setting) = find(name) else {
        return match is_foreign(name) {
            true => Ok((name.to_lowercase(), value.to_owned())),
            false => {
                let error = unknown(name);
                Err(match crate::error::nearest(name, SETTINGS.iter().map(|setting| setting.name)) {
                    Some(near) => error.with_hint(format!("Perhaps you meant \"{near}\".")),
                    None => error,
                })
            }
        };
    };
    let invalid =
        || SqlError::invalid_parameter(format!("invalid value for parameter \"{}\": \"{value}\"", setting.name));
    let kept = match setting.kind {
        Kind::Text if setting.name == "DateStyle" => date_style(value).ok_or_else(invalid)?,
        Kind::Text => value.to_owned(),
        Kind::Bool => match value.to_lowercase().as_str() {
            "on" | "true" | "yes" | "1" | "t" | "y" => "on".to_owned(),
            "off" | "false" | "no" | "0" | "f" | "n" => "off".to_owned(),
            _ => {
                return Err(SqlError::invalid_parameter(format!(
                    "parameter \"{}\" requires a Boolean value",
                    setting.name
                )));
            }
        },
        Kind::Duration => {
            // Units of our own settings may be written out.
            let value = if setting.name.starts_with("rt.") { short_unit(value) } else { value.to_owned() };
            let ms = duration_ms(&value).map_err(|()| invalid())?;
            written_duration(ms)
        }
        Kind::Int { min, max } => {
            let number: i64 = value.trim().parse().map_err(|_| invalid())?;
            if number < min || number > max {
                return Err(SqlError::invalid_parameter(format!(
                    "{number} is outside the valid range for parameter \"{}\" ({min} .. {max})",
                    setting.name
                )));
            }
            number.to_string()
        }
        Kind::OneOf(known) => {
            // PostgreSQL looks at nothing but letters and digits of an encoding's name: asyncpg sends 'utf-8' with its quotes.
            let lower: String = match setting.name {
                "client_encoding" => value.to_lowercase().chars().filter(char::is_ascii_alphanumeric).collect(),
                _ => value.to_lowercase(),
            };
            if !known.contains(&lower.as_str()) {
                return Err(invalid().with_hint(format!("Available values: {}.", known.join(", "))));
            }
            if setting.name == "client_encoding" { "UTF8".to_owned() } else { lower }
        }
        Kind::TimeZone => time_zone(value).ok_or_else(invalid)?,
        Kind::ReadOnly => {
            return Err(SqlError::new("55P02", format!("parameter \"{}\" cannot be changed", setting.name)));
        }
    };
    Ok((setting.name.to_owned(), kept))
}

/// "ISO", "ISO, DMY" and the like; other output styles are refused.
fn date_style(value: &str) -> Option<String> {
    let mut order = "MDY";
    for part in value.split(',').map(|part| part.trim().to_lowercase()) {
        match part.as_str() {
            "iso" | "default" => {}
            "mdy" | "us" => order = "MDY",
            "dmy" | "european" | "euro" => order = "DMY",
            "ymd" => order = "YMD",
            _ => return None,
        }
    }
    Some(format!("ISO, {order}"))
}

/// The zone's name as the tz database writes it, or "+hh:mm" east of Greenwich.
fn time_zone(value: &str) -> Option<String> {
    let value = value.trim().trim_matches('\'');
    match value.to_lowercase().as_str() {
        "utc" | "gmt" | "z" | "zulu" | "default" | "local" | "etc/utc" => return Some("UTC".to_owned()),
        _ => {}
    }
    if let Ok(zone) = value.parse::<chrono_tz::Tz>() {
        return Some(zone.name().to_owned());
    }
    if let Some(zone) = chrono_tz::TZ_VARIANTS.iter().find(|zone| zone.name().eq_ignore_ascii_case(value)) {
        return Some(zone.name().to_owned());
    }
    // SET TIME ZONE -7 means hours east of Greenwich; POSIX's "UTC+3" and "+05:30" count west, as in PostgreSQL.
    let (text, sign) = match value.to_uppercase() {
        upper if upper.starts_with("UTC") || upper.starts_with("GMT") => (value[3..].to_owned(), -1),
        _ if value.contains(':') => (value.to_owned(), -1),
        _ => (value.to_owned(), 1),
    };
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(&text)),
    };
    let (hours, minutes) = match digits.split_once(':') {
        Some((hours, minutes)) => (hours.parse::<i32>().ok()?, minutes.parse::<i32>().ok()?),
        None => {
            let hours: f64 = digits.parse().ok()?;
            (hours.trunc() as i32, (hours.fract() * 60.0).round() as i32)
        }
    };
    if !(0..=15).contains(&hours) || !(0..60).contains(&minutes) {
        return None;
    }
    let east = sign * if negative { -(hours * 60 + minutes) } else { hours * 60 + minutes };
    let mark = if east < 0 { '-' } else { '+' };
    Some(format!("{mark}{:02}:{:02}", east.abs() / 60, east.abs() % 60))
}

/// `5 seconds` as `5 s`.
fn short_unit(value: &str) -> String {
    let value = value.trim();
    let split = value.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(value.len());
    let unit = match value[split..].to_lowercase().trim_end_matches('s') {
        "millisecond" => "ms",
        "second" | "sec" => "s",
        "minute" => "min",
        "hour" => "h",
        "day" => "d",
        _ => return value.to_owned(),
    };
    format!("{}{unit}", &value[..split])
}

fn duration_ms(value: &str) -> Result<u64, ()> {
    let value = value.trim();
    let digits = value.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(value.len());
    let number: f64 = value[..digits].parse().map_err(|_| ())?;
    let unit = match value[digits..].trim() {
        "" | "ms" => 1.0,
        "us" => 0.001,
        "s" => 1000.0,
        "min" => 60_000.0,
        "h" => 3_600_000.0,
        "d" => 86_400_000.0,
        _ => return Err(()),
    };
    let ms = number * unit;
    if ms > f64::from(i32::MAX) { Err(()) } else { Ok(ms.round() as u64) }
}

/// In the largest unit that divides it, as SHOW has it.
fn written_duration(ms: u64) -> String {
    match ms {
        0 => "0".to_owned(),
        ms if ms % 86_400_000 == 0 => format!("{}d", ms / 86_400_000),
        ms if ms % 3_600_000 == 0 => format!("{}h", ms / 3_600_000),
        ms if ms % 60_000 == 0 => format!("{}min", ms / 60_000),
        ms if ms % 1000 == 0 => format!("{}s", ms / 1000),
        ms => format!("{ms}ms"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn set_local_is_taken_back_and_reset_goes_to_the_start() {
        let mut settings = Settings::new("ann");
        settings.set_initial("TimeZone", "europe/berlin").unwrap();
        settings.set("timezone", "America/New_York", true).unwrap();
        assert_eq!(settings.time_zone(), "America/New_York");
        settings.end_transaction();
        assert_eq!(settings.time_zone(), "Europe/Berlin");
        settings.set("TIMEZONE", "+05:30", false).unwrap();
        assert_eq!(settings.time_zone(), "-05:30");
        settings.set("TIMEZONE", "5.5", false).unwrap();
        assert_eq!(settings.time_zone(), "+05:30");
        settings.reset_all();
        assert_eq!(settings.show("TimeZone").unwrap(), "Europe/Berlin");
    }

    #[test]
    fn durations_have_units() {
        let mut settings = Settings::new("ann");
        assert_eq!(settings.statement_timeout_ms(), None);
        for (given, shown, ms) in [("400", "400ms", 400), ("2s", "2s", 2000), ("1min", "1min", 60_000)] {
            settings.set("statement_timeout", given, false).unwrap();
            assert_eq!(settings.show("statement_timeout").unwrap(), shown);
            assert_eq!(settings.statement_timeout_ms(), Some(ms));
        }
        assert_eq!(settings.set("statement_timeout", "soon", false).unwrap_err().sqlstate, "22023");
    }

    #[test]
    fn unknown_settings_are_refused_and_foreign_families_kept() {
        let mut settings = Settings::new("ann");
        let error = settings.set("statement_timeoot", "1", false).unwrap_err();
        assert_eq!(error.sqlstate, "42704");
        assert!(error.hint.unwrap().contains("statement_timeout"));
        settings.set("myapp.tenant", "7", false).unwrap();
        assert_eq!(settings.show("myapp.tenant").unwrap(), "7");
        // One of ours that is none: it was kept, and did nothing.
        settings.set("rt.max_staleness", "5 seconds", false).unwrap();
        assert_eq!(
            (settings.show("rt.max_staleness").unwrap().as_str(), settings.max_staleness_ms()),
            ("5s", Some(5000))
        );
        settings.set("rt.max_staleness", "250ms", false).unwrap();
        assert_eq!(settings.max_staleness_ms(), Some(250));
        settings.set("rt.max_staleness", "0", false).unwrap();
        assert_eq!(settings.max_staleness_ms(), None);
        assert_eq!(settings.set("rt.max_staleness", "soon", false).unwrap_err().sqlstate, "22023");
        assert_eq!(settings.set("statement_timeout", "5 seconds", false).unwrap_err().sqlstate, "22023");
        assert_eq!(settings.set("rt.max_stalenes", "1s", false).unwrap_err().sqlstate, "42704");
        assert_eq!(settings.reset("rt.nothing").unwrap_err().sqlstate, "42704");
        assert!(settings.set("server_encoding", "LATIN1", false).is_err());
    }
}
