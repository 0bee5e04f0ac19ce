//! Who can be told, and by which way.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::alerts::target::{BadTarget, Target};

/// Names in `notify` that are no receiver's own.
pub const RESERVED: [&str; 2] = ["all", "owner"];

/// A secret is a line; more is a wrong file.
const SECRET_BYTES_MAX: u64 = 4_096;

/// Where PagerDuty takes events, its service region in Europe aside
/// (<https://developer.pagerduty.com/docs/send-alert-event>).
pub const PAGERDUTY_URL: &str = "https://events.pagerduty.com/v2/enqueue";

/// Where Alertmanager takes alerts, below its own address.
const ALERTMANAGER_PATH: &str = "/api/v2/alerts";

/// `[alerts.…]`: all receivers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Receivers {
    /// By name.
    pub by_name: BTreeMap<String, Receiver>,
    /// Whom `owner` means.
    pub owner: Owners,
}

/// `[alerts.NAME]`: somebody who is told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Receiver {
    /// The ways to tell them, all of which are used.
    pub channels: BTreeMap<ChannelKind, Channel>,
    /// `allow_private`: whether they may be at an address of this machine or network, and told
    /// without encryption. Default false.
    pub allow_private: bool,
    /// `ca_file`: the certificate authorities that sign for them. Default: the system's.
    pub ca_file: Option<PathBuf>,
}

/// A kind of receiver, by the body that it takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ChannelKind {
    /// Plain JSON.
    Webhook,
    /// Slack's incoming webhooks.
    Slack,
    /// Microsoft Teams, by Workflows.
    Teams,
    /// PagerDuty's Events API v2.
    PagerDuty,
    /// Alertmanager's API v2.
    Alertmanager,
}

/// One way to tell somebody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Channel {
    /// Where to.
    pub place: Place,
    /// Holds the bearer token, or PagerDuty's routing key. Read for each alert, so that secrets can
    /// be rotated.
    pub secret_file: Option<PathBuf>,
}

/// Where a receiver is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// There.
    Url(Target),
    /// Where that file says. The URLs of Slack and Teams are secrets. Read for each alert.
    UrlFile(PathBuf),
}

/// `[alerts.owner]`: whom `notify = ["owner"]` means.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Owners {
    /// `tags`: which value of a budget's `match` or of a key names its owner: the first that is
    /// there. Default `cost_center`, `team`.
    pub tags: Vec<String>,
    /// `receivers`: that value, to the name of a receiver.
    pub receivers: BTreeMap<String, String>,
    /// `default`: who is told of budgets without an owner.
    pub default: Option<String>,
}

/// Why a receiver cannot be told, as its files are now.
#[derive(Debug, thiserror::Error)]
pub enum SetUpError {
    /// A file cannot be read.
    #[error("{} cannot be read", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file holds no secret.
    #[error("{} must hold one line of printable ASCII", path.display())]
    NoLine {
        /// The file.
        path: PathBuf,
    },
    /// A file holds no URL that can be used.
    #[error("{}: {bad}", path.display())]
    BadUrl {
        /// The file.
        path: PathBuf,
        /// Why.
        bad: BadTarget,
    },
}

// === impl Receivers ===

impl Receivers {
    /// Whether that name can stand in `notify`.
    pub fn knows(&self, name: &str) -> bool {
        match name {
            "all" => !self.by_name.is_empty(),
            "owner" => !self.owner.receivers.is_empty() || self.owner.default.is_some(),
            name => self.by_name.contains_key(name),
        }
    }

    /// All names that can stand in `notify`.
    pub fn names(&self) -> Vec<&str> {
        let own = self.by_name.keys().map(String::as_str);
        own.chain(RESERVED.into_iter().filter(|name| self.knows(name)))
            .collect()
    }

    /// The receivers that these names mean, for a budget with that `match` and a key of it.
    pub fn meant(
        &self,
        notify: &[String],
        matches: &BTreeMap<String, String>,
        key: &BTreeMap<String, String>,
    ) -> BTreeSet<&str> {
        let mut meant = BTreeSet::new();
        for name in notify {
            match name.as_str() {
                "all" => meant.extend(self.by_name.keys().map(String::as_str)),
                "owner" => meant.extend(self.owner.of(matches, key)),
                name => meant.extend(self.by_name.get_key_value(name).map(|(k, _)| k.as_str())),
            }
        }
        meant
    }
}

impl Owners {
    fn of(
        &self,
        matches: &BTreeMap<String, String>,
        key: &BTreeMap<String, String>,
    ) -> Option<&str> {
        let value = |tag: &String| key.get(tag).or_else(|| matches.get(tag));
        let mut values = self.tags.iter().filter_map(value);
        let named = values.find_map(|value| self.receivers.get(value));
        named.or(self.default.as_ref()).map(String::as_str)
    }
}

// === impl Receiver ===

