//! Where the Redis is, and how it is reached.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::cluster::ClusterClientBuilder;
use redis::cluster_async::ClusterConnection;
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, ConnectionInfo, IntoConnectionInfo,
    RedisResult, TlsCertificates, Value,
};

use super::super::StoreError;

/// A report that is not answered by then is sent again; a call waits for a grant no longer.
const RESPONSE_TIME_MAX: Duration = Duration::from_millis(500);
/// A server that answers, answers sooner; with TLS it takes three ways there and back.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(1);
/// Names keys unless `redis.prefix` does.
pub const PREFIX_DEFAULT: &str = "tm";

/// A Redis or Valkey: its URL, with the files that hold what does not belong in a URL.
///
/// Neither `Debug` nor `Display` show a password.
#[derive(Clone)]
pub struct Place {
    info: ConnectionInfo,
    /// Read anew for every connection, so that passwords can be rotated.
    password_file: Option<PathBuf>,
    ca_file: Option<PathBuf>,
    is_cluster: bool,
    prefix: String,
}

/// A connection, which many may use at once.
#[derive(Clone)]
pub enum Link {
    /// To a server.
    Server(MultiplexedConnection),
    /// To all servers of a cluster.
    Cluster(ClusterConnection),
}

impl Link {
    /// Sends a command.
    pub async fn ask(&mut self, cmd: &Cmd) -> RedisResult<Value> {
        match self {
            Link::Server(connection) => cmd.query_async(connection).await,
            Link::Cluster(connection) => cmd.query_async(connection).await,
        }
    }
}

impl Place {
    /// Reads `redis://user@host:port/db`, or `rediss://` for TLS. The message never repeats the text,
    /// which may hold a password.
    pub fn parse(text: &str) -> Result<Place, String> {
        const EXPECTED: &str =
            "expected such as \"redis://redis.example:6379\", or \"rediss://…\" for TLS";
        let schemes = ["redis://", "rediss://", "valkey://", "valkeys://"];
        if !schemes.iter().any(|scheme| text.starts_with(scheme)) {
            return Err(format!("not a URL of Redis; {EXPECTED}"));
        }
        let info = text.into_connection_info();
        let info = info.map_err(|_| format!("not a URL of Redis; {EXPECTED}"))?;
        if text.contains("#insecure") {
            return Err(
                "\"#insecure\" is not taken: certificates are always verified; \
                        name their authority in ca_file"
                    .to_owned(),
            );
        }
        Ok(Place {
            info,
            password_file: None,
            ca_file: None,
            is_cluster: false,
            prefix: PREFIX_DEFAULT.to_owned(),
        })
    }

    /// The same with the password that this file holds.
    pub fn password_file(mut self, file: Option<PathBuf>) -> Place {
        self.password_file = file;
        self
    }

    /// The same with the certificate authorities that this file holds.
    pub fn ca_file(mut self, file: Option<PathBuf>) -> Place {
        self.ca_file = file;
        self
    }

    /// The same as one of the servers of a Redis Cluster.
    pub fn cluster(mut self, is_cluster: bool) -> Place {
        self.is_cluster = is_cluster;
        self
    }

    /// The same with keys that begin so.
    pub fn prefix(mut self, prefix: Option<String>) -> Place {
        self.prefix = prefix.unwrap_or(self.prefix);
        self
    }

    /// What keys begin with.
    pub fn key_prefix(&self) -> &str {
        &self.prefix
    }

    /// Whether the URL itself holds a password.
    pub fn has_password(&self) -> bool {
        self.info.redis_settings().password().is_some()
    }

    /// Whether it is reached by TLS.
    pub fn is_encrypted(&self) -> bool {
        matches!(self.info.addr(), ConnectionAddr::TcpTls { .. })
    }

    /// Whether what is sent may pass a network in clear.
    pub fn may_be_read_on_the_way(&self) -> bool {
        match self.info.addr() {
            ConnectionAddr::Tcp(host, _) => {
                !["localhost", "127.0.0.1", "::1", "[::1]"].contains(&host.as_str())
            }
            _ => false,
        }
    }

    /// Whether the files can be used that a connection takes.
    pub fn check_files(&self) -> Result<(), StoreError> {
        self.password()?;
        self.certificates().map(drop)
    }

