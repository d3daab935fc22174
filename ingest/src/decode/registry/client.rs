//! What a registry is asked, and what its answers mean.

use std::{collections::HashSet, fmt, time::Duration};

use bytes::Bytes;
use serde::Deserialize;

use crate::{
    Error, Result,
    http::{self, Manner, NoAddress, escaped},
};

/// How a registry is asked: 5 s and 8 MB are enough for any schema.
const MANNER: Manner = Manner {
    accept: "application/vnd.schemaregistry.v1+json, application/json",
    body_bytes_max: 8 << 20,
    timeout: Duration::from_secs(5),
};
const CONTENT_TYPE: &str = "application/vnd.schemaregistry.v1+json";
/// Schemas that one schema may refer to, through others included.
const REFERENCES_MAX: usize = 200;

/// Where a registry is.
#[derive(Clone, PartialEq, Eq)]
pub struct RegistryAddress(http::Address);

impl fmt::Debug for RegistryAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RegistryAddress({self})")
    }
}

impl fmt::Display for RegistryAddress {
    /// Without names and passwords.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl RegistryAddress {
    /// Host, port and path.
    pub fn place(&self) -> (&str, u16, &str) {
        self.0.place()
    }

    /// Reads `http://[user:password@]host[:port][/path]`; `user_info` is `user:password` said elsewhere. `Unsupported` for https.
    pub fn parse(url: &str, user_info: Option<&str>) -> Result<Self> {
        http::Address::parse(url, user_info).map(Self).map_err(|wrong| match wrong {
            NoAddress::Https => Error::Unsupported {
                message: "a schema registry over https is not supported".into(),
                hint: Some("use http:// in a network that you trust, or through a TLS proxy beside the server".into()),
            },
            NoAddress::Malformed => Error::Definition {
                message: "option 'schema_registry' is no address of a registry".to_owned(),
                hint: Some("it takes http://host:port/path".into()),
            },
            NoAddress::TwoUsers => Error::Definition {
                message: "the registry's user and password are given twice".into(),
                hint: Some("give them in the URL or as the option".into()),
            },
        })
    }
}

/// The language of a schema.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Avro,
    Protobuf,
    Other(String),
}

impl Kind {
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Avro => "Avro",
            Self::Protobuf => "Protobuf",
            Self::Other(name) => name,
        }
    }

    fn registry_name(&self) -> &str {
        match self {
            Self::Avro => "AVRO",
            Self::Protobuf => "PROTOBUF",
            Self::Other(name) => name,
        }
    }
}

/// A schema and those that it refers to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Registered {
    pub(crate) kind: Kind,
    pub(crate) text: String,
    /// Name and text; what others refer to comes before them.
    pub(crate) references: Vec<(String, String)>,
}

impl Registered {
    pub(crate) fn is_avro(&self) -> bool {
        self.kind == Kind::Avro
    }

    pub(crate) fn is_protobuf(&self) -> bool {
        self.kind == Kind::Protobuf
    }
}

#[derive(Debug, Deserialize)]
struct Answer {
    schema: String,
    #[serde(rename = "schemaType")]
    schema_type: Option<String>,
    #[serde(default)]
    references: Vec<Reference>,
}

#[derive(Debug, Deserialize)]
struct Reference {
    name: String,
    subject: String,
    version: i64,
}

#[derive(Debug, Deserialize)]
struct Given {
    id: u32,
}

#[derive(Debug, Deserialize)]
struct Refusal {
    error_code: i64,
    #[serde(default)]
    message: String,
}

#[derive(Debug)]
pub(crate) struct Client {
    address: RegistryAddress,
}

impl Client {
    pub(crate) fn new(address: RegistryAddress) -> Self {
        Self { address }
    }

