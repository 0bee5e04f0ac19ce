//! What a request is, by host, path and method alone.

mod azure;
mod pattern;
mod relay;
mod table;

use std::collections::BTreeMap;

use pattern::Captures;
pub use pattern::{bare_host, normal_path};
use table::{PathRule, SERVICES, Service};

macro_rules! apis {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// One provider API whose bodies can be read: an endpoint family with one dialect.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Api {
            $($(#[$doc])* $variant,)*
        }

        impl Api {
            /// Every API.
            pub const ALL: &'static [Api] = &[$(Api::$variant,)*];

            /// The API's name on the wire and in the ledger, as `openai.chat`.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Api::$variant => $name,)*
                }
            }
        }
    };
}

apis! {
    /// `POST /v1/chat/completions`
    OpenAiChat = "openai.chat",
    /// `POST /v1/completions`
    OpenAiCompletions = "openai.completions",
    /// `POST /v1/embeddings`
    OpenAiEmbeddings = "openai.embeddings",
    /// `POST /v1/images/{generations,edits,variations}`
    OpenAiImages = "openai.images",
    /// `POST /v1/audio/{transcriptions,translations,speech}`
    OpenAiAudio = "openai.audio",
    /// `POST /v1/moderations`
    OpenAiModerations = "openai.moderations",
    /// `POST /v1/responses`
    OpenAiResponses = "openai.responses",
    /// `GET /v1/responses/{id}`
    OpenAiResponsesRetrieve = "openai.responses.retrieve",
    /// `POST /v1/responses/compact`
    OpenAiResponsesCompact = "openai.responses.compact",
    /// `POST /v1/responses/input_tokens`
    OpenAiCountTokens = "openai.count_tokens",
    /// Sessions at `wss:…/v1/realtime`
    OpenAiRealtime = "openai.realtime",
    /// Mistral's `POST /v1/ocr`, and what others offer to read documents
    MistralOcr = "mistral.ocr",
    /// Mistral's `POST /v1/conversations` and what follows one
    MistralConversations = "mistral.conversations",
    /// Alibaba's own `POST /api/v1/services/aigc/…/generation`
    DashScopeGenerate = "dashscope.generate",
    /// Runs of assistants, which are created and polled.
    OpenAiAssistantsRun = "openai.assistants.run",
    /// Batches, which are made by `POST /v1/batches` and polled.
    OpenAiBatches = "openai.batches",
    /// Chat completions that are asked for by `POST /async/chat/completions` and polled
    OpenAiAsyncChat = "openai.chat.async",
    /// Videos, which are made by `POST /v1/videos` and polled.
    OpenAiVideos = "openai.videos",
    /// `POST /v1/messages`
    AnthropicMessages = "anthropic.messages",
    /// `POST /v1/complete`
    AnthropicComplete = "anthropic.complete",
    /// `POST /v1/messages/count_tokens`
    AnthropicCountTokens = "anthropic.count_tokens",
    /// `POST /v1/messages/batches`
    AnthropicBatches = "anthropic.batches",
    /// `GET /v1/messages/batches/{id}/results`
    AnthropicBatchResults = "anthropic.batch_results",
    /// `POST …:generateContent`
    GeminiGenerate = "gemini.generate",
    /// `POST …:streamGenerateContent`
    GeminiStreamGenerate = "gemini.stream_generate",
    /// `POST …:{embedContent,batchEmbedContents}`
    GeminiEmbed = "gemini.embed",
    /// `POST …:predict`: embeddings and images of older models
    GeminiPredict = "gemini.predict",
    /// Batches, which are made by `POST …:batchGenerateContent` and polled.
    GeminiBatches = "gemini.batches",
    /// Sessions at `wss:…BidiGenerateContent`
    GeminiLive = "gemini.live",
    /// `POST …:countTokens`
    GeminiCountTokens = "gemini.count_tokens",
    /// `POST /v1beta/interactions`
    GeminiInteractions = "gemini.interactions",
    /// `GET /v1beta/interactions/{id}`
    GeminiInteractionsRetrieve = "gemini.interactions.retrieve",
    /// Bedrock's `POST /model/{id}/converse`
    BedrockConverse = "bedrock.converse",
    /// Bedrock's `POST /model/{id}/converse-stream`
    BedrockConverseStream = "bedrock.converse_stream",
    /// Bedrock's `POST /model/{id}/invoke`
    BedrockInvoke = "bedrock.invoke",
    /// Bedrock's `POST /model/{id}/invoke-with-response-stream`
    BedrockInvokeStream = "bedrock.invoke_stream",
    /// Bedrock's `POST /model/{id}/count-tokens`
    BedrockCountTokens = "bedrock.count_tokens",
    /// Bedrock's `POST /guardrail/{id}/version/{v}/apply`
    BedrockApplyGuardrail = "bedrock.apply_guardrail",
    /// Cohere's `POST /v2/chat`
    CohereChat = "cohere.v2.chat",
    /// Cohere's `POST /v1/chat`
    CohereV1Chat = "cohere.v1.chat",
    /// Cohere's `POST /v{1,2}/embed`
    CohereEmbed = "cohere.embed",
    /// Cohere's `POST /v{1,2}/rerank`
    CohereRerank = "cohere.rerank",
    /// Cohere's `POST /v2/audio/transcriptions`
    CohereAudio = "cohere.audio",
    /// Ollama's `POST /api/chat`
    OllamaChat = "ollama.chat",
    /// Ollama's `POST /api/generate`
    OllamaGenerate = "ollama.generate",
    /// Ollama's `POST /api/embed`
    OllamaEmbed = "ollama.embed",
    /// watsonx.ai's text generation
    WatsonxGenerate = "watsonx.generate",
    /// watsonx.ai's text embeddings and reranking, which count what they read
    WatsonxEmbed = "watsonx.embed",
    /// `POST /v1/rerank`, as many hosts offer it
    Rerank = "rerank",
}

