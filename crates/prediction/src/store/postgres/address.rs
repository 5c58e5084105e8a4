//! The URL of a database: what it says of the server, and whether the connection is secured.

use std::net::IpAddr;
use std::sync::Mutex;
use std::time::Duration;

use tokio::net::lookup_host;
use tokio::time::timeout;
use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode, TargetSessionAttrs};
use url::form_urlencoded;

use super::tls::Tls;
use crate::mutex::lock;
use crate::store::error::StoreError;

/// How long making a connection may take where there is another address to try, unless the URL says otherwise.
pub(super) const CONNECT: Duration = Duration::from_secs(5);
/// How long the other side may be silent on the wire before a connection counts as lost.
const SILENT: Duration = Duration::from_secs(10);
/// The wait between two questions whether it is there.
const ASK_AGAIN: Duration = Duration::from_secs(5);

/// Where a database is, and how to connect to it.
pub(super) struct Address {
    pub(super) config: Config,
    pub(super) tls: Tls,
    /// Which host let a connection in last, and at which address if it has several.
    last: Mutex<Option<Name>>,
}

/// A host by its number in the URL, and one of its addresses.
type Name = (usize, Option<IpAddr>);

/// One host, by its number in the URL.
pub(super) struct One {
    at: usize,
    config: Config,
}

/// One address to connect to.
pub(super) struct Place {
    name: Name,
    pub(super) config: Config,
}

