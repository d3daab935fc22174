//! SCRAM-SHA-256 and TLS.

use std::{fs, sync::Arc};

use super::fixture::{Fixture, run, sqlstate, text};
use tempfile::TempDir;
use tidemill::pgwire::{
    scram::Verifier,
    server::{Config, TlsFiles},
};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

fn users() -> Vec<(String, String)> {
    vec![("tester".to_owned(), Verifier::from_password("s3cret pässword").unwrap().to_text())]
}

#[test]
fn passwords_are_checked() {
    run(async {
        let fixture = Fixture::with(Config { users: users(), ..Config::default() }).await;
        let client = fixture.try_connect("password='s3cret pässword'").await.unwrap();
        assert_eq!(text(&client, "SELECT 1").await, ["1"]);
        assert_eq!(sqlstate(fixture.try_connect("password=wrong").await), "28P01");
        assert_eq!(sqlstate(fixture.try_connect("user=ghost password='s3cret pässword'").await), "28P01");
        assert!(fixture.try_connect("").await.is_err(), "no password at all");
        // Two at once: nothing is shared between exchanges.
        let (a, b) = tokio::join!(
            fixture.try_connect("password='s3cret pässword'"),
            fixture.try_connect("password='s3cret pässword'"),
        );
        assert!(a.is_ok() && b.is_ok());
        fixture.stop().await;
    });
}

fn certificate(folder: &TempDir) -> (TlsFiles, rustls::pki_types::CertificateDer<'static>) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let files = TlsFiles { certificate: folder.path().join("cert.pem"), key: folder.path().join("key.pem") };
    fs::write(&files.certificate, made.cert.pem()).unwrap();
    fs::write(&files.key, made.signing_key.serialize_pem()).unwrap();
    (files, made.cert.der().clone())
}

#[test]
fn tls_carries_sessions_and_can_be_required() {
    run(async {
        let folder = TempDir::new().unwrap();
        let (files, trusted) = certificate(&folder);
        let config = Config { tls: Some(files), require_tls: true, users: users() };
        let fixture = Fixture::with(config).await;
        assert_eq!(sqlstate(fixture.try_connect("password='s3cret pässword' sslmode=disable").await), "28000");
        let mut roots = rustls::RootCertStore::empty();
        roots.add(trusted).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        // As libpq does it: ask, then shake hands.
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let mut socket = TcpStream::connect(fixture.address).await.unwrap();
        socket.write_all(b"\0\0\0\x08\x04\xd2\x16\x2f").await.unwrap();
        assert_eq!(socket.read_u8().await.unwrap(), b'S');
        let stream = TlsConnector::from(Arc::new(tls)).connect("localhost".try_into().unwrap(), socket).await.unwrap();
        let mut config = tokio_postgres::Config::new();
        config.user("tester").password("s3cret pässword").ssl_mode(tokio_postgres::config::SslMode::Disable);
        let (client, connection) = config.connect_raw(stream, tokio_postgres::NoTls).await.unwrap();
        tokio::spawn(connection);
        assert_eq!(text(&client, "SELECT 'over TLS'").await, ["over TLS"]);
        drop(client);
        fixture.stop().await;
    });
}

#[test]
fn a_bad_certificate_fails_the_start() {
    run(async {
        let folder = TempDir::new().unwrap();
        let (files, _) = certificate(&folder);
        fs::write(&files.key, "no key").unwrap();
        let fixture = Fixture::start().await;
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (_stop, stopped) = tokio::sync::watch::channel(false);
        let config = Config { tls: Some(files), ..Config::default() };
        let error =
            tidemill::pgwire::server::serve(listener, Arc::clone(&fixture.shared), config, stopped).await.unwrap_err();
        assert!(error.to_string().contains("key.pem"), "{error}");
        fixture.stop().await;
    });
}