impl Api {
    /// The API of that name, or `None`.
    pub fn parse(name: &str) -> Option<Api> {
        Api::ALL.iter().copied().find(|api| api.name() == name)
    }

    /// Whether the API's answer charges nothing, because it only counts.
    const fn counts_only(self) -> bool {
        matches!(
            self,
            Api::OpenAiCountTokens
                | Api::AnthropicCountTokens
                | Api::GeminiCountTokens
                | Api::BedrockCountTokens
        )
    }

    /// Whether the usage may come with a later answer, and is charged where it is told.
    pub(crate) const fn is_told_later(self) -> bool {
        matches!(
            self,
            Api::OpenAiAssistantsRun
                | Api::OpenAiBatches
                | Api::OpenAiVideos
                | Api::OpenAiAsyncChat
                | Api::AnthropicBatches
                | Api::GeminiBatches
        )
    }

    /// Whether its requests have `stream_options.include_usage`, where the endpoint knows it.
    const fn has_usage_option(self) -> bool {
        matches!(self, Api::OpenAiChat | Api::OpenAiCompletions)
    }

    /// Whether the answer repeats usage of an earlier call.
    const fn is_retrieval(self) -> bool {
        matches!(
            self,
            Api::OpenAiResponsesRetrieve
                | Api::OpenAiAssistantsRun
                | Api::OpenAiBatches
                | Api::OpenAiVideos
                | Api::OpenAiAsyncChat
                | Api::AnthropicBatchResults
                | Api::GeminiBatches
                | Api::GeminiInteractionsRetrieve
        )
    }
}

/// The method under which requests that ask for a WebSocket are known here (`GET` with `upgrade:
/// websocket`).
pub const WEBSOCKET: &str = "WEBSOCKET";

/// A set of endpoints that hosts offer together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// OpenAI's endpoints, under any prefix.
    OpenAi,
    /// Anthropic's.
    Anthropic,
    /// Gemini's.
    Gemini,
    /// Models of several publishers on Vertex AI.
    Vertex,
    /// Azure's deployments of OpenAI's models.
    Azure,
    /// Writer's chat.
    Writer,
    /// Cohere's own API.
    Cohere,
    /// Ollama's own API.
    Ollama,
    /// watsonx.ai's own API.
    Watsonx,
    /// Bedrock's runtime.
    Bedrock,
    /// What Mistral has beside OpenAI's endpoints.
    Mistral,
    /// Alibaba's own API.
    DashScope,
    /// Databricks' serving endpoints.
    Databricks,
    /// Cloudflare's Workers AI.
    Cloudflare,
}

impl Family {
    /// The family of that name (`openai`, `anthropic`, `gemini`, `vertex`, …), or `None`.
    pub fn parse(name: &str) -> Option<Family> {
        match name {
            "openai" => Some(Family::OpenAi),
            "anthropic" => Some(Family::Anthropic),
            "gemini" => Some(Family::Gemini),
            "vertex" => Some(Family::Vertex),
            "azure" => Some(Family::Azure),
            "writer" => Some(Family::Writer),
            "cohere" => Some(Family::Cohere),
            "ollama" => Some(Family::Ollama),
            "watsonx" => Some(Family::Watsonx),
            "bedrock" => Some(Family::Bedrock),
            "mistral" => Some(Family::Mistral),
            "dashscope" => Some(Family::DashScope),
            "databricks" => Some(Family::Databricks),
            _ => None,
        }
    }

    const fn paths(self) -> &'static [PathRule] {
        match self {
            Family::OpenAi => table::OPENAI_PATHS,
            Family::Anthropic => table::ANTHROPIC_PATHS,
            Family::Gemini => table::GEMINI_PATHS,
            Family::Vertex => table::VERTEX_PATHS,
            Family::Azure => table::AZURE_PATHS,
            Family::Writer => table::WRITER_PATHS,
            Family::Cohere => table::COHERE_PATHS,
            Family::Ollama => table::OLLAMA_PATHS,
            Family::Watsonx => table::WATSONX_PATHS,
            Family::Bedrock => table::BEDROCK_PATHS,
            Family::Mistral => table::MISTRAL_PATHS,
            Family::DashScope => table::DASHSCOPE_PATHS,
            Family::Databricks => table::DATABRICKS_PATHS,
            Family::Cloudflare => table::CLOUDFLARE_PATHS,
        }
    }

    /// What a [`normal_path`] is among the family's own; `written` is the path with its query.
    fn target(self, provider: &str, path: &str, written: &str, method: &str) -> Option<Target> {
        self.paths().iter().find_map(|rule| {
            let captures = pattern::match_path(rule.path, path)?;
            let mut target = (rule.method == method)
                .then(|| Target::from_captures(rule.api, provider, &captures))?;
            target.is_retrieval &= !table::STARTS.contains(&rule.path);
            target.may_include_usage = rule.takes_include_usage && target.api.has_usage_option();
            if self == Family::Azure {
                target.is_azure = true;
                azure::narrow(&mut target, path, written);
            }
            if rule.api == Api::OpenAiRealtime {
                // https://platform.openai.com/docs/guides/realtime-websocket: `model`. Azure's
                // preview versions call it `deployment`.
                let named = ["model", "deployment"]
                    .into_iter()
                    .find_map(|key| pattern::query_value(written, key));
                target.path_model = named.map(pattern::percent_decoded);
            }
            Some(target)
        })
    }
}

