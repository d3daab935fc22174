//! Who reads and writes messages of a subject.

use std::{
    net::{IpAddr, SocketAddr, ToSocketAddrs, UdpSocket},
    sync::Arc,
};

use tidemill_ingest::{
    decode::{Format, RegistryAddress, SchemaSource},
    sink::{SinkFormat, SinkOptions},
    source::{ConnectorOptions, SourceOptions},
};

use crate::{
    catalog::{
        Definitions,
        definition::{SinkDefinition, SourceDefinition},
    },
    server::{instance::Instance, live},
};

/// Where the registry is below the server's address.
const PATH: &str = "/api/v1/schemas";

/// Sources that read messages of a subject, and sinks whose schema is registered under it.
#[derive(Debug, Default)]
pub struct Users {
    pub sources: Vec<Arc<SourceDefinition>>,
    pub sinks: Vec<Arc<SinkDefinition>>,
}

impl Users {
    /// Blocks where the name of a host has to be asked for.
    pub fn of(instance: &Instance, definitions: &Definitions, subject: &str) -> Self {
        let listen = instance.config.http_listen;
        let reads = |source: &&Arc<SourceDefinition>| {
            live::source_options(source).is_ok_and(|(options, _)| is_of(&options, subject, listen))
        };
        let writes = |sink: &&Arc<SinkDefinition>| {
            let format = SinkOptions::parse(&sink.options).map(|options| options.shape.format);
            match format {
                Ok(SinkFormat::Avro(to) | SinkFormat::Protobuf(to)) => {
                    to.subject == subject && is_ours(&to.address, listen)
                }
                _ => false,
            }
        };
        Self {
            sources: definitions.sources.values().filter(reads).cloned().collect(),
            sinks: definitions.sinks.values().filter(writes).cloned().collect(),
        }
    }

    /// Kind and name of each.
    pub fn names(&self) -> Vec<String> {
        let sources = self.sources.iter().map(|source| format!("source \"{}\" reads it", source.name));
        sources.chain(self.sinks.iter().map(|sink| format!("sink \"{}\" writes it", sink.name))).collect()
    }
}

/// A source says whose messages it reads, or asks this server for their schemas: then they are called after the topic.
fn is_of(options: &SourceOptions, subject: &str, listen: SocketAddr) -> bool {
    if let Some(said) = &options.subject {
        return said == subject;
    }
    let topic = match &options.connector {
        ConnectorOptions::Kafka(kafka) => &kafka.topic,
        _ => return false,
    };
    let address = match &options.format {
        Some(Format::Avro { schema: SchemaSource::Registry(address), .. }) => address,
        Some(Format::Protobuf { schema: SchemaSource::Registry(address), .. }) => address,
        _ => return false,
    };
    subject.strip_suffix("-value") == Some(topic) && is_ours(address, listen)
}

/// Whether an address is that of this server's registry.
fn is_ours(address: &RegistryAddress, listen: SocketAddr) -> bool {
    let (host, port, path) = address.place();
    if port != listen.port() || path != PATH {
        return false;
    }
    match host.parse::<IpAddr>() {
        Ok(ip) => is_here(ip),
        Err(_) if host.eq_ignore_ascii_case("localhost") => true,
        Err(_) => (host, port).to_socket_addrs().is_ok_and(|mut all| all.any(|address| is_here(address.ip()))),
    }
}

/// Only addresses of this machine can be listened at.
fn is_here(ip: IpAddr) -> bool {
    ip.is_loopback() || UdpSocket::bind((ip, 0)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_address_has_several_names() {
        let listen: SocketAddr = "127.0.0.1:8433".parse().unwrap();
        let is_ours = |url: &str| super::is_ours(&RegistryAddress::parse(url, None).unwrap(), listen);
        assert!(is_ours("http://127.0.0.1:8433/api/v1/schemas") && is_ours("http://localhost:8433/api/v1/schemas/"));
        assert!(is_ours("http://u:p@[::1]:8433/api/v1/schemas"));
        for other in
            ["http://127.0.0.1:8434/api/v1/schemas", "http://127.0.0.1:8433", "http://192.0.2.1:8433/api/v1/schemas"]
        {
            assert!(!is_ours(other), "{other}");
        }
    }
}