impl ChannelKind {
    /// Every kind.
    pub const ALL: [ChannelKind; 5] = [
        ChannelKind::Webhook,
        ChannelKind::Slack,
        ChannelKind::Teams,
        ChannelKind::PagerDuty,
        ChannelKind::Alertmanager,
    ];

    /// Its key in `[alerts.NAME]`.
    pub const fn name(self) -> &'static str {
        match self {
            ChannelKind::Webhook => "webhook",
            ChannelKind::Slack => "slack",
            ChannelKind::Teams => "teams",
            ChannelKind::PagerDuty => "pagerduty",
            ChannelKind::Alertmanager => "alertmanager",
        }
    }

    /// The kind of that name, or `None`.
    pub fn parse(name: &str) -> Option<ChannelKind> {
        ChannelKind::ALL
            .into_iter()
            .find(|kind| kind.name() == name)
    }
}

impl fmt::Display for ChannelKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Channel {
    /// Where alerts go right now.
    pub fn target(&self, kind: ChannelKind) -> Result<Target, SetUpError> {
        let target = match &self.place {
            Place::Url(target) => target.clone(),
            Place::UrlFile(path) => {
                let url = line(path)?;
                Target::parse(&url).map_err(|bad| SetUpError::BadUrl {
                    path: path.clone(),
                    bad,
                })?
            }
        };
        Ok(match kind {
            ChannelKind::Alertmanager if !target.path().ends_with(ALERTMANAGER_PATH) => {
                target.below(ALERTMANAGER_PATH)
            }
            _ => target,
        })
    }

    /// The token or key right now; empty where there is none.
    pub fn secret(&self) -> Result<String, SetUpError> {
        self.secret_file.as_deref().map_or(Ok(String::new()), line)
    }
}

fn line(path: &Path) -> Result<String, SetUpError> {
    let unreadable = |source| SetUpError::Unreadable {
        path: path.to_owned(),
        source,
    };
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(unreadable)?;
    let read = file.take(SECRET_BYTES_MAX + 1).read_to_string(&mut text);
    let n = read.map_err(unreadable)? as u64;
    let text = text.trim();
    let is_line = !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic());
    match n <= SECRET_BYTES_MAX && is_line {
        true => Ok(text.to_owned()),
        false => Err(SetUpError::NoLine {
            path: path.to_owned(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owner_and_all() {
        let map = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
            let pairs = pairs.iter();
            pairs
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                .collect()
        };
        let receivers = Receivers {
            by_name: ["eng", "finops", "red"]
                .map(|name| (name.to_owned(), Receiver::default()))
                .into(),
            owner: Owners {
                tags: vec!["cost_center".into(), "team".into()],
                receivers: map(&[("4711", "red"), ("checkout", "eng")]),
                default: Some("finops".into()),
            },
        };
        let none = BTreeMap::new();
        for (notify, matches, key, meant) in [
            (vec!["eng"], &none, &none, vec!["eng"]),
            (
                vec!["owner"],
                &map(&[("team", "checkout")]),
                &none,
                vec!["eng"],
            ),
            (
                vec!["owner"],
                &none,
                &map(&[("team", "checkout")]),
                vec!["eng"],
            ),
            (
                vec!["owner"],
                &map(&[("team", "checkout"), ("cost_center", "4711")]),
                &none,
                vec!["red"],
            ),
            // A cost centre that nobody knows does not hide the team.
            (
                vec!["owner"],
                &map(&[("team", "checkout"), ("cost_center", "1")]),
                &none,
                vec!["eng"],
            ),
            (vec!["owner"], &none, &none, vec!["finops"]),
            (
                vec!["all", "eng"],
                &none,
                &none,
                vec!["eng", "finops", "red"],
            ),
            (vec!["gone"], &none, &none, vec![]),
        ] {
            let notify: Vec<String> = notify.into_iter().map(str::to_owned).collect();
            let found: Vec<&str> = receivers.meant(&notify, matches, key).into_iter().collect();
            assert_eq!(found, meant, "{notify:?} {matches:?} {key:?}");
        }
        assert!(receivers.knows("all") && receivers.knows("owner") && !receivers.knows("gone"));
        assert!(!Receivers::default().knows("all"));
    }

    #[test]
    fn an_alertmanager_is_named_by_its_address() {
        for (url, path) in [
            ("http://am.monitoring:9093", "/api/v2/alerts"),
            ("http://am.monitoring:9093/", "/api/v2/alerts"),
            ("http://am.monitoring/am/", "/am/api/v2/alerts"),
            ("http://am.monitoring/am/api/v2/alerts", "/am/api/v2/alerts"),
        ] {
            let channel = Channel {
                place: Place::Url(Target::parse(url).unwrap()),
                secret_file: None,
            };
            let target = channel.target(ChannelKind::Alertmanager).unwrap();
            assert_eq!(target.path(), path, "{url}");
        }
    }
}
