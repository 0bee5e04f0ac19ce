//! The names by which price tables know the models that budgets and guards ask for.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tollmesh_budget::Policy;
use tollmesh_pricing::Book;
use tollmesh_wire::ModelNames;
use tollmesh_wire::matching::{MODEL, is_pattern};

/// Names of one model that are held against calls: several times what any of the shipped tables'
/// models has.
const NAMES_MAX: usize = 2_048;
/// Names of all models that budgets or guards ask for: some 40 bytes each, in every worker of every
/// filter.
const NAMES_ALL_MAX: usize = 20_000;

/// The other names of the models that these ask for. Patterns speak for themselves.
pub fn named<'m>(
    book: &Book,
    matches: impl Iterator<Item = &'m BTreeMap<String, String>>,
) -> ModelNames {
    let asked: BTreeSet<&String> = matches.filter_map(|wanted| wanted.get(MODEL)).collect();
    let mut named = ModelNames::new();
    let mut n_left = NAMES_ALL_MAX;
    for model in asked.into_iter().filter(|model| !is_pattern(model)) {
        let mut names = book.names_of(model);
        names.retain(|name| !name.eq_ignore_ascii_case(model));
        let n_kept = names.len().min(NAMES_MAX).min(n_left);
        if n_kept < names.len() {
            let n_left_out = names.len() - n_kept;
            tracing::warn!(
                model,
                n_left_out,
                "a model has too many names to hold it by all"
            );
            names.truncate(n_kept);
        }
        n_left -= n_kept;
        if !names.is_empty() {
            named.insert(model.clone(), names.into());
        }
    }
    named
}

/// Tells policies the names of the models that they ask for.
pub fn name(policies: &mut [Policy], book: &Book) {
    let asking = policies.iter().flat_map(|policy| {
        let excepts = policy.tiers.iter().map(|tier| &tier.except);
        excepts.chain([&policy.matches])
    });
    let models = Arc::new(named(book, asking));
    for policy in policies {
        policy.models = Arc::clone(&models);
    }
}

#[cfg(test)]
mod tests {
    use tollmesh_wire::{Match, Source, Subject};

    use super::*;

    fn names(model: &str) -> Vec<String> {
        let book = Book::load(Book::shipped()).unwrap();
        let wanted = [(MODEL.to_owned(), model.to_owned())].into();
        let named = named(&book, std::iter::once(&wanted));
        named
            .get(model)
            .map(|names| names.to_vec())
            .unwrap_or_default()
    }

    #[test]
    fn a_name_is_held_by_all_that_providers_have_for_the_model() {
        let gpt = names("gpt-4o");
        for name in ["openai/gpt-4o", "openai/gpt-4o:nitro"] {
            assert!(gpt.iter().any(|own| own == name), "{name}: {gpt:?}");
        }
        assert!(!gpt.iter().any(|own| own.contains("4o-mini")), "{gpt:?}");
        // A snapshot is itself alone, under each prefix.
        let dated = names("gpt-4o-2024-08-06");
        let is_dated = |own: &String| own.contains("gpt-4o-2024-08-06");
        assert!(dated.iter().all(is_dated), "{dated:?}");
        assert!(
            dated.iter().any(|own| own == "openai/gpt-4o-2024-08-06"),
            "{dated:?}"
        );
        assert!(names("no-such-model").is_empty());
        assert!(names("gpt-4o*").is_empty());
    }

    /// Names that a table has beside an id for their price, and that another table has as a model of
    /// its own: provider, id, name. A budget on that name holds for them, one on the id does not.
    const MODELS_OF_THEIR_OWN: &str = "
azure ada: text-embedding-ada
azure ada: text-embedding-ada-002
azure ada: text-embedding-ada-002-v2
azure babbage: babbage-002
azure davinci: davinci-002
azure davinci: text-davinci-002
cohere command-r-plus: command-r-plus-08-2024
cohere command-r: command-r-08-2024
deepseek deepseek-chat: deepseek-chat-v3-0324
doubleword deepseek-ai/DeepSeek-V4.1-Flash: deepseek-ai/deepseek-v4.1-flash-1017
google gemini-2.5-flash-preview: gemini-2.5-flash-preview:thinking
google gemini-2.5-flash: gemini-2.5-flash-preview-09-2025
google gemini-3-pro-image-preview: gemini-3-pro-image
google gemini-3.1-flash-image-preview: gemini-3.1-flash-image
groq moonshotai/kimi-k2-instruct: moonshotai/kimi-k2-instruct-0905
minimax MiniMax-M2: minimax-m2.1
minimax MiniMax-M2: minimax-m2.5
mistral mistral-large: mistral-large-2407
mistral mistral-large: mistral-large-2411
openai babbage-002: babbage:2023-07-21-v2
openai davinci-002: davinci:2023-07-21-v2
openrouter anthropic/claude-opus-4: anthropic/claude-opus-4.1
openrouter deepseek/deepseek-v4-pro-0813: deepseek/deepseek-v4-pro-20260813
openrouter google/gemini-3.1-pro-preview: google/gemini-3.1-pro-preview-customtools
openrouter openai/gpt-4o: openai/gpt-4o-audio-preview
openrouter openai/gpt-5: openai/gpt-5.1-codex-max
openrouter openai/o1: o1-preview
together deepseek-ai/DeepSeek-V4.1-Flash: deepseek-ai/deepseek-v4.1-flash-1017
vertex gemini-3-pro-image-preview: gemini-3-pro-image
vertex gemini-3.1-flash-image-preview: gemini-3.1-flash-image
";

    /// Whatever name a table prices as a model's: a budget on that model holds for it, unless the name
    /// is another model's to another table.
    #[test]
    fn no_priced_name_is_a_way_around_a_budget_on_its_model() {
        let book = Book::load(Book::shipped()).unwrap();
        let source = Source::default();
        let tags = BTreeMap::new();
        let (mut n_names, mut n_most) = (0, 0);
        let mut escaping = BTreeSet::new();
        for (provider, model) in book.models() {
            let wanted: BTreeMap<String, String> = [(MODEL.to_owned(), model.id.clone())].into();
            let names = named(&book, std::iter::once(&wanted));
            n_most = n_most.max(names.values().map(|names| names.len()).max().unwrap_or(0));
            let wanted = Match::new(wanted).knowing(&names);
            for text in &model.matches {
                for date in [
                    "",
                    "-20260102",
                    "-2026-01-02",
                    "@20260102",
                    "@default",
                    "@latest",
                ] {
                    let name = text.replace("{snap}", date).to_uppercase();
                    let name = name.replace('*', "X").replace('?', "U").replace('#', "7");
                    let found = book.model(provider, &name);
                    if found.is_none_or(|found| found.id != model.id) {
                        continue;
                    }
                    let subject = Subject {
                        provider,
                        model: Some(&name),
                        tags: &tags,
                        source: &source,
                    };
                    if !wanted.matches(&subject) {
                        let name = text.replace("{snap}", "").to_lowercase();
                        escaping.insert(format!("{provider} {}: {name}", model.id));
                    }
                    n_names += 1;
                }
            }
        }
        let known = MODELS_OF_THEIR_OWN.trim().lines().map(str::to_owned);
        assert_eq!(escaping, known.collect());
        assert!(n_names > 2_000, "{n_names}");
        assert!((100..=NAMES_MAX / 4).contains(&n_most), "{n_most}");
    }
}