impl Address {
    /// Reads `postgres://USER:PASSWORD@HOST:PORT/NAME?..`. A connection that leaves this machine is secured, and the
    /// name of the server is checked, unless `sslmode=disable` says otherwise; `sslrootcert` names who may vouch for
    /// it besides the authorities of the system.
    ///
    /// # Errors
    /// If it is another URL, or its certificate cannot be read. The message does not repeat it: it may hold a password.
    pub(super) fn parse(text: &str) -> Result<Self, StoreError> {
        let wrong = |why: &str| {
            StoreError::Engine(format!(
                "the URL of the database is wrong: {why}; write it as `postgres://USER:PASSWORD@HOST:PORT/NAME`"
            ))
        };
        if !["postgres://", "postgresql://"].iter().any(|scheme| text.starts_with(scheme)) {
            return Err(wrong("it does not begin with `postgres://`"));
        }
        let (base, query) = text.split_once('?').unwrap_or((text, ""));
        if base.matches('@').count() > 1 {
            return Err(wrong("there is more than one `@`; one in the password is written as `%40`"));
        }
        let (mut mode, mut root, mut rest, mut names) = (None, None, Vec::new(), Vec::new());
        for part in query.split('&').filter(|part| !part.is_empty()) {
            match form_urlencoded::parse(part.as_bytes()).next() {
                Some((name, value)) if name == "sslmode" => mode = Some(value.into_owned()),
                Some((name, value)) if name == "sslrootcert" => root = Some(value.into_owned()),
                other => {
                    rest.push(part);
                    names.extend(other.map(|(name, _)| name));
                }
            }
        }
        let text = if rest.is_empty() { base.to_owned() } else { format!("{base}?{}", rest.join("&")) };
        let mut config: Config = text.parse().map_err(|error: tokio_postgres::Error| wrong(&reason(&error)))?;
        if config.get_hosts().is_empty() {
            return Err(wrong("it names no host"));
        }
        if config.get_dbname().is_none_or(str::is_empty) {
            return Err(wrong("it names no database"));
        }
        let secured = match mode.as_deref() {
            None | Some("prefer") => !config.get_hosts().iter().all(is_here),
            Some("disable") => false,
            Some("require" | "verify-ca" | "verify-full") => true,
            Some(_) => return Err(wrong("`sslmode` is `disable` or `verify-full`")),
        };
        config.ssl_mode(if secured { SslMode::Require } else { SslMode::Disable });
        // The rest is what the URL leaves open.
        if config.get_application_name().is_none() {
            config.application_name("syncdiffusion");
        }
        let says = |name: &str| names.iter().any(|said| said == name);
        if config.get_hosts().len() > 1 && !says("target_session_attrs") {
            // One of them is the primary, and another one after a failover.
            config.target_session_attrs(TargetSessionAttrs::ReadWrite);
        }
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(CONNECT);
        }
        if !says("keepalives_idle") {
            config.keepalives_idle(SILENT);
        }
        if config.get_keepalives_interval().is_none() {
            config.keepalives_interval(ASK_AGAIN);
        }
        if config.get_tcp_user_timeout().is_none() {
            config.tcp_user_timeout(SILENT);
        }
        Ok(Self { config, tls: Tls::new(root.as_deref())?, last: Mutex::default() })
    }

    /// How long making a connection to one address may take.
    pub(super) fn patience(&self) -> Duration {
        self.config.get_connect_timeout().copied().unwrap_or(CONNECT)
    }

    /// Each of the hosts, so that one which is silent does not keep from the next; the one that let a connection in
    /// last is the first.
    pub(super) fn hosts(&self) -> Vec<One> {
        let mut hosts: Vec<One> =
            self.configs().into_iter().enumerate().map(|(at, config)| One { at, config }).collect();
        let last = self.last().map(|(at, _)| at);
        hosts.sort_by_key(|one| Some(one.at) != last);
        hosts
    }

    /// The addresses of a host, in the same order.
    pub(super) async fn places(&self, One { at, config }: One) -> Vec<Place> {
        let mut numbers: Vec<IpAddr> = Vec::new();
        if let ([Host::Tcp(host)], []) = (config.get_hosts(), config.get_hostaddrs()) {
            let port = config.get_ports().first().copied().unwrap_or(5432);
            if let Ok(Ok(found)) = timeout(self.patience(), lookup_host((host.as_str(), port))).await {
                for number in found.map(|address| address.ip()) {
                    if !numbers.contains(&number) {
                        numbers.push(number);
                    }
                }
            }
        }
        if numbers.len() < 2 {
            return vec![Place { name: (at, None), config }];
        }
        let last = self.last();
        numbers.sort_by_key(|number| Some((at, Some(*number))) != last);
        let place = |number: IpAddr| {
            let mut config = config.clone();
            config.hostaddr(number);
            Place { name: (at, Some(number)), config }
        };
        numbers.into_iter().map(place).collect()
    }

    /// This one let a connection in.
    pub(super) fn remember(&self, place: &Place) {
        *lock(&self.last) = Some(place.name);
    }

    fn last(&self) -> Option<Name> {
        *lock(&self.last)
    }

    /// How to connect to each of the hosts.
    fn configs(&self) -> Vec<Config> {
        let (hosts, numbers, ports) = (self.config.get_hosts(), self.config.get_hostaddrs(), self.config.get_ports());
        if hosts.len() < 2 || (!numbers.is_empty() && numbers.len() != hosts.len()) {
            return vec![self.config.clone()];
        }
        let one = |(at, host): (usize, &Host)| {
            let mut one = Config::new();
            match host {
                Host::Tcp(name) => one.host(name),
                Host::Unix(folder) => one.host_path(folder),
            };
            if let Some(number) = numbers.get(at) {
                one.hostaddr(*number);
            }
            if let Some(port) = ports.get(at).or(ports.first()) {
                one.port(*port);
            }
            self.complete(one)
        };
        hosts.iter().enumerate().map(one).collect()
    }

    /// Adds all but the host.
    fn complete(&self, mut one: Config) -> Config {
        let all = &self.config;
        if let Some(user) = all.get_user() {
            one.user(user);
        }
        if let Some(password) = all.get_password() {
            one.password(password);
        }
        if let Some(name) = all.get_dbname() {
            one.dbname(name);
        }
        if let Some(options) = all.get_options() {
            one.options(options);
        }
        if let Some(name) = all.get_application_name() {
            one.application_name(name);
        }
        if let Some(interval) = all.get_keepalives_interval() {
            one.keepalives_interval(interval);
        }
        if let Some(retries) = all.get_keepalives_retries() {
            one.keepalives_retries(retries);
        }
        if let Some(silent) = all.get_tcp_user_timeout() {
            one.tcp_user_timeout(*silent);
        }
        one.ssl_mode(all.get_ssl_mode())
            .ssl_negotiation(all.get_ssl_negotiation())
            .channel_binding(all.get_channel_binding())
            .target_session_attrs(all.get_target_session_attrs())
            .connect_timeout(self.patience())
            .keepalives(all.get_keepalives())
            .keepalives_idle(all.get_keepalives_idle());
        one
    }

    /// The servers and the database, for messages.
    pub(super) fn shown(&self) -> String {
        let ports = self.config.get_ports();
        let hosts = self.config.get_hosts().iter().enumerate().map(|(at, host)| {
            let port = ports.get(at).or(ports.first()).copied().unwrap_or(5432);
            match host {
                Host::Tcp(name) => format!("{name}:{port}"),
                Host::Unix(folder) => format!("{}/.s.PGSQL.{port}", folder.display()),
            }
        });
        format!("`{}` at {}", self.config.get_dbname().unwrap_or_default(), hosts.collect::<Vec<_>>().join(", "))
    }
}

/// Why a URL was not understood, without the words of the library around it.
fn reason(error: &tokio_postgres::Error) -> String {
    std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string)
}

/// Whether a host is this machine.
fn is_here(host: &Host) -> bool {
    match host {
        Host::Unix(_) => true,
        Host::Tcp(name) => name == "localhost" || name.parse().is_ok_and(|address: IpAddr| address.is_loopback()),
    }
}

#[cfg(test)]
mod tests {
    use tokio_postgres::config::ChannelBinding;

    use super::*;

    fn mode(url: &str) -> SslMode {
        Address::parse(url).unwrap().config.get_ssl_mode()
    }