/// The key under which a chat completion is given an output limit where its app set none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitKey {
    /// `max_tokens`, the older one, which all hosts of the dialect take.
    MaxTokens,
    /// `max_completion_tokens`, the one that OpenAI's reasoning models take.
    MaxCompletionTokens,
    /// One of the two, by a model that nothing names: neither can be added.
    Unsure,
}

/// A request that will be metered: everything that host, path and method say about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The API that reads its bodies.
    pub api: Api,
    /// Who serves and bills it: `openai`, `anthropic`, `google`, `azure`, …
    pub provider: String,
    /// The model, where the path names it.
    pub path_model: Option<String>,
    /// The response that is looked at, where the path names it and the answer does not.
    pub path_response_id: Option<String>,
    /// Whether `stream_options.include_usage` may be asked for where the app did not.
    pub may_include_usage: bool,
    /// Whether it is Azure's API, which answers from data of one's own (`data_sources`).
    pub is_azure: bool,
    /// The key of the output limit of chat completions.
    pub limit_key: LimitKey,
    /// False for endpoints that charge nothing (token counting, retrievals).
    pub billable: bool,
    /// Whether the answer repeats the usage of an earlier call (`GET /v1/responses/{id}`).
    pub is_retrieval: bool,
    /// What host and path say that prices depend on (`region`, `vertex_location`, …).
    pub pricing_context: BTreeMap<String, String>,
}

impl Target {
    /// A target of which only API and provider are known.
    pub fn new(api: Api, provider: &str) -> Target {
        Target {
            api,
            provider: provider.to_owned(),
            path_model: None,
            path_response_id: None,
            may_include_usage: false,
            is_azure: provider == azure::PROVIDER,
            limit_key: match provider {
                "openai" | azure::PROVIDER => LimitKey::MaxCompletionTokens,
                _ => LimitKey::MaxTokens,
            },
            billable: !api.counts_only() && !api.is_retrieval() && !api.is_told_later(),
            is_retrieval: api.is_retrieval(),
            pricing_context: BTreeMap::new(),
        }
    }

    /// Whether it starts what is charged once it is done (a batch, a run, a video): its answer costs
    /// nothing yet, and what it begins may cost much.
    pub fn is_charged_later(&self) -> bool {
        self.api.is_told_later() && !self.is_retrieval
    }

    fn from_captures(api: Api, provider: &str, captures: &Captures<'_>) -> Target {
        let mut target = Target::new(api, provider);
        target.path_model = captures.model.map(pattern::percent_decoded);
        target.path_response_id = captures.response_id.map(pattern::percent_decoded);
        if let Some(location) = captures.location {
            let location = pattern::percent_decoded(location);
            target
                .pricing_context
                .insert("vertex_location".to_owned(), location);
        }
        target
    }
}

/// The answer of [`detect`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Detection {
    /// A call to be metered.
    Metered(Target),
    /// A provider's traffic that cannot be read (gRPC, unknown paths): counted, not scanned.
    Unreadable {
        /// The provider that the host belongs to.
        provider: &'static str,
        /// An API of that host: what its errors look like.
        sibling: Api,
    },
    /// Nothing of ours.
    NotOurs,
}

/// Decides what a request is. `path` may carry a query; nothing of it is kept but the model of a
/// realtime session. `method` is [`WEBSOCKET`] where the request asks for one.
pub fn detect(host: &str, path: &str, method: &str) -> Detection {
    let authority = host;
    let host = pattern::bare_host(host);
    if let Some((provider, path)) = relay::passed_on(&host, path)
        && let Some(service) = SERVICES.iter().find(|known| known.provider == provider)
    {
        return match of_service(service, &host, &path, method) {
            // The gateway answers equal requests out of its cache: nothing is added to them.
            Detection::Metered(target) => Detection::Metered(Target {
                may_include_usage: false,
                ..target
            }),
            other => other,
        };
    }
    match SERVICES.iter().find(|service| service.serves(&host)) {
        Some(service) => of_service(service, &host, path, method),
        None => compatible(authority, path, method).map_or(Detection::NotOurs, Detection::Metered),
    }
}

