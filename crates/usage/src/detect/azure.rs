//! What Azure's endpoints for chat completions take, which differs by path, host and API version.

use super::pattern::query_value;
use super::{Api, LimitKey, Target};

/// Azure's name as a provider.
pub(super) const PROVIDER: &str = "azure";

/// Hosts of the Model Inference API.
const MODEL_INFERENCE_HOSTS: &str = ".models.ai.azure.com";

/// The date of the first version of the API whose chat completions know `stream_options`
/// (<https://learn.microsoft.com/azure/ai-services/openai/api-version-deprecation>, "Changes between
/// 2024-09-01-preview and 2024-08-01-preview"); earlier ones refuse it
/// (<https://github.com/openai/openai-python/issues/1469>).
const USAGE_OPTION_SINCE: &str = "2024-09-01";

/// Takes back what an Azure endpoint does not take. `path` is normal, `written` has the query.
///
/// `/openai/v1/…` takes what OpenAI's own API does
/// (<https://learn.microsoft.com/azure/ai-foundry/openai/latest>). A deployment may be of any model,
/// and takes `max_completion_tokens` for reasoning models only, `max_tokens` for others only ("only
/// supported in o1 series models": <https://learn.microsoft.com/azure/ai-services/openai/reference-preview#chat-completions---create>;
/// <https://github.com/BerriAI/litellm/issues/8855>). `/models/…` is the Model Inference API, whose
/// body has `max_tokens` and no `stream_options`, and which refuses what it does not have unless
/// `extra-parameters` says otherwise
/// (<https://learn.microsoft.com/rest/api/aifoundry/model-inference/get-chat-completions/get-chat-completions>;
/// <https://github.com/BerriAI/litellm/issues/11696>).
pub(super) fn narrow(target: &mut Target, path: &str, written: &str) {
    if !matches!(target.api, Api::OpenAiChat | Api::OpenAiCompletions) {
        return;
    }
    let path = path.to_ascii_lowercase();
    let is_deployment = path.contains("/deployments/");
    if !is_deployment && path.contains("/openai/v1/") {
        return;
    }
    target.may_include_usage &= is_deployment && !is_before_usage_option(written);
    target.limit_key = match !is_deployment && path.contains("/models/") {
        true => LimitKey::MaxTokens,
        false => LimitKey::Unsure,
    };
}

/// The same for what the host alone says: `*.models.ai.azure.com` is the Model Inference API under
/// any path (<https://learn.microsoft.com/azure/ai-foundry/how-to/deploy-models-serverless>).
pub(super) fn narrow_at_host(target: &mut Target, host: &str) {
    if host.ends_with(MODEL_INFERENCE_HOSTS) {
        target.may_include_usage = false;
        target.limit_key = LimitKey::MaxTokens;
    }
}

/// Whether the request names a version by a date that is before the option's. Dates are written as
/// `YYYY-MM-DD`, previews with a suffix.
fn is_before_usage_option(written: &str) -> bool {
    let version = query_value(written, "api-version").unwrap_or_default();
    let date = version.get(..USAGE_OPTION_SINCE.len()).unwrap_or_default();
    let is_date = !date.is_empty() && date.bytes().all(|b| b.is_ascii_digit() || b == b'-');
    is_date && date < USAGE_OPTION_SINCE
}

#[cfg(test)]
mod tests {
    use super::super::{Detection, Family, LimitKey, Target, detect, detect_as};
    use LimitKey::{MaxCompletionTokens, MaxTokens, Unsure};

    fn target(host: &str, path: &str) -> Target {
        match detect(host, path, "POST") {
            Detection::Metered(target) => target,
            other => panic!("{host}{path}: {other:?}"),
        }
    }

