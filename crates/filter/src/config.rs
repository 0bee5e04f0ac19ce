//! What the plugin configuration means for a request: which calls are metered, and as what.

use tollmesh_usage::detect::{
    Api, Detection, Family, Target, bare_host, detect, detect_as, is_known, normal_path,
};
use tollmesh_wire::PluginConfig;
use tollmesh_wire::plugin::{ApiRule, Relay, Role};

/// What a request is, under this configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// A call to be metered.
    Metered {
        /// What it is.
        target: Target,
        /// Where it is counted.
        counted: Counted,
    },
    /// A provider's traffic that cannot be read.
    Unreadable {
        /// The provider.
        provider: String,
        /// An API of that host: what its errors look like.
        sibling: Api,
    },
    /// A provider's request that costs nothing: a list of models, a file.
    Free,
    /// Nothing of ours.
    NotOurs,
}

/// Where a call is counted, as far as the configuration says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counted {
    /// Here: who answers is the provider.
    Here,
    /// Behind the host, so that it costs nothing here.
    Behind,
    /// Here, unless the answer of another proxy of the mesh says that it was counted.
    HereUnlessTold,
}

impl Counted {
    fn by(rule: Option<&ApiRule>, relay: Relay) -> Counted {
        match (rule, relay) {
            (Some(rule), _) if rule.role == Role::Gateway => Counted::Behind,
            (_, Relay::Never) => Counted::Here,
            (_, Relay::Auto) => Counted::HereUnlessTold,
        }
    }

    /// Whether it is known to be counted behind the host.
    pub fn is_behind(self) -> bool {
        self == Counted::Behind
    }
}

/// Decides what a request is: the operator's own hosts first, then the table of providers.
pub fn verdict(config: &PluginConfig, authority: &str, path: &str, method: &str) -> Verdict {
    let rule = rule(&config.apis, authority, path);
    let detection = match rule {
        None => detect(authority, path, method),
        Some(rule) if rule.role == Role::Ignore => return Verdict::NotOurs,
        Some(rule) if rule.api.is_none() => listed(rule, authority, path, method),
        Some(rule) => own(rule, path, method),
    };
    let counted = Counted::by(rule, config.relay);
    let is_gateway = counted.is_behind();
    match detection {
        Detection::Metered(target) => Verdict::Metered { target, counted },
        // What the gateway cannot read either, it counts.
        Detection::Unreadable { .. } if is_gateway => Verdict::NotOurs,
        Detection::Unreadable { provider, sibling } => Verdict::Unreadable {
            provider: rule
                .and_then(|rule| rule.provider.clone())
                .unwrap_or_else(|| provider.to_owned()),
            sibling,
        },
        Detection::NotOurs if is_gateway => Verdict::NotOurs,
        Detection::NotOurs if rule.is_some() || is_known(authority) => Verdict::Free,
        Detection::NotOurs => Verdict::NotOurs,
    }
}

/// The first rule for a request, if there is one.
fn rule<'a>(rules: &'a [ApiRule], authority: &str, path: &str) -> Option<&'a ApiRule> {
    if rules.is_empty() {
        return None;
    }
    let host = bare_host(authority);
    let path = normal_path(path);
    rules.iter().find(|rule| {
        // A rule that names a port means that port, any other means them all.
        let is_host = matches(&rule.host, &host) || rule.host.eq_ignore_ascii_case(authority);
        is_host && matches(&rule.path, &path)
    })
}

/// A call that a gateway relays to the host that it names: what the table of providers says.
/// Nothing is asked of the gateway in the app's place but what the operator allows.
fn listed(rule: &ApiRule, authority: &str, path: &str, method: &str) -> Detection {
    let mut detection = detect(authority, path, method);
    if let Detection::Metered(target) = &mut detection {
        target.may_include_usage &= rule.include_usage;
        if let Some(provider) = &rule.provider {
            target.provider.clone_from(provider);
        }
    }
    detection
}

/// A call to an operator's host: the paths of its API family, under any prefix.
fn own(rule: &ApiRule, path: &str, method: &str) -> Detection {
    let name = rule.api.as_deref().unwrap_or_default();
    let provider = rule.provider.as_deref().unwrap_or(name);
    let target = Family::parse(name).and_then(|f| detect_as(f, provider, path, method));
    match target {
        Some(mut target) => {
            // What is known of the path is not the operator's to say.
            target.may_include_usage &= rule.include_usage;
            Detection::Metered(target)
        }
        None => Detection::NotOurs,
    }
}

