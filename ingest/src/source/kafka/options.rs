//! WITH options of Kafka sources.
//!
//! | option | meaning |
//! |---|---|
//! | `brokers` (or `properties.bootstrap.servers`) | host:port, several with commas; required |
//! | `topic` | required |
//! | `group` (or `properties.group.id`) | consumer group that shows our progress to Kafka's tools; `tidemill-<source>` by default |
//! | `isolation` | `read_committed` (default) or `read_uncommitted` |
//! | `timeout` | how long to wait for a broker's answer: `5s` by default |
//! | `scan.startup.mode` | Flink's word for `start` |
//! | `properties.security.protocol` | `PLAINTEXT` (default) or `SASL_PLAINTEXT` with `properties.sasl.mechanism = 'PLAIN'`, username and password |
//! | `properties.<key>` | any other setting of librdkafka, except those that the connector must hold itself |

use std::{collections::BTreeMap, fmt, time::Duration};

use super::super::{
    Start,
    options::{OptionReader, wrong},
};
use crate::{Error, Result};

/// Settings that exactly-once reading stands on; refused as `properties.…`.
const HELD: [&str; 9] = [
    "enable.auto.commit",
    "enable.auto.offset.store",
    "auto.offset.reset",
    "allow.auto.create.topics",
    "enable.partition.eof",
    "group.protocol",
    "group.instance.id",
    "consume.callback.max.messages",
    "partition.assignment.strategy",
];

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Isolation {
    #[default]
    ReadCommitted,
    ReadUncommitted,
}

impl Isolation {
    pub fn name(self) -> &'static str {
        match self {
            Self::ReadCommitted => "read_committed",
            Self::ReadUncommitted => "read_uncommitted",
        }
    }
}

/// Its `Debug` form has the names of `properties` alone: values may be passwords, and logs and errors are read by many.
#[derive(Clone, PartialEq, Eq)]
pub struct KafkaOptions {
    /// host:port, several with commas.
    pub brokers: String,
    pub topic: String,
    /// `None`: made from the source's name.
    pub group: Option<String>,
    pub isolation: Isolation,
    /// How long a call waits for a broker's answer.
    pub timeout: Duration,
    /// Handed to librdkafka as they are.
    pub properties: BTreeMap<String, String>,
}

/// Brokers and topic, as sources and sinks name them.
pub(crate) fn take_topic(
    options: &mut OptionReader,
    properties: &mut BTreeMap<String, String>,
) -> Result<(String, String)> {
    let brokers = match properties.remove("bootstrap.servers") {
        Some(brokers) => match options.text("brokers") {
            Some(_) => return Err(twice("brokers", "properties.bootstrap.servers")),
            None => brokers,
        },
        None => options.required("brokers", "kafka", "host:port of a broker, several with commas between")?,
    };
    let topic = options.required("topic", "kafka", "the name of a topic")?;
    if !is_topic(&topic) {
        let wanted = "one topic: at most 249 letters, digits, dots, underscores and hyphens";
        return Err(wrong("topic", &topic, wanted));
    }
    Ok((brokers, topic))
}

impl fmt::Debug for KafkaOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { brokers, topic, group, isolation, timeout, properties } = self;
        f.debug_struct("KafkaOptions")
            .field("brokers", brokers)
            .field("topic", topic)
            .field("group", group)
            .field("isolation", isolation)
            .field("timeout", timeout)
            .field("properties", &properties.keys())
            .finish()
    }
}

impl KafkaOptions {
    pub(in crate::source) fn take(options: &mut OptionReader) -> Result<Self> {
        let mut properties = options.prefixed("properties.");
        let (brokers, topic) = take_topic(options, &mut properties)?;
        let group = match (options.text("group"), properties.remove("group.id")) {
            (Some(_), Some(_)) => return Err(twice("group", "properties.group.id")),
            (a, b) => a.or(b),
        };
        if group.as_deref().is_some_and(|group| group.trim().is_empty()) {
            return Err(wrong("group", "", "the name of a consumer group"));
        }
        let level = properties.remove("isolation.level");
        let isolation = match options.text("isolation").or(level).as_deref().map(str::to_ascii_lowercase).as_deref() {
            None | Some("read_committed") => Isolation::ReadCommitted,
            Some("read_uncommitted") => Isolation::ReadUncommitted,
            Some(other) => return Err(wrong("isolation", other, "read_committed or read_uncommitted")),
        };
        let timeout = match options.text("timeout") {
            None => Duration::from_secs(5),
            Some(text) => parse_duration(&text)
                .filter(|timeout| (100..=300_000).contains(&timeout.as_millis()))
                .ok_or_else(|| wrong("timeout", &text, "a time between 100ms and 300s, as in 5s"))?,
        };
        if let Some(held) = properties.keys().find(|key| HELD.contains(&key.as_str())) {
            return Err(Error::Definition {
                message: format!("option 'properties.{held}' cannot be set: offsets belong to the source"),
                hint: Some("use 'start' to choose where reading begins".into()),
            });
        }
        check_security(&properties)?;
        Ok(Self { brokers, topic, group, isolation, timeout, properties })
    }
}