    #[test]
    fn endpoints_are_asked_for_what_they_know() {
        let openai = "r.openai.azure.com";
        let foundry = "r.services.ai.azure.com";
        let serverless = "mistral-large.eastus2.models.ai.azure.com";
        let deployed = |rest: &str| format!("/openai/deployments/d/{rest}");
        for (host, path, is_asked, key) in [
            (
                openai,
                "/openai/v1/chat/completions",
                true,
                MaxCompletionTokens,
            ),
            (
                openai,
                "/openai/v1/chat/completions?api-version=preview",
                true,
                MaxCompletionTokens,
            ),
            (
                foundry,
                "/OpenAI/V1/chat/completions",
                true,
                MaxCompletionTokens,
            ),
            (
                foundry,
                "/api/projects/p/openai/v1/chat/completions",
                true,
                MaxCompletionTokens,
            ),
            (openai, &deployed("chat/completions"), true, Unsure),
            (
                openai,
                &deployed("chat/completions?api-version=2024-10-21"),
                true,
                Unsure,
            ),
            (
                openai,
                &deployed("chat/completions?api-version=2024-09-01-preview"),
                true,
                Unsure,
            ),
            (
                openai,
                &deployed("chat/completions?api-version=2024-08-01-preview"),
                false,
                Unsure,
            ),
            (
                openai,
                &deployed("chat/completions?a=b&api-version=2024-06-01"),
                false,
                Unsure,
            ),
            (
                openai,
                &deployed("chat/completions?api-version=2023-05-15"),
                false,
                Unsure,
            ),
            (
                openai,
                &deployed("chat/completions?api-version=x"),
                true,
                Unsure,
            ),
            (
                openai,
                &deployed("completions?api-version=2024-10-21"),
                false,
                Unsure,
            ),
            (
                openai,
                &deployed("extensions/chat/completions"),
                false,
                Unsure,
            ),
            (
                foundry,
                &deployed("chat/completions?api-version=2024-10-21"),
                true,
                Unsure,
            ),
            (
                foundry,
                "/models/chat/completions?api-version=2024-05-01-preview",
                false,
                MaxTokens,
            ),
            (foundry, "/chat/completions", false, Unsure),
            (serverless, "/chat/completions", false, MaxTokens),
            (serverless, "/v1/chat/completions", false, MaxTokens),
            (serverless, "/openai/v1/chat/completions", false, MaxTokens),
        ] {
            let target = target(host, path);
            assert_eq!(
                (target.may_include_usage, target.limit_key),
                (is_asked, key),
                "{host}{path}"
            );
        }
    }

    #[test]
    fn so_are_those_behind_a_host_of_ones_own() {
        for (version, is_asked) in [("2024-10-21", true), ("2024-02-01", false)] {
            let path = format!("/x/openai/deployments/d/chat/completions?api-version={version}");
            let target = detect_as(Family::Azure, "own", &path, "POST").unwrap();
            assert_eq!(
                (target.may_include_usage, target.limit_key),
                (is_asked, Unsure)
            );
        }
    }

    #[test]
    fn other_hosts_are_as_they_were() {
        for (host, path, is_asked, key) in [
            (
                "api.openai.com",
                "/v1/chat/completions",
                true,
                MaxCompletionTokens,
            ),
            (
                "api.openai.com",
                "/v1/completions",
                true,
                MaxCompletionTokens,
            ),
            (
                "api.groq.com",
                "/openai/v1/chat/completions",
                true,
                MaxTokens,
            ),
            (
                "models.inference.ai.azure.com",
                "/chat/completions",
                false,
                MaxTokens,
            ),
            (
                "integrate.api.nvidia.com",
                "/v1/chat/completions",
                false,
                MaxTokens,
            ),
            ("own.internal", "/v1/chat/completions", false, MaxTokens),
        ] {
            let target = target(host, path);
            assert_eq!(
                (target.may_include_usage, target.limit_key),
                (is_asked, key),
                "{host}{path}"
            );
        }
    }

    #[test]
    fn a_publishers_own_endpoint_at_vertex_is_not_asked() {
        let host = "us-central1-aiplatform.googleapis.com";
        let project = "/v1/projects/p/locations/us-central1";
        for (path, is_asked) in [
            ("publishers/mistralai/models/m:rawPredict", false),
            ("publishers/mistralai/models/m:streamRawPredict", false),
            ("publishers/ai21/models/m:streamRawPredict", false),
            ("endpoints/openapi/chat/completions", true),
        ] {
            let target = target(host, &format!("{project}/{path}"));
            assert_eq!(
                (target.may_include_usage, target.limit_key),
                (is_asked, MaxTokens),
                "{path}"
            );
        }
    }
}
