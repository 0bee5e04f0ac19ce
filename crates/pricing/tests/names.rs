//! Names as calls carry them, and the models that the shipped tables take them for.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use proptest::prelude::*;
use tollmesh_pricing::{Book, Call};
use tollmesh_usage::{Bucket, Usage};

static BOOK: LazyLock<Book> = LazyLock::new(|| Book::load(Book::shipped()).unwrap());

const CASES: u32 = 2_000;

/// Provider | name | id of the model; none where no model is certain.
const NAMES: &str = "
openai    | GPT-5-2025-08-07                                    | gpt-5
openai    | openai/gpt-4o                                       | gpt-4o
openai    | gpt-4o-typo                                         | -
openai    | ft:gpt-4o-mini-2024-07-18:acme::id                  | ft:gpt-4o-mini-2024-07-18
openai    | ft:gpt-4o-mini-2024-07-18:acme:suffix:id            | ft:gpt-4o-mini-2024-07-18
openai    | ft:gpt-4o-2024-08-06:acme::id:ckpt-step-100         | ft:gpt-4o-2024-08-06
openai    | ft:davinci-002:acme::id                             | ft:davinci-002
openai    | ft:gpt-9-2030-01-01:acme::id                        | -
anthropic | claude-sonnet-4-6-fast                              | -
anthropic | anthropic/claude-sonnet-4-5-20250929                | claude-sonnet-4-5
gemini    | models/gemini-2.5-pro                               | gemini-2.5-pro
gemini    | gemini-1.5-flash-8b-001                             | gemini-flash-1.5-8b
gemini    | tunedModels/mine                                    | -
gemini    | gemma-3n-e4b-it                                     | gemma-3
vertex    | gemma-3-27b-it                                      | -
vertex    | google/gemini-2.5-pro                               | gemini-2.5-pro
vertex    | publishers/google/models/gemini-2.5-pro             | gemini-2.5-pro
vertex    | projects/p/locations/l/publishers/anthropic/models/claude-opus-4-5@20251101 | claude-opus-4-5
vertex    | projects/p/locations/l/endpoints/123                | -
vertex    | openai/gpt-oss-120b-maas                            | gpt-oss-120b-maas
vertex    | publishers/meta/models/llama-3.3-70b-instruct-maas  | meta/llama-3.3-70b-instruct-maas
vertex    | meta/llama-3.3-70b-instruct-maas                    | meta/llama-3.3-70b-instruct-maas
vertex    | xai/grok-4.20-reasoning                             | grok-4.20-reasoning
bedrock   | arn:aws:bedrock:us-east-1:1:inference-profile/us.amazon.nova-pro-v1:0 | amazon.nova-pro-v1:0
bedrock   | arn:aws:bedrock:us-east-1::foundation-model/amazon.nova-pro-v1:0 | amazon.nova-pro-v1:0
bedrock   | arn:aws:bedrock:us-east-1:1:application-inference-profile/x | -
bedrock   | arn:aws:bedrock:us-east-1:1:default-prompt-router/anthropic.claude:1 | -
bedrock   | amazon.nova-pro-v1:0:300k                           | amazon.nova-pro-v1:0
bedrock   | amazon.nova-lite-v2:0                               | -
bedrock   | meta.llama3-3-70b-instruct-v2:0                     | -
bedrock   | deepseek.r1-distill                                 | -
bedrock   | anthropic.claude-haiku-4-5                          | regional.anthropic.claude-haiku-4-5-20251001-v1:0
moonshot  | kimi-k2.6-highspeed                                 | -
mistral   | magistral-medium-next                               | -
mistral   | mistral/mistral-small-2603                          | mistral-small-2603
deepseek  | deepseek/deepseek-v4-pro                            | deepseek-v4-pro
gemini    | gemini-exp-1206                                     | -
gemini    | gemini-2.0-flash-exp-image-generation               | -
gemini    | nano-banana-pro-preview                             | gemini-3-pro-image-preview
azure     | prod-chat                                           | -
openrouter | some/model:free                                    | *:free
openrouter | anthropic/claude-4-opus-20250522                   | anthropic/claude-opus-4
openrouter | meta-llama/llama-3.3-70b-instruct:Nitro            | meta-llama/llama-3.3-70b-instruct
openrouter | openai/gpt-4o:floor                                | openai/gpt-4o
openrouter | made-up/model:floor                                | -
openrouter | openai/gpt-4o:online                               | -
fireworks | accounts/fireworks/models/gpt-oss-120b              | gpt-oss-120b
fireworks | accounts/acme/models/gpt-oss-120b                   | -
";

