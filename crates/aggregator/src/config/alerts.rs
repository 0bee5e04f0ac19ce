//! `[alerts.…]`: who is told of budgets that have come far, and how.

use std::collections::BTreeMap;

use super::limits;
use super::section::{Section, one_of};
use crate::alerts::{
    Channel, ChannelKind, Owners, PAGERDUTY_URL, Place, Receiver, Receivers, Target,
};

/// Which values name a budget's owner, unless `alerts.owner.tags` says otherwise.
const OWNER_TAGS: [&str; 2] = ["cost_center", "team"];

/// Reads all of `[alerts]`.
pub fn read(mut section: Section<'_>) -> Receivers {
    let mut receivers = Receivers::default();
    let mut owner = None;
    for (name, table) in section.named_tables() {
        match name.as_str() {
            "owner" => owner = Some(table),
            "all" => table.refuse("", "\"all\" means every receiver; give it another name"),
            _ => {
                receivers.by_name.insert(name, receiver(table));
            }
        }
    }
    if let Some(table) = owner {
        receivers.owner = owners(table, &receivers.by_name);
    }
    section.finish();
    receivers
}

fn receiver(mut section: Section<'_>) -> Receiver {
    let mut channels = BTreeMap::new();
    for kind in ChannelKind::ALL {
        if section.has(kind.name()) {
            channels.extend(channel(section.section(kind.name()), kind).map(|c| (kind, c)));
        } else {
            section.know(kind.name());
        }
    }
    let allow_private = section.flag("allow_private").unwrap_or(false);
    let ca_file = section.parsed("ca_file", limits::absolute_path);
    if channels.is_empty() && !section.has_refused_below() {
        let kinds = ChannelKind::ALL.map(ChannelKind::name);
        section.refuse(
            "",
            format!("no way to tell anybody; add {}", one_of(&kinds)),
        );
    }
    for (kind, channel) in &channels {
        match &channel.place {
            Place::Url(target) if !target.is_encrypted() && !allow_private => section.refuse(
                kind.name(),
                "http is not encrypted; use https, or set allow_private = true",
            ),
            _ => {}
        }
    }
    section.finish();
    Receiver {
        channels,
        allow_private,
        ca_file,
    }
}

/// One way to tell somebody; `None` where a mistake left nothing to make it of.
fn channel(mut section: Section<'_>, kind: ChannelKind) -> Option<Channel> {
    let parse = |text: &str| Target::parse(text).map_err(|bad| bad.to_string());
    let has_secret_url = matches!(kind, ChannelKind::Slack | ChannelKind::Teams);
    let url = match kind {
        _ if has_secret_url && section.has("url") => {
            section.refuse(
                "url",
                "whoever knows this URL can post; put it into a file, and name that as url_file",
            );
            section.skip("url");
            None
        }
        _ if has_secret_url => None,
        _ => section.parsed("url", parse),
    };
    let url_file = match kind {
        ChannelKind::PagerDuty | ChannelKind::Alertmanager => None,
        _ => section.parsed("url_file", limits::absolute_path),
    };
    let secret_key = match kind {
        ChannelKind::PagerDuty => Some("routing_key_file"),
        ChannelKind::Webhook | ChannelKind::Alertmanager => Some("token_file"),
        ChannelKind::Slack | ChannelKind::Teams => None,
    };
    let secret_file = secret_key.and_then(|key| section.parsed(key, limits::absolute_path));
    let default = match kind {
        ChannelKind::PagerDuty => Target::parse(PAGERDUTY_URL).ok(),
        _ => None,
    };
    let missing = match (kind, &url, &url_file, &secret_file) {
        (ChannelKind::Webhook, Some(_), Some(_), _) => {
            Some(("url_file", "url is there too; remove one"))
        }
        (ChannelKind::Webhook, None, None, _) => Some(("url", "missing; give url or url_file")),
        (ChannelKind::Alertmanager, None, ..) => {
            Some(("url", "missing; give Alertmanager's address"))
        }
        (ChannelKind::Slack | ChannelKind::Teams, _, None, _) => Some((
            "url_file",
            "missing; name the file that holds the webhook's URL",
        )),
        (ChannelKind::PagerDuty, _, _, None) => Some((
            "routing_key_file",
            "missing; name the file that holds the integration's key",
        )),
        _ => None,
    };
    if let Some((key, what)) = missing
        && !section.has_refused(key)
        && !section.has_refused("url")
    {
        section.refuse(key, what);
    }
    section.finish();
    let place = match (url_file, url.or(default)) {
        (Some(file), _) => Place::UrlFile(file),
        (None, url) => Place::Url(url?),
    };
    Some(Channel { place, secret_file })
}

