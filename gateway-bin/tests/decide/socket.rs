//! Where a processor listens.
use std::{fs, os::unix::fs::PermissionsExt as _, os::unix::net::UnixListener, sync::Arc, time::SystemTime};

use agentic_gateway::{
    cli::ProcessorAddress,
    tls::{ExtraRoots, IdentityFiles, sidecar_config},
};
use rustls::pki_types::ServerName;
use spiffe_id::SvidRequest;
use tokio::{io::AsyncReadExt as _, net::TcpStream};
use tokio_rustls::TlsConnector;

use crate::support::{AGENT, HOUR, OTHER, World, ca, folder, start};

#[tokio::test]
async fn the_socket_is_there_while_it_is_served() {
    let ca = ca("cluster.local");
    let dir = folder(&ca);
    let path = World::socket_in(&dir);
    let listen = format!("unix:{}", path.display());
    // What a process left that was killed.
    drop(UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    let processor = start(&dir, &listen, &[]).await.unwrap();
    assert_eq!(*processor.address(), ProcessorAddress::Socket(path.clone()));
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
    let names: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names.len(), 4, "nothing else is left: {names:?}");

    let error = start(&dir, &listen, &[]).await.unwrap_err().to_string();
    assert!(error.contains("another process serves it"), "{error}");
    assert!(path.exists());
    assert!(processor.shutdown().await);
    assert!(!path.exists());
}

#[tokio::test]
async fn places_that_cannot_be() {
    let ca = ca("cluster.local");
    let dir = folder(&ca);
    let file = dir.path().join("file");
    fs::write(&file, "precious").unwrap();
    let cases = [
        (format!("unix:{}/none/x.sock", dir.path().display()), "does not exist; create it first"),
        (format!("unix:{}", file.display()), "there is a file that is no socket"),
        ("127.0.0.1:0".to_owned(), "--client-id"),
    ];
    for (listen, expected) in cases {
        let error = start(&dir, &listen, &[]).await.unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    assert_eq!(fs::read_to_string(&file).unwrap(), "precious");
}

#[tokio::test]
async fn over_tcp_only_the_named_are_served() {
    let ca = ca("cluster.local");
    let dir = folder(&ca);
    let processor = start(&dir, "127.0.0.1:0", &["--client-id", AGENT]).await.unwrap();
    let ProcessorAddress::Tcp(address) = *processor.address() else { panic!("{processor:?}") };
    let now = SystemTime::now();
    for (id, served) in [(AGENT, true), (OTHER, false)] {
        let svid = ca.issue(&SvidRequest::new(&id.parse().unwrap(), now - HOUR, now + HOUR)).unwrap();
        let own = tempfile::tempdir().unwrap();
        fs::write(own.path().join("credential-bundle.pem"), svid.credential_bundle_pem().unwrap()).unwrap();
        fs::write(own.path().join("cluster.local.trust-bundle.pem"), ca.roots_pem()).unwrap();
        let files = IdentityFiles { dir: Some(own.path().to_owned()), bundles: Vec::new() };
        let server = "spiffe://cluster.local/ns/ns/sa/gw".parse().unwrap();
        let roots = ExtraRoots::read(&[]).unwrap();
        let config = sidecar_config(&files.read().unwrap(), Some(&server), &roots).unwrap();
        let stream = TcpStream::connect(address).await.unwrap();
        let name = ServerName::try_from("processor").unwrap();
        let mut stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap();
        // HTTP/2's server speaks first; whoever is not served is told nothing.
        let mut settings = [0; 9];
        let read = tokio::time::timeout(HOUR / 180, stream.read(&mut settings)).await.unwrap();
        assert_eq!(matches!(read, Ok(1..)), served, "{id}");
    }
}
