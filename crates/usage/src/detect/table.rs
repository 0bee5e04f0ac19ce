//! The table of hosts and paths that are recognised, and where each was read.

use super::pattern::match_host;
use super::{Api, Family, WEBSOCKET};

/// A provider's hosts, and what they offer.
pub(super) struct Service {
    pub(super) provider: &'static str,
    hosts: &'static [&'static str],
    /// In the order in which they are tried.
    pub(super) families: &'static [Family],
    /// Whether `stream_options.include_usage` is documented there.
    pub(super) takes_include_usage: bool,
}

impl Service {
    /// The region that an AWS host names: `bedrock-runtime.{region}.amazonaws.com`; `cn` for the
    /// hosts at which providers in mainland China serve it, by a price list of their own.
    pub(super) fn region<'a>(&self, host: &'a str) -> Option<&'a str> {
        if MAINLAND_HOSTS.contains(&host) {
            return Some("cn");
        }
        let is_aws = matches!(
            self.provider,
            "aws-bedrock" | "bedrock-mantle" | "claude-aws"
        );
        let is_region = |part: &&str| {
            let mut words = part.split('-');
            let number = words.next_back().unwrap_or_default();
            let is_number = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
            is_number && words.count() >= 2
        };
        is_aws.then(|| host.rsplit('.').find(is_region)).flatten()
    }

    /// The region in which OpenAI was told to keep and process what it is sent, as a prefix of its
    /// host (<https://developers.openai.com/api/docs/guides/data-residency>: `eu.api.openai.com`,
    /// `us.…`, `au.…`, `in.…`, `jp.…`); calls to such hosts are charged an uplift for some models.
    pub(super) fn data_residency<'a>(&self, host: &'a str) -> Option<&'a str> {
        let prefix = host.strip_suffix(".api.openai.com")?;
        let is_region = prefix.len() == 2 && prefix.bytes().all(|b| b.is_ascii_lowercase());
        (self.provider == "openai" && is_region).then_some(prefix)
    }

    /// An API that it offers, and that answers at once.
    pub(super) fn sibling(&self) -> Api {
        let rules = self.families.iter().flat_map(|family| family.paths());
        let mut apis = rules.map(|rule| rule.api);
        apis.find(|api| !api.is_told_later())
            .unwrap_or(Api::OpenAiChat)
    }

    pub(super) fn serves(&self, host: &str) -> bool {
        self.hosts.iter().any(|pattern| match_host(pattern, host))
    }
}

/// An endpoint of a family.
pub(super) struct PathRule {
    pub(super) method: &'static str,
    pub(super) path: &'static str,
    pub(super) api: Api,
    /// Whether `stream_options.include_usage` is known there, where the host takes it at all.
    pub(super) takes_include_usage: bool,
}

impl PathRule {
    /// The same, at an endpoint that does not know `stream_options.include_usage`.
    const fn without_usage_option(self) -> PathRule {
        PathRule {
            takes_include_usage: false,
            ..self
        }
    }
}

const fn post(path: &'static str, api: Api) -> PathRule {
    PathRule {
        method: "POST",
        path,
        api,
        takes_include_usage: true,
    }
}

const fn get(path: &'static str, api: Api) -> PathRule {
    PathRule {
        method: "GET",
        path,
        api,
        takes_include_usage: true,
    }
}

const fn websocket(path: &'static str, api: Api) -> PathRule {
    PathRule {
        method: WEBSOCKET,
        path,
        api,
        takes_include_usage: true,
    }
}