/// <https://opentelemetry.io/docs/specs/semconv/registry/attributes/gen-ai/> (`gen_ai.provider.name`)
#[test]
fn providers_have_the_names_that_telemetry_gives_them() {
    for (name, model) in [
        ("aws.bedrock", "amazon.nova-pro-v1:0"),
        ("azure.ai.openai", "gpt-4o"),
        ("gcp.gemini", "gemini-2.5-pro"),
        ("gcp.vertex_ai", "gemini-2.5-pro"),
        ("mistral_ai", "mistral-large-2512"),
        ("moonshot_ai", "kimi-k3"),
        ("x_ai", "grok-4.3"),
    ] {
        assert!(BOOK.model(name, model).is_some(), "{name}");
    }
}

#[test]
fn names_mean_the_models_that_are_certain() {
    for line in NAMES.trim().lines() {
        let columns: Vec<&str> = line.split('|').map(str::trim).collect();
        let [provider, name, id] = columns[..] else {
            panic!("{line}");
        };
        let found = BOOK.model(provider, name).map(|m| m.id.as_str());
        assert_eq!(found.unwrap_or("-"), id, "{provider} {name}");
    }
}

#[test]
fn words_for_tiers_are_the_providers() {
    let usage = Usage::new().with(Bucket::Input, 1_000_000);
    let price = |provider, model, tier| {
        let priced = BOOK.price(&Call {
            provider,
            model: Some(model),
            model_requested: None,
            unix_ms: 1_795_305_600_000,
            service_tier: Some(tier),
            usage: &usage,
            inputs: None,
            context: &BTreeMap::new(),
        });
        let usd = priced.usd.map(|usd| usd.to_string());
        usd.unwrap_or_else(|| priced.unpriced_because.unwrap_or_default().to_owned())
    };
    for (provider, model, tier, want) in [
        ("groq", "openai/gpt-oss-120b", "on_demand", "0.15"),
        ("groq", "openai/gpt-oss-120b", "flex", "0.15"),
        ("groq", "openai/gpt-oss-120b", "performance", "no_row"),
        ("openai", "gpt-5", "fast", "2.5"),
        ("openai", "gpt-5", "", "1.25"),
        ("openai", "gpt-5", "scale", "no_row"),
        ("vertex", "gemini-2.5-flash", "on_demand_flex", "0.15"),
        (
            "vertex",
            "gemini-2.5-flash",
            "PROVISIONED_THROUGHPUT",
            "unknown_tier",
        ),
    ] {
        assert_eq!(price(provider, model, tier), want, "{provider} {tier}");
    }
}

/// One model that a table has twice, by ids that differ in what stands around them.
const LISTED_TWICE: [(&str, &str); 5] = [
    ("deepseek-reasoner", "deepseek/deepseek-r1"),
    ("deepseek-v4-flash-0731", "deepseek-v4-flash"),
    ("gpt-oss-120b", "openai/gpt-oss-120b"),
    ("gpt-oss-20b", "openai/gpt-oss-20b"),
    ("mistral/ministral-8b", "mistralai/ministral-8b"),
];