fn owners(mut section: Section<'_>, by_name: &BTreeMap<String, Receiver>) -> Owners {
    let tags = section.texts("tags");
    let receivers = section.words("receivers").unwrap_or_default();
    let default = section.text("default");
    let unknown = |name: &str| {
        let known: Vec<&str> = by_name.keys().map(String::as_str).collect();
        format!("unknown receiver {name:?}; expected {}", one_of(&known))
    };
    let named = receivers
        .values()
        .filter(|name| !by_name.contains_key(*name));
    for name in named {
        section.refuse("receivers", unknown(name));
    }
    if let Some(name) = &default
        && !by_name.contains_key(name)
    {
        section.refuse("default", unknown(name));
    }
    if receivers.is_empty() && default.is_none() && !section.has_refused("receivers") {
        section.refuse(
            "receivers",
            "missing; map values of cost_center or team to receivers",
        );
    }
    section.finish();
    Owners {
        tags: tags.unwrap_or_else(|| OWNER_TAGS.map(str::to_owned).to_vec()),
        receivers,
        default,
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::alerts::{ChannelKind, Place};
    use crate::config::Config;

    fn parse(text: &str) -> Result<Config, String> {
        let config = Config::parse("tollmesh.toml", text, Some(Path::new("/state")));
        config.map_err(|problems| problems.to_string())
    }

    #[test]
    fn receivers_are_read_whole() {
        let config = parse(
            r#"
            [alerts.eng]
            slack = { url_file = "/etc/tollmesh/slack-eng" }
            teams = { url_file = "/etc/tollmesh/teams-eng" }
            [alerts.ops]
            pagerduty = { routing_key_file = "/etc/tollmesh/pagerduty" }
            alertmanager = { url = "http://alertmanager.monitoring:9093" }
            webhook = { url = "https://hooks.example/x", token_file = "/etc/tollmesh/hook" }
            allow_private = true
            ca_file = "/etc/tollmesh/ca.pem"
            [alerts.owner]
            receivers = { checkout = "eng" }
            default = "ops"
            "#,
        );
        let alerts = config.unwrap().alerts;
        assert_eq!(alerts.names(), ["eng", "ops", "all", "owner"]);
        let ops = &alerts.by_name["ops"];
        assert!(ops.allow_private && !alerts.by_name["eng"].allow_private);
        let Place::Url(pagerduty) = &ops.channels[&ChannelKind::PagerDuty].place else {
            panic!("{ops:?}");
        };
        assert_eq!(pagerduty.to_string(), "https://events.pagerduty.com");
        assert_eq!(alerts.owner.tags, ["cost_center", "team"]);
        assert!(parse("").unwrap().alerts.by_name.is_empty());
    }

    #[test]
    fn each_mistake_is_told() {
        for (text, message) in [
            (
                "[alerts.eng]",
                "alerts.eng: no way to tell anybody; add \"webhook\", \"slack\", \"teams\", \
                 \"pagerduty\" or \"alertmanager\"",
            ),
            (
                "[alerts.eng]\nslak = 1",
                "alerts.eng: no way to tell anybody; add \"webhook\", \"slack\", \"teams\", \
                 \"pagerduty\" or \"alertmanager\"\ntollmesh.toml: alerts.eng.slak: unknown key; \
                 did you mean \"slack\"? expected \"webhook\", \"slack\", \"teams\", \
                 \"pagerduty\", \"alertmanager\", \"allow_private\" or \"ca_file\"",
            ),
            (
                "[alerts.eng]\nslack = { url = \"https://hooks.slack.com/services/s3cret\" }",
                "alerts.eng.slack.url: whoever knows this URL can post; put it into a file, and \
                 name that as url_file",
            ),
            (
                "[alerts.eng]\nteams = {}",
                "alerts.eng.teams.url_file: missing; name the file that holds the webhook's URL",
            ),
            (
                "[alerts.eng]\nwebhook = { token_file = \"/t\" }",
                "alerts.eng.webhook.url: missing; give url or url_file",
            ),
            (
                "[alerts.eng]\nwebhook = { url = \"https://me:s3cret@x.example\" }",
                "alerts.eng.webhook.url: the URL holds a name or password; put the token into a \
                 file of its own",
            ),
            (
                "[alerts.eng]\nalertmanager = { url = \"http://am:9093\" }",
                "alerts.eng.alertmanager: http is not encrypted; use https, or set allow_private \
                 = true",
            ),
            (
                "[alerts.eng]\npagerduty = { routing_key = \"s3cret\" }",
                "alerts.eng.pagerduty.routing_key_file: missing; name the file that holds the \
                 integration's key\ntollmesh.toml: alerts.eng.pagerduty.routing_key: unknown key; \
                 expected \"url\" or \"routing_key_file\"",
            ),
            (
                "[alerts.eng]\nslack = { url_file = \"/s\" }\nallow_private = \"yes\"",
                "alerts.eng.allow_private: found \"yes\"; expected true or false",
            ),
            (
                "[alerts.all]\nslack = { url_file = \"/s\" }",
                "alerts.all: \"all\" means every receiver; give it another name",
            ),
            (
                "[alerts.eng]\nslack = { url_file = \"/s\" }\n[alerts.owner]\n\
                 receivers = { red = \"en\" }",
                "alerts.owner.receivers: unknown receiver \"en\"; expected \"eng\"",
            ),
            ("alerts = 1", "alerts: found 1; expected a table"),
            ("[alerts]\neng = 1", "alerts.eng: found 1; expected a table"),
        ] {
            let told = parse(text).err();
            assert_eq!(told, Some(format!("tollmesh.toml: {message}")), "{text}");
        }
    }
}