    /// The schema of an id, or why there is none. `Unavailable` when the registry does not answer as one. Blocks.
    pub(crate) fn schema(&self, id: u32) -> Result<Result<Registered, String>> {
        let answer = match self.ask(&format!("/schemas/ids/{id}"))? {
            Ok(answer) => answer,
            Err(reason) => {
                return Ok(Err(format!("the schema registry {} has no schema with id {id}: {reason}", self.address)));
            }
        };
        let whole = self.whole(answer)?;
        Ok(whole.map_err(|reason| {
            format!("the schema with id {id} of the registry {} is not whole: {reason}", self.address)
        }))
    }

    /// The newest schema of a subject; `None` when it has none. `Unavailable` as above. Blocks.
    pub(crate) fn latest(&self, subject: &str) -> Result<Option<Registered>> {
        let Ok(answer) = self.ask(&format!("/subjects/{}/versions/latest", escaped(subject)))? else { return Ok(None) };
        let whole = self.whole(answer)?;
        whole.map(Some).map_err(|reason| {
            Error::Unavailable(format!(
                "the newest schema of subject '{subject}' of the registry {} is not whole: {reason}",
                self.address
            ))
        })
    }

    /// Registers a schema under a subject, unless it is there; its id, or why the registry refuses it. `Unavailable` as above. Blocks.
    pub(crate) fn register(&self, subject: &str, kind: &Kind, text: &str) -> Result<Result<u32, String>> {
        let unavailable = |what: String| Error::Unavailable(format!("schema registry {}: {what}", self.address));
        let path = format!("{}/subjects/{}/versions", self.address.0.prefix, escaped(subject));
        let sent = serde_json::json!({ "schema": text, "schemaType": kind.registry_name() });
        let mut client = http::Client::new(self.address.0.clone(), MANNER).map_err(unavailable)?;
        let (status, body) = client.post(&path, CONTENT_TYPE, sent.to_string().into()).map_err(unavailable)?;
        let body = body.ok_or_else(|| unavailable(format!("its answer to {path} has more than 8 MB")))?;
        let refusal = serde_json::from_slice::<Refusal>(&body);
        match (status, refusal) {
            (200, _) => match serde_json::from_slice::<Given>(&body) {
                Ok(given) => Ok(Ok(given.id)),
                Err(error) => Err(unavailable(format!("its answer to {path} is no id: {error}"))),
            },
            // Its own word on the schema, and no proxy's.
            (409 | 422, Ok(refusal)) => Ok(Err(format!("{} (error {})", refusal.message, refusal.error_code))),
            (401 | 403, _) => Err(unavailable(format!(
                "it answers {path} with {status}: user and password (schema_registry.basic_auth.user_info) are missing or wrong"
            ))),
            _ => Err(unavailable(format!("it answers {path} with {status}{}", shown(&body)))),
        }
    }

    /// A schema with those that it refers to, or why they are not there.
    fn whole(&self, answer: Answer) -> Result<Result<Registered, String>> {
        let kind = match answer.schema_type.as_deref() {
            None | Some("AVRO") => Kind::Avro,
            Some("PROTOBUF") => Kind::Protobuf,
            Some(other) => Kind::Other(other.to_owned()),
        };
        let mut references = Vec::new();
        Ok(match self.referenced(&answer.references, &mut references, &mut HashSet::new(), 0)? {
            Ok(()) => Ok(Registered { kind, text: answer.schema, references }),
            Err(reason) => Err(reason),
        })
    }

    /// Fetches what a schema refers to, depth first.
    fn referenced(
        &self,
        wanted: &[Reference],
        found: &mut Vec<(String, String)>,
        seen: &mut HashSet<String>,
        depth: usize,
    ) -> Result<Result<(), String>> {
        for reference in wanted {
            if !seen.insert(reference.name.clone()) {
                continue;
            }
            if seen.len() > REFERENCES_MAX || depth > REFERENCES_MAX {
                return Ok(Err(format!("it refers to more than {REFERENCES_MAX} schemas")));
            }
            let path = format!("/subjects/{}/versions/{}", escaped(&reference.subject), reference.version);
            let answer = match self.ask(&path)? {
                Ok(answer) => answer,
                Err(reason) => {
                    let Reference { subject, version, .. } = reference;
                    return Ok(Err(format!("it refers to version {version} of subject {subject}: {reason}")));
                }
            };
            if let Err(reason) = self.referenced(&answer.references, found, seen, depth + 1)? {
                return Ok(Err(reason));
            }
            found.push((reference.name.clone(), answer.schema));
        }
        Ok(Ok(()))
    }