/// Names that a budget on a model holds for, and that some table has as another model than it
/// has that one's id: such calls would be refused or charged for what they are not.
#[test]
fn no_model_is_met_by_a_budget_on_another() {
    let providers: Vec<&str> = BOOK.providers().collect();
    let is_one = |a: &str, b: &str| {
        let has = |pair: (&str, &str)| LISTED_TWICE.contains(&pair);
        a == b || has((a, b)) || has((b, a))
    };
    let (mut n_names, mut met) = (0, BTreeSet::new());
    let ids: BTreeSet<&str> = BOOK.models().map(|(_, model)| model.id.as_str()).collect();
    for id in ids {
        let names = BOOK.names_of(id);
        for provider in &providers {
            let Some(own) = BOOK.model(provider, id) else {
                continue;
            };
            for name in &names {
                let name = name.replace('*', "x").replace('?', "u").replace('#', "7");
                let found = BOOK.model(provider, &name);
                n_names += 1;
                if let Some(other) = found.filter(|other| !is_one(&own.id, &other.id)) {
                    met.insert(format!("{id} | {name} | {provider}: {}", other.id));
                }
            }
        }
    }
    assert!(n_names > 10_000, "{n_names}");
    assert!(met.is_empty(), "{met:#?}");
}

#[test]
fn models_that_cost_the_same_are_models_of_their_own() {
    for (asked, other, is_met) in [
        ("o1", "o1-preview", false),
        ("openai/o1", "o1-preview", false),
        ("o1-preview", "openai/o1", false),
        ("gpt-4o", "openai/gpt-4o-audio-preview", false),
        ("gpt-5", "openai/gpt-5.1-codex-max", false),
        ("gpt-5.1", "openai/gpt-5", false),
        ("claude-opus-4-1", "anthropic/claude-opus-4", false),
        ("claude-opus-4-0", "anthropic/claude-opus-4.1", false),
        ("command-r-08-2024", "command-r", false),
        ("minimax-m2.1", "minimax-m2", false),
        ("mistral-small-24b-instruct-2501", "devstral-small", false),
        ("text-embedding-ada-002", "ada", false),
        ("o1", "openai/o1:floor", true),
        ("gpt-5", "openai/gpt-5", true),
        ("claude-opus-4-5", "anthropic/claude-opus-4.5:beta", true),
        ("claude-opus-4-1", "anthropic/claude-opus-4.1", true),
    ] {
        let names = BOOK.names_of(asked);
        let found = names.iter().any(|name| name == other);
        assert_eq!(found, is_met, "{asked}: {other} {names:#?}");
    }
}

/// A provider with one of its exact names.
fn any_name() -> impl Strategy<Value = (&'static str, &'static str, &'static str)> {
    let exact = |name: &&String| !name.contains(['*', '?', '#', '{']);
    let models = BOOK.models().flat_map(|(provider, model)| {
        let names = model.matches.iter().filter(exact);
        names.map(move |name| (provider, name.as_str(), model.id.as_str()))
    });
    prop::sample::select(models.collect::<Vec<_>>())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(CASES))]

    /// Case is of no matter.
    #[test]
    fn a_name_in_any_case_is_the_same((provider, name, id) in any_name(), upper in any::<u64>()) {
        let mixed: String = name
            .chars()
            .zip((0..64u32).cycle())
            .map(|(c, n)| if upper >> n & 1 == 1 { c.to_ascii_uppercase() } else { c })
            .collect();
        let found = BOOK.model(provider, &mixed).map(|m| m.id.as_str());
        prop_assert_eq!(found, Some(id));
    }

    /// What nobody wrote down is no neighbour's: a word more makes another model.
    #[test]
    fn a_word_more_is_never_the_same_model(
        (provider, name, id) in any_name(),
        word in "[a-z]{3,8}x",
    ) {
        // Globs are written down for what they take in.
        let takes_more = |m: &str| m.contains('*');
        let model = BOOK.model(provider, name).unwrap();
        prop_assume!(!model.matches.iter().any(|m| takes_more(m)));
        let longer = format!("{name}-{word}");
        let found = BOOK.model(provider, &longer).map(|m| m.id.as_str());
        prop_assert_ne!(found, Some(id), "{}", longer);
    }
}