/// Whether Kafka lets a topic be called that.
pub(crate) fn is_topic(name: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    !name.is_empty() && name.len() <= 249 && name.bytes().all(is_allowed)
}

/// What of Kafka's security there is: no encryption, and names with passwords (PLAIN). Encryption and SCRAM need OpenSSL inside librdkafka,
/// which this server is built without: all its TLS is rustls.
pub(crate) fn check_security(properties: &BTreeMap<String, String>) -> Result<()> {
    let unsupported = |key: &str, value: &str, hint: &str| {
        Err(Error::Unsupported {
            message: format!("option 'properties.{key}' cannot be '{value}': librdkafka is built without OpenSSL here"),
            hint: Some(hint.into()),
        })
    };
    let get = |key: &str| properties.get(key).map(|value| value.trim().to_ascii_uppercase());
    let protocol = get("security.protocol").unwrap_or_else(|| "PLAINTEXT".into());
    match protocol.as_str() {
        "PLAINTEXT" | "SASL_PLAINTEXT" => {}
        "SSL" | "SASL_SSL" => {
            return unsupported(
                "security.protocol",
                &protocol,
                "read over PLAINTEXT or SASL_PLAINTEXT in a network that you trust, or through a TLS proxy beside the server",
            );
        }
        _ => {
            return Err(wrong("properties.security.protocol", &protocol, "PLAINTEXT or SASL_PLAINTEXT"));
        }
    }
    if let Some(key) =
        properties.keys().find(|key| key.starts_with("ssl.") || *key == "enable.ssl.certificate.verification")
    {
        return unsupported(key, "…", "leave it out: it is for security.protocol = 'SSL' and 'SASL_SSL'");
    }
    let mechanism = get("sasl.mechanism").or_else(|| get("sasl.mechanisms"));
    match mechanism.as_deref() {
        None if protocol == "SASL_PLAINTEXT" => Err(Error::Definition {
            message: "properties.security.protocol = 'SASL_PLAINTEXT' needs 'properties.sasl.mechanism'".into(),
            hint: Some("it takes PLAIN, with properties.sasl.username and properties.sasl.password".into()),
        }),
        None => Ok(()),
        Some("PLAIN") => {
            match ["sasl.username", "sasl.password"].into_iter().find(|key| !properties.contains_key(*key)) {
                Some(missing) if protocol == "SASL_PLAINTEXT" => Err(Error::Definition {
                    message: format!("properties.sasl.mechanism = 'PLAIN' needs 'properties.{missing}'"),
                    hint: None,
                }),
                _ => Ok(()),
            }
        }
        Some(other) => unsupported("sasl.mechanism", other, "it takes PLAIN"),
    }
}

/// `start` of Flink's options, where they are used instead.
pub(in crate::source) fn flink_start(options: &mut OptionReader) -> Result<Option<Start>> {
    let Some(mode) = options.text("scan.startup.mode") else { return Ok(None) };
    let wanted = "earliest-offset, latest-offset, group-offsets, timestamp or specific-offsets";
    let text = match mode.as_str() {
        "timestamp" => format!(
            "timestamp:{}",
            options.required("scan.startup.timestamp-millis", "kafka", "milliseconds since 1970")?
        ),
        "specific-offsets" => {
            let list = options.required("scan.startup.specific-offsets", "kafka", "partition:0,offset:42;…")?;
            let list = list.replace("partition:", "").replace(",offset", "").replace(';', ",");
            format!("offsets:{{{list}}}")
        }
        _ => mode.clone(),
    };
    text.parse().map(Some).map_err(|_| wrong("scan.startup.mode", &mode, wanted))
}

fn twice(a: &str, b: &str) -> Error {
    Error::Definition {
        message: format!("options '{a}' and '{b}' say the same thing"),
        hint: Some("give one of them".into()),
    }
}

