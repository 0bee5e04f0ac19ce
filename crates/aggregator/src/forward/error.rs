//! Why the store could not be reached, prepared, written or read.

use std::io;
use std::path::PathBuf;

use tokio_postgres::error::SqlState;

use crate::ledger::{AppendError, QueryError};
use crate::trust::TrustError;

/// A failure on the way to the store. No variant shows a password.
#[derive(Debug, thiserror::Error)]
pub enum ForwardError {
    /// The server does not answer, or refuses us.
    #[error("cannot connect to {server}")]
    Connect {
        /// Host, port and database.
        server: String,
        /// Why.
        source: tokio_postgres::Error,
    },
    /// The password cannot be read.
    #[error("postgres.password_file: {} cannot be read", path.display())]
    Password {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// There is nobody to trust.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// The store was made by a later release.
    #[error(
        "the store has schema version {found}, this tollmesh knows version {known}; {}",
        match found > known {
            true => "upgrade this one",
            false => "the first sidecar of this version that forwards brings it up to date",
        }
    )]
    Version {
        /// The version that it has.
        found: u32,
        /// The newest that this build knows.
        known: u32,
    },
    /// The store has not what its version says.
    #[error(
        "the store says schema version {known} and has no {missing}: a build from before the first \
         release made it, or it was altered; name another database, or drop its schema tollmesh, and \
         sidecars bring again what their ledgers hold"
    )]
    Shape {
        /// The version that it says, which this build knows.
        known: u32,
        /// What it lacks: a column with its type.
        missing: String,
    },
    /// There is no store in that database.
    #[error("no ledger in this database; a sidecar with postgres.url makes it")]
    NoStore,
    /// The server refused.
    #[error("the store: {doing}")]
    Refused {
        /// What was being done.
        doing: &'static str,
        /// What the server says.
        source: tokio_postgres::Error,
    },
    /// The server took too long.
    #[error("the store did not answer within {seconds} s")]
    Silent {
        /// How long it was waited for.
        seconds: u64,
    },
    /// Our own ledger cannot be read, or a question makes no sense.
    #[error(transparent)]
    Ledger(#[from] QueryError),
    /// Our own ledger cannot be written.
    #[error("the ledger cannot note what was forwarded")]
    Note(#[from] AppendError),
    /// The reading was broken off.
    #[error("the ledger was not read to the end")]
    Broken,
    /// The answer has more groups than one answer may.
    #[error(
        "more than {max} groups; ask for fewer dimensions, a longer interval or a shorter time"
    )]
    TooManyGroups {
        /// The most groups in one answer.
        max: usize,
    },
    /// An answer is none that this build can read.
    #[error("the store answered what this tollmesh cannot read")]
    Unreadable(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Names what was being done.
pub fn refused(doing: &'static str) -> impl Fn(tokio_postgres::Error) -> ForwardError {
    move |source| ForwardError::Refused { doing, source }
}

impl ForwardError {
    /// Whether a row's own content is to blame, so that sending it again can never succeed: classes
    /// 22 (data), 23 (integrity) and 54 (a limit of the server) of
    /// <https://www.postgresql.org/docs/current/errcodes-appendix.html>.
    pub fn blames_content(&self) -> bool {
        let class = self
            .code()
            .map(|code| code.code().get(..2).unwrap_or_default());
        matches!(class, Some("22" | "23" | "54"))
    }

    /// Whether there is nothing of ours in the database.
    pub fn is_absence(&self) -> bool {
        let absent = [SqlState::UNDEFINED_TABLE, SqlState::INVALID_SCHEMA_NAME];
        self.code().is_some_and(|code| absent.contains(code))
    }

    fn code(&self) -> Option<&SqlState> {
        match self {
            ForwardError::Refused { source, .. } => source.code(),
            _ => None,
        }
    }

    /// The error with its causes, on one line. The server's own words come last.
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut source = std::error::Error::source(self);
        while let Some(cause) = source {
            let cause_text = cause.to_string();
            if !text.contains(&cause_text) {
                text.push_str(": ");
                text.push_str(&cause_text);
            }
            source = cause.source();
        }
        text
    }
}