    /// The answer, or the registry's word that there is nothing.
    fn ask(&self, path: &str) -> Result<Result<Answer, String>> {
        let unavailable = |what: String| Error::Unavailable(format!("schema registry {}: {what}", self.address));
        let path = format!("{}{path}", self.address.0.prefix);
        let mut client = http::Client::new(self.address.0.clone(), MANNER).map_err(unavailable)?;
        let (status, body) = client.get(&path).map_err(unavailable)?;
        let body = body.ok_or_else(|| unavailable(format!("its answer to {path} has more than 8 MB")))?;
        match status {
            200 => match serde_json::from_slice(&body) {
                Ok(answer) => Ok(Ok(answer)),
                Err(error) => Err(unavailable(format!("its answer to {path} is no schema: {error}"))),
            },
            // Only a registry's own word counts: a proxy or another server on the port may say 404 to everything.
            404 => match serde_json::from_slice::<Refusal>(&body) {
                Ok(refusal) => Ok(Err(format!("{} (error {})", refusal.message, refusal.error_code))),
                Err(_) => Err(unavailable(format!("it answers {path} with 404, but not as a schema registry does"))),
            },
            401 | 403 => Err(unavailable(format!(
                "it answers {path} with {status}: user and password (schema_registry.basic_auth.user_info) are missing or wrong"
            ))),
            _ => Err(unavailable(format!("it answers {path} with {status}{}", shown(&body)))),
        }
    }
}

/// The beginning of an answer that is an error.
fn shown(body: &Bytes) -> String {
    let text: String = String::from_utf8_lossy(body).chars().filter(|c| !c.is_control()).take(200).collect();
    if text.is_empty() { text } else { format!(": {text}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_addresses() {
        let read = |url: &str| {
            RegistryAddress::parse(url, None).map(|address| {
                let (host, port, prefix, _) = address.0.parts();
                (host.to_owned(), port, prefix.to_owned())
            })
        };
        let of = |host: &str, port, prefix: &str| Some((host.to_owned(), port, prefix.to_owned()));
        assert_eq!(read("http://registry:8081").ok(), of("registry", 8081, ""));
        assert_eq!(read(" HTTP://registry/ ").ok(), of("registry", 80, ""));
        assert_eq!(read("http://[::1]:8081/apis/ccompat/v7/").ok(), of("::1", 8081, "/apis/ccompat/v7"));
        assert_eq!(read("http://[::1]").ok(), of("::1", 80, ""));
        assert_eq!(read("http://u:p@ss@registry:1").ok(), of("registry", 1, ""));
        for bad in [
            "",
            "registry:8081",
            "http://",
            "http://:80",
            "http://a:b",
            "http://a:99999",
            "http://a b",
            "ftp://a",
            "http://a/?x",
            "http://a/\r\nX: y",
        ] {
            assert!(matches!(read(bad), Err(Error::Definition { .. })), "{bad}");
        }
        assert!(matches!(read("https://registry:8081"), Err(Error::Unsupported { .. })));
    }

    #[test]
    fn passwords_are_sent_and_not_shown() {
        let address = RegistryAddress::parse("http://u:p@registry:1", None).unwrap();
        assert_eq!(address.0.parts().3, Some("Basic dTpw"));
        assert_eq!(RegistryAddress::parse("http://registry:1", Some("u:p")).unwrap(), address);
        assert_eq!(format!("{address:?}"), "RegistryAddress(http://registry:1)");
        assert!(RegistryAddress::parse("http://u:p@registry:1", Some("u:p")).is_err());
    }
}
