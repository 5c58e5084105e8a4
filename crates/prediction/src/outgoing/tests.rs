use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

/// A server that answers everything with these bytes, and counts.
async fn server(address: Ipv4Addr, answer: String) -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind((address, 0)).await.unwrap();
    let (port, count) = (listener.local_addr().unwrap().port(), Arc::new(AtomicUsize::new(0)));
    let counted = Arc::clone(&count);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            counted.fetch_add(1, Ordering::SeqCst);
            let _ = stream.read(&mut [0; 4096]).await;
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    (port, count)
}

fn ok() -> String {
    "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".to_owned()
}

fn redirect(to: &str) -> String {
    format!("HTTP/1.1 307 Temporary Redirect\r\nlocation: {to}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
}

/// A gate for which 127.0.0.1 is the internet and everything else of 127/8 is private.
fn lenient(names: impl Resolve + 'static) -> Gate {
    let rule = |address: IpAddr| {
        if address == Ipv4Addr::LOCALHOST { None } else { addresses::not_public(address) }
    };
    Gate { rule: Some(rule), names: Arc::new(names) }
}

/// Resolves every name to the same addresses.
struct Says(Vec<Ipv4Addr>);

impl Resolve for Says {
    fn resolve(&self, _: Name) -> Resolving {
        let all: Vec<SocketAddr> = self.0.iter().map(|&address| (address, 0).into()).collect();
        Box::pin(async move { Ok(Box::new(all.into_iter()) as Addrs) })
    }
}

#[test]
fn only_the_web_is_called() {
    let gate = Gate::new(true);
    assert!(gate.check("http://127.0.0.1:1/x").is_ok() && gate.check("https://example.com").is_ok());
    assert!(gate.check("http://例え.テスト/パス?q=ü").is_ok());
    assert!(matches!(gate.check("not a url"), Err(Refused::NotAUrl(_))));
    assert!(matches!(gate.check("http://"), Err(Refused::NotAUrl(_))));
    let of_length = |length: usize| format!("http://a/{}", "x".repeat(length - "http://a/".len()));
    assert!(gate.check(&of_length(MAX_URL)).is_ok());
    assert_eq!(gate.check(&of_length(MAX_URL + 1)), Err(Refused::TooLong));
    for (url, scheme) in
        [("ftp://example.com", "ftp"), ("file:///etc/passwd", "file"), ("data:,x", "data"), ("gopher://x", "gopher")]
    {
        assert_eq!(gate.check(url), Err(Refused::Scheme(scheme.to_owned())));
    }
    for url in [
        "http://user@example.com",
        "http://user:secret@example.com",
        "http://:secret@example.com",
        "http://127.0.0.1@example.com",
    ] {
        assert_eq!(gate.check(url), Err(Refused::Credentials), "{url}");
        assert!(!gate.check(url).unwrap_err().to_string().contains("secret"));
    }
}

#[test]
fn literal_addresses_are_read_as_a_connection_would() {
    let gate = Gate::new(false);
    for url in [
        "http://127.0.0.1",
        "http://127.1",
        "http://2130706433",
        "http://0x7f.1",
        "http://0x7f000001",
        "http://0177.0.0.1",
        "http://017700000001",
        "http://127.0.0.1.",
        "http://[::1]:80",
        "http://[::ffff:127.0.0.1]",
        "http://[::ffff:7f00:1]",
        "http://①②⑦.⓪.⓪.①",
        "http://localhost",
        "http://LOCALHOST.:8080/x",
        "http://a.localhost",
        "http:127.0.0.1",
        "http://%31%32%37.0.0.1",
        "http://127。0。0。1",
        "http:\\\\127.0.0.1\\x",
    ] {
        assert!(
            matches!(gate.check(url), Err(Refused::Private { kind: "a loopback", .. })),
            "{url}: {:?}",
            gate.check(url)
        );
    }
    for url in [
        "http://0",
        "http://169.254.169.254/latest",
        "http://2852039166",
        "http://0xa9fea9fe",
        "http://0251.0376.0251.0376",
        "http://10.1.2.3",
        "http://192.168.0.1",
        "http://100.64.0.1",
        "http://[fd00::1]",
        "http://[fe80::1]",
        "http://[::]",
        "http://[64:ff9b::a9fe:a9fe]",
        "http://[2002:a9fe:a9fe::]",
        "http://224.0.0.1",
        "http://255.255.255.255",
    ] {
        assert!(matches!(gate.check(url), Err(Refused::Private { .. })), "{url}: {:?}", gate.check(url));
    }
    assert!(gate.check("http://1.1.1.1").is_ok() && gate.check("http://[2606:4700::1111]/").is_ok());
    assert!(gate.check("http://localhost.example.com").is_ok());
    let message = gate.check("http://0xa9fea9fe/secret").unwrap_err().to_string();
    assert_eq!(
        message,
        "`169.254.169.254` is a link-local address, which is not called unless the server is started with \
         `--allow-private-urls`"
    );
}

#[tokio::test]
async fn names_are_judged_by_the_addresses_that_are_called() {
    crate::install_crypto();
    let (port, count) = server(Ipv4Addr::LOCALHOST, ok()).await;
    let inside = Ipv4Addr::new(127, 0, 0, 2);
    let (hidden_port, hidden) = server(inside, ok()).await;

    let client = lenient(Says(vec![inside])).client(SECOND).unwrap();
    let refused = client.get(format!("http://rebind.example:{hidden_port}/?secret=1")).send().await.unwrap_err();
    let message = http_client::reason(refused);
    assert!(message.contains("`rebind.example` is a loopback address") && !message.contains("secret"), "{message}");
    assert_eq!(hidden.load(Ordering::SeqCst), 0);

    // Of several addresses the private ones are dropped; the connection is made to one that was checked.
    let client = lenient(Says(vec![inside, Ipv4Addr::LOCALHOST])).client(SECOND).unwrap();
    assert!(client.get(format!("http://both.example:{port}")).send().await.unwrap().status().is_success());
    assert_eq!((count.load(Ordering::SeqCst), hidden.load(Ordering::SeqCst)), (1, 0));
}

#[tokio::test]
async fn redirects_are_judged_again() {
    crate::install_crypto();
    let inside = Ipv4Addr::new(127, 0, 0, 2);
    let (hidden_port, hidden) = server(inside, ok()).await;
    let (port, count) = server(Ipv4Addr::LOCALHOST, ok()).await;
    let gate = lenient(Says(vec![inside]));
    for to in [
        format!("http://127.0.0.2:{hidden_port}/"),
        format!("http://2130706434:{hidden_port}/"),
        format!("http://[::ffff:127.0.0.2]:{hidden_port}/"),
        format!("http://name.example:{hidden_port}/"),
        format!("http://user:pass@127.0.0.1:{port}/"),
        "file:///etc/passwd".to_owned(),
    ] {
        let (first, _) = server(Ipv4Addr::LOCALHOST, redirect(&to)).await;
        let answer = gate.following_client(SECOND).unwrap().get(format!("http://127.0.0.1:{first}/")).send().await;
        // reqwest does not count a redirect to another scheme as one, and returns it as it is.
        assert!(answer.as_ref().map_or(true, |answer| answer.status().is_redirection()), "{to}: {answer:?}");
    }
    assert_eq!((hidden.load(Ordering::SeqCst), count.load(Ordering::SeqCst)), (0, 0));

    let (first, _) = server(Ipv4Addr::LOCALHOST, redirect(&format!("http://127.0.0.1:{port}/"))).await;
    let url = format!("http://127.0.0.1:{first}/");
    assert!(gate.following_client(SECOND).unwrap().get(&url).send().await.unwrap().status().is_success());
    assert_eq!(gate.client(SECOND).unwrap().get(&url).send().await.unwrap().status(), 307);
    assert_eq!(count.load(Ordering::SeqCst), 1);
}