/// What a request to a service of the table is.
fn of_service(service: &Service, host: &str, path: &str, method: &str) -> Detection {
    if let Some(mut target) = offered(service, path, method) {
        for (name, value) in [
            ("region", service.region(host)),
            ("data_residency", service.data_residency(host)),
        ] {
            if let Some(value) = value {
                let (name, value) = (name.to_owned(), value.to_owned());
                target.pricing_context.insert(name, value);
            }
        }
        if service.provider == azure::PROVIDER {
            target.is_azure = true;
            azure::narrow(&mut target, &pattern::normal_path(path), path);
            azure::narrow_at_host(&mut target, host);
        }
        return Detection::Metered(target);
    }
    let normal = pattern::normal_path(path);
    let is_free = table::FREE_PATHS
        .iter()
        .any(|free| pattern::match_path(free, &normal).is_some());
    if !is_free
        && !table::SHARED_HOSTS.contains(&service.provider)
        && matches!(method, "POST" | WEBSOCKET)
    {
        return Detection::Unreadable {
            provider: service.provider,
            sibling: service.sibling(),
        };
    }
    Detection::NotOurs
}

/// What a service of the table takes the request for: by what it is known to offer, else by the
/// shape of the path, which proves as much there as at a host that nobody knows.
fn offered(service: &Service, path: &str, method: &str) -> Option<Target> {
    let mut families = service.families.iter();
    let offered = families.find_map(|family| detect_as(*family, service.provider, path, method));
    match offered {
        Some(target) => Some(Target {
            may_include_usage: target.may_include_usage && service.takes_include_usage,
            ..target
        }),
        None => {
            let provider = service.provider.to_owned();
            shaped(path, method).map(|target| Target { provider, ..target })
        }
    }
}

/// Whether the table says whose host that is. Of others only the shape of their paths is known.
pub fn is_known(host: &str) -> bool {
    let host = pattern::bare_host(host);
    SERVICES.iter().any(|service| service.serves(&host))
}

/// What a request to a host outside the table is, by the shape of its path alone. Nothing is ever
/// asked of such a host in the app's place.
fn compatible(authority: &str, path: &str, method: &str) -> Option<Target> {
    let port = authority.rsplit_once(':').map(|(_, port)| port);
    let ollama = Family::Ollama;
    if let Some(target) = (port == Some(table::OLLAMA_PORT))
        .then(|| detect_as(ollama, "ollama", path, method))
        .flatten()
    {
        return Some(Target {
            may_include_usage: false,
            ..target
        });
    }
    shaped(path, method)
}

/// What a request is by the shape of its path, counted under the shape's own name.
fn shaped(path: &str, method: &str) -> Option<Target> {
    routed(path, |path| {
        table::COMPATIBLE_PATHS.iter().find_map(|(provider, rule)| {
            let captures = pattern::match_path(rule.path, path)?;
            (rule.method == method).then(|| Target::from_captures(rule.api, provider, &captures))
        })
    })
}

/// Decides what a request to a host of one's own is, which offers that family's endpoints under
/// any prefix. `None` where the path is not one of them. [`Target::may_include_usage`] says what is
/// known of the path; whether the host takes the option is the caller's to know.
pub fn detect_as(family: Family, provider: &str, path: &str, method: &str) -> Option<Target> {
    routed(path, |normal| family.target(provider, normal, path, method))
}