/// A service that answers as OpenAI does, and of which no more is known.
const fn compatible(provider: &'static str, hosts: &'static [&'static str]) -> Service {
    Service {
        provider,
        hosts,
        families: &[Family::OpenAi, Family::Anthropic],
        takes_include_usage: false,
    }
}

pub(super) const SERVICES: &[Service] = &[
    // https://platform.openai.com/docs/api-reference; regional hosts:
    // https://platform.openai.com/docs/guides/your-data#data-residency-controls
    Service {
        provider: "openai",
        hosts: &["api.openai.com", "*.api.openai.com"],
        families: &[Family::OpenAi],
        takes_include_usage: true,
    },
    // https://platform.claude.com/docs/en/api/overview
    Service {
        provider: "anthropic",
        hosts: &["api.anthropic.com"],
        families: &[Family::Anthropic, Family::OpenAi],
        takes_include_usage: true,
    },
    // https://docs.aws.amazon.com/claude-platform/latest/userguide/making-requests.html (run by
    // Anthropic, charged by AWS)
    Service {
        provider: "claude-aws",
        hosts: &["aws-external-anthropic.*.api.aws"],
        families: &[Family::Anthropic],
        takes_include_usage: false,
    },
    // https://ai.google.dev/api and https://ai.google.dev/gemini-api/docs/openai
    Service {
        provider: "google",
        hosts: &["generativelanguage.googleapis.com"],
        families: &[Family::Gemini, Family::OpenAi],
        takes_include_usage: true,
    },
    // https://cloud.google.com/vertex-ai/docs/reference/rest#service-endpoint
    Service {
        provider: "vertex",
        hosts: &[
            "aiplatform.googleapis.com",
            "*-aiplatform.googleapis.com",
            "aiplatform.*.rep.googleapis.com",
        ],
        families: &[Family::Vertex, Family::OpenAi],
        takes_include_usage: true,
    },
    // https://learn.microsoft.com/azure/ai-foundry/openai/reference
    Service {
        provider: "azure",
        hosts: &[
            "*.openai.azure.com",
            // https://learn.microsoft.com/azure/azure-government/compare-azure-government-global-azure
            "*.openai.azure.us",
            // https://learn.microsoft.com/azure/ai-foundry/how-to/deploy-models-serverless
            "*.models.ai.azure.com",
            "*.services.ai.azure.com",
            "*.cognitiveservices.azure.com",
        ],
        families: &[Family::Azure, Family::OpenAi, Family::Anthropic],
        takes_include_usage: true,
    },
    // https://console.groq.com/docs/api-reference
    Service {
        provider: "groq",
        hosts: &["api.groq.com"],
        families: &[Family::OpenAi],
        takes_include_usage: true,
    },
    // https://docs.x.ai/docs/api-reference
    Service {
        provider: "xai",
        hosts: &["api.x.ai", "*.api.x.ai"],
        families: &[Family::OpenAi, Family::Anthropic],
        takes_include_usage: true,
    },
    // https://api-docs.deepseek.com/api/create-chat-completion
    Service {
        provider: "deepseek",
        hosts: &["api.deepseek.com"],
        families: &[Family::OpenAi, Family::Anthropic],
        takes_include_usage: true,
    },
    // https://docs.mistral.ai/api (usage comes unasked, unknown keys are refused)
    Service {
        provider: "mistral",
        hosts: &["api.mistral.ai", "codestral.mistral.ai"],
        families: &[Family::Mistral, Family::OpenAi],
        takes_include_usage: false,
    },
    // https://openrouter.ai/docs/api-reference/overview (usage comes unasked)
    Service {
        provider: "openrouter",
        hosts: &["openrouter.ai"],
        families: &[Family::OpenAi, Family::Anthropic],
        takes_include_usage: false,
    },
    // https://docs.together.ai/reference/chat-completions-1
    Service {
        provider: "together",
        hosts: &["api.together.ai", "api.together.xyz"],
        families: &[Family::OpenAi],
        takes_include_usage: true,
    },
    // https://docs.fireworks.ai/api-reference/post-chatcompletions
    Service {
        provider: "fireworks",
        hosts: &["api.fireworks.ai"],
        families: &[Family::OpenAi, Family::Anthropic],
        takes_include_usage: true,
    },
    // https://docs.perplexity.ai/api-reference/chat-completions-post (usage in every chunk)
    Service {
        provider: "perplexity",
        hosts: &["api.perplexity.ai"],
        families: &[Family::OpenAi],
        takes_include_usage: false,
    },
    // https://inference-docs.cerebras.ai/api-reference/chat-completions
    Service {
        provider: "cerebras",
        hosts: &["api.cerebras.ai"],
        families: &[Family::OpenAi],
        takes_include_usage: true,
    },
    // https://huggingface.co/docs/inference-providers (a router: some of the hosts behind it send
    // the usage event unasked, and cutting that out would take from the app what it always got)
    Service {
        provider: "huggingface",
        hosts: &["router.huggingface.co"],
        families: &[Family::OpenAi],
        takes_include_usage: false,
    },
    // https://platform.moonshot.ai/docs/api/chat
    Service {
        provider: "moonshotai",
        hosts: &["api.moonshot.ai", "api.moonshot.cn"],
        families: &[Family::OpenAi, Family::Anthropic],
        takes_include_usage: true,
    },
    // https://www.alibabacloud.com/help/model-studio/use-qwen-by-calling-api
    Service {
        provider: "alibaba",
        hosts: &[
            "dashscope.aliyuncs.com",
            "dashscope-intl.aliyuncs.com",
            "dashscope-us.aliyuncs.com",
            "*.dashscope.aliyuncs.com",
            // https://www.alibabacloud.com/help/en/model-studio/explicit-cache-guide
            "*.maas.aliyuncs.com",
        ],
        families: &[Family::DashScope, Family::OpenAi, Family::Anthropic],
        takes_include_usage: true,
    },
    // https://docs.z.ai/api-reference/llm/chat-completion (usage comes unasked)
    Service {
        provider: "zai",
        hosts: &["api.z.ai", "open.bigmodel.cn"],
        families: &[Family::OpenAi, Family::Anthropic],
        takes_include_usage: false,
    },
    // https://platform.minimax.io/docs/api-reference
    Service {
        provider: "minimax",
        hosts: &["api.minimax.io", "api.minimaxi.com"],
        families: &[Family::OpenAi, Family::Anthropic],
        takes_include_usage: false,
    },
    // https://docs.github.com/copilot (usage comes unasked)
    Service {
        provider: "github-copilot",
        hosts: &["api.githubcopilot.com", "*.githubcopilot.com"],
        families: &[Family::OpenAi, Family::Anthropic],
        takes_include_usage: false,
    },
    // https://developers.openai.com/codex (Responses only)
    Service {
        provider: "chatgpt",
        hosts: &["chatgpt.com"],
        families: &[Family::OpenAi],
        takes_include_usage: false,
    },
    // https://docs.aws.amazon.com/bedrock/latest/userguide/bedrock-mantle.html
    Service {
        provider: "bedrock-mantle",
        hosts: &["bedrock-mantle.*.api.aws"],
        families: &[Family::OpenAi, Family::Anthropic],
        takes_include_usage: true,
    },
    // https://vercel.com/docs/ai-gateway/openai-compat (usage comes unasked)
    Service {
        provider: "vercel-ai-gateway",
        hosts: &["ai-gateway.vercel.sh"],
        families: &[Family::OpenAi, Family::Anthropic],
        takes_include_usage: false,
    },
    // https://portkey.ai/docs/api-reference
    Service {
        provider: "portkey",
        hosts: &["api.portkey.ai"],
        families: &[Family::OpenAi, Family::Anthropic],
        takes_include_usage: false,
    },
    // https://devcenter.heroku.com/articles/heroku-inference-api-v1-chat-completions
    Service {
        provider: "heroku",
        hosts: &["*.inference.heroku.com"],
        families: &[Family::OpenAi],
        takes_include_usage: false,
    },
    // https://docs.snowflake.com/user-guide/snowflake-cortex/open_ai_sdk
    Service {
        provider: "snowflake",
        hosts: &["*.snowflakecomputing.com"],
        families: &[Family::OpenAi, Family::Anthropic],
        takes_include_usage: false,
    },
    // https://docs.databricks.com/aws/en/machine-learning/foundation-model-apis/api-reference
    Service {
        provider: "databricks",
        hosts: &[
            "*.cloud.databricks.com",
            "*.azuredatabricks.net",
            "*.gcp.databricks.com",
        ],
        families: &[Family::Databricks, Family::OpenAi, Family::Anthropic],
        takes_include_usage: false,
    },
    // https://docs.venice.ai/api-reference/endpoint/chat/completions
    Service {
        provider: "venice",
        hosts: &["api.venice.ai"],
        families: &[Family::OpenAi],
        takes_include_usage: true,
    },
    // https://docs.doubleword.ai
    Service {
        provider: "doubleword",
        hosts: &["api.doubleword.ai"],
        families: &[Family::OpenAi],
        takes_include_usage: true,
    },
    // https://docs.crusoecloud.com/managed-inference
    Service {
        provider: "crusoe",
        hosts: &["api.inference.crusoecloud.com"],
        families: &[Family::OpenAi],
        takes_include_usage: true,
    },
    // https://avian.io/docs
    Service {
        provider: "avian",
        hosts: &["api.avian.io"],
        families: &[Family::OpenAi],
        takes_include_usage: false,
    },
    // https://dev.writer.com/api-reference/completion-api/chat-completion
    Service {
        provider: "writer",
        hosts: &["api.writer.com"],
        families: &[Family::Writer, Family::OpenAi],
        takes_include_usage: true,
    },
    // https://wavespeed.ai/blog/posts/fugu-ultra-api-guide/
    Service {
        provider: "sakana",
        hosts: &["api.sakana.ai"],
        families: &[Family::OpenAi, Family::Anthropic],
        takes_include_usage: false,
    },
    // https://docs.voyageai.com/reference/embeddings-api
    Service {
        provider: "voyage",
        hosts: &["api.voyageai.com"],
        families: &[Family::OpenAi],
        takes_include_usage: false,
    },
    // https://docs.api.nvidia.com/nim/reference/llm-apis (the option is not among what is documented;
    // https://github.com/langchain-ai/langchain-nvidia/pull/168: some of the models do not take it,
    // https://github.com/HKUDS/DeepTutor/pull/420: such calls hang)
    Service {
        provider: "nvidia",
        hosts: &["integrate.api.nvidia.com"],
        families: &[Family::OpenAi],
        takes_include_usage: false,
    },
    // https://deepinfra.com/docs/openai_api
    Service {
        provider: "deepinfra",
        hosts: &["api.deepinfra.com"],
        families: &[Family::OpenAi, Family::Anthropic],
        takes_include_usage: true,
    },
    // https://docs.sambanova.ai/docs/en/api-reference/chat-completion
    Service {
        provider: "sambanova",
        hosts: &["api.sambanova.ai"],
        families: &[Family::OpenAi],
        takes_include_usage: true,
    },
    // https://docs.nebius.com/studio/inference/api
    Service {
        provider: "nebius",
        hosts: &["api.studio.nebius.com", "api.tokenfactory.nebius.com"],
        families: &[Family::OpenAi],
        takes_include_usage: true,
    },
    // https://novita.ai/docs/api-reference
    Service {
        provider: "novita",
        hosts: &["api.novita.ai"],
        families: &[Family::OpenAi],
        takes_include_usage: true,
    },
    // https://dev.meta.ai/docs/overview
    Service {
        provider: "meta",
        hosts: &["api.meta.ai"],
        families: &[Family::OpenAi, Family::Anthropic],
        takes_include_usage: false,
    },
    // https://www.volcengine.com/docs/82379/1494384, https://docs.byteplus.com/en/docs/ModelArk/1494384
    Service {
        provider: "volcengine",
        hosts: &["ark.*.volces.com", "ark.*.bytepluses.com"],
        families: &[Family::OpenAi],
        takes_include_usage: false,
    },
    // https://docs.siliconflow.com/en/api-reference/chat-completions/chat-completions
    Service {
        provider: "siliconflow",
        hosts: &["api.siliconflow.cn", "api.siliconflow.com"],
        families: &[Family::OpenAi, Family::Anthropic],
        takes_include_usage: false,
    },
    // https://cloud.baidu.com/doc/qianfan-api/s/3m7of64lb
    Service {
        provider: "baidu",
        hosts: &["qianfan.baidubce.com"],
        families: &[Family::OpenAi],
        takes_include_usage: false,
    },
    // https://cloud.tencent.com/document/product/1729/111007
    Service {
        provider: "tencent",
        hosts: &[
            "api.hunyuan.cloud.tencent.com",
            // https://cloud.tencent.com/document/product/1772/115969
            "api.lkeap.cloud.tencent.com",
        ],
        families: &[Family::OpenAi, Family::Anthropic],
        takes_include_usage: false,
    },
    // https://platform.stepfun.com/docs/api-reference/chat/chat-completion-create
    Service {
        provider: "stepfun",
        hosts: &["api.stepfun.com", "api.stepfun.ai"],
        families: &[Family::OpenAi, Family::Anthropic],
        takes_include_usage: false,
    },
    // https://docs.github.com/rest/models/inference
    Service {
        provider: "github-models",
        hosts: &["models.github.ai", "models.inference.ai.azure.com"],
        families: &[Family::OpenAi],
        takes_include_usage: false,
    },
    // https://developers.cloudflare.com/workers-ai/get-started/rest-api/
    Service {
        provider: "cloudflare",
        hosts: &["api.cloudflare.com"],
        families: &[Family::Cloudflare, Family::OpenAi],
        takes_include_usage: false,
    },
    // https://developers.cloudflare.com/ai-gateway/usage/chat-completion/: by the model's name, its
    // provider's too; see also `relay`.
    Service {
        provider: "cloudflare-ai-gateway",
        hosts: &["gateway.ai.cloudflare.com"],
        families: &[Family::OpenAi],
        takes_include_usage: false,
    },
    // https://docs.baseten.co/development/model-apis/overview
    compatible("baseten", &["inference.baseten.co", "*.api.baseten.co"]),
    // https://chutes.ai/docs
    compatible("chutes", &["llm.chutes.ai"]),
    // https://docs.digitalocean.com/products/gradient-ai-platform
    compatible("digitalocean", &["inference.do-ai.run"]),
    // https://friendli.ai/docs
    compatible("friendli", &["api.friendli.ai"]),
    // https://docs.gmicloud.ai
    compatible("gmicloud", &["api.gmi-serving.com"]),
    // https://docs.inference.net
    compatible("inference", &["api.inference.net", "inference.net"]),
    // https://docs.lambda.ai/public-cloud/lambda-inference-api
    compatible("lambda", &["api.lambda.ai", "api.lambdalabs.com"]),
    // https://www.mixedbread.com/docs
    compatible("mixedbread", &["api.mixedbread.com", "api.mixedbread.ai"]),
    // https://modelscope.cn/docs/model-service/API-Inference/intro
    compatible("modelscope", &["api-inference.modelscope.cn"]),
    // https://docs.morphllm.com
    compatible("morph", &["api.morphllm.com"]),
    // https://nova.amazon.com/dev/documentation
    compatible("nova", &["api.nova.amazon.com"]),
    // https://www.ovhcloud.com/en/public-cloud/ai-endpoints
    compatible("ovhcloud", &["*.endpoints.kepler.ai.cloud.ovh.net"]),
    // https://docs.requesty.ai
    compatible("requesty", &["router.requesty.ai"]),
    // https://www.scaleway.com/en/docs/generative-apis
    compatible("scaleway", &["api.scaleway.ai"]),
    // https://docs.vultr.com/products/compute/serverless-inference
    compatible("vultr", &["api.vultrinference.com"]),
    // https://docs.wandb.ai/inference
    compatible("wandb", &["api.inference.wandb.ai"]),
    // https://platform.xiaomimimo.com/docs
    compatible("xiaomi", &["*.xiaomimimo.com"]),
    // https://docs.reka.ai/api-reference/chat/create
    Service {
        provider: "reka",
        hosts: &["api.reka.ai"],
        families: &[Family::Writer, Family::OpenAi],
        takes_include_usage: false,
    },
    // https://docs.ai21.com/reference/jamba-1-6-api-ref
    Service {
        provider: "ai21",
        hosts: &["api.ai21.com"],
        families: &[Family::OpenAi],
        takes_include_usage: false,
    },
    // https://console.upstage.ai/api/chat
    Service {
        provider: "upstage",
        hosts: &["api.upstage.ai"],
        families: &[Family::OpenAi],
        takes_include_usage: false,
    },
    // https://docs.inceptionlabs.ai/get-started/get-started
    Service {
        provider: "inception",
        hosts: &["api.inceptionlabs.ai"],
        families: &[Family::OpenAi],
        takes_include_usage: false,
    },
    // https://docs.hyperbolic.xyz/docs/inference-api
    Service {
        provider: "hyperbolic",
        hosts: &["api.hyperbolic.xyz"],
        families: &[Family::OpenAi],
        takes_include_usage: false,
    },
    // https://platform.baichuan-ai.com/docs/api
    Service {
        provider: "baichuan",
        hosts: &["api.baichuan-ai.com"],
        families: &[Family::OpenAi],
        takes_include_usage: false,
    },
    // https://api.jina.ai/redoc
    Service {
        provider: "jina",
        hosts: &["api.jina.ai", "deepsearch.jina.ai"],
        families: &[Family::OpenAi],
        takes_include_usage: false,
    },
    // https://docs.cohere.com/reference/about
    Service {
        provider: "cohere",
        hosts: &["api.cohere.com", "api.cohere.ai"],
        families: &[Family::Cohere, Family::OpenAi],
        takes_include_usage: false,
    },
    // https://github.com/ollama/ollama/blob/main/docs/api.md
    Service {
        provider: "ollama",
        hosts: &["ollama.com"],
        families: &[Family::Ollama, Family::OpenAi, Family::Anthropic],
        takes_include_usage: true,
    },
    // https://cloud.ibm.com/apidocs/watsonx-ai
    Service {
        provider: "watsonx",
        hosts: &["*.ml.cloud.ibm.com"],
        families: &[Family::Watsonx, Family::OpenAi],
        takes_include_usage: false,
    },
    // https://docs.aws.amazon.com/bedrock/latest/APIReference
    Service {
        provider: "aws-bedrock",
        hosts: &[
            "bedrock-runtime.*.amazonaws.com",
            "bedrock-runtime-fips.*.amazonaws.com",
            "*.bedrock-runtime.*.vpce.amazonaws.com",
            "bedrock-runtime.*.api.aws",
            "bedrock-runtime-fips.*.api.aws",
            "bedrock-runtime.*.amazonaws.com.cn",
        ],
        families: &[Family::Bedrock, Family::OpenAi, Family::Anthropic],
        takes_include_usage: false,
    },
    // https://docs.aws.amazon.com/bedrock/latest/APIReference/API_Operations_Agents_for_Amazon_Bedrock_Runtime.html
    // (agents and knowledge bases: their answers tell no total, so that they are only counted)
    Service {
        provider: "aws-bedrock",
        hosts: &["bedrock-agent-runtime.*.amazonaws.com"],
        families: &[],
        takes_include_usage: false,
    },
];

/// Hosts of providers that have another one, and another price list, for the rest of the world:
/// <https://docs.bigmodel.cn> and <https://docs.z.ai>, <https://platform.moonshot.cn/docs> and
/// <https://platform.moonshot.ai/docs>, <https://docs.siliconflow.cn> and
/// <https://docs.siliconflow.com>, <https://platform.minimaxi.com/docs> and
/// <https://platform.minimax.io/docs>, <https://help.aliyun.com/zh/model-studio> and
/// <https://www.alibabacloud.com/help/model-studio>.
const MAINLAND_HOSTS: &[&str] = &[
    "open.bigmodel.cn",
    "api.moonshot.cn",
    "api.siliconflow.cn",
    "api.minimaxi.com",
    "dashscope.aliyuncs.com",
];

/// Azure names the deployment in the path
/// (<https://learn.microsoft.com/azure/ai-foundry/openai/reference>); what model that is only the
/// answer tells.
pub(super) const AZURE_PATHS: &[PathRule] = &[
    post("**/deployments/{model}/chat/completions", Api::OpenAiChat),
    // https://github.com/openai/openai-python/issues/2296: refused by what answers from data of
    // one's own.
    post(
        "**/deployments/{model}/extensions/chat/completions",
        Api::OpenAiChat,
    )
    .without_usage_option(),
    // https://learn.microsoft.com/azure/ai-services/openai/reference-preview#completions---create
    post("**/deployments/{model}/completions", Api::OpenAiCompletions).without_usage_option(),
    post("**/deployments/{model}/embeddings", Api::OpenAiEmbeddings),
    post(
        "**/deployments/{model}/images/generations",
        Api::OpenAiImages,
    ),
    post("**/deployments/{model}/images/edits", Api::OpenAiImages),
    post(
        "**/deployments/{model}/audio/transcriptions",
        Api::OpenAiAudio,
    ),
    post(
        "**/deployments/{model}/audio/translations",
        Api::OpenAiAudio,
    ),
    post("**/deployments/{model}/audio/speech", Api::OpenAiAudio),
    // https://learn.microsoft.com/azure/ai-foundry/foundry-models/how-to/use-foundry-models-mistral
    post("**/providers/mistral/azure/ocr", Api::MistralOcr),
];

/// An endpoint answers in the shape of what it serves, chat or vectors
/// (<https://docs.databricks.com/aws/en/machine-learning/foundation-model-apis/api-reference>).
pub(super) const DATABRICKS_PATHS: &[PathRule] = &[post(
    "/serving-endpoints/{model}/invocations",
    Api::OpenAiChat,
)];

/// Models of Cloudflare's own and of partners, `@cf/{author}/{model}` and `{author}/{model}`.
pub(super) const CLOUDFLARE_PATHS: &[PathRule] = &[
    post("/client/v4/accounts/*/ai/run/*/*/{model}", Api::OpenAiChat),
    post("/client/v4/accounts/*/ai/run/*/{model}", Api::OpenAiChat),
    // Behind the AI gateway (https://developers.cloudflare.com/ai-gateway/usage/providers/workersai/).
    post("/@cf/*/{model}", Api::OpenAiChat),
];

/// Providers whose hosts serve much that has nothing to do with models: what is not recognised
/// there is no call that went unmetered.
pub(super) const SHARED_HOSTS: &[&str] = &["snowflake", "databricks", "chatgpt", "cloudflare"];

/// <https://docs.mistral.ai/api/#tag/ocr>, `…#tag/beta.conversations`
pub(super) const MISTRAL_PATHS: &[PathRule] = &[
    post("/v1/ocr", Api::MistralOcr),
    // `…#tag/agents`, `…#tag/fim`: both answer chat completions.
    post("/v1/agents/completions", Api::OpenAiChat),
    post("/v1/fim/completions", Api::OpenAiChat),
    // https://docs.mistral.ai/api/#tag/classifiers: answered and counted as moderations are.
    post("/v1/classifications", Api::OpenAiModerations),
    post("/v1/chat/classifications", Api::OpenAiModerations),
    post("/v1/conversations", Api::MistralConversations),
    post("/v1/conversations/*", Api::MistralConversations),
    post("/v1/conversations/*/restart", Api::MistralConversations),
    // https://docs.mistral.ai/capabilities/batch
    post("/v1/batch/jobs", Api::OpenAiBatches),
    get("/v1/batch/jobs/*", Api::OpenAiBatches),
    post("/v1/batch/jobs/*/cancel", Api::OpenAiBatches),
];

/// <https://www.alibabacloud.com/help/model-studio/qwen-api-via-dashscope>
pub(super) const DASHSCOPE_PATHS: &[PathRule] = &[
    post(
        "/api/v1/services/aigc/text-generation/generation",
        Api::DashScopeGenerate,
    ),
    post(
        "/api/v1/services/aigc/multimodal-generation/generation",
        Api::DashScopeGenerate,
    ),
    post("/api/v1/services/embeddings/*/*", Api::OpenAiEmbeddings),
    post("/api/v1/services/rerank/*/*", Api::Rerank),
    // https://www.alibabacloud.com/help/model-studio/text-rerank-api
    post("**/compatible-api/v1/reranks", Api::Rerank),
];

/// <https://dev.writer.com/api-reference/completion-api/chat-completion>
pub(super) const WRITER_PATHS: &[PathRule] = &[post("/v1/chat", Api::OpenAiChat)];

/// <https://docs.cohere.com/reference/about>
pub(super) const COHERE_PATHS: &[PathRule] = &[
    post("**/v2/chat", Api::CohereChat),
    post("**/v1/chat", Api::CohereV1Chat),
    // https://docs.cohere.com/v1/reference/generate: counted as version 1's chat is.
    post("**/v1/generate", Api::CohereV1Chat),
    post("**/*/embed", Api::CohereEmbed),
    post("**/*/rerank", Api::CohereRerank),
    post("**/*/audio/transcriptions", Api::CohereAudio),
];

/// <https://github.com/ollama/ollama/blob/main/docs/api.md>
pub(super) const OLLAMA_PATHS: &[PathRule] = &[
    post("**/api/chat", Api::OllamaChat),
    post("**/api/generate", Api::OllamaGenerate),
    post("**/api/embed", Api::OllamaEmbed),
    // The older endpoint counts nothing.
    post("**/api/embeddings", Api::OllamaEmbed),
];

/// The shapes that hosts copy, and the provider that their calls are counted under where the host
/// is unknown. Shorter than the families: a path that others use too proves nothing.
pub(super) const COMPATIBLE_PATHS: &[(&str, PathRule)] = &[
    (
        "openai-compatible",
        post("**/chat/completions", Api::OpenAiChat),
    ),
    (
        "openai-compatible",
        post("**/v1/completions", Api::OpenAiCompletions),
    ),
    (
        "openai-compatible",
        post("**/v1/responses", Api::OpenAiResponses),
    ),
    (
        "openai-compatible",
        post("**/v1/embeddings", Api::OpenAiEmbeddings),
    ),
    ("openai-compatible", post("**/v1/rerank", Api::Rerank)),
    ("openai-compatible", post("**/v2/rerank", Api::Rerank)),
    (
        "openai-compatible",
        post("**/v1/images/generations", Api::OpenAiImages),
    ),
    (
        "openai-compatible",
        post("**/v1/audio/transcriptions", Api::OpenAiAudio),
    ),
    (
        "openai-compatible",
        post("**/v1/audio/translations", Api::OpenAiAudio),
    ),
    (
        "openai-compatible",
        post("**/v1/audio/speech", Api::OpenAiAudio),
    ),
    (
        "anthropic-compatible",
        post("**/v1/messages", Api::AnthropicMessages),
    ),
    (
        "gemini-compatible",
        post("**/models/{model}:generateContent", Api::GeminiGenerate),
    ),
    (
        "gemini-compatible",
        post(
            "**/models/{model}:streamGenerateContent",
            Api::GeminiStreamGenerate,
        ),
    ),
];

/// Ollama listens at this port where it is not told otherwise
/// (<https://github.com/ollama/ollama/blob/main/docs/faq.md>).
pub(super) const OLLAMA_PORT: &str = "11434";

/// <https://cloud.ibm.com/apidocs/watsonx-ai>
pub(super) const WATSONX_PATHS: &[PathRule] = &[
    post("**/ml/*/generation/text_stream", Api::WatsonxGenerate),
    post("**/ml/*/generation/text", Api::WatsonxGenerate),
    post("**/ml/*/text/generation_stream", Api::WatsonxGenerate),
    post("**/ml/*/text/generation", Api::WatsonxGenerate),
    post("**/ml/*/text/chat", Api::OpenAiChat),
    post("**/ml/*/text/chat_stream", Api::OpenAiChat),
    post("**/ml/*/text/embeddings", Api::WatsonxEmbed),
    post("**/ml/*/text/rerank", Api::WatsonxEmbed),
    // https://cloud.ibm.com/apidocs/watsonx-ai#deployments-text-generation: models that the user
    // deployed; the answer names them.
    post(
        "**/ml/*/deployments/*/text/generation_stream",
        Api::WatsonxGenerate,
    ),
    post(
        "**/ml/*/deployments/*/text/generation",
        Api::WatsonxGenerate,
    ),
    post("**/ml/*/deployments/*/text/chat", Api::OpenAiChat),
    post("**/ml/*/deployments/*/text/chat_stream", Api::OpenAiChat),
];

/// <https://docs.aws.amazon.com/bedrock/latest/APIReference/welcome.html>, runtime operations
pub(super) const BEDROCK_PATHS: &[PathRule] = &[
    post("**/model/{model}/converse", Api::BedrockConverse),
    post(
        "**/model/{model}/converse-stream",
        Api::BedrockConverseStream,
    ),
    post("**/model/{model}/invoke", Api::BedrockInvoke),
    post(
        "**/model/{model}/invoke-with-response-stream",
        Api::BedrockInvokeStream,
    ),
    post("**/model/{model}/count-tokens", Api::BedrockCountTokens),
    // The `/` of an ARN, unescaped on its way: what follows it names the model or profile.
    post("**/model/*/{model}/converse", Api::BedrockConverse),
    post(
        "**/model/*/{model}/converse-stream",
        Api::BedrockConverseStream,
    ),
    post("**/model/*/{model}/invoke", Api::BedrockInvoke),
    post(
        "**/model/*/{model}/invoke-with-response-stream",
        Api::BedrockInvokeStream,
    ),
    post("**/guardrail/*/version/*/apply", Api::BedrockApplyGuardrail),
];

/// <https://platform.openai.com/docs/api-reference>; compatible hosts put them under prefixes.
pub(super) const OPENAI_PATHS: &[PathRule] = &[
    // https://docs.perplexity.ai/api-reference/async-chat-completions-post,
    // https://docs.bigmodel.cn/api-reference (asynchronous chat completions)
    post("**/async/chat/completions", Api::OpenAiAsyncChat),
    get("**/async/chat/completions/{response}", Api::OpenAiAsyncChat),
    // https://docs.perplexity.ai/api-reference/async-sonar-post
    post("**/v1/async/sonar", Api::OpenAiAsyncChat),
    get("**/v1/async/sonar/{response}", Api::OpenAiAsyncChat),
    get("**/async-result/{response}", Api::OpenAiAsyncChat),
    // https://docs.x.ai/docs/guides/deferred-chat-completions
    get(
        "**/chat/deferred-completion/{response}",
        Api::OpenAiAsyncChat,
    ),
    post("**/chat/completions", Api::OpenAiChat),
    // https://docs.perplexity.ai/api-reference/sonar-post
    post("**/v1/sonar", Api::OpenAiChat),
    // https://platform.minimax.io/docs/api-reference/text-post
    post("**/text/chatcompletion_v2", Api::OpenAiChat),
    // https://console.upstage.ai/api/document-digitization/document-parsing
    post("**/v1/document-digitization", Api::MistralOcr),
    // Stored prompts: https://portkey.ai/docs/api-reference/inference-api/prompts
    post("**/prompts/*/completions", Api::OpenAiChat),
    post("**/completions", Api::OpenAiCompletions),
    post("**/embeddings", Api::OpenAiEmbeddings),
    // https://docs.voyageai.com/reference/multimodal-embeddings-api, …/contextualized-embeddings-api
    post("**/multimodalembeddings", Api::OpenAiEmbeddings),
    post("**/contextualizedembeddings", Api::OpenAiEmbeddings),
    // https://www.volcengine.com/docs/82379/1523520
    post("**/embeddings/multimodal", Api::OpenAiEmbeddings),
    // https://docs.snowflake.com/developer-guide/snowflake-rest-api/reference/cortex-inference
    post("**/cortex/inference:complete", Api::OpenAiChat),
    post("**/cortex/inference:embed", Api::OpenAiEmbeddings),
    post("**/responses", Api::OpenAiResponses),
    // https://docs.perplexity.ai/api-reference/agent-post
    post("**/v1/agent", Api::OpenAiResponses),
    // https://developers.openai.com/api/docs/guides/websocket-mode
    websocket("**/responses", Api::OpenAiResponses),
    // https://platform.openai.com/docs/guides/realtime-websocket
    websocket("**/realtime", Api::OpenAiRealtime),
    post("**/responses/compact", Api::OpenAiResponsesCompact),
    post("**/responses/input_tokens", Api::OpenAiCountTokens),
    post("**/responses/*/cancel", Api::OpenAiResponsesRetrieve),
    get("**/responses/*", Api::OpenAiResponsesRetrieve),
    post("**/images/generations", Api::OpenAiImages),
    post("**/images/edits", Api::OpenAiImages),
    // https://openrouter.ai/docs/guides/overview/multimodal/image-generation
    post("**/v1/images", Api::OpenAiImages),
    post("**/images/variations", Api::OpenAiImages),
    post("**/audio/transcriptions", Api::OpenAiAudio),
    post("**/audio/translations", Api::OpenAiAudio),
    post("**/audio/speech", Api::OpenAiAudio),
    post("**/moderations", Api::OpenAiModerations),
    post("**/rerank", Api::Rerank),
    post("**/threads/runs", Api::OpenAiAssistantsRun),
    post("**/threads/*/runs", Api::OpenAiAssistantsRun),
    get("**/threads/*/runs/*", Api::OpenAiAssistantsRun),
    post("**/threads/*/runs/*", Api::OpenAiAssistantsRun),
    post("**/threads/*/runs/*/cancel", Api::OpenAiAssistantsRun),
    post(
        "**/threads/*/runs/*/submit_tool_outputs",
        Api::OpenAiAssistantsRun,
    ),
    // https://platform.openai.com/docs/api-reference/videos, https://docs.x.ai/docs/guides/video-generations
    post("**/v1/videos", Api::OpenAiVideos),
    post("**/v1/videos/generations", Api::OpenAiVideos),
    post("**/v1/videos/*/remix", Api::OpenAiVideos),
    get("**/v1/videos/{response}", Api::OpenAiVideos),
    // https://platform.openai.com/docs/api-reference/batch/object: what a batch used stands in it
    // once it has ended. Not every host that has batches says so.
    post("**/v1/batches", Api::OpenAiBatches),
    get("**/v1/batches/*", Api::OpenAiBatches),
    post("**/v1/batches/*/cancel", Api::OpenAiBatches),
    post("**/openai/batches", Api::OpenAiBatches),
    get("**/openai/batches/*", Api::OpenAiBatches),
    post("**/openai/batches/*/cancel", Api::OpenAiBatches),
];

/// Which of these start a run, a batch or a video and are no look at an earlier one. Their answers come before
/// there is usage, unless they are streams (<https://platform.openai.com/docs/api-reference/runs>).
pub(super) const STARTS: &[&str] = &[
    "**/threads/runs",
    "**/threads/*/runs",
    "**/v1/batches",
    "**/openai/batches",
    "/v1/batch/jobs",
    "**/async/chat/completions",
    "**/v1/async/sonar",
    "**/v1/videos",
    "**/v1/videos/generations",
    "**/v1/videos/*/remix",
    "**/*/{model}:batchGenerateContent",
];

/// <https://platform.claude.com/docs/en/api/overview>
pub(super) const ANTHROPIC_PATHS: &[PathRule] = &[
    post("**/v1/messages", Api::AnthropicMessages),
    post("**/v1/messages/count_tokens", Api::AnthropicCountTokens),
    // https://platform.claude.com/docs/en/build-with-claude/batch-processing: what a batch used is
    // told by its results, a line a request, and by nothing else.
    post("**/v1/messages/batches", Api::AnthropicBatches),
    get(
        "**/v1/messages/batches/{response}/results",
        Api::AnthropicBatchResults,
    ),
    post("**/v1/complete", Api::AnthropicComplete),
];

/// <https://ai.google.dev/api/generate-content>, `…/tokens`, `…/embeddings`,
/// `…/interactions-api`
pub(super) const GEMINI_PATHS: &[PathRule] = &[
    post("**/*/{model}:generateContent", Api::GeminiGenerate),
    post(
        "**/*/{model}:streamGenerateContent",
        Api::GeminiStreamGenerate,
    ),
    post("**/*/{model}:embedContent", Api::GeminiEmbed),
    post("**/*/{model}:batchEmbedContents", Api::GeminiEmbed),
    post("**/*/{model}:predict", Api::GeminiPredict),
    post("**/*/{model}:countTokens", Api::GeminiCountTokens),
    // https://ai.google.dev/gemini-api/docs/batch-api
    post("**/*/{model}:batchGenerateContent", Api::GeminiBatches),
    get("**/batches/*", Api::GeminiBatches),
    post("**/interactions", Api::GeminiInteractions),
    // https://ai.google.dev/gemini-api/docs/background-execution
    get("**/interactions/*", Api::GeminiInteractionsRetrieve),
    post("**/interactions/*/cancel", Api::GeminiInteractionsRetrieve),
    // https://ai.google.dev/api/live; ephemeral tokens use the second.
    websocket(
        "/ws/google.ai.generativelanguage.v1beta.GenerativeService.BidiGenerateContent",
        Api::GeminiLive,
    ),
    websocket(
        "/ws/google.ai.generativelanguage.v1alpha.GenerativeService.BidiGenerateContent",
        Api::GeminiLive,
    ),
    websocket(
        "/ws/google.ai.generativelanguage.v1alpha.GenerativeService.BidiGenerateContentConstrained",
        Api::GeminiLive,
    ),
];

/// <https://cloud.google.com/vertex-ai/generative-ai/docs/model-reference/inference> and
/// <https://cloud.google.com/vertex-ai/generative-ai/docs/partner-models/claude/use-claude>
pub(super) const VERTEX_PATHS: &[PathRule] = &[
    post(
        "**/locations/{location}/publishers/anthropic/models/count-tokens:rawPredict",
        Api::AnthropicCountTokens,
    ),
    post(
        "**/locations/{location}/publishers/anthropic/models/{model}:rawPredict",
        Api::AnthropicMessages,
    ),
    post(
        "**/locations/{location}/publishers/anthropic/models/{model}:streamRawPredict",
        Api::AnthropicMessages,
    ),
    post(
        "**/locations/{location}/publishers/*/models/{model}:generateContent",
        Api::GeminiGenerate,
    ),
    post(
        "**/locations/{location}/publishers/*/models/{model}:streamGenerateContent",
        Api::GeminiStreamGenerate,
    ),
    post(
        "**/locations/{location}/publishers/*/models/{model}:countTokens",
        Api::GeminiCountTokens,
    ),
    post(
        "**/locations/{location}/publishers/*/models/{model}:embedContent",
        Api::GeminiEmbed,
    ),
    post(
        "**/locations/{location}/publishers/*/models/{model}:predict",
        Api::GeminiPredict,
    ),
    // https://cloud.google.com/vertex-ai/generative-ai/docs/partner-models/mistral and …/ai21: the
    // publishers' own chat completions, of which Mistral's refuse keys that they do not know
    // (https://docs.mistral.ai/api) and AI21's have no such option.
    post(
        "**/locations/{location}/publishers/*/models/{model}:rawPredict",
        Api::OpenAiChat,
    )
    .without_usage_option(),
    post(
        "**/locations/{location}/publishers/*/models/{model}:streamRawPredict",
        Api::OpenAiChat,
    )
    .without_usage_option(),
    post(
        "**/locations/{location}/endpoints/{model}:generateContent",
        Api::GeminiGenerate,
    ),
    post(
        "**/locations/{location}/endpoints/{model}:streamGenerateContent",
        Api::GeminiStreamGenerate,
    ),
    // https://cloud.google.com/vertex-ai/generative-ai/docs/model-reference/multimodal-live
    websocket("/ws/*/BidiGenerateContent", Api::GeminiLive),
    // https://googleapis.github.io/js-genai: the same API as at Gemini's own host
    post(
        "**/locations/{location}/interactions",
        Api::GeminiInteractions,
    ),
    get(
        "**/locations/{location}/interactions/*",
        Api::GeminiInteractionsRetrieve,
    ),
    // Express mode has neither project nor location.
    post(
        "**/publishers/*/models/{model}:generateContent",
        Api::GeminiGenerate,
    ),
    post(
        "**/publishers/*/models/{model}:streamGenerateContent",
        Api::GeminiStreamGenerate,
    ),
    post(
        "**/publishers/*/models/{model}:embedContent",
        Api::GeminiEmbed,
    ),
    post(
        "**/publishers/*/models/{model}:countTokens",
        Api::GeminiCountTokens,
    ),
    post(
        "**/locations/{location}/endpoints/*/chat/completions",
        Api::OpenAiChat,
    ),
];

/// What is posted to a provider and charges nothing by itself.
pub(super) const FREE_PATHS: &[&str] = &[
    "**/files",
    "**/uploads",
    "**/uploads/*/parts",
    "**/uploads/*/complete",
    "**/batches",
    "**/batches/*/cancel",
    // https://platform.claude.com/docs/en/managed-agents/overview, https://docs.mistral.ai/api/#tag/beta.agents:
    // what an agent is; what it does is charged by its sessions or conversations.
    "**/v1/agents",
    "**/v1/agents/*",
    "**/v1/environments",
    "**/v1/environments/*",
    "**/v1/vaults",
    "**/v1/memory_stores",
    // https://platform.claude.com/docs/en/api/skills-api
    "**/v1/skills",
    "**/v1/skills/*/versions",
    "**/assistants",
    "**/assistants/*",
    "**/threads",
    "**/threads/*",
    "**/threads/*/messages",
    "**/conversations",
    "**/conversations/*",
    "**/conversations/*/items",
    "**/vector_stores",
    "**/vector_stores/*",
    "**/vector_stores/*/files",
    "**/cachedContents",
    // https://ai.google.dev/gemini-api/docs/batch-api
    "**/*/{model}:asyncBatchEmbedContent",
    "**/batches/{model}:cancel",
    // https://docs.cohere.com/reference/tokenize, …/detokenize
    "/v1/tokenize",
    // https://www.volcengine.com/docs/82379/1528728
    "/api/v3/tokenization",
    // https://ai.google.dev/gemini-api/docs/file-search: a store is free, what is put in it is not.
    "**/fileSearchStores",
    "/v1/detokenize",
    // https://cloud.ibm.com/apidocs/watsonx-ai#text-tokenization
    "/ml/*/text/tokenization",
    "**/vector_stores/*/file_batches",
    "**/vector_stores/*/search",
    // https://platform.openai.com/docs/api-reference/chat/update: of a stored completion.
    "**/chat/completions/*",
    "**/uploads/*/cancel",
    "**/threads/*/messages/*",
    // https://platform.openai.com/docs/api-reference/realtime-sessions: keys for sessions.
    "**/realtime/client_secrets",
    "**/realtime/sessions",
    "**/realtime/transcription_sessions",
    "**/realtime/translations/client_secrets",
];
