//! Secured connections, to a server of their own.

use std::path::Path;
use std::process::{Command, Stdio};

use super::super::Postgres;
use crate::store::StoreError;
use crate::store::suite::server::{Server, is_pooled};

/// Makes two authorities, and a certificate of the first for `localhost`; false where there is no `openssl`.
fn certificates(dir: &Path) -> bool {
    let run = |args: &str| {
        let done = Command::new("openssl").args(args.split(' ')).current_dir(dir).stderr(Stdio::null()).status();
        done.is_ok_and(|status| status.success())
    };
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2";
    run(&format!("req -x509 {key} -keyout ca.key -out ca.crt -subj /CN=authority"))
        && run(&format!("req -x509 {key} -keyout other.key -out other.crt -subj /CN=other"))
        && run(&format!(
            "req -x509 {key} -keyout server.key -out server.crt -subj /CN=localhost -CA ca.crt -CAkey ca.key \
            -addext subjectAltName=DNS:localhost -addext basicConstraints=critical,CA:FALSE"
        ))
}

#[tokio::test]
async fn the_name_of_the_server_is_checked() {
    if is_pooled() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    if !certificates(dir.path()) {
        #[expect(clippy::print_stderr, reason = "what does not run is said aloud")]
        {
            eprintln!("not run: secured connections to PostgreSQL; they need openssl");
        }
        return;
    }
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let file = |name: &str| dir.path().join(name).display().to_string();
    let (cert, key) = (format!("ssl_cert_file={}", file("server.crt")), format!("ssl_key_file={}", file("server.key")));
    let Some(_server) = Server::start(&[&port.to_string(), "fsync=off", "ssl=on", &cert, &key]) else { return };
    let open = |host: &str, more: &str| {
        Postgres::open(&format!("postgres://postgres@{host}:{port}/postgres?sslmode=verify-full{more}"))
    };
    let root = format!("&sslrootcert={}", file("ca.crt"));
    open("localhost", &root).unwrap();
    let refused = |opened: Result<Postgres, StoreError>| opened.err().unwrap().to_string();
    let error = refused(open("127.0.0.1", &root));
    assert!(error.contains("not valid for name") && error.contains("; use a name of its certificate"), "{error}");
    let other = format!("&sslrootcert={}", file("other.crt"));
    for root in ["", &other] {
        let error = refused(open("localhost", root));
        assert!(error.contains("UnknownIssuer; name the certificate of its authority in the URL"), "{error}");
    }
    let missing = format!("&sslrootcert={}", file("none.crt"));
    let error = refused(open("localhost", &missing));
    assert!(error.contains("`sslrootcert`, the file `") && error.contains("none.crt`"), "{error}");
}