/// What is found by the path as servers take it. Those that route by the path with all its escapes
/// undone (<https://asgi.readthedocs.io/en/latest/specs/www.html#http-connection-scope>, `path`)
/// take an escaped slash for one, others for a part of a name, which it is first.
fn routed(path: &str, find: impl Fn(&str) -> Option<Target>) -> Option<Target> {
    let normal = pattern::normal_path(path);
    find(&normal).or_else(|| {
        let open = pattern::with_open_slashes(&normal)?;
        find(&pattern::normal_path(&open))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metered(host: &str, path: &str, method: &str) -> Option<(Api, String, Option<String>)> {
        match detect(host, path, method) {
            Detection::Metered(t) => Some((t.api, t.provider, t.path_model)),
            _ => None,
        }
    }

    #[test]
    fn names_are_unique_and_parse() {
        for api in Api::ALL {
            assert_eq!(Api::parse(api.name()), Some(*api));
        }
    }

    #[test]
    fn unknown_hosts_are_known_by_their_paths() {
        for (host, path, method, api, provider) in [
            (
                "llm.internal:8000",
                "/v1/chat/completions",
                "POST",
                Api::OpenAiChat,
                "openai-compatible",
            ),
            (
                "gw.internal",
                "/team/v1/messages",
                "POST",
                Api::AnthropicMessages,
                "anthropic-compatible",
            ),
            (
                "10.0.0.7:11434",
                "/api/chat",
                "POST",
                Api::OllamaChat,
                "ollama",
            ),
        ] {
            let found = metered(host, path, method).map(|(api, provider, _)| (api, provider));
            assert_eq!(found, Some((api, provider.to_owned())), "{host}{path}");
        }
        for (host, path, method) in [
            ("shop.internal", "/api/chat", "POST"),
            ("shop.internal", "/v1/messages", "GET"),
            ("shop.internal", "/completions", "POST"),
        ] {
            assert_eq!(
                detect(host, path, method),
                Detection::NotOurs,
                "{host}{path}"
            );
        }
        let Detection::Metered(target) = detect("h", "/v1/chat/completions", "POST") else {
            panic!("not metered");
        };
        assert!(!target.may_include_usage);
    }

    #[test]
    fn however_it_is_written_a_path_is_what_servers_take_it_for() {
        for path in [
            "/v1/chat/completion%73",
            "/v1/chat/completions;x=1",
            "/v1/%2e/chat//completions/",
            "/v1/files/../chat/completions?x",
            "/V1/Chat/Completions",
            "/v1%2Fchat%2fcompletions",
            "https://api.openai.com/v1/chat/completions",
        ] {
            for (host, provider) in [
                ("API.openai.com.:443", "openai"),
                ("own.internal", "openai-compatible"),
            ] {
                let found = metered(host, path, "POST");
                let expected = (Api::OpenAiChat, provider.to_owned(), None);
                assert_eq!(found, Some(expected), "{host}{path}");
            }
            assert!(
                detect_as(Family::OpenAi, "own", path, "POST").is_some(),
                "{path}"
            );
        }
        let arn = "arn:aws:bedrock:eu-west-1:1:inference-profile/a.b";
        let escaped =
            "/model/arn%3Aaws%3Abedrock%3Aeu-west-1%3A1%3Ainference-profile%2Fa%2Eb/converse";
        let host = "bedrock-runtime.eu-west-1.amazonaws.com";
        let model = metered(host, escaped, "POST").and_then(|(_, _, model)| model);
        assert_eq!(model.as_deref(), Some(arn));
    }

    #[test]
    fn what_starts_is_charged_later_and_what_looks_is_not() {
        for (host, path, method, is_charged_later) in [
            ("api.openai.com", "/v1/batches", "POST", true),
            ("api.openai.com", "/v1/batches/b1", "GET", false),
            ("api.openai.com", "/v1/threads/t/runs", "POST", true),
            ("api.openai.com", "/v1/threads/t/runs/r", "GET", false),
            ("api.openai.com", "/v1/videos", "POST", true),
            (
                "api.openai.com",
                "/v1/responses/input_tokens",
                "POST",
                false,
            ),
            ("api.openai.com", "/v1/chat/completions", "POST", false),
            ("api.anthropic.com", "/v1/messages/batches", "POST", true),
            (
                "api.anthropic.com",
                "/v1/messages/batches/b/results",
                "GET",
                false,
            ),
            ("api.mistral.ai", "/v1/batch/jobs", "POST", true),
            (
                "generativelanguage.googleapis.com",
                "/v1beta/models/m:batchGenerateContent",
                "POST",
                true,
            ),
        ] {
            let Detection::Metered(target) = detect(host, path, method) else {
                panic!("{path} is not metered");
            };
            assert_eq!(target.is_charged_later(), is_charged_later, "{path}");
        }
    }

    #[test]
    fn endpoints_are_recognised() {
        let openai = "api.openai.com";
        let anthropic = "API.Anthropic.com:443";
        let gemini = "generativelanguage.googleapis.com";
        let vertex = "us-east5-aiplatform.googleapis.com";
        let project = "/v1/projects/p/locations/us-east5/publishers";
        let claude = format!("{project}/anthropic/models/claude-x@1:streamRawPredict");
        let flash = format!("{project}/google/models/gemini-x:generateContent");
        let compat = "/v1beta1/projects/p/locations/global/endpoints/openapi/chat/completions";
        for (host, path, method, api, provider, model) in [
            (
                openai,
                "/v1/chat/completions",
                "POST",
                Api::OpenAiChat,
                "openai",
                None,
            ),
            (
                openai,
                "/v1/chat/completions/?x=1",
                "POST",
                Api::OpenAiChat,
                "openai",
                None,
            ),
            (
                openai,
                "/v1/responses",
                "POST",
                Api::OpenAiResponses,
                "openai",
                None,
            ),
            (
                openai,
                "/v1/responses/r1?stream=true",
                "GET",
                Api::OpenAiResponsesRetrieve,
                "openai",
                None,
            ),
            (
                openai,
                "/v1/responses/compact",
                "POST",
                Api::OpenAiResponsesCompact,
                "openai",
                None,
            ),
            (
                openai,
                "/v1/responses/input_tokens",
                "POST",
                Api::OpenAiCountTokens,
                "openai",
                None,
            ),
            (
                openai,
                "/v1/threads/t/runs/r",
                "GET",
                Api::OpenAiAssistantsRun,
                "openai",
                None,
            ),
            (
                anthropic,
                "/v1/messages?beta=true",
                "POST",
                Api::AnthropicMessages,
                "anthropic",
                None,
            ),
            (
                anthropic,
                "/v1/messages/count_tokens",
                "POST",
                Api::AnthropicCountTokens,
                "anthropic",
                None,
            ),
            (
                anthropic,
                "/v1/messages/batches/b/results",
                "GET",
                Api::AnthropicBatchResults,
                "anthropic",
                None,
            ),
            (
                gemini,
                "/v1beta/models/g-1:generateContent?key=secret",
                "POST",
                Api::GeminiGenerate,
                "google",
                Some("g-1"),
            ),
            (
                gemini,
                "/v1beta/tunedModels/t-1:generateContent",
                "POST",
                Api::GeminiGenerate,
                "google",
                Some("t-1"),
            ),
            (
                gemini,
                "/v1beta/openai/chat/completions",
                "POST",
                Api::OpenAiChat,
                "google",
                None,
            ),
            (
                gemini,
                "/v1beta/interactions",
                "POST",
                Api::GeminiInteractions,
                "google",
                None,
            ),
            (
                vertex,
                &claude,
                "POST",
                Api::AnthropicMessages,
                "vertex",
                Some("claude-x@1"),
            ),
            (
                vertex,
                &flash,
                "POST",
                Api::GeminiGenerate,
                "vertex",
                Some("gemini-x"),
            ),
            (
                "aiplatform.googleapis.com",
                compat,
                "POST",
                Api::OpenAiChat,
                "vertex",
                None,
            ),
        ] {
            let expected = (api, provider.to_owned(), model.map(str::to_owned));
            assert_eq!(metered(host, path, method), Some(expected), "{host}{path}");
        }
    }

    #[test]
    fn hosts_without_the_usual_paths_are_told_by_name() {
        for (host, path, api, provider) in [
            ("api.meta.ai", "/v1/responses", Api::OpenAiResponses, "meta"),
            (
                "api.meta.ai",
                "/v1/messages",
                Api::AnthropicMessages,
                "meta",
            ),
            (
                "ark.cn-beijing.volces.com",
                "/api/v3/responses",
                Api::OpenAiResponses,
                "volcengine",
            ),
            (
                "ark.ap-southeast.bytepluses.com",
                "/api/v3/embeddings",
                Api::OpenAiEmbeddings,
                "volcengine",
            ),
            (
                "qianfan.baidubce.com",
                "/v2/embeddings",
                Api::OpenAiEmbeddings,
                "baidu",
            ),
            (
                "models.github.ai",
                "/inference/embeddings",
                Api::OpenAiEmbeddings,
                "github-models",
            ),
            (
                "api.siliconflow.cn",
                "/v1/rerank",
                Api::Rerank,
                "siliconflow",
            ),
            (
                "model-abc.api.baseten.co",
                "/environments/production/sync/v1/chat/completions",
                Api::OpenAiChat,
                "baseten",
            ),
            ("api.reka.ai", "/v1/chat", Api::OpenAiChat, "reka"),
            (
                "api.mistral.ai",
                "/v1/agents/completions",
                Api::OpenAiChat,
                "mistral",
            ),
            (
                "r.services.ai.azure.com",
                "/providers/mistral/azure/ocr?api-version=1",
                Api::MistralOcr,
                "azure",
            ),
            (
                "dashscope.aliyuncs.com",
                "/compatible-api/v1/reranks",
                Api::Rerank,
                "alibaba",
            ),
            (
                "ark.cn-beijing.volces.com",
                "/api/v3/embeddings/multimodal",
                Api::OpenAiEmbeddings,
                "volcengine",
            ),
        ] {
            let expected = (api, provider.to_owned(), None);
            assert_eq!(metered(host, path, "POST"), Some(expected), "{host}{path}");
        }
    }

    #[test]
    fn what_is_not_metered_is_told_apart() {
        let unreadable = Detection::Unreadable {
            provider: "openai",
            sibling: Api::OpenAiChat,
        };
        for (host, path, method, expected) in [
            ("example.com", "/v1/files", "POST", Detection::NotOurs),
            (
                "notapi.openai.com.evil.org",
                "/v1/telepathy",
                "POST",
                Detection::NotOurs,
            ),
            ("api.openai.com", "/v1/models", "GET", Detection::NotOurs),
            ("api.openai.com", "/v1/files", "POST", Detection::NotOurs),
            ("api.mistral.ai", "/v1/agents", "POST", Detection::NotOurs),
            (
                "api.anthropic.com",
                "/v1/environments?beta=true",
                "POST",
                Detection::NotOurs,
            ),
            (
                "api.anthropic.com",
                "/v1/sessions/s/events?beta=true",
                "POST",
                Detection::Unreadable {
                    provider: "anthropic",
                    sibling: Api::AnthropicMessages,
                },
            ),
            (
                "api.openai.com",
                "/v1/chat/completions",
                "OPTIONS",
                Detection::NotOurs,
            ),
            (
                "api.openai.com",
                "/v1/telepathy",
                "POST",
                unreadable.clone(),
            ),
            (
                "api.openai.com",
                "/v1/realtime/calls",
                "POST",
                unreadable.clone(),
            ),
            // https://developers.openai.com/api/reference/resources/realtime/translation-server-events:
            // no event tells usage.
            (
                "api.openai.com",
                "/v1/realtime/translations?model=gpt-realtime-translate",
                WEBSOCKET,
                unreadable.clone(),
            ),
            // The length that is told is that of the whole, and what was added to it is charged.
            (
                "api.openai.com",
                "/v1/videos/extensions",
                "POST",
                unreadable.clone(),
            ),
            // https://ai.google.dev/gemini-api/docs/video: neither answer nor operation tells a
            // length.
            (
                "generativelanguage.googleapis.com",
                "/v1beta/models/veo-3.1-generate-preview:predictLongRunning",
                "POST",
                Detection::Unreadable {
                    provider: "google",
                    sibling: Family::Gemini.paths()[0].api,
                },
            ),
            ("api.openai.com", "/v1/else", WEBSOCKET, unreadable),
            ("api.openai.com", "/v1/realtime", "GET", Detection::NotOurs),
            (
                "api.openai.com",
                "/v1/realtime/client_secrets",
                "POST",
                Detection::NotOurs,
            ),
        ] {
            assert_eq!(
                detect(host, path, method),
                expected,
                "{method} {host}{path}"
            );
        }
    }

    #[test]
    fn paths_tell_what_prices_depend_on() {
        let path = "/v1/projects/p/locations/europe-west4/publishers/google/models/m:countTokens";
        let Detection::Metered(target) =
            detect("europe-west4-aiplatform.googleapis.com", path, "POST")
        else {
            panic!("not metered");
        };
        assert_eq!(target.pricing_context["vertex_location"], "europe-west4");
        assert!(!target.billable);
        assert!(matches!(
            detect("api.openai.com", "/v1/chat/completions", "POST"),
            Detection::Metered(Target {
                may_include_usage: true,
                billable: true,
                ..
            })
        ));
    }

    #[test]
    fn a_batch_is_told_by_its_results() {
        let of = |path, method| match detect("api.anthropic.com", path, method) {
            Detection::Metered(target) => target,
            other => panic!("{other:?}"),
        };
        let batch = of("/v1/messages/batches", "POST");
        assert_eq!(batch.api, Api::AnthropicBatches);
        assert!(!batch.billable && !batch.is_retrieval);
        let results = of("/v1/messages/batches/msgbatch_1/results", "GET");
        assert!(results.is_retrieval);
        assert_eq!(results.path_response_id.as_deref(), Some("msgbatch_1"));
        let look = detect(
            "api.anthropic.com",
            "/v1/messages/batches/msgbatch_1",
            "GET",
        );
        assert_eq!(look, Detection::NotOurs);
    }

    #[test]
    fn a_run_is_started_once_and_looked_at_often() {
        for (path, method, is_retrieval) in [
            ("/v1/threads/t/runs?include[]=x", "POST", false),
            ("/v1/threads/runs", "POST", false),
            ("/v1/videos", "POST", false),
            ("/v1/videos/video_1/remix", "POST", false),
            ("/v1/async/sonar", "POST", false),
            ("/v1/async/sonar/r", "GET", true),
            ("/v1/videos/video_1", "GET", true),
            ("/v1/threads/t/runs/r", "GET", true),
            ("/v1/threads/t/runs/r/submit_tool_outputs", "POST", true),
            ("/v1/responses/r", "GET", true),
            ("/v1/responses", "POST", false),
        ] {
            let Detection::Metered(target) = detect("api.openai.com", path, method) else {
                panic!("{path} is not metered");
            };
            assert_eq!(target.is_retrieval, is_retrieval, "{method} {path}");
        }
    }

    #[test]
    fn a_regional_host_of_openais_tells_the_residency() {
        for (host, residency) in [
            ("eu.api.openai.com", Some("eu")),
            ("US.api.openai.com:443", Some("us")),
            ("api.openai.com", None),
            ("proxy.api.openai.com", None),
            ("eu.api.x.ai", None),
        ] {
            let Detection::Metered(target) = detect(host, "/v1/responses", "POST") else {
                panic!("{host} is not metered");
            };
            let got = target.pricing_context.get("data_residency");
            assert_eq!(got.map(String::as_str), residency, "{host}");
        }
    }

    #[test]
    fn a_gateway_tells_in_its_path_who_gets_the_call() {
        let host = "gateway.ai.cloudflare.com";
        for (path, api, provider, model) in [
            ("openai/responses", Api::OpenAiResponses, "openai", None),
            (
                "anthropic/v1/messages",
                Api::AnthropicMessages,
                "anthropic",
                None,
            ),
            (
                "google-ai-studio/v1beta/models/g-1:generateContent",
                Api::GeminiGenerate,
                "google",
                Some("g-1"),
            ),
            (
                "workers-ai/@cf/meta/llama-3.1-8b-instruct",
                Api::OpenAiChat,
                "cloudflare",
                Some("llama-3.1-8b-instruct"),
            ),
            (
                "compat/chat/completions",
                Api::OpenAiChat,
                "cloudflare-ai-gateway",
                None,
            ),
        ] {
            let path = format!("/v1/account/gateway/{path}?x=1");
            let expected = (api, provider.to_owned(), model.map(str::to_owned));
            assert_eq!(metered(host, &path, "POST"), Some(expected), "{path}");
            let Detection::Metered(target) = detect(host, &path, "POST") else {
                panic!("{path} is not metered");
            };
            assert!(!target.may_include_usage);
        }
        // However it is written, it is what servers take it for.
        for path in [
            "/v1//account/gateway/openai/chat/completions",
            "/v1/./account/gateway/openai/chat/completions",
            "/v1/account/gateway/%6Fpenai/chat/completions",
            "/v1/account/gateway/anthropic/../OpenAI/chat/completions",
            "/v1/account/gateway;x/openai;y/chat/completions",
            "/v1/account/gateway%2Fopenai%2fchat/completions",
            "https://gateway.ai.cloudflare.com/V1/account/gateway/openai/chat/completions",
        ] {
            let expected = (Api::OpenAiChat, "openai".to_owned(), None);
            assert_eq!(metered(host, path, "POST"), Some(expected), "{path}");
        }
        let unknown = "/v1/account/gateway/openai/telepathy";
        let unreadable = Detection::Unreadable {
            provider: "openai",
            sibling: Api::OpenAiChat,
        };
        assert_eq!(detect(host, unknown, "POST"), unreadable);
    }

    #[test]
    fn a_host_of_the_mainland_tells_its_region() {
        for (host, region) in [
            ("open.bigmodel.cn", Some("cn")),
            ("api.z.ai", None),
            ("api.moonshot.cn:443", Some("cn")),
            ("api.moonshot.ai", None),
            ("dashscope-intl.aliyuncs.com", None),
        ] {
            let Detection::Metered(target) = detect(host, "/v1/chat/completions", "POST") else {
                panic!("{host} is not metered");
            };
            let got = target.pricing_context.get("region");
            assert_eq!(got.map(String::as_str), region, "{host}");
        }
    }

    #[test]
    fn hosts_that_speak_for_others_are_told_apart() {
        let arn = "arn%3Aaws%3Abedrock%3Aus-east-1%3A0%3Ainference-profile%2Fp";
        let profile = Some("arn:aws:bedrock:us-east-1:0:inference-profile/p");
        let converse = format!("/model/{arn}/converse-stream");
        let bedrock = "bedrock-runtime.us-east-1.amazonaws.com";
        let endpoint = "vpce-1.bedrock-runtime.us-east-1.vpce.amazonaws.com";
        let azure = "res.openai.azure.com";
        let deployment = "//openai/deployments/gpt/chat/completions?api-version=1";
        for (host, path, api, provider, model) in [
            (
                bedrock,
                converse.as_str(),
                Api::BedrockConverseStream,
                "aws-bedrock",
                profile,
            ),
            (
                endpoint,
                "/model/m:0/invoke",
                Api::BedrockInvoke,
                "aws-bedrock",
                Some("m:0"),
            ),
            (azure, deployment, Api::OpenAiChat, "azure", Some("gpt")),
            (
                azure,
                "/openai/v1/responses",
                Api::OpenAiResponses,
                "azure",
                None,
            ),
            (
                "api.groq.com",
                "/openai/v1/chat/completions",
                Api::OpenAiChat,
                "groq",
                None,
            ),
            (
                "openrouter.ai",
                "/api/v1/messages",
                Api::AnthropicMessages,
                "openrouter",
                None,
            ),
            (
                "api.cohere.com",
                "/v2/chat",
                Api::CohereChat,
                "cohere",
                None,
            ),
            (
                "api.writer.com",
                "/v1/chat",
                Api::OpenAiChat,
                "writer",
                None,
            ),
            (
                "api.voyageai.com",
                "/v1/rerank",
                Api::Rerank,
                "voyage",
                None,
            ),
            ("ollama.com", "/api/chat", Api::OllamaChat, "ollama", None),
        ] {
            let expected = (api, provider.to_owned(), model.map(str::to_owned));
            assert_eq!(metered(host, path, "POST"), Some(expected), "{host}{path}");
        }
        let Detection::Metered(target) = detect(bedrock, &converse, "POST") else {
            panic!("not metered");
        };
        assert_eq!(target.pricing_context["region"], "us-east-1");
    }

    #[test]
    fn own_hosts_take_a_family() {
        let target = detect_as(Family::OpenAi, "vllm", "/llm/v1/chat/completions", "POST");
        assert_eq!(
            target.map(|t| (t.api, t.provider)),
            Some((Api::OpenAiChat, "vllm".to_owned()))
        );
        assert_eq!(
            detect_as(Family::OpenAi, "vllm", "/v1/messages", "POST"),
            None
        );
    }

    #[test]
    fn websockets_are_recognised() {
        let gemini = "/ws/google.ai.generativelanguage.v1beta.GenerativeService";
        let vertex = "/ws/google.cloud.aiplatform.v1.LlmBidiService";
        for (host, path, api, provider, model) in [
            (
                "api.openai.com",
                "/v1/realtime?model=gpt-realtime",
                Api::OpenAiRealtime,
                "openai",
                Some("gpt-realtime"),
            ),
            (
                "api.openai.com",
                "/v1/realtime?intent=transcription",
                Api::OpenAiRealtime,
                "openai",
                None,
            ),
            (
                "r.openai.azure.com",
                "/openai/realtime?api-version=1&deployment=my%20own&api-key=k",
                Api::OpenAiRealtime,
                "azure",
                Some("my own"),
            ),
            (
                "r.openai.azure.com",
                "/openai/v1/realtime?model=mine",
                Api::OpenAiRealtime,
                "azure",
                Some("mine"),
            ),
            (
                "api.openai.com",
                "/v1/responses?model=m",
                Api::OpenAiResponses,
                "openai",
                None,
            ),
            (
                "generativelanguage.googleapis.com",
                &format!("{gemini}.BidiGenerateContent?key=secret"),
                Api::GeminiLive,
                "google",
                None,
            ),
            (
                "us-central1-aiplatform.googleapis.com",
                &format!("{vertex}/BidiGenerateContent"),
                Api::GeminiLive,
                "vertex",
                None,
            ),
        ] {
            let expected = (api, provider.to_owned(), model.map(str::to_owned));
            assert_eq!(metered(host, path, WEBSOCKET), Some(expected), "{path}");
            assert_eq!(metered(host, path, "GET"), None, "{path}");
        }
    }
}
