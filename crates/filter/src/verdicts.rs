//! The latest verdicts of one configuration, since calls repeat where they go.

use std::cell::RefCell;

use tollmesh_wire::PluginConfig;

use crate::config::{Verdict, verdict};

/// How many verdicts are remembered: an app speaks to few endpoints.
const COUNT_MAX: usize = 8;
/// The longest authority, path and method together that are remembered, bytes.
const NAME_BYTES_MAX: usize = 256;

/// What requests lately were. A verdict hangs on configuration, authority, path and method alone,
/// so that one configuration's can be given again.
#[derive(Debug, Default)]
pub struct Verdicts {
    latest: RefCell<Latest>,
}

#[derive(Debug, Default)]
struct Latest {
    known: Vec<Known>,
    /// How many were remembered, which says whose place the next one takes.
    n_ever: usize,
}

#[derive(Debug)]
struct Known {
    authority: String,
    path: String,
    method: String,
    verdict: Verdict,
}

impl Verdicts {
    /// What [`verdict`] says. All calls have to be under the same configuration.
    pub fn of(&self, config: &PluginConfig, authority: &str, path: &str, method: &str) -> Verdict {
        // A query may hold a key, which is nothing to be kept.
        let n_bytes = authority.len() + path.len() + method.len();
        let is_kept = n_bytes <= NAME_BYTES_MAX && !path.contains(['?', '#']);
        if !is_kept {
            return verdict(config, authority, path, method);
        }
        let mut latest = self.latest.borrow_mut();
        let is_it = |known: &&Known| {
            known.path == path && known.authority == authority && known.method == method
        };
        if let Some(known) = latest.known.iter().find(is_it) {
            return known.verdict.clone();
        }
        let verdict = verdict(config, authority, path, method);
        latest.remember(Known {
            authority: authority.to_owned(),
            path: path.to_owned(),
            method: method.to_owned(),
            verdict: verdict.clone(),
        });
        verdict
    }
}

impl Latest {
    fn remember(&mut self, known: Known) {
        match self.known.get_mut(self.n_ever % COUNT_MAX) {
            Some(oldest) => *oldest = known,
            None => self.known.push(known),
        }
        self.n_ever = self.n_ever.wrapping_add(1);
    }
}

#[cfg(test)]
mod tests {
    use tollmesh_wire::{Source, Timestamp};

    use super::*;
    use crate::headers::Headers;
    use crate::ids::EventIds;
    use crate::session::{Input, Session, Site};

    const CONFIG: &[u8] = br#"{
        "aggregator": { "cluster": "tollmesh" },
        "apis": [ { "host": "gw.internal", "role": "gateway" }, { "host": "no.*", "role": "ignore" } ]
    }"#;

    #[test]
    fn a_verdict_is_the_same_each_time_and_for_that_request_alone() {
        let config = PluginConfig::parse(CONFIG).unwrap();
        let verdicts = Verdicts::default();
        let authorities = [
            "api.openai.com",
            "gw.internal",
            "no.internal",
            "shop.internal",
        ];
        let paths = [
            "/v1/chat/completions",
            "/v1/chat/completions?key=secret",
            "/v1/models",
            "/v1/responses/r1",
            "/v1/realtime?model=a",
            "/v1/realtime?model=b",
        ];
        for _ in 0..3 {
            for authority in authorities {
                for path in paths {
                    for method in ["POST", "GET", "WEBSOCKET"] {
                        let expected = verdict(&config, authority, path, method);
                        for _ in 0..2 {
                            let found = verdicts.of(&config, authority, path, method);
                            assert_eq!(found, expected, "{method} {authority}{path}");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn what_is_remembered_is_little_and_holds_no_query() {
        let config = PluginConfig::parse(CONFIG).unwrap();
        let verdicts = Verdicts::default();
        let long = "x".repeat(NAME_BYTES_MAX);
        for n in 0..100 {
            verdicts.of(
                &config,
                "api.openai.com",
                &format!("/v1/responses/{n}"),
                "GET",
            );
            verdicts.of(&config, "api.openai.com", &format!("/v1/x?key={n}"), "GET");
            verdicts.of(&config, "api.openai.com", &format!("/{n}{long}"), "GET");
            // Over HTTP/2 a method may be anything.
            verdicts.of(&config, "api.openai.com", &format!("/m/{n}"), &long);
        }
        let latest = verdicts.latest.borrow();
        let paths: Vec<&str> = latest.known.iter().map(|known| &known.path[..]).collect();
        let expected: Vec<String> = [96, 97, 98, 99, 92, 93, 94, 95]
            .iter()
            .map(|n| format!("/v1/responses/{n}"))
            .collect();
        assert_eq!(paths, expected);
    }

    #[test]
    fn a_known_request_is_looked_up_and_not_found_out_again() {
        let config = PluginConfig::parse(CONFIG).unwrap();
        let verdicts = Verdicts::default();
        let ask = || verdicts.of(&config, "api.openai.com", "/v1/chat/completions", "POST");
        let first = ask();
        assert!(matches!(first, Verdict::Metered { .. }));
        assert_eq!(verdicts.latest.borrow().n_ever, 1);
        assert_eq!(ask(), first);
        assert_eq!(verdicts.latest.borrow().n_ever, 1);
    }

    #[test]
    fn calls_to_one_endpoint_are_found_out_once() {
        let config = PluginConfig::parse(CONFIG).unwrap();
        let ids = EventIds::named("0".repeat(16));
        let site = Site::new(config, ids, Source::default());
        let pairs = [
            (":authority", "api.openai.com"),
            (":path", "/v1/chat/completions"),
            (":method", "POST"),
        ];
        let pairs = pairs.map(|(name, value)| (name.as_bytes(), value.as_bytes()));
        for _ in 0..3 {
            let mut session = Session::default();
            let head = Input::RequestHead {
                headers: &Headers::from_iter(pairs),
                peer: None,
                ends: false,
            };
            session.step(&site, head, Timestamp::default());
            assert!(session.is_metered());
            assert_eq!(site.verdicts.latest.borrow().n_ever, 1);
        }
    }
}