/// `5s`, `500ms`, `2 minutes`.
pub(crate) fn parse_duration(text: &str) -> Option<Duration> {
    let text = text.trim();
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..split].parse().ok()?;
    let unit_ms = match text[split..].trim() {
        "ms" => 1,
        "s" | "second" | "seconds" => 1000,
        "m" | "min" | "minute" | "minutes" => 60_000,
        _ => return None,
    };
    Some(Duration::from_millis(number.checked_mul(unit_ms)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(pairs: &[(&str, &str)]) -> Result<KafkaOptions> {
        let mut reader = OptionReader::of(pairs);
        let options = KafkaOptions::take(&mut reader)?;
        reader.finish()?;
        Ok(options)
    }

    #[test]
    fn takes_our_spelling_and_flinks() {
        let ours = take(&[("brokers", "a:1,b:2"), ("topic", "t"), ("group", "g")]).unwrap();
        let flinks = take(&[("properties.bootstrap.servers", "a:1,b:2"), ("topic", "t"), ("properties.group.id", "g")]);
        assert_eq!(ours, flinks.unwrap());
        assert_eq!(ours.isolation, Isolation::ReadCommitted);
        assert_eq!(ours.timeout, Duration::from_secs(5));
        let more = take(&[
            ("brokers", "a:1"),
            ("topic", "t"),
            ("isolation", "read_uncommitted"),
            ("timeout", "500ms"),
            ("properties.security.protocol", "plaintext"),
        ])
        .unwrap();
        assert_eq!(more.isolation, Isolation::ReadUncommitted);
        assert_eq!(more.timeout, Duration::from_millis(500));
        assert_eq!(more.properties, BTreeMap::from([("security.protocol".into(), "plaintext".into())]));
    }

    #[test]
    fn reads_flinks_startup_modes() {
        let start = |pairs: &[(&str, &str)]| flink_start(&mut OptionReader::of(pairs)).ok().flatten();
        assert_eq!(start(&[("scan.startup.mode", "latest-offset")]), Some(Start::Latest));
        assert_eq!(start(&[("scan.startup.mode", "group-offsets")]), Some(Start::Committed));
        let at = [("scan.startup.mode", "timestamp"), ("scan.startup.timestamp-millis", "17")];
        assert_eq!(start(&at), Some(Start::TimestampMs(17)));
        let offsets = [
            ("scan.startup.mode", "specific-offsets"),
            ("scan.startup.specific-offsets", "partition:0,offset:42;partition:1,offset:300"),
        ];
        assert_eq!(start(&offsets), Some(Start::Offsets(BTreeMap::from([(0, 42), (1, 300)]))));
        assert_eq!(start(&[("scan.startup.mode", "sometimes")]), None);
    }

    #[test]
    fn tells_which_security_there_is() {
        let with = |more: &[(&str, &str)]| take(&[&[("brokers", "a:1"), ("topic", "t")], more].concat());
        let name = [("properties.sasl.username", "u"), ("properties.sasl.password", "p")];
        let plain = [("properties.security.protocol", "SASL_PLAINTEXT"), ("properties.sasl.mechanism", "PLAIN")];
        assert!(with(&[&plain[..], &name].concat()).is_ok());
        assert!(matches!(with(&plain), Err(Error::Definition { .. })));
        assert!(matches!(with(&plain[..1]), Err(Error::Definition { .. })));
        assert!(matches!(with(&[("properties.security.protocol", "TLS")]), Err(Error::Definition { .. })));
        for (key, value) in [
            ("properties.security.protocol", "ssl"),
            ("properties.security.protocol", "SASL_SSL"),
            ("properties.ssl.ca.location", "/ca.pem"),
            ("properties.sasl.mechanism", "SCRAM-SHA-512"),
            ("properties.sasl.mechanisms", "GSSAPI"),
        ] {
            let Err(Error::Unsupported { message, .. }) = with(&[(key, value)]) else { panic!("{key} = {value}") };
            assert!(message.contains(key.trim_end_matches('s')), "{message}");
        }
    }

    #[test]
    fn refuses() {
        for bad in [
            &[("topic", "t")][..],
            &[("brokers", "a:1")],
            &[("brokers", "a:1"), ("topic", "a,b")],
            &[("brokers", "a:1"), ("topic", "t"), ("properties.bootstrap.servers", "a:1")],
            &[("brokers", "a:1"), ("topic", "t"), ("group", " ")],
            &[("brokers", "a:1"), ("topic", "t"), ("group", "a"), ("properties.group.id", "b")],
            &[("brokers", "a:1"), ("topic", "t"), ("isolation", "serializable")],
            &[("brokers", "a:1"), ("topic", "t"), ("timeout", "soon")],
            &[("brokers", "a:1"), ("topic", "t"), ("timeout", "1ms")],
            &[("brokers", "a:1"), ("topic", "t"), ("properties.enable.auto.commit", "true")],
        ] {
            assert!(matches!(take(bad), Err(Error::Definition { .. })), "{bad:?}");
        }
    }
}
