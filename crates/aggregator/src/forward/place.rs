//! Where the store is, and how it is reached.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use tokio_postgres::config::{Host, SslMode};
use tokio_postgres::{Client, Config};

use crate::forward::error::ForwardError;
use crate::forward::tls;

/// A server that answers, answers sooner.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(5);
/// What was sent and is not acknowledged for so long was sent to nobody.
const SILENCE_MAX: Duration = Duration::from_secs(15);

/// A database: its URL, with the files that hold what does not belong in a URL.
///
/// Neither `Debug` nor `Display` show a password.
#[derive(Clone)]
pub struct Place {
    config: Config,
    /// Read anew for every connection, so that passwords can be rotated.
    password_file: Option<PathBuf>,
    ca_file: Option<PathBuf>,
}

impl Place {
    /// Reads `postgres://user@host:port/database?sslmode=…`. The message never repeats the text,
    /// which may hold a password.
    pub fn parse(text: &str) -> Result<Place, String> {
        const EXPECTED: &str = "expected such as \"postgres://tollmesh@db.example:5432/tollmesh\"";
        if !["postgres://", "postgresql://"]
            .iter()
            .any(|scheme| text.starts_with(scheme))
        {
            return Err(format!("not a URL of PostgreSQL; {EXPECTED}"));
        }
        // A certificate is always verified here, so all modes that use one are the same.
        let text = ["verify-full", "verify-ca"]
            .iter()
            .fold(text.to_owned(), |text, mode| {
                text.replace(&format!("sslmode={mode}"), "sslmode=require")
            });
        let mut config =
            Config::from_str(&text).map_err(|_| format!("not a URL of PostgreSQL; {EXPECTED}"))?;
        if config.get_hosts().is_empty() {
            return Err(format!("the URL names no host; {EXPECTED}"));
        }
        if config.get_application_name().is_none() {
            config.application_name("tollmesh");
        }
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(CONNECT_TIME_MAX);
        }
        if config.get_tcp_user_timeout().is_none() {
            config.tcp_user_timeout(SILENCE_MAX);
        }
        Ok(Place {
            config,
            password_file: None,
            ca_file: None,
        })
    }

    /// The same with the password that this file holds.
    pub fn password_file(mut self, file: Option<PathBuf>) -> Place {
        self.password_file = file;
        self
    }

    /// The same with the certificate authorities that this file holds, and TLS in any case.
    pub fn ca_file(mut self, file: Option<PathBuf>) -> Place {
        if file.is_some() {
            self.config.ssl_mode(SslMode::Require);
        }
        self.ca_file = file;
        self
    }

    /// The same with that password, unless one is known already.
    pub fn or_password(mut self, password: Option<String>) -> Place {
        if let (None, None, Some(password)) =
            (self.config.get_password(), &self.password_file, password)
        {
            self.config.password(password);
        }
        self
    }

    /// Whether the URL itself holds a password.
    pub fn has_password(&self) -> bool {
        self.config.get_password().is_some()
    }

    /// Whether what is sent may pass a network in clear.
    pub fn may_be_read_on_the_way(&self) -> bool {
        let is_local = |host: &Host| match host {
            Host::Unix(_) => true,
            Host::Tcp(name) => ["localhost", "127.0.0.1", "::1"].contains(&name.as_str()),
        };
        self.config.get_ssl_mode() != SslMode::Require
            && !self.config.get_hosts().iter().all(is_local)
    }

    /// Whether the files can be used that a connection takes.
    pub fn check_files(&self) -> Result<(), ForwardError> {
        self.password()?;
        if self.config.get_ssl_mode() != SslMode::Disable {
            tls::Tls::new(self.ca_file.as_deref())?;
        }
        Ok(())
    }

    /// A connection, which lasts until it is dropped.
    pub async fn connect(&self) -> Result<Client, ForwardError> {
        let mut config = self.config.clone();
        if let Some(password) = self.password()? {
            config.password(password.trim_end_matches(['\r', '\n']));
        }
        let failed = |source| ForwardError::Connect {
            server: self.to_string(),
            source,
        };
        if config.get_ssl_mode() == SslMode::Disable {
            let (client, connection) = config
                .connect(tokio_postgres::NoTls)
                .await
                .map_err(failed)?;
            drive(connection);
            return Ok(client);
        }
        let tls = tls::Tls::new(self.ca_file.as_deref())?;
        let (client, connection) = config.connect(tls).await.map_err(failed)?;
        drive(connection);
        Ok(client)
    }
}

impl Place {
    /// The file's content, where there is a file.
    fn password(&self) -> Result<Option<String>, ForwardError> {
        let read = |path: &PathBuf| {
            std::fs::read_to_string(path).map_err(|source| ForwardError::Password {
                path: path.clone(),
                source,
            })
        };
        self.password_file.as_ref().map(read).transpose()
    }
}

/// Lets a connection work until its client is dropped. Its errors are told to the client too.
fn drive(connection: impl Future<Output = Result<(), tokio_postgres::Error>> + Send + 'static) {
    tokio::spawn(async move {
        let _ = connection.await;
    });
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("postgres://")?;
        for (n, host) in self.config.get_hosts().iter().enumerate() {
            let comma = if n > 0 { "," } else { "" };
            match host {
                Host::Tcp(name) => write!(f, "{comma}{name}")?,
                Host::Unix(path) => write!(f, "{comma}{}", path.display())?,
            }
            if let Some(port) = self.config.get_ports().get(n) {
                write!(f, ":{port}")?;
            }
        }
        write!(f, "/{}", self.config.get_dbname().unwrap_or_default())
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Place({self})")
    }
}

impl PartialEq for Place {
    fn eq(&self, other: &Place) -> bool {
        self.config == other.config
            && self.password_file == other.password_file
            && self.ca_file == other.ca_file
    }
}

impl Eq for Place {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_never_shown() {
        let place = Place::parse("postgres://me:s3cret@db.example:6432/costs").unwrap();
        assert_eq!(place.to_string(), "postgres://db.example:6432/costs");
        assert_eq!(
            format!("{place:?}"),
            "Place(postgres://db.example:6432/costs)"
        );
        assert!(place.has_password());
        for bad in [
            "postgres://me:s3cret@db:port/x",
            "me:s3cret@db",
            "postgres:///x",
        ] {
            let message = Place::parse(bad).unwrap_err();
            assert!(!message.contains("s3cret"), "{message}");
            assert!(message.ends_with("tollmesh\""), "{message}");
        }
    }

    #[test]
    fn clear_text_is_noticed_off_the_machine_only() {
        let open = |text: &str| Place::parse(text).unwrap().may_be_read_on_the_way();
        assert!(open("postgres://db.example/x"));
        assert!(open("postgres://db.example/x?sslmode=disable"));
        assert!(!open("postgres://db.example/x?sslmode=require"));
        assert!(!open("postgres://db.example/x?sslmode=verify-full"));
        assert!(!open("postgres://localhost/x"));
        let with_ca = Place::parse("postgres://db.example/x").unwrap();
        assert!(
            !with_ca
                .ca_file(Some("/ca.pem".into()))
                .may_be_read_on_the_way()
        );
    }
}