    #[test]
    fn what_leaves_the_machine_is_secured() {
        for url in
            ["postgres://localhost/a", "postgresql://u:p@127.0.0.1:1/a", "postgres://%2Ftmp/a", "postgres://[::1]/a"]
        {
            assert_eq!(mode(url), SslMode::Disable, "{url}");
        }
        for url in ["postgres://db.example/a", "postgres://localhost,db.example/a", "postgres://10.0.0.1/a"] {
            assert_eq!(mode(url), SslMode::Require, "{url}");
        }
        assert_eq!(mode("postgres://db.example/a?sslmode=disable"), SslMode::Disable);
        assert_eq!(mode("postgres://localhost/a?sslmode=verify-full"), SslMode::Require);
    }

    #[test]
    fn what_the_url_says_of_connections_counts() {
        let all = |url: &str| {
            let configs = Address::parse(url).unwrap().configs();
            let seconds = |time: Option<&Duration>| time.map(Duration::as_secs);
            let one = |config: &Config| {
                let interval = config.get_keepalives_interval();
                (
                    config.get_target_session_attrs(),
                    seconds(config.get_connect_timeout()),
                    config.get_keepalives_idle().as_secs(),
                    seconds(interval.as_ref()),
                    seconds(config.get_tcp_user_timeout()),
                )
            };
            configs.iter().map(one).collect::<Vec<_>>()
        };
        let (any, primary) = (TargetSessionAttrs::Any, TargetSessionAttrs::ReadWrite);
        let own = "connect_timeout=3&keepalives_idle=4&keepalives_interval=6&tcp_user_timeout=7";
        assert_eq!(all("postgres://a/d"), [(any, Some(5), 10, Some(5), Some(10))]);
        assert_eq!(all(&format!("postgres://a/d?{own}")), [(any, Some(3), 4, Some(6), Some(7))]);
        assert_eq!(all("postgres://a,b/d"), [(primary, Some(5), 10, Some(5), Some(10)); 2]);
        let said = all(&format!("postgres://a,b/d?{own}&target_session_attrs=any"));
        assert_eq!(said, [(any, Some(3), 4, Some(6), Some(7)); 2]);
    }

    #[tokio::test]
    async fn who_let_a_connection_in_last_comes_first() {
        let address = Address::parse("postgres://127.0.0.1:1,127.0.0.1:2,127.0.0.1:3/d").unwrap();
        let order = || address.hosts().iter().map(|one| one.at).collect::<Vec<_>>();
        assert_eq!(order(), [0, 1, 2]);
        let one = address.hosts().remove(2);
        let place = address.places(one).await.remove(0);
        assert_eq!(place.config.get_ports(), [3]);
        address.remember(&place);
        assert_eq!(order(), [2, 0, 1]);
    }

    #[test]
    fn each_host_is_connected_to_as_the_url_says() {
        let url = "postgres://u:p@a:1,%2Ftmp,c:3/d?options=-c%20x%3D1&application_name=n&channel_binding=disable";
        let address = Address::parse(url).unwrap();
        let hosts = address.configs();
        assert_eq!(hosts.len(), 3);
        for (at, one) in hosts.iter().enumerate() {
            assert_eq!(one.get_hosts(), &address.config.get_hosts()[at..=at]);
            assert_eq!(one.get_ports(), [[1, 5432, 3][at]]);
            assert_eq!(one.get_password(), Some(&b"p"[..]));
            let all = [one.get_user(), one.get_dbname(), one.get_options(), one.get_application_name()];
            assert_eq!(all, [Some("u"), Some("d"), Some("-c x=1"), Some("n")]);
            assert_eq!(one.get_ssl_mode(), SslMode::Require);
            assert_eq!(one.get_channel_binding(), ChannelBinding::Disable);
            assert_eq!(one.get_target_session_attrs(), TargetSessionAttrs::ReadWrite);
        }
        assert_eq!(Address::parse("postgres://a/d").unwrap().configs().len(), 1);
    }

    #[test]
    fn a_wrong_url_is_explained_without_its_password() {
        for (url, why) in [
            ("localhost", "does not begin"),
            ("postgres:///a", "names no host"),
            ("postgres://u:hush@h", "names no database"),
            ("postgres://u:hush@h:x/a", "invalid value for option `port`"),
            ("postgres://u:hush@hush@h/a", "one in the password is written as `%40`"),
            ("postgres://u:hush@h/a?ssl=1", "unknown option `ssl`"),
            ("postgres://u:hush@h/a?sslmode=sometimes", "`sslmode` is"),
            ("postgres://u:hush@h/a?sslrootcert=/no/such", "`/no/such`"),
        ] {
            let error = Address::parse(url).err().unwrap().to_string();
            assert!(error.contains(why) && !error.contains("hush"), "{url}: {error}");
        }
    }

    #[test]
    fn messages_name_the_database() {
        let shown = |url| Address::parse(url).unwrap().shown();
        assert_eq!(shown("postgres://u:p@127.0.0.1:77/a"), "`a` at 127.0.0.1:77");
        assert_eq!(shown("postgres://%2Ftmp/a"), "`a` at /tmp/.s.PGSQL.5432");
    }
}