/// Whether a pattern, in which `*` stands for any run of characters, fits the whole text.
pub fn matches(pattern: &str, text: &str) -> bool {
    let Some((head, tail)) = pattern.split_once('*') else {
        return pattern == text;
    };
    let Some(rest) = text.strip_prefix(head) else {
        return false;
    };
    if !tail.contains('*') {
        return rest.ends_with(tail);
    }
    let (mut rest, mut tail) = (rest, tail);
    while let Some((middle, after)) = tail.split_once('*') {
        let Some(at) = rest.find(middle) else {
            return false;
        };
        rest = rest.get(at + middle.len()..).unwrap_or_default();
        tail = after;
    }
    rest.ends_with(tail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        for (pattern, text, fits) in [
            ("a", "a", true),
            ("a", "ab", false),
            ("*", "", true),
            ("*", "anything", true),
            ("/v1/*", "/v1/", true),
            ("/v1/*", "/v2/", false),
            ("*.llm.internal", "eu.llm.internal", true),
            ("*.llm.internal", "llm.internal", false),
            ("a*b*c", "aXXbYYc", true),
            ("a*b*c", "abc", true),
            ("a*b*c", "acb", false),
            ("a*bc*c", "abc", false),
            ("aa*aa", "aaa", false),
        ] {
            assert_eq!(matches(pattern, text), fits, "{pattern} {text}");
        }
    }

    fn config(apis: &str) -> PluginConfig {
        let json = format!(r#"{{"aggregator":{{"cluster":"t"}},"apis":{apis}}}"#);
        PluginConfig::parse(json.as_bytes()).unwrap()
    }

    fn shown(config: &PluginConfig, host: &str, path: &str) -> String {
        match verdict(config, host, path, "POST") {
            Verdict::Metered { target, counted } => format!(
                "{} {} include_usage={} gateway={}",
                target.api.name(),
                target.provider,
                target.may_include_usage,
                counted.is_behind()
            ),
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn own_hosts_come_before_the_table() {
        let config = config(
            r#"[{"host":"*.llm.internal","path":"/eu/*","api":"openai","provider":"vllm"},
                {"host":"gw.internal","api":"anthropic","role":"gateway"},
                {"host":"api.openai.com","path":"/v1/embeddings","role":"ignore"},
                {"host":"*.anthropic.com","role":"gateway"},
                {"host":"api.x.ai","role":"gateway","provider":"egress","include_usage":true},
                {"host":"az.internal","api":"azure","include_usage":true}]"#,
        );
        for (host, path, expected) in [
            (
                "a.llm.internal:8000",
                "/eu/v1/chat/completions?x=1",
                "openai.chat vllm include_usage=false gateway=false",
            ),
            (
                "a.llm.internal",
                "/us/v1/chat/completions",
                "openai.chat openai-compatible include_usage=false gateway=false",
            ),
            (
                "GW.internal",
                "/v1/messages",
                "anthropic.messages anthropic include_usage=false gateway=true",
            ),
            ("api.openai.com", "/v1/embeddings", "NotOurs"),
            (
                "api.openai.com:443",
                "/v1/chat/completions",
                "openai.chat openai include_usage=true gateway=false",
            ),
            ("example.com", "/v1/files", "NotOurs"),
            // The table says what a gateway is asked for, and what it cannot read it counts itself.
            (
                "api.anthropic.com",
                "/v1/messages",
                "anthropic.messages anthropic include_usage=false gateway=true",
            ),
            ("api.anthropic.com", "/v1/telepathy", "NotOurs"),
            (
                "api.mistral.ai",
                "/v1/telepathy",
                "Unreadable { provider: \"mistral\", sibling: MistralOcr }",
            ),
            // However a path is written, a rule is about what servers take it for.
            (
                "a.LLM.internal.:8000",
                "/us/%2e%2e/eu//v1/chat/completions;x",
                "openai.chat vllm include_usage=false gateway=false",
            ),
            (
                "api.openai.com",
                "/v1/embeddings/../chat/completions",
                "openai.chat openai include_usage=true gateway=false",
            ),
            (
                "api.x.ai",
                "/v1/chat/completions",
                "openai.chat egress include_usage=true gateway=true",
            ),
            // What a path is known not to take is not asked for, whatever the host takes.
            (
                "az.internal",
                "/openai/deployments/d/chat/completions?api-version=2024-10-21",
                "openai.chat azure include_usage=true gateway=false",
            ),
            (
                "az.internal",
                "/openai/deployments/d/chat/completions?api-version=2024-02-01",
                "openai.chat azure include_usage=false gateway=false",
            ),
        ] {
            assert_eq!(shown(&config, host, path), expected, "{host}{path}");
        }
    }
}