    /// A connection; it lasts until it breaks.
    pub async fn connect(&self) -> Result<Link, StoreError> {
        let mut info = self.info.clone();
        if let Some(password) = self.password()? {
            let settings = info.redis_settings().clone().set_password(password);
            info = info.set_redis_settings(settings);
        }
        let certificates = self.certificates()?;
        let link = match self.is_cluster {
            true => Link::Cluster(
                cluster(info, certificates)
                    .await
                    .map_err(|e| self.failed(&e))?,
            ),
            false => Link::Server(
                server(info, certificates)
                    .await
                    .map_err(|e| self.failed(&e))?,
            ),
        };
        Ok(link)
    }

    /// What went wrong, in our words.
    pub fn failed(&self, error: &redis::RedisError) -> StoreError {
        let what = error.to_string();
        let store = self.to_string();
        // "NOPERM: User x has no permissions to run the 'evalsha' command", or to access a key.
        // <https://redis.io/docs/latest/operate/oss_and_stack/management/security/acl/>
        if error.code() == Some("NOPERM") {
            return StoreError::Forbidden {
                store,
                what,
                keys: format!("{}:*", self.prefix),
            };
        }
        let is_refused = error.kind() == redis::ErrorKind::AuthenticationFailed
            || matches!(error.code(), Some("WRONGPASS" | "NOAUTH"));
        match is_refused {
            true => StoreError::Refused { store, what },
            false => StoreError::Unavailable { store, what },
        }
    }

    fn password(&self) -> Result<Option<String>, StoreError> {
        let Some(file) = &self.password_file else {
            return Ok(None);
        };
        let text = self.read(file)?;
        let text = String::from_utf8(text).map_err(|_| self.unusable(file, "not UTF-8"))?;
        Ok(Some(text.trim_end_matches(['\r', '\n']).to_owned()))
    }

    fn certificates(&self) -> Result<Option<TlsCertificates>, StoreError> {
        let Some(file) = &self.ca_file else {
            return Ok(None);
        };
        let root_cert = self.read(file)?;
        let begins = b"-----BEGIN CERTIFICATE-----";
        if !root_cert
            .windows(begins.len())
            .any(|window| window == begins)
        {
            return Err(self.unusable(file, "holds no certificate in PEM form"));
        }
        Ok(Some(TlsCertificates {
            client_tls: None,
            root_cert: Some(root_cert),
        }))
    }

    fn read(&self, file: &Path) -> Result<Vec<u8>, StoreError> {
        std::fs::read(file).map_err(|error| self.unusable(file, &error.to_string()))
    }

    fn unusable(&self, file: &Path, what: &str) -> StoreError {
        StoreError::Unavailable {
            store: self.to_string(),
            what: format!("{}: {what}", file.display()),
        }
    }
}

async fn server(
    info: ConnectionInfo,
    certificates: Option<TlsCertificates>,
) -> RedisResult<MultiplexedConnection> {
    let client = match certificates {
        Some(certificates) => Client::build_with_tls(info, certificates)?,
        None => Client::open(info)?,
    };
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(CONNECT_TIME_MAX))
        .set_response_timeout(Some(RESPONSE_TIME_MAX));
    client
        .get_multiplexed_async_connection_with_config(&config)
        .await
}

async fn cluster(
    info: ConnectionInfo,
    certificates: Option<TlsCertificates>,
) -> RedisResult<ClusterConnection> {
    let settings = info.redis_settings().clone();
    let mut builder = ClusterClientBuilder::new([info])
        .connection_timeout(CONNECT_TIME_MAX)
        .response_timeout(RESPONSE_TIME_MAX)
        .overall_response_timeout(Some(2 * RESPONSE_TIME_MAX))
        .retries(2);
    if let Some(username) = settings.username() {
        builder = builder.username(username);
    }
    if let Some(password) = settings.password() {
        builder = builder.password(password);
    }
    if let Some(certificates) = certificates {
        builder = builder.certs(certificates);
    }
    builder.build()?.get_async_connection().await
}

impl PartialEq for Place {
    fn eq(&self, other: &Place) -> bool {
        let settings = |place: &Place| {
            let settings = place.info.redis_settings();
            let username = settings.username().map(str::to_owned);
            (
                username,
                settings.password().map(str::to_owned),
                settings.db(),
            )
        };
        self.info.addr() == other.info.addr()
            && settings(self) == settings(other)
            && self.password_file == other.password_file
            && self.ca_file == other.ca_file
            && self.is_cluster == other.is_cluster
            && self.prefix == other.prefix
    }
}

impl Eq for Place {}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_encrypted() {
            "rediss"
        } else {
            "redis"
        };
        write!(f, "{scheme}://{}", self.info.addr())
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Place({self})")
    }
}
